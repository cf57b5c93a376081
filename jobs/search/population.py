"""Population-based training: which member copies which, and where the copied parameters move.

A parameter has a position x in [0, 1] in its range: linear for `uniform`, in the logarithm for `loguniform`. It moves by
u ~ U(-perturb, perturb), reflected at the ends; `perturb` is its own or else the search's. Up is as likely as down, so
without selection it does not drift. (A factor 1 + u would drift down: the mean of its logarithm is negative.)

After generation g, the generator [seed, SALT, g, i] draws a table of uniform numbers for the population whose first item
is i. Member k uses row k, so its draws depend on no other member.

search:
  method: population
  metric: eval_loss
  every: 5
  generations: 8
  params: {learning_rate: {loguniform: [1e-4, 1e-1], start: 4e-3}}
"""

import math
import zlib
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, Tag, field_validator

from ctd.kernel import Kernel, Outcome, Params, Var
from jobs.errors import JobError
from jobs.forms import Loguniform, Uniform, extremes, one_of, position
from jobs.search.method import Laps, Sized, number
from jobs.search.searcher import InStep, Read, SearchedItems

SALT, START = zlib.crc32(b"search"), zlib.crc32(b"start")
"""Keep these draws, and those of the starts, apart from those of the sweep."""
FRACTION = 0.2
"""Share of the members that copy, and of those that are copied, by truncation."""
MIN_IMPROVEMENT = 5e-4
"""Least improvement for `patience`, as a share of the mean absolute value of these best metrics."""


class _Moves(BaseModel):
    """The start and the moves of one parameter of a population, beside its range."""

    model_config = ConfigDict(allow_inf_nan=False, use_attribute_docstrings=True)

    start: float | Literal["range"] | None = None
    """start of all members; `range`: each member draws its own from the range"""
    perturb: float | None = Field(None, ge=0, le=1)
    """replaces the search's `perturb` for this parameter"""

    @field_validator("start", mode="before")
    @classmethod
    def _number_or_range(cls, value: object) -> Any:
        if value is not None and value != "range" and type(value) not in (int, float):
            raise ValueError("expected a number, or `range` to draw from the range")
        return value


class MovedUniform(Uniform, _Moves):
    """`uniform: [low, high]`, with the parameter's start and moves."""


class MovedLoguniform(Loguniform, _Moves):
    """`loguniform: [low, high]`, with the parameter's start and its moves in the logarithm."""


Moved = Annotated[
    Annotated[MovedUniform, Tag("[uniform]")] | Annotated[MovedLoguniform, Tag("[loguniform]")],
    one_of(MovedUniform, MovedLoguniform),
]


class Population(Sized):
    """Population-based training (Jaderberg et al. 2017): every `every` advances, members with bad metrics copy the state
    and the parameters of members with good ones, and perturb the parameters."""

    lap_name: ClassVar[str] = "generation"
    has_parents: ClassVar[bool] = True
    takes: ClassVar[str] = "a population moves"

    method: Literal["population"]
    every: PositiveInt
    """advances of a generation"""
    burn_in: PositiveInt | None = None
    """advances of the first generation; by default as many as of the others"""
    generations: int = Field(ge=2, le=1_000_000)
    """number of generations; the last one lasts until its members have finished"""
    patience: int | None = Field(None, ge=2)
    """the search ends once the best metric has hardly improved in so many generations; by default never"""
    params: dict[str, Moved] = Field(min_length=1)
    """the searched traced fields, each with its range; they begin at their `start`, by default at their value in the sweep or `params`"""
    exploit: Literal["tournament", "truncation"] = "tournament"
    """tournament: of two members the worse copies the better; truncation: the worst fifth copy members of the best fifth"""
    perturb: float = Field(0.1, ge=0, le=1)
    """largest move of a copied parameter, as a share of its range (of the range of its logarithm for loguniform), the same up and down"""

    def describe(self, size: int, advances: int = 0) -> str:
        """Describe the search over `size` items, on one line; `advances` says no more of it."""
        del advances
        text = f"population of {size} by {self.best} {self.metric}: {self.generations} generations of {self.every} advances"
        if self.burn_in:
            text += f", the first of {self.burn_in}"
        if self.patience:
            text += f"; it ends early after {self.patience} that are hardly better"
        return f"{text}, {', '.join(self.params)} searched"

    @property
    def length_field(self) -> str:
        """The field that sets the length of the first lap."""
        return "burn_in" if self.burn_in else "every"

    def _all_ends(self, size: int) -> list[int]:
        del size
        first = self.burn_in or self.every
        return [first + self.every * k for k in range(self.generations - 1)]

    @property
    def ranges(self) -> dict[str, Moved]:
        """Searched field -> its range."""
        return self.params

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """The outcome of a population that ends early."""
        early = Outcome("settled", "its population no longer improved")
        return (early,) if self.patience else ()

    def starts(self, model: type[Params], seed: int, n: int) -> dict[str, Any]:
        """The starts that the job gives. One that is drawn does not depend on the number of items, or on the other fields."""
        rng = lambda name: np.random.default_rng([seed, START, zlib.crc32(name.encode())])
        return {
            name: law.draw(rng(name), n) if law.start == "range" else law.start
            for name, law in self.params.items()
            if law.start is not None
        }

    def check_starts(self, starts: Read, fixed: frozenset[str]) -> None:
        """Raise JobError if members start outside of the range of a searched field, or it cannot be moved later."""
        if names := fixed & self.params.keys():
            raise JobError(
                f"search.params: {', '.join(sorted(names))}: acts only at an item's start, but a population changes it later; "
                "sweep it, or search it by optuna"
            )
        for name, law in self.params.items():
            low, high = extremes(law)
            values = starts(name)
            outside = values[(values < low) | (values > high)]
            if len(outside):
                raise JobError(
                    f"search.params: {name}: starts at {float(outside[0])!r}, outside of its range {[low, high]}; widen "
                    f"the range, or give a start inside of it as search.params.{name}.start"
                )

    def check_blocks(self, ids: np.ndarray, codes: Iterable[tuple[str, np.ndarray]]) -> None:
        """Raise JobError if a traced field differs inside a population but is not searched.

        Members copy one another's states, so they must be models of the same kind.
        """
        for name, block in codes:
            differ = np.flatnonzero((block != block[:, :1]).any(axis=1))
            if len(differ) and name not in self.params:
                first, *_, last = ids[differ[0]]
                raise JobError(
                    f"search: {name} differs inside the population of items {first}-{last}, but is "
                    f"not searched; give it a range in search.params, or a search.size within which {name} is "
                    "constant (the axes of a sweep are grid, zip, samples, seeds; the last varies fastest)"
                )

    def results(self, kernel: Kernel, size: int) -> dict[str, tuple[Var, np.ndarray]]:
        """The metric, the parent and the searched fields in each generation, and the last values of these fields."""
        axes, shape = ("generation",), self.generations
        each = lambda text, dtype=float: (Var(axes, "1", text), np.zeros(shape, dtype))
        results = {"search_metric": each(f"{self.metric} at its end")}
        results["search_parent"] = each("item whose state it began with", np.int32)
        for name in self.params:
            results[f"search_{name}"] = each(f"{name} during it")
            results[f"final_{name}"] = number(f"last value of {name}", float)
        return results

    def by_lap(self, read: Read, labels: object) -> Laps:
        """The metric at the end of each generation; the parent and the searched fields as it began."""
        parent = read("search_parent")
        columns = {self.metric: read("search_metric"), "parent": parent}
        return parent >= 0, columns | {name: read(f"search_{name}") for name in self.params}

    def searcher(self, items: SearchedItems) -> "PopulationSearcher":
        """Return the search of these items at its start."""
        return PopulationSearcher(self, items)


class PopulationSearcher(InStep):
    """Population-based training (Jaderberg et al. 2017) of every `size` neighbours."""

    search: Population

    def __init__(self, search: Population, items: SearchedItems) -> None:
        super().__init__(search, items)
        self._seed, shape = items.seed, self.metric.shape
        self._lineage = np.full(shape, -1, np.int32)
        self._lineage[:, 0] = items.ids
        self._params = {name: np.full(shape, np.nan) for name in search.params}
        for name, values in self._params.items():
            values[:, 0] = items.starts(name)
        self._best = np.full((self.n // self._size, shape[1]), np.nan)

    def values(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        return {name: values[rows, self.lap[rows]] for name, values in self._params.items()}

    def select(self, rows: np.ndarray, lap: int) -> np.ndarray:
        """Let members copy others, and move the parameters of those that do; all go on."""
        block = rows[0] // self._size * self._size
        u = draws(self._seed, lap, int(self.ids[block]), self._size, len(self._params))
        u = u[rows - block]
        table = u[:, 0], self.loss[rows], self.done[rows]
        is_tournament = self.search.exploit == "tournament"
        places = tournament(*table) if is_tournament else truncation(*table)
        parents = rows[places]
        self._lineage[rows, lap + 1] = self.ids[parents]
        self.state_rounds[rows], self._parent[rows] = self.state_rounds[parents], parents
        self.done[rows] = self.done[parents]
        copies = parents != rows
        for k, (name, values) in enumerate(self._params.items()):
            values[rows, lap + 1] = values[parents, lap]
            values[rows[copies], lap + 1] = moved(
                self.search, name, values[parents[copies], lap], u[copies, 2 + 2 * k]
            )
        return np.ones(len(rows), bool)

    def is_settled(self, rows: np.ndarray, lap: int) -> bool:
        """Note the best loss; return whether it has stopped falling.

        Over the last `patience` generations: best of the first - best of all <= MIN_IMPROVEMENT * mean |best|.
        """
        if (patience := self.search.patience) is None:
            return False
        best = self._best[rows[0] // self._size]
        if np.isfinite(losses := self.loss[rows]).any():
            best[lap] = np.nanmin(losses)
        last = best[max(0, lap + 1 - patience) : lap + 1]
        # If all members of a generation are broken, its best is NaN, and so is `least`: nothing is settled.
        least = MIN_IMPROVEMENT * np.abs(last).mean()
        return len(last) == patience and bool(last[0] - last.min() <= least)

    def records(self) -> dict[str, np.ndarray]:
        """Return the metric, the parent and the parameters of every generation, and the last parameters."""
        records = {"search_metric": self.metric, "search_parent": self._lineage}
        # The last generation that each member began: its parent is noted as it begins.
        begun = (self._lineage >= 0).sum(axis=1) - 1
        for name, values in self._params.items():
            records[f"search_{name}"] = values
            records[f"final_{name}"] = values[np.arange(self.n), begun]
        return records


def draws(seed: int, generation: int, first: int, size: int, n_params: int) -> np.ndarray:
    """Return (size, 1 + 2 n_params) uniform numbers of the members of one population after a generation.

    Column 0 draws whom a member is compared with; then, for each parameter, comes one that nothing reads and where it moves.
    first: the id of the population's first item.
    """
    rng = np.random.default_rng([seed, SALT, generation, first])
    return rng.random((size, 1 + 2 * n_params))


def tournament(u: np.ndarray, loss: np.ndarray, done: np.ndarray) -> np.ndarray:
    """Return (n,) the member from whose state each of the n goes on; its own if it copies nobody.

    Each member draws one of the others that can be copied. It copies that one if it is better, or if it is broken itself.

    u: (n,) uniform draws. loss: (n,) less is better, NaN where a member is broken. done: (n,) which have finished: nobody can go
    on from them.
    """
    members = np.arange(len(loss))
    can = ~np.isnan(loss) & ~done
    whom = np.flatnonzero(can)
    n_others = len(whom) - can
    rank = (u * n_others).astype(np.int64)
    # The others are those before and those behind itself.
    rank += can & (rank >= np.cumsum(can) - 1)
    other = members.copy()
    has_others = n_others > 0
    other[has_others] = whom[rank[has_others]]
    return np.where(np.isnan(loss) | (loss[other] < loss), other, members)


def truncation(u: np.ndarray, loss: np.ndarray, done: np.ndarray) -> np.ndarray:
    """Return (n,) members, as `tournament` does.

    The worst `FRACTION` and all broken members copy members drawn from the best `FRACTION`.
    """
    sources = np.arange(len(loss))
    n = max(1, int(FRACTION * len(loss)))
    order = np.argsort(loss, kind="stable")  # NaN, the broken ones, last
    best = order[:n][~np.isnan(loss[order[:n]]) & ~done[order[:n]]]
    # Not before the best end: of one member, it would be among both.
    worst = np.isnan(loss)
    worst[order[max(n, len(loss) - n) :]] = True
    if len(best):
        sources[worst] = best[(u[worst] * len(best)).astype(np.int64)]
    return sources


def moved(search: Population, name: str, values: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Return the values of a parameter in members that have just copied them.

    values: (n,) as copied. u: (n,) uniform draws.
    """
    law = search.params[name]
    most = search.perturb if law.perturb is None else law.perturb
    # Reflected at 0, then at 1: as `perturb` is at most 1, once each is enough.
    x = np.abs(position(law, values) + most * (2 * u - 1))
    return value_at(law, np.where(x > 1, 2 - x, x))


def value_at(law: Moved, x: np.ndarray) -> np.ndarray:
    """Return the values at positions `x`, never outside the range; the inverse of `position`."""
    low, high = extremes(law)
    if isinstance(law, Loguniform):
        values = np.exp(math.log(low) + x * (math.log(high) - math.log(low)))
    else:
        values = low + x * (high - low)
    return np.clip(values, low, high)
