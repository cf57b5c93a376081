"""Cells by name."""

import difflib
from typing import Annotated

from pydantic import AfterValidator, WithJsonSchema

from ctd.cells.cell import Cell
from ctd.cells.gated import gru, gru_candidate_bias, gru_torch, lstm
from ctd.cells.tanh import leaky, vanilla

CELLS = {cell.name: cell for cell in (vanilla, gru, gru_candidate_bias, gru_torch, lstm, leaky)}


def get_cell(name: str) -> Cell:
    """The cell called `name`. Raises ValueError, naming the nearest cell, where there is none."""
    if name in CELLS:
        return CELLS[name]
    near = difflib.get_close_matches(name, CELLS, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ValueError(f"cell: {name!r} is unknown; {hint}the cells are {', '.join(CELLS)}")


CellName = Annotated[
    str,
    AfterValidator(lambda name: get_cell(name).name),
    WithJsonSchema({"enum": list(CELLS)}),
]
"""The type of a field that names a cell."""
