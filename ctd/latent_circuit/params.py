"""The parameters of one latent circuit."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from ctd.kernel import File, Params, Static, Traced


class LatentCircuit(Params):
    """The parameters of one fit. The defaults are those of the tutorial of engellab/latentcircuit.

    >>> LatentCircuit(n_batches=120)
    Traceback (most recent call last):
        ...
    pydantic_core._pydantic_core.ValidationError: 1 validation error for LatentCircuit
      Value error, n_batches: 120 given; a multiple of report_every = 100 expected ...
    """

    trials: File[str | None] = Field(
        None,
        description="HDF5 or .npz file of trials of equal length: `inputs` (trial, time, input), `targets` (trial, time, output) and "
        "`rates` (trial, time, unit), what the recorded units do; every fifth trial is kept for evaluation",
    )
    n: Static[int] = Field(
        8, gt=0, description="nodes: one for each input, one for each output, and others"
    )
    rates_weight: Traced[float] = Field(
        1.0, ge=0, description="weight of the error of rates beside that of outputs (l_y)"
    )
    alpha: Traced[float] = Field(0.2, gt=0, le=1, description="dt / tau of the nodes")
    noise: Traced[float] = Field(
        0.15,
        ge=0,
        description="noise within the rectification at each step, of standard deviation sqrt(2 alpha) times this (sigma_rec)",
    )
    batch_size: Static[int] = Field(128, gt=0, description="trials of a minibatch")
    n_batches: Static[int] = Field(7500, gt=0, description="training steps")
    report_every: Static[int] = Field(
        100, gt=0, description="training steps per advance and per entry of the loss curve"
    )
    learning_rate: Traced[float] = Field(0.02, gt=0, description="learning rate of Adam")
    weight_decay: Traced[float] = Field(
        0.001, ge=0, description="times the parameters, added to their gradient before Adam"
    )
    n_saved: Static[int] = Field(
        20, ge=0, description="evaluation trials whose node activity is stored, at most"
    )
    seed: Traced[int] = Field(
        0, ge=0, lt=2**31, description="replicate: initial weights, minibatches and noise"
    )

    @model_validator(mode="after")
    def _whole_advances(self) -> Self:
        if self.n_batches % self.report_every:
            raise ValueError(
                f"n_batches: {self.n_batches} given; a multiple of report_every = {self.report_every} expected"
            )
        return self
