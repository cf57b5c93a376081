"""The posterior of trials: many draws of initial conditions and inputs, and their moments.

The draws of a trial depend on its number in its split, on the model's key and on `batch_size` alone, not on how many
trials are asked for. So the means of a trial have the same bits wherever one machine computes them.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from ctd.kernel import View
from ctd.late import Array, Float, Number, jax, jnp, lax
from ctd.lfads.data import Dataset, Trials
from ctd.lfads.distributions import data_mean
from ctd.lfads.loss import Batch, draw_noise, gather
from ctd.lfads.model import Decoded, Encoded, Noise, decode, encode
from ctd.lfads.params import Model
from ctd.lfads.weights import Tree

Inferred = Literal[
    "rates", "factors", "inferred_inputs", "states", "initial_conditions", "decoded_behavior"
]
"""The quantities that a model infers of a trial."""

AVERAGED: tuple[Inferred, ...] = (
    "rates", "factors", "inferred_inputs", "states", "decoded_behavior",
)  # fmt: skip
"""Quantities whose moments are taken over draws. Those of initial conditions are known: the encoder gives them."""


class Fitted(NamedTuple):
    """A model, trained or in training, with its data."""

    static: View[Model]
    floor: Number
    """Least variance of a posterior."""
    dataset: Dataset
    weights: Tree


class Asked(NamedTuple):
    """Which results `posterior` returns."""

    means: tuple[Inferred, ...] = AVERAGED
    """Quantities whose means are returned, as NAME."""
    spread: bool = False
    """Whether their standard deviations are returned, too, as NAME_sd."""
    samples: tuple[Inferred, ...] = ()
    """Quantities of which all draws are returned, as NAME_samples."""


def present(
    static: View[Model], weights: Tree, names: tuple[Inferred, ...]
) -> tuple[Inferred, ...]:
    """Keep the names that a model infers: inputs need a controller, behaviour a decoder.

    >>> from ctd.kernel import static_of
    >>> present(static_of(Model(controller=0)), {}, ("rates", "inferred_inputs", "decoded_behavior"))
    ('rates',)
    """
    lacks = {"inferred_inputs": not static.controller, "decoded_behavior": "decoder" not in weights}
    return tuple(name for name in names if not lacks.get(name))


def split_key(key: jax.Array, evaluation: Array | bool) -> jax.Array:
    """The key of the evaluation trials, or of the training trials, from the posterior key of a model."""
    return jnp.where(evaluation, key, jax.random.fold_in(key, 1))


def posterior_mean(
    model: Fitted,
    trials: Trials,
    n: int,
    key: jax.Array,
    names: tuple[Inferred, ...],
) -> dict[str, Float[Array, "trial ..."]]:
    """The posterior means (trial, time, ...) of the first n trials by name; `initial_conditions` is (trial, state).

    key: of the split, from `split_key`.
    """
    # Whole minibatches, the last one padded by repeating a trial: the batch size is part of the draws.
    size = model.static.batch_size
    n_batches = -(-n // size)
    index = jnp.minimum(jnp.arange(n_batches * size), n - 1).reshape(n_batches, size)

    def one(now: tuple[Array, Array]) -> dict[str, Array]:
        number, rows = now
        batch = gather(model.static, model.dataset, trials, rows)
        return posterior(model, batch, jax.random.fold_in(key, number), Asked(names))

    means = lax.map(one, (jnp.arange(n_batches), index))
    return {name: v.reshape(index.size, *v.shape[2:])[:n] for name, v in means.items()}


def posterior(
    model: Fitted, batch: Batch, key: jax.Array, asked: Asked
) -> dict[str, Float[Array, "trial ..."]]:
    """Infer what is asked of the trials of a batch, by `n_samples` draws: name -> (trial, time, ...).

    Inferred inputs have a mean and a variance given each draw. Their posterior mean is the average of these means, their
    variance the average of these variances plus the variance of these means. Initial conditions are (trial, state), with
    the moments of their posterior. Samples are (trial, sample, ...).
    """
    static, floor, _, weights = model
    n = static.n_samples
    # Rates do not need log x!.
    batch = batch._replace(log_factorial=None)
    # The barriers keep XLA from merging the arithmetic of a draw with what surrounds it, which would round some of its
    # exponentials otherwise: the bits must not depend on who asks, or for what.
    weights, batch, key = lax.optimization_barrier((weights, batch, key))
    encoded = lax.optimization_barrier(
        encode(static, weights, batch.seen, len(batch.data), floor, draw_noise(static, key, batch))
    )

    def draw(k: Array) -> dict[str, Array]:
        noise = draw_noise(static, jax.random.fold_in(key, k), batch)
        made = decode(static, weights, encoded, batch.external, floor, noise)
        values = lax.optimization_barrier(_values(static, encoded, made, noise))
        if "decoder" in weights:
            w, b = weights["decoder"]["w"], weights["decoder"]["b"]
            values["decoded_behavior"] = values["factors"] @ w.T + b
        return values

    def add(k: Array, so_far: _Sums) -> _Sums:
        return _add(so_far, k, draw(k))

    # Shapes of the sums are found without computing a draw.
    zeros = lambda v: jnp.zeros(v.shape, v.dtype)
    start = jax.tree.map(zeros, jax.eval_shape(lambda: _sums(draw(jnp.zeros((), int)), n, asked)))
    sums = lax.fori_loop(0, n, add, start)
    averaged: list[str] = [name for name in asked.means if name in AVERAGED]
    found = {name: (sums.total[name] / n).swapaxes(0, 1) for name in averaged}
    found["initial_conditions"] = encoded.ic_mean
    if asked.spread:
        variance = {name: sums.squares[name] / max(n - 1, 1) for name in averaged}
        if "inferred_inputs" in variance:
            # The law of total variance: the mean variance given a draw is added to the variance of the means.
            variance["inferred_inputs"] += sums.total["input_variance"] / n
        found |= {f"{name}_sd": jnp.sqrt(v).swapaxes(0, 1) for name, v in variance.items()}
        found["initial_conditions_sd"] = jnp.sqrt(encoded.ic_variance)
    for name, kept in sums.samples.items():  # (sample, time, trial, ...), or (sample, trial, state)
        found[f"{name}_samples"] = jnp.moveaxis(kept, kept.ndim - 2, 0)
    return found


def _values(static: View[Model], encoded: Encoded, made: Decoded, noise: Noise) -> dict[str, Array]:
    """The quantities of one draw; `drawn_NAME` is a draw of a quantity whose NAME is the mean given the draw."""
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
    """Sums over the draws so far: name -> array."""

    total: dict[str, Array]
    squares: dict[str, Array]
    """Sums of squares about the mean."""
    samples: dict[str, Array]
    """(sample, ...), the draws themselves."""


def _sums(values: dict[str, Array], n_draws: int, asked: Asked) -> _Sums:
    """Sums of the shapes that the values of a draw need."""
    means: dict[str, Array] = {n: values[n] for n in asked.means if n in AVERAGED}
    further = asked.spread and "inferred_inputs" in means
    return _Sums(
        means | ({"input_variance": values["input_variance"]} if further else {}),
        means if asked.spread else {},
        {name: jnp.stack([_drawn(values, name)] * n_draws) for name in asked.samples},
    )


def _drawn(values: dict[str, Array], name: str) -> Array:
    return values.get(f"drawn_{name}", values.get(name))  # type: ignore[return-value]


def _add(so_far: _Sums, k: Array, values: dict[str, Array]) -> _Sums:
    """Add draw number k, counted from 0."""
    total = {name: so_far.total[name] + values[name] for name in so_far.total}
    squares = {}
    for name, before in so_far.squares.items():
        # Youngs & Cramer 1971: sums of squares about the running mean, without the cancellation of E x^2 - (E x)^2.
        count = (k + 1).astype(before.dtype)
        step = (count * values[name] - total[name]) ** 2 / jnp.maximum(count * (count - 1), 1)
        squares[name] = before + step
    samples = {name: kept.at[k].set(_drawn(values, name)) for name, kept in so_far.samples.items()}
    return _Sums(total, squares, samples)
