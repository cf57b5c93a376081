"""Items on eight devices have one device's bits, in a run and in rounds; one process for both, since its start is half of the time."""

import pytest
from processes import assert_same_on_eight_devices

DEVICES = """
import sys; sys.path[:0] = {path!r}
import jax, numpy as np, test_batch, test_round, toy
from ctd.batch import Layout
assert len(jax.local_devices()) == 8
"""

RUNS = """
one = test_batch.run_toy(Layout(24, 2))
for slots in SLOTS:
    eight = test_batch.run_toy(Layout(slots, 2, devices=8))
    for name in one:
        assert one[name].tobytes() == eight[name].tobytes(), name
test_batch.assert_goes_on(Layout(24, 2), Layout(2, 2, devices=8), 2)
test_batch.assert_goes_on(Layout(2, 2, devices=8), Layout(24, 2), 2)
if len(SLOTS) > 1:
    test_batch.assert_goes_on(Layout(4, 2, devices=8), Layout(8, 2), 2, twice=Layout(4, 2))
"""
"""23 items on 8 devices, refilled or all at once, stopped on one and continued on 8, or stopped on 8 and continued on one."""

ROUNDS = """
found = []
for layout in (Layout(24, 2), *(Layout(slots, 2, devices=8) for slots in SLOTS)):
    items = test_round.Items(toy.kernel, test_batch.PARAMS, layout, 23, **test_batch.COLUMNS)
    items.advance(np.arange(23), 1)
    for rows, length in ((np.arange(5, 23), 3), (np.arange(23), test_round.TO_THE_END)):
        items.advance(rows, length)
        items.copy(np.roll(np.arange(23), 1))
    found.append(items.results() | {{"ages": items.ages}})
for eight in found[1:]:
    test_round.same(found[0], eight)
print("same")
"""


@pytest.mark.parametrize(
    "slots",
    [
        pytest.param((2,), id="refilled"),
        pytest.param((4, 2), id="or all at once", marks=pytest.mark.endurance),
    ],
)
def test_eight_devices_same_bits(slots):
    assert_same_on_eight_devices(f"SLOTS = {slots}\n{DEVICES}{RUNS}{ROUNDS}")


TRAINING = """
import sys; sys.path[:0] = {path!r}
import jax, small
from ctd.batch import Layout
assert len(jax.local_devices()) == 8
two, *more = (small.results("train_rnn", 40, Layout(-(-40 // (d * 5)) * 5, 5, devices=d)) for d in (2, 4, 8))
for results in more:
    for name, values in two.items():
        assert values.tobytes() == results[name].tobytes(), name
print("same")
"""


@pytest.mark.endurance
def test_training_on_two_devices_and_more():
    """In microbatches of five: docs/running.md says for which kernels one device has these bits, too."""
    assert_same_on_eight_devices(TRAINING)
