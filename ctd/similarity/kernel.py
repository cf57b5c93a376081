"""The kernel: one row of the matrix of distances is one item."""

from __future__ import annotations

from typing import NamedTuple

from ctd.kernel import Batching, Display, Kernel, Outcome, Tables, Values, Var, View
from ctd.late import Array, Float, Int, Number, jax, jnp
from ctd.similarity.features import Features, load
from ctd.similarity.pairs import distance
from ctd.similarity.params import Comparison
from ctd.similarity.plots import plots
from ctd.similarity.summary import PAIRS, REDUCED, SUMMARY, Options, reduce

COMPARED, NONE = range(2)

OUTCOMES = (
    Outcome("compared", "all distances of this row are computed"),
    Outcome("none", "there is no network of this number"),
)

DIMS = {
    "distance": Var(("network",), "1", "distance to each network; NaN: the other network's row has it", may_be_nan=True),
    "outcome": Var((), "1", "whether there is a network of this number"),
}  # fmt: skip


class Row(NamedTuple):
    """A row between two advances."""

    done: Int[Array, ""]
    """Pairs computed."""
    n_pairs: Int[Array, ""]
    """Pairs of the row; 0 if there is no network of its number."""
    distance: Float[Array, "network"]


def n_pairs(n: int, row: Number) -> Int[Array, ""]:
    """The number of pairs of a row: network i with i + 1, ..., i + (n - 1) / 2, modulo n.

    For an even n the first n / 2 rows also have the pairs that are n / 2 apart.

    >>> [int(n_pairs(4, row)) for row in range(5)]
    [2, 2, 1, 1, 0]
    """
    half = (n - 1) // 2 + jnp.where((n % 2 == 0) & (row < n // 2), 1, 0)
    return jnp.where(row < n, half, 0).astype(jnp.int32)


def init(static: View[Comparison], shared: Features, traced: Values[Comparison], key: Array) -> Row:
    """A row without distances."""
    del key
    n = len(shared.values)
    nothing = jnp.full(n, jnp.nan, static.dtype)
    return Row(jnp.zeros((), jnp.int32), n_pairs(n, traced.matrix_row), nothing)


def advance(
    static: View[Comparison], shared: Features, traced: Values[Comparison], key: Array, s: Row
) -> Row:
    """Compute the distance of the next pair."""
    del key
    values, size = jnp.asarray(shared.values), jnp.asarray(shared.size)
    # A row beyond the last network has no pairs, but its index must be valid.
    row = traced.matrix_row % len(values)
    other = (row + 1 + s.done) % len(values)
    sizes = jnp.stack([size[row], size[other]])
    # Not the item's key: the distance of a pair would depend on the item's number.
    pair = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), row), other)
    pair_distance = distance(static, values[row], values[other], sizes, pair)
    return Row(s.done + 1, s.n_pairs, s.distance.at[other].set(pair_distance))


def result(
    static: View[Comparison], shared: Features, traced: Values[Comparison], key: Array, s: Row
) -> dict[str, Array]:
    """The row as far as it is computed."""
    del static, key
    exists = traced.matrix_row < len(shared.values)
    outcome = jnp.where(exists, COMPARED, NONE).astype(jnp.int32)
    return {"distance": s.distance, "outcome": outcome}


kernel = Kernel(
    name="similarity",
    Params=Comparison,
    dims=DIMS,
    load=load,
    init=init,
    advance=advance,
    finished=lambda s: s.done >= s.n_pairs,
    result=result,
    outcomes=OUTCOMES,
    tables=Tables(reduce=reduce, dims=REDUCED, Options=Options),
    # Each pair is in one row: a row has about half as many as there are networks.
    advances=lambda inputs: max(1, len(inputs.states or inputs.weights or inputs.points) // 2),
    display=Display(summary=(*SUMMARY, *PAIRS), plots=plots),
    batching=Batching(
        # Each pair has matrices of its own: on a CPU they fit the cache one by one.
        microbatches=(0,),
        cpu_microbatches=(1,),
    ),
)
