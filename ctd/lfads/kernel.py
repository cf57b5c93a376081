"""The kernel of `ctd.lfads`: one model in training, and what is kept of it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ctd.kernel import Coordinate, Kernel, Outcome
from ctd.late import jax, jnp, lax
from ctd.lfads import metrics
from ctd.lfads.adapters import init_stitched, of_session, with_core
from ctd.lfads.data import Dataset, Trials
from ctd.lfads.distributions import COUNTS
from ctd.lfads.draws import AVERAGED, Fitted, posterior_mean, split_key
from ctd.lfads.loss import TERMS, evaluate
from ctd.lfads.model import Tree, factor_weights, flatten, init_weights, unflatten
from ctd.lfads.names import DIMS
from ctd.lfads.over_sessions import of_all_sessions
from ctd.lfads.params import Model
from ctd.lfads.plots import plots
from ctd.lfads.presets import PRESETS
from ctd.lfads.scores import scores
from ctd.lfads.sessions import load as load_data
from ctd.lfads.summary import DIVERGED, METRICS, REDUCED, STOPPED_EARLY, TRAINED, Options, reduce
from ctd.lfads.train import STEP_TERMS, Position, optimizer, train_step
from ctd.plots.curves import block_ends

EVAL_TERMS = ("loss", *TERMS)

OUTCOMES = (
    Outcome("trained", "all training steps were taken"),
    Outcome("stopped_early", "no better evaluation for `patience` of them"),
    Outcome("diverged", "loss or gradient not finite", failed=True),
)


class State(NamedTuple):
    """A model in training."""

    weights: jax.Array
    """All weights in one vector."""
    optimizer: Any
    step: jax.Array
    """int32, minibatches seen."""
    best: jax.Array
    """The weights at the best evaluation so far; the initial ones before the first evaluation."""
    best_value: jax.Array
    """The criterion at the best evaluation; inf before the first."""
    best_step: jax.Array
    stale: jax.Array
    """Evaluations since the best one."""
    plateaus: jax.Array
    """Plateaus so far; each is `plateau_patience` evaluations in a row without a better one."""
    curves: dict[str, jax.Array]
    """Name -> (batch,): train.* are means over a block's steps, eval.* values at its end; NaN where not reached."""
    outcome: jax.Array
    done: jax.Array


def item_keys(key: jax.Array, traced: Any) -> jax.Array:
    """Four keys: of the initial weights, of training, of evaluation, of the posterior."""
    return jax.random.split(jax.random.fold_in(key, traced.seed), 4)


def _first_weights(static: Any, shared: Dataset, traced: Any, key: jax.Array) -> Tree:
    if shared.stitched is not None:
        return with_core(shared, init_stitched(static, traced, key, shared))
    n_external = 0 if shared.train.external is None else shared.train.external.shape[-1]
    bias = jnp.asarray(shared.bias, static.dtype)
    n_seen = len(shared.seen_units)
    return with_core(shared, init_weights(static, traced, key, n_seen, n_external, bias))


def _shapes(static: Any, shared: Dataset, traced: Any, key: jax.Array) -> Tree:
    """The weights as shapes and dtypes alone."""
    return jax.eval_shape(lambda: _first_weights(static, shared, traced, key))


def init(static: Any, shared: Dataset, traced: Any, key: jax.Array) -> State:
    weights = flatten(_first_weights(static, shared, traced, item_keys(key, traced)[0]))
    n_blocks = len(block_ends(static))
    names = [f"train.{name}" for name in STEP_TERMS] + [f"eval.{name}" for name in EVAL_TERMS]
    zero = jnp.zeros((), jnp.int32)
    return State(
        weights,
        optimizer(traced).init(weights),
        zero,
        weights,
        jnp.full((), jnp.inf, static.dtype),
        zero,
        zero,
        zero,
        {name: jnp.full(n_blocks, jnp.nan, static.dtype) for name in names},
        zero,
        jnp.zeros((), bool),
    )


def advance(static: Any, shared: Dataset, traced: Any, key: jax.Array, state: State) -> State:
    """`report_every` steps, or those that are left, and one evaluation."""
    _, key_train, key_eval, _ = item_keys(key, traced)
    block = state.step // static.report_every
    like = _shapes(static, shared, traced, key)

    def body(carry: Any, _: None) -> tuple[Any, Any]:
        weights, optimizer_state, step, diverged = carry
        at = Position(weights, optimizer_state, step, state.plateaus)
        taken = train_step(static, traced, shared, key_train, at, like)
        # After the last step, and from the first step that is not finite, the model no longer changes.
        active = (step < static.n_batches) & ~diverged
        moved = active & taken.finite
        keep = lambda new, old: jnp.where(moved, new, old)
        new = jax.tree.map(keep, (taken.weights, taken.optimizer), (weights, optimizer_state))
        terms = {name: jnp.where(moved, value, jnp.nan) for name, value in taken.terms.items()}
        return (*new, step + moved, diverged | (active & ~taken.finite)), terms

    start = (state.weights, state.optimizer, state.step, jnp.zeros((), bool))
    (weights, optimizer_state, step, diverged), terms = lax.scan(
        body, start, length=static.report_every
    )
    values = {f"train.{name}": jnp.nanmean(value) for name, value in terms.items()}
    evaluated = evaluate(static, traced, shared, unflatten(weights, like), key_eval)
    values |= {f"eval.{name}": value for name, value in evaluated.items()}
    criterion = evaluated[static.criterion]
    better = criterion < state.best_value
    stale = jnp.where(better, 0, state.stale + 1)
    plateau = (stale > 0) & (stale % traced.plateau_patience == 0)
    early = (traced.patience > 0) & (stale >= traced.patience) & (step < static.n_batches)
    return State(
        weights,
        optimizer_state,
        step,
        jnp.where(better, weights, state.best),
        jnp.where(better, criterion, state.best_value),
        jnp.where(better, step, state.best_step),
        stale,
        state.plateaus + plateau,
        {name: curve.at[block].set(values[name]) for name, curve in state.curves.items()},
        jnp.where(diverged, DIVERGED, jnp.where(early, STOPPED_EARLY, TRAINED)).astype(jnp.int32),
        diverged | early | (step >= static.n_batches),
    )


# --- results --------------------------------------------------------------------------------------


class Kept(NamedTuple):
    """The first so many trials of each split whose posterior means are stored."""

    train: int
    evaluation: int


def kept(inputs: Any, shared: Dataset) -> Kept:
    """The trials that `save`, or else `n_saved`, asks for, as far as there are so many."""
    n_train, n_eval = len(shared.train.data), len(shared.evaluation.data)
    match inputs.save:
        case None:
            return Kept(0, min(inputs.n_saved, n_eval))
        case "eval":
            return Kept(0, n_eval)
        case "all":
            return Kept(n_train, n_eval)
    return Kept(min(inputs.save, n_train), min(inputs.save, n_eval))


def load(inputs: Any) -> Dataset:
    """Read and check the trials. Raises ValueError, also where `save` asks for more than there are."""
    shared = load_data(inputs)
    if not isinstance(inputs.save, int):
        return shared
    files = (inputs.data,) if isinstance(inputs.data, str) else inputs.data
    for file, one in zip(files, _sessions(shared), strict=True):
        for what, trials in (("training", one.train), ("evaluation", one.evaluation)):
            if inputs.save > len(trials.data):
                raise ValueError(
                    f"save: {inputs.save} trials of each kind cannot be stored, {file} has "
                    f"{len(trials.data)} for {what}; `save: all` stores every one"
                )
    return shared


def _sessions(shared: Dataset) -> tuple[Dataset, ...]:
    return (shared,) if shared.stitched is None else shared.stitched.sessions


def result(
    static: Any, shared: Dataset, traced: Any, key: jax.Array, state: State
) -> dict[str, jax.Array]:
    """The best weights, their evaluation, posterior means of some trials, and metrics of these."""
    key_posterior = item_keys(key, traced)[3]
    weights = _as_stored(unflatten(state.best, _shapes(static, shared, traced, key)))
    values = {f"curve.{name}": curve for name, curve in state.curves.items()}
    block = jnp.maximum(state.best_step - 1, 0) // static.report_every
    values |= {f"eval_{name}": state.curves[f"eval.{name}"][block] for name in EVAL_TERMS}
    values["smoothed_nll"] = metrics.smoothed(state.curves["eval.nll"])
    if shared.stitched is None:
        values |= _inferred(Fitted(static, traced.variance_floor, shared, weights), key_posterior)
    else:
        found = []
        for k, one in enumerate(shared.stitched.sessions):
            own = of_session(weights, k, one.evaluation.data.shape[2], one.seen_units)
            found.append(_inferred(Fitted(static, traced.variance_floor, one, own), key_posterior))
        values |= of_all_sessions(found)
        weights["sessions"] = {
            name: jnp.asarray(mask).sum(1, dtype=jnp.int32)
            for name, mask in (("n_units", shared.stitched.real), ("n_seen", shared.stitched.shown))
        }
    return (
        values
        | _weights(static, weights)
        | {
            "batches": state.step,
            "best_batch": state.best_step,
            "outcome": state.outcome,
        }
    )


def _inferred(model: Fitted, key: jax.Array) -> dict[str, jax.Array]:
    """Metrics of a session's posterior means, and those that are stored."""
    static, shared = model.static, model.dataset
    n, means, fitted = _means(model, key)
    n_metric = min(static.n_metric, len(shared.evaluation.data))
    measured = {name: value[:n_metric] for name, value in means.items()}
    values = _metrics(static, shared, measured) | scores(model, split_key(key, True), means)
    if shared.evaluation.behavior is not None:
        values["behavior_r2"] = _behavior_r2(shared, static.n_metric, fitted, measured)
    if n.evaluation:
        values |= {name: value[: n.evaluation] for name, value in means.items()}
    if n.train:
        values |= {f"train_{name}": value[: n.train] for name, value in fitted.items()}
    return values


def _as_stored(weights: Tree) -> Tree:
    """The weights as `_weights` gives them, so that whoever reads these infers the same bits.

    Behind the barrier the rows of norm 1 are rounded once, here as there.
    """
    generator = weights["generator"]
    readout = lax.optimization_barrier(factor_weights(generator))
    return {**weights, "generator": {**generator, "wO": readout}}


def _means(
    model: Fitted, key: jax.Array
) -> tuple[Kept, dict[str, jax.Array], dict[str, jax.Array]]:
    """(trials to store, posterior means of evaluation trials, of training trials).

    As many as are stored, or as metrics need; of training trials none, and factors alone, if nothing else
    is needed.
    """
    static, shared = model.static, model.dataset
    n = kept(static, shared)
    all_names = tuple(k for k in AVERAGED if static.controller or k != "inferred_inputs")

    def means(trials: Trials, n: int, names: Any = all_names) -> dict[str, jax.Array]:
        own = split_key(key, trials is shared.evaluation)
        return posterior_mean(model, trials, n, own, names) if n else {}

    least = lambda trials: min(static.n_metric, len(trials.data))
    n_fit = 0 if shared.train.behavior is None else least(shared.train)
    return (
        n,
        means(shared.evaluation, max(n.evaluation, least(shared.evaluation))),
        means(shared.train, max(n.train, n_fit), all_names if n.train else ("factors",)),
    )


def _metrics(static: Any, shared: Dataset, means: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Metrics of the posterior means of the first evaluation trials, as far as the data allow."""
    trials, rates = shared.evaluation, means["rates"]
    counts = jnp.asarray(trials.data[: len(rates)])
    values = {}
    n_bins, seen, held = len(shared.seen_bins), shared.seen_units, shared.held_units
    if static.likelihood in COUNTS:
        inside = lambda a: a[:, :n_bins]
        values["bits_per_spike"] = metrics.bits_per_spike(
            inside(counts)[..., seen], inside(rates)[..., seen]
        )
        if len(held):
            values["cosmoothing_bits_per_spike"] = metrics.bits_per_spike(
                inside(counts)[..., held], inside(rates)[..., held]
            )
        if n_bins < counts.shape[1]:
            values["forward_bits_per_spike"] = metrics.bits_per_spike(
                counts[:, n_bins:], rates[:, n_bins:]
            )
    if trials.rates is not None:
        n = min(len(trials.rates), len(rates))
        values["rate_r2"] = metrics.rate_r2(rates[:n], jnp.asarray(trials.rates[:n], rates.dtype))
    if trials.inputs is not None and "inferred_inputs" in means:
        n = min(len(trials.inputs), len(rates))
        by_lag = metrics.input_r2(
            means["inferred_inputs"][:n], jnp.asarray(trials.inputs[:n], rates.dtype)
        )
        values |= {"input_r2": by_lag[len(by_lag) // 2], "input_r2_by_lag": by_lag}
    if trials.initial_states is not None:
        n = min(len(trials.initial_states), len(rates))
        truth = jnp.asarray(trials.initial_states[:n], rates.dtype)
        values["initial_state_r2"] = metrics.initial_state_r2(
            means["initial_conditions"][:n], truth
        )
    return values


def _behavior_r2(
    shared: Dataset, n_fit: int, fitted: dict[str, jax.Array], means: dict[str, jax.Array]
) -> jax.Array:
    """R2 of behaviour by ridge regression on factors: of the first training trials, tested on evaluation trials."""
    assert shared.train.behavior is not None
    assert shared.evaluation.behavior is not None
    return metrics.ridge_r2(
        fitted["factors"][:n_fit],
        jnp.asarray(shared.train.behavior[:n_fit]),
        means["factors"],
        jnp.asarray(shared.evaluation.behavior[: len(means["factors"])]),
    )


def _weights(static: Any, weights: Tree) -> dict[str, jax.Array]:
    """Of weights `_as_stored`: `weights.NAME`, the generator as a network of `ctd.cells.gru`, whose readout gives the factors and whose
    h0 is the mean of the prior of initial conditions. `model.PART.NAME`: all other weights.
    """
    generator = dict(weights["generator"])
    generator["bO"] = jnp.zeros(static.n_factors, static.dtype)
    generator["h0"] = weights["ic_prior"]["mean"]
    values = {f"weights.{name}": value for name, value in generator.items()}
    for part, entries in weights.items():
        if part != "generator":
            values |= {f"model.{part}.{name}": value for name, value in entries.items()}
    return values


def coords(inputs: Any, shared: Dataset) -> dict[str, Coordinate | np.ndarray]:
    """Coordinates: the training step at which each entry of a curve ends; bins, or their times; trials; lags of inputs."""
    found: dict[str, Coordinate | np.ndarray] = {
        "batch": Coordinate(block_ends(inputs), "1", "training steps taken")
    }
    n = kept(inputs, shared)
    if n.train or n.evaluation:
        bins = np.arange(shared.evaluation.data.shape[1])
        in_s = Coordinate(bins * (inputs.bin_s or 1), "s", "time since the trial's first bin")
        found["time"] = in_s if inputs.bin_s else Coordinate(bins, "1", "number of the bin")
    for axis, many, of in (
        ("train_trial", n.train, "training"),
        ("trial", n.evaluation, "evaluation"),
    ):
        if many:
            found[axis] = Coordinate(np.arange(many), "1", f"number of the trial for {of}")
    if inputs.controller and all(one.evaluation.inputs is not None for one in _sessions(shared)):
        found["lag"] = np.array(metrics.lags(shared.evaluation.data.shape[1]))
    return found


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
    reduce=reduce,
    reduced=REDUCED,
    Options=Options,
    summary=("model", "eval_loss", *METRICS),
    metric="eval_loss",
    curves=("curve.eval.loss", "curve.train.loss"),
    advances=lambda inputs: len(block_ends(inputs)),
    plots=plots,
    presets=PRESETS,
    width=16,
    # Each model has its own weights: on a CPU one model at a time keeps them in cache; on a GPU the products
    # of one model are too small. Measuring would take a good part of a run.
    microbatches=(0,),
    cpu_microbatches=(1,),
)
