"""Spikes that follow a network: rates against NumPy, counts against Poisson's moments, and on to LFADS."""

from functools import partial

import jax
import numpy as np
import pytest
from messages import refused
from small import FOUR, small
from stores import FOUR_SLOTS

from cluster import Job
from ctd.batch import evaluated, run_items
from ctd.catalogue import load_kernel
from ctd.cells import get_cell
from ctd.kernel import inputs_of, static_of, traced_of
from ctd.plots.png import draw
from ctd.spikes import LARGEST_MEAN, Spikes, kernel, load
from ctd.weights import write_weights
from jobs import open_store
from jobs.inputs.measure import outputs_of, with_files


def write_network(folder, cell="vanilla", n=6, n_in=1, n_out=1):
    """Write a random network's weights; returns (path, weights)."""
    init = lambda key: get_cell(cell).init(key, n, n_in, n_out)
    rng, weights = np.random.default_rng(3), {}
    for name, like in jax.eval_shape(init, jax.random.key(0)).items():
        scale = 1.5 / np.sqrt(n) if len(like.shape) == 2 else 0.3
        drawn = (
            np.full(like.shape, 0.2) if name == "alpha" else scale * rng.standard_normal(like.shape)
        )
        weights[name] = drawn.astype(like.dtype)
    path = folder / f"{cell}.h5"
    write_weights(path, weights, cell)
    return str(path), weights


@pytest.fixture
def network(tmp_path):
    """The same in a folder of the test's own."""
    return partial(write_network, tmp_path)


def make(path, columns=None, **changes):
    params = Spikes(**{"cell": "vanilla", "weights": path, "dtype": "float64", **changes})
    return run_items(kernel, params, columns)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def step(cell, w, h, x):
    """One step in NumPy; (the next state, what follows it)."""
    if cell == "vanilla":
        h = np.tanh(w["wR"] @ h + w["wI"] @ x + w["bR"])
        return h, h
    if cell == "leaky":
        h = h + w["alpha"] * (-h + w["wR"] @ np.tanh(h) + w["wI"] @ x + w["bR"])
        return h, np.tanh(h)
    h, c = np.split(h, 2)
    gates = w["weight_ih"] @ x + w["bias_ih"] + w["weight_hh"] @ h + w["bias_hh"]
    i, f, g, o = np.split(gates, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(c)
    return np.concatenate([h, c]), h


RATES = [60.0, 120.0, 60.0, 1.5e6]


@pytest.fixture(scope="module")
def vanilla(tmp_path_factory):
    """(path, weights) of a network."""
    return write_network(tmp_path_factory.mktemp("network"))


@pytest.fixture(scope="module")
def weights(vanilla):
    return in_float64(vanilla[1])


@pytest.fixture(scope="module")
def items(vanilla):
    """Items that differ in seed or in rate, of which the last one nearly fills the 16 bits of a count."""
    columns = {"seed": [0, 0, 1, 0], "max_rate": RATES}
    return make(vanilla[0], columns, step_s=0.04, n_train=2, n_eval=200)


def check_trial(found, weights, cell, trial):
    """States and outputs of an evaluation trial in float64, to 1e-12: 25 steps of some ten products each.

    Returns what followed the states, (time, unit).
    """
    h, states = found["eval_initial_states"][trial], []
    for t, x in enumerate(found["eval_inputs"][trial]):
        h, followed = step(cell, weights, h, x)
        states.append(followed)
        np.testing.assert_allclose(found["eval_states"][trial, t], h, atol=1e-12)
        output = weights["wO"] @ followed + weights["bO"]
        np.testing.assert_allclose(found["eval_behavior"][trial, t], output, atol=1e-12)
    return np.array(states)


def in_float64(weights):
    return {name: value.astype(float) for name, value in weights.items()}


def test_rates_follow_a_vanilla_network(items, weights):
    """Of every item with its own rate, from the network's initial state."""
    for item, rate in enumerate(RATES):
        found = {name: value[item] for name, value in items.items()}
        for trial in range(3):
            assert np.array_equal(found["eval_initial_states"][trial], weights["h0"])
            states = check_trial(found, weights, "vanilla", trial)
            expected = 0.04 * rate * (states + 1) / 2
            # Where a state is near -1, the rounding of 1 + state shows.
            near = {"rtol": 1e-12, "atol": 1e-15 * 0.04 * rate}
            np.testing.assert_allclose(found["eval_rates"][trial], expected, **near)


@pytest.mark.endurance  # always: rates of a vanilla network, and the law of overdispersed counts (tests/ctd/tasks/)
def test_rates_follow_an_lstm_from_a_line(network):
    """Of fewer units than there are, with overdispersed counts. The law of the states on a line: tests/origin/."""
    path, weights = network("lstm")
    sizes = {"n_train": 2, "n_eval": 5, "n_units": 4, "step_s": 0.1, "max_rate": 30.0}
    found = make(path, cell="lstm", initial="line", dispersion=6, **sizes)
    found, w = {name: value[0] for name, value in found.items()}, in_float64(weights)
    for trial in range(3):
        assert not np.array_equal(found["eval_initial_states"][trial], w["h0"])
        states = check_trial(found, w, "lstm", trial)[:, :4]
        np.testing.assert_allclose(found["eval_rates"][trial], 1.5 * (states + 1), rtol=1e-12)
    counts, rates = found["eval"], found["eval_rates"]
    assert abs(counts.sum() - rates.sum()) < 4 * np.sqrt(6 * rates.sum())
    # Of 500 counts, Fano factors of 1 and of 6 are told apart.
    assert 3 < np.sum((counts - rates) ** 2) / rates.sum() < 12


EXPONENTIAL = {
    "cell": "leaky", "rectifier": "exp", "external": True, "n_train": 2, "n_eval": 20, "n_units": 4, "step_s": 0.1,
}  # fmt: skip


def test_exponential_rates_and_known_inputs(network):
    """Of all trials, run again from their inputs in NumPy; one mean and one deviation over these."""
    path, weights = network("leaky")
    found = make(path, scaling=1.5, **EXPONENTIAL)
    found, w = {name: value[0] for name, value in found.items()}, in_float64(weights)
    for trial in range(3):
        assert np.array_equal(found["eval_initial_states"][trial], w["h0"])
        check_trial(found, w, "leaky", trial)
    inputs = np.concatenate([found["train_external"], found["eval_external"]])
    np.testing.assert_array_equal(inputs[2:], found["eval_inputs"])
    states = np.empty((22, 25, 4))
    for trial in range(22):
        h = w["h0"]
        for t, x in enumerate(inputs[trial]):
            h, followed = step("leaky", w, h, x)
            states[trial, t] = followed[:4]
    expected = np.exp((states - states.mean()) / (1.5 * states.std()))
    np.testing.assert_allclose(found["eval_rates"], expected[2:], rtol=1e-10)
    counts = np.concatenate([found["train"], found["eval"]])
    assert abs(counts.sum() - expected.sum()) < 4 * np.sqrt(expected.sum())


def test_exponential_rates_fit_the_counts(network, tmp_path):
    """Sharp ones are cut off at the largest mean count; of units that never move the rates are one a bin."""
    path, weights = network("leaky")
    found = make(path, scaling=0.05, **EXPONENTIAL)
    assert found["eval_rates"].max() == LARGEST_MEAN
    assert found["eval"].max() < 1.02 * LARGEST_MEAN
    still = {name: v if name == "alpha" else 0 * v for name, v in weights.items()}
    write_weights(tmp_path / "still.h5", still, "leaky")
    found = make(str(tmp_path / "still.h5"), **EXPONENTIAL)
    assert (found["eval_rates"] == 1).all()
    assert found["eval"].max() < 20


@pytest.mark.endurance  # always: rates of a network without noise, and what noise is (tests/ctd/tasks/)
def test_noise_on_states(vanilla, weights):
    """Around the network's own steps, the rates follow what it makes, and a rerun has other noise on the same trials."""
    noise = {"state_noise": 0.2, "initial_noise": 0.5, "n_train": 2, "n_eval": 200}
    spiked, again = (
        {name: value[0] for name, value in make(vanilla[0], true_states=run, **noise).items()}
        for run in ("spiked", "rerun")
    )
    for found in (spiked, again):
        states = np.concatenate(
            [found["eval_initial_states"][:, None], found["eval_states"]], axis=1
        )
        from_before = states[:, :-1] @ weights["wR"].T + found["eval_inputs"] @ weights["wI"].T
        xi = (states[:, 1:] - np.tanh(from_before + weights["bR"])) / 0.2
        # 30,000 values: standard error of their variance 0.8 %; 1,021 levels move it by less.
        assert xi.var() == pytest.approx(1, abs=0.04)
        assert abs(xi.mean()) < 0.03
        # 1,200 values.
        assert np.var((states[:, 0] - weights["h0"]) / 0.5) == pytest.approx(1, abs=0.16)
    for name in ("eval_inputs", "eval_rates", "eval", "train"):
        np.testing.assert_array_equal(spiked[name], again[name])
    # Rates of states beyond -1 and 1 are cut.
    expected = 0.04 * 80 * (np.clip(spiked["eval_states"], -1, 1) + 1) / 2
    np.testing.assert_allclose(spiked["eval_rates"], expected, rtol=1e-9, atol=1e-12)
    apart = np.abs(spiked["eval_states"] - again["eval_states"])
    assert np.mean(apart > 0.02) > 0.8


def test_counts_are_poisson(items):
    """Mean and variance within 4 standard errors, given the rates."""
    counts, rates = items["eval"][0].astype(float), items["eval_rates"][0]
    assert abs(np.sum(counts - rates)) < 4 * np.sqrt(rates.sum())
    # The fourth central moment of a Poisson count is m + 3 m^2, so (x - m)^2 has variance m + 2 m^2.
    excess = np.sum((counts - rates) ** 2 - rates)
    assert abs(excess) < 4 * np.sqrt(np.sum(rates + 2 * rates**2))
    assert items["train"].shape == (4, 2, 25, 6)
    assert "train_external" not in items


def test_the_picture_shows_spikes_and_rates_of_a_trial(items):
    spikes, rates = kernel.display.plots(None, None, {"item": np.arange(1)}, items, {})
    for plot, name in ((spikes, "eval"), (rates, "eval_rates")):
        np.testing.assert_allclose(np.sort(plot.layers[0].z, 0), np.sort(items[name][0, 0].T, 0))


def test_items_are_replicates(items):
    """Another seed or item has other trials; rates scale, their trials stay."""
    assert len({value.tobytes() for value in items["eval_inputs"]}) == 4
    assert items["mean_rate"][1] == pytest.approx(2 * items["mean_rate"][0], rel=0.2)


def test_no_readout_no_behavior(network):
    params = Spikes(cell="vanilla", weights=network(n_out=0)[0], n_train=2, n_eval=2)
    traced = jax.tree.map(np.asarray, traced_of(params))
    shared = load(inputs_of(params))
    found = evaluated(kernel, static_of(params), shared, traced).results
    external = {"train_external", "eval_external"}
    assert all("`external: true`" in kernel.dims[name].long_name for name in external)
    assert set(kernel.dims) - set(found) == {"train_behavior", "eval_behavior"} | external


def test_counts_that_would_not_fit_are_refused(items):
    """They have 16 bits; a count clipped without a word would not follow its rate."""
    with refused(ValueError):
        Spikes(max_rate=2e6)
    with refused(ValueError):
        Spikes(initial="line", task={"name": "integrator", "n_steps": 5})
    with refused(ValueError):
        Spikes(true_states="rerun")
    assert 50_000 < items["eval"][3].max() < 65_535


@pytest.mark.parametrize(
    "changes",
    [
        {"weights": None},
        {"cell": "gru"},
        {"task": "flipflop"},
        {"n_units": 7},
    ],
)
def test_bad_input(network, changes):
    path, _ = network()
    with refused(ValueError):
        load(inputs_of(Spikes(**{"cell": "vanilla", "weights": path, **changes})))


TRUTHS = ("rate_r2", "input_r2", "initial_state_r2", "behavior_r2", "bits_per_spike")


def test_spikes_are_what_lfads_reads(command_line, tmp_path):
    """An item of a store is the data of a model, with all of its truth."""
    params, store = small("spikes")[1].model_dump(exclude_defaults=True), tmp_path / "spikes.zarr"
    # The layout whose programs other tests of the smallest case have.
    layout = FOUR_SLOTS | {"microbatch": FOUR.microbatch}
    Job("spikes", params=params, sweep={"seeds": 2}, run=layout).run(store, executor="serial")
    lfads = load_kernel("lfads")
    given = lfads.Params(
        data="spikes.zarr::1::results", batch_size=3, controller=3, generator=4, n_metric=4
    )
    assert set(TRUTHS) < set(outputs_of(lfads, given, str(tmp_path)).shapes)
    found = lfads.load(inputs_of(with_files(given, str(tmp_path))))
    kept = open_store(store)["results/0"]
    for name, array in (("train", found.train.data), ("eval", found.evaluation.data)):
        np.testing.assert_array_equal(array, kept[name][1])
    np.testing.assert_array_equal(found.evaluation.rates, kept["eval_rates"][1])
    code, out, err = command_line("report", store)
    assert code == 0, err + out


PIPELINE = """
stages:
  train:
    kernel: train_rnn
    params: {cell: vanilla, task: integrator, n: 5, n_batches: 4, report_every: 2, batch_size: 4, n_eval: 8}
    run: &as_planned {slots: 4, microbatch: 4, shard_items: 4}
  spikes:
    kernel: spikes
    params: {cell: vanilla, weights: {stage: train}, n_train: 12, n_eval: 6, initial: line}
    sweep: {seeds: 2}
    run: *as_planned
  fit:
    kernel: lfads
    params:
      data: {stage: spikes, part: results}
      encoder: 4
      controller: 3
      generator: 4
      n_factors: 2
      batch_size: 4
      n_batches: 4
      report_every: 2
      warm_up: 0
      kl_ramp: 0
      n_samples: 2
      n_metric: 4
      n_saved: 2
    run: *as_planned
"""


@pytest.mark.endurance
def test_spikes_go_on_to_lfads(command_line, job_file):
    """A network of one stage, the spikes of the next, a model of each set of trials with all of its truth."""
    path = job_file(PIPELINE)
    code, out, err = command_line("run", path, "--executor", "serial")
    assert code == 0, err + out
    fitted = open_store(str(path.with_suffix("")) + ".fit.zarr")
    groups = [fitted[f"results/{group}"] for group in fitted["results"]]
    assert sum(group.sizes["item"] for group in groups) == 2
    for group in groups:
        for name in TRUTHS:
            assert np.isfinite(group[name]).all(), name


def test_bins_of_the_picture_have_even_ticks():
    rng = np.random.default_rng(0)
    results = {"eval_rates": rng.random((1, 2, 25, 4)), "eval": rng.integers(0, 3, (1, 2, 25, 4))}
    picture = draw(kernel.display.plots(None, None, {"item": np.arange(1)}, results, {})[:1])
    ticks = picture.axes[0].get_xticks()
    assert set(np.diff(ticks)) == {5}
