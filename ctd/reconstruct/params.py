"""The parameters of one fit: the recording, the network, how it is forced and trained, and how it is measured."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from ctd.kernel import Data, File, Params, Static, Traced
from ctd.training import check_multiple

FITTED, DIVERGED, AT_REST, WORSE_THAN_MEAN = range(4)
"""The kernel's outcomes."""


class Reconstruction(Params):
    """The parameters of one network that is fitted to recordings.

    >>> Reconstruction(report_every=12)
    Traceback (most recent call last):
        ...
    pydantic_core._pydantic_core.ValidationError: 1 validation error for Reconstruction
      Value error, report_every: 12 given; a multiple of alpha_every = 5 expected ...
    """

    # The defaults are those of DurstewitzLab/GTF-shPLRNN, but for `n_batches` (250,000 there) and `clip_norm` (none there).
    cell: Static[Literal["shplrnn", "shplrnn:clipped", "alrnn"]] = "shplrnn:clipped"
    """the network; orbits of shplrnn:clipped are bounded"""
    data: File[str | None] = None
    """recordings to fit: HDF5, .npz or .npy, (time, channel) or (recording, time, channel)"""
    dataset: Data[str] = "data"
    """name of the recordings in that file"""
    input_dataset: Data[str | None] = None
    """name of the inputs there, (time, input) or with recordings first"""
    test: File[str | None] = None
    """file to measure on, with the same datasets; by default `data`"""
    standardise: Data[bool] = True
    """whether each channel gets mean 0 and variance 1 over what is fitted"""
    dt: Data[float] = Field(1.0, gt=0)
    """time between two samples, in any unit; exponents and frequencies are per that unit"""
    n: Static[int] = Field(3, gt=0)
    """units; with observation: identity, at least as many as channels"""
    hidden: Static[int] = Field(100, gt=0)
    """hidden units of a shplrnn"""
    rectified: Static[int] = Field(2, gt=0)
    """number of rectified units of an alrnn: its last ones"""
    observation: Static[Literal["identity", "affine"]] = "identity"
    """identity: the first units are the channels; affine: channels are a trained affine map of all units"""
    forcing: Static[Literal["bound", "constant", "sparse"]] = Field(
        "bound",
        description="how data enter in training. constant: z <- (1 - alpha) z + alpha z_data at each step; bound: the same, alpha from "
        "the product bound of Jacobian norms; sparse: z <- z_data every `interval` steps",
    )
    # With alpha = 1 the data replace the state: training begins there, and `bound` lets alpha fall.
    alpha: Traced[float] = Field(1.0, ge=0, le=1)
    """forcing constant: strength of the forcing; bound: its first strength"""
    anneal: Traced[float] = Field(0.999, ge=0, le=1)
    """forcing bound: share of alpha that an update keeps while alpha falls"""
    alpha_every: Static[int] = Field(5, gt=0)
    """forcing bound: training steps between two updates of alpha"""
    interval: Traced[int] = Field(16, gt=0, lt=2**31)
    """forcing sparse: steps from one forced step to the next, tau"""
    noise: Traced[float] = Field(0.0, ge=0)
    """sd of noise on the data, in training"""
    l2: Traced[float] = Field(1e-5, ge=0)
    """penalty on the squared weights of the network, and on (1 - A)^2"""
    l2_observation: Traced[float] = Field(0.0, ge=0)
    """penalty on the squared weights of the observation"""
    learning_rate: Traced[float] = Field(1e-3, gt=0)
    """learning rate of RAdam at the first step"""
    final_learning_rate: Traced[float] = Field(1e-6, gt=0)
    """learning rate at the last step; between first and last it falls exponentially"""
    clip_norm: Traced[float] = Field(10.0, gt=0)
    """largest norm of the gradient"""
    length: Static[int] = Field(200, gt=0)
    """steps of a training sequence"""
    batch_size: Static[int] = Field(16, gt=0)
    """sequences of a minibatch"""
    n_batches: Static[int] = Field(25_000, gt=0)
    """training steps"""
    report_every: Static[int] = Field(100, gt=0)
    """training steps per advance and per entry of the loss curve"""
    # D_stsp_bins, PSE_smoothing and PE_n of the same code.
    bins: Static[int] = Field(30, gt=1)
    """bins of a channel for D_stsp"""
    smoothing: Static[float] = Field(
        20.0,
        gt=0,
        description="sd of the kernel that smooths spectra for D_H, in frequency steps of the FFT, 1 / (samples dt); choose it well "
        "below the data's peak frequency",
    )
    ahead: Static[int] = Field(20, gt=0)
    """n of the prediction error PE(n)"""
    transient: Static[float] = Field(
        0.25,
        ge=0,
        description="length of the free run before it is measured, in lengths of the recording; with inputs always 0. Give 0 for trials "
        "that settle, so that their beginning is measured too",
    )
    n_saved: Static[int] = Field(1000, gt=0)
    """most states of the free run to store"""
    seed: Traced[int] = Field(0, ge=0, lt=2**31)
    """replicate: initial weights and minibatches; two items of one seed differ, too"""

    @field_validator("data", "test", mode="before")
    @classmethod
    def _one_file(cls, path: object) -> object:
        if isinstance(path, list | tuple):
            raise ValueError(
                "one file expected; stack several recordings as (recording, time, channel): numpy.stack([a, b])"
            )
        return path

    @model_validator(mode="after")
    def _whole_blocks(self) -> Self:
        # An advance is one block, of whole scans between two updates of alpha.
        for name, part in (("report_every", "alpha_every"), ("n_batches", "report_every")):
            check_multiple(self, name, part)
        if self.cell == "alrnn" and self.rectified > self.n:
            raise ValueError(f"rectified: {self.rectified} given, but there are n = {self.n} units")
        return self
