"""ctd.batch.round: items in rounds have the bits of items in a Run; states go on exactly, here or elsewhere."""

import hill
import numpy as np
import pytest
from small import small

from ctd.batch import Layout, Run, precision, program, traced_columns
from ctd.batch.round import RoundRun
from ctd.batch.slots import SavedStates
from ctd.kernel import inputs_of, static_of, traced_of

N = 7
TO_THE_END = 2**31 - 1


LAYOUT = Layout(4, 2)


class Items:
    """Items of these parameters, from round to round: their states, who has finished, the advances of each."""

    def __init__(self, kernel, params, layout=LAYOUT, n=N, **columns):
        static = static_of(params)
        with precision(static):
            shared = kernel.load(inputs_of(params))
        fixed = traced_of(params)._asdict()
        self.columns = {k: np.repeat(np.asarray(v)[None], n, axis=0) for k, v in fixed.items()}
        self.columns |= {k: np.asarray(v) for k, v in columns.items()}
        self.n, self.type, self.dtype = n, type(params), static.dtype
        self.fixed = program(kernel, static, layout), shared, 3
        self.done, self.ages = np.zeros(n, bool), np.zeros(n, int)
        self.begun, self.leaves = np.zeros(n, bool), []

    def args(self, rows):
        columns = {name: values[rows] for name, values in self.columns.items()}
        return *self.fixed, rows, traced_columns(self.type, columns, self.dtype)

    def round(self, rows, length):
        """A round of some items, at its beginning."""
        some = np.flatnonzero(self.begun[rows])
        leaves = [leaf[rows[some]] for leaf in self.leaves]
        kept = SavedStates(some, leaves, self.done[rows[some]]) if len(some) else None
        return RoundRun(*self.args(rows), length, kept)

    def advance(self, rows, length):
        """Make a round of some items, and keep where it ends."""
        run = self.round(rows, length)
        while not run.finished:
            run.advance()
        leaves = run.states()
        self.leaves = self.leaves or [np.zeros((self.n, *v.shape[1:]), v.dtype) for v in leaves]
        for whole, leaf in zip(self.leaves, leaves, strict=True):
            whole[rows] = leaf
        self.done[rows], self.begun[rows] = run.done, True
        self.ages[rows] += run.advances

    def copy(self, parents):
        self.leaves, self.done = [leaf[parents] for leaf in self.leaves], self.done[parents]

    def results(self):
        return self.round(np.arange(self.n), 0).results


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype
        assert a[name].tobytes() == b[name].tobytes(), name


@pytest.mark.parametrize("name", ["toy", "train_rnn", "kuramoto"])
def test_rounds_come_to_the_bits_of_a_run(name):
    """Also where an item's rounds are made beside other items each time."""
    items = Items(*small(name))
    run = Run(*items.args(np.arange(N)))
    while not run.finished:
        run.advance()
    items.advance(np.arange(N), 1)
    items.advance(np.array([0, 3, 4]), 2)
    items.advance(np.array([1, 2, 5, 6]), 2)
    items.advance(np.arange(N)[::2], TO_THE_END)
    items.advance(np.arange(N)[1::2], TO_THE_END)
    same(items.results(), run.results)
    assert items.done.all()


def test_a_look_at_no_result_computes_none():
    """As of a group that stores none of its kernel's curves, on a live page."""
    items = Items(*small("toy"))
    for run in (items.round(np.arange(N), 3), Run(*items.args(np.arange(N)))):
        rows, values = run.peek(())
        assert len(rows) == LAYOUT.slots
        assert values == {}


@pytest.mark.parametrize("layout", [Layout(8, 2), Layout(2, 2)])
def test_rounds_do_not_depend_on_the_slots(layout):
    """Items that finish at their own times, some of them in no round, all slots or few."""
    ends = np.array([3, 9, 1, 7, 2, 8, 5])
    found = []
    for here in (Layout(4, 2), layout):
        items = Items(hill.kernel, hill.Descent(noise=0.1), here, limit=ends)
        items.advance(np.array([0, 1, 2, 5]), 3)
        np.testing.assert_array_equal(items.ages, [3, 3, 1, 0, 0, 3, 0])
        items.advance(np.array([1, 3, 4, 5, 6]), TO_THE_END)
        np.testing.assert_array_equal(items.ages, ends)
        found.append(items.results())
    same(*found)


def test_rounds_advance_an_item_no_more_than_their_length():
    items = Items(hill.kernel, hill.Descent(steps=50))
    for length in (4, 1, 7):
        items.advance(np.arange(N), length)
    np.testing.assert_array_equal(items.ages, 12)
    np.testing.assert_array_equal(items.results()["taken"], 12)


def test_round_of_no_advances_tells_results_only():
    items = Items(hill.kernel, hill.Descent(noise=0.1))
    items.advance(np.arange(N), 3)
    run = items.round(np.arange(N), 0)
    assert run.finished
    assert run.n_finished == N
    np.testing.assert_array_equal(run.advances, 0)
    for leaf, before in zip(run.states(), items.leaves, strict=True):
        assert leaf.tobytes() == before.tobytes()


def test_copied_states_are_exact_and_leave_the_others():
    items = Items(hill.kernel, hill.Descent(noise=0.1))
    items.advance(np.arange(N), 3)
    before, parents = items.results(), np.array([0, 4, 2, 2, 4, 5, 6])
    items.copy(parents)
    same(items.results(), {k: v[parents] for k, v in before.items()})
    items.advance(np.arange(N), 1)
    assert len(np.unique(items.results()["x"], axis=0)) == N  # a copy draws with its own key


def test_new_values_count_from_the_next_advance_on():
    items = Items(hill.kernel, hill.Descent(rate=0.1, dtype="float64"))
    items.advance(np.arange(N), 2)
    x = items.results()["x"]
    rates = np.linspace(0.01, 0.3, N)
    items.columns["rate"] = rates
    items.advance(np.arange(N), 1)
    expected = x - rates[:, None] * np.array([1, 2, 3]) * x
    # The same two operations in float64, but for a fused multiply-add.
    np.testing.assert_allclose(items.results()["x"], expected, rtol=1e-15, atol=1e-15)


@pytest.mark.parametrize("name", ["toy", "train_rnn"])
def test_round_snapshot_goes_on_with_the_same_bits(name):
    """From each place of a round whose items take turns, some of which go on from a state."""
    whole, items = Items(*small(name)), Items(*small(name))
    for here in (whole, items):
        here.advance(np.array([1, 2, 5]), 1)
    whole.advance(np.arange(N), TO_THE_END)
    run = items.round(np.arange(N), TO_THE_END)
    while not run.finished:
        run.advance()
        saved = run.snapshot()
        run = items.round(np.arange(N), TO_THE_END)
        run.restore(saved)
    same(run.results, whole.results())
    np.testing.assert_array_equal(run.advances, whole.ages - np.isin(np.arange(N), [1, 2, 5]))
