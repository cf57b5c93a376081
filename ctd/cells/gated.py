"""Gated cells: the GRU of the computation-through-dynamics tutorials, and PyTorch's GRU and LSTM with PyTorch's weights."""

from __future__ import annotations

from collections.abc import Callable

from ctd.cells.cell import READOUT_AXES, Cell, Scales, Weights, normal
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


def _gru_shapes(n: int, n_in: int) -> dict[str, tuple[int, ...]]:
    return {"wRUHX": (2 * n, n + n_in), "bRU": (2 * n,), "wCHX": (n, n + n_in), "bC": (n,)}


def _gru_draw(
    key: jax.Array, n: int, n_in: int, scales: Scales, dtype: jax.typing.DTypeLike
) -> dict[str, Array]:
    gates_h, gates_x, candidate_h, candidate_x = jax.random.split(key, 4)

    # State and input have scales of their own: each block is N(0, g^2 / its own fan-in).
    def columns(key_h: jax.Array, key_x: jax.Array, rows: int) -> Array:
        over_h = normal(key_h, (rows, n), scales.recurrent, dtype)
        return jnp.concatenate([over_h, normal(key_x, (rows, n_in), scales.input, dtype)], axis=1)

    return {
        "wRUHX": columns(gates_h, gates_x, 2 * n),
        "bRU": jnp.zeros(2 * n, dtype),
        "wCHX": columns(candidate_h, candidate_x, n),
        "bC": jnp.zeros(n, dtype),
    }


def _gru_infer(w: Weights) -> tuple[int, int]:
    # wCHX is (n, n + n_in).
    n, columns = w["wCHX"].shape
    return n, columns - n


GRU_AXES = {
    "wRUHX": ("reset_update", "unit_and_input"),
    "bRU": ("reset_update",),
    "wCHX": ("unit", "unit_and_input"),
    "bC": ("unit",),
}

gru = Cell(
    "gru",
    _gru_step(UPDATE_BIAS, 0.0),
    _gru_shapes,
    GRU_AXES | READOUT_AXES,
    _gru_infer,
    _gru_draw,
)
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


def _torch_shapes(gates: int) -> Callable[[int, int], dict[str, tuple[int, ...]]]:
    return lambda n, n_in: {
        "weight_ih": (gates * n, n_in),
        "weight_hh": (gates * n, n),
        "bias_ih": (gates * n,),
        "bias_hh": (gates * n,),
    }


def _torch_draw(gates: int) -> Callable[..., dict[str, Array]]:
    def draw(
        key: jax.Array, n: int, n_in: int, scales: Scales, dtype: jax.typing.DTypeLike
    ) -> dict[str, Array]:
        key_in, key_rec = jax.random.split(key)
        bias = jnp.zeros(gates * n, dtype)
        if gates == 4:
            # An LSTM whose forget gate starts open learns long delays (Jozefowicz et al. 2015).
            bias = bias.at[n : 2 * n].set(1)
        return {
            "weight_ih": normal(key_in, (gates * n, n_in), scales.input, dtype),
            "weight_hh": normal(key_rec, (gates * n, n), scales.recurrent, dtype),
            "bias_ih": bias,
            "bias_hh": jnp.zeros(gates * n, dtype),
        }

    return draw


def _torch_infer(w: Weights) -> tuple[int, int]:
    return w["weight_hh"].shape[1], w["weight_ih"].shape[1]


TORCH_AXES = {
    "weight_ih": ("gate_unit", "input"),
    "weight_hh": ("gate_unit", "unit"),
    "bias_ih": ("gate_unit",),
    "bias_hh": ("gate_unit",),
}

gru_torch = Cell(
    "gru_torch",
    _gru_torch_step,
    _torch_shapes(3),
    TORCH_AXES | READOUT_AXES,
    _torch_infer,
    _torch_draw(3),
)
"""The gated recurrent unit of torch.nn.GRUCell and flax.linen.GRUCell, gates in the order r, z, n::

    r, z = sigmoid(W_i x + b_i + W_h h + b_h)
    n    = tanh(W_in x + b_in + r (W_hn h + b_hn))
    F    = (1 - z) n + z h
"""

lstm = Cell(
    "lstm",
    _lstm_step,
    _torch_shapes(4),
    TORCH_AXES | READOUT_AXES,
    _torch_infer,
    _torch_draw(4),
    n_vectors=2,
    hidden=lambda h: jnp.split(h, 2)[0],
)
"""The long short-term memory of torch.nn.LSTMCell, gates in the order i, f, g, o; state [h; c]::

    c' = sigmoid(f) c + sigmoid(i) tanh(g)
    h' = sigmoid(o) tanh(c')
"""
