"""The posterior of trials: many draws of initial conditions and inputs, and their moments.

The draws of a trial depend on its number in its split, on the model's key and on `batch_size` alone, not on how many
trials are asked for. So the means of a trial have the same bits wherever one machine computes them.
"""

from __future__ import annotations

from typing import Literal

from ctd.kernel import View
from ctd.late import Array, Float, jax, jnp, lax
from ctd.lfads.data import Trials
from ctd.lfads.distributions import data_mean
from ctd.lfads.loss import Batch, chunks, draw_noise, gather
from ctd.lfads.model import Encoded, Fitted, decode, encode
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
    model: Fitted, trials: Trials, n: int, key: jax.Array, names: tuple[Inferred, ...]
) -> dict[str, Float[Array, "trial ..."]]:
    """The posterior means (trial, time, ...) of the first n trials by name; `initial_conditions` is (trial, state).

    key: of the split, from `split_key`.
    """
    # Whole minibatches, however few the trials: the batch size is part of the draws.
    index, _ = chunks(n, model.static.batch_size)

    def chunk_means(now: tuple[Array, Array]) -> dict[str, Array]:
        number, rows = now
        batch = gather(model.static, model.dataset, trials, rows)
        return posterior(model, batch, jax.random.fold_in(key, number), names)

    means = lax.map(chunk_means, (jnp.arange(len(index)), index))
    return {name: v.reshape(index.size, *v.shape[2:])[:n] for name, v in means.items()}


def posterior(
    model: Fitted,
    batch: Batch,
    key: jax.Array,
    means: tuple[Inferred, ...],
    samples: tuple[Inferred, ...] = (),
    spread: bool = False,
) -> dict[str, Float[Array, "trial ..."]]:
    """Infer quantities of the trials of a batch by `n_samples` draws: name -> (trial, time, ...).

    means: quantities whose means are returned, as NAME, and with `spread` standard deviations, as NAME_sd; always those of initial
    conditions, (trial, state). samples: quantities of which all draws are returned, as NAME_samples (trial, sample, ...).
    """
    static, n = model.static, model.static.n_samples
    # Rates do not need log x!.
    batch = batch._replace(log_factorial=None)
    # The barriers keep XLA from merging the arithmetic of a draw with what surrounds it, which would round some of its
    # exponentials otherwise: the bits must not depend on who asks, or for what.
    weights, batch, key = lax.optimization_barrier((model.weights, batch, key))
    model = model._replace(weights=weights)
    noise = draw_noise(static, key, batch)
    encoded = lax.optimization_barrier(encode(model, batch.seen_data, len(batch.data), noise))

    averaged: list[str] = [name for name in means if name in AVERAGED]
    draw = lambda k: _draw(model, encoded, batch, jax.random.fold_in(key, k))

    def add(sums: Sums, k: Array) -> tuple[Sums, dict[str, Array]]:
        values = draw(k)
        keys = {name: f"drawn_{name}" if f"drawn_{name}" in values else name for name in samples}
        return _add(sums, k, values), {name: values[key] for name, key in keys.items()}

    # Shapes of the sums are found without computing a draw.
    shapes = jax.eval_shape(draw, jnp.zeros((), int))
    zeros = lambda names: {n: jnp.zeros(shapes[n].shape, shapes[n].dtype) for n in names}
    given_a_draw = ["input_variance"] if spread and "inferred_inputs" in averaged else []
    start = zeros(averaged + given_a_draw), zeros(averaged if spread else [])
    (total, squares), draws = lax.scan(add, start, jnp.arange(n))
    results = {name: total[name] / n for name in averaged} | _deviations(total, squares, n)
    results = {name: value.swapaxes(0, 1) for name, value in results.items()}
    results["initial_conditions"] = encoded.ic_mean
    if spread:
        results["initial_conditions_sd"] = jnp.sqrt(encoded.ic_variance)
    for name, array in draws.items():  # (sample, time, trial, ...), or (sample, trial, state)
        results[f"{name}_samples"] = jnp.moveaxis(array, array.ndim - 2, 0)
    return results


def _draw(model: Fitted, encoded: Encoded, batch: Batch, key: jax.Array) -> dict[str, Array]:
    """The quantities of one draw; `drawn_NAME` is a draw of a quantity whose NAME is the mean given the draw."""
    noise = draw_noise(model.static, key, batch)
    decoded, output = decode(model, encoded, batch.external, noise)
    values = lax.optimization_barrier(
        {
            "rates": data_mean(model.static.likelihood, output),
            "factors": decoded.factors,
            "inferred_inputs": decoded.input_mean,
            "states": decoded.states,
            "input_variance": decoded.input_variance,
            "drawn_inferred_inputs": decoded.input_mean
            + jnp.sqrt(decoded.input_variance) * noise.inputs,
            "drawn_initial_conditions": encoded.ic_mean + jnp.sqrt(encoded.ic_variance) * noise.ic,
        }
    )
    if (decoder := model.weights.get("decoder")) is not None:
        values["decoded_behavior"] = values["factors"] @ decoder["w"].T + decoder["b"]
    return values


type Sums = tuple[dict[str, Array], dict[str, Array]]
"""Over the draws so far: sums by name, sums of squares about the mean by name."""


def _add(so_far: Sums, k: Array, values: dict[str, Array]) -> Sums:
    """Add draw number k, counted from 0."""
    total = {name: before + values[name] for name, before in so_far[0].items()}
    squares = {}
    for name, before in so_far[1].items():
        # Youngs & Cramer 1971: sums of squares about the running mean, without the cancellation of E x^2 - (E x)^2.
        count = (k + 1).astype(before.dtype)
        step = (count * values[name] - total[name]) ** 2 / jnp.maximum(count * (count - 1), 1)
        squares[name] = before + step
    return total, squares


def _deviations(
    total: dict[str, Array], squares: dict[str, Array], n: int
) -> dict[str, Float[Array, "time trial ..."]]:
    """The standard deviations, as NAME_sd, of quantities from their sums over n draws; NaN of a single one."""
    variance = {name: value / (n - 1 if n > 1 else jnp.nan) for name, value in squares.items()}
    if "input_variance" in total:
        # The law of total variance: the mean variance given a draw is added to the variance of the means.
        between = variance["inferred_inputs"] if n > 1 else 0
        variance["inferred_inputs"] = between + total["input_variance"] / n
    return {f"{name}_sd": jnp.sqrt(v) for name, v in variance.items()}
