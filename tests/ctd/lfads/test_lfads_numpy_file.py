"""Trials of NumPy's files: which are for evaluation, trials of unequal length there and back, what is refused."""

import numpy as np
import pytest
from messages import refused

from ctd.data import write_hdf5
from ctd.lfads import Model
from ctd.lfads.chop import merge
from ctd.lfads.sessions import load
from ctd.lfads.torch_file import read_trials

CHOP = {"window": 6, "overlap": 2}
UNEQUAL = [np.full((length, 3), k) + 1 for k, length in enumerate((6, 9, 7, 6, 13, 8, 6, 11))]


def test_one_array_and_an_array_a_trial_are_the_same_trials(tmp_path):
    counts = np.random.default_rng(0).poisson(1.0, (12, 6, 3)) + 1
    np.save(tmp_path / "spikes.npy", counts)
    np.savez(tmp_path / "spikes.npz", *counts)
    condition = np.arange(12) // 4
    np.savez(tmp_path / "conditions.npz", *counts, condition=condition)
    np.savez(tmp_path / "whole.npz", spikes=counts, condition=condition)
    np.savez(tmp_path / "named.npz", train=counts[:7], eval=counts[7:])
    for name in ("spikes.npy", "spikes.npz", "conditions.npz", "whole.npz"):
        found = load(Model(data=str(tmp_path / name)))
        # Trials 4 and 9: the second and the third condition.
        told = found.evaluation.condition
        assert (
            (told is None) if "spikes" in name else told.tolist() == [[True, False], [False, True]]
        )
        assert not found.unused
        np.testing.assert_array_equal(found.evaluation.data, counts[4::5])
        np.testing.assert_array_equal(found.train.data[:5], counts[[0, 1, 2, 3, 5]])
    np.testing.assert_array_equal(
        load(Model(data=str(tmp_path / "named.npz"))).train.data, counts[:7]
    )


def test_trials_of_unequal_length_come_back_in_their_order(tmp_path):
    """Windows that nobody changed, merged as `ctd posterior` does, are the trials."""
    np.savez(tmp_path / "spikes.npz", *UNEQUAL)
    found = load(Model(data=str(tmp_path / "spikes.npz"), chop=CHOP, eval_every=3))
    made = {}
    for word, trials, at in zip(
        ("train", "valid"), (found.train, found.evaluation), found.windows, strict=True
    ):
        assert trials.data.shape[1:] == (6, 3)
        made[f"{word}_output_params"] = merge(trials.data, at)
        made[f"{word}_recording_bins"] = at.lengths
    write_hdf5(tmp_path / "rates.h5", made)
    back = read_trials(tmp_path / "rates.h5", eval_every=3)
    assert all(np.array_equal(a, b) for a, b in zip(back, UNEQUAL, strict=True))
    with refused(ValueError):
        read_trials(tmp_path / "rates.h5", eval_every=5)
    with refused(ValueError):
        read_trials(tmp_path / "rates.h5")
    # Trials of one array, which `ctd posterior` puts together as such.
    for word, n in (("train", 4), ("valid", 1)):
        made[f"{word}_output_params"] = np.ones((n, 8, 3))
        made[f"{word}_recording_bins"] = np.full(n, 8)
    write_hdf5(tmp_path / "trials.h5", made)
    assert [trial.shape for trial in read_trials(tmp_path / "trials.h5", eval_every=5)] == [
        (8, 3)
    ] * 5
    with refused(ValueError):
        read_trials(tmp_path / "rates.h5", "factors", eval_every=3)


def test_chopped_trials_of_one_length_stay_trials(tmp_path):
    np.save(tmp_path / "long.npy", np.ones((10, 12, 3), int))
    found = load(Model(data=str(tmp_path / "long.npy"), chop=CHOP))
    merged = [
        merge(part.data, at).shape
        for part, at in zip((found.train, found.evaluation), found.windows, strict=True)
    ]
    assert merged == [(8, 12, 3), (2, 12, 3)]


@pytest.mark.parametrize(
    ("trials", "params"),
    [
        (UNEQUAL, {}),
        (UNEQUAL, {"chop": CHOP | {"window": 7}}),
        (UNEQUAL[:3], {}),
        ([*UNEQUAL, np.ones((6, 2))], {}),
        ([np.ones((4, 6))], {}),
        ([np.ones((9, 4, 6))] * 2, {}),
        ([np.array([{}])], {}),
        ([np.ones((9, 4, 6)), np.arange(9)], {}),
        ([*UNEQUAL[:5], UNEQUAL[5] * np.nan], {"chop": CHOP}),
        ([*UNEQUAL[:5], -UNEQUAL[5]], {"chop": CHOP}),
    ],
)
def test_trials_refused(tmp_path, trials, params):
    np.savez(tmp_path / "spikes.npz", *trials)
    with refused(ValueError):
        load(Model(data=str(tmp_path / "spikes.npz"), **params))


def test_conditions_are_one_a_trial(tmp_path):
    for condition in (
        np.arange(8),
        np.array(["a", "b", "c"] * 3),
    ):
        np.savez(tmp_path / "spikes.npz", np.ones((9, 4, 6)), condition=condition)
        with refused(ValueError):
            load(Model(data=str(tmp_path / "spikes.npz")))
