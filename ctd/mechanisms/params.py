"""The parameters of one recording: of a known mechanism, or of the user's own spikes."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from ctd.kernel import Data, File, Params, Static, Traced
from ctd.mechanisms.counts import MOST_MEAN
from ctd.mechanisms.families import NAMES


class Recording(Params):
    """The parameters of one recording.

    >>> Recording(n_neurons=2)
    Traceback (most recent call last):
        ...
    pydantic_core._pydantic_core.ValidationError: 1 validation error for Recording
      Value error, n_neurons: 2 given, but 3 factors are taken of them; give more neurons or fewer factors ...
    """

    data: File[str | None] = Field(
        None,
        description="spike counts of one's own, (trial, time, unit): HDF5, .npz or .npy; without it a mechanism is recorded",
    )
    dataset: Data[str] = Field(
        "train", description="name of the counts in that file; `eval`, where it is there, is added"
    )
    atlas: File[str | None] = Field(
        None,
        description="table of mechanisms.evidence; a recording whose size it does not have is refused",
    )
    mechanism: Traced[int] = Field(
        0, ge=0, lt=len(NAMES), description="which: " + ", ".join(f"{k} {n}" for k, n in enumerate(NAMES))
    )  # fmt: skip
    n_neurons: Static[int] = Field(50, gt=0, description="recorded neurons; not used with `data`")
    n_trials: Static[int] = Field(200, gt=1, description="trials; not used with `data`")
    n_bins: Static[int] = Field(
        50, ge=20, description="bins of a trial; longer trials of `data` are cut to them"
    )
    mean_count: Traced[float] = Field(
        0.5, gt=0, le=MOST_MEAN, description="mean spike count of a bin"
    )
    gain: Traced[float] = Field(0.8, gt=0, description="sd of a neuron's log rate")
    noise: Traced[float] = Field(
        0.02, ge=0, description="sd of the noise on the mechanism's state in a bin"
    )
    smoothing: Traced[float] = Field(
        2.0, gt=0, description="sd (bins) of the Gaussian that smooths counts"
    )
    n_factors: Static[int] = Field(
        3, ge=3, le=8, description="principal components of smoothed counts: what models are fitted to"
    )  # fmt: skip
    seed: Traced[int] = Field(
        0, ge=0, lt=2**31, description="member of the family: geometry, time scale, readout, spikes"
    )

    @model_validator(mode="after")
    def _enough_neurons(self) -> Self:
        if self.n_neurons < self.n_factors:
            raise ValueError(
                f"n_neurons: {self.n_neurons} given, but {self.n_factors} factors are taken of them; give more neurons or fewer "
                "factors"
            )
        return self
