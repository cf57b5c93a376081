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

import builtins
import math
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    Discriminator,
    Field,
    PositiveFloat,
    PositiveInt,
    Tag,
    field_validator,
    model_validator,
)

from jobs.spec.text import SECTION

LARGEST = 2**62
"""Whole numbers of a sweep are smaller: NumPy counts with 64 bits."""
MAX_ITEMS = 10**8
"""Most items of a sweep: a larger one is a likely mistake, and ids must stay below 2**32."""


Count = Annotated[int, Field(gt=0, le=MAX_ITEMS)]


class _Form(BaseModel):
    model_config = SECTION


def one_of(*kinds: type[_Form], or_list: bool = False) -> Discriminator:
    """A discriminator that finds the intended form of a value: that of its one key, whose notation begins the docstring of its class,
    or a list. The tag of a form is "[form]".

    Without it, an error would list the faults of the value under every form.
    """
    notations = [str(kind.__doc__).split("`")[1] for kind in kinds]
    forms = [notation.partition(":")[0] for notation in notations]
    *first, last = [f"{{{notation}}}" for notation in notations]
    message = f"expected {'a list, or ' * or_list}one of {', '.join(first)} and {last}"

    def tag(value: object) -> str | None:
        # A job made in Python may give an axis as a tuple, a range or an array.
        if isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping | BaseModel):
            return "[list]" if or_list else None
        classes = [kind.__name__.lower() for kind in type(value).__mro__]
        found = [f for f in forms if f in (value if isinstance(value, Mapping) else classes)]
        return f"[{found[0]}]" if len(found) == 1 else None

    known: dict[str, Any] = {"known": " ".join(["list", *forms] if or_list else forms)}
    return Discriminator(
        tag, custom_error_type="form", custom_error_message=message, custom_error_context=known
    )


class Range(_Form):
    """`range: n`, `range: [start, stop]` or `range: [start, stop, step]`, as in Python."""

    range: int | tuple[int, int] | tuple[int, int, int]

    @field_validator("range", mode="before")
    @classmethod
    def _as_in_python(cls, value: Any) -> Any:
        # Here, since an error of the union would list the faults under each of its forms.
        ends: list[Any] = [*value] if isinstance(value, list | tuple) else [value, value]
        number = lambda v: isinstance(v, int | float | np.number)
        whole = all(number(v) and abs(v) < LARGEST and v == int(v) for v in ends)
        if not whole or len(ends) not in (2, 3) or 0 in ends[2:]:
            raise ValueError(
                "expected whole numbers: n, [start, stop] or [start, stop, step], no step of 0"
            )
        return value

    def __len__(self) -> int:
        return len(builtins.range(*self._ends()))

    def values(self) -> np.ndarray:
        return np.arange(*self._ends())

    def _ends(self) -> tuple[int, ...]:
        return self.range if isinstance(self.range, tuple) else (self.range,)


class Linspace(_Form):
    """`linspace: [first, last, count]`, evenly spaced, ends included."""

    linspace: tuple[float, float, Count]

    def __len__(self) -> int:
        return self.linspace[2]

    def values(self) -> np.ndarray:
        return np.linspace(*self.linspace)


class Geomspace(_Form):
    """`geomspace: [first, last, count]`, evenly spaced in the logarithm, ends included."""

    geomspace: tuple[PositiveFloat, PositiveFloat, Count]

    def __len__(self) -> int:
        return self.geomspace[2]

    def values(self) -> np.ndarray:
        return np.geomspace(*self.geomspace)


Axis = Annotated[
    Annotated[list[Any], Field(min_length=1), Tag("[list]")]
    | Annotated[Range, Tag("[range]")]
    | Annotated[Linspace, Tag("[linspace]")]
    | Annotated[Geomspace, Tag("[geomspace]")],
    one_of(Range, Linspace, Geomspace, or_list=True),
]


def _rising[T: (int, float)](ends: tuple[T, T]) -> tuple[T, T]:
    if ends[0] >= ends[1]:
        raise ValueError(f"{list(ends)} given; expected low < high")
    return ends


class Uniform(_Form):
    """`uniform: [low, high]`."""

    uniform: Annotated[tuple[float, float], AfterValidator(_rising)]

    def draw(self, rng: np.random.Generator, n: int) -> np.ndarray:
        low, high = self.uniform
        return low + (high - low) * rng.random(n)


class Loguniform(_Form):
    """`loguniform: [low, high]`, uniform in the logarithm."""

    loguniform: Annotated[tuple[PositiveFloat, PositiveFloat], AfterValidator(_rising)]

    def draw(self, rng: np.random.Generator, n: int) -> np.ndarray:
        low, high = np.log(self.loguniform)
        return np.exp(low + (high - low) * rng.random(n))


Whole = Annotated[int, Field(ge=-LARGEST, le=LARGEST)]


class Integers(_Form):
    """`integers: [low, high]`, high excluded."""

    integers: Annotated[tuple[Whole, Whole], AfterValidator(_rising)]

    def draw(self, rng: np.random.Generator, n: int) -> np.ndarray:
        return rng.integers(*self.integers, size=n)


class Choice(_Form):
    """`choice: [a, b, ...]`, each equally likely."""

    choice: Annotated[list[Any], Field(min_length=1)]


Distribution = Annotated[
    Annotated[Uniform, Tag("[uniform]")]
    | Annotated[Loguniform, Tag("[loguniform]")]
    | Annotated[Integers, Tag("[integers]")]
    | Annotated[Choice, Tag("[choice]")],
    one_of(Uniform, Loguniform, Integers, Choice),
]


class Column(NamedTuple):
    """The values of one field over n items: item i has `values[codes[i]]`.

    codes: (n,) integers.
    values: the settings in order: an array of numbers, or of lists of numbers of one length; else a list.
    generated: whether a formula made the values; then only the smallest and the largest are validated.
    """

    codes: np.ndarray
    values: Any
    generated: bool = False


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

    def columns(self, seed: int, drawn: Mapping[str, int] | None = None) -> dict[str, Column]:
        """The swept fields as columns over the `count()` items, the last axis fastest.

        seed: the job's seed, which determines the random draws. drawn: random field -> its draws in earlier sweeps of the
        list, which are passed over.
        """
        shape = self.shape()

        @cache
        def codes(axis: int) -> np.ndarray:
            # The smallest integers: a column of int32 takes 40 MB for ten million items.
            once = np.arange(shape[axis], dtype=np.min_scalar_type(-shape[axis]))
            return np.tile(np.repeat(once, math.prod(shape[axis + 1 :])), math.prod(shape[:axis]))

        columns = {}
        for axis, (name, form) in enumerate(self.grid.items()):
            columns[name] = _column(codes(axis), form)
        for name, form in self.zip.items():
            columns[name] = _column(codes(len(self.grid)), form)
        for name, law in self.random.items():
            before = (drawn or {}).get(name, 0)
            columns[name] = self._drawn(name, law, seed, before, codes(len(shape) - 2))
        if self.seeds > 1:
            columns["seed"] = Column(codes(len(shape) - 1), np.arange(self.seeds), True)
        return columns

    def grown_to(self, after: "Sweep") -> bool:
        """Whether `after` is this sweep, perhaps with more samples, and its first items are those of this one."""
        # Samples vary faster than grid and zip: there, further ones would lie between those that are there.
        behind = math.prod(self.shape()[:-2]) == 1 and (after.samples or 0) >= (self.samples or 0)
        more = behind and self == after.model_copy(update={"samples": self.samples})
        return self == after or more

    def _drawn(
        self, name: str, form: Distribution, seed: int, before: int, codes: np.ndarray
    ) -> Column:
        # One generator per field: adding a field does not change the draws of the others, and raising
        # `samples` keeps the earlier draws.
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        assert self.samples is not None
        n = before + self.samples
        if isinstance(form, Choice):
            drawn = rng.integers(len(form.choice), size=n)[before:].astype(np.int32)
            return Column(drawn[codes], compact(form.choice))
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
    made, drawn = [], Counter[str]()
    for part in parts:
        made.append(part.columns(seed, drawn))
        drawn.update(dict.fromkeys(part.random, part.samples or 0))
    return made


def compact(values: list[Any]) -> Any:
    """Numbers (not booleans), or tuples of numbers of one length, as an array; any other list as it is."""
    # True is an int to Python, and would become 1 in an array of numbers.
    number = lambda v: isinstance(v, int | float) and not isinstance(v, bool)
    if all(number(v) for v in values):
        return np.asarray(values)
    tuples = all(isinstance(v, tuple) and all(number(x) for x in v) for v in values)
    return np.asarray(values) if tuples and len({len(v) for v in values}) == 1 else list(values)


def listed(values: np.ndarray | list[Any]) -> list[Any]:
    """A column's values as Python's own: NumPy's whole numbers are no `int`, and would be taken for texts."""
    return values.tolist() if isinstance(values, np.ndarray) else values


Sweeps = Annotated[
    Annotated[Sweep, Tag("[sweep]")] | Annotated[list[Sweep], Tag("[list]")],
    Discriminator(lambda value: "[list]" if isinstance(value, list | tuple) else "[sweep]"),
]
"""One sweep, or a list of sweeps that follow one another."""
