"""States of networks in trials, checked: in the same trials, or trials of any length where dynamics are fitted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ctd.containers import check_numbers


class Trials(NamedTuple):
    """Trials that dynamics are fitted to."""

    states: list[np.ndarray]
    """Each (time, state)."""
    inputs: list[np.ndarray] | None
    """Each (time, n_in); None where dynamics are fitted to states alone."""


def trials(name: str, states: ArrayLike, inputs: ArrayLike | None = None) -> Trials:
    """Cut states (trial, time, state) and inputs (trial, time, n_in) into trials; a shorter trial ends in NaN.

    Without the first axis they are one trial. name: of the network, for errors. Raises ValueError.

    >>> found = trials("a", [[[1.0], [2.0], [np.nan]], [[3.0], [4.0], [5.0]]])
    >>> [len(x) for x in found.states]
    [2, 3]
    """
    x = _of_trials(name, "states", states)
    there = np.isfinite(x).all(axis=2)
    steps = there.sum(axis=1)
    # `steps` counts the finite states, so that they are the first ones unless one is missing in between.
    if not (there == (np.arange(x.shape[1]) < steps[:, None])).all():
        raise ValueError(
            f"{name}: states are NaN or infinite inside a trial; only the steps after its end may be NaN; leave the "
            "network out"
        )
    if not steps.any():
        raise ValueError(f"{name}: all states are NaN; leave the network out")
    # A trial of NaN alone is left out.
    parts = lambda array: [one[:n] for one, n in zip(array, steps, strict=True) if n]
    if inputs is None:
        return Trials(parts(x), None)
    u = _of_trials(name, "inputs", inputs)
    if u.shape[:2] != x.shape[:2]:
        raise ValueError(
            f"{name}: inputs of {u.shape[0]} trials of {u.shape[1]} steps, but states of {x.shape[0]} of {x.shape[1]}; "
            "give the inputs of these trials"
        )
    if not np.isfinite(u[there]).all():
        raise ValueError(f"{name}: inputs are NaN or infinite before a trial ends")
    return Trials(parts(x), parts(u))


def checked(states: Iterable[ArrayLike], names: Sequence[str]) -> Iterator[np.ndarray]:
    """Check the states of each network as they are read: finite, varying, and of common trials; else ValueError.

    Each is (trial, time, state), or (sample, state), which becomes one trial. names: of the networks, for errors.
    """
    first = None
    for name, given in zip(names, states, strict=True):
        x = _of_trials(name, "states", given)
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


def _of_trials(name: str, what: str, given: ArrayLike) -> np.ndarray:
    x = np.asarray(given, float)
    x = x[None] if x.ndim == 2 else x
    if x.ndim != 3:
        raise ValueError(
            f"{name}: {what} have the shape {x.shape}; expected (trial, time, {what[:-1]}) or (time, {what[:-1]})"
        )
    return x
