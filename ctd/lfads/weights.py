"""The weights of an LFADS model: how they are drawn, and as the one vector over which the optimiser steps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ctd.kernel import Values, View
from ctd.late import Array, Float, Number, PyTree, jax, jnp, lax
from ctd.lfads.params import Model

type Tree = PyTree
"""Weights: part -> name -> array. Parts: encoder_forward, encoder_backward, ic, generator, output, ic_prior; with a controller,
controller, inputs, input_prior; of several sessions, readin and readout in place of output."""


def init_weights(
    static: View[Model],
    traced: Values[Model],
    key: jax.Array,
    n_encoded: int,
    n_external: int,
    bias: Float[Array, "output"],
) -> Tree:
    """Draw weights N(0, 1 / fan-in), as `ctd.cells` does; the priors start at the moments given in `traced`.

    n_encoded: units, or factors of a read-in, that the encoders see. n_external: external inputs. bias: first bias of the
    output layer, from `first_outputs`, so that training starts at flat rates.
    """
    dtype, n = static.dtype, static.generator
    n_inferred = static.n_inputs if static.controller else 0
    shapes = _drawn_shapes(static, n_encoded, n_inferred, n_external, len(bias))
    weights: dict[str, dict[str, jax.Array]] = {}
    for (part, name), value in _draw(shapes, key, dtype).items():
        weights.setdefault(part, {})[name] = value
    # Biases start at 0, but for that of the output.
    zeros = lambda size: jnp.zeros(size, dtype)
    for cell in ("encoder_forward", "encoder_backward", "generator", "controller"):
        if "wCHX" in weights.get(cell, ()):
            rows = len(weights[cell]["wCHX"])
            weights[cell] |= {"bRU": zeros(2 * rows), "bC": zeros(rows)}
            # The generator's initial state is inferred for each trial; the other cells learn one for all.
            if cell != "generator":
                weights[cell]["h0"] = zeros(rows)
    if static.generator_cell == "node":
        weights["generator"] |= {"bF": zeros(static.field_units), "bV": zeros(n)}
    if static.readout == "states":
        weights["generator"]["wO"] = jnp.eye(n, dtype=dtype)
    weights["ic"]["b"] = zeros(2 * n)
    weights["output"]["b"] = bias
    weights["ic_prior"] = _prior(n, traced.ic_prior_variance, dtype)
    if static.controller:
        weights["inputs"]["b"] = zeros(2 * n_inferred)
        prior = _prior(n_inferred, traced.input_prior_variance, dtype)
        if static.input_prior == "ar1":
            # Logarithms keep tau and variances positive under any step of Adam.
            prior["log_tau"] = jnp.full(n_inferred, jnp.log(traced.input_prior_tau), dtype)
        weights["input_prior"] = prior
    return weights


Blocks = dict[tuple[str, str], list[tuple[int, int]]]
"""(part, name) -> shapes of the blocks that stand side by side in this matrix; each has its own fan-in."""


def _drawn_shapes(
    static: View[Model], n_encoded: int, n_inferred: int, n_external: int, n_output: int
) -> Blocks:
    """The shapes of all matrices that are drawn."""
    n, n_in = static.generator, n_inferred + n_external
    if static.generator_cell == "gru":
        generator = _gru_shapes("generator", n, n_in)
    else:
        field: Blocks = {
            ("generator", "wFHX"): [(static.field_units, n), (static.field_units, n_in)]
        }
        generator = field | {("generator", "wV"): [(n, static.field_units)]}
    shapes = {
        **_gru_shapes("encoder_forward", static.encoder, n_encoded),
        **_gru_shapes("encoder_backward", static.encoder, n_encoded),
        # Mean and log variance of g_0, from the last states of both encoders.
        ("ic", "w"): [(2 * n, 2 * static.encoder)],
        **generator,
        ("generator", "wO"): [(static.n_factors, n)],
        ("output", "w"): [(n_output, static.n_factors)],
    }
    if static.controller:
        n_in = 2 * static.encoder + static.n_factors
        shapes |= _gru_shapes("controller", static.controller, n_in)
        # Mean and log variance of each inferred input.
        shapes |= {("inputs", "w"): [(2 * n_inferred, static.controller)]}
    return shapes


def _gru_shapes(name: str, n: int, n_in: int) -> Blocks:
    """The shapes of the two blocks of each matrix of a GRU: for the state, for the input."""
    return {(name, "wRUHX"): [(2 * n, n), (2 * n, n_in)], (name, "wCHX"): [(n, n), (n, n_in)]}


def _draw(
    shapes: Blocks, key: jax.Array, dtype: jax.typing.DTypeLike
) -> dict[tuple[str, str], Array]:
    """Blocks of N(0, 1 / columns), side by side. All come from one draw: one for each would compile slowly."""
    flat = [shape for blocks in shapes.values() for shape in blocks]
    matrices = iter(cut(jax.random.normal(key, (entries(flat),), dtype), flat))
    scaled = lambda columns: next(matrices) * max(columns, 1) ** -0.5
    return {
        name: jnp.concatenate([scaled(columns) for _, columns in blocks], axis=1)
        for name, blocks in shapes.items()
    }


def entries(shapes: Sequence[tuple[int, ...]]) -> int:
    """The total number of entries of arrays of these shapes.

    >>> entries([(2, 3), (4,)])
    10
    """
    return sum(map(math.prod, shapes))


def cut(vector: Float[Array, "entry"], shapes: Sequence[tuple[int, ...]]) -> list[Array]:
    """Cut a vector into arrays of these shapes, in order.

    >>> [part.shape for part in cut(jnp.arange(7.0), [(2, 3), (1,)])]
    [(2, 3), (1,)]
    """
    # Sizes are static, so this is a slice for each part and no gather.
    stops = np.cumsum([math.prod(shape) for shape in shapes])
    parts = jnp.split(vector, stops[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def _prior(n: int, variance: Number, dtype: jax.typing.DTypeLike) -> Tree:
    return {"mean": jnp.zeros(n, dtype), "log_variance": jnp.full(n, jnp.log(variance), dtype)}


def flatten(weights: Tree) -> Float[Array, "entry"]:
    """All weights as one vector, over which the optimiser makes one pass; parts in alphabetical order.

    >>> flatten({"ic": {"w": jnp.ones((1, 2)), "b": jnp.zeros(1)}})
    Array([0., 1., 1.], dtype=float32)
    """
    return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(weights)])


def unflatten(vector: Float[Array, "entry"], template: Tree) -> Tree:
    """Undo `flatten`. template: weights of the same shapes, or their shapes and dtypes alone.

    >>> weights = {"ic": {"w": jnp.ones((2, 3)), "b": jnp.zeros(2)}}
    >>> bool((unflatten(flatten(weights), weights)["ic"]["w"] == 1).all())
    True
    """
    leaves, tree = jax.tree.flatten(template)
    return jax.tree.unflatten(tree, cut(vector, [leaf.shape for leaf in leaves]))


def factor_weights(generator: Tree) -> Float[Array, "factor state"]:
    """The readout of factors, with rows of norm 1, so that factors have the scale of states.

    >>> factor_weights({"wO": jnp.array([[3.0, 4.0]])}).round(3)
    Array([[0.6, 0.8]], dtype=float32)
    """
    w = generator["wO"]
    # The small constant keeps the gradient finite at a row of zeros.
    unit: Array = w * lax.rsqrt(jnp.sum(w**2, axis=1, keepdims=True) + 1e-12)
    return unit
