"""A group whose results are plotted, as one argument."""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, NamedTuple

import numpy as np


class Group(NamedTuple):
    """The five arguments of `Kernel.plots` and `Kernel.figure`."""

    inputs: Any
    """All fields of the parameters but the traced ones."""
    shared: Any
    """The group's data, as `load` returned them."""
    columns: Mapping[str, np.ndarray]
    """`item` and every traced field -> (item, ...) values."""
    results: Mapping[str, np.ndarray]
    """Result -> (item, ...) values; rows are read when they are indexed."""
    reduced: Mapping[str, np.ndarray]
    """The result of `reduce`; empty if the group was not gathered."""


def of_group[T](draw: Callable[[Group], T]) -> Callable[..., T]:
    """Decorate a function of a `Group`: the result takes the five fields by themselves, as `Kernel` calls it."""

    # Kernel.plots is called with the fields, so that users need not know this class.
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
