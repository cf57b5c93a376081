"""The files that the smallest cases of kernels read, in a folder that goes with the process.

Tests of a kernel fit some of them, too: a program of the same shapes is then compiled once.
"""

import tempfile
from functools import cache

import h5py
import numpy as np
from places import EXAMPLES

from ctd.cells import get_cell
from ctd.data import read_hdf5, write_hdf5
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
