"""Trials of a file: what is read, what is refused, and how they are divided."""

from contextlib import nullcontext

import jax
import numpy as np
import pytest
from messages import refused

from ctd.data import write_hdf5
from ctd.tasks import Recorded, Trial, divide
from ctd.tasks.recorded import check_parts

RNG = np.random.default_rng(0)
GOOD = {
    "inputs": RNG.normal(size=(12, 7, 2)),
    "targets": RNG.normal(size=(12, 7, 3)),
    "mask": np.ones((12, 7)),
    "conditions": np.tile([4.0, -2.0, 1.5], 4),
}


def written(folder, **changes):
    path = folder / "trials.h5"
    arrays = {k: v for k, v in (GOOD | changes).items() if v is not None}
    write_hdf5(path, arrays)
    return str(path)


def test_read_and_divide(tmp_path):
    trials, values = Recorded().read(written(tmp_path), "float32")
    np.testing.assert_array_equal(values, [-2, 1.5, 4])
    np.testing.assert_array_equal(values[trials.condition], GOOD["conditions"])
    np.testing.assert_allclose(trials.inputs, GOOD["inputs"], rtol=1e-6)
    evaluation, training = divide(trials, 100)
    np.testing.assert_array_equal(evaluation.targets, trials.targets[[4, 9]])
    np.testing.assert_array_equal(training.targets, np.delete(trials.targets, [4, 9], axis=0))
    assert len(divide(trials, 1)[0].inputs) == 1
    assert len(divide(trials, 1)[1].inputs) == 10, "a trial for evaluation is never trained on"


def test_read_without_mask_and_conditions(tmp_path):
    trials, values = Recorded().read(written(tmp_path, mask=None, conditions=None), "float64")
    assert (trials.mask == 1).all()
    assert len(values) == 1
    np.savez(tmp_path / "trials.npz", inputs=GOOD["inputs"], targets=GOOD["targets"])
    again, _ = Recorded().read(str(tmp_path / "trials.npz"), "float64")
    np.testing.assert_array_equal(again.targets, trials.targets)


@pytest.mark.parametrize(
    ("score", "expected"),
    [("sign", [True, False]), ("near", [True, False]), ("category", [True, False])],
)
def test_scores(tmp_path, score, expected):
    trials, _ = Recorded().read(written(tmp_path), "float32")
    task, two = Recorded(score=score, within=0.1), jax.tree.map(lambda leaf: leaf[:2], trials)
    outputs = np.array(two.targets)
    outputs[1] = -outputs[1]
    np.testing.assert_array_equal(jax.jit(jax.vmap(task.success))(two, outputs), expected)


BAD = {
    "missing": {"targets": None},
    "trials": {"targets": np.ones((11, 7, 3))},
    "steps": {"mask": np.ones((12, 6))},
    "outputs": {"mask": np.ones((12, 7, 2))},
    "axes": {"inputs": np.ones((12, 7))},
    "flat": {"inputs": np.ones(12)},
    "conditions": {"conditions": np.ones(5)},
    "NaN": {"inputs": np.full((12, 7, 2), np.nan)},
    "nothing counts": {"mask": np.zeros((12, 7))},
    "few": {k: v[:4] for k, v in GOOD.items()},
}


@pytest.mark.parametrize("changes", BAD.values(), ids=BAD)
def test_read_refuses(tmp_path, changes):
    with refused(ValueError) as caught:
        Recorded().read(written(tmp_path, **changes), "float32")
    assert "\n" not in str(caught.value)


FIFTH = np.arange(20) % 5 == 4
PARTS = {
    "evaluation": (~FIFTH, np.zeros(20, int), True),
    "training": (FIFTH, np.zeros(20, int), True),
    "turns of five": (np.ones(20), np.arange(20) % 5, True),
    "turns of ten": (np.ones(20), np.arange(20) % 10, True),
    "turns of three": (np.ones(20), np.arange(20) % 3, False),
    "one trial each": (np.ones(20), np.arange(20), False),
}


@pytest.mark.parametrize(("weight", "condition", "wrong"), PARTS.values(), ids=PARTS)
def test_parts_that_do_not_fit_each_other(weight, condition, wrong):
    column = np.zeros((20, 3, 1))
    trials = Trial(column, column, np.repeat(weight[:, None], 3, axis=1), condition)
    with refused(ValueError) if wrong else nullcontext():
        check_parts("x.h5", np.arange(20.0), trials, divide(trials, 20))


def test_no_file_and_other_kernels():
    with refused(ValueError):
        Recorded().read(None, "float32")
    with refused(ValueError):
        _ = Recorded().n_in
