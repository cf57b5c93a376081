"""The parameters of one network that is constrained by recorded activity."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from ctd.kernel import Data, File, Params, Static, Traced


class Curbd(Params):
    """The parameters of one fit. Times have the unit of `dt`; the defaults are those of rajanlab/CURBD's example.

    >>> Curbd(n_runs=12)
    Traceback (most recent call last):
        ...
    pydantic_core._pydantic_core.ValidationError: 1 validation error for Curbd
      Value error, n_runs: 12 given; a multiple of report_every = 5 expected ...
    """

    data: File[str | None] = Field(
        None,
        description="recorded activity: HDF5, .npz or .npy, (time, unit) or (recording, time, unit)",
    )
    dataset: Data[str] = Field("data", description="name of the activity in that file")
    regions: Data[dict[str, str]] = Field(
        {},
        description="region -> its units, counted from 0, as ranges that include their ends: {V1: 0-99, M2: '100-149, 160'}",
    )
    scale: Data[Literal["peak", "unit", "none"]] = Field(
        "peak",
        description="how activity gets into the range of tanh. peak: all of it is divided by its largest magnitude; unit: each unit "
        "by its own; none: it lies between -1 and 1 already",
    )
    dt: Data[float] = Field(0.01, gt=0, description="time between two bins of the recording")
    steps: Static[int] = Field(
        5, gt=0, description="Euler steps of the network in one bin (dtFactor)"
    )
    # lag 0 is the equation of the paper, but results compare with those of rajanlab/CURBD at lag 1 alone.
    lag: Static[Literal[0, 1]] = Field(
        1,
        description="bins by which the wanted activity lags behind the network: 1 in the code of the paper's authors",
    )
    tau: Traced[float] = Field(0.1, gt=0, description="time constant of the units")
    g: Traced[float] = Field(
        1.5, ge=0, description="gain of the initial weights, N(0, g^2 / units)"
    )
    # RLS of given rates minimises the squared errors plus |J - J_0|^2 / alpha.
    alpha: Traced[float] = Field(
        1.0, gt=0, description="learning rate of RLS: P begins as alpha I (P0)"
    )
    noise: Traced[float] = Field(0.01, ge=0, description="amplitude of the noise input (ampInWN)")
    tau_noise: Traced[float] = Field(
        0.1, gt=0, description="time constant that filters the noise (tauWN)"
    )
    n_runs: Static[int] = Field(
        500, gt=0, description="training runs through the recordings (nRunTrain)"
    )
    report_every: Static[int] = Field(5, gt=0, description="training runs per advance")
    n_saved: Static[int] = Field(
        2000,
        gt=0,
        description="bins of the free run of the first recording that are stored, at most",
    )
    record: Static[tuple[Literal["currents", "rates", "weights"], ...]] = Field(
        ("currents", "rates", "weights"),
        description="results to store: currents by source region, rates of the free run, weights",
    )
    seed: Traced[int] = Field(0, ge=0, lt=2**31, description="replicate: initial weights and noise")

    @field_validator("regions", mode="before")
    @classmethod
    def _ranges_as_text(cls, given: object) -> object:
        for name, units in given.items() if isinstance(given, dict) else ():
            if not isinstance(units, str | int):
                raise ValueError(f"{name}: units as text expected, such as '0-14' or '0-9, 12'")
        return given

    @model_validator(mode="after")
    def _whole_advances(self) -> Self:
        if self.n_runs % self.report_every:
            raise ValueError(
                f"n_runs: {self.n_runs} given; a multiple of report_every = {self.report_every} expected"
            )
        return self
