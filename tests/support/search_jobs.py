"""Jobs with a search, the same searches in NumPy, a driver without a store, and a further method."""

import atexit
import copy
import heapq
import math
import shutil
import tempfile
import zlib
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from pydantic import PositiveInt
from stores import run

from jobs.search.comparison import Rungs
from jobs.search.method import Sized
from jobs.search.searcher import InStep, Round, RoundReport, SearchedItems
from jobs.storage import objects

RATE = {"loguniform": [1e-3, 0.9]}


HALVING = {
    "kernel": "hill",
    "seed": 5,
    "params": {"dtype": "float64", "noise": 0.05, "steps": 60},
    "sweep": {"random": {"rate": RATE}, "samples": 27},
    "search": {"method": "halving", "metric": "loss", "min_advances": 2, "eta": 3},
    "run": {"microbatch": 2, "slots": 4, "checkpoint_s": 0, "backoff_s": 0.0},
}


POPULATION = HALVING | {
    "sweep": {"random": {"rate": RATE}, "samples": 8},
    "search": {
        "method": "population", "metric": "loss", "every": 3, "generations": 9,
        "params": {"rate": RATE},
    },
}  # fmt: skip

ROUNDS, DECISIONS = "run/rounds", "run/decisions"


def changed(job, path, value):
    """A copy of a job with the field at `a.b` replaced, or taken out where the value is None."""
    job = copy.deepcopy(job)
    *parents, last = path.split(".")
    here = job
    for name in parents:
        here = here.setdefault(name, {})
    here[last] = value
    return job if value is not None else {k: v for k, v in job.items() if k != path}


SHORT = changed(POPULATION, "search.generations", 6)

JOBS = {
    "halving": HALVING,
    "tournament": SHORT,
    "truncation": changed(SHORT, "search.exploit", "truncation"),
}


def cut(job, n):
    """The job in shards and rounds of at most n items."""
    return changed(job, "run.shard_items", n)


def in_rounds(name):
    """A job of JOBS whose first lap has seven rounds, or each has four."""
    return cut(JOBS[name], 4 if name == "halving" else 2)


@cache
def whole_store(name):
    """The finished store of a job of JOBS in one shard, each lap of which is one round."""
    folder = Path(tempfile.mkdtemp(prefix="rounds-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return run(folder / f"{name}.zarr", cut(JOBS[name], 27))[0]


def results(store, group=0):
    return {name: store.rows(group, name, 0, 10**6) for name in [*store.names(group), "status"]}


def left(store, folder=ROUNDS):
    return list(objects.list_keys(store.objects, folder))


def same(store, whole):
    """Every number of every item, and nothing left behind."""
    assert store.job.plan.group_sizes == whole.job.plan.group_sizes
    for group in range(len(store.job.plan.group_sizes)):
        a, b = results(store, group), results(whole, group)
        assert a.keys() == b.keys()
        for name in a:
            assert a[name].tobytes() == b[name].tobytes(), name
    assert left(store) + left(store, "run/checkpoints") == []


# --- the searches of `hill.py` written again: one item at a time, in NumPy ----------------------


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


# --- a driver of searchers without a store ------------------------------------------------------


def searcher_of(search, seed, ids, starts=None, variants=({},)):
    """The searcher of these items. starts: searched field -> (n,) its first values."""
    return search.searcher(SearchedItems(ids, seed, (starts or {}).__getitem__, variants))


@dataclass
class Played:
    """What was asked and told, in this order: calls of a searcher's methods, to be made again."""

    calls: list = field(default_factory=list)

    @property
    def rounds(self):
        return [value for name, value in self.calls if name == "ask"]


def play(searcher, work, workers=1, most=1):
    """Drive a search to its end. work: (number, Round) -> (seconds, RoundReport)."""
    played, busy, now = Played(), [], 0.0
    held = np.zeros(searcher.n, bool)
    while not searcher.ended.all():
        while len(busy) < workers and (asked := searcher.ask(most)) is not None:
            number = len(played.rounds)
            played.calls.append(("ask", asked))
            assert 0 < len(asked.rows) <= most
            assert (np.diff(asked.rows) > 0).all()
            assert not held[asked.rows].any(), "an item is in two rounds at a time"
            held[asked.rows] = True
            seconds, told = work(number, asked)
            heapq.heappush(busy, (now + seconds, number, asked, told))
        assert busy, "nothing runs, nothing is ready, and the search is not over"
        now, number, asked, told = heapq.heappop(busy)
        held[asked.rows] = False
        played.calls += [("tell", (number, told)), ("decide", None)]
        searcher.tell(number, told)
        searcher.decide()
    return played


def play_again(searcher, played, most):
    """Make the calls of a search once more; return its rounds."""
    rounds = []
    for name, value in played.calls:
        if name == "ask":
            rounds.append(searcher.ask(most))
        elif name == "tell":
            searcher.tell(*value)
        else:
            searcher.decide()
    return rounds


def same_round(a: Round, b: Round):
    """Whether two rounds are the same to the bit."""
    arrays = lambda r: [r.rows, r.rounds, r.parents, np.int64(r.length), *r.values.values()]
    return list(a.values) == list(b.values) and all(
        x.tobytes() == y.tobytes() for x, y in zip(arrays(a), arrays(b), strict=True)
    )


class Items:
    """Items that count their advances: the states that rounds keep, and reports of rounds.

    metric: (row, age) -> metric. end: row -> advances after which it finishes. broken: row -> age from which on its outcome is
    a failure of the kernel, which ends it. failing: row -> rounds that it makes before one fails with an error.
    """

    def __init__(self, metric, end, broken=None, failing=None):
        self.metric, self.end = metric, end
        self.broken, self.failing = broken or {}, failing or {}
        self.states, self.made = {}, {}

    def report(self, number, asked):
        """The report of a round."""
        reports, failed = [], []
        for row, begun, parent in zip(
            asked.rows.tolist(), asked.rounds.tolist(), asked.parents.tolist(), strict=True
        ):
            if self.made.setdefault(row, 0) == self.failing.get(row, -1):
                failed.append(row)
                continue
            self.made[row] += 1
            before = self.states[begun, parent] if begun >= 0 else 0
            end = min(self.end(row), max(before + 1, self.broken.get(row, 2**40)))
            age = min(before + asked.length, end)
            self.states[number, row] = age
            is_broken = age >= self.broken.get(row, 2**40)
            reports.append((row, self.metric(row, age), age - before, age >= end, is_broken))
        columns = list(zip(*reports, strict=True)) or [[]] * 5
        kinds = (np.int64, np.float64, np.int64, bool, bool)
        arrays = (np.array(c, kind) for c, kind in zip(columns, kinds, strict=True))
        return RoundReport(*arrays, tuple(failed))


# --- a further method of search -----------------------------------------------------------------


class BetterHalf(Sized):
    """Compares once; the worse half of the items keeps its results so far."""

    method: Literal["better_half"]
    after: PositiveInt
    """advances before the comparison"""

    @property
    def rungs(self):
        return Rungs(eta=2, min_advances=self.after)

    @property
    def length_field(self):
        return "after"

    def _all_ends(self, size):
        return [self.after]

    def describe(self, size, advances=0):
        return f"the better half of {size} goes on after {self.after} advances"

    def searcher(self, items):
        return BetterHalfSearcher(self, items)


class BetterHalfSearcher(InStep):
    def select(self, rows, lap):
        return self.loss[rows] <= np.nanmedian(self.loss[rows])
