"""Choose the microbatch of a program: vmap, map, or map over microbatches.

On a CPU, items with weights of their own run up to 7 times faster one by one (each item's matrices stay in
cache); items that share weights, and all items on a GPU, run faster side by side (one large product). A
kernel whose best microbatch is known names that one alone, and nothing is measured. Otherwise a run begins with a
measurement, if that costs little beside the run. The store keeps the choice, since m enters the rounding.
"""

import time
from collections.abc import Callable

from ctd.batch import Layout, Run
from ctd.kernel import Kernel

SHARE = 0.03
"""Largest time for measuring the other candidates, as a share of the run with the first one."""

PROBE = 16
"""Largest number of items side by side that is timed: 16 show whether side by side is faster."""

TIMES = 2
"""Timings of each candidate; the lowest counts, since the machine may do other work."""


def microbatch_candidates(kernel: Kernel, slots: int) -> list[int]:
    """The kernel's microbatches worth measuring, the likeliest first, each at most `slots`; 0 stands for all slots."""
    return list(dict.fromkeys(min(m or slots, slots) for m in kernel.batching.candidates()))


def fastest_microbatch(
    kernel: Kernel,
    start: Callable[[Layout, int], Run],
    n_items: int,
    slots: int,
    devices: int,
    n_advances: float,
) -> tuple[int, dict[int, float]]:
    """Choose the microbatch: (the best m, m -> seconds of one advance of one item, for those that were timed).

    start: (layout, n) -> a run of the first n of the `n_items` items. n_advances: advances of single items that this
    process will make with the choice, over all of its items.

    The first candidate is timed on one microbatch. The others are timed only if, by the first one's times, that takes at
    most SHARE of the run: each costs its compilation and the advances of up to PROBE items.
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
        # Per item: candidates differ in how many items they advance.
        return (time.perf_counter() - began) / run.n

    def timed(layout: Layout) -> float:
        # Other work on the machine only ever makes an advance longer.
        return min(advance(layout) for _ in range(TIMES))

    full_layout = Layout.rounded_up(slots, first, devices)
    began = time.perf_counter()
    advance(full_layout)
    begun_s = time.perf_counter() - began  # mostly compilation
    seconds = {first: timed(full_layout)}
    probes = {m: Layout(min(m, PROBE), min(m, PROBE), devices) for m in others}
    # One compilation and TIMES + 1 advances for each further candidate.
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
