"""Types of numbers, which a `Traced` field may have, and types that can change, which a `Static` one may not; equal values
of several types."""

from types import EllipsisType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin


def is_numeric(annotation: Any) -> bool:
    """True if a type is a number, or a tuple or a choice of numbers.

    >>> is_numeric(float), is_numeric(tuple[int, ...]), is_numeric(Literal[1, 2])
    (True, True, True)
    >>> is_numeric(float | None), is_numeric(list[float]), is_numeric(Literal["a"])
    (False, False, False)
    """
    annotation = getattr(annotation, "__value__", annotation)  # of `type Name = ...`
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin in (tuple, Union, UnionType, Literal, Annotated):
        return all(map(is_numeric, parts[: 1 if origin is Annotated else None]))
    # Anything but a type is a value of a Literal.
    kind = annotation if isinstance(annotation, type) else type(annotation)
    return issubclass(kind, int | float | EllipsisType)


def is_mutable(annotation: Any) -> bool:
    """True if a type is a list, dict or set, or has one inside.

    >>> is_mutable(tuple[list[int], ...]), is_mutable(dict | None), is_mutable(tuple[int, str])
    (True, True, False)
    """
    kind = get_origin(annotation) or annotation
    return kind in (list, dict, set) or any(map(is_mutable, get_args(annotation)))


class Exact(tuple[Any, ...]):
    """A base of named tuples whose equal values are of one type, too: a program of 1 is not that of True, nor one of 0.0 that of -0.0."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return super().__eq__(other) and repr(self) == repr(other)

    __hash__ = tuple.__hash__
