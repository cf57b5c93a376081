"""Trials of NeuroGym, sampled by the script of examples/ in an environment of its own."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from ctd.data import read_hdf5
from ctd.tasks import get_task

SCRIPT = Path(__file__).parents[3] / "examples" / "neurogym_trials.py"

pytestmark = pytest.mark.frameworks


def sampled(*given, out):
    said = subprocess.run(
        ["uv", "run", "-q", SCRIPT, *given[:1], out, *given[1:]], capture_output=True, text=True
    )
    return said.returncode, said.stderr


def test_neurogym_choices_are_trials_of_a_file(tmp_path):
    out = tmp_path / "trials.h5"
    given = (
        "PerceptualDecisionMaking-v0",
        "--trials",
        "20",
        "--set",
        "dt=100",
        "--conditions",
        "coh",
    )
    assert sampled(*given, out=out)[0] == 0
    found = read_hdf5(str(out))
    assert found["inputs"].shape == (20, 22, 3)
    assert (found["targets"].sum(2) == 1).all()
    assert {round(float(value), 1) for value in found["conditions"]} <= {0, 6.4, 12.8, 25.6, 51.2}
    choice = found["targets"][:, :, 0] == 0
    np.testing.assert_allclose(found["mask"][choice].sum(), found["mask"][~choice].sum(), rtol=1e-6)
    trials, values = get_task({"name": "file", "score": "category"}).read(str(out), "float32")
    assert len(trials.inputs) == 20
    assert len(values) == len(set(found["conditions"]))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("Perceptual-v0",), "unknown environment Perceptual-v0; there are AntiReach-v0"),
        (
            ("AntiReach-v0", "--trials", "5", "--conditions", "coh"),
            "--conditions coh: expected one of",
        ),
    ],
)
def test_neurogym_refuses(given, said, tmp_path):
    out = tmp_path / "trials.h5"
    code, error = sampled(*given, out=out)
    assert code
    assert said in error
    assert not out.exists()
