"""cluster.tracking: a store's record of a submission sends nobody's token to a place that the store names."""

import json
import re
import shlex
import shutil
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
from messages import refused
from stores import JOB, make, run

from cluster.api.job import Job
from cluster.profiles import RayProfile
from cluster.ray import jobs as rayjobs
from cluster.slurm import client as slurm
from cluster.tracking import STRANGE, State, Submitted, cancel, log_tail, look, own_ray
from jobs import keys
from jobs.errors import JobError
from jobs.run.shards import run_shards
from jobs.run.stop import Stop
from jobs.run.worker import SerialExecutor
from jobs.spec.trust import remember
from jobs.storage import objects
from jobs.storage.lease import SILENT_S, LeaseRecord

RUNS = slurm.Allocation("4712", "RUNNING", "running on n1")


@pytest.fixture
def sent(tmp_path, monkeypatch):
    """Record submissions to Slurm, of which it knows `known`, or cannot be asked; return the store's address."""
    address, home = tmp_path / "a b.zarr", None

    def record(*submissions, known=None):
        nonlocal home
        for k, (number, lines) in enumerate(submissions):
            home = address / "run" / "submit" / str(k)
            home.mkdir(parents=True)
            told = {"id": str(k), "kind": "slurm", "numbers": [number], "home": str(home), "profile": {},
                    "command": "", "submitted": 0.0}  # fmt: skip
            (home / "record.json").write_text(json.dumps(told))
            (home / "allocations.tsv").write_text(
                "".join("\t".join([*line, ""][:4]) + "\n" for line in lines)
            )

        def ask(numbers, **_):
            if known is None:
                raise JobError("squeue: not found")
            # Each prints into the folder of the last submission, unless the test says where.
            there = {"output": f"{home}/slurm-%j.out"}
            return {
                number: replace(a, **there) if not a.output else a for number, a in known.items()
            }

        monkeypatch.setattr(slurm, "allocations", ask)
        return str(address)

    return record


LIMIT = ("4711", [["1", "4711", "started", "n1"], ["2", "4711", "ended", "75"], ["3", "4711", "limit", "1"]])  # fmt: skip
TASKS = [["1", "7_0", "limit", "1"], ["2", "7_1", "started", "n1"], ["3", "7_1", "ended", "0"]]
OTHER_TASK = {"7_1": slurm.Allocation("7_1", "RUNNING", "running on n1")}


@pytest.mark.parametrize(
    ("submissions", "known", "given_up"),
    [
        ([LIMIT], {}, True),
        ([LIMIT], None, True),
        ([LIMIT], {"4711": slurm.Allocation("4711", "COMPLETING", "ending on n1")}, True),
        ([LIMIT, ("4712", [])], {"4712": RUNS}, False),
        ([("7", TASKS)], {}, True),
        ([("7", TASKS[:2])], None, False),
        ([("7", TASKS[:2])], OTHER_TASK, False),
    ],
)
def test_status_says_given_up_of_what_goes_on_no_more(ctd, sent, submissions, known, given_up):
    """Of the latest submission alone, and if no other of its allocations waits or runs."""
    code, out, err = ctd("status", sent(*submissions, known=known))
    assert (code, err) == (0, "")
    assert ("given up: it has used all of its max_allocations" in out) == given_up


@pytest.mark.parametrize("has_store", [False, True])
def test_status_of_what_has_given_up_says_once_what_to_do(ctd, sent, has_store):
    address = sent(LIMIT, known={})
    if has_store:
        make(address, {**JOB, "sweep": {"seeds": 2}})
    out = ctd("status", address)[1]
    assert "given up: it has used all of its max_allocations allocations" in out
    assert re.findall(r"(\w+) +(.* continues it)", out) == [
        ("next", "the same `ctd submit` continues it")
    ]


def test_nothing_is_given_up_that_is_done(ctd, sent, tmp_path):
    """As after `ctd resume` without the cluster. Nor does one wait for what nobody can be asked about."""
    address = sent(LIMIT, ("4712", [["1", "4712", "started", "n1"]]))
    run(address, {**JOB, "sweep": {"seeds": 2}})
    assert Submitted.of(Path(address)).wait(0, every_s=0).store.address == address
    shutil.rmtree(f"{address}/run/submit/1")
    assert "given up" not in ctd("status", address)[1]


@pytest.mark.parametrize("home", [None, "", "/home/me", "/home/me/mine.zarr/run/submit/0"])
def test_cancel_of_another_job(ctd, sent, monkeypatch, home):
    """A stranger's record may name any allocation of the user's, and the folder into which that prints."""
    theirs = slurm.Allocation(
        "4712", "RUNNING", "running on n1", "/home/me/mine.zarr/run/submit/0/slurm-4712.out"
    )
    address = sent(("4712", []), known={"4712": theirs})
    record = Path(address) / "run/submit/0/record.json"
    if home is not None:
        record.write_text(json.dumps(json.loads(record.read_text()) | {"home": home}))
    monkeypatch.setattr(slurm, "command", lambda *words, **_: pytest.fail(f"called: {words}"))
    assert ctd("cancel", address)[0] == 0


ENDED = ("4711", [["1", "4711", "started", "n1"], ["2", "4711", "ended", "75"]])
FAILED = slurm.Allocation("4711", "FAILED", "ended with exit code 75")


@pytest.mark.parametrize(
    ("known", "why"),
    [({"4711": FAILED}, ""), ({}, " (Slurm has forgotten it)"), (None, "squeue: not found")],
)
def test_status_says_that_a_job_was_cancelled(ctd, sent, known, why):
    """Its driver has left its work at a checkpoint, which looks like a failure to Slurm."""
    address = sent(ENDED, known=known)
    (Path(address) / "run/submit/0/cancelled").touch()
    said = "allocation 4711: cancelled; `ctd submit` continues it"
    told = [f"{said}{why}"] if known is not None else [said, why]
    out = ctd("status", address)[1]
    assert [line.split(maxsplit=1)[1] for line in out.splitlines()] == told


@pytest.mark.parametrize("known", [{"4711": FAILED}, {}])
def test_status_says_that_a_chained_allocation_goes_on(sent, known):
    """Slurm takes its exit code, 75, for a failure."""
    lines = [*ENDED[1], ["2", "4711", "chained", "4712"]]
    states = Submitted.of(sent(("4711", lines), known=known)).allocations()
    assert states["4711"].startswith("stopped in order; allocation 4712 goes on")


@pytest.mark.parametrize("silent_s", [5, 134])
def test_status_of_a_dead_driver(ctd, sent, silent_s):
    """Its node is lost, and Slurm does not answer: the store is shown first, then what to type next."""
    address = sent(("4712", [["1", "4712", "started", "n1"]]))
    store, then = make(address, {**JOB, "sweep": {"seeds": 2}}), time.time() - silent_s
    lease = LeaseRecord(
        host="n1", machine="m", pid=7, user="a", generation=0, since=then, renewed=then
    )
    objects.write(store.objects, keys.lease(0), json.dumps(lease.model_dump()).encode())
    told = dict(line.split(maxsplit=1) for line in ctd("status", address)[1].splitlines())
    dead = silent_s > SILENT_S
    rest = ["stopped", "next"] if dead else ["running"]
    assert list(told)[-len(rest) - 1 :] == ["submitted", *rest]
    assert ("seems to be dead" in told.get("stopped", "")) == dead


def test_status_shows_the_newest_submission_and_a_silent_slurm_once(ctd, sent):
    tasks = [["1", f"7_{k}", "started", "n1"] for k in range(3)]
    run(address := sent(LIMIT, ("7", tasks)), {**JOB, "sweep": {"seeds": 2}})
    said = json.loads(ctd("status", address, "--json")[1])["submissions"]
    assert said == [*(f"allocation 7_{k}: started n1" for k in range(3)), "squeue: not found"]


def test_status_tells_many_tasks_of_an_array_together(ctd, sent):
    """Alike but for their nodes; one that failed is told by itself."""
    tasks = [["1", f"7_{k}", "started", f"n{k}"] for k in range(20)]
    known = {f"7_{k}": slurm.Allocation(f"7_{k}", "RUNNING", f"running on n{k}") for k in range(10)}
    known["7_3"] = slurm.Allocation("7_3", "NODE_FAIL", "lost a node")
    address = sent(("7", tasks), known=known)
    assert [line.split(maxsplit=1)[1] for line in ctd("status", address)[1].splitlines()] == [
        "9 allocations like allocation 7_0: running on n0",
        "allocation 7_3: lost a node",
        "10 allocations like allocation 7_10: started n10 (Slurm has forgotten it)",
    ]
    assert len(json.loads(ctd("status", address, "--json")[1])["submissions"]) == 20


@pytest.mark.parametrize(
    ("stopped", "cancelled", "said"),
    [
        ("SIGUSR1", False, "running starts again, after its time limit or a preemption"),
        ("SIGTERM", False, "running starts again; before, it was stopped: SIGTERM"),
        ("SIGTERM", True, "stopped SIGTERM"),
        ("SIGTERM", "by scancel", "stopped SIGTERM"),
        ("SIGTERM", None, "stopped SIGTERM; goes on once an allocation begins"),
        (
            "SIGUSR1",
            None,
            "stopped by its time limit or a preemption; goes on once an allocation begins",
        ),
    ],
)
def test_status_says_that_a_stopped_run_starts_again(ctd, sent, stopped, cancelled, said):
    """While its allocation runs or waits and has no driver yet. cancelled: None where it waits."""
    others = {None: ("PENDING", "waiting"), "by scancel": ("CANCELLING", "ending on n1")}
    state, text = others.get(cancelled, (RUNS.state, RUNS.text))
    now = replace(RUNS, state=state, text=text)
    address = sent(("4712", [["1", "4712", "started", "n1"]]), known={"4712": now})
    stop = Stop()
    stop.ask(stopped)
    run_shards(make(address, {**JOB, "sweep": {"seeds": 2}}), SerialExecutor(1), stop=stop)
    if cancelled is True:
        (Path(address) / "run/submit/0/cancelled").touch()
    told = dict(line.split(maxsplit=1) for line in ctd("status", address)[1].splitlines())
    assert [(key, told[key]) for key in ("running", "stopped") if key in told] == [tuple(said.split(maxsplit=1))]  # fmt: skip
    assert told["submitted"].endswith("stopping on n1" if cancelled is True else now.text)


@pytest.mark.parametrize(
    ("lines", "over"),
    [
        ([], False),
        (["started n1"], False),
        (["started n1", "ended 0"], True),
        (["started n1", "ended 75", "requeued "], False),
        (["started n1", "ended 75", "chained 4712"], False),
        (["cancelled "], True),
        (["stuck "], True),
        (["ended 75"], False),
    ],
)
def test_wait_ends_where_slurm_cannot_be_asked(sent, lines, over):
    """By what the allocations wrote; one that has just ended with 75 is about to say what comes next."""
    now = str(int(time.time()))
    address = sent(("4711", [[now, "4711", *line.split(" ")] for line in lines]))
    with refused(JobError if over else TimeoutError):
        Submitted.of(address).wait(-1, every_s=0)


def test_an_allocation_that_ended_long_ago_hands_over_no_more(sent):
    address = sent(("4711", [["1", "4711", "ended", "75"]]))
    with refused(JobError):
        Submitted.of(address).wait(0)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "Slurm cannot be asked from here; it ends when it starts"),
        ([["1", "4711", "started", "n1"]], "Slurm cannot be asked from here; no other one follows it"),
        ([["1", "4711", "ended", "0"]], None),
    ],
)  # fmt: skip
def test_cancel_where_slurm_cannot_be_asked(ctd, sent, lines, said):
    """A job that waits has no store yet: that is no fault."""
    address = sent(("4711", lines))
    code, out, err = ctd("cancel", address)
    told = f"allocation 4711: {said}\n" if said else f"{address}: nothing runs\n"
    assert (code, out, err) == (0, told, "")
    assert (Path(address) / "run/submit/0/cancelled").exists()


def test_cancel_of_a_submitted_run_says_that_submit_goes_on(ctd, sent, monkeypatch):
    """`ctd resume` would compute on the login node."""
    address = sent(("4712", [["1", "4712", "started", "n1"]]), known={"4712": RUNS})
    make(address, {**JOB, "sweep": {"seeds": 2}})
    monkeypatch.setattr(slurm, "command", lambda *_: "")
    monkeypatch.setattr("cluster.cli.recovery.ask_to_stop", lambda _: object())
    monkeypatch.setattr("cluster.cli.recovery.describe", lambda _: "process 5 on n1")
    said = "stopped process 5 on n1; the same `ctd submit` continues it"
    assert ctd("cancel", address)[1].splitlines()[-1] == said


def test_run_is_refused_while_an_allocation_waits(ctd, sent, tmp_path, monkeypatch):
    """It would take the store from it; but the driver of the allocation is such a command."""
    (tmp_path / "job.yaml").write_text(json.dumps({**JOB, "sweep": {"seeds": 2}}))
    queued = slurm.Allocation("4712", "PENDING", "waiting: Priority")
    address = sent(("4712", []), known={"4712": queued})
    job = ("run", tmp_path / "job.yaml", "--store", address, "--executor", "serial")
    code, _, err = ctd(*job)
    assert (code, "allocation 4712 of submission 0 is waiting: Priority; wait for it" in err) == (2, True)  # fmt: skip
    with refused(JobError):
        Job("toy").run(address, executor="serial")
    monkeypatch.setenv("CTD_PROGRESS", str(tmp_path / "progress"))
    assert ctd(*job)[0] == 0


def test_resume_of_a_submission_without_a_store_says_that_submit_continues_it(ctd, sent):
    code, _, err = ctd("resume", sent(LIMIT, known={}))
    said = "its submission has made no store; the same `ctd submit` continues it"
    assert (code, said in err) == (2, True)


@pytest.mark.parametrize("waits", [True, False])
def test_resume_says_that_an_allocation_waits(ctd, sent, monkeypatch, waits):
    """It computes on the login node what the allocation would compute."""
    queued = slurm.Allocation("4712", "PENDING", "waiting: Priority")
    address = sent(LIMIT, ("4712", []), known={"4712": queued} if waits else {})
    make(address, {**JOB, "sweep": {"seeds": 2}})
    monkeypatch.setattr("cluster.cli.outcome.draw", lambda *_: [])
    code, _, err = ctd("resume", address, "--executor", "serial")
    said = "warning: allocation 4712: waiting: Priority; this computes here, the same `ctd submit` computes on the cluster\n"
    assert (code, err.count("warning: "), said in err) == (0, waits, waits)


@pytest.mark.parametrize(
    ("complaint", "state", "code"),
    [
        ("Invalid job id specified", None, 0),
        ("", "CANCELLED", 0),  # scancel may fail without a word
        ("Job/step already completing or completed", "COMPLETING", 0),
        ("Access denied", "RUNNING", 2),
    ],
)
def test_cancel_of_an_allocation_that_ends_meanwhile(
    ctd, sent, monkeypatch, complaint, state, code
):
    known = {"4711": replace(RUNS, number="4711")}

    def refuses(program, *_):
        known.clear()
        if state:
            known["4711"] = slurm.Allocation("4711", state, "")
        raise slurm.SlurmError(program, complaint)

    address = sent(("4711", [["1", "4711", "started", "n1"]]), known=known)
    monkeypatch.setattr(slurm, "command", refuses)
    found, out, err = ctd("cancel", address)
    assert (found, "4711: has ended meanwhile" in out, f"scancel: {complaint}" in err) == (
        code,
        not code,
        bool(code),
    )


def test_tasks_that_slurm_has_forgotten_stay_in_the_status(sent):
    lines = [*TASKS, ["4", "7_2", "started", "n2"]]
    states = Submitted.of(sent(("7", lines), known=OTHER_TASK)).allocations()
    assert states == {"7_0": "limit 1 (Slurm has forgotten it)", "7_1": "running on n1",
                      "7_2": "started n2 (Slurm has forgotten it)"}  # fmt: skip


UNSEEN = "nothing that it wrote has arrived here: do the nodes see STORE?"


@pytest.mark.parametrize(
    ("state", "cancelled", "said"),
    [
        ("PENDING", False, "nothing was printed yet; `ctd status 'STORE'` says what the job waits for"),
        ("FAILED", False, f"nothing was printed: allocation 4711: failed; {UNSEEN}"),
        ("CANCELLED", True, "nothing was printed: allocation 4711: cancelled"),
        ("", True, "nothing was printed: allocation 4711: cancelled; `ctd submit` continues it (Slurm has forgotten it)"),
        ("", False, f"nothing was printed: allocation 4711: it never started, or {UNSEEN} (Slurm has forgotten it)"),
    ],
)  # fmt: skip
def test_logs_of_a_job_that_printed_nothing(ctd, sent, state, cancelled, said):
    known = {"4711": slurm.Allocation("4711", state, state.lower())} if state else {}
    address = sent(("4711", []), known=known)
    if cancelled:
        (Path(address) / "run/submit/0/cancelled").touch()
    assert ctd("logs", address) == (0, said.replace("STORE", address) + "\n", "")
    told = said.rpartition("printed: ")[2] if "printed:" in said else "allocation 4711: pending"
    assert ctd("status", address)[1].split(maxsplit=1)[1] == told.replace("STORE", address) + "\n"


def test_logs_of_an_array_show_each_of_its_tasks(ctd, sent):
    home = Path(address := sent(("7", TASKS), known={})) / "run/submit/0"
    (home / "allocation.sbatch").write_text("#!/bin/bash -l\n#SBATCH --array=0-2\n")
    (home / "slurm-7_0.out").write_text("one\ntwo\n")
    (home / "slurm-7_2.out").write_text("three\n")
    out = ctd("logs", address)[1].replace(f"{home}/", "")
    silent = "--- slurm-7_1.out: nothing was printed yet"
    assert out.splitlines() == ["--- slurm-7_0.out", "one", "two", silent, "--- slurm-7_2.out", "three"]  # fmt: skip


@pytest.mark.parametrize(
    ("state", "word", "printed", "said"),
    [
        ("RUNNING", "started", "2026-03-01 12:00:00 [4711] starting Ray on n1", "x: starting Ray on n1"),
        ("RUNNING", "started", "2026-03-01 12:00:00 [4711] Ray at n1\nplanning", "x: planning"),
        ("RUNNING", "started", "", "x"),
        ("FAILED", "ended", "2026-03-01 12:00:00 [4711] work_dir: /w is not there on n1", "x: work_dir: /w is not there on n1"),
        ("FAILED", "ended", "no such job\n2026-03-01 12:00:00 [4711] ended with 2 after 3 s", "x: see `ctd logs 'STORE'`"),
        ("FAILED", "ended", "planning\nerror: run: a\n2026-03-01 12:00:00 [4711] ended with 2 after 3 s", "x: error: run: a"),
        ("", "ended", "error: run: a", "ended 2: error: run: a (Slurm has forgotten it)"),
    ],
)  # fmt: skip
def test_status_says_what_an_allocation_says_itself(sent, state, word, printed, said):
    """Its driver, once that prints lines and until there is a store; of one that failed, why."""
    known = {"4711": slurm.Allocation("4711", state, "x")} if state else {}
    address = sent(("4711", [["1", "4711", word, "2"]]), known=known)
    (Path(address) / "run/submit/0/slurm-4711.out").write_text(printed + "\n")
    assert Submitted.of(address).allocations() == {"4711": said.replace("STORE", address)}


@pytest.mark.parametrize("options", [["--json"], ["--item", "0"]])
def test_events_of_a_job_without_a_store_are_none(ctd, sent, options):
    code, out, err = ctd("logs", address := sent(("4711", []), known={}), *options)
    assert (code, out) == (2, "")
    assert f"its submission has made no store; `ctd logs {shlex.quote(address)}` has what" in err


GONE = {"kind": "ray", "address": "127.0.0.1:9", "dashboard": "http://127.0.0.1:9"}


def test_a_ray_that_is_gone_keeps_nothing_else_from_being_cancelled(sent, monkeypatch):
    address = sent(
        ("4711", [["1", "4711", "started", "n1"]]), known={"4711": replace(RUNS, number="4711")}
    )
    home = Path(address) / "run/submit/1"
    record = {"id": "1", "kind": "ray", "numbers": ["ctd-1"], "home": "", "profile": GONE,
              "command": "", "submitted": 1.0}  # fmt: skip
    home.mkdir()
    (home / "record.json").write_text(json.dumps(record))
    remember(*RayProfile.model_validate(GONE).jobs_api())
    asked = []
    monkeypatch.setattr(slurm, "command", lambda *words: asked.append(words) or "")
    said = {line.partition(":")[0]: line for line in cancel(address)}
    assert sorted(said) == ["allocation 4711", "job ctd-1"]
    assert "not told to stop" in said["job ctd-1"]
    assert [words[0] for words in asked] == ["scancel"]
    assert "is not known" in log_tail(address)


def test_waiting_tasks_of_an_array_are_cancelled_before_those_that_run(sent, monkeypatch):
    """While a task waits, scancel sends its signal to a running one again and again."""
    waits = slurm.Allocation("7_[2-3]", "PENDING", "waiting")
    known = {"7_1": replace(RUNS, number="7_1"), waits.number: waits}
    address = sent(("7", [["1", "7_1", "started", "n1"]]), known=known)
    asked = []
    monkeypatch.setattr(slurm, "command", lambda *words: asked.append(words[-1]) or "")
    cancel(address)
    assert asked == ["7_[2-3]", "7_1"]


def test_one_question_without_an_answer_fails_no_submission(monkeypatch):
    """The job is sent: it is asked again for the versions that it compares."""
    answers = [RuntimeError("502: Bad Gateway"), SimpleNamespace(status=None)]

    class Api:
        def submit_job(self, submission_id, **_):
            return submission_id

        def get_job_info(self, number):
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        def get_job_logs(self, number):
            return rayjobs.AGREE

    monkeypatch.setattr("ray.job_submission.JobSubmissionClient", lambda url: Api())
    monkeypatch.setattr("cluster.ray.jobs.knock", lambda address: None)
    profile = RayProfile(kind="ray", address="h:6379", installed=True)
    assert rayjobs.submit("/tmp", profile, "x", "ctd-9", "cluster dept", lambda: None) == "ctd-9"
    assert not answers


def test_ctrl_c_while_versions_are_compared_stops_the_job(monkeypatch):
    """No store records it yet, by which `ctd cancel` would find it."""
    stopped = []

    class Api:
        def submit_job(self, submission_id, **_):
            return submission_id

        def get_job_info(self, number):
            raise KeyboardInterrupt

        def stop_job(self, number):
            stopped.append(number)

    monkeypatch.setattr("ray.job_submission.JobSubmissionClient", lambda url: Api())
    monkeypatch.setattr("cluster.ray.jobs.knock", lambda address: None)
    profile = RayProfile(kind="ray", address="h:6379", installed=True)
    with pytest.raises(KeyboardInterrupt):
        rayjobs.submit("/tmp", profile, "x", "ctd-9", "cluster dept", lambda: None)
    assert stopped == ["ctd-9"]


def failed(message):
    return SimpleNamespace(
        status=SimpleNamespace(value="FAILED", is_terminal=lambda: True), message=message
    )


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (failed("exit code 2, last available logs (truncated):\nplanning\nerror: no disk\n"), "failed: exit code 2: error: no disk"),
        (failed(""), "failed: "),
        (requests.ConnectionError("Connection aborted."), "the Jobs API of Ray: Connection aborted."),
    ],
)  # fmt: skip
def test_state_of_a_ray_job_is_one_line(monkeypatch, answer, said):
    """Of what the job has printed, its error at most. A dashboard may end in mid-answer."""

    class Api:
        def get_job_info(self, number):
            if isinstance(answer, Exception):
                raise answer
            return answer

    monkeypatch.setattr("ray.job_submission.JobSubmissionClient", lambda url: Api())
    monkeypatch.setattr("cluster.ray.jobs.knock", lambda address: None)
    profile = RayProfile(kind="ray", address="h:6379")
    try:
        found = rayjobs.state(profile, "ctd-9")[0]
    except JobError as error:
        found = str(error).removeprefix("http://h:8265: ")
    assert found == said


@pytest.fixture
def listener():
    """A port that notes whoever connects."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        calls = []

        def listen():
            while True:
                try:
                    calls.append(server.accept()[0])
                except OSError:
                    return

        threading.Thread(target=listen, daemon=True).start()
        yield server.getsockname()[1], calls


def test_a_strangers_ray_is_not_asked(tmp_path, monkeypatch, listener):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    port, calls = listener
    token = tmp_path / "token"
    token.write_text("secret")
    profile = {"kind": "ray", "address": f"127.0.0.1:{port}", "dashboard": f"http://127.0.0.1:{port}",
               "token": str(token)}  # fmt: skip
    store = make(tmp_path / "s.zarr")
    record = {"id": "1", "kind": "ray", "numbers": ["ctd-1"], "home": "", "profile": profile,
              "command": "", "submitted": 0.0}  # fmt: skip
    objects.write(store.objects, keys.submission("1"), json.dumps(record).encode())
    ((submission, states),) = look(store.address)
    assert states == {"ctd-1": State("not known", False, unasked=STRANGE)}
    assert cancel(store.address) == [f"job ctd-1: not told to stop: {STRANGE}"]
    assert log_tail(store.address) == ""
    assert calls == []
    # One's own profile, or a job that one has sent there.
    folder = tmp_path / "settings" / "ctd" / "clusters"
    folder.mkdir(parents=True)
    (folder / "lab.yaml").write_text(json.dumps({**profile, "stores": "/data"}))
    assert own_ray(submission)
    (folder / "lab.yaml").write_text(json.dumps({**profile, "token": None}))
    assert not own_ray(submission)
    remember(*RayProfile.model_validate(profile).jobs_api())
    assert own_ray(submission)
