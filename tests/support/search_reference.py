"""Searches of `hill.py` written again: one item at a time, in NumPy."""

import math
import zlib
from functools import cache, partial

import jax
import numpy as np
from search_jobs import RATE, results


@partial(jax.jit, static_argnums=2)
def _drawn(seed, item, steps):
    key = jax.random.fold_in(jax.random.key(seed), item)
    noise = lambda step: jax.random.normal(jax.random.fold_in(key, step), (3,), np.float64)
    start = jax.random.uniform(key, (3,), np.float64)
    return start, jax.vmap(noise)(np.arange(steps, dtype=np.uint32))


@cache
def draws(seed, item, steps):
    """Where an item of `hill.py` starts, and the noise of each of its steps; by one program, not one for each draw."""
    with jax.enable_x64(True):
        return [np.asarray(one) for one in _drawn(seed, item, steps)]


class Member:
    """An item of `hill.py`: everything but its random draws is NumPy in float64."""

    def __init__(self, item, rate, noise=0.05, end=60, seed=5):
        self.item, self.rate, self.noise, self.end = item, float(rate), noise, end
        start, self.draws = draws(seed, item, end)
        self.x = 1 + start
        self.step = self.advances = 0
        self.parents, self.rates, self.metrics = [item], [self.rate], []

    def advance(self, n):
        while n and not self.finished:
            noise = self.noise * self.draws[self.step]
            self.x = self.x - self.rate * np.array([1, 2, 3]) * self.x + noise
            self.step, self.advances, n = self.step + 1, self.advances + 1, n - 1

    @property
    def finished(self):
        return self.step >= self.end or self.diverged

    @property
    def diverged(self):
        return np.abs(self.x).max() > 100

    @property
    def loss(self):
        return float(np.sum(np.array([1, 2, 3]) * self.x**2))


def still(members, fails, lap):
    return [m for m in members if (fails or {}).get(m.item, lap + 1) > lap]


def halve(members, first, eta, n_rungs, fails=None):
    """Successive halving by sorted lists: who left, and at which rung (counted from 0).

    fails: item -> the lap in which it fails with an error. From then on the others are compared as if it had never
    been there; what it has outdone before that stays so.
    """
    left, here, age = {}, list(members), 0
    for rung in range(n_rungs):
        here, members = still(here, fails, rung), still(members, fails, rung)
        for member in here:
            member.advance(first * eta**rung - age)
            member.metrics.append(member.loss)
        age = first * eta**rung
        here.sort(key=lambda m: (m.diverged, m.loss))
        quota = max(1, len(members) // eta ** (rung + 1))
        for member in here[quota:]:
            left[member.item] = rung
        here = here[:quota]
    for member in here:
        member.advance(10**6)
    return left


def train_population(
    members,
    every,
    generations,
    exploit,
    perturb,
    burn_in=None,
    patience=None,
    fails=None,
):
    """Population-based training as a loop over members, one generation after another.

    patience: (generations, least improvement) after which it ends early. fails: item -> the generation in which it
    fails with an error; it is neither compared nor copied from then on.
    """
    low, high = (math.log(end) for end in RATE["loguniform"])
    bests = []
    for g in range(generations):
        last = g == generations - 1
        members = still(members, fails, g)
        for m in members:
            m.advance(10**6 if last else burn_in if burn_in and g == 0 else every)
            m.metrics.append(m.loss)
        if last:
            return
        bests.append(min(m.loss for m in members if not m.diverged))
        if patience and len(bests) >= patience[0]:
            recent = bests[-patience[0] :]
            if (recent[0] - min(recent)) / np.mean(recent) <= patience[1]:
                return
        before = [(m.x, m.step, m.rate, m.item, m.loss, m.diverged, m.finished) for m in members]
        ranked = sorted(range(len(members)), key=lambda k: (before[k][5], before[k][4]))
        n = max(1, int(0.2 * len(members)))
        rng = np.random.default_rng([5, zlib.crc32(b"search"), g, members[0].item])
        # A row for each item, also for those that failed: a member's draws depend on no other's fate.
        table = rng.random((members[-1].item - members[0].item + 1, 3))
        for k, m in enumerate(members):
            u, _, v = table[m.item - members[0].item]
            if exploit == "tournament":
                others = [j for j in range(len(members)) if j != k and not before[j][6]]
                j = others[int(u * len(others))]
                wins = before[k][5] or before[j][4] < before[k][4]
            else:
                best = [j for j in ranked[:n] if not before[j][6]]
                j = best[int(u * len(best))]
                wins = before[k][5] or k in ranked[-n:]
            if wins:
                m.x, m.step, m.rate = before[j][:3]
                place = (math.log(m.rate) - low) / (high - low) + perturb * (2 * v - 1)
                place = -place if place < 0 else 2 - place if place > 1 else place
                m.rate = math.exp(low + place * (high - low))
            m.parents.append(before[j][3] if wins else m.item)
            m.rates.append(m.rate)


def members_of(store, **more):
    items = results(store)
    rates = store.rows(0, "rate", 0, 10**6)
    return [Member(k, rates[k], **more) for k in range(len(items["status"]))]
