"""The trained parameters of a network, and the weights made of them.

Weights keep their signs, zeros and bounds at every step, because every value of a parameter gives valid weights:

    Dale's law         wR_ij = sign_j |p_ij|, with derivative 1 at p = 0, so that no weight gets stuck there
    a mask             w = p where the mask is true, else 0
    rank r             wR = m n' / N with parameters m and n (N, r)
    time constants     alpha_i = alpha_min^(1 - s_i) alpha_max^s_i, s_i = sigmoid(p_i)
    readout identity   wO has ones on its diagonal, zeros elsewhere, and no parameter; bO is 0

Results hold the weights under the names of `ctd.cells`.
"""

from __future__ import annotations

from typing import Any

from ctd.cells import FirstUnits, LowRank, Scales, get_cell, spectral_radius
from ctd.kernel import Values, View
from ctd.late import Array, Bool, Float, jax, jnp
from ctd.train_rnn.connections import Connections
from ctd.train_rnn.params import Network

type Parameters = dict[str, Array]
"""Name -> array."""
type CellWeights = dict[str, Any]
"""The weights of `ctd.cells` by name: arrays, but for wR, which may be a `LowRank`, and wO, which may be a `FirstUnits`."""

RECURRENT, TIME, UNIFORM = 102, 103, 104
"""Folded into the key of an item's weights. Small numbers would collide with the keys that `split` makes of it."""

UNPENALISED = ("alphas",)
"""Parameters without penalty or decay: their 0 is no absence, but the middle of a range."""


def divided(static: View[Network], p: Parameters) -> tuple[Parameters, Parameters]:
    """Divide parameters into (those that training changes, those that it keeps)."""
    constant = set(get_cell(static.cell).constants)
    if static.train_alphas:
        constant -= {"alphas"}
    if static.initial_state != "trained":
        constant |= {"h0"}
    if static.readout != "trained":
        constant |= {"wO", "bO"}
    return {k: v for k, v in p.items() if k not in constant}, {
        k: v for k, v in p.items() if k in constant
    }


def initial(
    static: View[Network],
    sizes: tuple[int, int],
    links: Connections,
    traced: Values[Network],
    key: Array,
) -> Parameters:
    """Draw the initial parameters. sizes: (n_in, n_out); key: of the item's weights."""
    cell = get_cell(static.cell)
    scales = Scales(traced.recurrent_scale, traced.input_scale)
    parameters = cell.init(key, static.n, *sizes, scales, static.dtype)
    # A leaky cell draws a default alpha; the sweep sets it.
    if "alpha" in parameters:
        parameters["alpha"] = traced.alpha
    if "alphas" in parameters:
        # Uniform s makes time constants log-uniform between their bounds; 0.01 off either end, so that p is finite.
        s = jax.random.uniform(jax.random.fold_in(key, TIME), (static.n,), static.dtype, 0.01, 0.99)
        parameters["alphas"] = jnp.log(s / (1 - s))
    if static.first_weights == "pytorch":
        parameters |= _as_pytorch(parameters, set(cell.constants) | {"alphas"}, static.n, key)
    if static.initial_state == "zero":
        parameters["h0"] = jnp.zeros_like(parameters["h0"])
    if static.readout == "identity":
        del parameters["wO"]
        # The outputs are the rates, whatever the first weights: no bias drawn for a readout is added.
        parameters["bO"] = jnp.zeros_like(parameters["bO"])
    for name, mask in links.masks.items():
        # The columns of a joint matrix belong to the state, then to the input.
        cuts = [static.n] if cell.axes[name][-1] == "unit_and_input" else []
        parameters[name] = _spread(parameters[name], mask, cuts)
    # A key of its own: the weights above stay the same whichever recurrent matrix is chosen.
    key = jax.random.fold_in(key, RECURRENT)
    if static.rank is not None:
        del parameters["wR"]
        parameters |= _low_rank(static, traced, key)
    elif static.dale:
        assert links.signs is not None, "with Dale's law units have signs"
        parameters["wR"] = _balanced(parameters["wR"], links.signs, traced.recurrent_scale)
    elif static.recurrent_init != "normal":
        parameters["wR"] = _recurrent(static, parameters["wR"], traced.recurrent_scale, key)
    return parameters


def _as_pytorch(parameters: Parameters, others: set[str], n: int, key: Array) -> Parameters:
    """Weights and biases U(-1, 1) / sqrt(n), n the units: `reset_parameters` of torch.nn.RNNCellBase and Linear(n, ...)."""
    # A set of texts has another order in each process; sorted, every name keeps its key.
    names = sorted(set(parameters) - others - {"h0"})
    keys = jax.random.split(jax.random.fold_in(key, UNIFORM), len(names))
    redrawn = {"h0": jnp.zeros_like(parameters["h0"])}
    for key_one, name in zip(keys, names, strict=True):
        weight = parameters[name]
        # Linear draws by kaiming_uniform_(a=sqrt(5)): sqrt(2 / (1 + 5)) sqrt(3 / fan-in) = fan-in^-1/2, and n is its fan-in.
        redrawn[name] = jax.random.uniform(key_one, weight.shape, weight.dtype, -1, 1) * n**-0.5
    return redrawn


def weights_of(
    static: View[Network], links: Connections, traced: Values[Network], p: Parameters
) -> CellWeights:
    """Make the weights from parameters; wR may be a `LowRank`, wO a `FirstUnits`."""
    w: dict[str, Any] = dict(p)
    if static.rank is not None:
        w["wR"] = LowRank(w.pop("m"), w.pop("n"))
    if static.readout == "identity":
        w["wO"] = FirstUnits(w["bO"].shape[0], static.n, static.dtype)
    if links.signs is not None:
        # Not jnp.abs: its derivative at 0 is 0, and a weight that reached 0 would stay there.
        w["wR"] = links.signs * jnp.where(w["wR"] >= 0, w["wR"], -w["wR"])
    for name, mask in links.masks.items():
        w[name] = jnp.where(mask, w[name], 0)
    if "alphas" in w:
        s = jax.nn.sigmoid(w["alphas"])
        between = traced.alpha_min ** (1 - s) * traced.alpha_max**s
        # Powers round: an alpha may come out just beyond its bound.
        w["alphas"] = jnp.clip(between, traced.alpha_min, traced.alpha_max)
    return w


def stored(weights: CellWeights) -> dict[str, Array]:
    """Make dense arrays of the weights, by name, as results hold them."""
    return {
        name: value.dense() if isinstance(value, LowRank | FirstUnits) else value
        for name, value in weights.items()
    }


def _spread(
    w: Float[Array, "row column"], mask: Bool[Array, "row column"], cuts: list[int]
) -> Float[Array, "row column"]:
    """Mask weights, and scale each row from variance g^2 / (all columns) to g^2 / (its connections).

    The blocks of columns between `cuts` are scaled apart.
    """
    parts = []
    for block, block_mask in zip(*(jnp.split(a, cuts, axis=1) for a in (w, mask)), strict=True):
        fan_in = jnp.maximum(jnp.sum(block_mask, axis=1, keepdims=True), 1).astype(w.dtype)
        parts.append(jnp.where(block_mask, block * jnp.sqrt(block.shape[1] / fan_in), 0))
    return jnp.concatenate(parts, axis=1)


def _low_rank(static: View[Network], traced: Values[Network], key: Array) -> Parameters:
    """Draw m ~ N(0, 1) and n = overlap m + recurrent_scale N(0, 1), entry by entry."""
    assert static.rank is not None, "drawn for a rank alone"
    # The eigenvalues of m n' / N other than 0 are those of n' m / N, which is near overlap times the identity for large N.
    m, other = jax.random.normal(key, (2, static.n, static.rank), static.dtype)
    return {"m": m, "n": traced.overlap * m + traced.recurrent_scale * other}


def _balanced(w: Array, signs: Array, radius: Array) -> Array:
    """Magnitudes (n, n) of w with balanced rows, excitation and inhibition adding to 0, and spectral radius `radius`.

    Without the balance, the mean of the weights makes one eigenvalue larger than all others by about sqrt(n), and
    the network saturates before it is trained (Rajan & Abbott 2006).
    """
    size = jnp.abs(w)
    # Row sums: what a unit receives from excitatory and from inhibitory units.
    excites = jnp.sum(jnp.where(signs > 0, size, 0), axis=1, keepdims=True)
    inhibits = jnp.sum(jnp.where(signs < 0, size, 0), axis=1, keepdims=True)
    # A unit that a mask leaves without one of both cannot be balanced.
    both = (excites > 0) & (inhibits > 0)
    ratio = jnp.where(both, excites / jnp.where(both, inhibits, 1), 1)
    size = jnp.where(signs < 0, ratio * size, size)
    return _with_radius(size, spectral_radius(signs * size), radius)


def _recurrent(static: View[Network], w: Array, scale: Array, key: Array) -> Array:
    if static.recurrent_init == "spectral_radius":
        return _with_radius(w, spectral_radius(w), scale)
    if static.recurrent_init == "identity":
        return scale * jnp.eye(static.n, dtype=w.dtype)
    return scale * jax.random.orthogonal(key, static.n, dtype=w.dtype)


def _with_radius(w: Array, has: Array, radius: Array) -> Array:
    """Scale w from spectral radius `has` to `radius`; a nilpotent matrix, of radius 0, stays as it is."""
    return w * jnp.where(has > 0, radius / jnp.where(has > 0, has, 1), 1)
