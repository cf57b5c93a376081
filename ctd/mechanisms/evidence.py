"""Kernel: what is read off models that were fitted to recordings, and which mechanism made each recording.

    kernel: mechanisms.evidence
    params:
      recordings: {stage: recordings, part: recording}
      weights: {stage: fits, where: "outcome == 'fitted'"}
    sweep: {grid: {recording: {range: 4000}}}

An item is one recording: `FEATURES` are read off each of its fits, and the median over fits is kept, beside how well the fits agree.
The reduction trains a classifier on recordings whose mechanism is known and judges it on members that it has not seen. With `atlas`, the
table of such a job, it places recordings whose mechanism is not known.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ctd.cells import get_cell
from ctd.kernel import Kernel, Outcome, Values, Var, View
from ctd.late import Array, Float, jax, jnp
from ctd.mechanisms.fits import Evidence, Shared, load
from ctd.mechanisms.plots import figure, plots
from ctd.mechanisms.reading import FEATURES, read, velocities
from ctd.mechanisms.summary import REDUCED, TRUST, Options, reduce

READ, NONE, UNFITTED = range(3)

OUTCOMES = (
    Outcome("read", "features were read off its fits"),
    Outcome("none", "there is no recording of this number"),
    Outcome("unfitted", "no fit of this recording was given", failed=True),
)


class State(NamedTuple):
    """A recording before and after its one advance."""

    done: Array
    per_fit: Float[Array, "fit feature"]
    agreement: Array


def init(static: View[Evidence], shared: Shared, traced: Values[Evidence], key: Array) -> State:
    """Nothing is read yet; a number beyond the last recording is done."""
    del key
    n, fits = shared.fitted.shape
    nothing = jnp.full((fits, len(FEATURES)), jnp.nan, static.dtype)
    return State(traced.recording >= n, nothing, jnp.asarray(jnp.nan, static.dtype))


def advance(
    static: View[Evidence], shared: Shared, traced: Values[Evidence], key: Array, state: State
) -> State:
    """Read all fits of the recording."""
    del key, state
    cell = get_cell(static.cell)
    # An item beyond the last recording has nothing to read, but its index must be valid.
    at = traced.recording % len(shared.fitted)
    x, there = jnp.asarray(shared.x)[at], jnp.asarray(shared.fitted)[at] > 0
    weights = {name: jnp.asarray(value)[at] for name, value in shared.weights.items()}
    no_input = jnp.zeros(0, static.dtype)  # fits to factors have no inputs
    map_of = lambda w: lambda h: cell.step(w, h, no_input)
    # Places without a fit hold weights of 0, which are read as well; `there` masks what comes out.
    features = jax.vmap(lambda w: read(map_of(w), x))(weights)
    moves = jax.vmap(lambda w: velocities(map_of(w), x).ravel())(weights)
    size = jnp.linalg.norm(moves, axis=1)  # moves: (fit, sample * dimension)
    cosine = moves @ moves.T / (size[:, None] * size[None] + 1e-12)
    pairs = there[:, None] & there[None] & ~jnp.eye(len(there), dtype=bool)
    mean = jnp.sum(jnp.where(pairs, cosine, 0)) / jnp.sum(pairs)  # 0 / 0 for one fit
    per_fit = jnp.where(there[:, None], features, jnp.nan)
    return State(jnp.ones((), bool), per_fit, mean)


def result(
    static: View[Evidence], shared: Shared, traced: Values[Evidence], key: Array, state: State
) -> dict[str, Array]:
    """The features of each fit, their median, and how well the fits agree."""
    del static, key
    beyond = traced.recording >= len(shared.fitted)
    lost = jnp.isnan(state.per_fit).all()  # no fit of this recording
    outcome = jnp.where(beyond, NONE, jnp.where(lost, UNFITTED, READ)).astype(jnp.int32)
    return {
        # 0 where there is no recording: NaN would be told as a result that went wrong.
        "per_fit": jnp.where(beyond, 0, state.per_fit),
        "features": jnp.where(beyond, 0, jnp.nanmedian(state.per_fit, axis=0)),
        "agreement": jnp.where(beyond, 0, state.agreement),
        "outcome": outcome,
    }


def coords(inputs: View[Evidence], shared: Shared) -> dict[str, np.ndarray]:
    """The names of the features."""
    del inputs, shared
    return {"feature": np.asarray([*FEATURES])}


kernel = Kernel(
    name="mechanisms.evidence",
    Params=Evidence,
    dims={
        "per_fit": Var(("fit", "feature"), "1", "what was read off each fit"),
        "features": Var(("feature",), "1", "median over fits"),
        "agreement": Var((), "1", "mean cosine of what two fits do at the states of the recording; NaN for one fit", may_be_nan=True),
        "outcome": Var((), "1", "whether there is a recording of this number, and a fit of it"),
    },
    load=load,
    init=init,
    advance=advance,
    finished=lambda state: state.done,
    result=result,
    outcomes=OUTCOMES,
    coords=coords,
    reduce=reduce,
    reduced=REDUCED,
    Options=Options,
    summary=(
        "recording_item", "true", "verdict", "likeliest", "probability", "runner_up", "runner_up_probability",
        "atlas_recordings", *(f"atlas_{name}" for name in TRUST),
    ),
    plots=plots,
    figure=figure,
    advances=lambda inputs: 1,
    microbatches=(0,),
    cpu_microbatches=(1,),
)  # fmt: skip
