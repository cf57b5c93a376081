"""What is kept of a trained model: its weights by name, posterior means of some trials, metrics of these."""

from __future__ import annotations

from typing import Any, NamedTuple

from ctd.late import jax, jnp, lax
from ctd.lfads import metrics
from ctd.lfads.data import Dataset, Trials
from ctd.lfads.distributions import COUNTS
from ctd.lfads.draws import AVERAGED, Fitted, posterior_mean, present, split_key
from ctd.lfads.model import Tree, factor_weights
from ctd.lfads.scores import scores


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


def inferred(model: Fitted, key: jax.Array) -> dict[str, jax.Array]:
    """Metrics of a session's posterior means, and those that are stored."""
    static, shared = model.static, model.dataset
    n, means, fitted = _means(model, key)
    n_metric = min(static.n_metric, len(shared.evaluation.data))
    measured = {name: value[:n_metric] for name, value in means.items()}
    values = _metrics(static, shared, measured) | scores(model, split_key(key, True), means)
    if shared.evaluation.behavior is not None:
        values |= _behavior(shared, static.n_metric, fitted, measured)
    if n.evaluation:
        values |= {name: value[: n.evaluation] for name, value in means.items()}
    if n.train:
        values |= {f"train_{name}": value[: n.train] for name, value in fitted.items()}
    return values


def as_stored(weights: Tree) -> Tree:
    """The weights as `named` gives them, so that whoever reads these infers the same bits.

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
    all_names = present(static, model.weights, AVERAGED)

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


def _behavior(
    shared: Dataset, n_fit: int, fitted: dict[str, jax.Array], means: dict[str, jax.Array]
) -> dict[str, jax.Array]:
    """The decoder of behaviour, w f + b by ridge regression on factors of the first training trials, and its R2 in evaluation trials."""
    assert shared.train.behavior is not None
    assert shared.evaluation.behavior is not None
    decoder = metrics.ridge(fitted["factors"][:n_fit], jnp.asarray(shared.train.behavior[:n_fit]))
    factors = means["factors"]
    behavior = jnp.asarray(shared.evaluation.behavior[: len(factors)])
    return {
        "behavior_r2": metrics.readout_r2(decoder, factors, behavior),
        "model.decoder.w": decoder.weights.T,
        "model.decoder.b": decoder.of_targets - decoder.of_features @ decoder.weights,
    }


def named(static: Any, weights: Tree) -> dict[str, jax.Array]:
    """Of weights `as_stored`: `weights.NAME`, the generator as a network of `ctd.cells`, whose readout gives the factors and whose
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
