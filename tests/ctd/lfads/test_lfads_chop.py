"""Recordings cut into windows and merged again: the identity, weights that sum to 1, what is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import refused, warned
from pydantic import ValidationError

from ctd.lfads import Model
from ctd.lfads.chop import cut, make_windows, merge, merge_into, merged_shape
from ctd.lfads.data import make_dataset
from ctd.lfads.params import Chop

RNG = np.random.default_rng(0)


@st.composite
def chopped(draw):
    """(recordings, how they are chopped): one, a few of one length, or a list of several lengths."""
    window = draw(st.integers(1, 12))
    chop = Chop(window=window, overlap=draw(st.integers(0, window - 1)))
    lengths = st.integers(window, window + 40)
    kind = draw(st.sampled_from(["one", "trials", "list"]))
    n = draw(st.integers(1, 3))
    values = np.random.default_rng(draw(st.integers(0, 99)))
    length = draw(lengths)
    dtype = draw(st.sampled_from([np.float32, np.float64, np.int32]))
    make = lambda *shape: (1e3 * values.standard_normal((*shape, 2))).astype(dtype)
    if kind == "one":
        return make(length), chop
    return make(n, length) if kind == "trials" else [make(draw(lengths)) for _ in range(n)], chop


@settings(max_examples=200)
@given(chopped())
def test_merging_what_was_not_changed_is_the_identity(case):
    """To the bit, in one go or in parts; windows have one length and cover every bin."""
    recordings, chop = case
    windows = make_windows(recordings, chop)
    pieces = cut(recordings, windows, chop.window)
    assert pieces.shape[1] == chop.window
    whole = np.concatenate(recordings) if isinstance(recordings, list) else recordings
    assert merge(pieces, windows).tobytes() == whole.tobytes()
    made = np.empty((*merged_shape(windows), 2), pieces.dtype)
    for first in range(0, len(pieces), 3):
        merge_into(made, pieces[first : first + 3], windows, first)
    assert made.tobytes() == whole.tobytes()
    inside = windows.recording[1:] == windows.recording[:-1]
    common = (windows.start[:-1] + chop.window - windows.start[1:])[inside]
    assert (common >= chop.overlap).all()


def test_windows_that_disagree_are_faded_into_each_other():
    """0 then 1: sin^2, from the published formula of a raised cosine, in the overlap; the ends are their own."""
    windows = make_windows(np.zeros((16, 1)), Chop(window=10, overlap=4))
    assert windows.start.tolist() == [0, 6]
    made = merge(np.stack([np.zeros((10, 1)), np.ones((10, 1))]), windows)[:, 0]
    ramp = (1 - np.cos(np.pi * (np.arange(4) + 0.5) / 4)) / 2
    np.testing.assert_allclose(made, [0] * 6 + [*ramp] + [1] * 6, atol=1e-15)


def recordings(**changes):
    counts = RNG.poisson(1.0, (40, 5))
    rates = RNG.uniform(size=(23, 5))
    found = {"train": counts, "eval": counts[:23], "eval_rates": rates}
    found |= {"train_behavior": counts[:, :2] / 7, "eval_behavior": counts[:23, :2] / 7}
    return found | changes


def test_all_arrays_of_a_file_are_cut_alike():
    made = make_dataset(recordings(), Model(chop={"window": 10, "overlap": 3}))
    assert made.windows[0].start.tolist() == [0, 7, 14, 21, 28, 30]
    assert made.windows[1].start.tolist() == [0, 7, 13]
    given = recordings()
    for trials, windows, prefix in zip(
        (made.train, made.evaluation), made.windows, ("train", "eval"), strict=True
    ):
        assert merge(trials.data, windows).shape == given[prefix].shape
        behavior = given[f"{prefix}_behavior"]
        assert trials.behavior.shape == (len(windows.start), 10, 2)
        assert merge(trials.behavior, windows).shape == behavior.shape
    long = make_dataset(
        {"train": RNG.poisson(1.0, (4, 25, 3)), "eval": RNG.poisson(1.0, (2, 25, 3))},
        Model(chop={"window": 10, "overlap": 0}),
    )
    assert long.train.data.shape == (12, 10, 3)
    assert merge(long.evaluation.data, long.windows[1]).shape == (2, 25, 3)


@pytest.mark.parametrize(
    "given",
    [
        recordings(eval=np.ones((9, 5))),
        {"train": np.ones((9, 5)), "eval": np.ones((40, 5))},
        recordings(train=np.ones(9)),
        recordings(train=np.ones((0, 5))),
    ],
)
def test_recordings_that_cannot_be_cut(given):
    with refused(ValueError):
        make_dataset(given, Model(chop={"window": 10, "overlap": 3}), "s.h5")


def test_conditions_that_windows_lack_are_told():
    given = {
        "train": np.ones((4, 12, 5)),
        "eval": np.ones((2, 12, 5)),
        "eval_condition": np.arange(2),
    }
    with warned():
        make_dataset(given, Model(chop={"window": 10, "overlap": 3}), "s.h5")


def test_recordings_without_chop():
    with refused(ValueError):
        make_dataset(recordings(), Model(), "s.h5")


def test_overlap_of_a_whole_window():
    with refused(ValidationError):
        Model(chop={"window": 10, "overlap": 10})
