"""What a submission asks a real Slurm before it sends a job, and what is known of one that Slurm forgot."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest
from messages import refused
from slurm_lab import job, profile

from cluster.cli.submit import preview
from cluster.slurm import client as slurm
from cluster.submit import read_order, submit
from cluster.tracking import State, cancel, look
from ctd.installed import gpu_plugins
from jobs.errors import JobError

NODES = 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"partition": "debgu"}, "partition: there is no 'debgu'; did you mean 'debug'?"),
        ({"time": "1:00:00"}, "time: 1:00:00 is over the limit of partition debug, 30 minutes"),
        ({"nodes": 3}, "nodes: 3 wanted, partition debug has 2"),
        ({"gpus": 3}, "no node of the partition has cpus: 1, gpus: 3 and memory_gb: 2.0 at once"),
        ({"constraint": "a100"}, "constraint: no node has the feature a100"),
        ({"work_dir": "/proc/ctd"}, "work_dir: /proc/ctd cannot be written"),
        ({"python": "/usr/bin/python3"}, "ctd does not run with python: /usr/bin/python3 (on "),
        ({"setup": ["python() { echo '{\"jax\": \"0.1\"}'; }", "exec() { \"$@\"; }"]},
         "jax is 0.1 after its modules and setup lines and"),
        ({"array": 2, "go_on": "chain"}, "--array needs a profile of kind slurm with go_on: requeue"),
        ({"array": 2, "gpus": 1}, "run.memory_gb: --array plans before any node is there"),
        ({"grace_s": 15}, "run.grace_s: 20 s must be less than the cluster profile's grace_s, 15 s"),
    ],
)  # fmt: skip
def test_refused_at_submission(lab, changes, said):
    path = job(lab, "refused")
    before = lab.run("squeue", "-h")
    array = changes.get("array")
    changes = {key: value for key, value in changes.items() if key != "array"}
    for send in (submit, preview) if changes.keys() & {"partition", "gpus"} else (submit,):
        with pytest.raises(JobError) as error:
            send(read_order(path, profile(lab, "bad", **changes), array=array))
        assert said in str(error.value)
    assert lab.run("squeue", "-h") == before
    assert not path.with_suffix(".zarr").exists()


def test_nodes_that_are_not_up_refuse_nothing(lab):
    """Slurm queues a job for a drained node; it refuses, and so do we, one for which no node is configured."""
    path, about = job(lab, "drained"), ("scontrol", "update", "nodename=n2")
    lab.run(*about, "state=drain", "reason=test")
    try:
        for wanted in ({"nodes": 2}, {"sbatch": ["--nodelist=n2"]}):
            order = read_order(path, profile(lab, "wide", **wanted))
            told = preview(order)["waits"]
            assert told.endswith("that are not up: n2 (drained)")
            submit(order, (warned := []).append)
            assert told in warned
            ((_, states),) = look(str(path.with_suffix(".zarr")), patient=True)
            assert [state.word for state in states.values()] == ["PENDING"]
            cancel(str(path.with_suffix(".zarr")))
            shutil.rmtree(path.with_suffix(".zarr"))
        with refused(JobError):
            preview(read_order(path, profile(lab, "wide", nodes=2, cpus=5)))
    finally:
        lab.run(*about, "state=resume")
        lab.wait_idle()


def test_clusters_checks_a_profile(lab, command_line, monkeypatch, tmp_path):
    folder = tmp_path / "ctd" / "clusters"
    folder.mkdir(parents=True)
    shutil.copy(profile(lab, "good", gpus=2), folder / "good.yaml")
    shutil.copy(profile(lab, "bad", partition="nowhere"), folder / "bad.yaml")
    shutil.copy(profile(lab, "big", memory_gb=6000), folder / "big.yaml")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    code, out, err = command_line("clusters", "--json")
    assert code == 1, err
    lines = {(line["cluster"], line["check"]): line for line in json.loads(out)}
    assert lines["good", "nodes"]["found"].startswith("2 nodes")
    assert lines["good", "GPUs"]["found"] == "n1 gpu:2, n2 gpu:2"
    assert lines["good", "work_dir writable"]["ok"]
    assert lines["good", "versions"]["ok"] == bool(gpu_plugins())
    assert all("there is no 'nowhere'" in lines["bad", name]["found"] for name in ("nodes", "GPUs"))
    assert lines["big", "nodes"]["found"].startswith("profile: ")
    assert "memory_gb: 6000" in lines["big", "nodes"]["found"]
    assert all(lines[name, "reachable"]["ok"] for name in ("good", "bad", "big"))


@pytest.mark.parametrize("array", [None, 2])
def test_job_that_slurm_took_without_an_answer_is_found(lab, monkeypatch, tmp_path, array):
    """By the folder of its output: one job is queued, and recorded. Its name has what means something to Slurm."""
    late = tmp_path / "sbatch"
    late.write_text(
        f'#!/bin/bash\n[ "$1" != --test-only ] || exec {shutil.which("sbatch")} "$@"\n'
        f'{shutil.which("sbatch")} "$@" >/dev/null\n'
        "echo 'sbatch: error: Batch job submission failed: Socket timed out on send/recv operation' >&2; exit 1\n"
    )
    late.chmod(0o755)
    name = f"it's#1-50%j-late{array}"
    path = job(lab, name)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        submission = submit(read_order(path, profile(lab, "held", sbatch=["--hold"]), array=array))
    queued = lab.run("squeue", "-h", f"--name=ctd-{name}", "--format=%F").split()
    cancel(str(path.with_suffix(".zarr")))
    assert submission.numbers == queued


def test_forgotten_allocation_is_told_from_the_store(lab, monkeypatch):
    path = job(lab, "forgotten")
    submission = submit(read_order(path, profile(lab, "held", sbatch=["--hold"])))
    cancel(str(path.with_suffix(".zarr")))
    home = Path(submission.home)
    (home / "allocations.tsv").write_text(f"{time.time():.0f}\t{submission.numbers[0]}\tended\t0\n")
    monkeypatch.setattr(slurm, "allocations", lambda numbers, **_: {})
    ((_, states),) = look(str(path.with_suffix(".zarr")))
    assert states == {submission.numbers[0]: State("ended 0 (Slurm has forgotten it)", True)}
