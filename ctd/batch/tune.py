"""Choose the microbatch of a program: vmap, map, or map over microbatches.

On a CPU, items with weights of their own run up to 7 times faster one by one (each item's matrices stay in
cache); items that share weights, and all items on a GPU, run faster side by side (one large product). A
kernel that knows which names it alone, and nothing is measured. Otherwise a run begins with a measurement, if
it costs little beside the run; the choice is kept, since m enters the rounding.
"""

import time
from collections.abc import Callable

from ctd.batch import Layout, Run
from ctd.kernel import Kernel

SHARE = 0.03
"""The most that measuring the other candidates may take, as a share of the run with the first one."""

PROBE = 16
"""Items side by side that are timed in place of more: what they gain or lose shows."""

TIMES = 2
"""How often each candidate is timed; the lowest time counts, since there may be other work on the machine."""


def microbatch_candidates(kernel: Kernel, slots: int) -> list[int]:
    """The microbatches worth measuring, the likeliest first: those that the kernel names, at most `slots` (0: all slots)."""
    return list(dict.fromkeys(min(m or slots, slots) for m in kernel.candidates()))


def fastest_microbatch(
    kernel: Kernel,
    start: Callable[[Layout, int], Run],
    n_items: int,
    slots: int,
    devices: int,
    n_advances: float,
) -> tuple[int, dict[int, float]]:
    """(the best m, candidate m -> seconds of one advance of one item, of those that were timed).

    start: (layout, n) -> a run of the first n of the `n_items` items.
    n_advances: advances of one item that this process is to make with the choice, over all of its items.

    The first candidate is timed on one microbatch. The others only if that takes SHARE of the run at most, as the
    first one's times tell: a wide one costs its compilation, and PROBE items.
    """
    first, *others = microbatch_candidates(kernel, slots)
    if not others:
        return first, {}

    def advance(layout: Layout) -> float:
        run = start(layout, min(n_items, layout.microbatch * devices))
        run.block()
        began = time.perf_counter()
        run.step()
        run.block()
        return (time.perf_counter() - began) / run.n

    def timed(layout: Layout) -> float:
        return min(advance(layout) for _ in range(TIMES))

    whole = Layout.of(slots, first, devices)
    began = time.perf_counter()
    advance(whole)
    begun_s = time.perf_counter() - began  # mostly compilation
    seconds = {first: timed(whole)}
    probes = {m: Layout(min(m, PROBE), min(m, PROBE), devices) for m in others}
    cost = sum(
        begun_s + (TIMES + 1) * seconds[first] * devices * max(first, layout.microbatch)
        for layout in probes.values()
    )
    if cost > SHARE * n_advances * seconds[first]:
        return first, seconds
    for m, layout in probes.items():
        advance(layout)
        seconds[m] = timed(layout)
    return min(seconds, key=lambda m: seconds[m]), seconds
