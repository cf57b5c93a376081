"""The starts of searches: at candidates, which are states of trials or of a file; on a segment between two; or in a region."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ctd.cells import CELLS, FORMS, Cell, Weights, get_cell, run
from ctd.fixed_points.network import (
    Map,
    Network,
    cell_of,
    compiled,
    constant_input,
    load_trials,
    make_network,
    state_of,
    step_of,
    stored_network,
)
from ctd.fixed_points.search.params import FixedPoint
from ctd.kernel import Values, View
from ctd.late import Array, Bool, Float, jax, jnp, lax, on_host

N_SAMPLED = 16
"""States at which J is computed: their mean changes little with more."""

REGULAR = 0.1
"""Added to the diagonal of the mean of J'J, in units of that diagonal's mean: other states do not determine flatter directions
well enough to stretch them further."""


def load(inputs: View[FixedPoint]) -> Network:
    """The network, its candidates as its states, and the inverse that `lm` uses. Raises ValueError."""
    network = _with_candidates(inputs)
    cell = cell_of(network)
    pieces = cell.pieces if isinstance(cell, Cell) else None
    for field, value in (("method", "exact"), ("region", "linear")):
        if pieces is None and getattr(inputs, field) == value:
            fits = [name for name in (*CELLS, *FORMS) if get_cell(name).pieces is not None]
            raise ValueError(
                f"{field}: {value} given, but cell {next(iter(network.cell))} is not linear by pieces, as "
                f"{', '.join(fits)} are; give another {field}"
            )
    if inputs.method != "lm" or not isinstance(cell, Cell):
        return network
    f = step_of(network, inputs.time)
    return with_inverse(network, f, np.zeros(cell.infer(network.weights)[1]))  # any x would do


def _with_candidates(inputs: View[FixedPoint]) -> Network:
    if inputs.candidates is not None:
        return stored_network(inputs, inputs.candidates, inputs.dataset)
    name, cell, weights, trials = load_trials(inputs, ", or candidates: a file of states")
    network = {name: jnp.asarray(value, inputs.dtype) for name, value in weights.items()}
    states = jax.jit(jax.vmap(lambda x: run(cell, network, x)[0]))(trials.inputs)
    return make_network(name, weights, states, inputs.dtype)


def with_inverse(network: Network, f: Map, x: ArrayLike) -> Network:
    """The network, with the inverse of the mean of J'J at the input x, by which `lm` preconditions.

    Any positive matrix leads to the same minima of q; this one in fewer steps. It stays unknown where F has
    no finite derivatives.
    """
    states = np.asarray(network.states).reshape(-1, network.states.shape[-1])
    # States are stored trial by trial, so that equal distances reach all trials and times.
    some = states[np.linspace(0, len(states) - 1, N_SAMPLED).astype(int)]
    squares = np.asarray(_squares(f, network.weights, some, np.asarray(x, states.dtype)), float)
    squares = squares[np.isfinite(squares).all(axis=(1, 2))]  # F may lack a derivative somewhere
    mean = squares.sum(axis=0) / max(1, len(squares))
    ridge = REGULAR * np.trace(mean) / len(mean)
    # `not >`, since NaN must return here, too.
    if not ridge > 0:
        return network
    inverse = np.linalg.inv(mean + ridge * np.eye(len(mean)))  # in float64, then rounded
    return network._replace(inverse=on_host(inverse, states.dtype))


@compiled
def _squares(
    f: Map, weights: Weights, states: Float[Array, "k state"], x: Float[Array, "input"]
) -> Float[Array, "k state state"]:
    """J'J at each state: the Hessian of q but for F's second derivatives."""

    def square(h: Float[Array, "state"]) -> Float[Array, "state state"]:
        j = jax.jacfwd(lambda h: f(weights, h, x) - h)(h)
        return j.T @ j

    # One state after the other: J takes a copy of F's workspace for each unit.
    return lax.map(square, states)


def draw_start(
    static: View[FixedPoint], network: Network, traced: Values[FixedPoint], key: Array
) -> tuple[Float[Array, "state"], Bool[Array, ""]]:
    """(the start of a search, True if it was drawn in the region): candidate `traced.candidate`, modulo their number; plus noise.

    With probability `mix` the start lies on the segment to another state drawn at random: halfway in half
    of the cases, else at a uniformly drawn place. Where there is a region, it lies in that with probability `anywhere`.
    """
    states = network.states.reshape(-1, network.states.shape[-1])
    # Both keys draw always, so that a sweep over `mix` or `noise` leaves the other's draws as they were.
    key_choice, key_noise = jax.random.split(key)
    mix_draw, halfway, share, other = jax.random.uniform(key_choice, (4,), states.dtype)
    h = state_of(network, traced.candidate)
    to = states[jnp.minimum((other * len(states)).astype(jnp.int32), len(states) - 1)] - h
    share = jnp.where(mix_draw < traced.mix, jnp.where(halfway < 0.5, 0.5, share), 0)
    noise: Array = traced.noise * jax.random.normal(key_noise, h.shape, states.dtype)
    at = h + share.astype(states.dtype) * to + noise
    if static.region == "none":
        return at, jnp.zeros((), bool)
    # A folded key, so that starts at states are the same with a region and without one.
    key_far, key_place = jax.random.split(jax.random.fold_in(key, 1))
    far = jax.random.uniform(key_far, (), states.dtype) < traced.anywhere
    return jnp.where(far, _anywhere(static, network, traced, key_place), at), far


def _anywhere(
    static: View[FixedPoint], network: Network, traced: Values[FixedPoint], key: Array
) -> Float[Array, "state"]:
    """A place drawn uniformly, in a box around zero or on a sphere around the states' mean; or `_of_piece`."""
    if static.region == "linear":
        return _of_piece(network, traced, key)
    states = network.states.reshape(-1, network.states.shape[-1])
    shape = (states.shape[-1],)
    if static.region == "box":
        half = traced.reach * network.largest
        return half * jax.random.uniform(key, shape, states.dtype, -1, 1)
    direction = jax.random.normal(key, shape, states.dtype)  # uniform in direction
    radius = traced.reach * network.spread
    return states.mean(axis=0) + radius * direction / jnp.linalg.norm(direction)


def _of_piece(network: Network, traced: Values[FixedPoint], key: Array) -> Float[Array, "state"]:
    """The fixed point of F(h) = J h + b of a linear region: number `candidate`, or where there are too many, a drawn one."""
    cell, weights = cell_of(network), network.weights
    assert isinstance(cell, Cell), "load refuses it"
    assert cell.pieces is not None, "load refuses it"
    base, n = cell.pieces.base, cell.pieces.count(weights)
    if base**n < 2**31:
        # The digits of the item's number, the lowest first, say which piece each kink is in. An int32 cannot number more than 2^31 regions.
        digits = traced.candidate // base ** jnp.arange(n) % base
    else:
        digits = jax.random.randint(key, (n,), 0, base)
    x = constant_input(network, traced)
    j, b = cell.pieces.affine(jax.tree.map(jnp.asarray, weights), digits, x)
    # h = J h + b. Where 1 - J is singular, h is not finite, and the search ends as diverged.
    return jnp.linalg.solve(jnp.eye(len(b), dtype=b.dtype) - j, b)
