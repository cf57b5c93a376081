"""The inputs of one fit: its parameters, the recorded activity, and the regions of its units."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, Self

import numpy as np
from pydantic import Field, field_validator, model_validator

from ctd.data import read_recordings
from ctd.kernel import Data, File, Params, Static, Traced, View
from ctd.late import Array, Float, on_host
from ctd.training import check_multiple

HIGHEST = 0.999
"""Activity is cut off here, since a unit reaches 1 at an infinite current alone."""


class Curbd(Params):
    """The parameters of one fit. Times have the unit of `dt`; the defaults are those of rajanlab/CURBD's example.

    >>> Curbd(n_runs=12)
    Traceback (most recent call last):
        ...
    pydantic_core._pydantic_core.ValidationError: 1 validation error for Curbd
      Value error, n_runs: 12 given; a multiple of report_every = 5 expected ...
    """

    data: File[str | None] = None
    """recorded activity: HDF5, .npz or .npy, (time, unit) or (recording, time, unit)"""
    dataset: Data[str] = "data"
    """name of the activity in that file"""
    regions: Data[dict[str, str]] = Field({})
    """region -> its units, counted from 0, as ranges that include their ends: {V1: 0-99, M2: '100-149, 160'}"""
    scale: Data[Literal["peak", "unit", "none"]] = Field(
        "peak",
        description="how activity gets into the range of tanh. peak: all of it is divided by its largest magnitude; unit: each unit "
        "by its own; none: it lies between -1 and 1 already",
    )
    dt: Data[float] = Field(0.01, gt=0)
    """time between two bins of the recording; tau and tau_noise have the same unit"""
    steps: Static[int] = Field(5, gt=0)
    """Euler steps in one bin (dtFactor)"""
    # lag 0 is the equation of the paper, but results compare with those of rajanlab/CURBD at lag 1 alone.
    lag: Static[Literal[0, 1]] = 1
    """the rates at a bin are pulled towards the activity this many bins before; 1 in the authors' code"""
    tau: Traced[float] = Field(0.1, gt=0)
    """time constant of the units"""
    g: Traced[float] = Field(1.5, ge=0)
    """gain of the initial weights, N(0, g^2 / units)"""
    # RLS of given rates minimises the squared errors plus |J - J_0|^2 / alpha.
    alpha: Traced[float] = Field(1.0, gt=0)
    """learning rate of RLS: P begins as alpha I (P0)"""
    noise: Traced[float] = Field(0.01, ge=0)
    """amplitude of the noise input (ampInWN)"""
    tau_noise: Traced[float] = Field(0.1, gt=0)
    """time constant that filters the noise (tauWN)"""
    n_runs: Static[int] = Field(500, gt=0)
    """training runs through the recordings (nRunTrain)"""
    report_every: Static[int] = Field(5, gt=0)
    """training runs per advance"""
    n_saved: Static[int] = Field(2000, gt=0)
    """most bins of the first recording's free run to store"""
    record: Static[tuple[Literal["currents", "rates", "weights"], ...]] = (
        "currents",
        "rates",
        "weights",
    )
    """results to store: currents by source region, rates of the free run, weights"""
    seed: Traced[int] = Field(0, ge=0, lt=2**31)
    """replicate: initial weights and noise; two items of one seed differ, too"""

    @field_validator("regions", mode="before")
    @classmethod
    def _ranges_as_text(cls, regions: object) -> object:
        for name, units in regions.items() if isinstance(regions, dict) else ():
            if not isinstance(units, str | int):
                raise ValueError(f"{name}: units as text expected, such as '0-14' or '0-9, 12'")
        return regions

    @model_validator(mode="after")
    def _whole_advances(self) -> Self:
        check_multiple(self, "n_runs", "report_every")
        return self


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
    x = read_recordings(inputs.data, [inputs.dataset])[inputs.dataset]
    source = f"{inputs.data}: {inputs.dataset}"
    if x.shape[1] < 2:
        raise ValueError(f"{source} has {x.shape[1]} bin; a recording of at least 2 expected")
    # A unit that is silent throughout has no peak, and tells nothing about its inputs.
    constant = np.flatnonzero(np.ptp(x, axis=(0, 1)) == 0)
    if constant.size:
        raise ValueError(f"{source}: unit {constant[0]} never changes; leave it out")
    member = members(inputs.regions, x.shape[2])
    size = np.abs(x)
    # Without scaling, larger activity would be cut off at HIGHEST.
    if inputs.scale == "none" and size.max() > 1:
        raise ValueError(
            f"{source}: activity reaches {size.max():.4g} in magnitude and leaves the range of tanh, -1 to 1; give scale: peak or unit"
        )
    if inputs.scale != "none":
        # One factor keeps the units' sizes relative to each other; `unit` gives each its own.
        x = x / size.max((0, 1) if inputs.scale == "unit" else None)
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
    names, member = list(regions), np.zeros((len(regions), n))
    for row, (name, text) in enumerate(regions.items()):
        for first, last in _ranges(name, text):
            if last >= n or first > last:
                raise ValueError(
                    f"regions: {name}: {first}-{last} given, but the recording has units 0 to {n - 1}"
                )
            member[row, first : last + 1] = 1
    count = member.sum(0)
    if (twice := np.flatnonzero(count > 1)).size:
        both = " and ".join(names[k] for k in np.flatnonzero(member[:, twice[0]])[:2])
        raise ValueError(f"regions: unit {twice[0]} lies in {both}; give it to one of them")
    if (nowhere := np.flatnonzero(count == 0)).size:
        raise ValueError(
            f"regions: unit {nowhere[0]} lies in none of {', '.join(names)}; give it to one, or leave it out of the recording"
        )
    return member


def _ranges(name: str, text: str) -> list[tuple[int, int]]:
    """The (first, last) units of a text such as "0-9, 12"."""
    ranges = []
    for part in text.split(","):
        first, _, last = part.partition("-")  # "12" is 12 to 12
        try:
            ranges.append((int(first), int(last or first)))
        except ValueError:
            raise ValueError(
                f"regions: {name}: {text!r} given; units and ranges expected, such as '0-9, 12'"
            ) from None
    return ranges
