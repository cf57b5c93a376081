"""Trials cut from NWB files that pynwb wrote: counts against NumPy's histogram, and what is refused."""

import datetime
import sys
import warnings
from importlib import import_module

import numpy as np
import pytest
from messages import refused, warned
from pydantic import ValidationError

from ctd.data import new_hdf5
from ctd.kernel import inputs_of
from ctd.late import Late
from ctd.lfads import Model
from ctd.lfads.chop import merge
from ctd.lfads.numpy_file import SPLIT
from ctd.lfads.nwb import count_spikes, read_nwb
from ctd.lfads.sessions import load
from ctd.lfads.torch_file import read_trials, write

pynwb = Late("pynwb")
N_TRIALS, N_UNITS = 12, 3
RNG = np.random.default_rng(0)
START = 2.0 * np.arange(N_TRIALS)
SPIKES = [np.sort(RNG.uniform(0, 2.0 * N_TRIALS, 400)) for _ in range(N_UNITS)]
CUT = {"bin_s": 0.05, "window": (-0.1, 0.5), "align_to": "go_time"}


@pytest.fixture(scope="module", autouse=True)
def _quietly_imported():
    with warnings.catch_warnings():  # hdmf's own deprecations, as it is imported
        warnings.simplefilter("ignore")
        import_module("pynwb")


@pytest.fixture
def session(tmp_path):
    """Write a session; returns its path."""

    def write(split=None, observed=None, trials=True, units=True):
        file = pynwb.NWBFile("a session", "s1", datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC))
        if trials:
            file.add_trial_column(name="go_time", description="the go cue")
            if split:
                file.add_trial_column(name="split", description="train, val or none")
            for k, start in enumerate(START):
                go = np.nan if k == 3 else start + 0.5
                extra = {"split": split[k]} if split else {}
                file.add_trial(start_time=start, stop_time=start + 1.5, go_time=go, **extra)
        if units:
            for times in SPIKES:
                extra = {"obs_intervals": observed} if observed else {}
                file.add_unit(spike_times=times, **extra)
        hand = pynwb.TimeSeries(
            name="hand",
            data=np.stack([np.arange(2500.0), -np.arange(2500.0)], 1),
            unit="m",
            rate=100.0,
            starting_time=0.0,
            conversion=0.001,
        )
        module = file.create_processing_module(name="behavior", description="kinematics")
        module.add(hand)
        path = tmp_path / "session.nwb"
        with pynwb.NWBHDF5IO(path, "w") as io:
            io.write(file)
        return str(path)

    return write


def read(path, **changes):
    return load(inputs_of(Model(data=path, **CUT | changes)))


def changed(path, change):
    """The file at `path`, opened by pynwb, changed and written anew."""
    with pynwb.NWBHDF5IO(path, "a") as io:
        file = io.read()
        change(file)
        io.write(file)
    return path


def histogram(trial):
    edges = START[trial] + 0.5 - 0.1 + 0.05 * np.arange(13)
    return np.stack([np.histogram(times, edges)[0] for times in SPIKES], axis=1)


def test_counts_of_every_trial(session):
    """The trial without a go cue is left out; every fifth one is for evaluation."""
    with warned():
        found = read(session())
    train = [k for k in range(N_TRIALS) if k % 5 != 4 and k != 3]
    assert np.array_equal(found.train.data, [histogram(k) for k in train])
    assert np.array_equal(found.evaluation.data, [histogram(k) for k in (4, 9)])


def test_split_of_the_file_is_kept(session):
    split = ["train"] * 5 + ["val"] * 4 + ["none"] * 3
    with warned():
        found = read(session(split))
    assert np.array_equal(found.train.data, [histogram(k) for k in (0, 1, 2, 4)])
    assert np.array_equal(found.evaluation.data, [histogram(k) for k in (5, 6, 7, 8)])


def test_trials_out_of_the_recording_are_left_out(session):
    """Where nobody recorded there are no spikes, but that is no measurement of none."""
    observed = [[0.0, 10.2], [11.9, 24.0]]
    with warned():
        found = read(session(observed=observed))
    # Trial 5 spans 10.4 to 11 s.
    kept = [k for k in range(N_TRIALS) if k % 5 != 4 and k not in (3, 5)]
    assert np.array_equal(found.train.data, [histogram(k) for k in kept])


@pytest.mark.parametrize(
    "observed",
    [
        [[0.0, 9.9], [9.9, 10.6], [10.6, 24.0]],  # touch
        [[12.0, 24.0], [0.0, 12.5]],  # overlap, out of order
        [[s + 0.4, s + 1.0] for s in START.tolist()],  # as long as a window, but for rounding
    ],
)
def test_trials_wholly_observed_are_kept(session, observed):
    with warned():
        read(session(observed=observed))


def test_trials_after_the_last_spike_are_left_out(session, monkeypatch):
    """The file does not say how long the recording was: its spikes do, with the trials in which the first and the last lie."""
    some = [times[(times > 1) & (times < 18.9)] for times in SPIKES]
    monkeypatch.setattr(sys.modules[__name__], "SPIKES", some)
    with warned():
        found = read(session())
    assert len(found.train.data) == 9 - 2  # 10 and 11; and 3 as ever
    assert found.evaluation.data.sum(axis=(1, 2)).all()


def test_rates_come_back_in_the_order_of_the_recording(session, tmp_path):
    """Trial 3 is left out, which no later trial takes the place of."""
    with warned():
        arrays = read_nwb(session(), inputs_of(Model(data="session.nwb", **CUT)))
    counts = arrays["train"], arrays["eval"]
    n = [len(one) for one in counts]
    chunks = [
        {"split": np.full(len(one), k), "trial_number": np.arange(len(one)), "rates": one}
        for k, one in enumerate(counts)
    ]
    with new_hdf5(tmp_path / "rates.h5") as file:
        write(file, chunks, n, {}, arrays[SPLIT])
    with warned():
        back = read_trials(tmp_path / "rates.h5", eval_every=2)  # the file knows better
    np.testing.assert_array_equal(back, [histogram(k) for k in range(N_TRIALS) if k != 3])


def test_columns_that_are_no_times(session):
    def change(file):
        file.trials.add_column(
            "lick_times", "ragged", data=[[1.0] * (k % 3) for k in range(12)], index=True
        )
        file.trials.add_column("position", "two numbers a trial", data=np.zeros((12, 2)))

    path = changed(session(), change)
    with warned():
        assert len(read(path).train.data) == 9
    with refused(ValueError):
        read(path, align_to="position")


def series(times, values=None, name="eye"):
    values = np.sin(times) if values is None else values
    return pynwb.TimeSeries(name=name, data=values, unit="m", timestamps=times)


def test_behavior_with_a_gap(session):
    """Nothing is made up where nothing was sampled: 3 s without samples take two trials."""
    times = np.arange(0, 24, 0.01)
    times = times[(times < 11) | (times > 14)]
    path = changed(session(), lambda file: file.add_acquisition(series(times)))
    with warned():
        found = read(path, behavior_series="eye")
    middle = START[4] + 0.4 + 0.05 * (np.arange(12) + 0.5)
    # Linear between samples 0.01 s apart: an error below 0.01^2 / 8.
    np.testing.assert_allclose(found.evaluation.behavior[0, :, 0], np.sin(middle), atol=2e-5)


@pytest.mark.parametrize(
    ("added", "name"),
    [
        ((np.r_[12.0:24:0.1, 0:12:0.1],), "eye"),
        ((np.r_[0.0:24:0.1, np.nan],), "eye"),
        ((np.arange(3.0), ["a", "b", "c"]), "eye"),
        ((np.empty(0), np.empty(0)), "eye"),
        ((np.arange(24.0), None, "hand"), "hand"),
    ],
)  # fmt: skip
def test_bad_series(session, added, name):
    path = changed(session(), lambda file: file.add_acquisition(series(*added)))
    with refused(ValueError):
        read(path, behavior_series=name)


def test_series_of_one_name_are_told_by_their_paths(session):
    added = series(np.arange(0, 24, 0.05), name="hand")
    path = changed(session(), lambda file: file.add_acquisition(added))
    with warned():
        assert read(path, behavior_series="acquisition/hand").train.behavior.shape[-1] == 1
    with warned():
        assert read(path, behavior_series="behavior/hand").train.behavior.shape[-1] == 2


def test_behavior_is_sampled_at_the_middle_of_bins(session):
    """A ramp of 100 a second, in mm of which the file says 0.001 m."""
    with warned():
        found = read(session(), behavior_series="hand")
    middle = START[4] + 0.4 + 0.05 * (np.arange(12) + 0.5)
    expected = 0.1 * np.stack([middle, -middle], axis=1)
    np.testing.assert_allclose(found.evaluation.behavior[0], expected, rtol=1e-5)


def test_bins_are_half_open():
    edges = np.array([[0.0, 1.0, 2.0]])
    assert count_spikes([[1.0, 2.0, 0.0, 1.5]], edges).tolist() == [[[1], [2]]]


@pytest.mark.parametrize(
    ("content", "changes"),
    [
        ({}, {"align_to": "go"}),
        ({}, {"bin_s": 0.07}),
        ({}, {"window": (0.5, 0.1)}),
        ({}, {"behavior_series": "eye"}),
        ({}, {"window": (100.0, 100.6), "behavior_series": "hand"}),
        ({"trials": False}, {}),
        ({"units": False}, {}),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*left out")
def test_bad_sessions(session, content, changes):
    with refused(ValueError):
        read(session(**content), **changes)


def test_no_nwb_at_all(tmp_path):
    path = tmp_path / "notes.nwb"
    path.write_text("not HDF5")
    with refused(ValueError):
        read(str(path))
    with refused(ValueError):
        read(str(tmp_path / "none.nwb"))


def test_the_extra_is_named(session, monkeypatch):
    path = session()
    monkeypatch.setitem(sys.modules, "pynwb", None)
    with refused(ValueError):
        read(path)


@pytest.mark.parametrize(
    "fields",
    [
        {"data": "s.nwb"},
        {"data": "s.h5", "bin_s": 0.1},
        {"data": "s.nwb", "bin_s": 0, "window": (0, 1)},
        {"data": "s.nwb", "bin_s": 0.1, "window": (0, float("inf"))},
        {"data": "s.nwb", "bin_s": float("nan"), "window": (0, 1)},
    ],
)
def test_fields_that_do_not_fit(fields):
    with refused(ValidationError):
        Model(**fields)


WHOLE = {"window": None, "chop": {"window": 20, "overlap": 6}, "behavior_series": "hand"}


def test_recording_without_trials(session):
    """Every interval that all units were observed in, the last fifth of its bins for evaluation; merged, NumPy's counts."""
    path = session(observed=[[0.0, 10.0], [12.0, 22.0]], trials=False)
    dataset = read(path, **WHOLE)
    for trials, windows, parts in zip(
        (dataset.train, dataset.evaluation),
        dataset.windows,
        ([(0, 160)], [(160, 200)]),
        strict=True,
    ):
        edges = [b + 0.05 * np.arange(i, j + 1) for b in (0.0, 12.0) for i, j in parts]
        counts = [np.stack([np.histogram(t, e)[0] for t in SPIKES], axis=1) for e in edges]
        np.testing.assert_array_equal(merge(trials.data, windows), np.concatenate(counts))
        middle = np.concatenate([(e[1:] + e[:-1]) / 2 for e in edges])
        hand = merge(trials.behavior, windows)
        np.testing.assert_allclose(hand[:, 0], middle * 100 * 0.001, atol=1e-5)  # float32


def test_recording_too_short_for_its_windows(session):
    path = session(observed=[[0.0, 10.0], [12.0, 12.9]], trials=False)
    inputs = inputs_of(Model(data=path, **CUT | WHOLE))
    with warned():
        assert read_nwb(path, inputs)[SPLIT].tolist() == [0, 1, -1, -1], "in the order of time"
    with refused(ValueError):
        read(path, **WHOLE | {"chop": {"window": 99, "overlap": 6}})
