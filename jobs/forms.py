"""The forms of values in a job file, and how a model reads a section of it.

[a, b, ...]  {range: n}  {linspace: [a, b, n]}  {geomspace: [a, b, n]}                        an axis
{uniform: [a, b]}  {loguniform: [a, b]}  {integers: [a, b]}  {choice: [a, b, ...]}            a distribution
"""

import builtins
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PositiveFloat,
    Tag,
    field_validator,
)

SECTION = ConfigDict(
    frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
)
"""How a model reads a section of a job file or a profile. Stores hold it as JSON, which has no infinities; `ctd schema` shows the
text below each field."""
LARGEST = 2**62
"""Whole numbers of a sweep are smaller: NumPy counts with 64 bits."""
MAX_ITEMS = 10**8
"""Most items of a sweep: a larger one is a likely mistake, and ids must stay below 2**32."""
NEAR = 0.01
"""Share of a range, or of its logarithm's, that counts as its end."""


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
        fits = [f for f in forms if f in (value if isinstance(value, Mapping) else classes)]
        return f"[{fits[0]}]" if len(fits) == 1 else None

    return _discriminator(tag, message, known=" ".join(["list", *forms] if or_list else forms))


def kind_by(key: str, kinds: Iterable[str]) -> Discriminator:
    """A discriminator of mappings whose `key` names one of these kinds. The tag of a kind is "[kind]"."""
    *others, last = words = [*kinds]
    message = f"expected a mapping with `{key}:` {', '.join(others)} or {last}"

    def tag(value: object) -> str | None:
        word = value.get(key) if isinstance(value, Mapping) else getattr(value, key, None)
        return f"[{word}]" if word in words else None

    return _discriminator(tag, message, known=" ".join(words), key=key)


def _discriminator(tag: Callable[[Any], str | None], message: str, **about: Any) -> Discriminator:
    """Return a discriminator whose error says `message`. about: the context of the error, which `jobs.errors.explain` reads."""
    return Discriminator(
        tag, custom_error_type="form", custom_error_message=message, custom_error_context=about
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
        are_whole = all(number(v) and abs(v) < LARGEST and v == int(v) for v in ends)
        if not are_whole or len(ends) not in (2, 3) or 0 in ends[2:]:
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


WholeNumber = Annotated[int, Field(ge=-LARGEST, le=LARGEST)]


class Integers(_Form):
    """`integers: [low, high]`, high excluded."""

    integers: Annotated[tuple[WholeNumber, WholeNumber], AfterValidator(_rising)]

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


def compact(values: list[Any]) -> Any:
    """Numbers (not booleans), or tuples of numbers of one length, as an array; any other list as it is."""
    # True is an int to Python, and would become 1 in an array of numbers.
    number = lambda v: isinstance(v, int | float) and not isinstance(v, bool)
    if all(number(v) for v in values):
        return np.asarray(values)
    tuples = all(isinstance(v, tuple) and all(number(x) for x in v) for v in values)
    return np.asarray(values) if tuples and len({len(v) for v in values}) == 1 else list(values)


def extremes(law: Distribution) -> list[Any]:
    """The ends of a range, both of which may be drawn; all values of a choice."""
    match law:
        case Uniform(uniform=(low, high)) | Loguniform(loguniform=(low, high)):
            return [low, high]
        case Integers(integers=(low, high)):
            return [low, high - 1]
    return law.choice


def position(law: Uniform | Loguniform, values: Any) -> Any:
    """Return the position of a value, or of each in an array, in its range: 0 at the low end, 1 at the high end.

    A loguniform's position is that of the logarithm.
    """
    low, high = extremes(law)
    if isinstance(law, Loguniform):
        return (np.log(values) - math.log(low)) / (math.log(high) - math.log(low))
    return (values - low) / (high - low)


def end_of(law: Distribution | Axis, value: float) -> str:
    """Return "lower" or "upper" if a value lies at that end of a range, or of a grid of three numbers or more; else "".

    A grid's 0 is no lower end, since few parameters may be negative.

    >>> end_of(Loguniform(loguniform=(0.01, 1)), 0.0101), end_of([0.1, 0.5, 0.9], 0.9), end_of([0.0, 0.5, 0.9], 0.0)
    ('lower', 'upper', '')
    """
    if isinstance(law, Uniform | Loguniform):
        share = position(law, value)
        return "lower" if share < NEAR else "upper" if share > 1 - NEAR else ""
    if isinstance(law, Integers | Choice):
        return ""
    values = compact(law) if isinstance(law, list) else law.values()
    if not isinstance(values, np.ndarray) or values.ndim > 1 or len(np.unique(values)) < 3:
        return ""
    return "upper" if value == values.max() else "lower" if value == values.min() != 0 else ""


def dtype_of(law: Distribution) -> np.dtype[Any]:
    """The type of a searched field's values: float64, int64, bool or text."""
    return np.asarray(extremes(law)).dtype
