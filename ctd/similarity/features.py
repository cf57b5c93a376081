"""Features: the array that a method compares, computed once for each network, so that a pair is one matrix product.

They are made from states in trials, which are checked here: the same trials of all networks, or trials of any length where
dynamics are fitted; or from tables of points (`topology`).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ctd.containers import check_numbers
from ctd.kernel import View
from ctd.late import Array, Float, on_host, scipy
from ctd.plots import spread
from ctd.similarity.dynamics import eigenvalues, linear_dynamics
from ctd.similarity.identification import Driven, driven_dynamics
from ctd.similarity.networks import files_of, read_networks
from ctd.similarity.params import OF_DYNAMICS, OF_INPUTS, OF_POINTS, Comparison
from ctd.similarity.topology import counts


class Features(NamedTuple):
    """The features of all networks. Narrower ones are padded with zeros, which add nothing to a product."""

    values: Float[Array, "network row column"]
    """(network, sample, component); dsa: (network, rank, rank), dsa:eigenvalues: (network, rank, 2), dsa:joint, dsa:input:
    [A | B], (network, rank, rank + n_in); topology, connections: (network, label, 1)"""
    size: Float[Array, "network"]
    """The number of components without the padding."""


def load(inputs: View[Comparison]) -> Features:
    """Read the networks that `inputs` names, and compute their features. Raises ValueError if they cannot be compared."""
    return features_of(inputs, files_of(inputs), read_networks(inputs))


def features_of(
    inputs: View[Comparison], names: Sequence[str], networks: Iterable[Any]
) -> Features:
    """Compute the features of the networks. names: for errors; networks: as `read_networks` returns them.

    Raises ValueError if they cannot be compared, there are too few samples or dimensions for the method, or this machine has too
    little memory.
    """
    if inputs.method in OF_POINTS:
        rounds = inputs.rounds if inputs.method == "connections" else 0
        point_counts = counts(list(networks), inputs.max_q, rounds)
        return _padded([x[:, None] for x in point_counts], inputs.dtype)
    if inputs.method in OF_DYNAMICS:
        fits = [
            _of_dynamics(inputs, trials(name, *states_and_inputs))
            for name, states_and_inputs in zip(names, networks, strict=True)
        ]
        widths = sorted({x.shape[1] for x in fits})
        if len(widths) > 1:
            listing = " and ".join(str(width - inputs.rank) for width in widths)
            raise ValueError(
                f"inputs: networks have {listing} inputs; give networks with the same inputs"
            )
        return _padded(fits, inputs.dtype)
    extract = lambda x: _of_samples(inputs, centred(x, inputs.n_samples), precision_of(x))
    states = checked((states for states, _ in networks), names)
    arrays = list(_fitting(map(extract, states), len(names)))
    if inputs.method in ("svcca", "cca"):
        _check_samples([x.shape for x in arrays])
    return _padded(arrays, inputs.dtype)


def _of_dynamics(inputs: View[Comparison], trials: Trials) -> np.ndarray:
    if trials.inputs is None:
        fit = (inputs.n_delays, inputs.delay_interval, inputs.rank)
        a = linear_dynamics(trials.states, *fit)
    else:
        a, b = _identified(trials.states, trials.inputs, inputs.n_delays, inputs.rank)
        if inputs.method in OF_INPUTS:
            return np.hstack([a, b])
    # Norm 1 turns the inner product of two dynamics into the cosine of their angle.
    return eigenvalues(a) if inputs.method == "dsa:eigenvalues" else a / np.linalg.norm(a)


_driven: dict[tuple[bytes, int, int], Driven] = {}
"""(Digest of the trials, delays, rank) -> their fit, which several methods compare and which may take ten seconds (10,000 steps and
150 delays)."""

MOST_KEPT = 10_000
"""Most fits that are kept."""


def _identified(
    states: Sequence[np.ndarray], inputs: Sequence[np.ndarray], n_delays: int, rank: int
) -> Driven:
    """`driven_dynamics`, computed once for the same trials in this process."""
    digest = hashlib.sha256()
    for array in (*states, *inputs):
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    key = digest.digest(), n_delays, rank
    if key not in _driven:
        if len(_driven) >= MOST_KEPT:
            _driven.clear()
        _driven[key] = driven_dynamics(states, inputs, n_delays, rank)
    return _driven[key]


def _fitting(arrays: Iterable[np.ndarray], n: int) -> Iterator[np.ndarray]:
    """Pass on the features of n networks; raise ValueError if the memory cannot hold n such twice."""
    room = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for x in arrays:
        # Twice: the padded array is made beside the unpadded ones.
        if (needed := 2 * n * x.nbytes) > room:
            raise ValueError(
                f"networks: {n:,} of {len(x):,} samples and {x.shape[1]} components take {needed / 1e9:.1f} GB, but this "
                f"machine has {room / 1e9:.1f}; give a smaller n_samples, or select some networks by `where` and `limit`"
            )
        yield x


def centred(states: np.ndarray, n_samples: int) -> np.ndarray:
    """Take at most n_samples of the states (trial, time, state), evenly spread, and subtract their mean: (sample, state).

    >>> centred(np.arange(6.0).reshape(2, 3, 1), 6).ravel().tolist()
    [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]
    """
    flat = states.reshape(-1, states.shape[-1])
    flat = flat[spread(len(flat), n_samples)]
    return flat - flat.mean(axis=0)


def precision_of(states: np.ndarray) -> float:
    """Return the relative rounding of states: that of float32 if all of them are exact in float32, as if stored so.

    >>> precision_of(np.array([0.1])) < precision_of(np.array([0.1], np.float32))
    True
    """
    is_float32 = (states == states.astype(np.float32)).all()
    return float(np.finfo(np.float32 if is_float32 else np.float64).eps)


def _of_samples(inputs: View[Comparison], x: np.ndarray, eps: float) -> np.ndarray:
    # Shapes are compared at size 1: the distance is the angle between them (Williams et al. 2021).
    if inputs.method == "procrustes":
        return x / np.linalg.norm(x)
    if inputs.method == "cka":
        # |X'X|_F is the norm of the centred Gram matrix X X', so that the CKA of two features is |X'Y|_F^2.
        return x / np.sqrt(np.linalg.norm(x.T @ x))
    # The median distance scales the kernel, so that it does not depend on the units' scale (Kornblith et al. 2019).
    if inputs.method == "rbf_cka":
        middle = np.median(scipy.spatial.distance.pdist(x))
        if not middle:
            raise ValueError(
                "method: rbf_cka: more than half of a network's states coincide, so that their median distance, which scales "
                "the kernel, is 0; give method cka"
            )
        return x / (inputs.bandwidth * middle)
    # SVCCA is canonical correlation after a cut of the principal components; plain CCA keeps all of them.
    return principal_directions(x, inputs.variance if inputs.method == "svcca" else 1.0, eps)


def principal_directions(x: np.ndarray, variance: float, eps: float) -> np.ndarray:
    """The fewest left singular vectors of x (sample, state) that hold this share of its variance: (sample, k), orthonormal.

    Directions below rounding, eps of the states, which come from units that others determine, are left out.

    >>> x = np.array([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> principal_directions(x, 0.8, 1e-16).shape, principal_directions(x, 1.0, 1e-16).shape
    ((4, 1), (4, 2))
    """
    u, s, _ = np.linalg.svd(x, full_matrices=False)
    rank = int((s > s[0] * max(x.shape) * eps).sum())
    share = np.cumsum(s**2) / np.sum(s**2)
    # cumsum may end below 1 by rounding, which searchsorted would not find.
    k = rank if variance == 1 else int(np.searchsorted(share, variance)) + 1
    return u[:, : min(k, rank)]


def _check_samples(shapes: Sequence[tuple[int, int]]) -> None:
    """Raise ValueError if two networks would correlate by dimension alone: subspaces with k1 + k2 >= m of m samples meet."""
    m, k = shapes[0][0], max(shape[1] for shape in shapes)
    if 2 * k >= m:
        raise ValueError(
            f"n_samples: {m} samples for networks of {k} components; with no more than twice as many samples, any two "
            f"networks correlate perfectly; give more trials, or a smaller variance of svcca"
        )


def _padded(arrays: Sequence[np.ndarray], dtype: str) -> Features:
    rows, columns = (max(x.shape[axis] for x in arrays) for axis in (0, 1))
    values = np.zeros((len(arrays), rows, columns), dtype)
    for into, x in zip(values, arrays, strict=True):
        into[: x.shape[0], : x.shape[1]] = x
    return Features(on_host(values), on_host([x.shape[1] for x in arrays], dtype))


# --- states in trials -----------------------------------------------------------------------------


class Trials(NamedTuple):
    """Trials that dynamics are fitted to."""

    states: list[np.ndarray]
    """Each (time, state)."""
    inputs: list[np.ndarray] | None
    """Each (time, n_in); None where dynamics are fitted to states alone."""


def trials(name: str, states: ArrayLike, inputs: ArrayLike | None = None) -> Trials:
    """Cut states (trial, time, state) and inputs (trial, time, n_in) into trials; a shorter trial ends in NaN.

    Without the first axis they are one trial. name: of the network, for errors. Raises ValueError.

    >>> cut = trials("a", [[[1.0], [2.0], [np.nan]], [[3.0], [4.0], [5.0]]])
    >>> [len(x) for x in cut.states]
    [2, 3]
    """
    x = _of_trials(name, "states", states)
    is_finite = np.isfinite(x).all(axis=2)
    steps = is_finite.sum(axis=1)
    # `steps` counts the finite states, so that they are the first ones unless one is missing in between.
    if not (is_finite == (np.arange(x.shape[1]) < steps[:, None])).all():
        raise ValueError(
            f"{name}: states are NaN or infinite inside a trial; only the steps after its end may be NaN; leave the "
            "network out"
        )
    if not steps.any():
        raise ValueError(f"{name}: all states are NaN; leave the network out")
    # A trial of NaN alone is left out.
    parts = lambda array: [trial[:n] for trial, n in zip(array, steps, strict=True) if n]
    if inputs is None:
        return Trials(parts(x), None)
    u = _of_trials(name, "inputs", inputs)
    if u.shape[:2] != x.shape[:2]:
        raise ValueError(
            f"{name}: inputs of {u.shape[0]} trials of {u.shape[1]} steps, but states of {x.shape[0]} of {x.shape[1]}; "
            "give the inputs of these trials"
        )
    if not np.isfinite(u[is_finite]).all():
        raise ValueError(f"{name}: inputs are NaN or infinite before a trial ends")
    return Trials(parts(x), parts(u))


def checked(states: Iterable[ArrayLike], names: Sequence[str]) -> Iterator[np.ndarray]:
    """Check the states of each network as they are read: finite, varying, and of common trials; else ValueError.

    Each is (trial, time, state), or (sample, state), which becomes one trial. names: of the networks, for errors.
    """
    first = None
    for name, network_states in zip(names, states, strict=True):
        x = _of_trials(name, "states", network_states)
        first = first or x.shape
        if x.shape[:2] != first[:2]:  # widths may differ: features are padded
            raise ValueError(
                f"{name}: {x.shape[0]} trials of {x.shape[1]} steps, but {names[0]} has {first[0]} of "
                f"{first[1]}; give states of the same trials for all networks"
            )
        check_numbers(f"{name}: states", x, "; leave the network out")
        if np.ptp(x.reshape(-1, x.shape[-1]), axis=0).max(initial=0) == 0:
            raise ValueError(
                f"{name}: its state is the same in all steps, so that nothing can be compared; leave the network out"
            )
        yield x


def _of_trials(name: str, field: str, array: ArrayLike) -> np.ndarray:
    x = np.asarray(array, float)
    x = x[None] if x.ndim == 2 else x
    if x.ndim != 3:
        raise ValueError(
            f"{name}: {field} have the shape {x.shape}; expected (trial, time, {field[:-1]}) or (time, {field[:-1]})"
        )
    return x
