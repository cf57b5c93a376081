"""The posterior of all trials as one HDF5 file, under the names that lfads-torch gives its posterior means.

    SPLIT_output_params    rates                       SPLIT_gen_states    states of the generator
    SPLIT_factors          factors                     SPLIT_gen_init      state before the trial, as ic_mean
    SPLIT_co_means, _stds  inferred inputs             SPLIT_ic_mean, _std initial conditions

Of models that were trained on data with behaviour also SPLIT_decoded_behavior and its decoder, decoder_w (channel, factor) and
decoder_b (channel,): w f + b of factors f.

SPLIT is train or valid. Standard deviations of the others are NAME_sd, draws NAME_samples. The generator starts at
the initial condition itself, so gen_init is ic_mean. co_stds is the standard deviation of the input: in
lfads-torch it is the mean over draws of that given a draw.

Of chopped recordings all but the initial conditions are merged to (time, ...), or (trial, time, ...) if trials were
chopped. SPLIT_recording_bins (recording,) says how long each is. Initial conditions stay those of windows:
SPLIT_window_recording and _start say where these lie.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ctd.data import new_hdf5, read_hdf5
from ctd.lfads.chop import Windows, merge_into, merged_shape
from ctd.lfads.numpy_file import is_evaluation

SPLITS = ("train", "valid")

NAMES = {
    "rates": "output_params",
    "factors": "factors",
    "states": "gen_states",
    "inferred_inputs": "co_means",
    "inferred_inputs_sd": "co_stds",
    "decoded_behavior": "decoded_behavior",
    "initial_conditions": "ic_mean",
    "initial_conditions_sd": "ic_std",
}


def name_of(result: str) -> str:
    """The name, without the split, of a result of `lfads.posterior`."""
    if result in NAMES:
        return NAMES[result]
    mean, _, what = result.rpartition("_")
    return f"{NAMES[mean]}_{what}"


PLACES = ("split", "trial_number", "recording", "first_bin")
"""They say which trial it is."""
DECODER = {"decoder.w": "decoder_w", "decoder.b": "decoder_b"}


def write(
    path: str | Path,
    chunks: Iterable[Mapping[str, np.ndarray]],
    n: Sequence[int],
    attributes: Mapping[str, Any],
    windows: Sequence[Windows] | None = None,
) -> None:
    """Write the results of all chunks, one by one. n: trials for training, for evaluation.

    windows: where these trials lie, if they are windows of recordings, which are then merged. Standard deviations
    are merged as means are. Raises ValueError where the file cannot be written.
    """
    with new_hdf5(path) as file:
        file.attrs.update(attributes)
        for chunk in chunks:
            for name in DECODER.keys() & chunk.keys():
                if DECODER[name] not in file:
                    file[DECODER[name]] = chunk[name]
            for split, word in enumerate(SPLITS):
                rows = np.flatnonzero(chunk["split"] == split)
                if not len(rows):
                    continue
                first = int(chunk["trial_number"][rows[0]])
                cut = None if windows is None else windows[split]
                for name, value in chunk.items():
                    if name not in PLACES and name not in DECODER:
                        key = f"{word}_{name_of(name)}"
                        _put(file, key, value[rows], (first, int(n[split])), _merged(name, cut))
        for split, word in enumerate(SPLITS):
            if f"{word}_ic_mean" in file:
                file[f"{word}_gen_init"] = file[f"{word}_ic_mean"]  # another name, no copy
            if windows is not None:
                file[f"{word}_window_recording"] = windows[split].recording
                file[f"{word}_window_start"] = windows[split].start
                file[f"{word}_recording_bins"] = windows[split].lengths


def _merged(name: str, windows: Windows | None) -> Windows | None:
    """The windows, where a result has a time to be merged along."""
    return None if name.startswith("initial_conditions") else windows


def _put(
    file: Any, key: str, value: np.ndarray, place: tuple[int, int], windows: Windows | None
) -> None:
    """Write trials into a dataset, which is made before. place: (the first trial's number, trials of the split)."""
    first, n = place
    if key not in file:
        shape = (n, *value.shape[1:])
        if windows is not None:
            shape = (*merged_shape(windows), *value.shape[2:])
        file.create_dataset(key, shape, value.dtype, track_times=False)
    if windows is None:
        file[key][first : first + len(value)] = value
    else:
        merge_into(file[key], value, windows, first)


def read_trials(
    path: str | Path, name: str = "output_params", eval_every: int = 5
) -> list[np.ndarray]:
    """Of every trial its (time, ...) array, in the order of the .npy or .npz file that the model was trained on.

    name: what is read, without the split; `output_params` are rates (counts a bin). eval_every: as in the job. Raises
    ValueError where the file is no posterior of such trials.
    """
    arrays = read_hdf5(path)
    listed = {}
    for word in SPLITS:
        if f"{word}_{name}" not in arrays:
            raise ValueError(f"{path}: lacks {word}_{name}; found {', '.join(sorted(arrays))}")
        whole, bins = arrays[f"{word}_{name}"], arrays.get(f"{word}_recording_bins")
        # Chopped trials of one array have been put together to (trial, time, ...) already.
        if bins is not None and len(whole) == bins.sum():
            listed[word] = np.split(whole, np.cumsum(bins)[:-1])
        else:
            listed[word] = list(whole)
    evaluation = is_evaluation(sum(map(len, listed.values())), eval_every)
    if evaluation.sum() != len(listed["valid"]):
        raise ValueError(
            f"{path}: has {len(listed['train'])} trials for training and {len(listed['valid'])} for evaluation, which "
            f"is not every {eval_every}th; give eval_every as in the job, or read the file by its names"
        )
    order = {word: iter(trials) for word, trials in listed.items()}
    return [next(order["valid" if last else "train"]) for last in evaluation]
