"""Choose the microbatch of a program by measuring it: vmap, map, or map over microbatches.

On a CPU, items with weights of their own run 5-7 times faster one by one (each item's matrices stay in
cache); items that share weights, and all items on a GPU, run faster side by side (one large product). Only a
measurement tells which, so a run begins with one; its choice is kept, since m enters the rounding.
"""

import time
from collections.abc import Callable

from ctd.batch import Layout, Run
from ctd.kernel import Kernel

CLOSE = 1.5
"""Candidates within this factor of the best are timed twice more: on a machine with other work a single
timing is off by a tenth or two, and the choice holds for the whole run."""


def microbatch_candidates(kernel: Kernel, slots: int) -> list[int]:
    """The microbatches worth measuring: those that the kernel names, at most `slots` (0: all slots)."""
    return sorted({min(m or slots, slots) for m in kernel.candidates()})


def fastest_microbatch(
    kernel: Kernel, start: Callable[[Layout, int], Run], n_items: int, slots: int, devices: int
) -> tuple[int, dict[int, float]]:
    """(the best m, candidate m -> seconds of one advance of one item; empty if there is one candidate).

    start: (layout, n) -> a run of the first n of the `n_items` items.

    Each candidate m advances the same first items from their start, once to compile and once timed. Those
    close to the best are timed again in turn, and the lowest time counts.
    """
    candidates = microbatch_candidates(kernel, slots)
    if len(candidates) == 1:
        return candidates[0], {}
    n = min(n_items, slots * devices)

    def advance(m: int) -> float:
        run = start(Layout(-(-slots // m) * m, m, devices), n)
        run.block()
        began = time.perf_counter()
        run.advance()
        run.block()
        return (time.perf_counter() - began) / n

    for m in candidates:
        advance(m)
    seconds = {m: advance(m) for m in candidates}
    best = min(seconds.values())
    close = [m for m in candidates if seconds[m] < CLOSE * best]
    if len(close) > 1:
        for m in close + close:
            seconds[m] = min(seconds[m], advance(m))
    return min(seconds, key=lambda m: seconds[m]), seconds
