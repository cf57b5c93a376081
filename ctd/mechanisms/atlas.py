"""The table of an atlas, by which recordings are placed: the settings that they must share, the sizes that they may have."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

import numpy as np

from ctd.containers import opened_hdf5, read_datasets
from ctd.mechanisms.counts import MOST_MEAN
from ctd.words import number

REACH = 1.25
"""A recording may be smaller or larger than those of the atlas by this factor."""


def read_atlas(path: str) -> dict[str, np.ndarray]:
    """The numbers of an atlas' table. Raises ValueError, naming the file, where its mechanisms could not be judged."""
    with opened_hdf5(path) as file:
        table = read_datasets(path, file)
    # Neither a table of placed recordings nor one of too few members has it.
    if "accuracy" not in table:
        raise ValueError(
            f"atlas: {path}: is no table of an atlas that was judged; give that of a store of atlas.yaml with three mechanisms or "
            "more, seeds: 3 or more and folds: 3 or more"
        )
    return table


def check_settings(path: str, atlas: Mapping[str, np.ndarray], mine: Mapping[str, float]) -> None:
    """Raise ValueError unless a recording was reduced to factors as those of the atlas were, as far as the atlas says how.

    mine: name of a parameter of mechanisms -> its value.
    """
    for name, value in mine.items():
        if name in atlas and not np.isclose(atlas[name], value, equal_nan=True).any():
            theirs = ", ".join(f"{v:g}" for v in np.unique(atlas[name]))
            raise ValueError(
                f"atlas: {path}: its recordings have {name}: {theirs}, but this one {value:g}; give both files the same"
            )


def check_size(path: str, counts: np.ndarray, sizes: dict[str, np.ndarray]) -> None:
    """Raise ValueError, with the command that extends the atlas, unless it has recordings of about this size.

    sizes: n_neurons, n_trials and mean_count (recording,) of the atlas.
    """
    mine = {"n_neurons": counts.shape[2], "n_trials": counts.shape[0], "mean_count": counts.mean()}
    if mine["n_trials"] < 2:
        raise ValueError(f"data: {path}: has one trial; a recording of at least 2 expected")
    if mine["mean_count"] > MOST_MEAN * REACH:
        raise ValueError(
            f"data: {path}: has a mean count of {mine['mean_count']:.3g} in a bin, and an atlas {MOST_MEAN:g} at most; use narrower bins"
        )
    outside = [
        f"{field} {number(value, 3)}, but the atlas goes from {number(sizes[field].min(), 3)} to {number(sizes[field].max(), 3)}"
        for field, value in mine.items()
        if not sizes[field].min() / REACH <= value <= sizes[field].max() * REACH
    ]
    if outside:
        raise ValueError(
            f"data: {path}: has {'; '.join(outside)}. Extend it: {_wider(path, mine, sizes)}"
        )


def _wider(path: str, mine: dict[str, float], sizes: dict[str, np.ndarray]) -> str:
    """The commands that add the recording's size to the atlas, at its mean count, and place the recording there."""
    pairs = {*zip(sizes["n_neurons"].tolist(), sizes["n_trials"].tolist(), strict=True)}
    neurons, trials = zip(*sorted(pairs | {(mine["n_neurons"], mine["n_trials"])}), strict=True)
    listed = lambda values: f"[{','.join(f'{v:.0f}' for v in values)}]"
    settings = {"sweep.zip.n_neurons": listed(neurons), "sweep.zip.n_trials": listed(trials)}
    settings["params.mean_count"] = f"{min(mine['mean_count'], MOST_MEAN):.3g}"
    # The members of the atlas; an atlas of an earlier ctd does not list them.
    if "member" in sizes:
        members = np.unique(sizes["member"])
        counted = np.array_equal(members, np.arange(len(members)))
        name, value = ("seeds", str(len(members))) if counted else ("grid.seed", listed(members))
        settings |= {
            f"sweep.{name}": value,
            "sweep.grid.mechanism": listed(np.unique(sizes["mechanism"])),
        }
    settings |= {f"params.{k}": str(sizes[k]) for k in ("n_bins", "n_factors") if k in sizes}
    place_params = {"data": path} | {
        k: str(sizes[k]) for k in ("n_bins", "n_factors") if k in sizes
    }
    table = "params.atlas.store=wider.evidence.zarr"
    assignments = [f"stages.recordings.{name}={value}" for name, value in settings.items()]
    places = [f"stages.recording.params.{name}={value}" for name, value in place_params.items()]
    places += [f"stages.recording.{table}", f"stages.place.{table}"]
    return f"ctd run atlas.yaml --store wider {shlex.join(assignments)}; then ctd run place.yaml --store in_wider {shlex.join(places)}"
