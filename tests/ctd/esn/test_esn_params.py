"""Echo-state networks: what a user gives, and its data."""

import h5py
import numpy as np
import pytest
import yaml
from messages import refused
from pydantic import ValidationError

from ctd import esn
from ctd.esn import EchoState
from ctd.kernel import inputs_of


@pytest.mark.parametrize(
    "given",
    [
        {"alpha": 0.0},
        {"alpha": -1.0},
        {"sparsity": 0.0},
        {"sparsity": 1.5},
        {"tau": 0.0},
        {"leak": 2.0},
        {"topology": "ring", "sparsity": 0.5},
        {"readout": "ridge", "dtype": "float32"},
        {"state_dtype": "float64"},
        {"memory_delays": 5},
        {"target": "lorenz"},
        {"target": "file"},
        {"path": "x.h5"},
        {"target": "file", "path": "x.npy", "input_dataset": "u"},
        {"layers": 3},
        {"layers": 2, "topology": "ring"},
        {"layers": 2, "record": ("weights",)},
        {"test": 50, "horizon": 51},
        {"validation": 20, "test": 50, "horizon": 30},
        {"horizon": 301},
        {"starts": 7, "test": 40, "horizon": 35},
        {"starts": 2, "test": 50},
        {"record": ("wieghts",)},
    ],
)
def test_params_bad_input(given):
    with refused(ValidationError):
        EchoState(**given)


def test_params_ridge_is_float64():
    assert EchoState(readout="ridge").dtype == "float64"
    said = EchoState.model_fields["dtype"].description
    assert "float64 by default for `readout: ridge`" in said, (
        "the default that schemas show is another"
    )
    assert EchoState().dtype == "float32"


@pytest.mark.parametrize(
    ("dataset", "given"),
    [
        ("nan", {}),
        ("cube", {}),
        ("table", {"m": 3}),
        ("table", {"washout": 60, "train": 5}),
        ("flat", {}),
        ("table", {"input_dataset": "nan"}),
    ],
)
def test_load_bad_target(tmp_path, dataset, given):
    path = tmp_path / "target.h5"
    with h5py.File(path, "w") as out:
        out["table"] = np.arange(100.0).reshape(50, 2)
        out["cube"], out["flat"] = np.zeros((2, 2, 2)), np.ones((50, 2))
        out["nan"] = np.where(np.arange(100) == 7, np.nan, 1.0).reshape(50, 2)
    params = {"target": "file", "m": 2, "train": 40, "path": str(path), "dataset": dataset}
    with refused(ValueError):
        esn.load(inputs_of(EchoState(**params | given)))


@pytest.mark.parametrize(
    ("target", "m", "k"),
    [
        ("chaotic-feedback", 4, 0),
        ("chaotic", 4, 0),
        ("mackey-glass-30", 1, 0),
        ("lorenz", 3, 0),
        ("narma10", 1, 1),
        ("sines", 2, 0),
    ],
)
def test_load_ranges(target, m, k):
    given = EchoState(target=target, m=m, washout=3, train=20, validation=5, test=7)
    found = esn.load(inputs_of(given))
    assert found.inputs.shape == (35, k)
    assert found.targets.shape == (35, m)
    assert found.variance == pytest.approx(found.targets.var(axis=0).mean())


def test_the_job_in_the_docstring_has_as_many_networks_as_it_says():
    text, _, job = esn.__doc__.rpartition("\n\n")
    job = yaml.safe_load(job)
    EchoState.model_validate(job["params"])
    grid = job["sweep"]["grid"]
    n = grid["g"]["linspace"][-1] * grid["seed"]["range"]
    assert f"trains {n} of them" in text
