"""The posterior of all trials: moments and draws, where trials lie in chunks, what is refused.

That its means have the bits of a training store: tests/cluster/cli/test_cli_posterior.py.
"""

import numpy as np
import pytest
from messages import refused
from small import FOUR, small

from ctd.batch import run_items
from ctd.data import new_hdf5, read_hdf5, write_hdf5
from ctd.kernel import inputs_of
from ctd.lfads.chop import Chop
from ctd.lfads.posterior import kernel, load
from ctd.lfads.torch_file import SPLITS, name_of, read_trials, write

N_TRAIN, N_EVAL = 5, 3


@pytest.fixture(scope="module")
def some():
    """(parameters, results of all chunks and one beyond): chunks of 4 trials, 5 for training, 3 for evaluation."""
    kernel, params = small("lfads.posterior")
    return params, run_items(kernel, params, {"chunk": np.arange(4)}, layout=FOUR)


def test_chunks_hold_every_trial_once(some):
    """Training trials first, in the file's order; -1 and NaN where a chunk has no trial."""
    params, results = some
    assert load(inputs_of(params)).n_chunks == 3
    none = [-1] * 4
    assert results["split"].tolist() == [[0] * 4, [0, -1, -1, -1], [1, 1, 1, -1], none]
    assert results["trial_number"].tolist() == [[0, 1, 2, 3], [4, -1, -1, -1], [0, 1, 2, -1], none]
    for name in ("rates", "rates_sd", "factors_samples"):
        there = np.isfinite(results[name]).reshape(4, 4, -1)
        assert (there.all(-1) == (results["split"] >= 0)).all(), name
        assert (there.any(-1) == there.all(-1)).all(), name
    assert "states" not in results, "unless they are asked for"


def test_trials_of_a_file_without_splits_keep_their_numbers(some, tmp_path):
    params = some[0]
    counts = np.ones((10, *read_hdf5(params.data)["train"].shape[1:]), int)
    np.save(tmp_path / "spikes.npy", counts)
    changed = params.model_copy(update={"data": str(tmp_path / "spikes.npy")})
    assert load(inputs_of(changed)).recorded.tolist() == [0, 0, 0, 0, 1] * 2
    named = load(inputs_of(params)).recorded.tolist()
    assert named == [0] * N_TRAIN + [1] * N_EVAL, "training trials first"
    counts = np.ones((4, 25, counts.shape[2]), int)  # two windows each
    np.savez(tmp_path / "long.npz", train=counts[:3], eval=counts[3:])
    chopped = {"data": str(tmp_path / "long.npz"), "chop": Chop(window=20, overlap=5)}
    fit = load(inputs_of(params.model_copy(update=chopped)))
    assert (fit.n.tolist(), fit.recorded.tolist()) == ([6, 2], [0, 0, 0, 1])


def test_moments_are_those_of_the_draws(some):
    """Of factors exactly; of inputs and initial conditions, whose moments are exact, within their errors."""
    _, results = some
    real = results["split"] >= 0
    draws = results["factors_samples"][real].astype(float)
    np.testing.assert_allclose(results["factors"][real], draws.mean(1), atol=1e-5)
    np.testing.assert_allclose(results["factors_sd"][real], draws.std(1, ddof=1), rtol=1e-3)
    for name in ("inferred_inputs", "initial_conditions"):
        draws, sd = results[f"{name}_samples"][real], results[f"{name}_sd"][real]
        errors = (draws.mean(1) - results[name][real]) / (sd / np.sqrt(200))
        assert 0.7 < errors.std() < 1.3, name
        assert np.median(draws.std(1) / sd) == pytest.approx(1, abs=0.1), name


def test_one_draw_has_no_deviation():
    """But that of inputs given the draw, and of initial conditions, are known."""
    kernel, params = small("lfads.posterior")
    params = params.model_copy(update={"n_samples": 1, "samples": ()})
    results = run_items(kernel, params, {"chunk": np.arange(1)}, layout=FOUR)
    for name in ("rates", "factors"):
        assert np.isfinite(results[name]).all(), name
        assert np.isnan(results[f"{name}_sd"]).all(), name
    for name in ("inferred_inputs", "initial_conditions"):
        assert (results[f"{name}_sd"] > 0).all(), name


def test_pictures_show_the_first_evaluation_trial(some):
    """Its rates beside its data; nothing before its chunk is computed."""
    params, results = some
    shared = load(inputs_of(params))
    draw = lambda rows: kernel.display.plots(
        inputs_of(params), shared, {"item": rows}, {n: v[rows] for n, v in results.items()}, {}
    )
    assert draw(np.array([0, 1])) == []
    by_title = {plot.title: plot for plot in draw(np.arange(4)[::-1])}
    order = [int(text) for text in by_title["Data of one trial"].y.ticks]
    data, rates = (
        by_title[title].layers[0].z
        for title in ("Data of one trial", "Rates of model 0 on that trial")
    )
    np.testing.assert_array_equal(rates, results["rates"][2, 0][:, order].T)
    np.testing.assert_array_equal(data, read_hdf5(params.data)["eval"][0][:, order].T)
    assert len(by_title["Factors of model 0 over time"].layers[0].y) == N_EVAL


def test_file_has_the_names_of_lfads_torch(some, tmp_path):
    params, results = some
    rows = ({name: value[k] for name, value in results.items()} for k in range(3))
    with new_hdf5(tmp_path / "out.h5") as file:
        write(file, rows, (N_TRAIN, N_EVAL), {}, load(inputs_of(params)).recorded)
    found = read_hdf5(tmp_path / "out.h5")
    numbers = np.concatenate([found.pop(f"{split}_trial") for split in SPLITS])
    assert numbers.tolist() == [*range(N_TRAIN + N_EVAL)]
    rates = np.concatenate([found[f"{split}_output_params"] for split in SPLITS])
    np.testing.assert_array_equal(read_trials(tmp_path / "out.h5"), rates)
    names = {name_of(name) for name in results.keys() - {"split", "trial_number"}} | {"gen_init"}
    assert {"output_params", "factors", "ic_mean", "ic_std", "co_means", "co_stds"} < names
    assert set(found) == {f"{split}_{name}" for split in SPLITS for name in names}
    for split, name in enumerate(SPLITS):
        expected = results["rates"][results["split"] == split]
        assert found[f"{name}_output_params"].tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    "changes",
    [
        {"generator": 6},
        {"controller": 0},
        {"held_out_units": (1,)},
        {"model": None},
        {"model": "weights"},
    ],
)
def test_model_that_does_not_fit_is_refused(some, changes):
    params = some[0]
    if changes.get("model"):
        changes = {"model": params.weights}
    with refused(ValueError):
        load(inputs_of(params.model_copy(update=changes)))


@pytest.mark.parametrize("held", [{}, {"held_out_units": (25,)}], ids=["none held out", "held out"])
def test_other_units_are_refused(some, tmp_path, held):
    params = some[0]
    given = read_hdf5(params.data)
    write_hdf5(tmp_path / "fewer.h5", {name: value[..., :20] for name, value in given.items()})
    with refused(ValueError):
        load(inputs_of(params.model_copy(update={"data": str(tmp_path / "fewer.h5"), **held})))
