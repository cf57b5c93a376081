"""The inputs of one network that is trained by full-FORCE: its parameters, and the trials that they name."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from pydantic import Field

from ctd.data import read_recordings
from ctd.kernel import Data, File, Params, Static, Traced, View
from ctd.late import Array, Float, on_host


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
    test: File[str | None] = None
    """file of trials to test on, with the same datasets; by default `trials`"""
    dt: Data[float] = Field(0.001, gt=0)
    """time between two steps, in seconds"""
    n: Static[int] = Field(300, gt=0)
    """units"""
    tau: Traced[float] = Field(0.01, gt=0)
    """time constant of the units, in seconds"""
    g: Traced[float] = Field(1.5, ge=0)
    """gain of the target-generating network, of weights N(0, g^2 / n)"""
    alpha: Traced[float] = Field(1.0, gt=0)
    """learning rate of RLS: P begins as alpha I (ff_alpha of the authors' code is 1 / alpha)"""
    input_scale: Traced[float] = Field(1.0, ge=0)
    """input weights are uniform between -input_scale and input_scale"""
    target_scale: Traced[float] = Field(1.0, ge=0)
    """the same for the weights of the wanted output into the target-generating network"""
    hint_scale: Traced[float] = Field(1.0, ge=0)
    """the same for the weights of the hints into that network"""
    # Updates come by chance, as in the authors' Python demo; their MATLAB one updates at every second step.
    update_every: Traced[float] = Field(2.0, ge=1)
    """mean number of steps between two updates; which steps update is drawn at random"""
    settle: Static[int] = Field(3, ge=0)
    """trials without learning before training, and before the test, where they drive the network"""
    n_train: Static[int] = Field(100, gt=0)
    """training trials; one is an advance"""
    n_test: Static[int] = Field(10, gt=0)
    """test trials, drawn with replacement, in which the network runs alone"""
    seed: Traced[int] = Field(0, ge=0, lt=2**31)
    """replicate: weights, states, order of trials, updates; two items of one seed differ, too"""


class Trials(NamedTuple):
    """Trials of equal length, and those of the test; no columns where there are no inputs or no hints."""

    inputs: Float[Array, "trial time input"]
    targets: Float[Array, "trial time output"]
    hints: Float[Array, "trial time hint"]
    dt: Float[Array, ""]
    test_inputs: Float[Array, "test_trial time input"]
    test_targets: Float[Array, "test_trial time output"]


def load(inputs: View[FullForce]) -> Trials:
    """Read and check the trials. Raises ValueError, naming file and dataset."""
    if inputs.trials is None:
        raise ValueError("trials: a file of targets (trial, time, output) is needed; give its path")
    trained = _read(inputs.trials)
    tested = trained if inputs.test is None else _read(inputs.test)
    trials = trained | {f"test_{name}": tested[name] for name in ("inputs", "targets")}
    for name in ("inputs", "targets"):
        # One array of outputs, (time, output), is stored of either.
        test_shape, expected = trials[f"test_{name}"].shape[1:], trials[name].shape[1:]
        if test_shape != expected:
            raise ValueError(
                f"test: {inputs.test}: {name} (time, column) are {test_shape}, but those of {inputs.trials} {expected}"
            )
    return Trials(**{k: on_host(v, inputs.dtype) for k, v in (trials | {"dt": inputs.dt}).items()})


def _read(path: str) -> dict[str, np.ndarray]:
    """The inputs, targets and hints of a file."""
    datasets = read_recordings(path, ["targets"], ["inputs", "hints"])
    targets = datasets["targets"]
    if targets.shape[1] < 2:
        raise ValueError(f"{path}: targets has {targets.shape[1]} step; at least 2 expected")
    silent = np.flatnonzero((targets == 0).all((0, 1)))  # errors are divided by sum f^2
    if silent.size:
        raise ValueError(
            f"{path}: targets: output {silent[0]} is 0 throughout, so that no error is relative to it; leave it out"
        )
    # A task without inputs or hints has arrays without columns, whose products with weights are 0.
    return dict.fromkeys(("inputs", "hints"), targets[..., :0]) | datasets
