"""What the pictures of a group are made from."""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, NamedTuple

import numpy as np


class Group(NamedTuple):
    """A group whose results are drawn."""

    inputs: Any
    """All fields of its parameters but the traced ones."""
    shared: Any
    """Its data, as `load` returned it."""
    columns: Mapping[str, np.ndarray]
    """`item` and every traced field, one value an item each."""
    results: Mapping[str, np.ndarray]
    """Results by name, one row an item; rows are read when they are indexed."""
    reduced: Mapping[str, np.ndarray]
    """What `reduce` returned; empty if the group was not gathered."""


def of_group[T](draw: Callable[[Group], T]) -> Callable[..., T]:
    """Make of a function of a `Group` the function of its five fields that `Kernel` asks for."""

    @wraps(draw)
    def of_fields(
        inputs: Any,
        shared: Any,
        columns: Mapping[str, np.ndarray],
        results: Mapping[str, np.ndarray],
        reduced: Mapping[str, np.ndarray],
    ) -> T:
        return draw(Group(inputs, shared, columns, results, reduced))

    return of_fields
