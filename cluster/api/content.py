"""Write the fields of a job from Python in the notation of a job file."""

import sys
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cluster.api.notebook import home_of, is_typed, name_of
from ctd.kernel import Kernel, Kind, field_kinds
from jobs.errors import JobError
from jobs.storage import addresses


def plain(value: object, where: str, module: str) -> Any:
    """Convert a value for YAML: arrays and ranges to lists, paths to texts, a class or function to `module.name`.

    Args:
        where: the field, for errors.
        module: the name of the notebook's module.

    Raises JobError if a job file cannot hold such a value.

    >>> plain({"candidate": range(3), "g": np.float32(1.5)}, "sweep", "")
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
        return {str(k): plain(inner, f"{where}.{k}", module) for k, inner in value.items()}
    if isinstance(value, list | tuple | range):
        return [plain(inner, where, module) for inner in value]
    if isinstance(value, type | types.FunctionType):
        if is_typed(value):
            return f"{module}.{name_of(value)}"
        return f"{_home(value)}.{value.__qualname__}"
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


def typed_names(value: object) -> set[str]:
    """The names of the classes and functions in a value that were defined in the notebook."""
    if isinstance(value, Mapping):
        return {name for inner in value.values() for name in typed_names(inner)}
    if isinstance(value, list | tuple):
        return {name for inner in value for name in typed_names(inner)}
    if isinstance(value, type | types.FunctionType) and is_typed(value):
        return {name_of(value)}
    return set()


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
    if isinstance(kernel, Kernel):
        if name := home_of(kernel):
            return name.removeprefix("ctd.")
        raise JobError(
            f"kernel: {kernel.name}: no module has it as `kernel`; give the module's name, or define it here"
        )
    raise JobError(f"kernel: {kernel!r:.60} given; expected a name, a module or a Kernel")


def with_files_from(content: Mapping[str, Any], kernel: Kernel, base: str) -> dict[str, Any]:
    """Make the file names in a job absolute; relative ones start from `base`."""
    kinds = field_kinds(kernel.Params)
    files = {name for name, kind in kinds.items() if kind is Kind.FILE}

    def absolute(value: object) -> Any:
        if isinstance(value, str):
            return addresses.join(base, value)
        if isinstance(value, list | tuple):
            return [absolute(inner) for inner in value]
        # A reference to an item of another store.
        if isinstance(value, dict) and isinstance(value.get("store"), str):
            return value | {"store": addresses.join(base, value["store"])}
        return value

    def fields(block: Mapping[str, object]) -> dict[str, Any]:
        return {k: absolute(v) if k in files else v for k, v in block.items()}

    def sweep(part: Mapping[str, object]) -> dict[str, Any]:
        blocks = ("grid", "zip", "random")
        return {k: fields(v) if k in blocks and isinstance(v, dict) else v for k, v in part.items()}

    found = dict(content)
    # Defaults too: from now on `base` is the folder of the module.
    info = kernel.Params.model_fields
    left = {k: info[k].default for k in files if isinstance(info[k].default, str | tuple)}
    swept = found.get("sweep") or []
    for part in swept if isinstance(swept, list) else [swept]:
        for block in ("grid", "zip", "random"):
            left = {k: v for k, v in left.items() if k not in (part.get(block) or {})}
    if left or isinstance(found.get("params"), dict):
        found["params"] = fields(left | (found.get("params") or {}))
    if isinstance(parts := found.get("sweep"), Sequence) and not isinstance(parts, str):
        found["sweep"] = [sweep(part) for part in parts]
    elif isinstance(parts, dict):
        found["sweep"] = sweep(parts)
    return found
