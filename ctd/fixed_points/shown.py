"""What results and pictures share: a table as text, the name of a constant input, the unit circle."""

import numpy as np

from ctd.plots import Lines, tick
from ctd.rows import Columns

ROWS = 20
"""Rows that are shown."""

ROUNDING = 1e-9
"""A component with less than this part of the variance has none: an axis over it would show rounding."""


def lines_of(columns: Columns) -> list[str]:
    """The first rows of columns of equal lengths, aligned, under their names."""
    rows = zip(*(values[:ROWS] for values in columns.values()), strict=True)
    cells = [list(columns), *([_text(x) for x in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(text.rjust(n) for text, n in zip(row, widths, strict=True)) for row in cells]
    more = max(map(len, columns.values()), default=0) - ROWS
    return [*lines, f"... {more} more"] if more > 0 else lines


def _text(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"[{', '.join(map(_text, value))}]"
    return f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)


def named(x: np.ndarray) -> str:
    """A constant input, in pictures.

    >>> named(np.array([0.25, 0.0]))
    'x = (0.25, 0)'
    """
    return f"x = ({', '.join(tick(value) for value in x)})"


def unit_circle() -> Lines:
    """Where modes of a map neither grow nor decay."""
    angle = np.linspace(0, 2 * np.pi, 181)
    return Lines(np.cos(angle), np.sin(angle), "unit circle", faint=True)
