"""Check that the search of a job fits its items."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from ctd.kernel import Kernel, Kind, field_kinds, inputs_of
from jobs.errors import JobError, count, nearest, validated, within
from jobs.forms import Choice, Loguniform, Uniform, extremes
from jobs.plan.items import Group, Items
from jobs.plan.params import in_32_bits
from jobs.search.method import Method, searched


def check_search(
    search: Method,
    kernel: Kernel,
    items: Items,
    shapes: Sequence[Mapping[str, object]],
    started: Sequence[frozenset[str]],
    location: str,
) -> None:
    """Raise JobError, which names the field, if the search of a job does not fit its items.

    shapes: for each group, result -> shape and dtype of one item. started: for each group, the traced fields that act at an item's
    start alone.
    """
    with within(location):
        for group, group_shapes, at_start in zip(items.groups, shapes, started, strict=True):
            _check_metric(search, kernel, group_shapes)
            _check_advances(search, kernel, group)
            for name in search.ranges:
                _check_param(name, search, kernel, group)
            search.check_starts(partial(_starts, group, items), at_start)
        _check_names(search, kernel)
        for group in items.groups:
            _check_size(search, group, items)
    # Last, since it imports Optuna: whoever must install it first should find no further fault afterwards.
    search.check_installed(location)


def _check_metric(search: Method, kernel: Kernel, shapes: Mapping[str, Any]) -> None:
    metric, name = search.metric, kernel.name
    is_number = lambda shape: shape.shape == () and shape.dtype.kind in "fiu"
    scalars = [k for k, shape in shapes.items() if is_number(shape) and k != "outcome"]
    if metric not in scalars:
        hint = f" is not a scalar result of kernel {name}{nearest(metric, scalars)}"
        if metric in kernel.dims and metric not in shapes:
            hint = f": kernel {name} has no such result with these params and data (`ctd kernels {name}`)"
        raise JobError(f"search.metric: {metric!r}{hint}")
    # The default, min, would silently keep the worst items.
    if kernel.dims[metric].more_is_better and "mode" not in search.model_fields_set:
        raise JobError(f"search.mode: missing, but a larger {metric} is better; give `mode: max`")


def _check_advances(search: Method, kernel: Kernel, group: Group) -> None:
    """Raise JobError if items finish before the first comparison. Only a kernel with `advances` tells when they finish."""
    # Optuna compares nothing before the end without `prune`.
    n = len(group.items)
    if kernel.advances is None or not search.ends(n):
        return
    most = kernel.advances(inputs_of(group.params))
    if most == 1:
        raise JobError(
            f"search: an item of kernel {kernel.name} makes only one advance here, "
            "so there is nothing to compare before its end; leave the section out"
        )
    if not search.ends(n, most):
        hint = " (lower report_every)" if "report_every" in kernel.Params.model_fields else ""
        raise JobError(f"{search.too_late(n, most)}{hint}")


def _check_names(search: Method, kernel: Kernel) -> None:
    new = searched(kernel, search).dims.keys() - kernel.dims.keys()
    reserved = {name for name in kernel.dims if name.startswith(("search_", "final_"))}
    if twice := sorted(reserved | (new & kernel.Params.model_fields.keys())):
        raise JobError(
            f"search: kernel {kernel.name} has its own {twice[0]!r}, but the search uses this name "
            "for its results; rename the kernel's"
        )


def _check_param(name: str, search: Method, kernel: Kernel, group: Group) -> None:
    """Raise JobError if a searched field is unknown, or does not take the values that the search gives it."""
    kinds, law = field_kinds(kernel.Params), search.ranges[name]
    traced = [field for field, kind in kinds.items() if kind is Kind.TRACED]
    at = f"search.params: {name}"
    if name not in kinds:
        fields = {field: kernel.Params.model_fields[field] for field in traced}
        raise JobError(f"{at}: unknown field{nearest(name, fields)}")
    if name not in traced and isinstance(law, Choice):
        return  # its values have been read: each has a group
    if name not in traced and not search.has_parents:
        raise JobError(
            f"{at}: is a {kinds[name].value} field, which is compiled in or read before; list its values, "
            f"`{name}: {{choice: [...]}}`"
        )
    if isinstance(law, Choice) and any(isinstance(value, str) for value in law.choice):
        raise JobError(f"{at}: {law.choice} given; a traced field takes numbers, without quotes")
    real = isinstance(law, Uniform | Loguniform)
    kind: Any = float if real else (float, int)
    can = [field for field in traced if isinstance(getattr(group.params, field), kind)]
    if name not in can:
        description = (
            f"no {'real ' * real}number" if name in traced else f"a {kinds[name].value} field"
        )
        raise JobError(
            f"{at}: is {description}; {search.takes} traced numbers, here {', '.join(can)}"
        )
    content = group.params.model_dump(mode="json")
    for value in extremes(law):
        params = validated(kernel.Params, {**content, name: value}, "search.params")
        with within("search.params"):
            in_32_bits(params)


def _starts(group: Group, items: Items, name: str) -> np.ndarray:
    if name in items.columns:
        return items.values(name, group.items)
    return np.array([getattr(group.params, name)])


def _check_size(search: Method, group: Group, items: Items) -> None:
    """Raise JobError if a group cannot be cut into as many items as are compared, or they are too few."""
    n = len(group.items)
    size = search.n_compared(n)
    labels = ", ".join(f"{k} = {v}" for k, v in group.labels.items())
    group_name = f"group {group.number}" + (f" ({labels})" if labels else "")
    if size < search.least:
        needs = f"but a comparison needs at least {search.least}"
        if search.block is not None:
            raise JobError(f"search.size: {count(size, 'item')} given, {needs}")
        raise JobError(
            f"search: {group_name} has {count(n, 'item')}, {needs}; sweep more (`samples`, `seeds`)"
        )
    if n % size:
        raise JobError(
            f"search.size: {group_name} has {count(n, 'item')}, which is not a multiple of {size}; only items "
            "that share all static and data fields are compared"
        )
    codes = (
        (name, column.codes[group.items].reshape(-1, size))
        for name, column in items.columns.items()
        if name not in group.labels and name != "seed"
    )
    search.check_blocks(group.items.reshape(-1, size), codes)
