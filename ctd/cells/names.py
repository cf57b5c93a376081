"""Cells by name: those of this package, with other units if asked for."""

from collections.abc import Iterable
from functools import cache
from typing import Annotated

from pydantic import AfterValidator, WithJsonSchema

from ctd.cells.cell import Cell
from ctd.cells.flow import node
from ctd.cells.gated import gru, gru_candidate_bias, gru_torch, lstm
from ctd.cells.piecewise import alrnn, clipped, shplrnn
from ctd.cells.ungated import (
    UNGATED,
    UNITS,
    leaky,
    leaky_per_unit,
    leaky_rates,
    vanilla,
    with_units,
)
from ctd.kernel import Var
from ctd.words import did_you_mean

CELLS = {
    cell.name: cell
    for cell in (
        vanilla, gru, gru_candidate_bias, gru_torch, lstm, leaky, leaky_per_unit, leaky_rates, node, shplrnn, alrnn,
    )
}  # fmt: skip
"""Name -> cell. The weights of one belong to no other."""

FORMS = {clipped.name: clipped}
"""Name -> another form of the cell before the colon, with weights of the same shapes."""

CELL_NAMES = (
    f"{', '.join((*CELLS, *FORMS))}; {', '.join(cell.name for cell in UNGATED)} have tanh units, or those named "
    f"after a colon: {', '.join(name for name in UNITS if name != 'tanh')}, or a function by its dotted path, as in "
    "leaky:relu and leaky:mylab.units.square"
)
"""The names that a job file may write as its `cell`, as one sentence for descriptions and errors."""


@cache
def get_cell(name: str) -> Cell:
    """Find the cell of a name. A cell without gates may have other units after a colon; `leaky:tanh` is `leaky`.

    >>> get_cell("leaky:relu").name
    'leaky:relu'
    >>> get_cell("lstn")
    Traceback (most recent call last):
    ValueError: cell: 'lstn' is unknown; did you mean 'lstm'? the cells are ...

    Args:
        name: a name of `CELLS` or `FORMS`, such as gru, leaky:relu or leaky:mylab.units.f.

    Returns:
        The cell; the same object at each call.

    Raises:
        ValueError: there is no such cell (the text names the nearest one) or no such units, or the cell has fixed units.
    """
    if name in FORMS:
        return FORMS[name]
    base, colon, units = name.partition(":")
    if base not in CELLS:
        raise ValueError(
            f"cell: {name!r} is unknown{did_you_mean(base, CELLS) or ';'} the cells are {', '.join(CELLS)}; "
            "units follow a colon, as in leaky:relu"
        )
    cell = CELLS[base]
    # One name for one cell: leaky:tanh would split groups and caches of the same network.
    if not colon or (cell in UNGATED and units == "tanh"):
        return cell
    if cell not in UNGATED:
        fits = ", ".join(cell.name for cell in UNGATED)
        raise ValueError(f"cell: {name!r}: {base} has fixed units; only {fits} take others")
    try:
        return with_units(cell, units)
    except ValueError as error:
        raise ValueError(f"cell: {name!r}: {error}") from None


def weight_dims(cells: Iterable[str], owner: str = "") -> dict[str, Var]:
    """Describe the results `weights.NAME` of a kernel whose networks have these cells.

    >>> weight_dims(["leaky"])["weights.wO"].axes
    ('output', 'unit')

    Args:
        cells: names of cells, without units.
        owner: text after each description, such as " of the generator".

    Returns:
        Result -> its axes, unit and description.
    """
    # Cells that share a name share its axes.
    axes = {name: axes for cell in cells for name, axes in CELLS[cell].axes.items()}
    return {
        f"weights.{name}": Var(of_name, "1", f"weight {name}{owner}, see ctd.cells")
        for name, of_name in axes.items()
    }


CellName = Annotated[
    str,
    AfterValidator(lambda name: get_cell(name).name),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": [*CELLS, *FORMS, *(f"{c.name}:{u}" for c in UNGATED for u in UNITS)]},
                {"type": "string", "pattern": rf"^({'|'.join(c.name for c in UNGATED)}):.*\."},
            ]
        }
    ),
]
"""The type of a pydantic field that names a cell; its JSON Schema lets editors complete the names."""
