"""ctd.batch.tune: a choice of the microbatch that costs little beside the run."""

from dataclasses import replace

import numpy as np
import pytest
import toy

from ctd.batch import Run, program, traced_columns
from ctd.batch.tune import PROBE, fastest_microbatch
from ctd.catalogue import load_kernel
from ctd.kernel import Batching, static_of

N = 40
NOTHING_KNOWN = replace(toy.kernel, batching=Batching(width=8))
KNOWN = replace(toy.kernel, batching=Batching(width=8, microbatches=(0,), cpu_microbatches=(4,)))


@pytest.mark.parametrize(
    ("kernel", "n_advances", "timed", "started"),
    [
        (
            NOTHING_KNOWN,
            10,
            {1},
            {(1, 1)},
        ),  # a run of milliseconds: compiling again would cost more
        (NOTHING_KNOWN, 1e12, {1, 40}, {(1, 1), (PROBE, PROBE)}),
        (KNOWN, 1e12, set(), set()),
    ],
)
def test_fastest_microbatch_times_what_pays(kernel, n_advances, timed, started):
    """started: (microbatch, items) of the runs that were advanced."""
    params = toy.Walk()
    columns = {"n_steps": np.full(N, 5), "rate": np.zeros(N), "push": np.zeros((N, 2))}
    traced = traced_columns(toy.Walk, columns, "float32")
    runs = set()

    def start(layout, n):
        runs.add((layout.microbatch, n))
        some = type(traced)(*(leaf[:n] for leaf in traced))
        of_layout = program(kernel, static_of(params), layout)
        return Run(of_layout, toy.load(params), 0, np.arange(n), some)

    best, seconds = fastest_microbatch(kernel, start, N, N, 1, n_advances)
    assert (set(seconds), runs) == (timed, started)
    assert best == min(seconds, key=seconds.get, default=4)


@pytest.mark.parametrize("name", ["train_rnn", "fixed_points", "lfads", "esn", "spikes"])
def test_kernels_of_ctd_know_their_microbatch(name):
    assert len(load_kernel(name).batching.candidates()) == 1
