"""The trials that a latent circuit is fitted to: inputs, outputs, and the rates of the recorded units."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ctd.data import read_arrays, recordings_of
from ctd.kernel import View
from ctd.late import Array, Float, on_host
from ctd.latent_circuit.params import LatentCircuit
from ctd.tasks.recorded import EVAL_EVERY


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
    path = inputs.trials
    if path is None:
        raise ValueError(
            "trials: a file of inputs, targets and rates (trial, time, ...) is needed; give its path"
        )
    there = read_arrays(path, "rates")
    found = {name: recordings_of(path, name, there) for name in Trials._fields}
    first = found["inputs"].shape[:2]
    for name, array in found.items():
        if array.shape[:2] != first:
            raise ValueError(
                f"{path}: {name} has {array.shape[0]} trials of {array.shape[1]} steps, but inputs has {first[0]} of "
                f"{first[1]}; all need the same"
            )
    if first[0] < EVAL_EVERY:
        raise ValueError(
            f"{path}: holds {first[0]} trials; at least {EVAL_EVERY} are needed, one of which is for evaluation"
        )
    # The division of ctd.tasks.Recorded.
    held = np.arange(first[0]) % EVAL_EVERY == EVAL_EVERY - 1
    for name, some in (("", ~held), (" of evaluation trials", held)):
        # Errors are divided by their variance.
        if not np.ptp(found["rates"][some], axis=(0, 1)).any():
            raise ValueError(f"{path}: rates{name} never change, so that there is nothing to fit")
    n_in, n_out, n_units = (found[name].shape[2] for name in Trials._fields)
    # Inputs and outputs have nodes of their own, and Q has at most as many orthonormal columns as units.
    if not n_in + n_out <= inputs.n <= n_units:
        raise ValueError(
            f"n: {inputs.n} nodes given, but {path} has {n_in} inputs and {n_out} outputs, each of which needs a node, and "
            f"{n_units} units; expected {n_in + n_out} to {n_units}"
        )
    take = lambda which: Trials(*(on_host(a[which], inputs.dtype) for a in found.values()))
    return Shared(take(~held), take(held))
