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
    """The sampling error of the published figure, where it is known."""
    decided: bool = False
    """Whether values are draws of one number, an effect, of which all must lie on the published figure's side."""
    bound: float | Measure | None = None
    """The best value that there can be; what depends on the data is measured."""
    hold: tuple[float, float] = (-np.inf, np.inf)
    """What the median of the small setting stays within on any machine ..."""
    why: str = ""
    """... and the reason of this tolerance."""

    @property
    def worst(self) -> float:
        """What stands for a value that is not there, lest a row is reached by its survivors."""
        return -np.inf if self.goal == "more" else np.inf

    def reached(self, median: float) -> bool | None:
        """Whether ours is as good as the published figure; None where there is none."""
        if self.published is None:
            return None
        if self.goal == "equal":
            return abs(median - self.published) <= self.slack
        gain = median - self.published
        return (gain if self.goal == "more" else -gain) >= -self.slack


@dataclass(frozen=True)
class Row:
    """A job file, its paper and its figures."""

    name: str
    paper: str
    figures: tuple[Figure, ...]
