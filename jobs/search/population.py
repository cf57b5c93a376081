"""Population-based training: who copies whom, and where the copied parameters move.

A parameter has a position x in [0, 1] in its range: linear for `uniform`, in the logarithm for
`loguniform`. It moves by u ~ U(-perturb, perturb), reflected at the ends: as likely up as down, so that
without selection it drifts nowhere. (A factor 1 + u drifts down: the mean of its logarithm is negative.)

Member i draws in generation g from the generator [seed, SALT, g, i]: nothing depends on how many members
there are on which device.
"""

import math
import zlib
from collections.abc import Mapping

import numpy as np

from jobs.spec.search import Population, bounds
from jobs.spec.sweep import Interval, Loguniform

SALT = zlib.crc32(b"search")
"""Keeps these draws apart from those of the sweep."""


def generator(seed: int, generation: int, item: int) -> np.random.Generator:
    """Where the draws of one member after one generation come from."""
    return np.random.default_rng([seed, SALT, generation, item])


def parents(
    search: Population,
    rngs: list[np.random.Generator],
    loss: np.ndarray,
    done: np.ndarray,
    blocks: np.ndarray,
) -> np.ndarray:
    """(n,) the row whose state each member goes on from; its own where it copies nobody.

    loss: (n,) less is better, NaN where a member is broken. done: (n,) which have finished: there is
    nothing to go on from. blocks: (n,) which population each belongs to.
    """
    found = np.arange(len(loss))
    choose = tournament if search.exploit == "tournament" else truncation
    for block in np.unique(blocks):
        members = np.flatnonzero(blocks == block)
        here = choose([rngs[k] for k in members], loss[members], done[members], search.fraction)
        found[members] = members[here]
    return found


def tournament(
    rngs: list[np.random.Generator], loss: np.ndarray, done: np.ndarray, fraction: float
) -> np.ndarray:
    """Every member meets one of the others, drawn from those that can be copied; it copies a better
    one, and any if it is broken itself."""
    del fraction
    found = np.arange(len(loss))
    for i, rng in enumerate(rngs):
        draw = rng.random()
        others = np.flatnonzero(~np.isnan(loss) & ~done & (np.arange(len(loss)) != i))
        if len(others):
            j = others[int(draw * len(others))]
            if np.isnan(loss[i]) or loss[j] < loss[i]:
                found[i] = j
    return found


def truncation(
    rngs: list[np.random.Generator], loss: np.ndarray, done: np.ndarray, fraction: float
) -> np.ndarray:
    """The worst `fraction` and all that are broken copy members drawn from the best `fraction`."""
    found = np.arange(len(loss))
    n = max(1, int(fraction * len(loss)))
    order = np.argsort(loss, kind="stable")  # NaN, the broken ones, last
    best = order[:n][~np.isnan(loss[order[:n]]) & ~done[order[:n]]]
    worst = {*order[max(n, len(loss) - n) :], *np.flatnonzero(np.isnan(loss))}
    for i, rng in enumerate(rngs):
        draw = rng.random()
        if i in worst and len(best):
            found[i] = best[int(draw * len(best))]
    return found


def moved(
    search: Population, rng: np.random.Generator, values: Mapping[str, float]
) -> dict[str, float]:
    """The parameters of a member that has just copied `values`."""
    found = {}
    for name, law in search.params.items():
        again, u = rng.random(2)
        if again < search.resample:
            x = u
        else:
            x = abs(position(law, values[name]) + search.perturb * (2 * u - 1))
            x = 2 - x if x > 1 else x
        found[name] = value_at(law, x)
    return found


def position(law: Interval, value: float) -> float:
    """Where a value lies in its range: 0 at its low end, 1 at its high end."""
    low, high = bounds(law)
    if isinstance(law, Loguniform):
        return (math.log(value) - math.log(low)) / (math.log(high) - math.log(low))
    return (value - low) / (high - low)


def value_at(law: Interval, x: float) -> float:
    """The inverse of `position`, never outside the range."""
    low, high = bounds(law)
    if isinstance(law, Loguniform):
        value = math.exp(math.log(low) + x * (math.log(high) - math.log(low)))
    else:
        value = low + x * (high - low)
    return min(max(value, low), high)
