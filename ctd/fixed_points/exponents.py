"""Kernel: Lyapunov exponents of a network, a map or a flow, and the dimension of its attractor.

The exponents are the mean growth rates of an orthogonal frame that is carried along a trajectory by the linearised
map, and made orthogonal again by QR (Benettin et al. 1980; Geist, Parlitz & Lauterborn 1990). Kaplan and Yorke's
dimension is j + (l_1 + ... + l_j) / |l_{j+1}|, j the largest number for which the sum is not negative.

    kernel: fixed_points.exponents
    params: {cell: gru, weights: net.h5}
    sweep: {grid: {x: [[0], [0.5], [1]]}}

An item is one trajectory. A flow, `time: continuous`, takes steps of the classical Runge-Kutta method.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from pydantic import Field

from ctd.cells import runge_kutta
from ctd.fixed_points.network import (
    FromState,
    Network,
    constant_input,
    load_start,
    map_of,
    state_of,
)
from ctd.fixed_points.pictures import input_text
from ctd.kernel import (
    Batching,
    Display,
    Kernel,
    NoOptions,
    Outcome,
    Static,
    Tables,
    Traced,
    Values,
    Var,
    View,
)
from ctd.late import Array, Float, Int, Number, jax, jnp, lax
from ctd.plots import Axis, Group, Lines, Plot, of_group
from ctd.rows import Columns, blocks, combinations
from ctd.tangent import mean_error, swing
from ctd.words import count

FRAMES = 50
"""Frames that are made orthogonal in one advance."""

BATCHES = 40
"""Batches of advances, at most, from which the standard errors are estimated."""

HIDDEN = 100
"""A direction that between two QRs grows by less than this times eps of the largest one's growth has no exponent: rounding would
change it by more than a hundredth."""

MOST = 200
"""Spectra that a picture shows."""

MOST_INPUTS = 10
"""Constant inputs up to which each has a colour."""


class Trajectory(FromState):
    """One trajectory, whose exponents are computed."""

    n_exponents: Static[int] = Field(10, gt=0)
    """number of exponents, the largest first; at most one for each entry of the state"""
    every: Static[int] = Field(10, gt=0)
    """steps between two QR decompositions; if they are too many, rounding hides the exponents far below the largest: these are NaN"""
    dt: Traced[float] = Field(0.01, gt=0)
    """length of a step of a flow"""
    # The sum of both is an int32.
    transient: Traced[int] = Field(1000, ge=0, lt=2**30)
    """steps before the measurement, which do not count"""
    n_steps: Traced[int] = Field(20_000, gt=0, lt=2**30)
    """steps that count"""


OUTCOMES = (
    Outcome("done", "all steps were taken"),
    Outcome("diverged", "the trajectory left all bounds", failed=True),
)
DONE, DIVERGED = range(2)

DIMS = {
    "exponent": Var(
        ("number",), "1/step", "Lyapunov exponents; of a flow, per unit of time; NaN if `every` has too many steps for it", may_be_nan=True
    ),
    "exponent_error": Var(
        ("number",), "1/step", "standard error, from how the growth over short and long spans of the trajectory varies; NaN with fewer than 4 advances", may_be_nan=True
    ),
    "largest": Var((), "1/step", "the largest exponent: above 0, chaos"),
    "largest_error": Var((), "1/step", "its standard error", may_be_nan=True),
    "sum": Var((), "1/step", "sum of the exponents that were computed; NaN if one is", may_be_nan=True),
    "dimension": Var(
        (), "1",
        "Kaplan-Yorke dimension; an exponent counts as 0 if it is within two standard errors of 0, or within 1 / (time "
        "measured); NaN if more exponents would be needed", may_be_nan=True
    ),
    "end": Var(("state",), "1", "where the trajectory ended"),
    "outcome": Var((), "1", "how the trajectory ended"),
}  # fmt: skip


class Walk(NamedTuple):
    """A trajectory with its frame, between two advances."""

    h: Float[Array, "state"]
    frame: Float[Array, "state number"]
    """Orthonormal columns."""
    n_taken: Int[Array, ""]
    """Steps so far."""
    steps: Int[Array, ""]
    """Steps in all."""
    n: Int[Array, ""]
    """Advances that count."""
    batches: Float[Array, "batch number"]
    """Sums over equally many of these, in their order, of the mean growth of each direction in an advance, per step."""
    swings: Float[Array, "number"]
    """Sum over these of the variance of the log growth about its mean rise."""


type Framed = tuple[Float[Array, "state"], Float[Array, "state number"]]
"""A state and its frame."""


def load(inputs: View[Trajectory]) -> Network:
    """The network. Warns if it has fewer exponents than `n_exponents`, unless that is the default."""
    network = load_start(inputs)
    n = network.states.shape[-1]
    if inputs.n_exponents > max(n, Trajectory.model_fields["n_exponents"].default):
        warnings.warn(
            f"n_exponents: {inputs.n_exponents} given, but this network has {count(n, 'exponent')}, one for each entry of its "
            "state; these are computed",
            stacklevel=2,
        )
    return network


def dimension(exponents: Float[Array, "k"], n: int) -> Float[Array, ""]:
    """Kaplan and Yorke's dimension j + (l_1 + ... + l_j) / |l_(j+1)|, j the last number for which the sum is not below 0.

    exponents: (k,) the largest k of n, in falling order; NaN if k are too few for it.
    """
    sums = jnp.cumsum(exponents)
    j = jnp.sum(jnp.cumprod(sums >= 0))
    # All n exponents may add up to 0 or more: there is no next one then, and the dimension is n.
    below = jnp.append(exponents, -jnp.inf)[j]
    upto = jnp.append(jnp.zeros(1, sums.dtype), sums)[j]  # l_1 + ... + l_j, 0 for j = 0
    enough = ((j < len(exponents)) | (len(exponents) == n)) & ~jnp.isnan(exponents).any()
    return jnp.where(enough, j + jnp.where(jnp.isfinite(below), upto / jnp.abs(below), 0), jnp.nan)


def init(static: View[Trajectory], shared: Network, traced: Values[Trajectory], key: Array) -> Walk:
    """A trajectory at its start, with a random frame."""
    h = state_of(shared, traced.start)
    key_noise, key_frame = jax.random.split(key)
    h = h + traced.noise * jax.random.normal(key_noise, h.shape, h.dtype)
    k = min(static.n_exponents, len(h))
    # A random frame has a part along every direction, so that the largest exponents are found first.
    frame = jnp.linalg.qr(jax.random.normal(key_frame, (len(h), k), h.dtype))[0]
    zero = jnp.zeros((), jnp.int32)
    # Advances count from the first that begins after the transient.
    block = FRAMES * static.every
    steps = (-(-traced.transient // block) * block + traced.n_steps).astype(jnp.int32)
    return Walk(
        h, frame, zero, steps, zero, jnp.zeros((BATCHES, k), h.dtype), jnp.zeros(k, h.dtype)
    )


def batch_size(static: View[Trajectory], traced: Values[Trajectory]) -> Int[Array, ""]:
    """Advances of a batch."""
    return (traced.n_steps - 1) // (FRAMES * static.every) // BATCHES + 1


def advance(
    static: View[Trajectory], shared: Network, traced: Values[Trajectory], key: Array, s: Walk
) -> Walk:
    """Carry the frame along, and make it orthogonal FRAMES times."""
    del key
    x = constant_input(shared, traced)
    f = map_of(shared, static.time)
    field = lambda h: f(shared.weights, h, x)
    if static.time == "continuous":
        step = lambda h: runge_kutta(field, h, traced.dt)
    else:
        step = field

    def carry(_: Number, at: Framed) -> Framed:
        # One linearisation serves all columns of the frame.
        h, push = jax.linearize(step, at[0])
        return h, jax.vmap(push, 1, 1)(at[1])

    def orthogonal(at: Framed, _: None) -> tuple[Framed, Float[Array, "number"]]:
        h, frame = lax.fori_loop(0, static.every, carry, at)
        q, r = jnp.linalg.qr(frame)
        # QR leaves the signs of the diagonal open; its size is the growth of each direction.
        return (h, q), jnp.log(jnp.abs(jnp.diagonal(r)))

    (h, frame), grown = lax.scan(orthogonal, (s.h, s.frame), length=FRAMES)
    mean = grown.mean(axis=0) / static.every  # mean growth per step
    # An advance counts whole or not at all: one in which the transient ends does not.
    counts = s.n_taken >= traced.transient
    return s._replace(
        h=h,
        frame=frame,
        n_taken=s.n_taken + FRAMES * static.every,
        n=s.n + counts,
        batches=s.batches.at[s.n // batch_size(static, traced)].add(jnp.where(counts, mean, 0)),
        swings=s.swings + jnp.where(counts, swing(grown), 0),
    )


def result(
    static: View[Trajectory], shared: Network, traced: Values[Trajectory], key: Array, s: Walk
) -> dict[str, Array]:
    """The exponents so far."""
    del shared, key
    # `batches` are per step; a flow's exponents are per unit of time.
    scale = 1 / traced.dt if static.time == "continuous" else 1.0
    mean = s.batches.sum(axis=0) / s.n  # NaN where no advance counts
    size = batch_size(static, traced)
    length = size * FRAMES * static.every
    inner = s.swings / s.n / length**2
    # A last batch that is not full is left out.
    deviation = mean_error(s.batches / size, s.n // size, inner)
    # After finitely many steps, near exponents may stand in the wrong order.
    order = jnp.argsort(-mean)
    exponents, error = mean[order] * scale, deviation[order] * scale
    # The sign of an estimate of 0, as along any cycle of a flow, is chance, and would take a dimension away.
    least = scale / (s.n * FRAMES * static.every)
    rounded = jnp.where(jnp.abs(exponents) <= jnp.fmax(2 * error, least), 0, exponents)
    # A column of the frame has a part along the largest direction, whose rounding hides what grows by eps less in `every` steps.
    depth = (mean[order][0] - mean[order]) * static.every
    hidden = jnp.isfinite(depth) & (depth > -jnp.log(HIDDEN * jnp.finfo(depth.dtype).eps))
    resolved, error = (jnp.where(hidden, jnp.nan, values) for values in (exponents, error))
    return {
        "exponent": resolved,
        "exponent_error": error,
        "largest": exponents[0],
        "largest_error": error[0],
        "sum": resolved.sum(),
        "dimension": jnp.where(s.n > 0, dimension(rounded, len(s.h)), jnp.nan),
        "end": s.h,
        "outcome": jnp.where(jnp.isfinite(s.h).all(), DONE, DIVERGED).astype(jnp.int32),
    }


def reduce(
    inputs: View[Trajectory],
    shared: Network,
    columns: Columns,
    results: Columns,
    options: NoOptions | None,
) -> dict[str, np.ndarray]:
    """Warn of exponents that cannot be resolved; there is no table."""
    del columns, options
    n = [np.zeros(0, int)]
    for block in blocks(results, ("exponent", "largest")):
        hidden = np.isnan(block["exponent"]) & np.isfinite(block["largest"])[:, None]
        n.append(hidden.sum(axis=1))
    untold, every = np.concatenate(n), inputs.every
    if untold.any():
        k = min(inputs.n_exponents, shared.states.shape[-1])
        cure = f"give every: {every // 2} or less" if every > 1 else "no smaller `every` tells them"
        warnings.warn(
            f"up to {untold.max()} of {k} exponents of {count(int((untold > 0).sum()), 'item')} lie too far below the largest to be told "
            f"with every: {every}; they and `sum` are NaN; {cure}",
            stacklevel=2,
        )
    return {}


@of_group
def plots(group: Group) -> list[Plot]:
    """The spectra of the items, named by their constant inputs where these differ."""
    values = np.asarray(group.results["exponent"][:MOST])
    items = np.asarray(group.columns.get("item", range(len(values))))[:MOST]
    text = [f"item {item}" for item in items]
    number = np.arange(1, values.shape[1] + 1)
    zero = Lines(number[[0, -1]], np.zeros(2), "0", faint=True)
    per = "step" if group.inputs.time == "steps" else "unit of time"
    x = np.asarray(group.columns.get("x", np.zeros((len(values), 0))))[:MOST]
    first, of_item = combinations([x], len(x))
    if 1 < len(first) <= MOST_INPUTS:
        lines = [
            Lines(number, values[of_item == k], input_text(x[row]), hue=k,
                  text=[text[i] for i in np.flatnonzero(of_item == k)])
            for k, row in enumerate(first)
        ]  # fmt: skip
    else:  # coloured by what else was swept
        lines = [Lines(number, values, "exponents", text=text, item=items)]
    layers = [zero, *lines]
    return [Plot("Lyapunov exponents", layers, Axis("number"), Axis(f"exponent (1 / {per})"))]


kernel = Kernel(
    name="fixed_points.exponents", Params=Trajectory, dims=DIMS, load=load, init=init, advance=advance,
    finished=lambda s: (s.n_taken >= s.steps) | ~jnp.isfinite(s.h).all(), result=result, outcomes=OUTCOMES,
    tables=Tables(reduce=reduce, of_failed=True), display=Display(summary=("largest", "largest_error", "dimension"), plots=plots),
    batching=Batching(microbatches=(64, 1), cpu_microbatches=(1,)),
)  # fmt: skip
