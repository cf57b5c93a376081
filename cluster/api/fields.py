"""Turn what Python gives a Job into the fields of a job file."""

import sys
import types
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from ctd.kernel import Kernel
from jobs.errors import JobError

MAIN = "__main__"


def module_of(kernel: Kernel) -> str:
    """Return the module that has a kernel as `kernel`.

    Raises JobError if there is none, or workers cannot import it.
    """
    home = kernel.Params.__module__
    if home == MAIN:
        raise _typed(f"kernel: {kernel.name}", "kernel")
    # `Params` stands in the kernel's module, or in a module of its package.
    for name in (home, home.rpartition(".")[0]):
        if getattr(sys.modules.get(name), "kernel", None) is kernel:
            return name
    raise JobError(f"kernel: {kernel.name}: is no module's `kernel`; name its module")


def _typed(thing: str, module: str) -> JobError:
    """The error for what workers cannot import."""
    return JobError(
        f"{thing}: is defined in this notebook or script, which workers cannot import; "
        f"begin its cell with `%%writefile {module}.py`, and import {module}"
    )


def plain(value: object, label: str) -> Any:
    """Convert a value for YAML: arrays and ranges to lists, paths to texts, a class or function to `module.name`.

    Args:
        label: names the field in errors.

    Raises JobError if a job file cannot hold such a value, or workers cannot import it.

    >>> plain({"candidate": range(3), "g": np.float32(1.5)}, "sweep")
    {'candidate': [0, 1, 2], 'g': 1.5}
    """
    # First, since np.float64 is a float and np.str_ a str.
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(k): plain(v, f"{label}.{k}") for k, v in value.items()}
    if isinstance(value, list | tuple | range):
        return [plain(inner, label) for inner in value]
    if isinstance(value, type | types.FunctionType):
        if value.__module__ == MAIN:
            raise _typed(f"{label}: {value.__name__}", value.__name__.lower())
        return f"{_home(value)}.{value.__qualname__}"
    if hasattr(value, "__array__") and not isinstance(value, np.generic):  # of JAX, pandas, xarray
        return plain(np.asarray(value), label)
    raise JobError(
        f"{label}: {value!r:.60} given; expected numbers, texts, lists, arrays, mappings, classes or functions"
    )


def _home(value: Any) -> str:
    """The module that a class or function is imported from: the outermost package that exports it, else its own module."""
    parts = value.__module__.split(".")
    for k in range(1, len(parts)):
        package = ".".join(parts[:k])
        if getattr(sys.modules[package], value.__qualname__, None) is value:
            return package
    return str(value.__module__)
