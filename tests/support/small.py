"""The smallest case of every kernel."""

from functools import cache

import numpy as np
import small_files as files
from places import EXAMPLES

from ctd.batch import Layout, Run, precision, program, traced_columns
from ctd.catalogue import load_kernel
from ctd.data import write_hdf5
from ctd.kernel import inputs_of, static_of, traced_of

SMALL = {
    "spikes": {"n_train": 3, "n_eval": 2},
    "kuramoto": {"n": 5, "n_steps": 20},
    "lyapunov": {"n": 5, "max_advances": 5},
    "toy": {"n_steps": 5},
    # What tests/ctd/fixed_points/test_fixed_points_kernel.py and tests/origin/ search: one program.
    "fixed_points": {"n_trials": 8, "x": (0.2,), "noise": 0.1},
    "fixed_points.ablation": {"cell": "vanilla", "task": "decision", "n_trials": 2},
    "fixed_points.continuation": {
        "cell": "vanilla",
        "dataset": "h0",
        "n_steps": 4,
        "n_bifurcations": 1,
    },
    "fixed_points.connections": {"cell": "vanilla", "n_steps": 200},
    "fixed_points.exponents": {"cell": "vanilla", "transient": 0, "n_steps": 500, "n_exponents": 2},
    "fixed_points.limit_cycles": {"cell": "vanilla", "transient": 50, "n_points": 8},
    "fixed_points.trials": {"cell": "vanilla", "n_trials": 2, "every": 10, "n_modes": 2},
    "similarity": {"n_trials": 4, "n_samples": 50},
    # The network of tests/ctd/train_rnn/test_train_rnn.py: of gated ones the program takes longer to compile. Steps and
    # evaluation trials are no multiples of a block and of a minibatch.
    "train_rnn": {
        "cell": "vanilla",
        "task": {"name": "integrator", "n_steps": 6},
        "n": 8,
        "batch_size": 5,
        "n_batches": 7,
        "report_every": 3,
        "n_eval": 12,
        "n_saved": 4,
    },
    # That of a store of tests/support/page_stores.py, which has its program.
    "esn": {"n": 20, "m": 2, "passes": 2, "train": 40, "record": ["traces"]},
    "reconstruct": {
        "n": 2,
        "hidden": 6,
        "length": 10,
        "batch_size": 4,
        "n_batches": 100,
        "report_every": 25,
        "ahead": 3,
        "bins": 5,
        "smoothing": 2.0,
        "transient": 0.0,
        "n_saved": 20,
    },
    "curbd": {
        "regions": {"A": "0-1", "B": "2-3"},
        "steps": 1,
        "n_runs": 4,
        "report_every": 2,
        "n_saved": 3,
    },
    "latent_circuit": {
        "trials": str(EXAMPLES / "circuit_rates.h5"),
        "n": 4,
        "batch_size": 2,
        "n_batches": 2,
        "report_every": 1,
        "n_saved": 1,
    },
    "full_force": {
        "n": 5,
        "settle": 1,
        "n_train": 2,
        "n_test": 1,
    },
    "mechanisms": {"n_neurons": 15, "n_trials": 30, "n_bins": 20},
    "mechanisms.evidence": {},
    "esn.nvar": {"washout": 2, "train": 30, "test": 5},
    "lfads": {
        "encoder": 4,
        "controller": 4,
        "generator": 5,
        "n_factors": 3,
        "batch_size": 4,
        "n_batches": 4,
        "report_every": 2,
        "warm_up": 1,
        "kl_ramp": 2,
        "n_samples": 2,
        "n_metric": 4,
        "n_saved": 2,
    },
}
"""Parameters that make one item of each kernel take no time."""


def read_by(name):
    """The fields of a kernel's smallest case that name files."""
    if name == "mechanisms.evidence":
        return files.fitted_recordings(9, (30, 20), 10)
    of_network = {"weights": files.network()} if name.startswith(("fixed_points", "spikes")) else {}
    further = {
        "fixed_points": lambda: {"weights": files.gated_network()},
        "similarity": lambda: {"weights": [files.network()] * 3},
        "fixed_points.continuation": lambda: {"points": files.network()},
        "fixed_points.connections": lambda: {"points": files.points()},
        "reconstruct": lambda: {"data": files.spiral()},
        "curbd": lambda: {"data": files.waves()},
        "full_force": lambda: {"trials": files.pulse()},
        "lfads": lambda: {"data": files.spikes()},
    }
    return of_network | further.get(name, dict)()


def small(name):
    kernel = load_kernel(name)
    given = _of_trained() if name == "lfads.posterior" else SMALL[name] | read_by(name)
    return kernel, kernel.Params.model_validate(given)


FOUR = Layout(4, 2)
"""Slots and microbatch of most small runs."""


@cache
def runs(name, n=5, layout=FOUR):
    """Return a function: a new run of `n` items alike of the smallest case, at its start."""
    kernel, params = small(name)
    static = static_of(params)
    with precision(static):
        shared = kernel.load(inputs_of(params))
    columns = {
        k: np.repeat(np.asarray(v)[None], n, axis=0) for k, v in traced_of(params)._asdict().items()
    }
    traced = traced_columns(type(params), columns, static.dtype)
    return lambda: Run(program(kernel, static, layout), shared, 3, np.arange(n), traced)


@cache
def results(name, n=5, layout=FOUR):
    """The results of such a run."""
    run = runs(name, n, layout)()
    while not run.finished:
        run.advance()
    return run.results


@cache
def _of_trained():
    """The posterior of the smallest lfads with its first weights: those alone are compiled."""
    run = runs("lfads", 1)()
    first = run.peek(tuple(k for k in run.results if k.startswith(("weights.", "model."))))[1]
    parts = {part: files.place(f"{part}.h5") for part in ("weights", "model")}
    for part, path in parts.items():
        found = {name: v[0] for name, v in first.items() if name.startswith(f"{part}.")}
        write_hdf5(path, {name.removeprefix(f"{part}."): v for name, v in found.items()})
    # What tests/ctd/lfads/test_lfads_posterior.py infers: both are one program.
    asked = {"samples": ("factors", "inferred_inputs", "initial_conditions"), "n_samples": 200}
    return SMALL["lfads"] | {"data": files.few_spikes(), "chunk_batches": 1} | parts | asked
