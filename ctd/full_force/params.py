"""The parameters of one network that is trained by full-FORCE."""

from __future__ import annotations

from pydantic import Field

from ctd.kernel import Data, File, Params, Static, Traced


class FullForce(Params):
    """The parameters of one network. The defaults are those of the oscillation demo of briandepasquale/full-FORCE-demos.

    >>> FullForce(n=50).g
    1.5
    """

    trials: File[str | None] = Field(
        None,
        description="HDF5 or .npz file of trials of equal length: `targets` and, if there are any, `inputs` and `hints`, "
        "(trial, time, output), (trial, time, input), (trial, time, hint)",
    )
    test: File[str | None] = Field(
        None,
        description="file of trials to test on, with the same datasets; without it, those that are trained on",
    )
    dt: Data[float] = Field(0.001, gt=0, description="time between two steps, in seconds")
    n: Static[int] = Field(300, gt=0, description="units")
    tau: Traced[float] = Field(0.01, gt=0, description="time constant of the units, in seconds")
    g: Traced[float] = Field(
        1.5,
        ge=0,
        description="gain of the target-generating network, whose weights are N(0, g^2 / n)",
    )
    alpha: Traced[float] = Field(
        1.0,
        gt=0,
        description="learning rate of RLS: P begins as alpha I (ff_alpha of the authors' code is 1 / alpha)",
    )
    input_scale: Traced[float] = Field(
        1.0, ge=0, description="input weights are uniform between -input_scale and input_scale"
    )
    target_scale: Traced[float] = Field(
        1.0,
        ge=0,
        description="likewise, those of the wanted output into the target-generating network",
    )
    hint_scale: Traced[float] = Field(
        1.0, ge=0, description="likewise, those of the hints into that network"
    )
    # Updates come by chance, as in the authors' Python demo; their MATLAB one updates at every second step.
    update_every: Traced[float] = Field(
        2.0, ge=1, description="steps between two updates, on average: each step is one by chance"
    )
    settle: Static[int] = Field(
        3,
        ge=0,
        description="trials before training, and before the test, in which nothing is learnt",
    )
    n_train: Static[int] = Field(100, gt=0, description="training trials; one is an advance")
    n_test: Static[int] = Field(
        10,
        gt=0,
        description="trials of the test, drawn with replacement, in which the network runs alone",
    )
    seed: Traced[int] = Field(
        0,
        ge=0,
        lt=2**31,
        description="replicate: weights, initial states, order of trials, updates",
    )
