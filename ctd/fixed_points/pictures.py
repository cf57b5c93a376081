"""Parts of several pictures: the rows of a table at each constant input, the sorts of its points, the unit circle."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ctd.plots import Lines, Points
from ctd.rows import combinations
from ctd.words import number

MOST_INPUTS = 3
"""Constant inputs up to which each has pictures of its own."""

ROUNDING = 1e-9
"""A component with less than this part of the variance has none: an axis over it would show rounding."""


def input_text(x: np.ndarray) -> str:
    """The text of a constant input, for pictures.

    >>> input_text(np.array([0.25, 0.0]))
    'x = (0.25, 0)'
    """
    return f"x = ({', '.join(number(value, 3) for value in x)})"


class Part(NamedTuple):
    """The rows of a table that a picture shows: those at one constant input, or all."""

    rows: np.ndarray
    at: str = ""
    """Their input, for titles, if it is one of several."""
    together: str = ""
    """A sentence for notes if the rows are those of several inputs."""


def parts(x: np.ndarray, noun: str) -> list[Part]:
    """The rows of each constant input; of more than MOST_INPUTS, all together. x: (row, input); noun: of the rows.

    >>> [part.at for part in parts(np.array([[0.0], [1.0], [0.0]]), "points")]
    [', x = (0)', ', x = (1)']
    """
    first, of_row = combinations([x], len(x))
    n, rows = len(first), np.arange(len(x))
    if n < 2:
        return [Part(rows)]
    if n > MOST_INPUTS:
        sizes = np.bincount(of_row)
        note = f" {noun.capitalize()} of {n} constant inputs together, {sizes.min()} to {sizes.max()} at each."
        return [Part(rows, together=note)]
    return [Part(rows[of_row == k], f", {input_text(x[row])}") for k, row in enumerate(first)]


class Sort(NamedTuple):
    """Points that are drawn alike: slow ones as diamonds, unstable ones hollow."""

    label: str
    rows: np.ndarray
    """Their rows in the table."""
    slow: bool
    unstable: bool

    def marks(self, at: np.ndarray, text: Sequence[str], **looks: Any) -> Points:
        """Its points. at: (point, component) the places of all points of the table; text: of its rows."""
        x, y = at[self.rows, :2].T
        marker: Any = "diamond" if self.slow else "circle"
        label = f"{self.label} ({len(self.rows)})"
        return Points(
            x, y, label, marker=marker, hollow=self.unstable, text=text, key=self.rows, **looks
        )


def unit_circle() -> Lines:
    """The unit circle, on which modes of a map neither grow nor decay."""
    angle = np.linspace(0, 2 * np.pi, 181)
    return Lines(np.cos(angle), np.sin(angle), "unit circle", faint=True)
