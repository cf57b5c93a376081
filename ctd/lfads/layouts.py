"""The layouts of a file of trials: which dataset is which field of `Trials`.

A file has one of two layouts, which the names of its datasets tell apart. NAME is train or eval in ctd's,
train or valid in lfads-torch's:

    ctd           NAME (trial, time, unit); if known NAME_external, NAME_behavior, eval_rates, eval_inputs,
                  eval_initial_states (trial, state)
    lfads-torch   NAME_encod_data, NAME_recon_data; if known NAME_ext_input, NAME_behavior, NAME_truth

Both may have `bin_s`. Datasets of other names are not used, which a plan says; one whose name is close to a known one that
is missing is warned of.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping

from ctd.lfads.chop import Found, Recordings
from ctd.words import meant

NAMES: dict[str, dict[str, str | None]] = {
    "ctd": {
        "data": "{}",
        "encoded": None,
        "external": "{}_external",
        "behavior": "{}_behavior",
        "rates": "{}_rates",
        "inputs": "{}_inputs",
        "initial_states": "{}_initial_states",
        "states": "{}_states",
        "condition": "{}_condition",
    },
    "lfads-torch": {
        "data": "{}_recon_data",
        "encoded": "{}_encod_data",
        "external": "{}_ext_input",
        "behavior": "{}_behavior",
        "rates": "{}_truth",
        "inputs": "{}_inputs",
        "initial_states": "{}_initial_states",
        "states": "{}_states",
        "condition": "{}_condition",
    },
}
"""Layout -> field of `Trials` -> name of its dataset."""


def _names(arrays: Mapping[str, Recordings]) -> list[dict[str, str]]:
    """Field of `Trials` -> name of its dataset, for training and for evaluation, in the file's layout."""
    # A file of lfads-torch without held-out entries may have encod_data alone, so that name decides.
    layout = "lfads-torch" if "train_encod_data" in arrays else "ctd"
    roles = ("train", "eval" if layout == "ctd" else "valid")
    return [{k: p.format(role) for k, p in NAMES[layout].items() if p} for role in roles]


def find(arrays: Mapping[str, Recordings], where: str) -> tuple[Found, Found]:
    """The arrays for training, and those for evaluation, by the names of the file's layout. Raises ValueError where one lacks."""
    found, missing = [], []
    for names in _names(arrays):
        if names["data"] not in arrays and names.get("encoded") in arrays:
            names["data"] = names["encoded"]  # nothing is held out
        missing += sorted({names["data"], names.get("encoded", names["data"])} - set(arrays))
        found.append({k: (name, arrays[name]) for k, name in names.items() if name in arrays})
    if missing:
        # Neither split is named: the file may hold all trials.
        hint = "" if missing != ["train", "eval"] else (
            "; name the trials to train on and those to evaluate with, or save all of them by numpy.save('spikes.npy', "
            "counts): of .npy and .npz files every fifth trial is for evaluation (eval_every)"
        )  # fmt: skip
        raise ValueError(
            f"{where}: lacks {' and '.join(missing)}, (trial, time, unit); found "
            f"{', '.join(sorted(arrays))}{hint}"
        )
    return found[0], found[1]


def unused(arrays: Mapping[str, Recordings], where: str) -> dict[str, None]:
    """The datasets that a model does not use; warns of those whose names are close to one that the file lacks."""
    used, lacking = {"bin_s"}, set[str]()
    for pair in zip(*(names.values() for names in _names(arrays)), strict=True):
        used.update(pair)
        # A field of which one split has a dataset is known to whoever wrote the file.
        lacking.update(() if arrays.keys() & set(pair) else pair)
    others = sorted(arrays.keys() - used)
    near = [name + hint for name in others if (hint := meant(name, lacking))]
    if near:
        warnings.warn(f"{where}: not used: {', '.join(near)}", stacklevel=2)
    return dict.fromkeys(others)
