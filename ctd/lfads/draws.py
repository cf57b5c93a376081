"""The posterior of trials: many draws of initial conditions and inputs, and their moments.

The draws of a trial depend on its number in its split, the model's key and `batch_size` alone, not on how many
trials are asked for. So its means have the same bits wherever they are computed on one machine.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from ctd.late import jax, jnp, lax
from ctd.lfads.data import Dataset, Trials
from ctd.lfads.distributions import data_mean
from ctd.lfads.loss import Batch, draw_noise, gather
from ctd.lfads.model import Decoded, Encoded, Noise, Tree, decode, encode

Inferred = Literal[
    "rates", "factors", "inferred_inputs", "states", "initial_conditions", "decoded_behavior"
]
"""What is inferred of a trial."""

AVERAGED: tuple[Inferred, ...] = (
    "rates", "factors", "inferred_inputs", "states", "decoded_behavior",
)  # fmt: skip
"""Those whose means are over draws; the moments of initial conditions are known."""


class Fitted(NamedTuple):
    """A model with its data."""

    static: Any
    floor: Any
    """Least variance of a posterior."""
    dataset: Dataset
    weights: Tree


class Asked(NamedTuple):
    """What of the posterior is computed."""

    means: tuple[Inferred, ...] = AVERAGED
    """Their means."""
    spread: bool = False
    """Whether standard deviations too, as NAME_sd."""
    samples: tuple[Inferred, ...] = ()
    """Of these all draws, as NAME_samples."""


def present(static: Any, weights: Tree, names: tuple[Inferred, ...]) -> tuple[Inferred, ...]:
    """Those of the names that a model infers: inputs with a controller, behaviour with a decoder."""
    lacks = {"inferred_inputs": not static.controller, "decoded_behavior": "decoder" not in weights}
    return tuple(name for name in names if not lacks.get(name))


def split_key(key: jax.Array, evaluation: Any) -> jax.Array:
    """The key of a split's trials, from the posterior key of a model."""
    return jnp.where(evaluation, key, jax.random.fold_in(key, 1))


def posterior_mean(
    model: Fitted,
    trials: Trials,
    n: int,
    key: jax.Array,
    names: tuple[Inferred, ...],
) -> dict[str, jax.Array]:
    """Name -> (trial, time, ...) posterior mean over the first n trials; `initial_conditions` is (trial, state).

    key: of the split, see `split_key`.
    """
    size = model.static.batch_size
    n_batches = -(-n // size)
    index = jnp.minimum(jnp.arange(n_batches * size), n - 1).reshape(n_batches, size)

    def one(now: tuple[jax.Array, jax.Array]) -> dict[str, jax.Array]:
        number, rows = now
        batch = gather(model.static, model.dataset, trials, rows)
        return posterior(model, batch, jax.random.fold_in(key, number), Asked(names))

    means = lax.map(one, (jnp.arange(n_batches), index))
    return {name: v.reshape(index.size, *v.shape[2:])[:n] for name, v in means.items()}


def posterior(model: Fitted, batch: Batch, key: jax.Array, asked: Asked) -> dict[str, jax.Array]:
    """Name -> (trial, time, ...): what is asked of the trials of a batch, by `n_samples` draws.

    For inferred inputs, the posterior mean given each draw is averaged, and the variance is the mean of the
    variances given each draw plus the variance of those means. Initial conditions are (trial, state), with the
    moments of their posterior. Samples are (trial, sample, ...).
    """
    static, floor, _, weights = model
    n = static.n_samples
    batch = batch._replace(log_factorial=None)
    # Who asks, and for what, must not change the bits: the barriers keep the arithmetic of a draw from being merged
    # with what is around it, which would round some of its exponentials otherwise.
    weights, batch, key = lax.optimization_barrier((weights, batch, key))
    encoded = lax.optimization_barrier(
        encode(static, weights, batch.seen, len(batch.data), floor, draw_noise(static, key, batch))
    )

    def draw(k: jax.Array) -> dict[str, jax.Array]:
        noise = draw_noise(static, jax.random.fold_in(key, k), batch)
        made = decode(static, weights, encoded, batch.external, floor, noise)
        values = lax.optimization_barrier(_values(static, encoded, made, noise))
        if "decoder" in weights:
            w, b = weights["decoder"]["w"], weights["decoder"]["b"]
            values["decoded_behavior"] = values["factors"] @ w.T + b
        return values

    def add(k: jax.Array, so_far: _Sums) -> _Sums:
        return _add(so_far, k, draw(k))

    zeros = lambda v: jnp.zeros(v.shape, v.dtype)
    start = jax.tree.map(zeros, jax.eval_shape(lambda: _sums(draw(jnp.zeros((), int)), n, asked)))
    sums = lax.fori_loop(0, n, add, start)
    averaged: list[str] = [name for name in asked.means if name in AVERAGED]
    found = {name: (sums.total[name] / n).swapaxes(0, 1) for name in averaged}
    found["initial_conditions"] = encoded.ic_mean
    if asked.spread:
        variance = {name: sums.squares[name] / (n - 1) for name in averaged}
        if "inferred_inputs" in variance:
            variance["inferred_inputs"] += sums.total["input_variance"] / n
        found |= {f"{name}_sd": jnp.sqrt(v).swapaxes(0, 1) for name, v in variance.items()}
        found["initial_conditions_sd"] = jnp.sqrt(encoded.ic_variance)
    for name, kept in sums.samples.items():  # (sample, time, trial, ...), or (sample, trial, state)
        found[f"{name}_samples"] = jnp.moveaxis(kept, kept.ndim - 2, 0)
    return found


def _values(static: Any, encoded: Encoded, made: Decoded, noise: Noise) -> dict[str, jax.Array]:
    """What one draw gives; `drawn_` are drawn values where the others are means."""
    return {
        "rates": data_mean(static.likelihood, made.output),
        "factors": made.factors,
        "inferred_inputs": made.input_mean,
        "states": made.states,
        "input_variance": made.input_variance,
        "drawn_inferred_inputs": made.input_mean + jnp.sqrt(made.input_variance) * noise.inputs,
        "drawn_initial_conditions": encoded.ic_mean + jnp.sqrt(encoded.ic_variance) * noise.ic,
    }


class _Sums(NamedTuple):
    """Over the draws so far; name -> array."""

    total: dict[str, jax.Array]
    squares: dict[str, jax.Array]
    """Sums of squares about the mean."""
    samples: dict[str, jax.Array]
    """(sample, ...)"""


def _sums(values: dict[str, jax.Array], n_draws: int, asked: Asked) -> _Sums:
    """Sums of the shapes that values of a draw need."""
    means: dict[str, jax.Array] = {n: values[n] for n in asked.means if n in AVERAGED}
    further = asked.spread and "inferred_inputs" in means
    return _Sums(
        means | ({"input_variance": values["input_variance"]} if further else {}),
        means if asked.spread else {},
        {name: jnp.stack([_drawn(values, name)] * n_draws) for name in asked.samples},
    )


def _drawn(values: dict[str, jax.Array], name: str) -> jax.Array:
    return values.get(f"drawn_{name}", values.get(name))  # type: ignore[return-value]


def _add(so_far: _Sums, k: jax.Array, values: dict[str, jax.Array]) -> _Sums:
    """The sums with draw number k, from 0."""
    total = {name: so_far.total[name] + values[name] for name in so_far.total}
    squares = {}
    for name, before in so_far.squares.items():
        # Youngs & Cramer 1971: sums of squares about a mean that moves, without cancellation.
        count = (k + 1).astype(before.dtype)
        step = (count * values[name] - total[name]) ** 2 / jnp.maximum(count * (count - 1), 1)
        squares[name] = before + step
    samples = {name: kept.at[k].set(_drawn(values, name)) for name, kept in so_far.samples.items()}
    return _Sums(total, squares, samples)
