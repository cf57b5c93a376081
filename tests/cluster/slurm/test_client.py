"""Slurm's answers in words, by recorded and made-up answers of its commands."""

import json
import os
import time
from types import SimpleNamespace

import pytest
from messages import refused

from cluster.profiles import SlurmProfile
from cluster.slurm import client as slurm
from jobs.errors import JobError


def pending(reason, **fields):
    return {
        "job_id": 7, "job_state": ["PENDING"], "state_reason": reason, "partition": "gpu", "nodes": "",
        "tres_req_str": "cpu=8,mem=9G,node=2,billing=8,gres/gpu=4",
        "start_time": {"set": False, "infinite": False, "number": 0}, **fields,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        (pending("Resources"), "waiting for 4 GPUs in partition gpu"),
        (pending("Resources", tres_req_str="cpu=1,node=1"), "waiting for 1 node in partition gpu"),
        (
            pending("Priority", start_time={"set": True, "infinite": False, "number": 86400 * 365}),
            "waiting behind jobs of higher priority in partition gpu, estimated start 1971-01-01 0",
        ),
        (pending("QOSMaxGRESPerUser"), "waiting: a limit of your account or qos is reached (QOSMax"),
        (pending("PartitionTimeLimit"), "waiting for ever: its time limit is over that of partition"),
        (pending("SomethingNew"), "waiting (SomethingNew)"),
        (pending("None"), "waiting to be looked at"),
        ({**pending("None"), "job_state": ["RUNNING", "COMPLETING"]}, "ending on no node"),
        ({**pending("None"), "job_state": ["CANCELLED", "COMPLETING"]}, "cancelled, ending on no node"),
        ({**pending("None"), "job_state": "TIMEOUT"}, "stopped by its time limit"),
        (
            {**pending("None"), "job_state": ["FAILED"],
             "exit_code": {"return_code": {"set": True, "infinite": False, "number": 75}}},
            "ended with exit code 75",
        ),
        (
            {**pending("None"), "job_state": ["FAILED"],
             "exit_code": {"return_code": {"set": False}, "signal": {"id": {"set": True, "number": 15}}}},
            "ended by signal 15",
        ),
        ({**pending("None"), "job_state": ["RUNNING", "CONFIGURING"], "nodes": "n2"}, "waiting for n2 to boot"),
        ({**pending("None"), "job_state": ["NODE_FAIL"], "nodes": "n2"}, "lost a node (n2)"),
    ],
)  # fmt: skip
def test_states_in_words(entry, text, monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    assert slurm.translate(entry).text.startswith(text)


def fake(folder, monkeypatch, name, text):
    program = folder / name
    program.write_text(f"#!/bin/bash\n{text}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_busy_controller_is_asked_again(tmp_path, monkeypatch):
    """The third answer counts; the waits before it are 1 and 2 s."""
    waits = []
    monkeypatch.setattr(slurm, "time", SimpleNamespace(sleep=waits.append))
    fake(tmp_path, monkeypatch, "squeue", f"""
        echo x >>{tmp_path}/asked
        [ $(wc -l <{tmp_path}/asked) -gt 2 ] && echo '{{"jobs": []}}' && exit
        echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1""")  # fmt: skip
    assert slurm.allocations(["1", "2"]) == {}
    assert waits == [1.0, 2.0]


@pytest.mark.parametrize(
    "answer", ["exec sleep 9", "echo 'Unable to contact slurm controller' >&2; exit 1"]
)
def test_a_look_asks_slurm_once(tmp_path, monkeypatch, answer):
    """A controller that is down, or does not answer: nobody waits for it."""
    monkeypatch.setattr(slurm, "LOOK_S", 0.3)
    monkeypatch.setattr(slurm, "time", None)  # no pause
    fake(tmp_path, monkeypatch, "squeue", f"echo x >>{tmp_path}/asked; {answer}")
    with pytest.raises(slurm.SlurmError) as error:
        slurm.allocations(["1"], patient=False)
    assert error.value.unreached
    assert (tmp_path / "asked").read_text() == "x\n"


def test_slurm_conf_that_points_nowhere_is_told_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
    monkeypatch.setattr(slurm.subprocess, "run", None)  # Slurm's own commands would wait a minute
    with refused(slurm.SlurmError) as found:
        slurm.allocations(["1"])
    assert found.value.unreached


@pytest.mark.parametrize(
    "complaint",
    [
        "Invalid account or account/partition combination specified",
        "Invalid qos specification",
        "Requested time limit is invalid (missing or exceeds some limit)",
        "Unspeakable",
        "DNS SRV lookup failed\nsbatch: fatal: Could not establish a configuration source",
    ],
)
def test_refusals_of_sbatch_in_words(tmp_path, monkeypatch, complaint):
    """Also where it is only asked whether Slurm would take it."""
    fake(tmp_path, monkeypatch, "sbatch", f"echo 'sbatch: error: {complaint}' >&2; exit 1")
    profile = SlurmProfile(kind="slurm", memory_gb=1, time=60)
    with refused(JobError):
        slurm.submit("#!/bin/bash\n", profile, "x", "/s/1")
    with refused(JobError):
        slurm.try_out("#!/bin/bash\n", profile, "x")


def test_nodes_that_are_busy_are_no_refusal(tmp_path, monkeypatch):
    fake(tmp_path, monkeypatch, "sbatch", """
        [ "$1" = --test-only ] || exit 9
        echo 'allocation failure: Requested nodes are busy' >&2; exit 1""")  # fmt: skip
    slurm.try_out("#!/bin/bash\n", SlurmProfile(kind="slurm", memory_gb=1, time=60), "x")


def test_waiting_tasks_have_a_label_that_scancel_takes():
    """Without the number that may run at a time."""
    job = {"job_id": 8, "array_task_string": "1-3%2", "job_state": ["PENDING"], "partition": "p"}
    assert slurm.translate(job).number == "8_[1-3]"


def partition(name, minutes=None, accounts="", nodes=2):
    limit = {"set": minutes is not None, "number": minutes or 0}
    return {"name": name, "maximums": {"time": limit}, "accounts": {"allowed": accounts},
            "nodes": {"total": nodes}}  # fmt: skip


PARTITIONS = [partition("debug", 30), partition("long"), partition("members", accounts="neuro")]
OVER = "x: time: 60 is over the limit of partition debug, 30 minutes"


@pytest.mark.parametrize(
    ("wanted", "nodes", "said"),
    [
        ("long", 1, ""),
        ("debug,long", 1, ""),
        ("debug", 1, OVER),
        # Slurm knows which accounts are the user's.
        ("debug,members", 1, ""),
        ("long", 3, "x: nodes: 3 wanted, partition long has 2"),
        ("long,debgu", 1, "x: partition: there is no 'debgu'; did you mean 'debug'?"),
    ],
)
def test_one_of_several_partitions_is_enough(tmp_path, monkeypatch, wanted, nodes, said):
    fake(tmp_path, monkeypatch, "scontrol", f"echo '{json.dumps({'partitions': PARTITIONS})}'")
    profile = SlurmProfile(kind="slurm", memory_gb=1, time=60, partition=wanted, nodes=nodes)
    found = ""
    try:
        slurm.check_partition(profile, "x")
    except JobError as error:
        found = str(error)
    assert found == said


def test_a_qos_may_have_a_limit_of_its_own(tmp_path, monkeypatch):
    fake(tmp_path, monkeypatch, "scontrol", f"echo '{json.dumps({'partitions': PARTITIONS})}'")
    profile = SlurmProfile(kind="slurm", memory_gb=1, time=60, partition="debug", qos="long")
    slurm.check_partition(profile, "x")


LATE = "Batch job submission failed: Socket timed out on send/recv operation"


@pytest.mark.parametrize(
    ("complaint", "queued", "asked", "number"),
    [
        (LATE, {"job_id": 7}, 1, "7"),
        (LATE, {"job_id": 8, "array_task_string": "0-1"}, 1, "8"),
        (LATE, {"job_id": 6, "standard_output": "/s/5%%j/slurm-%j.out"}, 1, "6"),
        (LATE, {"job_id": 9, "standard_output": "/s/5%j1/slurm-%j.out"}, 1, None),
        (LATE, None, 1, None),
        ("Unable to contact slurm controller (connect failure)", None, slurm.TRIES, "5"),
    ],
    ids=["queued", "array", "as written", "another job", "squeue fails", "not sent"],
)
def test_job_that_may_be_queued_is_looked_for_and_not_sent_again(
    tmp_path, monkeypatch, complaint, queued, asked, number
):
    """A controller that answers late may have taken it; one that is not reached has not."""
    monkeypatch.setattr(slurm, "time", SimpleNamespace(sleep=lambda seconds: None))
    fake(tmp_path, monkeypatch, "sbatch", f"""
        echo x >>{tmp_path}/asked
        [ $(wc -l <{tmp_path}/asked) -gt 3 ] && echo '5;lab' && exit
        echo 'sbatch: error: {complaint}' >&2; exit 1""")  # fmt: skip
    jobs = {"jobs": [{"standard_output": "/s/5%j/slurm-%j.out", **(queued or {})}]}
    fake(tmp_path, monkeypatch, "squeue", f"echo '{json.dumps(jobs)}'; exit {0 if queued else 1}")
    send = lambda: slurm.submit(
        "#!/bin/bash\n", SlurmProfile(kind="slurm", memory_gb=1, time=60), "cluster lab", "/s/5%j"
    )
    if number:
        assert send() == number
    else:
        with refused(JobError):
            send()
    assert len((tmp_path / "asked").read_text().split()) == asked


def test_no_slurm_here(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with refused(JobError):
        slurm.allocations(["1"])
