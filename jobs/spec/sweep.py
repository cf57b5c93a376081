"""Sweeps: the values that fields of `Params` take, as columns over the items.

A sweep is a product of blocks::

    grid:    {lr: [0.01, 0.1], candidate: {range: 10000}}   every combination
    zip:     {n: [50, 100], width: [5, 10]}                 side by side
    random:  {g: {uniform: [0.5, 2.0]}}                     `samples` draws
    samples: 64
    seeds:   8                                              replicates

or a list of such sweeps, one after another. Item ids count through the list, the last axis fastest.
Appending a sweep to the list therefore keeps the ids and the random keys of the older items. The draws of a random field
go on where those of the sweeps before it end.
"""

import math
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import BaseModel, Discriminator, PositiveInt, Tag, model_validator

from jobs.forms import SECTION, Axis, Choice, Distribution, compact


class Column(NamedTuple):
    """The values of one field over n items: item i has `values[codes[i]]`.

    codes: (n,) integers.
    values: the settings in order: an array of numbers, or of lists of numbers of one length; else a list.
    generated: whether a formula made the values; then only the smallest and the largest are validated.
    """

    codes: np.ndarray
    values: Any
    generated: bool = False


@dataclass(frozen=True)
class Lookup:
    """The rows `table[codes[items]]`, made when they are read: a column of ten million items takes 80 MB."""

    table: np.ndarray
    codes: np.ndarray
    items: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.items), *self.table.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.table.dtype

    def __getitem__(self, rows: slice) -> np.ndarray:
        return self.table[self.codes[self.items[rows]]]


class Sweep(BaseModel):
    """One product of axes; see the module's docstring.

    >>> sweep = Sweep(grid={"n": [50, 100], "g": {"linspace": [0.5, 1.5, 3]}}, seeds=4)
    >>> sweep.count(), sweep.names()
    (24, ['n', 'g', 'seed'])
    """

    model_config = SECTION

    grid: dict[str, Axis] = {}
    zip: dict[str, Axis] = {}
    random: dict[str, Distribution] = {}
    samples: PositiveInt | None = None
    """draws of the random fields"""
    seeds: PositiveInt = 1
    """replicates of every point, numbered in column `seed`"""

    @model_validator(mode="after")
    def _consistent(self) -> "Sweep":
        if self.random and self.samples is None:
            raise ValueError("random fields are given without their number; give `samples: N`")
        if self.samples is not None and not self.random:
            raise ValueError("`samples` is given without random fields; leave it out")
        lengths = {name: len(axis) for name, axis in self.zip.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"zip: fields of the lengths {lengths} given; expected equal lengths")
        names = self.names()
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"field(s) swept twice: {', '.join(sorted(twice))}")
        return self

    def names(self) -> list[str]:
        """The names of the swept fields, with `seed` if there are several seeds."""
        return [*self.grid, *self.zip, *self.random, *(["seed"] if self.seeds > 1 else [])]

    def shape(self) -> tuple[int, ...]:
        """The lengths of the axes: grid..., zip (if any), samples, seeds."""
        grid = tuple(len(axis) for axis in self.grid.values())
        zipped = tuple({len(axis) for axis in self.zip.values()})
        return (*grid, *zipped, self.samples or 1, self.seeds)

    def count(self) -> int:
        """The number of items, without making them."""
        return math.prod(self.shape())

    def columns(
        self, seed: int, draws_before: Mapping[str, int] | None = None
    ) -> dict[str, Column]:
        """The swept fields as columns over the `count()` items, the last axis fastest.

        seed: the job's seed, which determines the random draws. draws_before: random field -> its draws in earlier sweeps of the
        list, which are passed over.
        """
        shape = self.shape()

        @cache
        def codes(axis: int) -> np.ndarray:
            # The smallest integers: a column of int32 takes 40 MB for ten million items.
            indices = np.arange(shape[axis], dtype=np.min_scalar_type(-shape[axis]))
            return np.tile(
                np.repeat(indices, math.prod(shape[axis + 1 :])), math.prod(shape[:axis])
            )

        columns = {}
        for axis, (name, form) in enumerate(self.grid.items()):
            columns[name] = _column(codes(axis), form)
        for name, form in self.zip.items():
            columns[name] = _column(codes(len(self.grid)), form)
        for name, law in self.random.items():
            before = (draws_before or {}).get(name, 0)
            columns[name] = self._random_column(name, law, seed, before, codes(len(shape) - 2))
        if self.seeds > 1:
            columns["seed"] = Column(codes(len(shape) - 1), np.arange(self.seeds), True)
        return columns

    def grown_to(self, after: "Sweep") -> bool:
        """Return whether `after` is this sweep, perhaps with more samples, and its first items are those of this one."""
        # Samples vary faster than grid and zip: there, further ones would lie between those that are there.
        behind = math.prod(self.shape()[:-2]) == 1 and (after.samples or 0) >= (self.samples or 0)
        more = behind and self == after.model_copy(update={"samples": self.samples})
        return self == after or more

    def _random_column(
        self, name: str, form: Distribution, seed: int, before: int, codes: np.ndarray
    ) -> Column:
        # One generator per field: adding a field does not change the draws of the others, and raising
        # `samples` keeps the earlier draws.
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        assert self.samples is not None
        n = before + self.samples
        if isinstance(form, Choice):
            picks = rng.integers(len(form.choice), size=n)[before:].astype(np.int32)
            return Column(picks[codes], compact(form.choice))
        return Column(codes, form.draw(rng, n)[before:], True)


def _column(codes: np.ndarray, axis: Axis) -> Column:
    if isinstance(axis, list):
        return Column(codes, compact(axis))
    return Column(codes, axis.values(), True)


def columns_of(parts: Sequence[Sweep], seed: int) -> list[dict[str, Column]]:
    """The columns of each sweep of a list. seed: the job's.

    >>> part = Sweep(random={"k": {"integers": [0, 1000]}}, samples=2)
    >>> [columns["k"].values.tolist() for columns in columns_of([part, part], 0)]
    [[287, 490], [563, 940]]
    """
    columns, draws_before = [], Counter[str]()
    for part in parts:
        columns.append(part.columns(seed, draws_before))
        draws_before.update(dict.fromkeys(part.random, part.samples or 0))
    return columns


def listed(values: np.ndarray | list[Any]) -> list[Any]:
    """A column's values as Python's own: NumPy's whole numbers are no `int`, and would be taken for texts."""
    return values.tolist() if isinstance(values, np.ndarray) else values


Sweeps = Annotated[
    Annotated[Sweep, Tag("[sweep]")] | Annotated[list[Sweep], Tag("[list]")],
    Discriminator(lambda value: "[list]" if isinstance(value, list | tuple) else "[sweep]"),
]
"""One sweep, or a list of sweeps that follow one another."""
