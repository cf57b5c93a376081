"""The recurrent cell among a file's tensors: which framework's names they have, and what the cell is."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ctd.weights import names_flax, names_keras, names_torch
from ctd.weights.gates import Found
from ctd.weights.tensors import Tensors


def find_cell(tensors: Tensors) -> Found:
    """The one recurrent cell of a file. Raises ValueError, naming tensors, where there is none or several."""
    for layout in (names_torch, names_keras, names_flax):
        places = layout.places(tensors)
        if places:
            return layout.read(tensors, _only(tensors, places))
    raise ValueError(
        f"{tensors.where}: no recurrent cell found by the names of PyTorch, Flax, Equinox, Keras or ctd; it holds "
        f"{tensors.names()}"
    )


def _only(tensors: Tensors, places: Iterable[str]) -> str:
    """The only place of a cell. Raises ValueError, naming them, where there are several."""
    places = sorted(places)
    if len(places) == 1:
        return places[0]
    told = ", ".join(place.replace("*", "weight_hh") or "the top" for place in places)
    what = "several layers"
    if any(re.search("reverse|backward|bwd", place) for place in places):
        what = "a bidirectional network"
    raise ValueError(
        f"{tensors.where}: holds {len(places)} recurrent cells, {told}: {what}; ctd's networks have one cell"
    )
