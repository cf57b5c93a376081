"""The kernel of `ctd.lfads`: one model in training, and what is kept of it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ctd.kernel import Kernel, Outcome
from ctd.late import jax, jnp, lax
from ctd.lfads import metrics
from ctd.lfads.data import Dataset, load
from ctd.lfads.loss import TERMS, evaluate
from ctd.lfads.model import Tree, factor_weights, flatten, init_weights, unflatten
from ctd.lfads.names import DIMS
from ctd.lfads.params import Model
from ctd.lfads.plots import plots
from ctd.lfads.posterior import Fitted, posterior_mean
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
    n_external = 0 if shared.train.external is None else shared.train.external.shape[-1]
    bias = jnp.asarray(shared.bias, static.dtype)
    return init_weights(static, traced, key, len(shared.seen_units), n_external, bias)


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


def result(
    static: Any, shared: Dataset, traced: Any, key: jax.Array, state: State
) -> dict[str, jax.Array]:
    """The best weights, their evaluation, posterior means of some trials, and metrics of these."""
    key_posterior = item_keys(key, traced)[3]
    weights = unflatten(state.best, _shapes(static, shared, traced, key))
    trials, model = shared.evaluation, Fitted(static, traced.variance_floor, shared, weights)
    n = min(static.n_metric, len(trials.data))
    means = posterior_mean(model, trials, n, key_posterior)
    if not static.controller:
        del means["inferred_inputs"]
    values = {f"curve.{name}": curve for name, curve in state.curves.items()}
    block = jnp.maximum(state.best_step - 1, 0) // static.report_every
    values |= {f"eval_{name}": state.curves[f"eval.{name}"][block] for name in EVAL_TERMS}
    values |= _metrics(static, shared, means)
    if trials.behavior is not None:
        values["behavior_r2"] = _behavior_r2(model, means, key_posterior)
    if static.n_saved:
        values |= {name: value[: static.n_saved] for name, value in means.items()}
    return (
        values
        | _weights(static, weights)
        | {
            "batches": state.step,
            "best_batch": state.best_step,
            "outcome": state.outcome,
        }
    )


def _metrics(static: Any, shared: Dataset, means: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Metrics of the posterior means of the first evaluation trials, as far as the data allow."""
    trials, rates = shared.evaluation, means["rates"]
    counts = jnp.asarray(trials.data[: len(rates)])
    values = {}
    n_bins, seen, held = len(shared.seen_bins), shared.seen_units, shared.held_units
    if static.likelihood == "poisson":
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


def _behavior_r2(model: Fitted, means: dict[str, jax.Array], key: jax.Array) -> jax.Array:
    """R2 of behaviour by ridge regression on factors: fitted on training trials, tested on evaluation trials."""
    train, test, n = model.dataset.train, model.dataset.evaluation, len(means["factors"])
    n_train = min(model.static.n_metric, len(train.data))
    key = jax.random.fold_in(key, 1)
    fitted = posterior_mean(model, train, n_train, key, ("factors",))
    assert train.behavior is not None
    assert test.behavior is not None
    return metrics.ridge_r2(
        fitted["factors"],
        jnp.asarray(train.behavior[:n_train]),
        means["factors"],
        jnp.asarray(test.behavior[:n]),
    )


def _weights(static: Any, weights: Tree) -> dict[str, jax.Array]:
    """`weights.NAME`: the generator as a network of `ctd.cells.gru`, whose readout gives the factors and whose
    h0 is the mean of the prior of initial conditions. `model.PART.NAME`: all other weights.
    """
    generator = dict(weights["generator"])
    generator["wO"] = factor_weights(generator)
    generator["bO"] = jnp.zeros(static.n_factors, static.dtype)
    generator["h0"] = weights["ic_prior"]["mean"]
    values = {f"weights.{name}": value for name, value in generator.items()}
    for part, entries in weights.items():
        if part != "generator":
            values |= {f"model.{part}.{name}": value for name, value in entries.items()}
    return values


def coords(inputs: Any, shared: Dataset) -> dict[str, np.ndarray]:
    """Coordinates: the training step at which each entry of a curve ends; the lags of inputs."""
    found = {"batch": block_ends(inputs)}
    if shared.evaluation.inputs is not None and inputs.controller:
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
    advances=lambda inputs: len(block_ends(inputs)),
    plots=plots,
    width=16,
    # Each model has its own weights: on a CPU one model at a time keeps them in cache; on a GPU the products
    # of one model are too small. Measuring would take a good part of a run.
    microbatches=(0,),
    cpu_microbatches=(1,),
)
