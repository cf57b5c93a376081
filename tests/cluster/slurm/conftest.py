"""The Slurm of a test file."""

import os
import sys
import tempfile
from pathlib import Path

import gated
import pytest
import slurm_lab


@pytest.fixture(scope="module")
def n_nodes(request):
    """How many nodes the file's cluster has."""
    return request.module.NODES


@pytest.fixture(scope="module")
def lab(n_nodes):
    """A cluster, which the commands of this process reach."""
    if reason := slurm_lab.missing():
        pytest.skip(f"no Slurm here: {reason}")
    with tempfile.TemporaryDirectory(prefix="ctdlab-", dir="/tmp") as folder:
        shared = Path(folder) / "shared"
        shared.mkdir()
        gated.prepare(shared)
        with slurm_lab.Lab(Path(folder), slurm_lab.shared_folders(), n_nodes) as lab:
            lab.shared = shared
            before = {name: os.environ.get(name) for name in lab.environment}
            os.environ.update(lab.environment)
            yield lab
            sys.modules.pop("gated_walk", None)  # it came from a folder that is gone
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})
