"""The tutorials' computations in plain NumPy, from the newest code of google-research/computation-thru-dynamics.

The functions follow the origin's formulas and names, not this project's; each names its source as
file:function, relative to that repository. Nothing here imports this project or JAX. Derivatives are
taken by complex steps, f'(x) = Im f(x + ih) / h, which subtract nothing: with h = 1e-30 they are exact
to rounding.
"""

import numpy as np
from scipy import stats

TINY = 1e-30

# --- cells ----------------------------------------------------------------------------------------


def sigmoid(x):
    """fixed_point_finder/rnn.py:sigmoid"""
    return 0.5 * (np.tanh(x / 2) + 1)


def gru(params, h, x, bfg=0.5):
    """fixed_point_finder/rnn.py:gru, since 2020-01-08."""
    r, u = np.split(params["wRUHX"] @ np.concatenate([h, x]) + params["bRU"], 2)
    r, u = sigmoid(r), sigmoid(u + bfg)
    c = np.tanh(params["wCHX"] @ np.concatenate([r * h, x]) + params["bC"])
    return u * h + (1 - u) * c


def gru_before_2020(params, h, x, bfg=0.5):
    """The same function before commit bee7219: the constant stands in the candidate."""
    r, u = np.split(params["wRUHX"] @ np.concatenate([h, x]) + params["bRU"], 2)
    r, u = sigmoid(r), sigmoid(u)
    c = np.tanh(params["wCHX"] @ np.concatenate([r * h, x]) + params["bC"] + bfg)
    return u * h + (1 - u) * c


def vrnn(params, h, x):
    """integrator_rnn_tutorial/rnn.py:vrnn"""
    return np.tanh(params["wI"] @ x + params["bR"] + params["wR"] @ h)


def affine(params, x):
    """rnn.py:affine of both tutorials"""
    return params["wO"] @ x + params["bO"]


def run_with_h0(step, params, x_t, h):
    """rnn.py:gru_run_with_h0, vrnn_run_with_h0: hidden states (time, n) and outputs (time, o)."""
    h_t = []
    for x in x_t:
        h = step(params, h, x)
        h_t.append(h)
    return np.array(h_t), np.array([affine(params, h) for h in h_t])


def run(step, params, x_t):
    """rnn.py:gru_run, vrnn_run"""
    return run_with_h0(step, params, x_t, params["h0"])


def random_vrnn_params(rng, u, n, o, g=1.0):
    """integrator_rnn_tutorial/rnn.py:random_vrnn_params"""
    return {
        "h0": 0.1 * rng.standard_normal(n),
        "wI": rng.standard_normal((n, u)) / np.sqrt(u),
        "wR": g * rng.standard_normal((n, n)) / np.sqrt(n),
        "wO": rng.standard_normal((o, n)) / np.sqrt(n),
        "bR": np.zeros(n),
        "bO": np.zeros(o),
    }


def gru_params(rng, u, n, o, i_factor=1.0, h_factor=1.0, h_scale=0.1):
    """fixed_point_finder/rnn.py:gru_params"""
    ifactor, hfactor = i_factor / np.sqrt(u), h_factor / np.sqrt(n)
    both = lambda rows: np.concatenate(
        [hfactor * rng.standard_normal((rows, n)), ifactor * rng.standard_normal((rows, u))], axis=1
    )
    return {
        "h0": h_scale * rng.standard_normal(n),
        "wRUHX": both(2 * n),
        "wCHX": both(n),
        "bRU": np.zeros(2 * n),
        "bC": np.zeros(n),
        "wO": rng.standard_normal((o, n)) / np.sqrt(n),
        "bO": np.zeros(o),
    }


# --- training -------------------------------------------------------------------------------------


def loss(step, params, inputs_bxtxu, targets_bxtxo, targets_mask_t, l2reg):
    """fixed_point_finder/rnn.py:loss, total; the integrator's has all steps in its mask."""
    outs = np.array([run(step, params, x_t)[1] for x_t in inputs_bxtxu])
    # optimizers.l2_norm squared; no abs, so that complex steps go through.
    l2_loss = l2reg * sum(np.sum(w**2) for w in params.values())
    lms_loss = np.mean((outs[:, targets_mask_t] - targets_bxtxo[:, targets_mask_t]) ** 2)
    return lms_loss + l2_loss


def grad(f, params):
    """The gradient of f(params), for a dict of real arrays."""
    found = {}
    for name, value in params.items():
        found[name] = np.zeros_like(value)
        for index in np.ndindex(value.shape):
            moved = value.astype(complex)
            moved[index] += 1j * TINY
            found[name][index] = f(params | {name: moved}).imag / TINY
    return found


def clip_grads(grads, max_norm):
    """jax.example_libraries.optimizers:clip_grads"""
    norm = np.sqrt(sum(np.sum(g**2) for g in grads.values()))
    return {k: g if norm < max_norm else g * (max_norm / norm) for k, g in grads.items()}


def adam(i, g, state, step_size, b1, b2, eps):
    """jax.example_libraries.optimizers:adam, update i of one array, whose state is (x, m, v)."""
    x, m, v = state
    m = (1 - b1) * g + b1 * m
    v = (1 - b2) * g**2 + b2 * v
    mhat = m / (1 - b1 ** (i + 1))
    vhat = v / (1 - b2 ** (i + 1))
    return x - step_size * mhat / (np.sqrt(vhat) + eps), m, v


def train(step, params, batches, mask, l2reg, max_grad_norm, step_size, decay_factor, adam_eps):
    """The loop of the Integrator notebook, cell 11, with rnn.py:update_w_gc, over (inputs, targets).

    Returns the weights, and the loss of each step before its update, without the penalty.
    """
    losses = []
    states = {k: (w, np.zeros_like(w), np.zeros_like(w)) for k, w in params.items()}
    for i, (inputs, targets) in enumerate(batches):
        now = {k: state[0] for k, state in states.items()}
        losses.append(loss(step, now, inputs, targets, mask, 0.0))
        grads = grad(
            lambda p, x=inputs, f=targets: loss(step, p, x, f, mask, l2reg),
            now,
        )
        grads = clip_grads(grads, max_grad_norm)
        rate = step_size * decay_factor**i
        states = {k: adam(i, grads[k], states[k], rate, 0.9, 0.999, adam_eps) for k in states}
    return {k: state[0] for k, state in states.items()}, losses


# --- tasks ----------------------------------------------------------------------------------------

INPUT_PARAMS = (0.01, 0.025, 1.0, 25)
"""(bias_val, stddev_val, T, ntime) of both notebooks."""


def white_noise(rng, n, input_params=INPUT_PARAMS):
    """The inputs (n, ntime) of both tasks, integrator.py and decision.py:build_input_and_target_*."""
    bias_val, stddev_val, T, ntime = input_params
    dt = T / ntime
    bias = bias_val * 2.0 * (rng.standard_normal((n, 1)) - 0.5)
    return bias + stddev_val / np.sqrt(dt) * rng.standard_normal((n, ntime))


def pure_integration(rng, n, input_params=INPUT_PARAMS):
    """integrator_rnn_tutorial/integrator.py:build_input_and_target_pure_integration"""
    inputs = white_noise(rng, n, input_params)
    return inputs[..., None], np.cumsum(inputs, axis=1)[..., None]


def binary_decision(rng, n, input_params=INPUT_PARAMS):
    """fixed_point_finder/decision.py:build_input_and_target_binary_decision, without the mask."""
    inputs = white_noise(rng, n, input_params)
    targets = np.zeros_like(inputs)
    targets[:, -1] = 2.0 * ((np.cumsum(inputs, axis=1)[:, -1] > 0.0) - 0.5)
    return inputs[..., None], targets[..., None]


def h0s_on_a_line(rng, params, n):
    """The Integrator notebook, cells 23 to 27: (n, units) states that its saved trials begin at."""
    bval, sval, T, ntimesteps = INPUT_PARAMS
    h0_ntimesteps = 7
    h0_input_params = (bval, sval, T * float(h0_ntimesteps) / float(ntimesteps), h0_ntimesteps)
    inputs, _ = pure_integration(rng, n, h0_input_params)
    inputs = np.concatenate([inputs, np.zeros((n, 1, 1))], axis=1)
    return np.array([run_with_h0(vrnn, params, x_t, params["h0"])[0][-1] for x_t in inputs])


def spike_means(hiddens, data_dt, max_firing_rate):
    """Poisson means of the LFADS notebook, cell 16, and lfads_tutorial/utils.py:spikify_data."""
    return (hiddens + 1) / 2.0 * max_firing_rate * data_dt


# --- fixed points ---------------------------------------------------------------------------------


def fp_loss(rnn_fun, h):
    """fixed_point_finder/fixed_points.py:get_fp_loss_fun, of one state."""
    return np.mean((h - rnn_fun(h)) ** 2)


def jacobian(rnn_fun, h):
    """dF/dh, as fixed_points.py:compute_jacobians"""
    eye = np.eye(len(h))
    return np.stack([rnn_fun(h + 1j * TINY * e).imag / TINY for e in eye], axis=1)


# --- FORCE ----------------------------------------------------------------------------------------


def esn(x, a, h, z, wI, wR, wF, wO, dtdivtau):
    """FORCE_Learning_in_JAX.ipynb, cell 12: esn"""
    dadt = -a + wI @ x + wR @ h + wF @ z
    a = a + dtdivtau * dadt
    h = np.tanh(a)
    return a, h, wO @ h


def rls(h, z, f, wO, P):
    """FORCE_Learning_in_JAX.ipynb, cell 12: rls"""
    k = (P @ h)[:, None]
    hPh = h @ k
    c = 1.0 / (1.0 + hPh)
    P = P - (k * c) @ k.T
    e = np.atleast_2d(z - f)
    dw = (-c * k @ e).T
    return wO + dw, P


def esn_run_and_train(params, P, x_t, f_t=None):
    """FORCE_Learning_in_JAX.ipynb, cell 14: esn_run_and_train_jax, the unrolled loop.

    Trains where f_t is given. Returns wO, P, rates h_t and outputs z_t, each before its update.
    """
    a, wO = params["a0"], params["wO"]
    h = np.tanh(a)
    z = wO @ h
    wI, wR, wF = params["wI"], params["wR"], params["wF"]
    h_t, z_t = [], []
    for tidx, x in enumerate(x_t):
        a, h, z = esn(x, a, h, z, wI, wR, wF, wO, params["dt_over_tau"])
        if f_t is not None:
            wO, P = rls(h, z, f_t[tidx], wO, P)
        h_t.append(h)
        z_t.append(z)
    return wO, P, np.array(h_t), np.array(z_t)


# --- LFADS ----------------------------------------------------------------------------------------


def linregress_r2(a, b):
    """Squared correlation of two series."""
    return stats.linregress(a, b).rvalue ** 2


def rates_r2(rates, true_rates):
    """LFADS notebook, cell 62: its mean over trials and units."""
    n_trials, _, n_units = rates.shape
    return np.mean(
        [
            linregress_r2(rates[b, :, k], true_rates[b, :, k])
            for b in range(n_trials)
            for k in range(n_units)
        ]
    )


def inputs_r2(inferred, true_inputs):
    """LFADS notebook, cell 64: its mean over trials, the inferred input scaled by a regression."""
    found = []
    for inferred_input, true_input in zip(inferred, true_inputs, strict=True):
        slope, intercept, *_ = stats.linregress(inferred_input, true_input)
        found.append(linregress_r2(slope * inferred_input + intercept, true_input))
    return np.mean(found)
