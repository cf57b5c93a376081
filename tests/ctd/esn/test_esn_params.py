"""Echo-state networks: what a user gives, and its data."""

import h5py
import numpy as np
import pytest
import yaml
from pydantic import ValidationError

from ctd import esn
from ctd.esn import EchoState
from ctd.kernel import inputs_of


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"alpha": 0.0}, "alpha"),
        ({"alpha": -1.0}, "alpha"),
        ({"sparsity": 0.0}, "sparsity"),
        ({"sparsity": 1.5}, "sparsity"),
        ({"tau": 0.0}, "tau"),
        ({"leak": 2.0}, "leak"),
        (
            {"topology": "ring", "sparsity": 0.5},
            "sparsity: 0.5 given, but topology ring has no random zeros",
        ),
        (
            {"readout": "ridge", "dtype": "float32"},
            "readout: ridge given with dtype float32; give dtype: float64",
        ),
        ({"state_dtype": "float64"}, "state_dtype: float64 given with dtype float32"),
        ({"memory_delays": 5}, "memory_delays: .* give dtype: float64"),
        ({"target": "lorenz"}, r"m: 20 given, but target lorenz has 3 output\(s\)"),
        ({"target": "file"}, "path: `target: file` needs the path"),
        (
            {"path": "x.h5"},
            "path: x.h5 is read only for `target: file`, but target is chaotic-feedback; give target: file, or",
        ),
        (
            {"target": "file", "path": "x.npy", "input_dataset": "u"},
            "input_dataset: u given, but x.npy is one array, of targets; write both with numpy.savez",
        ),
        ({"layers": 3}, "layers: n = 500 units cannot be cut into 3 equal layers"),
        (
            {"layers": 2, "topology": "ring"},
            "layers: 2 layers need topology gaussian, but it is ring",
        ),
        (
            {"layers": 2, "record": ("weights",)},
            "record: weights needs a network of one layer",
        ),
        ({"test": 50, "horizon": 51}, "horizon: 51 samples given, but test has 50"),
        (
            {"validation": 20, "test": 50, "horizon": 30},
            "horizon: 30 samples given, but validation has 20",
        ),
        ({"horizon": 301}, "horizon: 301 samples given, but test has 300"),
        (
            {"starts": 7, "test": 40, "horizon": 35},
            r"starts: 7 replays of 35 samples .* test, .*; give at most 6",
        ),
        ({"starts": 2, "test": 50}, "starts: 2 replays need a test range and a horizon"),
        ({"record": ("wieghts",)}, "record"),
    ],
)
def test_params_bad_input(given, message):
    with pytest.raises(ValidationError, match=message):
        EchoState(**given)


def test_params_ridge_is_float64():
    assert EchoState(readout="ridge").dtype == "float64"
    said = EchoState.model_fields["dtype"].description
    assert "float64 by default for `readout: ridge`" in said, (
        "the default that schemas show is another"
    )
    assert EchoState().dtype == "float32"


@pytest.mark.parametrize(
    ("dataset", "given", "message"),
    [
        ("nan", {}, r"'nan' has 1 NaN or infinite entries, the first at \(3, 1\)"),
        ("cube", {}, r"'cube' has shape \(2, 2, 2\)"),
        ("table", {"m": 3}, "'table' has 2 columns; expected 3, the field m"),
        (
            "table",
            {"washout": 60, "train": 5},
            "'table' has 50 samples, .* need 65; shorten them",
        ),
        ("flat", {}, "all samples are equal"),
        ("table", {"input_dataset": "nan"}, "'nan' has 1 NaN"),
    ],
)
def test_load_bad_target(tmp_path, dataset, given, message):
    path = tmp_path / "target.h5"
    with h5py.File(path, "w") as out:
        out["table"] = np.arange(100.0).reshape(50, 2)
        out["cube"], out["flat"] = np.zeros((2, 2, 2)), np.ones((50, 2))
        out["nan"] = np.where(np.arange(100) == 7, np.nan, 1.0).reshape(50, 2)
    params = {"target": "file", "m": 2, "train": 40, "path": str(path), "dataset": dataset}
    with pytest.raises(ValueError, match=message):
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
