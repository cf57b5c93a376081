"""The table of an atlas, by which recordings are placed, and what it must have in common with them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ctd.containers import opened_hdf5, read_datasets


def read_atlas(path: str) -> dict[str, np.ndarray]:
    """The numbers of an atlas' table. Raises ValueError, naming the file, where its mechanisms could not be judged."""
    with opened_hdf5(path) as file:
        found = read_datasets(path, file)
    # Neither a table of placed recordings nor one of too few members has it.
    if "accuracy" not in found:
        raise ValueError(
            f"atlas: {path}: is no table of an atlas that was judged; give that of a store of atlas.yaml with three mechanisms or "
            "more, seeds: 3 or more and folds: 3 or more"
        )
    return found


def check_alike(path: str, atlas: Mapping[str, np.ndarray], mine: Mapping[str, float]) -> None:
    """Raise ValueError where recordings were reduced otherwise than those of the atlas; one by an earlier ctd does not say how.

    mine: name of a parameter of mechanisms -> its value.
    """
    for name, value in mine.items():
        if name in atlas and not np.isclose(atlas[name], value, equal_nan=True).any():
            theirs = ", ".join(f"{v:g}" for v in np.unique(atlas[name]))
            raise ValueError(
                f"atlas: {path}: its recordings have {name}: {theirs}, but this one {value:g}; give both files the same"
            )
