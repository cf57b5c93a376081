"""Recordings of one's own: what is refused, and how; fits that do not belong to them."""

import os
import shutil
import subprocess
import sys

import h5py
import jax
import numpy as np
import pytest
from messages import refused, warned
from small import drawn, fitted_recordings

from ctd.batch import run_items
from ctd.cells import get_cell
from ctd.data import write_hdf5
from ctd.kernel import inputs_of
from ctd.mechanisms import Recording, kernel, load
from ctd.mechanisms.counts import factors_of
from ctd.mechanisms.evidence import kernel as evidence
from ctd.mechanisms.fits import Evidence
from ctd.mechanisms.fits import load as load_fits


def counts(trials=12, bins=20, units=6):
    return np.random.default_rng(0).poisson(0.5, (trials, bins, units))


def given(tmp_path, atlas=None, **arrays):
    path = tmp_path / "my.npz"
    np.savez(path, **arrays)
    return lambda: load(inputs_of(Recording(data=str(path), atlas=atlas, n_bins=20)))


def test_train_and_eval_are_joined_and_cut(tmp_path):
    cut = given(tmp_path, train=counts(bins=30), eval=counts(5))
    with warned():
        found = cut().counts
    assert found.shape == (17, 20, 6)
    np.testing.assert_array_equal(found[:12], counts(bins=30)[:, :20])
    np.testing.assert_array_equal(found[12:], counts(5))


def test_files_that_name_no_splits_are_read_as_lfads_reads_them(tmp_path):
    """An array of all trials, or one for each trial, of any lengths, with or without conditions."""
    long = counts(bins=30)
    listed = {f"arr_{k}": trial for k, trial in enumerate(long)} | {"arr_3": long[3, :20]}
    for arrays in ({"spikes": long[:, :20]}, listed):
        for more in ({}, {"condition": np.arange(12)}):
            np.testing.assert_array_equal(given(tmp_path, **arrays, **more)().counts, long[:, :20])


SPOILT = {
    "rates": {"train": counts() + 0.5},
    "negative": {"train": counts() - 1},
    "short": {"train": counts(bins=19)},
    "flat": {"train": counts()[0]},
    "text": {"train": np.full((2, 20, 6), "a")},
    "nan": {"train": np.where(counts() > 2, np.nan, counts())},
    "name": {"eval": counts()},
    "names": {"spikes": counts(), "rest": counts()},
    "short trial": {"a": counts()[0], "b": counts(bins=19)[0]},
    "only conditions": {"condition": np.arange(3)},
    "units": {"train": counts(), "eval": counts(units=5)},
    "silent": {"train": counts() * (np.arange(6) != 3)},
    "few": {"train": counts(units=2)},
}


@pytest.mark.parametrize("fault", SPOILT)
def test_bad_recordings_are_told_in_a_line(tmp_path, fault):
    with refused(ValueError) as told:
        given(tmp_path, **SPOILT[fault])()
    assert str(tmp_path / "my.npz") in str(told.value)
    assert "\n" not in str(told.value)


TABLE = {"n_neurons": [20, 40], "n_trials": [100, 200], "mean_count": [0.5, 0.6], "accuracy": [1.0, 1.0]}  # fmt: skip
ELSEWHERE = {
    "one trial": ({}, counts(1, units=45)),
    "wide bins": ({}, 26 * counts(100, units=45)),
    "bins": ({"n_bins": 50}, counts(100, units=45)),
    "bins of short trials": ({"n_bins": 19}, counts(100, 19, 45)),
    "factors": ({"n_factors": 4}, counts(100, units=45)),
    "not judged": ({"accuracy": None}, counts(100, units=45)),
}  # fmt: skip


@pytest.mark.parametrize(("changed", "train"), ELSEWHERE.values(), ids=ELSEWHERE)
def test_a_recording_that_no_atlas_of_this_kind_can_place_is_refused(tmp_path, changed, train):
    there = {k: v for k, v in (TABLE | changed).items() if v is not None}
    write_hdf5(tmp_path / "table.h5", there)
    with refused(ValueError):
        given(tmp_path, str(tmp_path / "table.h5"), train=train)()


@pytest.mark.parametrize("field", [{"n_factors": 2}, {"mean_count": 20}])
def test_fields_out_of_range_are_refused(field):
    with refused(ValueError):
        Recording(**field)


def test_a_size_outside_of_the_atlas_is_told_with_the_command_that_adds_it(tmp_path):
    write_hdf5(tmp_path / "table.h5", TABLE | {"n_bins": 20, "member": [0, 1], "mechanism": [7, 4]})
    # 45 neurons are within a quarter of 40; 30 trials are not within a quarter of 100.
    load_it = given(tmp_path, str(tmp_path / "table.h5"), train=counts(30, units=45))
    with refused(ValueError) as told:
        load_it()
    assert "n_neurons 45" not in str(told.value)
    assert "zip.n_neurons=[20,40,45]" in str(told.value)
    assert "'stages.recordings.sweep.zip.n_trials=[100,200,30]'" in str(told.value)  # of a shell
    for made in ("sweep.seeds=2", "sweep.grid.mechanism=[4,7]", "params.n_bins=20"):
        assert f"stages.recordings.{made}" in str(told.value)
    place = f"--store in_wider stages.recording.params.data={tmp_path}/my.npz stages.recording.params.n_bins=20"
    assert place in str(told.value)
    assert given(tmp_path, str(tmp_path / "table.h5"), train=counts(90, units=45))().counts.any()


def test_fits_are_matched_to_their_recordings(tmp_path):
    files = fitted_recordings()
    found = load_fits(inputs_of(Evidence(**files)))
    assert found.x.shape == (2, 1, 8, 20, 3)
    assert found.fitted.tolist() == [[1, 1], [1, 1]]
    # In another order, and without one: the same recordings have the same fits.
    some = load_fits(inputs_of(Evidence(**files | {"weights": files["weights"][:0:-1]})))
    assert some.fitted.tolist() == [[1, 0], [1, 1]]
    np.testing.assert_array_equal(some.weights["A"][0, 0], found.weights["A"][0, 1])
    with refused(ValueError):
        load_fits(inputs_of(Evidence(**files | {"recordings": files["recordings"][:1]})))
    with refused(ValueError):
        load_fits(inputs_of(Evidence(**files, cell="alrnn")))
    with refused(ValueError):
        load_fits(inputs_of(Evidence(**files | {"recordings": files["weights"]})))


def of_lfads(tmp_path, order):
    """The weights and the states of a GRU in units of this order, as lfads stores them for one recording."""
    rng, n = np.random.default_rng(0), len(order)
    made = drawn(get_cell("gru").shapes(n, 1), n, 3, [0])
    gates = np.concatenate([order, n + order])
    columns = np.append(order, n)
    own = made | {"wRUHX": made["wRUHX"][gates][:, columns], "wCHX": made["wCHX"][order][:, columns],
                  "bRU": made["bRU"][gates], "bC": made["bC"][order]}  # fmt: skip
    item = int(order[0])
    about = {"store": "fits.zarr", "item": item, "seed": item, "data": "r.zarr::0::results"}
    files = str(tmp_path / f"weights-{item}.h5"), str(tmp_path / f"states-{item}.h5")
    write_hdf5(files[0], own, about)
    write_hdf5(files[1], {"states": rng.normal(size=(6, 20, n))[:, :, order]}, about)
    return files


def test_models_of_lfads_are_read_at_states_of_their_own(tmp_path):
    """Two models that differ by the order of their units alone: the same evidence, and full agreement."""
    recordings = fitted_recordings(1)["recordings"]
    weights, states = zip(*(of_lfads(tmp_path, k) for k in (np.arange(5), np.arange(5)[::-1])), strict=True)  # fmt: skip
    params = Evidence(recordings=recordings, weights=weights, states=states[::-1], cell="gru")
    assert load_fits(inputs_of(params)).x.shape == (1, 2, 6, 20, 5)
    found = run_items(evidence, params)
    # Lyapunov exponents are those of frames that begin along the units, in their order, and turn for one trial.
    np.testing.assert_allclose(*found["per_fit"][0], atol=0.05)
    assert found["agreement"][0] == pytest.approx(1, abs=1e-5)
    with refused(ValueError):
        load_fits(inputs_of(Evidence(recordings=recordings, weights=weights, cell="gru")))
    with refused(ValueError):
        load_fits(inputs_of(params.model_copy(update={"states": states[:1]})))


@pytest.mark.parametrize(
    ("name", "value"),
    [("standardise", True), ("observation", "affine"), ("n", 5)],
)  # fmt: skip
def test_fits_whose_states_are_not_the_factors_are_refused(tmp_path, name, value):
    files = fitted_recordings()
    spoilt = shutil.copy(files["weights"][2], tmp_path)
    with h5py.File(spoilt, "a") as file:
        file.attrs[name] = value
    files = files | {"weights": [*files["weights"][:2], spoilt, files["weights"][3]]}
    with refused(ValueError):
        load_fits(inputs_of(Evidence(**files)))


def test_a_recording_is_read_as_those_of_its_atlas(tmp_path):
    """As many trials of it, and nothing else where anything differs; an earlier ctd did not say all of it."""
    files, path = fitted_recordings(), tmp_path / "atlas.h5"
    digest = load_fits(inputs_of(Evidence(**files))).digest
    placing = inputs_of(Evidence(**files, atlas=str(path)))
    write_hdf5(path, TABLE | {"digest": digest})
    assert load_fits(placing).x.shape[2] == 8
    write_hdf5(path, TABLE | {"digest": digest, "trials_read": 5})
    assert load_fits(placing).x.shape[2] == 5
    for change in (
        {"digest": digest + 1},
        {"smoothing": np.array([2.0, 2.0])},
    ):
        write_hdf5(path, TABLE | {"digest": digest} | change)
        with refused(ValueError):
            load_fits(placing)


FACTORS = """
import jax
import numpy as np

from ctd.mechanisms.counts import factors_of
from ctd.mechanisms.evidence import kernel as evidence

counts = np.random.default_rng(0).poisson(0.5, (40, 100, 20)).astype(np.int32)
factors, variances = jax.jit(lambda c: factors_of(c, np.float32(3), 5, "float32"))(counts)
print(np.asarray(factors).tobytes().hex(), np.asarray(variances).tobytes().hex())
"""


def test_a_recording_of_each_mechanism_is_drawn():
    """Four recordings, the first two of one mechanism, and the spikes of the first."""
    results = {"train": np.ones((4, 3, 5, 6)), "recording.factors": np.zeros((4, 3, 5, 3)),
               "recording.mechanism": np.array([5, 5, 0, 1])}  # fmt: skip
    plots = kernel.display.plots(None, None, {"item": np.arange(4)}, results, {})
    names = ["two_attractors, item 2", "line, item 3", "chaos, item 0"]
    spikes = "Spikes of one trial, chaos, item 0"
    assert [plot.title for plot in plots] == [*(f"Factors, {name}" for name in names), spikes]


def test_factors_round_the_same_on_any_number_of_cores(capsys):
    """A Ray worker has fewer cores than `--executor serial`, and a run may begin here and end there. On one core, and on all."""
    env = {**os.environ, "NPROC": "1", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", FACTORS], env=env, capture_output=True, text=True, check=True
    )
    exec(FACTORS, {})
    assert done.stdout == capsys.readouterr().out != ""


def test_factors_are_the_principal_components_of_smoothed_counts():
    """NumPy's, by the singular values of the same matrix; float32 eigenvectors of close variances turn by 1e-3."""
    given_, sd, n = counts(30, 40, 8), 3.0, 3
    t = np.arange(40)
    weights = np.exp(-0.5 * ((t[:, None] - t[None]) / sd) ** 2)
    x = np.sqrt(np.einsum("ts,ksu->ktu", weights / weights.sum(1, keepdims=True), given_))
    flat = (x - x.mean((0, 1))).reshape(-1, 8)
    _, s, vt = np.linalg.svd(flat, full_matrices=False)
    found = jax.jit(lambda counts: factors_of(counts, np.float32(sd), n, "float32"))
    factors, variances = map(np.asarray, found(given_))
    np.testing.assert_allclose(variances, s**2 / len(flat), rtol=1e-4)
    expected = (flat @ vt[:n].T).reshape(30, 40, n)
    expected /= np.sqrt(np.mean(np.sum(expected**2, -1)))
    signs = np.sign(np.sum(expected * factors, (0, 1)))
    np.testing.assert_allclose(factors, expected * signs, atol=5e-3)
