"""The smallest case of every kernel."""

import tempfile
from functools import cache

import jax
import numpy as np
from places import EXAMPLES

from ctd.batch import Layout, Run, precision, program, traced_columns
from ctd.catalogue import load_kernel
from ctd.cells import get_cell
from ctd.data import write_hdf5
from ctd.kernel import inputs_of, static_of, traced_of
from ctd.weights import write_weights

SMALL = {
    "spikes": {"n_train": 3, "n_eval": 2},
    "kuramoto": {"n": 5, "n_steps": 20},
    "lyapunov": {"n": 5, "max_advances": 2},
    "toy": {"n_steps": 5},
    "fixed_points": {"n_trials": 2},
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
    "train_rnn": {"n": 6, "batch_size": 4, "n_batches": 6, "report_every": 3, "n_eval": 8},
    "esn": {"n": 12},
    "reconstruct": {
        "data": str(EXAMPLES / "lorenz_recording.npy"),
        "hidden": 4,
        "length": 6,
        "batch_size": 2,
        "n_batches": 10,
        "report_every": 5,
        "bins": 4,
        "n_saved": 3,
    },
    "curbd": {
        "data": str(EXAMPLES / "regions_recording.h5"),
        "regions": {"A": "0-29", "B": "30-59"},
        "steps": 1,
        "n_runs": 2,
        "report_every": 1,
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
        "trials": str(EXAMPLES / "oscillation_trials.h5"),
        "n": 5,
        "settle": 1,
        "n_train": 2,
        "n_test": 1,
    },
    "mechanisms": {"n_neurons": 6, "n_trials": 8, "n_bins": 20},
    "mechanisms.evidence": {},
    "esn.nvar": {"washout": 2, "train": 30, "test": 5},
    "lfads": {
        "data": str(EXAMPLES / "lfads_spikes.h5"),
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


def small(name):
    kernel = load_kernel(name)
    given = _of_trained() if name == "lfads.posterior" else dict(SMALL[name])
    if name == "spikes" or name.startswith("fixed_points"):
        given |= {"weights": _network()}
    if name == "similarity":
        given |= {"weights": [_network()] * 3}
    if name == "fixed_points.continuation":
        given |= {"points": _network()}
    if name == "fixed_points.connections":
        given |= {"points": _points()}
    if name == "mechanisms.evidence":
        given |= fitted_recordings()
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
def _network():
    """A file with random weights of four units, and their initial state."""
    path = tempfile.mkdtemp(prefix="ctd-small-") + "/vanilla.h5"
    write_weights(path, get_cell("vanilla").init(jax.random.key(0), 4, 1, 1), "vanilla")
    return path


@cache
def _points():
    """A table of two points of that network, of which one is said to be unstable along the first axis."""
    path = tempfile.mkdtemp(prefix="ctd-small-") + "/points.h5"
    axes = np.tile(np.eye(4, dtype=complex), (2, 1, 1))
    table = {
        "eigenvalue": np.full((2, 4), 0.5 + 0j),
        "right": axes,
        "n_unstable": np.array([1, 0]),
        "n_marginal": np.array([0, 0]),
    }
    write_hdf5(path, table | {"point": np.eye(4)[:2] - 0.5, "constant_input": np.zeros((2, 1))})
    return path


@cache
def _of_trained():
    """The posterior of the smallest lfads with its first weights: those alone are compiled."""
    folder = tempfile.mkdtemp(prefix="ctd-small-")
    run = runs("lfads", 1)()
    first = run.peek(tuple(k for k in run.results if k.startswith(("weights.", "model."))))[1]
    parts = {"weights": f"{folder}/weights.h5", "model": f"{folder}/model.h5"}
    for part, path in parts.items():
        found = {name: v[0] for name, v in first.items() if name.startswith(f"{part}.")}
        write_hdf5(path, {name.removeprefix(f"{part}."): v for name, v in found.items()})
    return SMALL["lfads"] | parts | {"chunk_batches": 2, "samples": ["factors"]}


@cache
def fitted_recordings():
    """Fields of mechanisms.evidence: two random recordings, and two random models of each, as stages leave them."""
    folder = tempfile.mkdtemp(prefix="ctd-small-")
    rng, cell, found = np.random.default_rng(0), get_cell("shplrnn:clipped"), {}
    for k in range(2):
        path, about = (
            f"{folder}/recording-{k}.h5",
            {"store": f"{folder}/r.zarr", "item": k, "seed": k},
        )
        scalars = {"mechanism": k, "n_neurons": 6, "n_trials": 8, "mean_count": 0.5}
        arrays = {"plain": rng.normal(size=9), "truth": rng.normal(size=22)} | scalars
        write_hdf5(path, arrays | {"factors": rng.normal(size=(8, 20, 3))}, about)
        found.setdefault("recordings", []).append(path)
        for seed in range(2):
            path = f"{folder}/fit-{k}-{seed}.h5"
            weights = cell.init(jax.random.key(seed), 3, 0, 0)
            about = {
                "cell": cell.name,
                "data": f"r.zarr::{k}::recording",
                "seed": seed,
                "alpha": 0.1,
            }
            write_hdf5(path, {name: np.asarray(v) for name, v in weights.items()}, about)
            found.setdefault("weights", []).append(path)
    return found
