"""Make the names of files in a job absolute, so that they hold from any folder."""

from collections.abc import Callable, Mapping
from typing import Any

from ctd.kernel import Kernel, Kind, field_kinds
from jobs.storage.addresses import join


def with_files_from(content: Mapping[str, Any], kernel: Kernel, base: str) -> dict[str, Any]:
    """Make the names of files in a valid job absolute; relative ones, also those that are defaults, start from `base`.

    content: the fields of a job file, of which `params` and `sweep` change.

    >>> from ctd.esn import kernel
    >>> with_files_from({"params": {"n": 5}, "sweep": {"grid": {"path": ["a.h5"]}}}, kernel, "/lab")
    {'params': {'n': 5}, 'sweep': {'grid': {'path': ['/lab/a.h5']}}}
    """
    kinds, info = field_kinds(kernel.Params), kernel.Params.model_fields
    files = {name for name, kind in kinds.items() if kind is Kind.FILE}

    def absolute(value: Any) -> Any:
        if isinstance(value, str):
            return value and join(base, value)
        if isinstance(value, list | tuple):
            return [absolute(one) for one in value]
        if isinstance(value, dict):  # a reference to an item of another store; a draw from a list
            return value | {k: absolute(value[k]) for k in ("store", "choice") if k in value}
        return value

    def fields(block: Any) -> Any:
        if not isinstance(block, dict):  # samples, seeds
            return block
        return {name: absolute(v) if name in files else v for name, v in block.items()}

    sweep = content.get("sweep") or {}
    parts = sweep if isinstance(sweep, list) else [sweep]
    blocks = [block for part in parts for block in part.values() if isinstance(block, dict)]
    left = sorted(files.difference(*blocks))
    defaults = {k: info[k].default for k in left if isinstance(info[k].default, str | tuple)}
    found = {**content, "params": fields(defaults | content.get("params", {}))}
    if sweep:
        moved = lambda part: {key: fields(block) for key, block in part.items()}
        found["sweep"] = of_each_sweep(sweep, moved)
    return found


def of_each_sweep[T](sweep: object, change: Callable[[Any], T]) -> T | list[T]:
    """The section `sweep` of a job file, one sweep or a list, with each sweep changed."""
    return [change(part) for part in sweep] if isinstance(sweep, list) else change(sweep)
