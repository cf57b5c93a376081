"""Choose the microbatch of a program by measuring it: vmap, map, or map over microbatches.

On a CPU, items with weights of their own run 5-7 times faster one by one (each item's matrices stay in
cache); items that share weights, and GPUs, want them side by side (one large product). Nothing but a
measurement tells which, so a run begins with one; its choice is kept, since m enters the rounding.
"""

import time
from typing import Any

import jax
import numpy as np

from ctd.batch import Layout, Run, program
from ctd.kernel import Kernel


def microbatch_candidates(kernel: Kernel, slots: int) -> list[int]:
    """The microbatches worth measuring: those that the kernel names, cut to `slots` (0: all)."""
    return sorted({min(m or slots, slots) for m in kernel.microbatches})


def fastest_microbatch(
    kernel: Kernel,
    static: Any,
    shared: Any,
    seed: int,
    ids: np.ndarray,
    traced: Any,
    slots: int,
    devices: int,
) -> tuple[int, dict[int, float]]:
    """(the best m, seconds of one advance of one item for each candidate m).

    Each candidate advances the same first items from their start: once to compile, once timed.
    """
    candidates = microbatch_candidates(kernel, slots)
    if len(candidates) == 1:
        return candidates[0], {}
    seconds = {}
    n = min(len(ids), slots * devices)
    rows = slice(0, n)
    for m in candidates:
        layout = Layout(-(-slots // m) * m, m, devices)
        prog = program(kernel, static, layout)
        some = jax.tree.map(lambda leaf: leaf[rows], traced)
        run = Run(prog, shared, seed, ids[rows], some)
        run.advance()
        run.block()
        run = Run(prog, shared, seed, ids[rows], some)
        run.block()
        start = time.perf_counter()
        run.advance()
        run.block()
        seconds[m] = (time.perf_counter() - start) / n
    return min(seconds, key=lambda m: seconds[m]), seconds
