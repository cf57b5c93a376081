"""Population-based training: which member copies which, and where the copied parameters move.

A parameter has a position x in [0, 1] in its range: linear for `uniform`, in the logarithm for `loguniform`. It
moves by u ~ U(-perturb, perturb), with its own `perturb` or else the search's, reflected at the ends: as likely up as down, so without selection it drifts
nowhere. (A factor 1 + u would drift down: the mean of its logarithm is negative.)

In generation g, member i draws from the generator [seed, SALT, g, i]: nothing depends on which device has which
members.
"""

import math
import zlib
from collections.abc import Mapping

import numpy as np

from jobs.spec.search import Moved, Population, bounds
from jobs.spec.sweep import Loguniform

SALT = zlib.crc32(b"search")
"""Keeps these draws apart from those of the sweep."""


def generator(seed: int, generation: int, item: int) -> np.random.Generator:
    """Return the random generator of one member after one generation."""
    return np.random.default_rng([seed, SALT, generation, item])


def parents(
    search: Population,
    rngs: list[np.random.Generator],
    loss: np.ndarray,
    done: np.ndarray,
    blocks: np.ndarray,
) -> np.ndarray:
    """Return (n,) the row whose state each member goes on from; its own if it copies nobody.

    rngs: one per member. loss: (n,) less is better, NaN where a member is broken. done: (n,) which have
    finished: nobody can go on from them. blocks: (n,) which population each belongs to.
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
    """Return (n,) rows, as `parents` does, for one population.

    Each member draws one of the others that can be copied. It copies that one if it is better, or if it is
    broken itself.
    """
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
    """Return (n,) rows, as `parents` does, for one population.

    The worst `fraction` and all broken members copy members drawn from the best `fraction`.
    """
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
    """Return the parameters of a member that has just copied `values`: moved, or drawn anew."""
    found = {}
    for name, law in search.params.items():
        again, u = rng.random(2)
        if again < search.resample:
            x = u
        else:
            most = search.perturb if law.perturb is None else law.perturb
            x = abs(position(law, values[name]) + most * (2 * u - 1))
            x = 2 - x if x > 1 else x
        found[name] = value_at(law, x)
    return found


def position(law: Moved, value: float) -> float:
    """Return where a value lies in its range: 0 at the low end, 1 at the high end."""
    low, high = bounds(law)
    if isinstance(law, Loguniform):
        return (math.log(value) - math.log(low)) / (math.log(high) - math.log(low))
    return (value - low) / (high - low)


def value_at(law: Moved, x: float) -> float:
    """Return the value at position `x`, never outside the range; the inverse of `position`."""
    low, high = bounds(law)
    if isinstance(law, Loguniform):
        value = math.exp(math.log(low) + x * (math.log(high) - math.log(low)))
    else:
        value = low + x * (high - low)
    return min(max(value, low), high)
