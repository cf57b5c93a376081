"""The results of a trained model: its weights by name, posterior means of some trials, metrics of these.

The results of several sessions are joined to those of one model by `of_all_sessions`.
"""

from __future__ import annotations

import numpy as np

from ctd.kernel import View
from ctd.late import Array, jax, jnp, lax
from ctd.lfads import metrics
from ctd.lfads.data import Dataset, Trials
from ctd.lfads.distributions import COUNTS
from ctd.lfads.inference import AVERAGED, Inferred, posterior_mean, present, split_key
from ctd.lfads.model import Fitted
from ctd.lfads.names import DIMS
from ctd.lfads.params import Model
from ctd.lfads.scores import scores
from ctd.lfads.weights import Tree, factor_weights


def count_stored(inputs: View[Model], shared: Dataset) -> tuple[int, int]:
    """Count the trials for training and for evaluation, from the first on, whose posterior means are stored: by `save`, or else `n_saved`.

    >>> from ctd.lfads.data import make_dataset
    >>> model = Model(save=3)
    >>> counts = np.ones((5, 8, 2), int)
    >>> count_stored(model, make_dataset({"train": counts, "eval": counts[:2]}, model))
    (3, 2)
    """
    n_train, n_eval = len(shared.train.data), len(shared.evaluation.data)
    # n_saved counts evaluation trials alone.
    match inputs.save:
        case None:
            return 0, min(inputs.n_saved, n_eval)
        case "eval":
            return 0, n_eval
        case "all":
            return n_train, n_eval
    return min(inputs.save, n_train), min(inputs.save, n_eval)


def inferred(model: Fitted, key: jax.Array) -> dict[str, Array]:
    """The metrics of one session, and the posterior means that are stored. key: the model's posterior key."""
    static, shared = model.static, model.dataset
    (n_train, n_eval), names = (
        count_stored(static, shared),
        present(static, model.weights, AVERAGED),
    )

    def means(trials: Trials, n: int, names: tuple[Inferred, ...]) -> dict[str, Array]:
        means_key = split_key(key, trials is shared.evaluation)
        return posterior_mean(model, trials, n, means_key, names) if n else {}

    # Metrics use the first n_metric trials, whatever is stored.
    n_metric = min(static.n_metric, len(shared.evaluation.data))
    evaluated = means(shared.evaluation, max(n_eval, n_metric), names)
    measured = {name: value[:n_metric] for name, value in evaluated.items()}
    values = _metrics(static, shared, measured) | scores(model, split_key(key, True), evaluated)
    # Training trials are inferred to be stored, or for the decoder of behaviour, which needs factors alone.
    n_fit = 0 if shared.train.behavior is None else min(static.n_metric, len(shared.train.data))
    fitted = means(shared.train, max(n_train, n_fit), names if n_train else ("factors",))
    if n_fit:
        values |= _behavior(shared, n_fit, fitted, measured)
    if n_eval:
        values |= {name: value[:n_eval] for name, value in evaluated.items()}
    if n_train:
        values |= {f"train_{name}": value[:n_train] for name, value in fitted.items()}
    return values


def as_stored(weights: Tree) -> Tree:
    """The weights as `name_weights` stores them: the readout of factors has rows of norm 1.

    Inference in training and inference from a store then have the same bits: the barrier makes XLA round the rows once,
    instead of merging their norm into what follows.
    """
    generator = weights["generator"]
    readout = lax.optimization_barrier(factor_weights(generator))
    return {**weights, "generator": {**generator, "wO": readout}}


def _metrics(static: View[Model], shared: Dataset, means: dict[str, Array]) -> dict[str, Array]:
    """The metrics of `ctd.lfads.metrics` that the data allow, of the posterior means of the first evaluation trials."""
    trials, rates = shared.evaluation, means["rates"]
    counts = jnp.asarray(trials.data[: len(rates)])
    values = {}
    if static.likelihood in COUNTS:
        # Held-out units and bins have metrics over all evaluation trials: `ctd.lfads.scores`.
        seen_entries = slice(None), slice(0, len(shared.seen_bins)), shared.seen_units
        values["bits_per_spike"] = metrics.bits_per_spike(counts[seen_entries], rates[seen_entries])

    def paired(name: str, truth: np.ndarray) -> tuple[Array, Array]:
        """(posterior means, true values) of the trials that have both."""
        n = min(len(truth), len(rates))
        return means[name][:n], jnp.asarray(truth[:n], rates.dtype)

    if trials.rates is not None:
        each = metrics.squared_correlation(*paired("rates", trials.rates))
        values["rate_r2"] = jnp.nanmean(each)  # over trials and units whose rates vary
    if trials.inputs is not None and "inferred_inputs" in means:
        by_lag = metrics.input_r2(*paired("inferred_inputs", trials.inputs))
        # The middle one is lag 0.
        values |= {"input_r2": by_lag[len(by_lag) // 2], "input_r2_by_lag": by_lag}
    if trials.initial_states is not None:
        truth = paired("initial_conditions", trials.initial_states)
        values["initial_state_r2"] = metrics.initial_state_r2(*truth)
    return values


def _behavior(
    shared: Dataset, n_fit: int, fitted: dict[str, Array], means: dict[str, Array]
) -> dict[str, Array]:
    """The decoder of behaviour, w f + b, and its R2 on evaluation trials.

    It is fitted by ridge regression to the factors of the first `n_fit` training trials.
    """
    assert shared.train.behavior is not None
    assert shared.evaluation.behavior is not None
    decoder = metrics.ridge(fitted["factors"][:n_fit], jnp.asarray(shared.train.behavior[:n_fit]))
    factors = means["factors"]
    behavior = jnp.asarray(shared.evaluation.behavior[: len(factors)])
    residual = (decoder.residual(factors, behavior) ** 2).sum((0, 1))
    _, mean_r2 = metrics.r2(residual, metrics.squares(behavior))
    return {
        "behavior_r2": mean_r2,
        "model.decoder.w": decoder.weights.T,
        "model.decoder.b": decoder.of_targets - decoder.of_features @ decoder.weights,
    }


def name_weights(static: View[Model], weights: Tree) -> dict[str, Array]:
    """Name the stored weights. weights: from `as_stored`.

    `weights.NAME` is the generator as a network of `ctd.cells`: its readout gives the factors, its h0 is the mean of
    the prior of initial conditions. `model.PART.NAME` is each other weight.
    """
    generator = dict(weights["generator"])
    # Factors have no bias; cells expect one.
    generator["bO"] = jnp.zeros(static.n_factors, static.dtype)
    generator["h0"] = weights["ic_prior"]["mean"]
    values = {f"weights.{name}": value for name, value in generator.items()}
    for part, entries in weights.items():
        if part != "generator":
            values |= {f"model.{part}.{name}": value for name, value in entries.items()}
    return values


# --- several sessions -----------------------------------------------------------------------------

DECODER = ("model.decoder.w", "model.decoder.b")


def of_all_sessions(session_results: list[dict[str, Array]]) -> dict[str, Array]:
    """Join the results of all sessions: metrics that all have are averaged, trials stand one session after another.

    Units are padded with NaN to the most that a session has; `trial_session` has the session of each trial.
    """
    values = _decoders(session_results)
    for name in set.intersection(*(set(results) for results in session_results)) - set(DECODER):
        parts, axes = [results[name] for results in session_results], DIMS[name].axes
        if axes[:1] in (("trial",), ("train_trial",)):
            # Rates differ in units between sessions; factors and states do not.
            values[name] = jnp.concatenate(_padded(parts, -1, jnp.nan) if "unit" in axes else parts)
        else:
            values[name] = jnp.stack(parts).mean(0)
    for prefix in ("", "train_"):
        if f"{prefix}rates" in values:
            n = [len(results[f"{prefix}rates"]) for results in session_results]
            session = np.repeat(np.arange(len(session_results), dtype=np.int32), n)
            values[f"{prefix}trial_session"] = jnp.asarray(session)
    return values


def by_session(
    session_results: list[dict[str, Array]], evaluations: list[dict[str, Array]]
) -> dict[str, Array]:
    """The metrics of each session, to compare with models of that session alone.

    session_results: of each; evaluations: of each, by `evaluate`.
    """
    values = {
        f"session_{name}": jnp.stack([results[name] for results in evaluations])
        for name in ("loss", "nll")
    }
    for name in ("co_bps", "bits_per_spike"):
        if all(name in results for results in session_results):
            values[f"session_{name}"] = jnp.stack([results[name] for results in session_results])
    return values


def _decoders(session_results: list[dict[str, Array]]) -> dict[str, Array]:
    """The decoders of all sessions, padded with 0 to the most channels that a session has; empty if no session has behaviour."""
    n_channels = [len(results.get(DECODER[1], ())) for results in session_results]
    if not any(n_channels):
        return {}
    values: dict[str, Array] = {}
    for name in DECODER:
        none = next(results[name] for results in session_results if name in results)[:0]
        padded = _padded([results.get(name, none) for results in session_results], 0, 0)
        values[name.replace("decoder", "decoders")] = jnp.stack(padded)
    return values | {"model.sessions.n_channels": jnp.asarray(n_channels, jnp.int32)}


def _padded(parts: list[Array], axis: int, fill: float) -> list[Array]:
    """The arrays, filled up along one axis to the longest."""
    longest = max(part.shape[axis] for part in parts)
    padded = []
    for part in parts:
        width = [(0, 0)] * part.ndim
        width[axis] = (0, longest - part.shape[axis])
        padded.append(jnp.pad(part, width, constant_values=fill))
    return padded
