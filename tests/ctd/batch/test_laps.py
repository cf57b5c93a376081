"""ctd.batch.laps: items in laps have the bits of items in a Run; states are exchanged exactly."""

import hill
import numpy as np
import pytest
from devices import assert_same_on_eight_devices
from small import small

from ctd.batch import Layout, Run, precision, program, traced_columns
from ctd.batch.laps import TO_THE_END, Laps
from ctd.kernel import inputs_of, static_of, traced_of

N = 7


LAYOUT = Layout(4, 2)


def laps_of(kernel, params, layout=LAYOUT, n=N, **columns):
    """Laps over n items of these parameters, and a function that makes the same Run."""
    static = static_of(params)
    with precision(static):
        shared = kernel.load(inputs_of(params))
    fixed = traced_of(params)._asdict() | columns
    named = {
        k: np.asarray(v) if k in columns else np.repeat(np.asarray(v)[None], n, axis=0)
        for k, v in fixed.items()
    }
    traced = traced_columns(type(params), named, static.dtype)
    args = (program(kernel, static, layout), shared, 3, np.arange(n), traced)
    return Laps(*args), lambda: Run(*args)


def lap(laps, rows, length):
    laps.begin(rows, length)
    while not laps.over:
        laps.advance()


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype
        assert a[name].tobytes() == b[name].tobytes(), name


@pytest.mark.parametrize("name", ["toy", "train_rnn", "kuramoto"])
def test_laps_come_to_the_bits_of_a_run(name):
    laps, new = laps_of(*small(name))
    run = new()
    while not run.finished:
        run.advance()
    for length in (1, 2, TO_THE_END):
        lap(laps, np.arange(N), length)
    same(laps.values(np.arange(N)), run.results)
    assert laps.done.all()


@pytest.mark.parametrize("layout", [Layout(8, 2), Layout(2, 2)])
def test_laps_do_not_depend_on_the_slots(layout):
    """Items that finish at their own times, some of them in no lap, all slots or few."""
    ends = np.array([3, 9, 1, 7, 2, 8, 5])
    found = []
    for here in (Layout(4, 2), layout):
        laps, _ = laps_of(hill.kernel, hill.Descent(noise=0.1), here, limit=ends)
        lap(laps, np.array([0, 1, 2, 5]), 3)
        np.testing.assert_array_equal(laps.ages, [3, 3, 1, 0, 0, 3, 0])
        lap(laps, np.array([1, 3, 4, 5, 6]), TO_THE_END)
        np.testing.assert_array_equal(laps.ages, ends)
        found.append(laps.values(np.arange(N)))
    same(*found)


def test_laps_advance_an_item_no_more_than_its_lap():
    laps, _ = laps_of(hill.kernel, hill.Descent(steps=50))
    for length in (4, 1, 7):
        lap(laps, np.arange(N), length)
    np.testing.assert_array_equal(laps.ages, 12)
    np.testing.assert_array_equal(laps.values(np.arange(N), ["taken"])["taken"], 12)


def test_laps_copy_is_exact_and_leaves_the_others():
    laps, _ = laps_of(hill.kernel, hill.Descent(noise=0.1))
    lap(laps, np.arange(N), 3)
    before = laps.values(np.arange(N))
    parents = np.array([0, 4, 2, 2, 4, 5, 6])
    laps.copy(parents)
    same(laps.values(np.arange(N)), {k: v[parents] for k, v in before.items()})
    lap(laps, np.arange(N), 1)
    x = laps.values(np.arange(N))["x"]
    assert len(np.unique(x, axis=0)) == N  # a copy draws with its own key


def test_laps_new_values_count_from_the_next_advance_on():
    laps, _ = laps_of(hill.kernel, hill.Descent(rate=0.1, dtype="float64"))
    lap(laps, np.arange(N), 2)
    x = laps.values(np.arange(N))["x"]
    rates = np.linspace(0.01, 0.3, N)
    laps.set_traced("rate", rates)
    lap(laps, np.arange(N), 1)
    expected = x - rates[:, None] * np.array([1, 2, 3]) * x
    # The same two operations in float64, but for a fused multiply-add.
    np.testing.assert_allclose(laps.values(np.arange(N))["x"], expected, rtol=1e-15, atol=1e-15)


@pytest.mark.parametrize("name", ["toy", "train_rnn"])
def test_laps_snapshot_goes_on_with_the_same_bits(name):
    whole, _ = laps_of(*small(name))
    lap(whole, np.arange(N), TO_THE_END)
    laps, _ = laps_of(*small(name))
    laps.begin(np.arange(N), TO_THE_END)
    while not laps.over:
        laps.advance()
        saved = laps.snapshot()
        laps, _ = laps_of(*small(name))
        laps.restore(saved)
    same(laps.values(np.arange(N)), whole.values(np.arange(N)))


DEVICES = """
import sys; sys.path[:0] = {path!r}
import numpy as np, jax, hill, test_laps as t
from ctd.batch import Layout
assert len(jax.local_devices()) == 8
ends = np.arange(23) % 7 + 1
found = []
for layout in (Layout(4, 2), Layout(2, 2, devices=8), Layout(4, 2, devices=8)):
    laps, _ = t.laps_of(hill.kernel, hill.Descent(noise=0.1), layout, 23, limit=ends)
    for rows, length in ((np.arange(5, 23), 3), (np.arange(23), t.TO_THE_END)):
        t.lap(laps, rows, length)
        laps.copy(np.roll(np.arange(23), 1))
    found.append(laps.values(np.arange(23)) | {{"ages": laps.ages}})
t.same(found[0], found[1]); t.same(found[0], found[2])
print("same")
"""


def test_laps_eight_devices_same_bits():
    assert_same_on_eight_devices(DEVICES)
