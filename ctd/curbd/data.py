"""The recorded activity that networks are constrained by, and the regions of its units."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ctd.curbd.params import Curbd
from ctd.data import read_arrays, recordings_of
from ctd.kernel import View
from ctd.late import Array, Float, on_host

HIGHEST = 0.999
"""Activity is cut off here, since a unit reaches 1 at an infinite current alone."""


class Shared(NamedTuple):
    """Data that all fits of a group share."""

    x: Float[Array, "recording time unit"]
    """Activity, within +-HIGHEST."""
    member: Float[Array, "region unit"]
    """1 where the unit belongs to the region, else 0."""
    dt: Float[Array, ""]


def load(inputs: View[Curbd]) -> Shared:
    """Read, check and scale the activity. Raises ValueError, naming file and dataset, or the field `regions`."""
    if inputs.data is None:
        raise ValueError("data: a file of activity (time, unit) is needed; give its path")
    found = read_arrays(inputs.data, inputs.dataset)
    x = recordings_of(inputs.data, inputs.dataset, found)
    what = f"{inputs.data}: {inputs.dataset}"
    if x.shape[1] < 2:
        raise ValueError(f"{what} has {x.shape[1]} bin; a recording of at least 2 expected")
    # A unit that is silent throughout has no peak, and tells nothing about its inputs.
    constant = np.flatnonzero(np.ptp(x, axis=(0, 1)) == 0)
    if constant.size:
        raise ValueError(f"{what}: unit {constant[0]} never changes; leave it out")
    member = members(inputs.regions, x.shape[2])
    # Without scaling, larger activity would be cut off at HIGHEST.
    if inputs.scale == "none" and (largest := np.abs(x).max()) > 1:
        raise ValueError(
            f"{what}: activity reaches {largest:.4g} in magnitude and leaves the range of tanh, -1 to 1; give scale: peak or unit"
        )
    if inputs.scale != "none":
        # One factor keeps the units' sizes relative to each other; `unit` gives each its own.
        x = x / np.abs(x).max((0, 1) if inputs.scale == "unit" else None)
    as_type = lambda value: on_host(value, inputs.dtype)
    return Shared(as_type(np.clip(x, -HIGHEST, HIGHEST)), as_type(member), as_type(inputs.dt))


def members(regions: Mapping[str, str], n: int) -> np.ndarray:
    """(region, unit) 1 where one of n units belongs to a region. Raises ValueError unless each belongs to exactly one.

    >>> members({"A": "0-1, 3", "B": "2"}, 4).astype(int).tolist()
    [[1, 1, 0, 1], [0, 0, 1, 0]]
    """
    if not regions:
        raise ValueError(
            f"regions: none given, but currents are divided by regions; give each its units, such as {{A: 0-{n - 1}}}"
        )
    names, found = list(regions), np.zeros((len(regions), n))
    for row, (name, text) in enumerate(regions.items()):
        for first, last in _ranges(name, text):
            if last >= n or first > last:
                raise ValueError(
                    f"regions: {name}: {first}-{last} given, but the recording has units 0 to {n - 1}"
                )
            found[row, first : last + 1] = 1
    count = found.sum(0)
    if (twice := np.flatnonzero(count > 1)).size:
        both = " and ".join(names[k] for k in np.flatnonzero(found[:, twice[0]])[:2])
        raise ValueError(f"regions: unit {twice[0]} lies in {both}; give it to one of them")
    if (nowhere := np.flatnonzero(count == 0)).size:
        raise ValueError(
            f"regions: unit {nowhere[0]} lies in none of {', '.join(names)}; give it to one, or leave it out of the recording"
        )
    return found


def _ranges(name: str, text: str) -> list[tuple[int, int]]:
    """The (first, last) units of a text such as "0-9, 12"."""
    found = []
    for part in text.split(","):
        first, _, last = part.partition("-")  # "12" is 12 to 12
        try:
            found.append((int(first), int(last or first)))
        except ValueError:
            raise ValueError(
                f"regions: {name}: {text!r} given; units and ranges expected, such as '0-9, 12'"
            ) from None
    return found
