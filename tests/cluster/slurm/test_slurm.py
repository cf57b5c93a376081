"""Jobs on a real Slurm: two nodes with their own network, processes and /tmp (tests/slurm_lab)."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import slurm_lab
import toy
from waiting import until

from cluster.profiles import SlurmProfile
from cluster.slurm import client as slurm
from cluster.submission import submissions
from cluster.submit import read_order, submit, text_of
from cluster.tracking import cancel, log_tail, look
from jobs import Store, open_store
from jobs.errors import JobError
from jobs.run.executor import SerialExecutor
from jobs.run.prepare import open_or_create
from jobs.run.shards import run_shards
from jobs.spec.job import read_job
from jobs.store.events import read_events

reason = slurm_lab.missing()
needs_slurm = pytest.mark.skipif(bool(reason), reason=f"no Slurm here: {reason}")

# The walk of the toy kernel, with a pause in every advance: long enough to be interrupted.
KERNEL = """
import time

import jax
import jax.numpy as jnp
import numpy as np
import toy
from dataclasses import replace
from ctd.kernel import Traced


class Slow(toy.Walk):
    pause: Traced[float] = 0.0


def advance(static, shared, traced, key, state):
    def sleep(seconds):
        time.sleep(float(seconds))
        return np.int32(0)

    zero = jax.pure_callback(
        sleep, jax.ShapeDtypeStruct((), jnp.int32), traced.pause, vmap_method="sequential"
    )
    state = toy.advance(static, shared, traced, key, state)
    return {**state, "step": state["step"] + zero}


kernel = replace(toy.kernel, Params=Slow, advance=advance)
"""

JOB = """
kernel: slow_walk
seed: {seed}
params: {{n_steps: {steps}, pause: {pause}}}
sweep: {{grid: {{rate: {{linspace: [-0.5, 0.5, {items}]}}}}}}
run: {{shard_items: 2, slots: 2, microbatch: 1, checkpoint_s: 2, grace_s: 20}}
"""


@pytest.fixture(scope="module")
def nodes():
    with tempfile.TemporaryDirectory(prefix="ctdlab-", dir="/tmp") as folder:
        shared = Path(folder) / "shared"
        shared.mkdir()
        (shared / "slow_walk.py").write_text(KERNEL)
        (shared / "toy.py").write_text(Path(toy.__file__).read_text())
        with slurm_lab.Lab(Path(folder), slurm_lab.shared_folders()) as lab:
            lab.shared = shared
            before = {name: os.environ.get(name) for name in lab.environment}
            os.environ.update(lab.environment)
            yield lab
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})


@pytest.fixture
def lab(nodes):
    """The cluster, with nothing left of this test for the next one, however it ends."""
    yield nodes
    nodes.clear()


def profile(lab, name="lab", **changes):
    """A profile's file."""
    content = {
        "kind": "slurm", "partition": "debug", "nodes": 1, "cpus": 1, "memory_gb": 2, "time": "0:10:00",
        "grace_s": 60, "work_dir": str(lab.shared / "work"), **changes,
    }  # fmt: skip
    path = lab.shared / f"{name}.yaml"
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
    return str(path)


def job(lab, name, seed=5, items=4, steps=7, pause=0.0):
    path = lab.shared / f"{name}.yaml"
    path.write_text(JOB.format(seed=seed, items=items, steps=steps, pause=pause))
    return path


def send(lab, path, **changes):
    """Submit; (the address of the store, the allocation)."""
    submission = submit(read_order(path, profile(lab, f"for-{path.stem}", **changes)))
    return str(path.with_suffix(".zarr")), submission.numbers[0]


def ctd(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "cluster.cli.main", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def state(number):
    return slurm.allocations([number])[number].state


def history(address):
    return [line[2] for line in submissions(address)[-1].history()]


def finish(address, number, seconds=240):
    try:
        until(lambda: slurm.allocations([number])[number].is_over, "the allocation ends", seconds)
    except TimeoutError:
        print(log_tail(address, 200))
        raise


def assert_same_as_here(lab, path, address):
    """Every result array holds the bytes that the serial executor computes on this machine."""
    spec = read_job(path)
    here = str(path.with_suffix(".serial.zarr"))
    shutil.rmtree(here, ignore_errors=True)
    executor = SerialExecutor(1)
    local = open_or_create(
        spec.model_copy(update={"params": {**spec.params, "pause": 0.0}}),
        str(lab.shared), "job", here, executor,
    )  # fmt: skip
    assert not run_shards(local, executor).failed
    there = Store.open(address)
    assert there.done() == local.done() != set(), log_tail(address, 200)
    for name in [*local.names(0), "status"]:
        a, b = np.asarray(local.array(0, name)[:]), np.asarray(there.array(0, name)[:])
        assert a.tobytes() == b.tobytes(), name


def nothing_left(lab, number):
    """No process and no file of the allocation on any node, no token on the shared file system."""
    for node in range(1, lab.nodes + 1):
        until(lambda n=node: "ray" not in lab.processes(n), f"no Ray on n{node}", 60)
        assert not list(lab.tmp(node).glob("ctd-*")), list(lab.tmp(node).glob("*"))
    assert not list((lab.shared / "work").glob(f"token-{number}"))


@needs_slurm
@pytest.mark.slow
def test_two_submissions_on_the_same_nodes(lab):
    """Both run at once on both nodes, end with the bytes of a local run, and leave nothing behind."""
    # Four shards of some 6 s each: there is one left for the node whose worker is ready later.
    jobs = [job(lab, name, seed, items=8, pause=1.0) for name, seed in (("a", 1), ("b", 2))]
    sent = [send(lab, path, nodes=2) for path in jobs]
    both = lambda: all("Ray at" in log_tail(address, 50) for address, _ in sent)
    until(both, "both have a Ray", 180)
    assert [state(number) for _, number in sent] == ["RUNNING", "RUNNING"]
    for path, (address, number) in zip(jobs, sent, strict=True):
        finish(address, number)
        assert history(address) == ["started", "ended"], log_tail(address, 200)
        assert state(number) == "COMPLETED"
        assert_same_as_here(lab, path, address)
        assert {marker.host for marker in Store.open(address).markers()} == {"n1", "n2"}
    for _, number in sent:
        nothing_left(lab, number)


@needs_slurm
@pytest.mark.slow
@pytest.mark.parametrize("go_on", ["requeue", "chain"])
def test_time_limit(lab, go_on):
    """Near the limit the run is checkpointed, and another allocation ends it with the same bytes."""
    path = job(lab, f"limit-{go_on}", items=2, steps=90, pause=1.6)
    address, number = send(lab, path, time=2, grace_s=30, go_on=go_on)
    newest = lambda: submissions(address)[-1].all_numbers()[-1]

    def over():  # a newer allocation may come between two lines
        known = slurm.allocations([last := newest()])
        return last in known and known[last].is_over and history(address)[-1:] == ["ended"]

    # On a busy machine two allocations may not be enough.
    until(over, "the last allocation ends", 600)
    last = newest()
    assert (last == number) == (go_on == "requeue")
    events = history(address)
    again = "requeued" if go_on == "requeue" else "chained"
    assert events[:3] == ["started", "ended", again], log_tail(address, 200)
    assert events[-1] == "ended"
    assert state(last) == "COMPLETED", log_tail(address, 200)
    assert_same_as_here(lab, path, address)
    stopped = [e for e in read_events(Store.open(address)) if e["event"] == "stopped"]
    assert stopped, "the running shard was left at a checkpoint"
    nothing_left(lab, number)


@needs_slurm
@pytest.mark.slow
def test_array_shares_the_store(lab):
    """Single-node heads deal the shards out among themselves; each shard is computed once."""
    path = job(lab, "array", items=16, steps=12, pause=1.0)
    order = read_order(path, profile(lab, "array-lab"), array=2)
    submission, text = submit(order), text_of(order)
    assert "#SBATCH --array=0-1\n" in text
    address, number = str(path.with_suffix(".zarr")), submission.numbers[0]
    ((_, states),) = look(address)
    assert all(label.startswith(f"{number}_") for label in states)
    done = lambda: all(state.is_over for state in look(address)[0][1].values())
    until(done, "all allocations end", 240)
    ((_, states),) = look(address)
    assert {label: state.state for label, state in states.items()} == {
        f"{number}_0": "COMPLETED",
        f"{number}_1": "COMPLETED",
    }, log_tail(address, 200)
    assert_same_as_here(lab, path, address)
    store = Store.open(address)
    assert len({(m.host, m.pid) for m in store.markers()}) == 2
    events = [e["shard"] for e in read_events(store) if e["event"] == "done"]
    assert sorted(events) == list(range(store.job.plan.n_shards))
    assert open_store(address)["gathered/0"].best_norm.size == 3
    nothing_left(lab, number)


@needs_slurm
@pytest.mark.slow
def test_preemption(lab):
    """A job of higher priority takes the nodes; the run is checkpointed, requeued and ends."""
    path = job(lab, "preempted", items=2, steps=60, pause=1.0)
    address, number = send(lab, path, partition="low", memory_gb=7, grace_s=40)
    until(lambda: Store.exists(address) and list((Path(address) / "run").glob("checkpoints/*")),
          "a checkpoint", 120)  # fmt: skip
    urgent = lab.run(
        "sbatch", "--parsable", "--partition=urgent", "--nodes=2", "--mem=7000M", "--output=/dev/null",
        "--wrap", "sleep 5",
    ).strip()  # fmt: skip
    until(lambda: state(urgent) == "COMPLETED", "the urgent job runs", 90)
    until(lambda: history(address).count("started") == 2, "the run starts again", 150)
    finish(address, number)
    assert_same_as_here(lab, path, address)
    nothing_left(lab, number)


@needs_slurm
@pytest.mark.slow
def test_node_killed(lab):
    """Slurm notices, requeues the allocation, and the run goes on when the node is back."""
    path = job(lab, "killed", items=4, steps=45, pause=1.0)
    address, number = send(lab, path, nodes=2)
    until(lambda: Store.exists(address) and list((Path(address) / "run").glob("checkpoints/*")),
          "a checkpoint", 120)  # fmt: skip
    lab.kill_node(2)
    until(lambda: state(number) != "RUNNING", "Slurm notices", 120)
    lab.start_node(2)
    until(lambda: history(address).count("started") == 2, "the run starts again", 180)
    finish(address, number)
    assert_same_as_here(lab, path, address)
    nothing_left(lab, number)


@needs_slurm
@pytest.mark.slow
def test_cancel(lab):
    """The run is left at a checkpoint, resumable; nothing of it is left on the nodes."""
    path = job(lab, "cancelled", items=2, steps=300, pause=1.0)
    address, number = send(lab, path)
    waiting = submit(read_order(job(lab, "waiting"), profile(lab, "later", sbatch=["--hold"])))
    until(lambda: Store.exists(address) and list((Path(address) / "run").glob("checkpoints/*")),
          "a checkpoint", 120)  # fmt: skip
    with pytest.raises(JobError, match=f"allocation {number} of .* is running on n1; wait for it"):
        submit(read_order(path, profile(lab)))
    assert f"allocation {number}: running on n1" in ctd("status", address)
    said = ctd("cancel", address)
    assert f"allocation {number}: told to stop; cancel once more to end it at once" in said
    finish(address, number, 60)
    assert history(address) == ["started", "ended"], log_tail(address, 200)
    assert list((Path(address) / "run").glob("checkpoints/*"))
    nothing_left(lab, number)
    assert f"allocation {number}: ended with exit code 75" in ctd("status", address)
    assert "cancelled" in ctd("logs", address)
    # One that waits, and what is said of it.
    held = str(lab.shared / "waiting.zarr")
    ((_, states),) = look(held)
    assert "waiting because you hold it" in states[waiting.numbers[0]].text
    assert "waiting because you hold it" in ctd("status", held)
    assert cancel(held) == [f"allocation {waiting.numbers[0]}: cancelled"]
    assert state(waiting.numbers[0]) == "CANCELLED"


@needs_slurm
@pytest.mark.slow
def test_scancel_leaves_nothing(lab):
    """So does Slurm's own scancel, though Ray and the driver get the signal at the same moment."""
    path = job(lab, "scancelled", items=2, steps=300, pause=1.0)
    address, number = send(lab, path, nodes=2)
    until(lambda: Store.exists(address), "the driver runs", 120)
    slurm.command("scancel", number)
    finish(address, number, 60)
    assert state(number) == "CANCELLED"
    nothing_left(lab, number)


@needs_slurm
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"partition": "debgu"}, "partition: there is no 'debgu'; did you mean 'debug'?"),
        ({"partition": "members"}, "account: partition members takes neuro; none is given"),
        ({"time": "1:00:00"}, "time: 1:00:00 is over the limit of partition debug, 30 minutes"),
        ({"nodes": 3}, "nodes: 3 wanted, partition debug has 2"),
        ({"gpus": 3}, "no node of the partition has 1 CPUs, 3 GPUs and 2.0 GB at once"),
        ({"constraint": "a100"}, "constraint: no node has the feature a100"),
        ({"work_dir": "/proc/ctd"}, "work_dir: /proc/ctd cannot be written"),
        ({"python": "/usr/bin/python3"}, "ctd does not run after its modules and setup lines"),
        ({"setup": ["python() { echo '{\"jax\": \"0.1\"}'; }", "exec() { \"$@\"; }"]},
         "jax is 0.1 after its modules and setup lines and"),
        ({"array": 2, "go_on": "chain"}, "--array goes with kind slurm and go_on: requeue"),
        ({"array": 2, "gpus": 1}, "run.memory_gb: --array plans before there is a node"),
        ({"grace_s": 15}, "run.grace_s: 20 s are not less than the cluster profile's grace_s, 15 s"),
    ],
)  # fmt: skip
def test_refused_at_submission(lab, changes, said):
    path = job(lab, "refused")
    before = lab.run("squeue", "-h")
    array = changes.get("array")
    changes = {key: value for key, value in changes.items() if key != "array"}
    with pytest.raises(JobError) as error:
        submit(read_order(path, profile(lab, "bad", **changes), array=array))
    assert said in str(error.value)
    assert lab.run("squeue", "-h") == before
    assert not path.with_suffix(".zarr").exists()


@needs_slurm
def test_clusters_checks_a_profile(lab, monkeypatch, tmp_path):
    folder = tmp_path / "ctd" / "clusters"
    folder.mkdir(parents=True)
    shutil.copy(profile(lab, "good", gpus=2), folder / "good.yaml")
    shutil.copy(profile(lab, "bad", partition="nowhere"), folder / "bad.yaml")
    done = subprocess.run(
        [sys.executable, "-m", "cluster.cli.main", "clusters", "--json"], capture_output=True, text=True,
        env=os.environ | {"XDG_CONFIG_HOME": str(tmp_path)}, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    lines = {(line["cluster"], line["check"]): line for line in json.loads(done.stdout)}
    assert lines["good", "reachable"]["found"].startswith("2 nodes")
    assert lines["good", "GPUs"]["found"] == "n1 gpu:2, n2 gpu:2"
    assert lines["good", "work_dir writable"]["ok"]
    assert lines["good", "versions"]["ok"]
    assert "there is no 'nowhere'" in lines["bad", "reachable"]["found"]


@needs_slurm
def test_forgotten_allocation_is_told_from_the_store(lab, monkeypatch):
    path = job(lab, "forgotten")
    submission = submit(read_order(path, profile(lab, "held", sbatch=["--hold"])))
    cancel(str(path.with_suffix(".zarr")))
    home = Path(submission.home)
    (home / "allocations.tsv").write_text(f"{time.time():.0f}\t{submission.numbers[0]}\tended\t0\n")
    monkeypatch.setattr(slurm, "allocations", lambda numbers: {})
    ((_, states),) = look(str(path.with_suffix(".zarr")))
    assert states == {submission.numbers[0]: "ended 0 (Slurm has forgotten it)"}


# --- without Slurm ----------------------------------------------------------------------------------------


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
        ({**pending("None"), "job_state": "TIMEOUT"}, "stopped by its time limit"),
        (
            {**pending("None"), "job_state": ["FAILED"],
             "exit_code": {"return_code": {"set": True, "infinite": False, "number": 75}}},
            "ended with exit code 75",
        ),
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
    ("complaint", "said"),
    [
        (
            "Invalid account or account/partition combination specified",
            "account: none is not one of",
        ),
        ("Invalid qos specification", "qos: none is not one of yours"),
        (
            "Requested time limit is invalid (missing or exceeds some limit)",
            "time: 60 is more than",
        ),
        ("Unspeakable", "not submitted: sbatch: sbatch: error: Unspeakable"),
    ],
)
def test_refusals_of_sbatch_in_words(tmp_path, monkeypatch, complaint, said):
    fake(tmp_path, monkeypatch, "sbatch", f"echo 'sbatch: error: {complaint}' >&2; exit 1")
    profile = SlurmProfile(kind="slurm", memory_gb=1, time=60)
    with pytest.raises(JobError, match=said):
        slurm.submit("#!/bin/bash\n", profile, "cluster lab")


def test_no_slurm_here(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(JobError, match="squeue: not found; run ctd on a login node"):
        slurm.allocations(["1"])
