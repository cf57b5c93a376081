"""Kernel: a file's trial, again and again, as one series: what FORCE, which trains a readout alone, learns it from."""

from typing import Any

import numpy as np
from pydantic import Field

from ctd.data import read_arrays
from ctd.kernel import Data, File, Params, Var, one_shot


class Series(Params):
    """The parameters of a series."""

    trials: File[str] = Field(
        "trials.h5", description="`inputs` and `targets` (trial, time, column)"
    )
    repeats: Data[int] = Field(40, gt=0, description="how often the first trial is repeated")


def load(inputs: Any) -> dict[str, np.ndarray]:
    """`inputs` and `targets` (time, column)."""
    found = read_arrays(inputs.trials, "targets")
    return {name: np.tile(found[name][0], (inputs.repeats, 1)) for name in ("inputs", "targets")}


kernel = one_shot(
    "oscillation_series",
    Series,
    {
        "inputs": Var(("time", "input"), "1", "what drives the network"),
        "targets": Var(("time", "output"), "1", "wanted output"),
    },
    lambda static, shared, traced, key: shared,
    load=load,
)
