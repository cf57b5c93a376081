"""Every benchmark runs, at sizes that prove nothing."""

import os
import subprocess
import sys

import pytest
from places import ROOT
from quick import QUICK

LONG = {
    "continuation", "dispatch", "esn", "fixed_points", "gather", "growth", "lfads", "lfads_field", "lint", "recovery",
    "startup", "train_rnn",
}  # fmt: skip
"""They take half a minute or more whatever the sizes: a Ray, children, programs to compile."""
PARTS = {
    "options",
    "loops",
    "lfads_attractors",
    "lfads_flipflop",
    "lfads_flipflop_torch",
    "lfads_torch_modules",
}
"""Of other benchmarks."""
NAMES = [
    pytest.param(p.stem, marks=[pytest.mark.endurance] * (p.stem in LONG))
    for p in sorted((ROOT / "benchmarks").glob("*.py"))
    if p.stem not in PARTS
]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_benchmark_runs(name, tmp_path):
    runs(name, tmp_path, "--smoke", XLA_FLAGS=QUICK)


@pytest.mark.endurance
def test_every_kernel_of_the_gpu_benchmark_compiles_for_cuda(tmp_path):
    runs("gpu", tmp_path, "--lower")


def runs(name, tmp_path, *options, **environment):
    line = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), *options]
    done = subprocess.run(
        line, cwd=tmp_path, env=environment | os.environ, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip(), "a table is printed"
