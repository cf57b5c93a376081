"""The columns of a store's items by what they are for: swept, searched, repeating, judging."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

from jobs.search.method import Method
from jobs.spec.description import Description

SEED = "seed"
"""The swept field that repeats an item of any kernel."""
JOB_SEED = "job_seed"
"""The column of the jobs' seeds, where they differ between stores."""

Mode = Literal["min", "max"]
"""The direction of a metric: whether small or large values are better."""


class Metric(NamedTuple):
    """The result that items are judged by, and its direction."""

    name: str
    more_is_better: bool = False

    def rank(self, values: np.ndarray) -> np.ndarray:
        """Return the order of values (n,), best first, equal ones as they come; NaN and infinities last.

        >>> Metric("accuracy", more_is_better=True).rank(np.array([0.5, np.nan, 0.9])).tolist()
        [2, 0, 1]
        """
        signed = -values if self.more_is_better else values
        return np.argsort(np.where(np.isfinite(signed), signed, np.inf), kind="stable")


def columns_of(field: str, columns: Collection[str]) -> list[str]:
    """The columns that stand for a swept field among those of a table: itself, or the fields of a mapping, which is not shown.

    >>> columns_of("task", ["item", "task.name", "task.n_steps"]), columns_of("g", ["item", "g"])
    (['task.name', 'task.n_steps'], ['g'])
    """
    return [field] if field in columns else [c for c in columns if c.startswith(f"{field}.")]


class Roles:
    """The columns of a store's items by what they are for.

    swept: the fields that differ between items, those included that are compiled in and that a search chooses.
    """

    def __init__(
        self, search: Method | None, swept: Sequence[str], description: Description
    ) -> None:
        self._search, self.swept, self._description = search, swept, description
        self.searched: list[str] = [*search.ranges] if search else []
        """The fields that the search proposes or changes."""
        self.replicates = (SEED, JOB_SEED, *description.replicates)
        """The columns that only repeat an item: the seed, that of the job, and the fields that the kernel names."""

    @property
    def all_swept(self) -> list[str]:
        """The swept fields, after those that the search proposes or changes."""
        return list(dict.fromkeys([*self.searched, *self.swept]))

    @cached_property
    def column_of_array(self) -> dict[str, str]:
        """The array `final_X` of a searched field -> X, its column of `items`, where the job has no other X, such as the start of
        a population that it sweeps."""
        dims = self._description.dims
        new = [name for name in self.searched if name not in (*dims, *self.swept)]
        return {f"final_{name}": name for name in new if f"final_{name}" in dims}

    @cached_property
    def varied(self) -> list[str]:
        """The columns of swept and searched fields; a field that a population changes has its final values."""
        dims, arrays = self._description.dims, [f"final_{name}" for name in self.searched]
        final = [array for array in arrays if array in dims]
        swept = [name for name in self.swept if f"final_{name}" not in final]
        return [*(self.column_of_array.get(array, array) for array in final), *swept]

    def varied_in(self, columns: Collection[str]) -> list[str]:
        """The columns of a table that hold swept and searched fields."""
        return [column for name in self.varied for column in columns_of(name, columns)]

    def settings(self, names: Iterable[str]) -> list[str]:
        """Return the columns that do more than repeat an item."""
        return [name for name in names if name not in self.replicates]

    @property
    def swept_bases(self) -> list[str]:
        """The swept fields that change what the kernel's metric is measured on: items that differ in them do not compare."""
        return [name for name in self.swept if self._description.is_basis(name)]

    def bases(self, columns: Mapping[str, np.ndarray]) -> list[str]:
        """The columns (n,) of swept fields that change what the kernel's metric is measured on, where items differ in them."""
        # As texts, of which NaN equals itself: a mapping may lack a field.
        differs = lambda name: len({*columns[name].astype(str).tolist()}) > 1
        names = self.varied_in(columns)
        return [name for name in names if self._description.is_basis(name) and differs(name)]

    @property
    def metric(self) -> Metric | None:
        """The metric of the job's search, else the kernel's; None if neither names one."""
        return self.metric_by(None)

    def metric_by(self, by: str | None, mode: Mode | None = None) -> Metric | None:
        """The metric `by`, else that of the job's search, else the kernel's; None if none of them names one.

        mode: the direction; by default as the search says, else as the kernel does.
        """
        search, described = self._search, self._description
        name = by or (search.metric if search else described.metric)
        if not name:
            return None
        of_search = search.mode if search and search.metric == name else None
        of_kernel = name in described.dims and described.dims[name].more_is_better
        return Metric(name, (mode or of_search or ("max" if of_kernel else "min")) == "max")
