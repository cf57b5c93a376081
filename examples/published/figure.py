"""What a row of the table is: a paper, its figures, and how each of ours is read from stores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from jobs.query.tree import StoreTree

type Stores = Mapping[str, StoreTree]
"""Stage -> its store; a file without stages has one, of the file's name."""
type Measure = Callable[[Stores], Sequence[float]]
"""Stores -> a value for each seed, network, segment or pair; NaN for one that failed."""


@dataclass(frozen=True)
class Figure:
    """A published figure and ours."""

    name: str
    what: str
    """Its definition in a few words."""
    measure: Measure
    published: float | str
    """A number; or in words what the paper says or shows without one."""
    goal: Literal["more", "less", "equal"] = "more"
    """Whether a good value is at least, at most or as large as the published one."""
    spread: float = 0.0
    """The deviation or error that the paper prints beside its number: ours may be as far behind."""
    differs: str = ""
    """Why this is another quantity than the paper's, or of other data, although the settings of its row are the paper's."""
    yes_no: bool = False
    """Whether values are 1 for yes and 0 for no: the table has their share."""
    bound: float | Measure | None = None
    """The best value that there can be; what depends on the data is measured."""
    hold: tuple[float, float] = (-np.inf, np.inf)
    """The range of the median of the small setting on any machine ..."""
    why: str = ""
    """... and the reason of this range."""

    @property
    def worst(self) -> float:
        """What stands for a value that is not there, lest survivors count alone."""
        return -np.inf if self.goal == "more" else np.inf

    def reached(self, ours: float) -> bool:
        """Whether ours, a median, is as good as the published number, up to the published spread."""
        if isinstance(self.published, str):
            raise ValueError(f"{self.name}: {self.published!r} is no number to reach")
        behind = self.published - ours if self.goal == "more" else ours - self.published
        return (abs(behind) if self.goal == "equal" else behind) <= self.spread

    def published_text(self) -> str:
        """The published figure, with its spread."""
        if isinstance(self.published, str):
            return self.published
        spread = f" +- {number(self.spread)}" if self.spread else ""
        return number(self.published) + spread


def number(value: float | None) -> str:
    """Three digits, as in .062, 1.34e-3 and 27; nothing for None."""
    if value is None or np.isnan(value):
        return ""
    return f"{value:.3g}".replace("e-0", "e-")


@dataclass(frozen=True)
class Row:
    """A job file, its paper and its figures."""

    name: str
    paper: str
    figures: tuple[Figure, ...]
    as_published: tuple[str, ...] = ()
    """Those of our settings, small and full, that are the paper's: its data, sizes, training. All else has no verdict."""

    def judges(self, figure: Figure, setting: str) -> bool:
        """Whether a figure in a setting is the paper's own quantity, on its kind of data, at its settings, with a published number."""
        is_number = not isinstance(figure.published, str)
        return is_number and not figure.differs and setting in self.as_published
