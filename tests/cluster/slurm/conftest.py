"""The Slurm of a test file."""

import os
import sys
import tempfile
from pathlib import Path

import gated
import pytest
import slurm_lab


@pytest.fixture(scope="module")
def lab(request):
    """A cluster of the file's NODES nodes, which the commands of this process reach."""
    if reason := slurm_lab.missing():
        pytest.skip(f"no Slurm here: {reason}")
    with tempfile.TemporaryDirectory(prefix="ctdlab-", dir="/tmp") as folder:
        shared = Path(folder) / "shared"
        shared.mkdir()
        gated.prepare(shared)
        nodes = request.module.NODES
        with slurm_lab.Lab(Path(folder), slurm_lab.shared_folders(), nodes) as lab:
            lab.shared = shared
            before = {name: os.environ.get(name) for name in lab.environment}
            os.environ.update(lab.environment)
            yield lab
            sys.modules.pop("gated_walk", None)  # it came from a folder that is gone
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})
