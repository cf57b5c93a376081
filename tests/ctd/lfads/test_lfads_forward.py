"""Model of LFADS: its forward pass against an independent NumPy version, its gradient against finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lfads_cases import CASE_STEPS, CASES, Case, dense_kl
from scipy import stats
from scipy.special import gammaln

from ctd.lfads.model import Noise, decode, encode
from ctd.lfads.weights import factor_weights

pytestmark = pytest.mark.usefixtures("float64")


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
        np.asarray(x)[:, trial]
        for x in (case.batch.data, case.batch.seen_data, case.batch.external)
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
    if case.static.readout == "states":  # whatever the matrix of factors is
        readout = np.eye(len(g))
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


@pytest.mark.parametrize(
    "name",
    [
        # Of its parts, `ode, no controller` has the field and `no controller` the external inputs.
        pytest.param(name, marks=pytest.mark.endurance) if name == "ode" else name
        for name in CASES
    ],
)
def test_forward_pass_numpy(name):
    """Every term of every trial. 1e-10 relative: rounding of a few hundred operations in float64."""
    case = Case(**CASES[name], dropout=0.3)
    terms = jax.tree.map(np.asarray, case.terms())
    for trial in range(4):
        expected = np_bound(case, trial)
        for term, value in zip(("nll", "kl_ic", "kl_input"), expected, strict=True):
            assert terms[term][trial] == pytest.approx(value, rel=1e-10, abs=1e-12), term


# --- what follows from it -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "likelihood"),
    [
        # Plain autodiff of what is compared with NumPy above.
        pytest.param("ode, no controller", "gaussian", marks=pytest.mark.endurance),
        ("held out", "poisson"),
    ],
)
def test_gradient_finite_differences(name, likelihood):
    """Along one random direction of each weight. Central differences at 1e-5 are good to about 1e-9 of
    the loss; 1e-6 of the slope, or 1e-6 where it is smaller than 1. With external inputs: test_lfads_recurrence.py."""
    changes = CASES[name] | {"n_external": 0, "likelihood": likelihood}
    case = Case(**changes, coordinated_dropout=0.2)
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
    zeros = {"wO": np.zeros((2, 3))}
    slope = jax.jit(jax.grad(lambda w: factor_weights(w).sum()))(zeros)
    assert np.isfinite(slope["wO"]).all()


def test_generator_is_a_ctd_cell():
    """With inputs at a constant the generator is `ctd.cells.gru`, which fixed_points takes."""
    from ctd.cells import get_cell, run

    case = Case(**CASES["no controller"])
    external = np.ones((CASE_STEPS, 4, 2)) * [0.5, -1.0]
    noise = Noise(np.zeros((4, 6)), np.zeros((CASE_STEPS, 4, 0)))

    @jax.jit
    def both(weights, seen, external):
        encoded = encode(case.fitted(weights), seen, CASE_STEPS, noise)
        # The draw at zero noise is the mean.
        made, _ = decode(case.fitted(weights), encoded, external, noise)
        network = weights["generator"]
        network |= {"wO": factor_weights(network), "bO": jnp.zeros(3)}
        alone = run(get_cell("gru"), network, external[:, 0], encoded.ic_mean[0])
        return alone, (made.states[:, 0], made.factors[:, 0])

    for alone, made in zip(*both(case.weights, case.batch.seen_data, external), strict=True):
        np.testing.assert_allclose(alone, made, rtol=1e-12)
