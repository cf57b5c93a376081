"""Loss of LFADS: its terms, penalties, ramps and dropout, and the minibatches that it is taken over."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lfads_cases import CASE_SIZES, CASE_STEPS, CASE_UNITS, CASES, Case

from ctd.kernel import static_of, traced_of
from ctd.lfads import Model
from ctd.lfads.loss import (
    bound,
    draw_noise,
    evaluate,
    gather,
    penalty,
    ramp,
    spread_weights,
)
from ctd.lfads.model import Fitted
from ctd.lfads.train import learning_rate, minibatch

pytestmark = pytest.mark.usefixtures("float64")


# --- terms ----------------------------------------------------------------------------------------


def test_training_loss_terms():
    """The sum of terms at the scales and ramps of the step; L2 over recurrent weights alone."""
    case = Case(kl_ic=0.5, kl_input=2.0, kl_start=0.1, kl_ramp=10, l2_ramp=20, l2_generator=0.3)
    value, terms = jax.tree.map(float, case.loss()(case.weights, 5))
    k, l = 0.1 + 0.9 * 0.5, 0.25
    kl = 0.5 * terms["kl_ic"] + 2 * terms["kl_input"]
    assert value == pytest.approx(terms["nll"] + k * kl + l * terms["l2"], rel=1e-12)
    expected = 0.0
    for name, scale, n in (("generator", 0.3, 6), ("controller", 1e-5, 4)):
        cell = case.weights[name]
        recurrent = [np.asarray(cell["wRUHX"])[:, :n], np.asarray(cell["wCHX"])[:, :n]]
        expected += scale * sum((w**2).sum() for w in recurrent)
    assert terms["l2"] == pytest.approx(expected, rel=1e-12)
    gradient = jax.jit(jax.grad(lambda w: penalty(case.static, case.traced, w)))(case.weights)
    gradient = jax.tree.map(np.asarray, gradient)
    touched = {name for name, part in gradient.items() if any(g.any() for g in part.values())}
    assert touched == {"generator", "controller"}


def test_penalty_of_a_neural_ode():
    """Over its field's weights but for those of inputs and biases; half the mean square with `penalties: entry`."""
    rng = np.random.default_rng(0)
    field = {"wFHX": rng.normal(size=(5, 8)), "wV": rng.normal(size=(6, 5)), "bF": np.ones(5)}
    square = (field["wFHX"][:, :6] ** 2).sum() + (field["wV"] ** 2).sum()
    for penalties, expected in (("trial", 0.3 * square), ("entry", 0.3 * square / 2 / 60)):
        model = Model(**CASE_SIZES | {"controller": 0, "penalties": penalties, "l2_generator": 0.3})
        found = jax.jit(lambda w, m=model: penalty(static_of(m), traced_of(m), w))(
            {"generator": field}
        )
        assert float(found) == pytest.approx(expected, rel=1e-12)


def test_penalties_beside_the_nll_of_an_entry():
    """As lfads-torch has it: mean nll + k KL + l sum(scale |W|^2) / 2 n; here times bins and units."""
    case = Case(
        penalties="entry", kl_ic=0.5, kl_input=2.0, kl_start=0.1, kl_ramp=10, l2_generator=0.3
    )
    value, terms = case.loss()(case.weights, 5)
    square, size = {}, {}
    for name, n in (("generator", 6), ("controller", 4)):
        cell = case.weights[name]
        recurrent = [np.asarray(cell["wRUHX"])[:, :n], np.asarray(cell["wCHX"])[:, :n]]
        square[name] = sum((w**2).sum() for w in recurrent)
        size[name] = 3 * n * n
    l2 = (0.3 * square["generator"] + 1e-5 * square["controller"]) / 2 / sum(size.values())
    assert float(terms["l2"]) == pytest.approx(l2, rel=1e-12)
    n_bins, _, n_units = case.batch.data.shape
    entry = float(terms["nll"]) / (n_bins * n_units)
    kl = 0.5 * float(terms["kl_ic"]) + 2 * float(terms["kl_input"])
    assert float(value) / (n_bins * n_units) == pytest.approx(entry + 0.55 * kl + l2, rel=1e-12)
    # Weights that no penalty is on do not count.
    without = case.traced._replace(l2_controller=np.zeros(()))
    alone = 0.3 * square["generator"] / 2 / size["generator"]
    found = jax.jit(lambda w: penalty(case.static, without, w))(case.weights)
    assert float(found) == pytest.approx(alone, rel=1e-12)


@pytest.mark.parametrize(
    ("step", "start", "length", "expected"),
    [(0, 0.1, 10, 0.1), (5, 0.1, 10, 0.55), (10, 0.1, 10, 1), (99, 0.1, 10, 1), (0, 0.1, 0, 1)],
)
def test_ramp(step, start, length, expected):
    value = ramp(jnp.int32(step), start, jnp.int32(length), "float64")
    assert float(value) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("step", "changes", "expected"),
    [
        (0, {}, 0.008 / 3),
        (2, {}, 0.008),
        (3, {}, 0.008),
        (16, {"n_batches": 29}, 0.004),
        (30, {}, 0),
        (2, {"schedule": "exponential", "decay": 0.5}, 0.002),
        (20, {"schedule": "exponential", "warm_up": 0}, 0.008),
        (20, {"schedule": "plateau", "plateau_factor": 0.5}, 0.002),
    ],
)
def test_learning_rate(step, changes, expected):
    """After two plateaus, of which only one schedule takes note."""
    case = Case(**changes)
    rate = learning_rate(case.static, case.traced, jnp.int32(step), jnp.int32(2))
    assert float(rate) == pytest.approx(expected, rel=1e-9, abs=1e-12)


# --- dropout --------------------------------------------------------------------------------------


def test_dropout_keeps_expectations():
    """Masks have mean 1; entries hidden by coordinated dropout are those that count, at mean weight 1."""
    case = Case(dropout=0.2, coordinated_dropout=0.3, batch_size=500)
    noise, weights = jax.tree.map(np.asarray, case.drawn)
    for mask in (noise.data, noise.ends, noise.encoded, noise.states):
        # 4 standard errors of the largest relative deviation, over 5,000 entries or more.
        spread = math.sqrt(1 / (0.8 * 0.7) - 1) / math.sqrt(mask.size)
        assert float(mask.mean()) == pytest.approx(1, abs=4 * spread)
    assert set(np.unique(weights)) == {0.0, 1 / 0.3}
    assert not noise.data[weights > 0].any()
    assert float(weights.mean()) == pytest.approx(1, abs=4 * 1.6 / math.sqrt(weights.size))
    shown = noise.data[weights == 0]
    assert (shown > 0).mean() == pytest.approx(0.8, abs=0.02)


def test_coordinated_dropout_off_counts_all():
    case = Case(dropout=0.2)
    assert (np.asarray(case.drawn[1]) == 1).all()


def test_coordinated_dropout_ignores_what_the_encoder_sees():
    """The gradient of the nll with respect to data that were shown is none: no pass-through of spikes."""
    case = Case(coordinated_dropout=0.5)
    noise, seen_weights = case.drawn

    @jax.jit
    def slope_of(data, weights, batch, noise, seen_weights):
        spread = spread_weights(case.dataset, seen_weights, CASE_STEPS, CASE_UNITS)

        def nll(data):
            given = batch._replace(data=data), noise, spread
            return bound(case.fitted(weights), *given)["nll"].sum()

        return jax.grad(nll)(data), spread

    given = case.batch.data, case.weights, case.batch, noise, seen_weights
    slope, spread = map(np.asarray, slope_of(*given))
    assert not slope[np.asarray(noise.data) > 0].any()
    assert slope[spread > 0].all()


def test_spread_weights_held_out():
    """What the encoder never sees always counts."""
    case = Case(**CASES["held out"], coordinated_dropout=0.5)
    seen_weights, batch = np.asarray(case.drawn[1]), jax.tree.map(np.asarray, case.batch)
    spread = jax.jit(lambda seen: spread_weights(case.dataset, seen, CASE_STEPS, CASE_UNITS))
    spread = np.asarray(spread(seen_weights))
    seen = [0, 2, 3, 4, 6, 7]
    assert (spread[:, :, [1, 5]] == 1).all()
    assert (spread[-2:] == 1).all()
    np.testing.assert_array_equal(spread[:-2][:, :, seen], seen_weights)
    np.testing.assert_array_equal(batch.seen_data, batch.data[:-2][:, :, seen])


# --- trials ---------------------------------------------------------------------------------------


def test_minibatch_is_fresh_each_step():
    """The trials and the noise of a step are its own, also inside a compiled loop."""
    case = Case()

    def draw(dataset, key, step):
        batch, key = minibatch(case.static, dataset, key, step)
        return batch.data, draw_noise(case.static, key, batch).inputs

    every = lambda dataset, key: jax.lax.map(lambda step: draw(dataset, key, step), jnp.arange(10))
    data, noise = jax.jit(every)(case.dataset, case.key)
    assert len({d.tobytes() for d in np.asarray(data)}) == 10
    assert len({d.tobytes() for d in np.asarray(noise)}) == 10


def test_evaluate_covers_all_trials():
    """Chunks of 4 over 6 trials: the mean of the terms of each, the filling of the last not counted."""
    case = Case()

    @jax.jit
    def compare(weights, traced, dataset, key):
        model = Fitted(case.static, traced.variance_floor, dataset, weights)

        def nll(chunk):
            number, rows = chunk
            batch = gather(case.static, dataset, dataset.evaluation, rows)
            noise = draw_noise(case.static, jax.random.fold_in(key, number), batch)
            return bound(model, batch, noise)["nll"]

        each = jax.lax.map(nll, (jnp.arange(2), jnp.array([[0, 1, 2, 3], [4, 5, 5, 5]])))
        found = evaluate(model, key)
        return found["nll"], each.ravel()[:6].mean()

    found, expected = compare(case.weights, case.traced, case.dataset, case.key)
    assert float(found) == pytest.approx(float(expected), rel=1e-12)
