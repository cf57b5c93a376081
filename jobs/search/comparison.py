"""How a search compares items: the metric, and after how many advances."""

from typing import ClassVar, Literal

import numpy as np
from pydantic import BaseModel, Field, PositiveInt, field_validator

from jobs.errors import JobError, count
from jobs.forms import SECTION


def in_words(numbers: list[int]) -> str:
    """Return numbers as text, such as "4, 12"."""
    return ", ".join(map(str, numbers))


class Rungs(BaseModel):
    """The rungs of successive halving: min_advances * eta^k advances, k = 0, 1, ...

    >>> Rungs(min_advances=4).ages(27)
    [4, 12, 36]
    """

    model_config = SECTION

    eta: int = Field(3, ge=2)
    """one item in eta goes on from a rung"""
    min_advances: PositiveInt
    """advances that every item makes at least, up to the first rung"""

    def ages(self, size: int) -> list[int]:
        """The advances at each rung: as many rungs as `size` can be divided by `eta` and stay at least 1."""
        ages: list[int] = []
        while size >= self.eta ** (len(ages) + 1):
            ages.append(self.min_advances * self.eta ** len(ages))
        return ages


class Comparison(BaseModel):
    """The fields of every search: the metric, and which values of it are better."""

    model_config = SECTION

    lap_name: ClassVar[str] = "rung"
    """The word for a lap: the advances between two comparisons."""
    in_step: ClassVar[bool] = False
    """True if the compared items make their laps together, so that an item's result can change the course of the others."""

    metric: str
    """the scalar result that items are compared by"""
    mode: Literal["min", "max"] = "min"
    """min if a smaller value is better, max if a larger one is, as for an r2"""

    @field_validator("metric", mode="before")
    @classmethod
    def _single(cls, value: object) -> object:
        if isinstance(value, list | tuple):
            raise ValueError(
                "expected one metric; a search with several objectives is not supported"
            )
        return value

    @property
    def rungs(self) -> Rungs | None:
        """The rungs at which items leave; None: they leave at none."""
        return None

    @property
    def length_field(self) -> str:
        """The field that sets the length of the first lap."""
        return "min_advances"

    @property
    def best(self) -> str:
        """The best value of the metric as a word: "least" or "largest"."""
        return "least" if self.mode == "min" else "largest"

    @property
    def block(self) -> int | None:
        """The number of neighbouring items of the sweep that are compared with one another; None: all of a group."""
        return None

    def n_compared(self, n: int) -> int:
        """The number of a group's n items that are compared with one another."""
        return self.block or n

    def in_round(self, share: int) -> int:
        """The most items of a round, if each worker has `share` of a group's items."""
        return share

    def ends(self, size: int, advances: int = 0) -> list[int]:
        """The advances after which `size` items are compared.

        advances: those that each of them makes in all; 0: it is not known, and no comparison is left out.
        """
        ends = self._all_ends(size)
        return [end for end in ends if end < advances] if advances else ends

    def _all_ends(self, size: int) -> list[int]:
        return self.rungs.ages(size) if self.rungs else []

    def too_late(self, size: int, advances: int) -> JobError:
        """The error of items that finish after so many advances, before any comparison of `size` items."""
        return JobError(
            f"search.{self.length_field}: {count(self._all_ends(size)[0], 'advance')} given, but items finish after "
            f"{advances}, before their first comparison; lower it, or let items make more and shorter advances"
        )


class Rung:
    """The items that have come to a rung, best first.

    NaN stands behind any number; of equal losses the one that came first stands first.
    """

    def __init__(self) -> None:
        self.rows = np.empty(0, np.int64)
        """(n,) the items' rows in the group."""
        self.loss = np.empty(0)
        """(n,) their losses, rising."""

    def add(self, rows: np.ndarray, loss: np.ndarray) -> None:
        """Add items that come at the same time. rows: (k,) rising; loss: (k,)."""
        order = np.argsort(loss, kind="stable")
        # searchsorted takes NaN for larger than any number, as argsort does; `right` leaves the earlier of equal losses in front.
        places = np.searchsorted(self.loss, loss[order], side="right")
        self.loss = np.insert(self.loss, places, loss[order])
        self.rows = np.insert(self.rows, places, rows[order])
