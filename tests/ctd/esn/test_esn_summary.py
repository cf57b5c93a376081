"""Reduction of networks over seeds, and its figure."""

import numpy as np
import pytest
from scipy.stats import binomtest

from ctd import esn
from ctd.esn import EchoState, Options, kernel, nvar
from ctd.esn.plots import success
from ctd.kernel import inputs_of
from ctd.plots import Group
from ctd.plots.png import draw


def reduced(columns, nrmse, validation=None, valid_time=None, **options):
    error = np.asarray(nrmse)
    results = {
        "replay_nrmse": error,
        "valid_time": np.asarray(np.zeros(len(error)) if valid_time is None else valid_time),
    }
    given = EchoState(validation=10 if validation is not None else 0)
    if validation is not None:
        results["validation_nrmse"] = np.asarray(validation)
    columns = {name: np.asarray(values) for name, values in columns.items()}
    return esn.reduce(inputs_of(given), None, columns, results, Options(**options))


def test_reduce_points():
    columns = {"item": np.arange(100, 106), "seed": [0, 1, 0, 1, 2, 2], "g": [2.0, 2, 1, 1, 1, 2]}
    out = reduced(columns, [0.05, 0.3, 0.01, np.nan, np.nan, 0.09])
    assert out.keys() <= kernel.tables.dims.keys()
    assert out["g"].tolist() == [2.0, 1.0]
    assert out["count"].tolist() == [3, 3]
    np.testing.assert_allclose(out["success_rate"], [2 / 3, 1 / 3])
    # A failed network counts as infinitely wrong.
    assert out["nrmse_median"].tolist() == [0.09, np.inf]
    assert out["nrmse_best"].tolist() == [0.05, 0.01]
    assert out["success_below"] == 0.1
    assert (out["best_row"], out["best_item"]) == (2, 102)
    assert (out["success_rate_low"] <= out["success_rate"]).all()
    assert (out["success_rate"] <= out["success_rate_high"]).all()


@pytest.mark.parametrize("failed", [0, 5, 6])
def test_reduce_median_of_an_even_number(failed):
    error = np.random.default_rng(0).uniform(0, 20, 12)
    out = reduced({}, np.where(np.arange(12) < failed, np.nan, error))
    whole = np.where(np.arange(12) < failed, np.inf, error)
    assert out["nrmse_median"][0] == np.median(whole)
    assert np.isinf(out["nrmse_median"][0]) == (failed == 6)
    if not failed:
        drawn = np.median(np.random.default_rng(1).choice(whole, (20_000, 12)), axis=1)
        # Quantiles over 1,000 resamples of values that lie 2 apart.
        np.testing.assert_allclose(
            [out["nrmse_median_low"][0], out["nrmse_median_high"][0]],
            np.quantile(drawn, [0.025, 0.975]),
            atol=1,
        )


def test_reduce_best_by_validation():
    out = reduced({"item": [7, 8]}, [0.01, 0.02], validation=[0.5, 0.1])
    assert out["best_item"] == 8
    assert out["count"].tolist() == [2]


def test_reduce_valid_time():
    """Two points of two networks, of which one failed."""
    nrmse, valid = [0.5, 0.6, 0.7, np.nan], [3.0, 4, 5, np.nan]
    out = reduced({"g": [1.0, 1, 2, 2]}, nrmse, valid_time=valid)
    assert out["valid_time_median"].tolist() == [3.5, 2.5]


def test_reduce_memory_capacity():
    results = {"replay_nrmse": np.zeros(4), "valid_time": np.zeros(4)}
    results["memory_capacity"] = np.array([5, 7, 9, np.nan])
    columns = {"g": np.array([1.0, 1, 2, 2])}
    given = EchoState(memory_delays=9, dtype="float64")
    out = esn.reduce(inputs_of(given), None, columns, results, Options())
    assert out["memory_capacity_median"].tolist() == [6.0, 4.5]
    assert out.keys() <= kernel.tables.dims.keys()


def test_swept_fields_are_described_by_their_own_kernel():
    for of, fields in ((kernel, {"g", "ridge", "noise"}), (nvar.kernel, {"ridge", "noise"})):
        described = of.tables.dims.keys() & of.Params.model_fields.keys()
        assert fields <= described
        assert all(of.tables.dims[k].long_name == of.Params.model_fields[k].description for k in described)  # fmt: skip
    assert nvar.kernel.tables.dims.keys().isdisjoint({"g", "leak", "memory_capacity_median"})


def test_reduce_of_a_search_begins_with_the_best():
    """Every point has one network: by the error of validation, and the one that failed last; else as the sweep has them."""
    columns = {"item": np.arange(4), "leak": [0.1, 0.2, 0.3, 0.4]}
    nrmse, validation = [0.1, np.nan, 0.4, 0.2], [0.4, np.nan, 0.1, 0.2]
    out = reduced(columns, nrmse, validation, [1.0, 9, 3, 2])
    assert out["leak"].tolist() == [0.3, 0.4, 0.1, 0.2]
    assert out["nrmse_median"].tolist() == [0.4, 0.2, 0.1, np.inf]
    assert out["validation_nrmse_median"].tolist() == [0.1, 0.2, 0.4, np.inf]
    assert out["valid_time_median"].tolist() == [3, 2, 1, 9]
    assert out["best_item"] == 2
    assert reduced(columns, nrmse)["leak"].tolist() == [0.1, 0.4, 0.3, 0.2]
    twice = {"item": np.arange(8), "leak": columns["leak"] * 2}
    assert reduced(twice, nrmse * 2)["leak"].tolist() == columns["leak"]


def test_a_search_is_drawn_on_true_axes():
    rng = np.random.default_rng(0)
    columns = {"leak": rng.uniform(0.2, 1, 12), "ridge": 10 ** rng.uniform(-8, 0, 12)}
    nrmse = np.where(np.arange(12) == 5, np.nan, 0.3)
    out = reduced(columns, nrmse, valid_time=np.arange(12.0))
    group = Group(inputs_of(EchoState()), None, columns, {}, out)
    made = success(group)
    draw(made).canvas.draw()
    for plot in made:
        assert (plot.x.log, plot.y.log) == (False, True)
        assert sorted(plot.layers[0].x) == sorted(columns["leak"])
    successes, error, valid = (plot.layers[0].colour for plot in made)
    assert not successes.any()
    assert np.isnan(error).tolist() == [False] * 11 + [True]
    assert valid.sum() == 66


def test_reduce_threshold():
    assert reduced({}, [0.05, 0.3], success_below=0.04)["success_rate"].tolist() == [0.0]
    assert reduced({}, [0.05, 0.3], success_below=0.5)["success_rate"].tolist() == [1.0]


def test_reduce_interval_is_binomial():
    # Shares of 20 successes in 40 have deviation sqrt(.25 / 40): 95 % lie within 0.155.
    out = reduced({}, np.repeat([0.01, 1.0], 20))
    width = out["success_rate_high"][0] - out["success_rate_low"][0]
    assert width == pytest.approx(2 * 1.96 * np.sqrt(0.25 / 40), abs=0.03)


@pytest.mark.parametrize(
    ("nrmse", "successes"),
    [(np.ones(20), 0), (np.zeros(20), 20), (np.repeat([0, 1], [3, 17]), 3), (np.zeros(1), 1)],
)
def test_reduce_interval_is_scipys_of_wilson(nrmse, successes):
    out = reduced({}, nrmse)
    expected = binomtest(successes, len(nrmse)).proportion_ci(method="wilson")
    found = [out["success_rate_low"][0], out["success_rate_high"][0]]
    np.testing.assert_allclose(found, [expected.low, expected.high], atol=1e-12)
    # One network has a median, and no interval of it.
    assert np.isnan(out["nrmse_median_low"]).all() == (len(nrmse) == 1)


@pytest.mark.parametrize(
    "swept",
    [
        {"alpha": [0.1, 1, 10, 100] * 2},
        {"alpha": [0.1, 1] * 4, "g": [1.0, 1, 2, 2] * 2},
        {"alpha": [0.1, 1] * 4, "g": [1.0, 1, 2, 2] * 2, "tau": [1.0] * 4 + [2.0] * 4},
    ],
    ids=["curve", "map", "three"],
)
def test_figure_draws(swept):
    columns = {name: np.asarray(values) for name, values in swept.items()}
    nrmse = [0.01, 0.2, np.nan, 0.05, 0.3, 0.02, np.nan, 0.5]
    inputs = inputs_of(EchoState())
    out = reduced(columns, nrmse)
    made = success(Group(inputs, None, columns, {}, out))
    draw(made).canvas.draw()
    assert [plot.x.label for plot in made] == 3 * ["g (gain)" if "g" in swept else "alpha"]
    # Without test and horizon, a replay lasts for the training range: 300 samples of 0.1.
    notes = [plot.note for plot in made]
    assert "is below 0.1" in notes[0]
    assert notes[1].startswith(
        "Median over a point's networks; no value: half of them or more failed"
    )
    assert notes[2].startswith(
        "Median over a point's networks of the time before an error first exceeds 0.4 deviations, "
        "0 where the first sample's does or the network failed; at most 30, the horizon"
    )


@pytest.mark.parametrize("of", [esn.kernel, nvar.kernel])
def test_traces_of_a_run_that_was_not_gathered_have_no_best(of):
    results = {"train_nrmse": np.ones((2, 1)), "replay_nrmse": np.array([0.1, 0.2])}
    results |= {"trace": np.zeros((2, 5, 1)), "trace_target": np.zeros((2, 5, 1))}
    made = of.display.plots(inputs_of(EchoState()), None, {"item": np.arange(2)}, results, {})
    assert [plot.title for plot in made] == ["Replay error of all networks"]


@pytest.mark.parametrize("m", [1, 2])
def test_the_replay_of_one_output_is_drawn_in_its_own_values(m):
    results = {"train_nrmse": np.ones((1, 1)), "replay_nrmse": np.array([0.1])}
    trace = np.linspace(2.0, 3.0, 5 * m).reshape(1, 5, m)
    results |= {"trace": trace, "trace_target": trace}
    plots = esn.plots(
        inputs_of(EchoState()), None, {"item": np.arange(1)}, results, {"best_item": 0}
    )
    (made,) = (plot for plot in plots if plot.title.startswith("Replay of item"))
    assert bool(made.y.ticks) == (m == 2)
    assert np.array_equal(made.layers[0].y, trace[0].T) == (m == 1)


def test_the_histogram_of_errors_says_what_it_leaves_out():
    def note(error):
        results = {"train_nrmse": np.ones((len(error), 1)), "replay_nrmse": np.array(error)}
        plots = kernel.display.plots(
            inputs_of(EchoState()), None, {"item": np.arange(len(error))}, results, {}
        )
        return plots[-1].note

    assert note([0.1, np.nan, 0.3, np.nan]) == "2 failed networks left out."
    assert note([0.1, 0.3]) == ""
