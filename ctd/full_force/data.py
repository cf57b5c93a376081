"""The trials: inputs, wanted outputs, and hints for the target-generating network."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ctd.data import read_arrays, recordings_of
from ctd.full_force.params import FullForce
from ctd.kernel import View
from ctd.late import Array, Float, on_host


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
    for name in ("inputs", "targets"):
        # One array of outputs, (time, output), is stored of either.
        found, expected = tested[name].shape[1:], trained[name].shape[1:]
        if found != expected:
            raise ValueError(
                f"test: {inputs.test}: {name} (time, column) are {found}, but those of {inputs.trials} {expected}"
            )
    as_type = lambda value: on_host(value, inputs.dtype)
    made = {name: as_type(array) for name, array in trained.items()}
    made |= {f"test_{name}": as_type(tested[name]) for name in ("inputs", "targets")}
    return Trials(**made, dt=as_type(inputs.dt))


def _read(path: str) -> dict[str, np.ndarray]:
    """The inputs, targets and hints of a file."""
    there = read_arrays(path, "targets")
    targets = recordings_of(path, "targets", there)
    if targets.shape[1] < 2:
        raise ValueError(f"{path}: targets has {targets.shape[1]} step; at least 2 expected")
    silent = np.flatnonzero((targets == 0).all((0, 1)))  # errors are divided by sum f^2
    if silent.size:
        raise ValueError(
            f"{path}: targets: output {silent[0]} is 0 throughout, so that no error is relative to it; leave it out"
        )
    made = {"targets": targets}
    for name in ("inputs", "hints"):
        # A task without inputs or hints has arrays without columns, whose products with weights are 0.
        found = recordings_of(path, name, there) if name in there else targets[..., :0]
        if found.shape[:2] != targets.shape[:2]:
            raise ValueError(
                f"{path}: {name} has {found.shape[0]} trials of {found.shape[1]} steps, but targets has "
                f"{targets.shape[0]} of {targets.shape[1]}; both need the same"
            )
        made[name] = found
    return made
