"""The start of a search: a candidate, a place on a segment between two, or anywhere in a region; and its constant input."""

from __future__ import annotations

from typing import NamedTuple

from ctd.cells import Cell
from ctd.fixed_points.candidates import Network, SearchFields, cell_of
from ctd.kernel import Params, Values, View
from ctd.late import Array, Bool, Float, jax, jnp
from ctd.words import count


def constant_input(
    shared: Network, traced: Values[Params], n_in: int | None
) -> Float[Array, "input"]:
    """x, or zeros if none was given. Raises ValueError if its length does not fit the network."""
    if traced.x.shape[0] == 0:
        return jnp.zeros(n_in or 0, shared.states.dtype)  # a user's F may take no input
    if n_in is not None and traced.x.shape[0] != n_in:
        raise ValueError(
            f"x: {count(traced.x.shape[0], 'number')} given, but the network has {count(n_in, 'input')}"
        )
    return traced.x


class Start(NamedTuple):
    """The state at which a search begins."""

    h: Float[Array, "state"]
    anywhere: Bool[Array, ""]
    """True: drawn from the region, to which the states give the size alone."""


def draw_start(
    static: View[SearchFields], network: Network, traced: Values[Params], key: Array
) -> Start:
    """The start of a search: candidate `traced.candidate` (modulo their number), mixed, or anywhere; plus noise.

    With probability `mix` the start lies on the segment to another state drawn at random: halfway in half
    of the cases, else at a uniformly drawn place. Where there is a region, it lies in that with probability `anywhere`.
    """
    states = network.states.reshape(-1, network.states.shape[-1])
    # Both keys draw always, so that a sweep over `mix` or `noise` leaves the other's draws as they were.
    key_choice, key_noise = jax.random.split(key)
    chosen, halfway, share, other = jax.random.uniform(key_choice, (4,), states.dtype)
    h = states[traced.candidate % len(states)]
    to = states[jnp.minimum((other * len(states)).astype(jnp.int32), len(states) - 1)] - h
    share = jnp.where(chosen < traced.mix, jnp.where(halfway < 0.5, 0.5, share), 0)
    noise: Array = traced.noise * jax.random.normal(key_noise, h.shape, states.dtype)
    at = h + share.astype(states.dtype) * to + noise
    if static.region == "none":
        return Start(at, jnp.zeros((), bool))
    # A folded key, so that starts at states are the same with a region and without one.
    key_far, key_place = jax.random.split(jax.random.fold_in(key, 1))
    far = jax.random.uniform(key_far, (), states.dtype) < traced.anywhere
    return Start(jnp.where(far, _anywhere(static, network, traced, key_place), at), far)


def _anywhere(
    static: View[SearchFields], network: Network, traced: Values[Params], key: Array
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


def _of_piece(network: Network, traced: Values[Params], key: Array) -> Float[Array, "state"]:
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
    x = constant_input(network, traced, cell.infer(weights)[1])
    j, b = cell.pieces.affine(jax.tree.map(jnp.asarray, weights), digits, x)
    # h = J h + b. Where 1 - J is singular, h is not finite, and the search ends as diverged.
    return jnp.linalg.solve(jnp.eye(len(b), dtype=b.dtype) - j, b)
