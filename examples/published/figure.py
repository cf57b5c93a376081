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
    """A published number and ours."""

    name: str
    what: str
    """Its definition in a few words."""
    measure: Measure
    published: float | None = None
    """None: the paper shows no number."""
    goal: Literal["more", "less", "equal"] = "more"
    """Reached if ours is at least, at most or as large as the published figure, up to `slack`."""
    slack: float = 0.0
    """How far ours may be behind and still counts, for a reason that `why` says."""
    sign: bool = False
    """Whether the paper tells a sign alone: ours must lie beyond `published`, which is 0."""
    yes_no: bool = False
    """Whether values are 1 for yes and 0 for no: their share is told, and more than half of them must be yes."""
    decided: bool = False
    """Whether values are draws of one number, an effect, of which all must lie on the published figure's side."""
    bound: float | Measure | None = None
    """The best value that there can be; what depends on the data is measured."""
    hold: tuple[float, float] = (-np.inf, np.inf)
    """What the median of the small setting stays within on any machine ..."""
    why: str = ""
    """... and the reason of this tolerance, and of `slack`."""

    @property
    def worst(self) -> float:
        """What stands for a value that is not there, lest a row is reached by its survivors."""
        return -np.inf if self.goal == "more" else np.inf

    def reached(self, ours: float) -> bool | None:
        """Whether ours, a median or a share, is as good as the published figure; None where there is none."""
        if self.published is None:
            return None
        if self.yes_no:
            return ours > 0.5
        if self.goal == "equal":
            return abs(ours - self.published) <= self.slack
        gain = ours - self.published if self.goal == "more" else self.published - ours
        return gain > 0 if self.sign else gain >= -self.slack

    def told(self) -> str:
        """What was published."""
        if self.published is None or self.yes_no:
            return "" if self.published is None else "yes"
        return self.needed() if self.sign else number(self.published)

    def needed(self) -> str:
        """What ours must be to count as reached."""
        if self.published is None:
            return ""
        if self.yes_no:
            return "yes in more than half"
        ends = [number(self.published + k * self.slack) for k in (-1, 1)]
        if self.goal == "equal":
            return " to ".join(ends)
        if self.sign:
            return "> 0" if self.goal == "more" else "< 0"
        return f"at least {ends[0]}" if self.goal == "more" else f"at most {ends[1]}"


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
