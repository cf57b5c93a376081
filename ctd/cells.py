"""Recurrent cells: one-step maps h -> F(h, x) of a network's state, and their weights.

Everything here is a pure function of one network and one example; batches and ensembles are vmaps.
A network is a dict name -> array: the cell's weights, and three that every cell may have:

    wO (n_out, n), bO (n_out,)   readout, z = wO hidden(h) + bO
    h0 (state,)                  the state before the first step; zeros where it is left out

n is the number of units. The state is the vector that F updates: the hidden vector, or for an LSTM the
hidden vector followed by the memory cells, 2n entries in all.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import AfterValidator, WithJsonSchema

from ctd.late import jax, jnp, lax

type Weights = Mapping[str, jax.Array]

READOUT_AXES = {"wO": ("output", "unit"), "bO": ("output",), "h0": ("state",)}
H0_SCALE = 0.1
"""Standard deviation of the entries of a random initial state."""


class Sizes(NamedTuple):
    """The numbers of a network's units, inputs and outputs."""

    n: int
    n_in: int
    n_out: int
    """0 where it has no readout."""


class Scales(NamedTuple):
    """g of random weights N(0, g^2 / fan-in); may be traced numbers."""

    recurrent: Any = 1.0
    input: Any = 1.0


UNIT = Scales()


class Cell(NamedTuple):
    """A recurrent cell."""

    name: str
    step: Callable[[Weights, jax.Array, jax.Array], jax.Array]
    """F(weights, state, input): the next state of one example."""
    shapes: Callable[[int, int], dict[str, tuple[int, ...]]]
    """(n, n_in) -> shape of every weight of the cell, without the readout and h0."""
    axes: Mapping[str, tuple[str, ...]]
    """Weight -> names of its axes, the readout and h0 included."""
    infer: Callable[[Weights], tuple[int, int]]
    """Weights -> (n, n_in)."""
    draw: Callable[..., dict[str, jax.Array]]
    """(key, n, n_in, scales, dtype) -> random weights of the cell."""
    n_vectors: int = 1
    """The state consists of this many vectors of length n."""
    hidden: Callable[[jax.Array], jax.Array] = lambda h: h
    """State -> what the readout sees."""
    constants: tuple[str, ...] = ()
    """Weights that training does not change."""

    def state_size(self, n: int) -> int:
        """The length of the state of n units."""
        return self.n_vectors * n

    def init(
        self,
        key: jax.Array,
        n: int,
        n_in: int,
        n_out: int,
        scales: Scales = UNIT,
        dtype: Any = "float32",
    ) -> dict[str, jax.Array]:
        """Random weights N(0, g^2 / fan-in); g is that of `scales` or, for the readout, 1.

        Biases are 0, except that of the LSTM's forget gate, which is 1; entries of h0 are N(0, 0.1^2).
        """
        key_cell, key_out, key_state = jax.random.split(key, 3)
        weights = self.draw(key_cell, n, n_in, scales, dtype)
        return weights | {
            "wO": _normal(key_out, (n_out, n), 1.0, dtype),
            "bO": jnp.zeros(n_out, dtype),
            "h0": H0_SCALE * jax.random.normal(key_state, (self.state_size(n),), dtype),
        }


def _normal(key: jax.Array, shape: tuple[int, int], scale: Any, dtype: Any) -> jax.Array:
    """(rows, fan-in) entries of N(0, scale^2 / fan-in)."""
    factor: jax.Array = jnp.asarray(scale, dtype) * shape[1] ** -0.5
    return factor * jax.random.normal(key, shape, dtype)


# --- vanilla --------------------------------------------------------------------------------------


def _vanilla_step(w: Weights, h: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.tanh(w["wR"] @ h + w["wI"] @ x + w["bR"])


def _vanilla_shapes(n: int, n_in: int) -> dict[str, tuple[int, ...]]:
    return {"wI": (n, n_in), "wR": (n, n), "bR": (n,)}


def _vanilla_draw(
    key: jax.Array, n: int, n_in: int, scales: Scales, dtype: Any
) -> dict[str, jax.Array]:
    key_in, key_rec = jax.random.split(key)
    return {
        "wI": _normal(key_in, (n, n_in), scales.input, dtype),
        "wR": _normal(key_rec, (n, n), scales.recurrent, dtype),
        "bR": jnp.zeros(n, dtype),
    }


def _vanilla_infer(w: Weights) -> tuple[int, int]:
    n, n_in = w["wI"].shape
    return n, n_in


VANILLA_AXES = {"wI": ("unit", "input"), "wR": ("unit", "unit_from"), "bR": ("unit",)}

vanilla = Cell(
    "vanilla",
    _vanilla_step,
    _vanilla_shapes,
    VANILLA_AXES | READOUT_AXES,
    _vanilla_infer,
    _vanilla_draw,
)
"""The tanh network, F(h, x) = tanh(wR h + wI x + bR)."""


# --- leaky ----------------------------------------------------------------------------------------

LEAK = 0.1
"""The leaky cell's alpha = dt / tau unless it is set."""


def _leaky_step(w: Weights, h: jax.Array, x: jax.Array) -> jax.Array:
    return h + w["alpha"] * (-h + w["wR"] @ jnp.tanh(h) + w["wI"] @ x + w["bR"])


def _leaky_shapes(n: int, n_in: int) -> dict[str, tuple[int, ...]]:
    return _vanilla_shapes(n, n_in) | {"alpha": ()}


def _leaky_draw(
    key: jax.Array, n: int, n_in: int, scales: Scales, dtype: Any
) -> dict[str, jax.Array]:
    weights = _vanilla_draw(key, n, n_in, scales, dtype)
    return weights | {"alpha": jnp.asarray(LEAK, dtype)}


leaky = Cell(
    "leaky",
    _leaky_step,
    _leaky_shapes,
    VANILLA_AXES | {"alpha": ()} | READOUT_AXES,
    _vanilla_infer,
    _leaky_draw,
    hidden=lambda h: jnp.tanh(h),
    constants=("alpha",),
)
"""The continuous-time network tau dh/dt = -h + wR tanh(h) + wI x + bR, by Euler steps of dt.

The weight alpha = dt / tau is a number in (0, 1] that training does not change. The readout sees
the rates tanh(h). This is the network of Sompolinsky, Crisanti & Sommers 1988 with inputs.
"""


# --- GRU, as in the tutorials of computation through dynamics -------------------------------------

UPDATE_BIAS = 0.5
"""Constant that `gru` adds inside its update gate, so that an untrained network keeps its state for some steps."""


def _gru_step(update: float, candidate: float) -> Callable[[Weights, jax.Array, jax.Array], Any]:
    """The step of a GRU that adds these constants inside its update gate and its candidate."""

    def step(w: Weights, h: jax.Array, x: jax.Array) -> jax.Array:
        r, u = jnp.split(w["wRUHX"] @ jnp.concatenate([h, x]) + w["bRU"], 2)
        r, u = jax.nn.sigmoid(r), jax.nn.sigmoid(u + update)
        c = jnp.tanh(w["wCHX"] @ jnp.concatenate([r * h, x]) + w["bC"] + candidate)
        return u * h + (1 - u) * c

    return step


def _gru_shapes(n: int, n_in: int) -> dict[str, tuple[int, ...]]:
    return {"wRUHX": (2 * n, n + n_in), "bRU": (2 * n,), "wCHX": (n, n + n_in), "bC": (n,)}


def _gru_draw(
    key: jax.Array, n: int, n_in: int, scales: Scales, dtype: Any
) -> dict[str, jax.Array]:
    gates_h, gates_x, candidate_h, candidate_x = jax.random.split(key, 4)

    def columns(key_h: jax.Array, key_x: jax.Array, rows: int) -> jax.Array:
        over_h = _normal(key_h, (rows, n), scales.recurrent, dtype)
        return jnp.concatenate([over_h, _normal(key_x, (rows, n_in), scales.input, dtype)], axis=1)

    return {
        "wRUHX": columns(gates_h, gates_x, 2 * n),
        "bRU": jnp.zeros(2 * n, dtype),
        "wCHX": columns(candidate_h, candidate_x, n),
        "bC": jnp.zeros(n, dtype),
    }


def _gru_infer(w: Weights) -> tuple[int, int]:
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

The tutorials have had this form since 2020-01-08 (their commits bee7219, 7428c7a, 5628c69); files written
before belong to the cell `gru_candidate_bias`. Unlike in `gru_torch`, the reset gate acts on h before the
recurrent product (Cho et al. 2014).
"""

gru_candidate_bias = gru._replace(name="gru_candidate_bias", step=_gru_step(0.0, 0.5))
"""The same tutorials' GRU as it was before 2020-01-08, with the 0.5 inside the candidate's tanh::

    r, u = sigmoid(wRUHX [h; x] + bRU)
    c    = tanh(wCHX [r h; x] + bC + 0.5)
    F    = u h + (1 - u) c

It equals `gru` with bC + 0.5 in place of bC, and with 0.5 subtracted from the update gate's half of bRU.
"""


# --- PyTorch's conventions ------------------------------------------------------------------------


def _gru_torch_step(w: Weights, h: jax.Array, x: jax.Array) -> jax.Array:
    r_x, z_x, n_x = jnp.split(w["weight_ih"] @ x + w["bias_ih"], 3)
    r_h, z_h, n_h = jnp.split(w["weight_hh"] @ h + w["bias_hh"], 3)
    r, z = jax.nn.sigmoid(r_x + r_h), jax.nn.sigmoid(z_x + z_h)
    return (1 - z) * jnp.tanh(n_x + r * n_h) + z * h


def _lstm_step(w: Weights, h: jax.Array, x: jax.Array) -> jax.Array:
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


def _torch_draw(gates: int) -> Callable[..., dict[str, jax.Array]]:
    def draw(key: jax.Array, n: int, n_in: int, scales: Scales, dtype: Any) -> dict[str, jax.Array]:
        key_in, key_rec = jax.random.split(key)
        bias = jnp.zeros(gates * n, dtype)
        if gates == 4:
            # An open forget gate at the start (Jozefowicz et al. 2015).
            bias = bias.at[n : 2 * n].set(1)
        return {
            "weight_ih": _normal(key_in, (gates * n, n_in), scales.input, dtype),
            "weight_hh": _normal(key_rec, (gates * n, n), scales.recurrent, dtype),
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

CELLS = {cell.name: cell for cell in (vanilla, gru, gru_candidate_bias, gru_torch, lstm, leaky)}


# --- any cell -------------------------------------------------------------------------------------


def get_cell(name: str) -> Cell:
    """The cell called `name`. Raises ValueError, naming the nearest cell, where there is none."""
    if name in CELLS:
        return CELLS[name]
    near = difflib.get_close_matches(name, CELLS, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ValueError(f"cell: {name!r} is unknown; {hint}the cells are {', '.join(CELLS)}")


CellName = Annotated[
    str,
    AfterValidator(lambda name: get_cell(name).name),
    WithJsonSchema({"enum": list(CELLS)}),
]
"""The type of a field that names a cell."""


def readout(cell: Cell, params: Weights, h: jax.Array) -> jax.Array:
    """z = wO hidden(h) + bO of one state (state,), (n_out,); length 0 for a network without readout."""
    if "wO" not in params:
        return jnp.zeros(0, h.dtype)
    return params["wO"] @ cell.hidden(h) + params["bO"]


def initial_state(cell: Cell, params: Weights, dtype: Any) -> jax.Array:
    """(state,) the network's h0, or zeros of `dtype` where it has none."""
    if "h0" in params:
        return jnp.asarray(params["h0"])
    n, _ = cell.infer(params)
    return jnp.zeros(cell.state_size(n), dtype)


def run(
    cell: Cell, params: Weights, inputs: jax.Array, h0: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """One trial: h_t = F(h_{t-1}, x_t), z_t = readout(h_t).

    Args:
        inputs: (time, n_in).
        h0: (state,) the state before the first step; None: the network's h0.

    Returns:
        states (time, state) and outputs (time, n_out).
    """
    if h0 is None:
        h0 = initial_state(cell, params, inputs.dtype)

    def step(h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        h = cell.step(params, h, x)
        return h, h

    _, states = lax.scan(step, h0, inputs)
    return states, jax.vmap(lambda h: readout(cell, params, h))(states)


def sizes(cell_name: str, params: Mapping[str, Any]) -> Sizes:
    """The sizes of a network with these weights."""
    n, n_in = get_cell(cell_name).infer(params)
    return Sizes(n, n_in, params["wO"].shape[0] if "wO" in params else 0)


def check_params(cell_name: str, params: Mapping[str, Any], where: str) -> None:
    """Check that `params` are finite real weights of this cell, with shapes that fit each other.

    Raises ValueError, naming `where` and the weight.
    """
    cell = get_cell(cell_name)
    own = set(cell.axes) - set(READOUT_AXES)
    missing = own - set(params)
    if "wO" in params or "bO" in params:
        missing |= {"wO", "bO"} - set(params)
    extra = set(params) - set(cell.axes)
    if missing or extra:
        found = f"{', '.join(sorted(params)) or 'nothing'}"
        fits = [
            c.name for c in CELLS.values() if set(params) - set(READOUT_AXES) == set(c.shapes(1, 1))
        ]
        hint = f"; these are the weights of cell {' or '.join(fits)}" if fits else ""
        wrong = [f"lacks {', '.join(sorted(missing))}"] if missing else []
        wrong += [f"does not know {', '.join(sorted(extra))}"] if extra else []
        raise ValueError(f"{where}: cell {cell_name} {' and '.join(wrong)}; found {found}{hint}")
    for name, axes in cell.axes.items():
        if name in params and np.ndim(params[name]) != len(axes):
            raise ValueError(
                f"{where}: {name} has the shape {np.shape(params[name])}, but cell {cell_name} "
                f"needs {len(axes)} axes ({', '.join(axes) or 'a number'})"
            )
    n, n_in, n_out = sizes(cell_name, params)
    shapes = cell.shapes(n, n_in) | {"wO": (n_out, n), "bO": (n_out,), "h0": (cell.state_size(n),)}
    for name, value in params.items():
        if np.shape(value) != shapes[name]:
            raise ValueError(
                f"{where}: {name} has the shape {np.shape(value)}, but cell {cell_name} with "
                f"n = {n} units and {n_in} inputs needs {shapes[name]}"
            )
        if not np.issubdtype(np.asarray(value).dtype, np.floating):
            raise ValueError(
                f"{where}: {name} has the type {np.asarray(value).dtype}, not a real one"
            )
        bad = ~np.isfinite(np.asarray(value))
        if bad.any():
            first = tuple(int(i) for i in np.argwhere(bad)[0])
            raise ValueError(
                f"{where}: {name} has {int(bad.sum())} NaN or infinite entries, "
                f"the first at {first}"
            )
