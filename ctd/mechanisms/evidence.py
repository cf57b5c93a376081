"""Kernel: which mechanism made each recording, judged by what is read off the models fitted to it.

    kernel: mechanisms.evidence
    params:
      recordings: {stage: recordings, part: recording}
      weights: {stage: fits, where: "outcome == 'fitted'"}
    sweep: {grid: {recording: {range: 4000}}}

An item is one recording: `FEATURES` are read off each of its fits; the median over fits is kept, and how well the fits agree.
The reduction trains a classifier on recordings whose mechanism is known, and tests it on members that it has not seen. With `atlas`, the
table of such a job, the reduction instead says which mechanism made recordings whose mechanism is not known.
"""

from __future__ import annotations

import numpy as np

from ctd.cells import Cell, Weights, get_cell
from ctd.kernel import Batching, Display, Outcome, Tables, Values, Var, View, one_shot
from ctd.late import Array, Bool, Float, jax, jnp, lax
from ctd.mechanisms.features import FEATURES, read, velocities
from ctd.mechanisms.fits import Evidence, Shared, load
from ctd.mechanisms.plots import plots
from ctd.mechanisms.summary import REDUCED, Options, reduce

READ, NONE, UNFITTED = range(3)

OUTCOMES = (
    Outcome("read", "features were read off its fits"),
    Outcome("none", "there is no recording of this number"),
    Outcome("unfitted", "no fit of this recording was given", failed=True),
)


def read_off(
    static: View[Evidence], shared: Shared, traced: Values[Evidence], key: Array
) -> dict[str, Array]:
    """The features of each fit of a recording, their median, and how well the fits agree."""
    del key
    beyond = traced.recording >= len(shared.fitted)
    # An item beyond the last recording has nothing to read, but its index must be valid.
    at = traced.recording % len(shared.fitted)
    x, has_fit = jnp.asarray(shared.x)[at], jnp.asarray(shared.fitted)[at] > 0
    weights = {name: jnp.asarray(value)[at] for name, value in shared.weights.items()}
    # 0 where there is no recording: NaN would be reported as a result that went wrong.
    nothing = jnp.zeros((len(has_fit), len(FEATURES)), static.dtype), jnp.zeros((), static.dtype)
    read_all = lambda: _read(get_cell(static.cell), weights, has_fit, x)
    per_fit, agreement = lax.cond(beyond, lambda: nothing, read_all)
    is_unfitted = jnp.isnan(per_fit).all()  # no fit of this recording
    outcome = jnp.where(beyond, NONE, jnp.where(is_unfitted, UNFITTED, READ)).astype(jnp.int32)
    features = jnp.nanmedian(per_fit, axis=0)
    return {"per_fit": per_fit, "features": features, "agreement": agreement, "outcome": outcome}


def _read(
    cell: Cell,
    weights: Weights,
    has_fit: Bool[Array, "fit"],
    x: Float[Array, "fit_or_1 trial time state"],
) -> tuple[Float[Array, "fit feature"], Float[Array, ""]]:
    """(features of each fit, agreement). weights: (fit, ...) each, 0 in places without a fit."""
    # Without inputs, as fits to factors are; those that lfads infers are 0 where it infers none.
    map_of = lambda w: lambda h: cell.step(w, h, jnp.zeros(cell.infer(w)[1], x.dtype))
    # Weights of 0 are read as well; `has_fit` masks their features.
    has_states = len(x) > 1
    of_each = lambda f: jax.vmap(f, (0, 0 if has_states else None))(
        weights, x if has_states else x[0]
    )
    features = of_each(lambda w, x: read(map_of(w), x))
    moves = of_each(lambda w, x: velocities(map_of(w), x))
    pairs = has_fit[:, None] & has_fit[None] & ~jnp.eye(len(has_fit), dtype=bool)
    alike = jnp.where(pairs, _alike(moves, has_states), 0)
    mean = jnp.sum(alike) / jnp.sum(pairs)  # 0 / 0 for one fit
    return jnp.where(has_fit[:, None], features, jnp.nan), mean


def _alike(moves: Float[Array, "fit sample state"], has_states: bool) -> Float[Array, "fit fit"]:
    """The similarity of the moves of two fits: their cosine at the same states, or, if each fit has its own states, the linear CKA (Kornblith et al. 2019)."""
    if has_states:
        x = moves - moves.mean(1, keepdims=True)
        products = jnp.sum(jnp.einsum("asi,bsj->abij", x, x) ** 2, (2, 3))
        size = jnp.sqrt(jnp.diagonal(products))
    else:
        flat = moves.reshape(len(moves), -1)
        products, size = flat @ flat.T, jnp.linalg.norm(flat, axis=1)
    return products / (size[:, None] * size[None] + 1e-12)


def coords(inputs: View[Evidence], shared: Shared) -> dict[str, np.ndarray]:
    """The names of the features."""
    del inputs, shared
    return {"feature": np.asarray([*FEATURES])}


kernel = one_shot(
    "mechanisms.evidence",
    Evidence,
    {
        "per_fit": Var(("fit", "feature"), "1", "what was read off each fit"),
        "features": Var(("feature",), "1", "median over fits"),
        "agreement": Var(
            (), "1", "mean cosine of what two fits do at the states of the recording (CKA if each fit has its own states); NaN for one fit",
            may_be_nan=True,
        ),
        "outcome": Var((), "1", "whether there is a recording with this number, and a fit of it"),
    },
    read_off,
    load=load, outcomes=OUTCOMES, coords=coords, tables=Tables(reduce=reduce, of_failed=True, dims=REDUCED, Options=Options),
    display=Display(
        summary=(
        "recording_item", "true", "verdict", "verdict_right", "fit_agreement", "atlas_none_found", "likeliest", "probability",
        "runner_up", "runner_up_probability", "atlas_accuracy", "atlas_accuracy_plain",
    ),
        plots=plots, png_plots=5,
    ),
    batching=Batching(microbatches=(0,), cpu_microbatches=(1,)),
)  # fmt: skip
