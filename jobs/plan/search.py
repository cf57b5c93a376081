"""Search in the plan: the results that it adds to the kernel's own, and whether it fits its job.

search_advances             (item)              advances of the item
search_metric               (item, rung)        halving: the metric at each rung; NaN: not reached
search_rung                 (item)              halving: rungs that the item survived
search_metric               (item, generation)  population: the metric at the end of each generation
search_parent               (item, generation)  the item whose state began the generation; -1: none
search_NAME                 (item, generation)  the value of a searched parameter in each generation
final_NAME                  (item)              the last value of the parameter, which the results belong to

An item that left at a rung has the status and the outcome *dropped*, and its results at that rung. An item whose
population ended early (`patience`) has the outcome *settled*, and its results at that time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from pydantic import ValidationError

from ctd.kernel import Kernel, Kind, Outcome, Var, field_kinds, inputs_of
from ctd.late import jax
from jobs.errors import JobError, explain, nearest
from jobs.plan.items import Group, Items
from jobs.spec.job import JobSpec
from jobs.spec.search import Halving, Population, bounds


def searched(kernel: Kernel, search: Halving | Population | None) -> Kernel:
    """The kernel with the results and outcomes that a search adds; the kernel itself without a search."""
    return kernel if search is None else _searched(kernel, search.model_dump_json(), type(search))


@cache
def _searched(kernel: Kernel, text: str, kind: Any) -> Kernel:
    search = kind.model_validate_json(text)
    outcomes = kernel.outcomes
    if outcomes and isinstance(search, Halving):
        outcomes = (*outcomes, Outcome("dropped", "left at a rung of successive halving"))
    if outcomes and isinstance(search, Population) and search.patience:
        outcomes = (*outcomes, Outcome("settled", "its population no longer improved"))
    dims = {**kernel.dims, **{name: var for name, (var, _) in _records(search, 1).items()}}
    return replace(kernel, dims=dims, outcomes=outcomes)


def shapes(search: Halving | Population | None, n_items: int) -> dict[str, jax.ShapeDtypeStruct]:
    """The results that a search adds -> shape and dtype of one item. n_items: number of items in the group."""
    if search is None:
        return {}
    return {name: shape for name, (_, shape) in _records(search, search.together(n_items)).items()}


def _records(
    search: Halving | Population, size: int
) -> dict[str, tuple[Var, jax.ShapeDtypeStruct]]:
    real, whole = np.dtype(np.float64), np.dtype(np.int32)
    found = {"search_advances": (Var((), "1", "advances made"), _shape((), whole))}
    if isinstance(search, Halving):
        n = search.n_rungs(size)
        found["search_rung"] = (Var((), "1", "rungs survived"), _shape((), whole))
        text = f"{search.metric} at every rung"
        return found | {"search_metric": (Var(("rung",), "1", text), _shape((n,), real))}
    g = (search.generations,)
    along = lambda text: Var(("generation",), "1", text)
    found["search_metric"] = (along(f"{search.metric} at its end"), _shape(g, real))
    found["search_parent"] = (along("item whose state it began with"), _shape(g, whole))
    for name in search.params:
        found[f"search_{name}"] = (along(f"{name} during it"), _shape(g, real))
        found[f"final_{name}"] = (Var((), "1", f"last value of {name}"), _shape((), real))
    return found


def _shape(shape: tuple[int, ...], dtype: np.dtype[Any]) -> jax.ShapeDtypeStruct:
    with jax.enable_x64(True):
        return jax.ShapeDtypeStruct(shape, dtype)


def check_search(
    spec: JobSpec, kernel: Kernel, items: Items, shapes: Sequence[Mapping[str, Any]], where: str
) -> list[int]:
    """Check the search of a job; for each group, return how many items it compares with one another, 1 without a search.

    Args:
        shapes: for each group, result -> shape and dtype of one item.

    Raises:
        JobError: the search does not fit the job; the text names the field.
    """
    search = spec.search
    if search is None:
        return [1] * len(items.groups)
    for group, found in zip(items.groups, shapes, strict=True):
        _check_metric(search, kernel, found, where)
        _check_advances(search, kernel, group, where)
        if isinstance(search, Population):
            for name in search.params:
                _check_parameter(search, name, kernel, group, items, where)
    _check_names(search, kernel, where)
    return [_size(spec, search, group, items, where) for group in items.groups]


def _check_metric(
    search: Halving | Population, kernel: Kernel, shapes: Mapping[str, Any], where: str
) -> None:
    scalars = [k for k, s in shapes.items() if s.shape == () and s.dtype.kind in "fiu"]
    scalars = [name for name in scalars if name != "outcome"]
    at, name = f"{where}: search.metric: {search.metric!r}", kernel.name
    if search.metric not in scalars:
        if search.metric in kernel.dims and search.metric not in shapes:
            raise JobError(
                f"{at}: kernel {name} has no such result with these params and data (`ctd kernels {name}`)"
            )
        raise JobError(
            f"{at} is not a scalar result of kernel {name}{nearest(search.metric, scalars)}"
        )
    # The default, min, would silently keep the worst items.
    if kernel.dims[search.metric].more_is_better and "mode" not in search.model_fields_set:
        raise JobError(
            f"{where}: search.mode: missing, but a larger {search.metric} is better; give `mode: max`"
        )


def _check_advances(search: Halving | Population, kernel: Kernel, group: Group, where: str) -> None:
    """Raise JobError if items finish before the first comparison. Only a kernel with `advances` tells when they finish."""
    if kernel.advances is None:
        return
    most = kernel.advances(inputs_of(group.params))
    if most == 1:
        raise JobError(
            f"{where}: search: an item of kernel {kernel.name} makes a single advance here, so that nothing can be "
            "compared before its end; leave the section out"
        )
    if not search.n_comparisons(len(group.items), most) and len(group.items) > 1:
        hint = " (lower report_every)" if "report_every" in kernel.Params.model_fields else ""
        field = search.length_field
        raise JobError(
            f"{where}: search.{field}: {getattr(search, field)} advances given, but items finish after {most}, "
            f"before their first comparison; lower it, or let items make more and shorter advances{hint}"
        )


def _check_names(search: Halving | Population, kernel: Kernel, where: str) -> None:
    new = set(searched(kernel, search).dims) - set(kernel.dims)
    own = {name for name in kernel.dims if name.startswith(("search_", "final_"))}
    twice = sorted(own | (new & set(kernel.Params.model_fields)))
    if twice:
        raise JobError(
            f"{where}: search: kernel {kernel.name} has its own {twice[0]!r}, but the search uses this name "
            "for its results; rename the kernel's"
        )


def _check_parameter(
    search: Population, name: str, kernel: Kernel, group: Group, items: Items, where: str
) -> None:
    kinds = field_kinds(kernel.Params)
    traced = [field for field, kind in kinds.items() if kind is Kind.TRACED]
    at = f"{where}: search.params: {name}"
    if name not in kinds:
        raise JobError(f"{at}: unknown field{nearest(name, traced)}")
    value = getattr(group.params, name)
    if kinds[name] is not Kind.TRACED or not isinstance(value, float):
        what = (
            f"a {kinds[name].value} field" if kinds[name] is not Kind.TRACED else "no real number"
        )
        raise JobError(
            f"{at}: is {what}; a population moves traced real numbers: "
            f"{', '.join(f for f in traced if isinstance(getattr(group.params, f), float))}"
        )
    low, high = bounds(search.params[name])
    content = group.params.model_dump(mode="json")
    for end in (low, high):
        try:
            kernel.Params.model_validate({**content, name: end})
        except ValidationError as error:
            raise JobError(explain(error, f"{where}: search.params", {})) from None
    starts = items.values(name, group.items) if name in items.columns else np.asarray([value])
    outside = starts[(starts < low) | (starts > high)]
    if len(outside):
        raise JobError(
            f"{at}: starts at {float(outside[0])!r}, outside of its range {[low, high]}; widen the "
            f"range, or give a start inside of it as search.params.{name}.start"
        )


def _size(
    spec: JobSpec, search: Halving | Population, group: Group, items: Items, where: str
) -> int:
    n = len(group.items)
    size = search.together(n)
    least = search.eta if isinstance(search, Halving) else 2
    labels = ", ".join(f"{k} = {v}" for k, v in group.labels.items())
    which = f"group {group.number}" + (f" ({labels})" if labels else "")
    if size < least:
        raise JobError(
            f"{where}: search.size: {size} items given, but a comparison needs at least {least}; "
            f"{which} has {n} items, sweep more (`samples`, `seeds`)"
        )
    if n % size:
        raise JobError(
            f"{where}: search.size: {which} has {n} items, which is not a multiple of {size}; only items "
            "that share all static and data fields are compared"
        )
    if (k := spec.run.shard_items) and k % size and not (search.spread and size % k == 0):
        raise JobError(
            f"{where}: run.shard_items: {k} is not a multiple {'or divisor ' if search.spread else ''}"
            f"of the {size} items that the search compares; leave it out"
            + (
                ""
                if search.spread
                else ", or let the shards exchange states: `search: {spread: true}`"
            )
        )
    if isinstance(search, Population):
        _check_members(search, group, items, size, where)
    return size


def _check_members(search: Population, group: Group, items: Items, size: int, where: str) -> None:
    """Raise JobError if a traced field differs inside a population but is not searched.

    Members copy one another's states, so they must be models of the same kind.
    """
    for name, column in items.columns.items():
        if name in search.params or name in group.labels or name == "seed":
            continue
        codes = column.codes[group.items].reshape(-1, size)
        differ = np.flatnonzero((codes != codes[:, :1]).any(axis=1))
        if len(differ):
            first, last = group.items[differ[0] * size], group.items[differ[0] * size + size - 1]
            raise JobError(
                f"{where}: search: {name} differs inside the population of items {first}-{last}, but is "
                f"not searched; give it a range in search.params, or a search.size within which {name} is "
                "constant (the axes of a sweep are grid, zip, samples, seeds; the last varies fastest)"
            )
