"""Gated cells: the GRU of the computation-through-dynamics tutorials, and PyTorch's GRU and LSTM with PyTorch's weights."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ctd.cells.cell import Cell, Weights
from ctd.late import Array, Float, jax, jnp

UPDATE_BIAS = 0.5
"""Constant that `gru` adds inside its update gate: the gate of an untrained network is then sigmoid(0.5) = 0.62 open, so that
it keeps its state for some steps and gradients reach back that far."""


def _gru_step(update: float, candidate: float) -> Callable[[Weights, Array, Array], Array]:
    """Make the step of a GRU that adds `update` inside its update gate and `candidate` inside its candidate's tanh."""

    def step(
        w: Weights, h: Float[Array, "state"], x: Float[Array, "n_in"]
    ) -> Float[Array, "state"]:
        # One product for both gates; the columns of wRUHX belong to the state, then to the input.
        r, u = jnp.split(w["wRUHX"] @ jnp.concatenate([h, x]) + w["bRU"], 2)
        r, u = jax.nn.sigmoid(r), jax.nn.sigmoid(u + update)
        c = jnp.tanh(w["wCHX"] @ jnp.concatenate([r * h, x]) + w["bC"] + candidate)
        # u near 1 keeps the state; PyTorch writes z for the same gate.
        return u * h + (1 - u) * c

    return step


GRU_AXES = {
    "wRUHX": ("reset_update", "unit_and_input"),
    "bRU": ("reset_update",),
    "wCHX": ("unit", "unit_and_input"),
    "bC": ("unit",),
}

# h' lies between h and a tanh.
gru = Cell("gru", _gru_step(UPDATE_BIAS, 0.0), GRU_AXES, most=1)
"""The gated recurrent unit of the google-research/computation-thru-dynamics tutorials::

    r, u = wRUHX [h; x] + bRU
    c    = tanh(wCHX [sigmoid(r) h; x] + bC)
    F    = sigmoid(u + 0.5) h + (1 - sigmoid(u + 0.5)) c

The tutorials have had this form since 2020-01-08 (their commits bee7219, 7428c7a, 5628c69); files that they wrote
before that day belong to the cell `gru_candidate_bias`. The reset gate acts on h before the recurrent product (Cho et
al. 2014), where that of `gru_torch` acts after it.
"""

gru_candidate_bias = gru._replace(name="gru_candidate_bias", step=_gru_step(0.0, 0.5))
"""The GRU of the same tutorials before 2020-01-08, with the 0.5 inside the candidate's tanh::

    r, u = sigmoid(wRUHX [h; x] + bRU)
    c    = tanh(wCHX [r h; x] + bC + 0.5)
    F    = u h + (1 - u) c

It equals `gru` with bC + 0.5 in place of bC, and with 0.5 subtracted from the update gate's half of bRU.
"""


# --- PyTorch's conventions ------------------------------------------------------------------------


# Gates lie below each other in the rows of weight_ih and weight_hh, in PyTorch's order. PyTorch has two biases where one
# would do; both are kept, so that its files load and save unchanged.


def _gru_torch_step(
    w: Weights, h: Float[Array, "state"], x: Float[Array, "n_in"]
) -> Float[Array, "state"]:
    # PyTorch multiplies state and input apart, since its reset gate acts on the product with the state.
    r_x, z_x, n_x = jnp.split(w["weight_ih"] @ x + w["bias_ih"], 3)
    r_h, z_h, n_h = jnp.split(w["weight_hh"] @ h + w["bias_hh"], 3)
    r, z = jax.nn.sigmoid(r_x + r_h), jax.nn.sigmoid(z_x + z_h)
    return (1 - z) * jnp.tanh(n_x + r * n_h) + z * h


def _lstm_step(
    w: Weights, h: Float[Array, "state"], x: Float[Array, "n_in"]
) -> Float[Array, "state"]:
    # The state is [h; c]: the readout sees h, the next step both.
    h, c = jnp.split(h, 2)
    gates = w["weight_ih"] @ x + w["bias_ih"] + w["weight_hh"] @ h + w["bias_hh"]
    i, f, g, o = jnp.split(gates, 4)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jnp.concatenate([jax.nn.sigmoid(o) * jnp.tanh(c), c])


TORCH_AXES = {
    "weight_ih": ("gate_unit", "input"),
    "weight_hh": ("gate_unit", "unit"),
    "bias_ih": ("gate_unit",),
    "bias_hh": ("gate_unit",),
}

gru_torch = Cell("gru_torch", _gru_torch_step, TORCH_AXES, n_gates=3, most=1)
"""The gated recurrent unit of torch.nn.GRUCell and flax.linen.GRUCell, gates in the order r, z, n::

    r, z = sigmoid(W_i x + b_i + W_h h + b_h)
    n    = tanh(W_in x + b_in + r (W_hn h + b_hn))
    F    = (1 - z) n + z h
"""

lstm = Cell(
    "lstm",
    _lstm_step,
    TORCH_AXES,
    # An LSTM whose forget gate starts open learns long delays (Jozefowicz et al. 2015).
    starts=lambda n: {"bias_ih": np.repeat([0, 1, 0, 0], n)},
    n_gates=4,
    n_vectors=2,
    hidden=lambda h: jnp.split(h, 2)[0],
)
"""The long short-term memory of torch.nn.LSTMCell, gates in the order i, f, g, o; state [h; c]::

    c' = sigmoid(f) c + sigmoid(i) tanh(g)
    h' = sigmoid(o) tanh(c')
"""
