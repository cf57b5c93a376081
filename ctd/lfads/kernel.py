"""The kernel of `ctd.lfads`: an item is one model, an advance is `report_every` training steps and an evaluation."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np

from ctd.kernel import Batching, Coordinate, Display, Kernel, Outcome, Tables, Values, View
from ctd.late import Array, Bool, Float, Int, PyTree, jax, jnp
from ctd.lfads import metrics
from ctd.lfads.data import Dataset
from ctd.lfads.loss import TERMS, evaluate
from ctd.lfads.model import Fitted
from ctd.lfads.names import DIMS
from ctd.lfads.params import Model, files_of
from ctd.lfads.plots import plots
from ctd.lfads.presets import PRESETS
from ctd.lfads.readins import init_stitched, of_session, with_core
from ctd.lfads.results import (
    as_stored,
    by_session,
    count_stored,
    inferred,
    name_weights,
    of_all_sessions,
)
from ctd.lfads.sessions import load as load_data
from ctd.lfads.summary import DIVERGED, METRICS, REDUCED, STOPPED_EARLY, TRAINED, next_jobs, reduce
from ctd.lfads.train import STEP_TERMS, Position, optimizer, train_step
from ctd.lfads.weights import Tree, flatten, init_weights, unflatten
from ctd.rows import Best
from ctd.training import batch_axis, empty_curve, n_blocks, take_steps
from ctd.words import count

EVAL_TERMS = ("loss", *TERMS)

OUTCOMES = (
    Outcome("trained", "all training steps were taken"),
    Outcome("stopped_early", "no evaluation was better for `patience` evaluations"),
    Outcome("diverged", "loss or gradient not finite", failed=True),
)


class State(NamedTuple):
    """A model in training."""

    weights: Float[Array, "entry"]
    """All weights in one vector, made by `flatten`."""
    optimizer: PyTree
    step: Int[Array, ""]
    """Training steps taken."""
    best: Float[Array, "entry"]
    """The weights at the best evaluation so far; the initial ones before the first evaluation."""
    best_value: Float[Array, ""]
    """The criterion at the best evaluation; inf before the first."""
    best_step: Int[Array, ""]
    stale: Int[Array, ""]
    """Evaluations since the best one."""
    plateaus: Int[Array, ""]
    """Plateaus so far; each is `plateau_patience` evaluations in a row without a better one."""
    curves: dict[str, Float[Array, "batch"]]
    """train.NAME is the mean over a block's steps, eval.NAME the value at its end; NaN for blocks to come."""
    outcome: Int[Array, ""]
    done: Bool[Array, ""]


def item_keys(key: jax.Array, traced: Values[Model]) -> jax.Array:
    """The four keys of an item: of the initial weights, of training, of evaluation, of the posterior."""
    return jax.random.split(jax.random.fold_in(key, traced.seed), 4)


def _first_weights(
    static: View[Model], shared: Dataset, traced: Values[Model], key: jax.Array
) -> Tree:
    if shared.stitched is not None:
        weights = init_stitched(static, traced, key, shared)
    else:
        bias, n_seen = jnp.asarray(shared.bias, static.dtype), len(shared.seen_units)
        weights = init_weights(static, traced, key, n_seen, shared.train.n_external, bias)
    return with_core(shared, weights)


def _shapes(static: View[Model], shared: Dataset, traced: Values[Model], key: jax.Array) -> Tree:
    """The shapes and dtypes of the weights by part and name, which cut the one vector of all weights into parts again."""
    return jax.eval_shape(lambda: _first_weights(static, shared, traced, key))


def init(static: View[Model], shared: Dataset, traced: Values[Model], key: jax.Array) -> State:
    """The model before training: random weights, empty curves."""
    weights = flatten(_first_weights(static, shared, traced, item_keys(key, traced)[0]))
    names = [f"train.{name}" for name in STEP_TERMS] + [f"eval.{name}" for name in EVAL_TERMS]
    zero = jnp.zeros((), jnp.int32)
    return State(
        weights=weights,
        optimizer=optimizer(traced).init(weights),
        step=zero,
        best=weights,
        best_value=jnp.full((), jnp.inf, static.dtype),
        best_step=zero,
        stale=zero,
        plateaus=zero,
        curves={name: empty_curve(static) for name in names},
        outcome=zero,
        done=jnp.zeros((), bool),
    )


def advance(
    static: View[Model], shared: Dataset, traced: Values[Model], key: jax.Array, state: State
) -> State:
    """Take `report_every` training steps, or those that are left, and evaluate the model once."""
    _, key_train, key_eval, _ = item_keys(key, traced)
    block = state.step // static.report_every  # the entry of the curves that this advance fills
    template = _shapes(static, shared, traced, key)

    take_step = lambda at: train_step(static, traced, shared, key_train, at, template)
    start = Position(state.weights, state.optimizer, state.step, state.plateaus)
    n, n_batches = static.report_every, static.n_batches
    (at, diverged), terms = take_steps(take_step, start, jnp.zeros((), bool), n, n_batches)
    weights, step = at.weights, at.step
    values = {f"train.{name}": jnp.nanmean(value) for name, value in terms.items()}
    fitted = Fitted(static, traced.variance_floor, shared, unflatten(weights, template))
    evaluated = evaluate(fitted, key_eval)
    values |= {f"eval.{name}": value for name, value in evaluated.items()}
    # `last` keeps the last parameters: its criterion falls at every evaluation.
    criterion = (evaluated | {"last": -step.astype(static.dtype)})[static.criterion]
    # NaN is not better than anything, so a diverged model keeps its last good weights.
    better = criterion < state.best_value
    stale = jnp.where(better, 0, state.stale + 1)
    # stale counts on across plateaus, so every plateau_patience-th evaluation is one.
    plateau = (stale > 0) & (stale % traced.plateau_patience == 0)
    # A model at its last step has not stopped early, whatever its last evaluations.
    early = (traced.patience > 0) & (stale >= traced.patience) & (step < static.n_batches)
    outcome = jnp.where(diverged, DIVERGED, jnp.where(early, STOPPED_EARLY, TRAINED))
    return State(
        weights=weights,
        optimizer=at.optimizer,
        step=step,
        best=jnp.where(better, weights, state.best),
        best_value=jnp.where(better, criterion, state.best_value),
        best_step=jnp.where(better, step, state.best_step),
        stale=stale,
        plateaus=state.plateaus + plateau,
        curves={name: curve.at[block].set(values[name]) for name, curve in state.curves.items()},
        outcome=outcome.astype(jnp.int32),
        done=diverged | early | (step >= static.n_batches),
    )


# --- results --------------------------------------------------------------------------------------


def load(inputs: View[Model]) -> Dataset:
    """Read and check the trials; warns of minibatches of more trials than there are.

    Raises ValueError, naming file and dataset, or where `save` asks for more trials than there are.
    """
    shared = load_data(inputs)
    n = len(shared.train.data)
    if inputs.batch_size > n:
        warnings.warn(
            f"batch_size: {inputs.batch_size}, but there are {count(n, 'trial')} for training: a minibatch, drawn with "
            f"replacement, has some of them several times; with batch_size: {n} a step takes less time",
            stacklevel=2,
        )
    for file, session in zip(files_of(inputs.data), _sessions(shared), strict=True):
        for purpose, trials in (("training", session.train), ("evaluation", session.evaluation)):
            if isinstance(inputs.save, int) and inputs.save > len(trials.data):
                raise ValueError(
                    f"save: {inputs.save} trials of each kind asked for, but {file} has "
                    f"{len(trials.data)} for {purpose}; give fewer, or `save: all`, which stores every one"
                )
    return shared


def _sessions(shared: Dataset) -> tuple[Dataset, ...]:
    return (shared,) if shared.stitched is None else shared.stitched.sessions


def result(
    static: View[Model], shared: Dataset, traced: Values[Model], key: jax.Array, state: State
) -> dict[str, Array]:
    """The weights of the best evaluation, that evaluation, posterior means of some trials, and metrics of these."""
    *_, key_eval, key_posterior = item_keys(key, traced)
    weights = as_stored(unflatten(state.best, _shapes(static, shared, traced, key)))
    values = {f"curve.{name}": curve for name, curve in state.curves.items()}
    # best_step is the end of a block, hence - 1; 0 where no evaluation was finite.
    block = jnp.maximum(state.best_step - 1, 0) // static.report_every
    values |= {f"eval_{name}": state.curves[f"eval.{name}"][block] for name in EVAL_TERMS}
    # AutoLFADS compares models by this value, which noise of one evaluation moves less.
    values["smoothed_nll"] = metrics.smoothed(state.curves["eval.nll"])
    model = Fitted(static, traced.variance_floor, shared, weights)
    if shared.stitched is None:
        values |= inferred(model, key_posterior)
    else:
        session_results, evaluations = [], []
        # Posterior means and metrics are those of a model of one session, so no code below knows of padding.
        for k, session in enumerate(shared.stitched.sessions):
            own = of_session(weights, k, session.evaluation.data.shape[2], session.seen_units)
            alone = model._replace(dataset=session, weights=own)
            session_results.append(inferred(alone, key_posterior))
            evaluations.append(evaluate(alone, key_eval))
        values |= of_all_sessions(session_results) | by_session(session_results, evaluations)
        weights["sessions"] = {
            name: jnp.asarray(mask).sum(1, dtype=jnp.int32)
            for name, mask in (
                ("n_units", shared.stitched.real),
                ("n_seen", shared.stitched.is_seen),
            )
        }
    ended = {"batches": state.step, "best_batch": state.best_step, "outcome": state.outcome}
    return values | name_weights(static, weights) | ended


def coords(inputs: View[Model], shared: Dataset) -> dict[str, Coordinate | np.ndarray]:
    """The coordinates: the training step at which each block ends; bins, or their times (s); trials; lags of inputs (bins)."""
    coordinates: dict[str, Coordinate | np.ndarray] = {**batch_axis(inputs)}
    stored = [count_stored(inputs, session) for session in _sessions(shared)]
    n_train, n_eval = map(sum, zip(*stored, strict=True))
    if n_train or n_eval:
        bins = np.arange(shared.evaluation.data.shape[1])
        # Without a bin width the axis counts bins.
        in_s = Coordinate(bins * (inputs.bin_s or 1), "s", "time since the trial's first bin")
        coordinates["time"] = in_s if inputs.bin_s else Coordinate(bins, "1", "number of the bin")
    for axis, many, purpose in (
        ("train_trial", n_train, "training"),
        ("trial", n_eval, "evaluation"),
    ):
        if many:
            coordinates[axis] = Coordinate(
                np.arange(many), "1", f"number of the trial for {purpose}"
            )
    if inputs.controller and all(
        session.evaluation.inputs is not None for session in _sessions(shared)
    ):
        coordinates["lag"] = np.array(metrics.lags(shared.evaluation.data.shape[1]))
    return coordinates


kernel = Kernel(
    name="lfads",
    Params=Model,
    dims=DIMS,
    load=load,
    init=init,
    advance=advance,
    finished=lambda state: state.done,
    result=result,
    outcomes=OUTCOMES,
    coords=coords,
    tables=Tables(reduce=reduce, of_failed=True, dims=REDUCED, Options=Best),
    advances=n_blocks,
    display=Display(
        summary=("item", "eval_loss", "co_bps_rank", *METRICS),
        metric="eval_loss",
        # Other trials, bins or units, or another density. Scales of KL and penalties are no part of eval_loss (`evaluate`).
        measured_on=(
            "data", "bin_s", "window", "align_to", "eval_every", "chop", "held_out_units", "held_out_bins", "likelihood",
        ),
        next_jobs=next_jobs,
        posterior="lfads.posterior",
        curves=("curve.eval.loss", "curve.train.loss"),
        plots=plots,
        presets=PRESETS,
    ),
    batching=Batching(
        width=16,
        # Each model has its own weights: on a CPU one model at a time keeps them in cache; on a GPU the products
        # of one model are too small. Measuring would take a good part of a run.
        microbatches=(0,),
        cpu_microbatches=(1,),
    ),
)  # fmt: skip
