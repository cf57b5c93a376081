"""What each method keeps of a network, so that a pair takes one product of two matrices."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ctd.late import scipy
from ctd.plots import spread
from ctd.similarity.dynamics import linear_dynamics
from ctd.similarity.networks import files_of, read_points, read_states
from ctd.similarity.params import OF_POINTS
from ctd.similarity.topology import counts


class Features(NamedTuple):
    """What is compared of the networks. Narrower ones are padded with zeros, which adds nothing to any product."""

    values: np.ndarray
    """(network, sample, component); dsa: (network, rank, rank); topology, connections: (network, label, 1)"""
    size: np.ndarray
    """(network,) components without the padding"""


def load(inputs: Any) -> Features:
    """The features of the networks that `inputs` names. Raises ValueError."""
    given = read_points(inputs) if inputs.method in OF_POINTS else read_states(inputs)
    return features_of(inputs, given, len(files_of(inputs)))


def features_of(inputs: Any, given: Iterable[Any], n: int) -> Features:
    """The features of n networks. given: (trial, time, state) states of each, or tables of points.

    Raises ValueError where a method has too few samples or dimensions, or this machine too little memory for all.
    """
    if inputs.method in OF_POINTS:
        rounds = inputs.rounds if inputs.method == "connections" else 0
        found = counts(list(given), inputs.max_q, rounds)
        return _padded([x[:, None] for x in found], inputs.dtype)
    if inputs.method == "dsa":
        fit = (inputs.n_delays, inputs.delay_interval, inputs.rank)
        return _padded([linear_dynamics(x, *fit) for x in given], inputs.dtype)
    made = list(_fitting((_of_samples(inputs, centred(x, inputs.n_samples)) for x in given), n))
    if inputs.method in ("svcca", "cca"):
        _check_samples([x.shape for x in made])
    return _padded(made, inputs.dtype)


def _fitting(made: Iterable[np.ndarray], n: int) -> Iterator[np.ndarray]:
    """The features of n networks; ValueError at the first one where this machine could not hold those of all twice."""
    room = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for k, x in enumerate(made):
        needed = 2 * n * x.nbytes  # padded beside the unpadded ones
        if k == 0 and needed > room:
            raise ValueError(
                f"networks: {n:,} of {len(x):,} samples of {x.shape[1]} components take {needed / 1e9:.1f} GB, and this "
                f"machine has {room / 1e9:.1f}; give a smaller n_samples, or select some networks by `where` and `limit`"
            )
        yield x


def centred(states: np.ndarray, n_samples: int) -> np.ndarray:
    """(sample, state) at most n_samples of the states (trial, time, state), without their mean."""
    flat = states.reshape(-1, states.shape[-1])
    flat = flat[spread(len(flat), n_samples)]
    return flat - flat.mean(axis=0)


def _of_samples(inputs: Any, x: np.ndarray) -> np.ndarray:
    if inputs.method == "procrustes":
        return x / np.linalg.norm(x)
    if inputs.method == "cka":
        # |X'X|_F is the norm of the centred Gram matrix X X', so that CKA is |X'Y|_F^2 of what is kept.
        return x / np.sqrt(np.linalg.norm(x.T @ x))
    if inputs.method == "rbf_cka":
        return x / (inputs.bandwidth * np.median(scipy.spatial.distance.pdist(x)))
    return principal_directions(x, inputs.variance if inputs.method == "svcca" else 1.0)


def principal_directions(x: np.ndarray, variance: float) -> np.ndarray:
    """(sample, k) orthonormal: the fewest left singular vectors of x with this share of its variance.

    Directions below rounding, of units that others determine, are left out.
    """
    u, s, _ = np.linalg.svd(x, full_matrices=False)
    rank = int((s > s[0] * max(x.shape) * np.finfo(x.dtype).eps).sum())
    share = np.cumsum(s**2) / np.sum(s**2)
    k = rank if variance == 1 else int(np.searchsorted(share, variance)) + 1
    return u[:, : min(k, rank)]


def _check_samples(shapes: Sequence[tuple[int, int]]) -> None:
    """Two subspaces of k1 + k2 >= m directions of m centred samples meet, whatever the networks do."""
    m, k = shapes[0][0], max(shape[1] for shape in shapes)
    if 2 * k >= m:
        raise ValueError(
            f"n_samples: {m} samples for networks of {k} components: with fewer than twice as many, any two networks "
            f"correlate perfectly; give more trials, or a smaller variance of svcca"
        )


def _padded(made: Sequence[np.ndarray], dtype: str) -> Features:
    rows, columns = (max(x.shape[axis] for x in made) for axis in (0, 1))
    values = np.zeros((len(made), rows, columns), dtype)
    for into, x in zip(values, made, strict=True):
        into[: x.shape[0], : x.shape[1]] = x
    return Features(values, np.asarray([x.shape[1] for x in made], dtype))
