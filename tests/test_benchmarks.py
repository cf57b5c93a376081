"""Every benchmark runs: at sizes that prove nothing, two of them in the suite, and for a minute as it is without options."""

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from killing import begun, script
from places import EXAMPLES, ROOT
from processes import mentioning

from jobs import open_store

BRIEF = {"gpu", "similarity"}
"""The others take seconds whatever the sizes: a Ray, children, programs to compile."""
PARTS = {
    "options",
    "loops",
    "lfads_torch_modules",
}
"""Of other benchmarks."""
NAMES = sorted({p.stem for p in (ROOT / "benchmarks").glob("*.py")} - PARTS)
SMOKE = [pytest.param(name, marks=[pytest.mark.endurance] * (name not in BRIEF)) for name in NAMES]
MINUTE = 60.0
"""Seconds that a benchmark runs with its defaults, which take some of them hours."""


@pytest.mark.slow
@pytest.mark.parametrize("name", SMOKE)
def test_benchmark_runs(name, tmp_path):
    if name in BRIEF:
        # In the suite, compilation is most of it, after the imports, which the fork has made.
        said = tmp_path / "said.txt"
        path = ROOT / "benchmarks" / f"{name}.py"
        process = begun(script, tmp_path, str(path), "--smoke", said=said)
        process.join()
        assert process.exitcode == 0, said.read_text()[-3000:]
        assert said.read_text().strip(), "a table is printed"
    else:
        # They draw many numbers, which takes ten times as long without optimisation.
        runs(name, tmp_path, "--smoke")


@pytest.mark.endurance
@pytest.mark.parametrize("name", NAMES)
def test_benchmark_without_options_runs_for_a_minute(name):
    # A short name, since the sockets of a Ray lie there.
    with tempfile.TemporaryDirectory(prefix="ctd-") as folder:
        said = Path(folder) / "said.txt"
        with said.open("w") as file:
            child = subprocess.Popen(
                [sys.executable, str(ROOT / "benchmarks" / f"{name}.py")], cwd=folder, stdout=file, stderr=file,
                env=os.environ | {"TMPDIR": folder},
            )  # fmt: skip
        try:
            code = child.wait(MINUTE)
        except subprocess.TimeoutExpired:
            code = 0
        finally:
            end(child, folder)
        text = said.read_text()
        # `gpu` ends where there is none.
        assert code == 0 or "JAX sees no cuda device" in text, text[-3000:]


def end(child, folder):
    """Interrupt a process, then kill what is left of it and of its children: the folder is in the environment of all."""
    child.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        child.wait(20)
    while left := mentioning(folder):
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        child.wait()


@pytest.mark.endurance
def test_every_kernel_of_the_gpu_benchmark_compiles_for_cuda(tmp_path):
    runs("gpu", tmp_path, "--lower")


NBFF = "{name: nbff, n_steps: 12}"
SHORT = {
    "network": {"task": NBFF, "batch_size": 4, "n_batches": 2, "report_every": 1, "n_eval": 4},
    "spikes": {"task": NBFF, "n_train": 8, "n_eval": 4},
    "autoencoder": {"batch_size": 4, "n_batches": 2, "report_every": 1},
    "lfads": {"batch_size": 4, "n_batches": 2, "kl_ramp": 1},
}
"""Stage -> parameters at sizes that prove nothing."""


@pytest.mark.endurance
def test_flipflop_runs(command_line, tmp_path):
    """All four stages: a network, its spikes with noise, the two models with all that is told of them."""
    path = tmp_path / "flipflop.yaml"
    path.write_text((EXAMPLES / "published" / "flipflop_lfads.yaml").read_text())
    sets = [
        word
        for stage, params in SHORT.items()
        for name, value in params.items()
        for word in ("--set", f"stages.{stage}.params.{name}={value}")
    ]
    code, _, err = command_line("run", path, "--executor", "serial", *sets)
    assert code == 0, err
    told = ("rate_r2_weighted", "state_r2_from_true", "co_bps", "cycle_consistency_refitted")
    for stage in ("autoencoder", "lfads"):
        found = open_store(tmp_path / f"flipflop.{stage}.zarr")["results/0"]
        assert all(np.isfinite(found[name]).all() for name in told)


def runs(name, tmp_path, *options):
    line = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), *options]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip(), "a table is printed"
