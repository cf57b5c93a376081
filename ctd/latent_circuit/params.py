"""The inputs of one latent circuit: its parameters, and trials with the rates of the recorded units."""

from __future__ import annotations

from typing import NamedTuple, Self

import numpy as np
from pydantic import Field, model_validator

from ctd.data import read_recordings
from ctd.kernel import File, Params, Static, Traced, View
from ctd.late import Array, Float, on_host
from ctd.tasks.recorded import EVAL_EVERY, divide
from ctd.training import check_multiple


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
    n: Static[int] = Field(8, gt=0)
    """nodes: one for each input, one for each output, and others"""
    rates_weight: Traced[float] = Field(1.0, ge=0)
    """weight of the error of rates relative to the error of outputs (l_y)"""
    alpha: Traced[float] = Field(0.2, gt=0, le=1)
    """dt / tau of the nodes"""
    noise: Traced[float] = Field(0.15, ge=0)
    """noise inside the rectification at each step: its standard deviation is sqrt(2 alpha) times this (sigma_rec)"""
    batch_size: Static[int] = Field(128, gt=0)
    """trials of a minibatch"""
    n_batches: Static[int] = Field(7500, gt=0)
    """training steps"""
    report_every: Static[int] = Field(100, gt=0)
    """training steps per advance and per entry of the loss curve"""
    learning_rate: Traced[float] = Field(0.02, gt=0)
    """learning rate of Adam"""
    weight_decay: Traced[float] = Field(0.001, ge=0)
    """this times the parameters is added to their gradient before Adam"""
    n_saved: Static[int] = Field(20, ge=0)
    """most evaluation trials whose node activity is stored"""
    seed: Traced[int] = Field(0, ge=0, lt=2**31)
    """replicate: initial weights, minibatches and noise; two items of one seed differ, too"""

    @model_validator(mode="after")
    def _whole_advances(self) -> Self:
        check_multiple(self, "n_batches", "report_every")
        return self


class Trials(NamedTuple):
    """Trials of equal length."""

    inputs: Float[Array, "trial time input"]
    targets: Float[Array, "trial time output"]
    rates: Float[Array, "trial time unit"]


class Shared(NamedTuple):
    """Data that all fits of a group share."""

    training: Trials
    evaluation: Trials
    """Every fifth trial."""


def load(inputs: View[LatentCircuit]) -> Shared:
    """Read, check and divide the trials. Raises ValueError, naming file and dataset, or the field `n`."""
    if (path := inputs.trials) is None:
        raise ValueError("trials: a file of inputs, targets and rates is needed; give its path")
    datasets = read_recordings(path, Trials._fields)
    n = len(datasets["rates"])
    if n < EVAL_EVERY:
        raise ValueError(
            f"{path}: holds {n} trials; at least {EVAL_EVERY} are needed, one of which is for evaluation"
        )
    evaluation, training = divide(Trials(*map(on_host, datasets.values())))
    for name, part in (("", training), (" of evaluation trials", evaluation)):
        # Errors are divided by their variance.
        if not np.ptp(part.rates, axis=(0, 1)).any():
            raise ValueError(f"{path}: rates{name} never change, so that there is nothing to fit")
    n_in, n_out, n_units = (datasets[name].shape[2] for name in Trials._fields)
    # Inputs and outputs have nodes of their own, and Q has at most as many orthonormal columns as units.
    if not n_in + n_out <= inputs.n <= n_units:
        raise ValueError(
            f"n: {inputs.n} nodes given, but {path} has {n_in} inputs and {n_out} outputs, each of which needs a node, and "
            f"{n_units} units; expected {n_in + n_out} to {n_units}"
        )
    cast = lambda part: Trials(*(on_host(a, inputs.dtype) for a in part))
    return Shared(cast(training), cast(evaluation))
