"""The smallest case of every kernel, and the files that they read."""

import tempfile
from functools import cache

import h5py
import numpy as np
from places import EXAMPLES

from ctd.batch import Layout, Run, precision, program, traced_columns
from ctd.catalogue import load_kernel
from ctd.cells import get_cell
from ctd.data import read_hdf5, write_hdf5
from ctd.kernel import inputs_of, static_of, traced_of
from ctd.weights import write_weights


@cache
def folder():
    """It is removed when the process ends."""
    return tempfile.TemporaryDirectory(prefix="ctd-small-")


def place(name):
    return f"{folder().name}/{name}"


def drawn(shapes, n, n_out, seed):
    """Random weights of a network of n units by name, so small that its states stay bounded; NumPy's, which compile nothing."""
    rng = np.random.default_rng(seed)
    shapes = shapes | {"wO": (n_out, n), "bO": (n_out,), "h0": (n,)}
    return {name: (rng.normal(size=of) / 2).astype("float32") for name, of in shapes.items()}


@cache
def network():
    """A network of four units."""
    weights = drawn(get_cell("vanilla").shapes(4, 1), 4, 1, 0)
    write_weights(place("vanilla.h5"), weights, "vanilla")
    return place("vanilla.h5")


@cache
def gated_network():
    """A GRU of twelve units, the sizes of the network in tests/ctd/fixed_points/conftest.py."""
    weights = drawn(get_cell("gru").shapes(12, 1), 12, 1, 0)
    write_weights(place("gru.h5"), weights, "gru")
    return place("gru.h5")


@cache
def points():
    """A table of two points of that network, of which one is said to be unstable along the first axis."""
    axes = np.tile(np.eye(4, dtype=complex), (2, 1, 1))
    table = {
        "eigenvalue": np.full((2, 4), 0.5 + 0j),
        "right": axes,
        "n_unstable": np.array([1, 0]),
        "n_marginal": np.array([0, 0]),
        "point": np.eye(4)[:2] - 0.5,
        "constant_input": np.zeros((2, 1)),
    }
    write_hdf5(place("points.h5"), table)
    return place("points.h5")


@cache
def spikes():
    """The first trials of the LFADS example's spikes: 16 for training, 8 for evaluation."""
    with h5py.File(EXAMPLES / "lfads_spikes.h5") as file:
        some = {name: file[name][: 8 if "eval" in name else 16] for name in file}
    write_hdf5(place("spikes.h5"), some)
    return place("spikes.h5")


@cache
def few_spikes():
    """Five trials of them for training, three for evaluation: neither fills chunks of four."""
    given = read_hdf5(spikes())
    write_hdf5(place("few.h5"), {"train": given["train"][:5], "eval": given["eval"][:3]})
    return place("few.h5")


@cache
def spiral():
    """A rotation with a slow decay, (time, 2)."""
    at = 0.3 * np.arange(300)
    size = 0.999 ** np.arange(300)
    np.save(place("spiral.npy"), np.stack([size * np.cos(at), size * np.sin(at)], axis=1))
    return place("spiral.npy")


@cache
def waves():
    """Sines of four units that begin at 0, (time, 4)."""
    np.save(place("waves.npy"), np.sin(0.2 * np.arange(30)[:, None] * np.arange(1, 5)))
    return place("waves.npy")


@cache
def pulse():
    """One trial of 20 steps: a pulse, then a sine."""
    t = np.arange(20)[None, :, None]
    write_hdf5(place("pulse.h5"), {"inputs": (t < 2) * 1.0, "targets": np.sin(t / 2)})
    return place("pulse.h5")


@cache
def fitted_recordings(recordings=2, shape=(8, 20), hidden=4):
    """Fields of mechanisms.evidence: random recordings (trial, time), and two random models of each, as stages leave them."""
    rng, cell, found = np.random.default_rng(0), get_cell("shplrnn:clipped"), {}
    for k in range(recordings):
        of = f"{recordings}-{k}"
        path, about = place(f"recording-{of}.h5"), {"store": place("r.zarr"), "item": k, "seed": k}
        scalars = {"mechanism": k, "n_neurons": 6, "n_trials": shape[0], "mean_count": 0.5}
        arrays = {"plain": rng.normal(size=9), "truth": rng.normal(size=22)} | scalars
        write_hdf5(path, arrays | {"factors": rng.normal(size=(*shape, 3))}, about)
        found.setdefault("recordings", []).append(path)
        for seed in range(2):
            path, data = place(f"fit-{of}-{seed}.h5"), f"r.zarr::{k}::recording"
            own = {"seed": seed, "item": 2 * k + seed, "address": f"f.zarr::{2 * k + seed}"}
            about = {"cell": cell.name, "data": data, "alpha": 0.1, "store": "f.zarr"} | own
            write_hdf5(path, drawn(cell.shapes(3, 0, hidden), 3, 3, [k, seed]), about)
            found.setdefault("weights", []).append(path)
    return found


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
    """The fields of a kernel's smallest case that name"""
    if name == "mechanisms.evidence":
        return fitted_recordings(9, (30, 20), 10)
    of_network = {"weights": network()} if name.startswith(("fixed_points", "spikes")) else {}
    further = {
        "fixed_points": lambda: {"weights": gated_network()},
        "similarity": lambda: {"weights": [network()] * 3},
        "fixed_points.continuation": lambda: {"points": network()},
        "fixed_points.connections": lambda: {"points": points()},
        "reconstruct": lambda: {"data": spiral()},
        "curbd": lambda: {"data": waves()},
        "full_force": lambda: {"trials": pulse()},
        "lfads": lambda: {"data": spikes()},
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
    parts = {part: place(f"{part}.h5") for part in ("weights", "model")}
    for part, path in parts.items():
        found = {name: v[0] for name, v in first.items() if name.startswith(f"{part}.")}
        write_hdf5(path, {name.removeprefix(f"{part}."): v for name, v in found.items()})
    # What tests/ctd/lfads/test_lfads_posterior.py infers: both are one program.
    asked = {"samples": ("factors", "inferred_inputs", "initial_conditions"), "n_samples": 200}
    return SMALL["lfads"] | {"data": few_spikes(), "chunk_batches": 1} | parts | asked
