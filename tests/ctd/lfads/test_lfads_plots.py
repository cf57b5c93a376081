"""The pictures of LFADS: what they draw is what the model and the data hold."""

from types import SimpleNamespace

import numpy as np
import pytest

from ctd.lfads.params import Model
from ctd.lfads.plots import plots as lfads_plots
from ctd.lfads.summary import next_jobs


def test_lfads_plots_scale_the_true_input_and_pair_data_with_rates():
    rng = np.random.default_rng(4)
    trials, time, units = 3, 8, 5
    truth, rates = rng.normal(size=(trials, time, 1)), rng.random((trials, time, units))
    counts = rng.poisson(rates)
    dims = {"eval_loss": [3.0, 2.0], "outcome": [0, 0], "curve.eval.loss": rng.random((2, 4)) + 1}
    saved = {
        "rates": rates,
        "factors": rates @ rng.normal(size=(units, 4)),
        "inferred_inputs": 1 - 2 * truth,
    }
    results = {name: np.asarray(v) for name, v in dims.items()}
    results |= {name: np.stack([v * 0, v]) for name, v in saved.items()}
    condition = np.array([[True, False, False], [False, False, True], [True, False, False]])
    evaluation = SimpleNamespace(data=counts, rates=None, inputs=truth, condition=condition)
    inputs = SimpleNamespace(report_every=10, n_batches=40)
    plots = lfads_plots(
        inputs,
        SimpleNamespace(evaluation=evaluation, stitched=None, conditions=np.array([1, 5, 30])),
        {"item": np.array([7, 9])}, results, {"item": np.array([9])},
    )  # fmt: skip
    by_title = {plot.title: plot for plot in plots}
    true, inferred = by_title["Inferred inputs of model 9"].layers
    np.testing.assert_allclose(true.y, inferred.y, atol=1e-12)
    one_trial = by_title["Rates of model 9 against the data, one trial"]
    data = next(layer for layer in one_trial.layers if layer.name == "data")
    assert len(data.x) == np.count_nonzero(counts[0])
    assert "on evaluation trial 0" in one_trial.note
    image = by_title["Rates of model 9 on that trial"]
    order = [int(text) for text in image.y.ticks]
    np.testing.assert_array_equal(image.layers[0].z, rates[0][:, order].T)
    unit = int(np.argmax(counts.sum(axis=(0, 1))))
    single = by_title[f"Rates of unit {unit}, single trials, model 9"].layers
    np.testing.assert_allclose(
        np.diff(single[0].y[1]), np.diff(rates[1, :, unit]) / (1.2 * rates[..., unit].max())
    )
    # The second condition, 5, has no trial here: averages are of 0 and 2.
    psths = by_title["PSTHs of data and of model 9, by condition"]
    assert [layer.name for layer in psths.layers[1::2]] == [
        "condition 1, rates",
        "condition 30, rates",
    ]
    units = [int(text.removeprefix("unit ")) for text in psths.y.ticks[::-1]]
    step = 1.2 * max(
        v[..., units].max()
        for v in (rates[[0, 2]].mean(0), rates[1], counts[[0, 2]].mean(0), counts[1])
    )
    for layer, average in zip(
        psths.layers,
        (counts[[0, 2]].mean(0), rates[[0, 2]].mean(0), counts[1], rates[1]),
        strict=True,
    ):
        lines = layer.y - np.arange(len(units))[::-1, None]
        assert psths.y.label == f"between two rows: {step:.4g} counts a bin"
        np.testing.assert_allclose(lines * step, average[:, units].T, atol=1e-12)
    (plane,) = by_title["Factors of model 9 by condition, components 2 and 3"].layers
    assert plane.x.shape == (2, time)
    assert list(plane.colour) == [1, 30]


def test_lfads_figure_is_of_a_single_model_and_has_terms_that_it_has():
    """Without a controller there is no KL of inputs."""
    curves = {
        f"curve.{where}.{name}": np.ones((1, 4))
        for where in ("eval", "train")
        for name in ("loss", "nll", "kl_ic", "kl_input")
    }
    results = {"eval_loss": np.ones(1), "outcome": np.zeros(1, int), **curves}
    inputs = SimpleNamespace(report_every=10, n_batches=40, controller=0)
    fields = (
        inputs,
        SimpleNamespace(stitched=None, evaluation=SimpleNamespace(condition=None)),
        {"item": np.array([7])},
        results,
        {"item": np.array([7])},
    )
    losses, terms = lfads_plots(*fields)
    assert losses.layers[0].colour is None
    assert not losses.scale.label
    assert {layer.name.split(",")[0] for layer in terms.layers} == {"loss", "-log likelihood", "KL initial"}  # fmt: skip


@pytest.mark.parametrize("cell", ["gru", "node"])
def test_next_jobs_search_the_points_of_the_generator_that_was_trained(cell):
    model, shapes = Model(data="spikes.h5", generator_cell=cell), {"states": (16, 60, 8)}
    job = next_jobs(model, "fit.zarr::3", shapes)["its fixed points"]
    assert job["params"]["cell"] == cell
    # As many as there are states: others would repeat them.
    assert job["sweep"]["grid"]["candidate"]["range"] == 960
    without = next_jobs(model, "my fit.zarr::3", {})
    assert list(without) == ["rates of all trials", "train another for longer"]
    held_out = next_jobs(model, "my fit.zarr::3", {"co_bps": ()})
    assert "ctd best 'my fit.zarr' --by co_bps" in held_out.values()
    assert without["rates of all trials"] == "ctd posterior 'my fit.zarr' --where 'item == 3'"
