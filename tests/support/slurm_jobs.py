"""Jobs for the Slurm of the tests, that wait at a gate until their test lets them go on."""

import json
import shutil
import subprocess
import time
from pathlib import Path
from threading import Lock

import numpy as np
from slurm_lab import Lab
from waiting import until

from cluster.record import Submission, submissions
from cluster.slurm import client as slurm
from cluster.submit import read_order, submit, text_of
from cluster.tracking import log_tail
from jobs import Store
from jobs.run.prepare import open_or_create
from jobs.run.shards import run_shards
from jobs.run.worker import SerialExecutor
from jobs.spec.job import read_job

JOB = """
kernel: gated_walk
seed: {seed}
params: {{n_steps: 12, gate: {gate}}}
sweep: {{grid: {{rate: {{linspace: [-0.5, 0.5, {items}]}}}}}}
run: {{shard_items: 2, slots: 2, microbatch: 1, checkpoint_s: 1, grace_s: 20}}
"""

ONE_AT_A_TIME = Lock()
"""Whatever loads the user's kernel holds it: two threads that import at once may find half of a module, or wait for each
other for ever."""


def profile(lab: Lab, name: str = "lab", **changes) -> str:
    """A profile's file."""
    content = {
        "kind": "slurm", "partition": "debug", "nodes": 1, "cpus": 1, "memory_gb": 2, "time": "0:15:00",
        "grace_s": 60, "work_dir": str(lab.shared / "work"), **changes,
    }  # fmt: skip
    path = lab.shared / f"{name}.yaml"
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
    return str(path)


def job(lab: Lab, name: str, seed: int = 5, items: int = 4) -> Path:
    """A job's file, its gate open."""
    path = lab.shared / f"{name}.yaml"
    path.write_text(JOB.format(seed=seed, items=items, gate=path.with_suffix(".gate")))
    return path


def send(path: Path, profile: str, array: int | None = None) -> tuple[Submission, str]:
    """Submit a job from any thread; return what was submitted, and its script."""
    with ONE_AT_A_TIME:
        order = read_order(path, profile, array=array)
        return submit(order, print), text_of(order)


class Sent:
    """A job that was submitted with its gate shut; `with` ends what is left of it."""

    def __init__(self, lab: Lab, path: Path, array: int | None = None, **changes) -> None:
        self.lab, self.path, self.address = lab, path, str(path.with_suffix(".zarr"))
        self.gate = path.with_suffix(".gate")
        self.gate.touch()
        sent, self.text = send(path, profile(lab, f"for-{path.stem}", **changes), array)
        self.number, self.home = sent.numbers[0], Path(sent.home)

    def __enter__(self) -> "Sent":
        return self

    def __exit__(self, *_: object) -> None:
        self.gate.unlink(missing_ok=True)
        for number in submissions(self.address)[-1].all_numbers():
            subprocess.run(["scancel", number], capture_output=True, check=False)

    def state(self, number: str = "") -> str:
        number = number or self.number
        return slurm.allocations([number])[number].state

    def history(self) -> list[str]:
        return [line[2] for line in submissions(self.address)[-1].history()]

    def log(self) -> str:
        return log_tail(self.address, 200)

    def checkpoints(self) -> list[Path]:
        """The folders GROUP/SHARD of the shards that have one."""
        return list((Path(self.address) / "run" / "checkpoints").glob("*/*"))

    def await_checkpoints(self, n: int = 1) -> None:
        """Until so many running shards have one: they are all at the gate."""
        self.until(lambda: len(self.checkpoints()) >= n, f"{n} shards have a checkpoint", 900)

    def await_end(self, seconds: float = 900) -> None:
        """Until the allocation is over."""

        def is_over() -> bool:
            time.sleep(0.5)  # Slurm answers by a process of its own
            return slurm.allocations([self.number])[self.number].is_over

        self.until(is_over, "the allocation ends", seconds)

    def until(self, holds, what: str, seconds: float) -> None:
        try:
            until(holds, what, seconds)
        except TimeoutError as error:
            error.add_note(self.log())
            raise

    def assert_same_as_here(self) -> None:
        """Every result array holds the bytes that the serial executor computes on this machine."""
        here = str(self.path.with_suffix(".serial.zarr"))
        shutil.rmtree(here, ignore_errors=True)
        executor = SerialExecutor(1)
        with ONE_AT_A_TIME:
            local = open_or_create(read_job(self.path), str(self.lab.shared), "job", here, executor)
        assert not run_shards(local, executor).failed
        there = Store.open(self.address)
        assert there.committed.numbers() == local.committed.numbers() != set(), self.log()
        for name in [*local.names(0), "status"]:
            a, b = np.asarray(local.array(0, name)[:]), np.asarray(there.array(0, name)[:])
            assert a.tobytes() == b.tobytes(), name

    def assert_nothing_left(self, number: str = "") -> None:
        """No process and no file of the allocation on any node, no token on the shared file system.

        Slurm may kill a script that a busy machine keeps from its end: its token goes with the next allocation.
        """
        number = number or self.number
        for node in range(1, self.lab.nodes + 1):
            left = lambda n=node: self.lab.processes(n, f"SLURM_JOB_ID={number}")
            until(
                lambda left=left: not left(), f"nothing of allocation {number} runs on n{node}", 300
            )
            files = list(self.lab.tmp(node).glob(f"ctd-{number}"))
            assert not files, f"n{node}: {files}"
        history, left = self.history(), (self.lab.shared / "work").glob(f"token-*-{number}")
        assert history.count("ended") < history.count("started") or not list(left), self.log()
