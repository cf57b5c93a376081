"""A driver of searchers without a store: workers that take their time, and the rounds that they were given."""

import heapq
from dataclasses import dataclass, field

import numpy as np

from jobs.search.searcher import Round, RoundReport, SearchedItems


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


def same(a: Round, b: Round):
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
