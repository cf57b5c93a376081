"""Kernel: next-generation reservoir computing, ridge regression on polynomials of delayed samples, without units.

The features O(t) are the monomials, with the degrees in `degrees`, of the last `delays` samples, `spacing` steps apart. A
series without inputs is predicted from its own past, y(t + 1) = y(t) + C O(t), and the model then runs on its own outputs.
With inputs, the features are those of the inputs and y(t) = C O(t). This is a nonlinear vector autoregression (NVAR);
Gauthier, Bollt, Griffith & Barbosa 2021 (Nature Communications 12:5564).

    kernel: esn.nvar
    params: {target: lorenz, segments: 20}
    sweep: {grid: {ridge: {geomspace: [1e-8, 1e-2, 7]}, noise: [0, 1e-4], segment: {range: 20}}}

An item is one model. The series is cut into washout | segments x train. A model is trained on one segment, then validated
and tested on the samples after that segment.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations_with_replacement
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field, field_validator, model_validator

from ctd.cells import Weights
from ctd.esn.params import DIVERGED, DONE, ILL_CONDITIONED, TARGET_TEXT, OfSeries, Target
from ctd.esn.plots import plots
from ctd.esn.replay import REPLAYED, TRACES, Replay, compared, replay_time, scores, windows
from ctd.esn.series import Series, load_series
from ctd.esn.summary import SUMMARISED, Options, reduce, reduced_of
from ctd.kernel import (
    Batching,
    Coordinate,
    Data,
    Display,
    Outcome,
    Static,
    Tables,
    Traced,
    Values,
    Var,
    View,
    one_shot,
)
from ctd.late import Array, Float, jax, jnp, lax


class Polynomial(OfSeries):
    """The parameters of one model; lengths in samples. The defaults follow Gauthier et al. for the Lorenz system.

    >>> Polynomial(delays=3, spacing=2).washout
    200
    >>> Polynomial(degrees=(1, 1))
    Traceback (most recent call last):
        ...
    pydantic_core._pydantic_core.ValidationError: 1 validation error for Polynomial
      Value error, degrees: [1, 1]: whole numbers of 0 or more expected, each once ...
    """

    dtype: Static[Literal["float64"]] = "float64"
    target: Data[Target] = Field("lorenz", description=TARGET_TEXT)
    dt: Data[float] = Field(0.025, gt=0)
    """sampling interval"""
    m: Static[int] = Field(3, gt=0)
    """outputs"""

    delays: Static[int] = Field(2, gt=0)
    """samples that enter the features, the latest included"""
    spacing: Static[int] = Field(1, gt=0)
    """steps between two of these samples"""
    degrees: Static[tuple[int, ...]] = Field((0, 1, 2), min_length=1)
    """degrees of the monomials; 0: the constant"""
    washout: Static[int] = Field(200, ge=0)
    """samples before training"""
    train: Static[int] = Field(400, gt=0)
    """samples of one segment"""
    segments: Static[int] = Field(1, gt=0)
    """segments of the series; a model is trained on one of them"""
    test: Static[int] = Field(44, gt=0)
    """test samples, after validation"""
    record: Static[tuple[Literal["traces"], ...]] = ()
    """further results to store. traces: the first replay and its target; weights are always stored"""

    segment: Traced[int] = Field(0, ge=0, lt=2**31)
    """number of the segment to train on, modulo `segments`"""
    ridge: Traced[float] = Field(2.5e-6, ge=0)
    """weight of the squared coefficients, including the constant's, beside the sum of squared errors over `train`"""
    noise: Traced[float] = Field(0.0, ge=0)
    """sd of the noise on the samples that the features are made of, in training"""

    @field_validator("record", mode="before")
    @classmethod
    def _has_weights(cls, record: object) -> object:
        if isinstance(record, list | tuple) and "weights" in record:
            raise ValueError("weights are always stored; leave weights out")
        return record

    @model_validator(mode="after")
    def _fits(self) -> Polynomial:
        back = (self.delays - 1) * self.spacing + 1
        if self.washout < back:
            raise ValueError(
                f"washout: {self.washout} given, but features reach back {back} samples; give a washout of {back} or more"
            )
        if min(self.degrees) < 0 or len(set(self.degrees)) < len(self.degrees):
            raise ValueError(
                f"degrees: {list(self.degrees)}: whole numbers of 0 or more expected, each once"
            )
        return self


MOST = 20_000
"""Most features of a model: the QR factor of so many takes minutes and 3 GB."""

FAR = 100
"""A replay has diverged if its NRMSE is above this: float64 holds what grows for long, and one such error hides all others."""

OUTCOMES = (
    Outcome("done", "fitted and replayed"),
    Outcome(
        "diverged",
        f"the replay's NRMSE is above {FAR}, or not finite; try more ridge or noise",
        failed=True,
    ),
    Outcome("ill_conditioned", "features are collinear up to rounding; use a larger ridge", True),
)

DIMS = {
    "outcome": Var((), "1", "how the item ended"),
    "train_nrmse": Var((), "1", "NRMSE over the segment: one sample ahead, or with inputs at the same sample"),
    **REPLAYED,
    **TRACES,
    "weights.coefficients": Var(("output", "feature"), "1", "C, the coefficients of the features"),
    "weights.monomials": Var(
        ("feature", "factor"), "1", "factors of each feature: 0 stands for 1, i for entry i of `h0`, counted from 1"
    ),
    "weights.h0": Var(("state",), "1", "the delayed samples before the test range, the latest first"),
}  # fmt: skip


def load(inputs: View[Polynomial]) -> Series:
    """Make or read the series. Raises ValueError if that fails or the features are too many."""
    length = inputs.washout + inputs.segments * inputs.train + inputs.validation + inputs.test
    series = load_series(inputs, length)
    n_delayed = inputs.delays * _samples(series).shape[1]
    # Multisets: the number of monomials of one degree in `n_delayed` variables.
    n = sum(math.comb(n_delayed + degree - 1, degree) for degree in inputs.degrees)
    if n > MOST:
        raise ValueError(
            f"degrees: {list(inputs.degrees)} of {n_delayed} delayed numbers give {n:,} features; at most {MOST:,} are possible"
        )
    return series


def _samples(shared: Series) -> Float[Array, "time k"]:
    """The series (t, k) behind the features: the inputs, or without any the targets."""
    return shared.inputs if shared.inputs.shape[1] else shared.targets


def factors(static: View[Polynomial], k: int) -> np.ndarray:
    """The monomials of k numbers per sample, as `weights.monomials`: int32 (feature, factor)."""
    lags = 1 + np.add.outer(np.arange(static.delays) * static.spacing * k, np.arange(k)).ravel()
    # Monomials of lower degree are filled up with factors 0, which stand for 1.
    most = max(static.degrees)
    rows = [
        (*some, *[0] * (most - degree))
        for degree in static.degrees
        for some in combinations_with_replacement(lags, degree)
    ]
    return np.array(rows, np.int32).reshape(-1, most)


def features(monomials: ArrayLike, h: Float[Array, "... state"]) -> Float[Array, "... feature"]:
    """Products (..., feature) of entries of h (..., state), as `monomials` (feature, factor) lists them.

    >>> features([[0, 0], [1, 0], [1, 2]], jnp.array([3.0, 5.0]))  # 1, h1, h1 h2
    Array([ 1.,  3., 15.], dtype=float32)
    """
    # Entry 0 is the constant 1, which fills the monomials of lower degree.
    constant = jnp.ones((*h.shape[:-1], 1), h.dtype)
    values, factor = jnp.concatenate([constant, h], axis=-1), jnp.asarray(monomials, jnp.int32)
    products = jnp.ones((*h.shape[:-1], len(factor)), h.dtype)
    for column in range(factor.shape[1]):
        products = products * values[..., factor[:, column]]
    return products


def step(
    weights: Mapping[str, ArrayLike], h: Float[Array, "state"], x: Array | None = None
) -> Float[Array, "state"]:
    """One step of a model without inputs, y(t + 1) = y(t) + C O(t).

    Kernels that take a network name it as `cell: ctd.esn.nvar.step`.

    Args:
        weights: coefficients (m, feature) and monomials (feature, factor) of an item.
        h: (state,) delayed samples, the latest first.
        x: ignored.

    Returns:
        (state,) the delayed samples one step later.

    >>> growth = {"coefficients": jnp.array([[0.5]]), "monomials": [[1]]}
    >>> step(growth, jnp.array([2.0, 7.0]))
    Array([3., 2.], dtype=float32)
    """
    del x
    change = jnp.asarray(weights["coefficients"]) @ features(weights["monomials"], h)
    m = len(change)
    # Shift the delay line by one sample: the oldest one falls out.
    return jnp.concatenate([h[:m] + change, h[:-m]])


def _state(static: View[Polynomial], x: Array, at: Array) -> Array:
    """The delayed samples (..., state) of x (t, k) up to each sample number in `at`, the latest first."""
    back = (static.delays - 1) * static.spacing + 1
    return x[at[..., None] - jnp.arange(back)].reshape(*at.shape, -1)


def fit(o: Array, f: Array, ridge: Array) -> tuple[Array, Array]:
    """Find C (m, p) that minimises |o C^T - f|^2 + ridge |C|^2, for features o (t, p) and targets f (t, m).

    A QR decomposition of o stacked on sqrt(ridge) I solves it. Monomials of a series span ten powers of ten, and the
    normal equations would square that range and lose half the digits.

    Returns:
        (C, () bool: whether the columns of o are independent up to rounding). If they are not, C is 0.

    >>> x = jnp.array([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]])
    >>> coefficients, independent = fit(x, x @ jnp.array([[1.0], [3.0]]), jnp.array(0.0))
    >>> coefficients.round().astype(int).tolist(), bool(independent)
    ([[1, 3]], True)
    """
    p = o.shape[1]
    q, r = jnp.linalg.qr(jnp.concatenate([o, jnp.sqrt(ridge) * jnp.eye(p, dtype=o.dtype)]))
    coefficients = jax.scipy.linalg.solve_triangular(r, q[: len(o)].T @ f)
    # |r_ii| is the distance of column i from the span of the columns before it.
    size = jnp.abs(jnp.diagonal(r))
    independent = size.min() > p * jnp.finfo(o.dtype).eps * size.max()
    return jnp.where(independent, coefficients, 0).T, independent


def _replay(
    static: View[Polynomial], shared: Series, weights: Weights, at: Array, length: int
) -> Replay:
    """Replay `length` samples from sample `at` on. With inputs nothing is fed back: the model computes its outputs there."""
    x, y = _samples(shared), jnp.asarray(shared.targets)
    window = at + windows(static, length)[1]

    def sample(h: Array, _: None) -> tuple[Array, Array]:
        h = step(weights, h)
        return h, h[: static.m]

    # With inputs, features are known at once; without, each step needs the outputs before it.
    if shared.inputs.shape[1]:
        z = features(weights["monomials"], _state(static, x, window)) @ weights["coefficients"].T
    else:
        run = lambda h: lax.scan(sample, h, length=window.shape[1])[1]
        z = jax.vmap(run)(_state(static, x, window[:, 0] - 1))
    return compared(static.valid_error, z, y[window], jnp.asarray(shared.variance))


def run(
    static: View[Polynomial], shared: Series, traced: Values[Polynomial], key: Array
) -> dict[str, Array]:
    """Fit one model to its segment, and replay the validation and test ranges after it."""
    shared = jax.tree.map(lambda leaf: jnp.asarray(leaf, static.dtype), shared)
    # Without inputs, features lie one sample before their target.
    x, ahead = _samples(shared), 0 if shared.inputs.shape[1] else 1
    at = static.washout + traced.segment % static.segments * static.train
    noisy = x + traced.noise * jax.random.normal(key, x.shape, x.dtype)
    when = at + jnp.arange(static.train)
    h = _state(static, noisy, when - ahead)
    monomials = factors(static, x.shape[1])
    o, f = features(monomials, h), shared.targets[when]
    # Regress on the increment y(t + 1) - y(t), from the noisy y(t) that the features see.
    f = f - h[:, : static.m] if ahead else f
    coefficients, independent = fit(o, f, traced.ridge)
    weights = {"coefficients": coefficients, "monomials": jnp.asarray(monomials)}
    at, validation = at + static.train, None
    if static.validation:
        validation = _replay(static, shared, weights, at, static.validation)
        at = at + static.validation
    test = _replay(static, shared, weights, at, static.test)
    values = scores(test, validation, shared.dt)
    near = jnp.where(test.nrmse <= FAR, DONE, DIVERGED)  # NaN is not
    outcome = jnp.where(independent, near, ILL_CONDITIONED).astype(jnp.int32)
    values = {name: jnp.where(outcome == DONE, value, jnp.nan) for name, value in values.items()}
    values |= {f"weights.{name}": value for name, value in weights.items()}
    values["train_nrmse"] = jnp.sqrt(jnp.mean((o @ coefficients.T - f) ** 2) / shared.variance)
    values |= {"outcome": outcome, "weights.h0": _state(static, x, at - 1)}
    if "traces" in static.record:
        values |= {"trace": test.outputs[0], "trace_target": test.targets[0]}
    return values


def coords(inputs: View[Polynomial], shared: Series) -> dict[str, Coordinate]:
    """The coordinate of stored replays."""
    del shared
    return {"time": replay_time(inputs)} if "traces" in inputs.record else {}


# The reduction of networks serves here too: it groups by ridge and noise, and `segment`, which is not among its
# fields, takes the place of the seed.
kernel = one_shot(
    "esn.nvar", Polynomial, DIMS, run,
    load=load, outcomes=OUTCOMES, coords=coords, tables=Tables(reduce=reduce, of_failed=True, dims=reduced_of(Polynomial), Options=Options),
    display=Display(
        summary=("ridge", "noise", *SUMMARISED), metric="replay_nrmse", chosen_by="validation_nrmse", replicates=("segment",),
        measured_on=("target", "dt", "m", "test"), plots=plots, png_plots=3,
    ),
    batching=Batching(microbatches=(0,), cpu_microbatches=(1,)),
)  # fmt: skip
