"""Model and loss of LFADS against an independent NumPy version, and finite differences."""

import math
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closed_forms import dense_kl
from scipy import integrate, stats
from scipy.special import gammaln

from ctd.kernel import static_of, traced_of
from ctd.lfads import Model
from ctd.lfads.data import make_dataset
from ctd.lfads.distributions import gaussian_log_likelihood
from ctd.lfads.loss import (
    Minibatch,
    bound,
    draw_dropout,
    draw_noise,
    evaluate,
    gather,
    penalty,
    ramp,
    spread_weights,
    training_loss,
)
from ctd.lfads.model import Noise, decode, encode, factor_weights, init_weights
from ctd.lfads.train import learning_rate, minibatch

SIZES = {
    "dtype": "float64",
    "encoder": 5,
    "controller": 4,
    "generator": 6,
    "n_factors": 3,
    "n_inputs": 2,
    "n_batches": 30,
    "report_every": 10,
    "warm_up": 3,
    "kl_ramp": 10,
    "n_saved": 2,
}
N_STEPS, N_UNITS = 7, 8

pytestmark = pytest.mark.usefixtures("float64")


def arrays(n_train=20, n_eval=6, n_external=0, seed=0):
    """Counts of units with different rates, and external inputs if asked for."""
    rng = np.random.default_rng(seed)
    rates = rng.uniform(0.2, 3, N_UNITS)
    found = {
        name: rng.poisson(rates, (n, N_STEPS, N_UNITS))
        for name, n in (("train", n_train), ("eval", n_eval))
    }
    if n_external:
        found |= {
            f"{name}_external": rng.standard_normal((len(found[name]), N_STEPS, n_external))
            for name in ("train", "eval")
        }
    return found


class Case:
    """A small model with its data, weights and noise; what is drawn or gathered is so when it is asked for."""

    def __init__(self, n_external=0, batch_size=4, **changes):
        self.model = Model(**SIZES | {"batch_size": batch_size} | changes)
        self.static = static_of(self.model)
        real = lambda v: np.asarray(v, float if isinstance(v, float) else np.int32)
        self.traced = jax.tree.map(real, traced_of(self.model))
        self.dataset = make_dataset(arrays(n_external=n_external), self.model)
        self.n_external, self.key, self.floor = (
            n_external,
            jax.random.key(3),
            self.traced.variance_floor,
        )

    @cached_property
    def weights(self):
        """Of the shapes that a model starts with, away from values at which a mistake would not show: zeros, equal moments."""
        n_seen, rng = len(self.dataset.seen_units), np.random.default_rng(4)
        init = lambda key: init_weights(
            self.static, self.traced, key, n_seen, self.n_external, self.dataset.bias
        )
        scale = lambda shape: shape[1] ** -0.5 if len(shape) == 2 else 0.3
        draw = lambda w: scale(w.shape) * rng.standard_normal(w.shape)
        return jax.tree.map(draw, jax.eval_shape(init, self.key))

    @cached_property
    def batch(self):
        rows = np.arange(self.static.batch_size) % len(self.dataset.train.data)
        # Keys and data as arguments: what is constant the compiler would compute itself, slowly.
        return jax.jit(lambda data: gather(self.static, data, data.train, rows))(self.dataset)

    @cached_property
    def drawn(self):
        """(noise of a training pass, weights of the seen entries)."""

        def draw(key, traced, batch):
            plain = draw_noise(self.static, key, batch)
            return draw_dropout(self.static, traced, key, batch, plain)

        return jax.jit(draw)(self.key, self.traced, self.batch)

    def terms(self):
        """The terms of the batch with its noise."""
        f = jax.jit(lambda *args: bound(self.static, args[0], self.floor, *args[1:]))
        return f(self.weights, self.batch, self.drawn[0])

    def loss(self, f=lambda loss: loss):
        """weights, step -> f of the training loss of the batch, compiled."""

        def loss(weights, step, traced, dataset, batch, key):
            seen = Minibatch(batch, key)
            return training_loss(self.static, traced, dataset, weights, seen, step)

        compiled = jax.jit(f(loss))
        rest = self.traced, self.dataset, self.batch, self.key
        return lambda weights, step: compiled(weights, jnp.int32(step), *rest)


# --- the whole forward pass, written again --------------------------------------------------------


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def np_gru(w, h, x):
    """The GRU of the computation-thru-dynamics tutorials, for one trial."""
    n = len(h)
    gates = w["wRUHX"] @ np.concatenate([h, x]) + w["bRU"]
    r, u = sigmoid(gates[:n]), sigmoid(gates[n:] + 0.5)
    c = np.tanh(w["wCHX"] @ np.concatenate([r * h, x]) + w["bC"])
    return u * h + (1 - u) * c


def np_ode(w, h, x):
    """One bin of the neural ODE by the classical Runge-Kutta method; that it follows the field: test_cells.py."""
    field = lambda h: (
        0.1 * (w["wV"] @ np.tanh(w["wFHX"] @ np.concatenate([h, x]) + w["bF"]) + w["bV"])
    )
    a = field(h)
    b = field(h + a / 2)
    c = field(h + b / 2)
    return h + (a + 2 * b + 2 * c + field(h + c)) / 6


def np_bound(case, trial):
    """(nll, KL of initial condition, KL of inputs) of one trial of the batch, one step after another."""
    w = jax.tree.map(np.asarray, case.weights)
    noise = Noise(*(None if x is None else np.asarray(x) for x in case.drawn[0]))
    data, seen, external = (
        np.asarray(x)[:, trial] for x in (case.batch.data, case.batch.seen, case.batch.external)
    )
    n_steps, n_seen, lag, floor = len(data), len(seen), case.static.lag, float(case.floor)
    n = case.static.encoder
    seen = seen * noise.data[:, trial]
    forward, backward = np.zeros((n_seen, n)), np.zeros((n_seen, n))
    h = w["encoder_forward"]["h0"]
    for t in range(n_seen):
        forward[t] = h = np_gru(w["encoder_forward"], h, seen[t])
    h = w["encoder_backward"]["h0"]
    for t in reversed(range(n_seen)):
        backward[t] = h = np_gru(w["encoder_backward"], h, seen[t])
    ends = np.concatenate([forward[-1], backward[0]]) * noise.ends[trial]
    mean, log_variance = np.split(w["ic"]["w"] @ ends + w["ic"]["b"], 2)
    variance = np.exp(log_variance) + floor
    g = mean + np.sqrt(variance) * noise.ic[trial]
    prior_variance = np.exp(w["ic_prior"]["log_variance"])
    kl_ic = sum(map(np_kl, mean, variance, w["ic_prior"]["mean"], prior_variance))

    readout = w["generator"]["wO"]
    readout = readout / np.sqrt((readout**2).sum(1, keepdims=True) + 1e-12)
    f, nll, means, variances = readout @ g, 0.0, [], []
    c = w["controller"]["h0"] if case.static.controller else None
    for t in range(n_steps):
        u = np.zeros(0)
        if c is not None:
            past = forward[t - lag] if t - lag >= 0 and t < n_seen else np.zeros(n)
            future = backward[t + lag] if t + lag < n_seen else np.zeros(n)
            both = np.concatenate([past, future])
            both = both * noise.encoded[t, trial] if t < n_seen else 0 * both
            c = np_gru(w["controller"], c, np.concatenate([both, f]))
            m, log_v = np.split(w["inputs"]["w"] @ c + w["inputs"]["b"], 2)
            v = np.exp(log_v) + floor
            u = m + np.sqrt(v) * noise.inputs[t, trial]
            means.append(m)
            variances.append(v)
        step = np_gru if case.static.generator_cell == "gru" else np_ode
        g = step(w["generator"], g, np.concatenate([u, external[t]]))
        f = readout @ (g * noise.states[t, trial])
        output = w["output"]["w"] @ f + w["output"]["b"]
        if case.static.likelihood == "poisson":
            nll -= (data[t] * output - np.exp(output) - gammaln(data[t] + 1)).sum()
        else:
            m, log_v = np.split(output, 2)
            nll -= stats.norm.logpdf(data[t], m, np.sqrt(np.exp(log_v) + floor)).sum()
    return nll, kl_ic, np_input_kl(case, w, means, variances)


def np_kl(m, v, m0, v0):
    return 0.5 * (np.log(v0 / v) + (v + (m - m0) ** 2) / v0 - 1)


def np_input_kl(case, w, means, variances):
    """By the general formula for Gaussian vectors: the prior's covariance over time, written out."""
    if not means:
        return 0.0
    prior, total = w["input_prior"], 0.0
    means, variances = np.array(means), np.array(variances)
    n_steps = len(means)
    for k in range(means.shape[1]):
        v0 = np.exp(prior["log_variance"][k])
        cov = v0 * np.eye(n_steps)
        if case.static.input_prior == "ar1":
            phi = np.exp(-1 / np.exp(prior["log_tau"][k]))
            cov = v0 * phi ** np.abs(np.subtract.outer(np.arange(n_steps), np.arange(n_steps)))
        total += dense_kl(means[:, k], np.diag(variances[:, k]), prior["mean"][k], cov)
    return total


CASES = {
    "gaussian": {"likelihood": "gaussian", "input_prior": "gaussian", "lag": 2},
    "no controller": {"controller": 0, "n_external": 2},
    "held out": {"held_out_units": (1, 5), "held_out_bins": 2, "lag": 1, "n_external": 2},
    "ode": {"generator_cell": "node", "field_units": 5, "n_external": 2},
    "ode, no controller": {"generator_cell": "node", "field_units": 5, "controller": 0},
}


@pytest.mark.parametrize("name", CASES)
def test_forward_pass_numpy(name):
    """Every term of every trial. 1e-10 relative: rounding of a few hundred operations in float64."""
    case = Case(**CASES[name], dropout=0.3)
    terms = case.terms()
    for trial in range(4):
        expected = np_bound(case, trial)
        for term, value in zip(("nll", "kl_ic", "kl_input"), expected, strict=True):
            assert float(terms[term][trial]) == pytest.approx(value, rel=1e-10, abs=1e-12), term


@pytest.mark.parametrize(
    ("name", "likelihood"), [("no controller", "gaussian"), ("held out", "poisson")]
)
def test_gradient_finite_differences(name, likelihood):
    """Along one random direction of each weight. Central differences at 1e-5 are good to about 1e-9 of
    the loss; 1e-6 of the slope, or 1e-6 where it is smaller than 1."""
    case = Case(**CASES[name], likelihood=likelihood, coordinated_dropout=0.2)
    loss = case.loss(lambda f: jax.value_and_grad(f, has_aux=True))
    _, gradient = loss(case.weights, 4)
    leaves, tree = jax.tree.flatten(case.weights)
    rng = np.random.default_rng(0)
    for k, (leaf, slope) in enumerate(zip(leaves, jax.tree.leaves(gradient), strict=True)):
        direction = rng.standard_normal(leaf.shape)

        def along(e, k=k, moved=direction):
            near = [*leaves[:k], leaves[k] + e * moved, *leaves[k + 1 :]]
            return loss(jax.tree.unflatten(tree, near), 4)[0][0]

        expected = float(along(1e-5) - along(-1e-5)) / 2e-5
        assert np.sum(np.asarray(slope) * direction) == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_gradient_finite_at_zero_weights():
    """Rows of zeros among the factors' weights have a norm without a derivative."""
    zeros = {"wO": jnp.zeros((2, 3))}
    slope = jax.grad(lambda w: factor_weights(w).sum())(zeros)
    assert np.isfinite(slope["wO"]).all()


def test_generator_is_a_ctd_cell():
    """With inputs at a constant the generator is `ctd.cells.gru`, which fixed_points takes."""
    from ctd.cells import get_cell, run

    case = Case(**CASES["no controller"])
    external = jnp.ones((N_STEPS, 4, 2)) * jnp.array([0.5, -1.0])
    noise = Noise(jnp.zeros((4, 6)), jnp.zeros((N_STEPS, 4, 0)))

    @jax.jit
    def both(weights, seen, external):
        encoded = encode(case.static, weights, seen, N_STEPS, case.floor, noise)
        # The draw at zero noise is the mean.
        made = decode(case.static, weights, encoded, external, case.floor, noise)
        network = weights["generator"]
        network |= {"wO": factor_weights(network), "bO": jnp.zeros(3)}
        alone = run(get_cell("gru"), network, external[:, 0], encoded.ic_mean[0])
        return alone, (made.states[:, 0], made.factors[:, 0])

    for alone, made in zip(*both(case.weights, case.batch.seen, external), strict=True):
        np.testing.assert_allclose(alone, made, rtol=1e-12)


# --- the loss -------------------------------------------------------------------------------------


@pytest.mark.parametrize("log_variance", [-20.0, -7.0, 0.0])
def test_gaussian_likelihood_integrates_to_one(log_variance):
    """With the floored variance in the exponent and in the normaliser alike."""
    variance = math.exp(log_variance) + Model().variance_floor
    x = jnp.linspace(-12, 12, 4001) * math.sqrt(variance)
    density = jnp.exp(gaussian_log_likelihood(x, jnp.zeros(()), jnp.asarray(variance)))
    # The trapezium rule is exact to rounding for a density that ends at 12 deviations.
    assert integrate.trapezoid(density, x) == pytest.approx(1, abs=1e-9)


def test_training_loss_terms():
    """The sum of terms at the scales and ramps of the step; L2 over recurrent weights alone."""
    case = Case(kl_ic=0.5, kl_input=2.0, kl_start=0.1, kl_ramp=10, l2_ramp=20, l2_generator=0.3)
    value, terms = case.loss()(case.weights, 5)
    k, l = 0.1 + 0.9 * 0.5, 0.25
    kl = 0.5 * terms["kl_ic"] + 2 * terms["kl_input"]
    assert float(value) == pytest.approx(float(terms["nll"] + k * kl + l * terms["l2"]), rel=1e-12)
    expected = 0.0
    for name, scale, n in (("generator", 0.3, 6), ("controller", 1e-5, 4)):
        cell = case.weights[name]
        recurrent = [np.asarray(cell["wRUHX"])[:, :n], np.asarray(cell["wCHX"])[:, :n]]
        expected += scale * sum((w**2).sum() for w in recurrent)
    assert float(terms["l2"]) == pytest.approx(expected, rel=1e-12)
    gradient = jax.jit(jax.grad(lambda w: penalty(case.static, case.traced, w)))(case.weights)
    touched = {name for name, part in gradient.items() if any(g.any() for g in part.values())}
    assert touched == {"generator", "controller"}


def test_penalty_of_a_neural_ode():
    """Over its field's weights but for those of inputs and biases; half the mean square with `penalties: entry`."""
    rng = np.random.default_rng(0)
    field = {"wFHX": rng.normal(size=(5, 8)), "wV": rng.normal(size=(6, 5)), "bF": np.ones(5)}
    square = (field["wFHX"][:, :6] ** 2).sum() + (field["wV"] ** 2).sum()
    for penalties, expected in (("trial", 0.3 * square), ("entry", 0.3 * square / 2 / 60)):
        model = Model(**SIZES | {"controller": 0, "penalties": penalties, "l2_generator": 0.3})
        found = penalty(static_of(model), traced_of(model), {"generator": field})
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
    assert float(penalty(case.static, without, case.weights)) == pytest.approx(alone, rel=1e-12)


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


def test_dropout_keeps_expectations():
    """Masks have mean 1; entries hidden by coordinated dropout are those that count, at mean weight 1."""
    case = Case(dropout=0.2, coordinated_dropout=0.3, batch_size=500)
    noise, weights = case.drawn
    for mask in (noise.data, noise.ends, noise.encoded, noise.states):
        # 4 standard errors of the largest relative deviation, over 5,000 entries or more.
        spread = math.sqrt(1 / (0.8 * 0.7) - 1) / math.sqrt(mask.size)
        assert float(mask.mean()) == pytest.approx(1, abs=4 * spread)
    assert set(np.unique(weights)) == {0.0, 1 / 0.3}
    assert not np.asarray(noise.data)[np.asarray(weights) > 0].any()
    assert float(weights.mean()) == pytest.approx(1, abs=4 * 1.6 / math.sqrt(weights.size))
    shown = np.asarray(noise.data)[np.asarray(weights) == 0]
    assert (shown > 0).mean() == pytest.approx(0.8, abs=0.02)


def test_coordinated_dropout_off_counts_all():
    case = Case(dropout=0.2)
    assert np.asarray(case.drawn[1] == 1).all()


def test_coordinated_dropout_ignores_what_the_encoder_sees():
    """The gradient of the nll with respect to data that were shown is none: no pass-through of spikes."""
    case = Case(coordinated_dropout=0.5)
    noise, seen_weights = case.drawn
    spread = spread_weights(case.dataset, seen_weights, N_STEPS, N_UNITS)

    def nll(data, weights, batch, noise, spread):
        batch = batch._replace(data=data)
        return bound(case.static, weights, case.floor, batch, noise, spread)["nll"].sum()

    slope = np.asarray(
        jax.jit(jax.grad(nll))(case.batch.data, case.weights, case.batch, noise, spread)
    )
    assert not slope[np.asarray(noise.data) > 0].any()
    assert slope[np.asarray(spread) > 0].all()


def test_spread_weights_held_out():
    """What the encoder never sees always counts."""
    case = Case(**CASES["held out"], coordinated_dropout=0.5)
    seen_weights = case.drawn[1]
    spread = np.asarray(spread_weights(case.dataset, seen_weights, N_STEPS, N_UNITS))
    seen = [0, 2, 3, 4, 6, 7]
    assert (spread[:, :, [1, 5]] == 1).all()
    assert (spread[-2:] == 1).all()
    np.testing.assert_array_equal(spread[:-2][:, :, seen], seen_weights)
    np.testing.assert_array_equal(case.batch.seen, case.batch.data[:-2][:, :, np.array(seen)])


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
        found = evaluate(case.static, traced, dataset, weights, key)
        parts = []
        for number, rows in enumerate(([0, 1, 2, 3], [4, 5, 5, 5])):
            batch = gather(case.static, dataset, dataset.evaluation, jnp.array(rows))
            noise = draw_noise(case.static, jax.random.fold_in(key, number), batch)
            terms = bound(case.static, weights, traced.variance_floor, batch, noise)
            parts.append(terms["nll"][: len(set(rows))])
        return found["nll"], jnp.concatenate(parts).mean()

    found, expected = compare(case.weights, case.traced, case.dataset, case.key)
    assert float(found) == pytest.approx(float(expected), rel=1e-12)
