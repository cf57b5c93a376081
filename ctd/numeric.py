"""Which types are those of numbers: what a `Traced` field may be."""

from types import EllipsisType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin


def is_numeric(annotation: Any) -> bool:
    """Whether a type is a number, or a tuple or a choice of numbers.

    >>> is_numeric(float), is_numeric(tuple[int, ...]), is_numeric(Literal[1, 2])
    (True, True, True)
    >>> is_numeric(float | None), is_numeric(list[float]), is_numeric(Literal["a"])
    (False, False, False)
    """
    annotation = getattr(annotation, "__value__", annotation)  # of `type Name = ...`
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin in (tuple, Union, UnionType, Literal, Annotated):
        return all(map(is_numeric, parts[: 1 if origin is Annotated else None]))
    # What is no type is a value of a Literal.
    kind = annotation if isinstance(annotation, type) else type(annotation)
    return issubclass(kind, int | float | EllipsisType)
