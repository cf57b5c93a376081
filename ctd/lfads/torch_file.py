"""The posterior of all trials as one HDF5 file, under the names that lfads-torch gives its posterior means.

    SPLIT_output_params    rates                       SPLIT_gen_states    states of the generator
    SPLIT_factors          factors                     SPLIT_gen_init      state before the trial, as ic_mean
    SPLIT_co_means, _stds  inferred inputs             SPLIT_ic_mean, _std initial conditions

SPLIT is train or valid. Standard deviations of the others are NAME_sd, draws NAME_samples. The generator starts at
the initial condition itself, so gen_init is ic_mean. co_stds is the standard deviation of the input: in
lfads-torch it is the mean over draws of that given a draw.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ctd.data import new_hdf5

SPLITS = ("train", "valid")

NAMES = {
    "rates": "output_params",
    "factors": "factors",
    "states": "gen_states",
    "inferred_inputs": "co_means",
    "inferred_inputs_sd": "co_stds",
    "initial_conditions": "ic_mean",
    "initial_conditions_sd": "ic_std",
}


def name_of(result: str) -> str:
    """The name, without the split, of a result of `lfads.posterior`."""
    if result in NAMES:
        return NAMES[result]
    mean, _, what = result.rpartition("_")
    return f"{NAMES[mean]}_{what}"


def write(
    path: str | Path,
    chunks: Iterable[Mapping[str, np.ndarray]],
    n: Sequence[int],
    attributes: Mapping[str, Any],
) -> None:
    """Write the results of all chunks, one by one. n: trials for training, for evaluation.

    Raises ValueError where the file cannot be written.
    """
    with new_hdf5(path) as file:
        file.attrs.update(attributes)
        for chunk in chunks:
            for split, word in enumerate(SPLITS):
                rows = np.flatnonzero(chunk["split"] == split)
                if not len(rows):
                    continue
                first = int(chunk["trial_number"][rows[0]])
                place = slice(first, first + len(rows))
                for name, value in chunk.items():
                    if name in ("split", "trial_number"):
                        continue
                    key = f"{word}_{name_of(name)}"
                    if key not in file:
                        shape = (int(n[split]), *value.shape[1:])
                        file.create_dataset(key, shape, value.dtype, track_times=False)
                    file[key][place] = value[rows]
        for word in SPLITS:
            if f"{word}_ic_mean" in file:
                file[f"{word}_gen_init"] = file[f"{word}_ic_mean"]  # another name, no copy
