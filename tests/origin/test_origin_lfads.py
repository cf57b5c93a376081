"""LFADS's metrics against the tutorials' formulas, scikit-learn and nlb_tools."""

import warnings

import h5py
import jax
import numpy as np
import origin
import pytest
from networks import line_network
from places import DATA

from ctd.batch import Layout, Run, precision, program, traced_columns
from ctd.catalogue import load_kernel
from ctd.data import write_hdf5
from ctd.kernel import inputs_of, static_of, traced_of
from ctd.late import Late
from ctd.lfads.metrics import bits_per_spike

linear_model, metrics = Late("sklearn.linear_model"), Late("sklearn.metrics")


@pytest.mark.slow
def test_lfads_metrics(tmp_path):
    """Metrics against the origin's cells and scikit-learn, from the posterior means that are stored beside them.

    They are those of a network before its training, which need no program that trains.
    """
    params = line_network()
    rng = np.random.default_rng(5)
    x_t, _ = origin.pure_integration(rng, 60)
    h0s = origin.h0s_on_a_line(rng, params, 60)
    hiddens = np.array(
        [origin.run_with_h0(origin.vrnn, params, x, h0)[0] for x, h0 in zip(x_t, h0s, strict=True)]
    )
    rates = origin.spike_means(hiddens, 0.04, 80.0)
    counts = rng.poisson(rates)
    counts[..., 4] = 0  # a silent unit
    n_eval = 25
    arrays = {"train": counts[:-n_eval], "eval": counts[-n_eval:]}
    arrays |= {"eval_rates": rates[-n_eval:], "eval_inputs": x_t[-n_eval:]}
    arrays |= {"eval_initial_states": h0s[-n_eval:]}
    write_hdf5(tmp_path / "spikes.h5", arrays)
    sizes = {"encoder": 5, "controller": 4, "generator": 6, "n_factors": 3, "batch_size": 10}
    given = {"data": str(tmp_path / "spikes.h5"), "dtype": "float64", "n_samples": 3}
    found = before_training("lfads", given | {"n_metric": n_eval, "n_saved": n_eval} | sizes)
    counts, inferred = arrays["eval"], found["inferred_inputs"]
    # Sums of 3,750 terms: 1e-16 times their root, and some for differences of large sums.
    bits = poisson_bits(counts, found["rates"])
    assert float(found["bits_per_spike"]) == pytest.approx(bits, rel=1e-11)
    expected = origin.rates_r2(found["rates"], arrays["eval_rates"])
    assert float(found["rate_r2"]) == pytest.approx(expected, rel=1e-9)
    expected = origin.inputs_r2(inferred[..., 0], arrays["eval_inputs"][..., 0])
    assert float(found["input_r2"]) == pytest.approx(expected, rel=1e-9)
    ic, truth = found["initial_conditions"], arrays["eval_initial_states"]
    # The documented penalty: 1e-4 of the mean variance of a feature, times the number of trials.
    penalty = 1e-4 * np.sum((ic[::2] - ic[::2].mean(0)) ** 2) / ic.shape[1]
    predicted = linear_model.Ridge(alpha=penalty).fit(ic[::2], truth[::2]).predict(ic[1::2])
    expected = metrics.r2_score(truth[1::2], predicted, multioutput="variance_weighted")
    # Normal equations, whose condition the penalty keeps at 1e4 times the number of features.
    assert float(found["initial_state_r2"]) == pytest.approx(expected, rel=1e-8)


def before_training(name, given):
    """Name -> array of the results of one item that has made no advance."""
    kernel = load_kernel(name)
    params = kernel.Params(**given)
    static, fields = static_of(params), traced_of(params)._asdict()
    with precision(static), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*1 unit without a spike in training")
        shared = kernel.load(inputs_of(params))
    columns = {k: np.asarray(v)[None] for k, v in fields.items()}
    traced = traced_columns(kernel.Params, columns, static.dtype)
    run = Run(program(kernel, static, Layout(1, 1)), shared, 0, np.arange(1), traced)
    _, values = run.peek(tuple(run.results))
    return {k: v[0] for k, v in values.items()}


def poisson_bits(counts, rates):
    """Pei et al. 2021, eq. 3, a unit at a time; a unit without spikes gains minus the sum of its rates."""
    gain = 0.0
    for k in range(counts.shape[-1]):
        x, r = counts[..., k].ravel(), rates[..., k].ravel()
        if x.sum():
            gain += np.sum(x * np.log(r / x.mean()) - (r - x.mean()))
        else:
            gain -= np.sum(r)
    return gain / counts.sum() / np.log(2)


@pytest.mark.parametrize("case", ["truth", "noise", "silent", "sparse"])
def test_nlb_bits(case):
    """nlb_tools.evaluation.bits_per_spike, by tests/data/make_nlb_bits.py.

    It takes 1e-9 for a silent unit's mean rate: less than 1e-9 of a bit here.
    """
    with h5py.File(DATA / "nlb_bits.h5") as file, jax.enable_x64(True):
        group = {name: value[()] for name, value in file[case].items()}
        found = float(bits_per_spike(group["counts"], group["rates"]))
    assert found == pytest.approx(float(group["bits"]), abs=1e-8)
