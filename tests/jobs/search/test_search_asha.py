"""Asynchronous successive halving: against Algorithm 2 of Li et al. (2020) written with lists, one at a time and in batches."""

import numpy as np
import pytest
from messages import refused
from search_jobs import Items, play, searcher_of

from jobs.errors import JobError
from jobs.search.asha import Asha
from jobs.search.halving import Halving


def searcher(n, eta=3, first=2, mode="min"):
    search = Asha(method="asha", metric="loss", min_advances=first, eta=eta, mode=mode)
    return searcher_of(search, 0, np.arange(n))


class Paper:
    """Algorithm 2: rungs as lists of (loss, arrival, item); `get_job` gives the best candidate of the highest rung."""

    def __init__(self, n, eta, n_rungs):
        self.eta, self.rungs = eta, [[] for _ in range(n_rungs)]
        self.promoted = [set() for _ in range(n_rungs)]
        self.new, self.arrivals = list(range(n)), 0

    def top(self, k):
        ranked = sorted(self.rungs[k], key=lambda entry: entry[:2])
        best = ranked[: len(ranked) // self.eta]
        return [i for loss, _, i in best if i not in self.promoted[k] and loss < np.inf]

    def get_jobs(self, most):
        """Items of one rung: the single job of the paper if most is 1."""
        for k in reversed(range(len(self.rungs))):
            if jobs := self.top(k)[:most]:
                self.promoted[k].update(jobs)
                return sorted(jobs)
        jobs, self.new = self.new[:most], self.new[most:]
        return jobs

    def report(self, item, rung, loss):
        if rung < len(self.rungs):
            self.rungs[rung].append((np.inf if np.isnan(loss) else loss, self.arrivals, item))
            self.arrivals += 1


@pytest.mark.parametrize("most", [1, 4])
@pytest.mark.parametrize("workers", [1, 5])
@pytest.mark.parametrize("mode", ["min", "max"])
def test_asha_decides_as_the_paper(most, workers, mode):
    """Times, losses and NaN at random: every round has the items of Algorithm 2, and every rung those that it promotes."""
    n, eta = 60, 3
    rng = np.random.default_rng(workers + 10 * most)
    loss = rng.normal(size=(n, 200)).round(1)  # ties
    loss[rng.random(n) < 0.2] = np.nan
    sign = 1 if mode == "min" else -1
    s = searcher(n, eta, mode=mode)
    items = Items(lambda row, age: sign * loss[row, age], lambda row: 100)
    played = play(s, lambda k, asked: (rng.exponential(), items.report(k, asked)), workers, most)
    paper, at, numbers = Paper(n, eta, 3), {}, iter(range(10**6))
    lap = dict.fromkeys(range(n), -1)
    for name, value in played.calls:
        if name == "ask":
            rows = paper.get_jobs(most)
            assert value.rows.tolist() == rows
            for row in rows:
                lap[row] += 1
            at[next(numbers)] = rows
        elif name == "tell":
            for row, metric in zip(at[value[0]], value[1].metric, strict=True):
                paper.report(row, lap[row], sign * metric)
    np.testing.assert_array_equal(s.records()["search_rung"], [lap[k] for k in range(n)])
    ages = np.where(s.lap == 3, 100, 2 * 3.0 ** np.minimum(s.lap, 2))
    np.testing.assert_array_equal(s.ages, ages)
    np.testing.assert_array_equal(s.done, s.lap == 3)
    np.testing.assert_array_equal(s.dropped, ~s.done)


def test_asha_with_one_worker_and_whole_rungs_is_halving():
    """27 items that come to their rungs together: the best 9, 3 and 1 go on, as under halving in step."""
    loss = np.random.default_rng(0).permutation(27)
    items = Items(lambda row, age: loss[row], lambda row: 100)
    s = searcher(27)
    over = []

    def work(k, asked):
        over.append(int(s.over.sum()))
        return 1, items.report(k, asked)

    rounds = play(s, work, most=27).rounds
    best = np.argsort(loss)
    for asked, n in zip(rounds, (27, 9, 3, 1), strict=True):
        assert asked.rows.tolist() == sorted(best[:n])
    assert [asked.length for asked in rounds[:3]] == [2, 4, 12]
    # Progress counts those that are left behind at once.
    assert over == [0, 18, 24, 26]
    np.testing.assert_array_equal(s.records()["search_metric"][best[0]], [0, 0, 0])


def test_asha_an_item_that_finishes_keeps_its_place_and_its_results():
    """It takes a place among the best where it is one of them, no worker, and is not dropped."""
    loss = np.arange(9)
    items = Items(lambda row, age: loss[row], lambda row: 1 if row in (0, 8) else 50)
    s = searcher(9)
    rounds = play(s, lambda k, asked: (1, items.report(k, asked)), most=9).rounds
    assert [asked.rows.tolist() for asked in rounds] == [list(range(9)), [1, 2]]
    np.testing.assert_array_equal(s.records()["search_rung"], [2, 1, 1, 0, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(s.dropped, ~s.done)
    np.testing.assert_array_equal(np.flatnonzero(s.done), [0, 8])


def test_asha_keeps_what_halving_keeps_of_items_that_all_finish_before_the_last_rungs():
    """81 items make 18 advances: nobody survives the rung at 18, and nobody comes to that at 54."""
    loss = np.random.default_rng(0).permutation(81)
    items, found = Items(lambda row, age: loss[row], lambda row: 18), []
    halving = Halving(method="halving", metric="loss", min_advances=2, eta=3)
    for s in (searcher(81), searcher_of(halving, 0, np.arange(81))):
        play(s, lambda k, asked: (1, items.report(k, asked)), most=81)
        found.append(s.records())
    assert found[0]["search_rung"].max() == 2
    for name, values in found[1].items():
        np.testing.assert_array_equal(found[0][name], values)


def test_asha_that_compares_nothing_is_refused():
    items = Items(lambda row, age: row, lambda row: 2)
    with refused(JobError):
        play(searcher(9), lambda k, asked: (1, items.report(k, asked)), most=4)


def test_asha_where_every_metric_is_nan_ends():
    items = Items(lambda row, age: np.nan, lambda row: 50)
    s = searcher(9)
    rounds = play(s, lambda k, asked: (1, items.report(k, asked)), 2, 4).rounds
    assert sum(len(asked.rows) for asked in rounds) == 9
    assert s.dropped.all()
