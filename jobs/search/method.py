"""A method of search: one object that is its section of a job file and answers all that other folders ask about it.

A further method is one file of this folder, with a subclass of `Method` and its searcher, and one line of
`jobs.search.METHODS`.
"""

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import product
from typing import Any, ClassVar

import numpy as np
from pydantic import PositiveInt

from ctd.kernel import Kernel, Kind, Outcome, Params, Var, field_kinds
from jobs.forms import Choice, Distribution, dtype_of
from jobs.search.comparison import Comparison, Rungs
from jobs.search.searcher import Read, SearchedItems, Searcher

Laps = tuple[np.ndarray, dict[str, np.ndarray]]
"""(items, laps) bool, the laps that each item made; and column -> (items, laps)."""


class Method(Comparison):
    """The base of every method of search. The defaults are those of a method that only leaves items out."""

    has_parents: ClassVar[bool] = False
    """True if an item may go on from the state of another one, its parent, with other values of the searched fields. The values
    of its results are then its last ones."""
    proposes: ClassVar[bool] = False
    """True if it proposes the searched fields of items before they begin. Each point of the sweep then has as many items as are
    compared (`block`), and their seeds number them."""
    takes: ClassVar[str] = "the search takes"
    """Begins the sentence that says which fields can be searched."""

    # --- the job ----------------------------------------------------------------------------------------

    @property
    def ranges(self) -> Mapping[str, Distribution]:
        """Searched field -> its range or choices."""
        return {}

    @property
    def least(self) -> int:
        """The fewest items that it can compare."""
        return self.rungs.eta if self.rungs else 2

    @abstractmethod
    def describe(self, size: int, advances: int = 0) -> str:
        """Describe the search over `size` items, on one line. advances: as for `ends`."""

    def starts(self, model: type[Params], seed: int, n: int) -> dict[str, Any]:
        """Searched field that begins here, not in `params` or the sweep -> one value, or the values of all n items, (n,).

        None: the kernel's default. model: of the kernel's parameters. seed: the job's.
        """
        return {}

    def check_starts(self, starts: Read, fixed: frozenset[str]) -> None:
        """Raise JobError if it cannot begin with these values. fixed: the fields that act at an item's start alone."""

    def check_blocks(self, ids: np.ndarray, codes: Iterable[tuple[str, np.ndarray]]) -> None:
        """Raise JobError if items must not be compared with one another.

        ids: (blocks, size); the items of a block are compared. codes: the swept fields that are neither compiled in nor seeds,
        each with (blocks, size) codes; equal ones mean equal values.
        """

    def check_installed(self, location: str) -> None:
        """Raise JobError, which begins with `location`, if a package is missing."""

    # --- results ----------------------------------------------------------------------------------------

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """The outcomes that it adds to those of a kernel."""
        dropped = Outcome("dropped", "left at a rung of the search")
        return (dropped,) if self.rungs else ()

    def variants(self, kernel: Kernel) -> list[dict[str, Any]]:
        """The combinations, field -> value, of the compiled-in fields that it chooses; a single empty one without such fields."""
        kinds = field_kinds(kernel.Params)
        choices = {
            name: law.choice
            for name, law in self.ranges.items()
            if isinstance(law, Choice) and kinds.get(name) not in (None, Kind.TRACED)
        }
        return [dict(zip(choices, values, strict=True)) for values in product(*choices.values())]

    def results(self, kernel: Kernel, size: int) -> dict[str, tuple[Var, np.ndarray]]:
        """The results that it adds -> (description, an array like that of one item), if `size` items are compared."""
        results = {}
        if self.rungs:
            results["search_rung"] = number("rungs survived", np.int32)
            var = Var(("rung",), "1", f"{self.metric} at every rung")
            results["search_metric"] = var, np.zeros(len(self.ends(size)))
        labels = self.variants(kernel)[0]  # they are in the labels of the group
        for name, law in self.ranges.items():
            if name not in labels:
                results[f"final_{name}"] = number(f"{name} proposed", dtype_of(law))
        return results

    def by_lap(self, read: Read, labels: Mapping[str, Any]) -> Laps:
        """The table `search` of some items. read: reads a result. labels: the compiled-in fields of the items' group."""
        metric = read("search_metric") if self.rungs else read(self.metric)[:, None]
        rung = read("search_rung")[:, None] if self.rungs else 0
        value = lambda name: labels[name] if name in labels else read(f"final_{name}")[:, None]
        proposed = {name: np.broadcast_to(value(name), metric.shape) for name in self.ranges}
        return np.arange(metric.shape[1]) <= rung, {self.metric: metric} | proposed

    # --- decisions --------------------------------------------------------------------------------------

    @abstractmethod
    def searcher(self, items: SearchedItems) -> Searcher:
        """Return the search of these items at its start."""


class Sized(Method):
    """A search that compares neighbours of the sweep with one another, in step."""

    in_step: ClassVar[bool] = True

    size: PositiveInt | None = None
    """number of neighbouring items of the sweep that are compared with one another; by default all that share one compiled program"""

    @property
    def block(self) -> int | None:
        """The number of neighbouring items of the sweep that are compared with one another; None: all of a group."""
        return self.size


class OnRungs(Method, Rungs):
    """A search whose items leave at rungs, which are fields of its section."""

    @property
    def rungs(self) -> Rungs:
        """The rungs at which items leave."""
        return self


def number(text: str, dtype: Any) -> tuple[Var, np.ndarray]:
    """A result of one number an item: its description, and an array like that of one item."""
    return Var((), "1", text), np.zeros((), dtype)


def searched(kernel: Kernel, search: Method | None) -> Kernel:
    """The kernel with the results and outcomes that a search adds; the kernel itself without a search.

    An item that left at a rung has the status and the outcome *dropped*, and its results at that rung. An item whose population
    ended early (`patience`) has the outcome *settled*, and its results at that time.
    """
    if search is None:
        return kernel
    outcomes = kernel.outcomes and (*kernel.outcomes, *search.outcomes)
    # Names and axes are the same for any number of items: 1 stands for all.
    dims = {**kernel.dims, **{name: var for name, (var, _) in _results(search, kernel, 1).items()}}
    return replace(kernel, dims=dims, outcomes=outcomes)


def shapes(search: Method | None, kernel: Kernel, n_items: int) -> dict[str, np.ndarray]:
    """The results that a search adds -> an array like that of one item. n_items: number of items in the group."""
    if search is None:
        return {}
    results = _results(search, kernel, search.n_compared(n_items))
    return {name: example for name, (_, example) in results.items()}


def _results(search: Method, kernel: Kernel, size: int) -> dict[str, tuple[Var, np.ndarray]]:
    return {"search_advances": number("advances made", np.int32), **search.results(kernel, size)}
