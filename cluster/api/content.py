"""Write the fields of a job from Python in the notation of a job file."""

import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cluster.api.notebook import home_of, is_typed, name_of
from ctd.kernel import Kernel
from jobs.errors import JobError


def plain(value: object, where: str, module: str, typed: set[str]) -> Any:
    """Convert a value for YAML: arrays and ranges to lists, paths to texts, a class or function to `module.name`.

    Args:
        where: the field, for errors.
        module: the name of the notebook's module.
        typed: gets the names of the classes and functions in the value that were defined in the notebook.

    Raises JobError if a job file cannot hold such a value.

    >>> plain({"candidate": range(3), "g": np.float32(1.5)}, "sweep", "", set())
    {'candidate': [0, 1, 2], 'g': 1.5}
    """
    # First, since np.float64 is a float and np.str_ a str.
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(k): plain(v, f"{where}.{k}", module, typed) for k, v in value.items()}
    if isinstance(value, list | tuple | range):
        return [plain(inner, where, module, typed) for inner in value]
    if isinstance(value, type | types.FunctionType):
        if not is_typed(value):
            return f"{_home(value)}.{value.__qualname__}"
        typed.add(name := name_of(value))
        return f"{module}.{name}"
    if hasattr(value, "__array__"):  # of JAX, pandas, xarray
        return np.asarray(value).tolist()
    raise JobError(
        f"{where}: {value!r:.60} given; expected numbers, texts, lists, arrays, mappings, classes or functions"
    )


def _home(value: Any) -> str:
    """The module that a class or function is imported from: the outermost package that exports it, else its own module."""
    parts = value.__module__.split(".")
    for k in range(1, len(parts)):
        package = ".".join(parts[:k])
        if getattr(sys.modules[package], value.__qualname__, None) is value:
            return package
    return str(value.__module__)


def kernel_name(kernel: object) -> str:
    """The name of a kernel in a job file, given as its name, its module, or the Kernel. Raises JobError without a module.

    >>> import ctd.esn
    >>> kernel_name(ctd.esn), kernel_name(ctd.esn.kernel)
    ('esn', 'esn')
    """
    if isinstance(kernel, str):
        return kernel
    if isinstance(kernel, types.ModuleType):
        return kernel.__name__.removeprefix("ctd.")
    if not isinstance(kernel, Kernel):
        raise JobError(f"kernel: {kernel!r:.60} given; expected a name, a module or a Kernel")
    if name := home_of(kernel):
        return name.removeprefix("ctd.")
    raise JobError(
        f"kernel: {kernel.name}: is no module's `kernel`; name its module, or define it here"
    )
