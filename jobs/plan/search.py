"""Search in the plan: the results that it adds to the kernel's own, and whether it fits its job.

search_advances             (item)              advances of the item
search_metric               (item, rung)        on rungs: the metric at each rung; NaN: not reached
search_rung                 (item)              on rungs: rungs from which the item went on
search_metric               (item, generation)  population: the metric at the end of each generation
search_parent               (item, generation)  the item whose state began the generation; -1: none
search_NAME                 (item, generation)  the value of a searched parameter in each generation
final_NAME                  (item)              the last value of the parameter, which the results belong to; Optuna: the proposal

Halving, asynchronous halving and Optuna with `prune` are on rungs. An item that left at a rung has the status and the outcome *dropped*, and its results at that rung. An item whose
population ended early (`patience`) has the outcome *settled*, and its results at that time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from ctd.kernel import Kernel, Kind, Outcome, Var, field_kinds, inputs_of
from ctd.late import jax
from jobs.errors import JobError, count, nearest, validated
from jobs.plan.items import Group, Items, chosen
from jobs.plan.params import in_32_bits
from jobs.search.optuna import check_installed
from jobs.spec.job import JobSpec
from jobs.spec.search import Optuna, Population, Search, dtype_of, extremes
from jobs.spec.sweep import Choice, Distribution, Loguniform, Uniform


def searched(kernel: Kernel, search: Search | None) -> Kernel:
    """The kernel with the results and outcomes that a search adds; the kernel itself without a search."""
    # As a text: a search holds dictionaries, so that it cannot be the key of a cache itself.
    return kernel if search is None else _searched(kernel, search.model_dump_json(), type(search))


@cache
def _searched(kernel: Kernel, text: str, kind: Any) -> Kernel:
    search = kind.model_validate_json(text)
    outcomes = kernel.outcomes
    if outcomes and search.rungs:
        outcomes = (*outcomes, Outcome("dropped", "left at a rung of the search"))
    if outcomes and isinstance(search, Population) and search.patience:
        outcomes = (*outcomes, Outcome("settled", "its population no longer improved"))
    # Names and axes are the same for any number of items: 1 stands for all.
    dims = {**kernel.dims, **{name: var for name, (var, _) in _records(search, kernel, 1).items()}}
    return replace(kernel, dims=dims, outcomes=outcomes)


def shapes(search: Search | None, kernel: Kernel, n_items: int) -> dict[str, jax.ShapeDtypeStruct]:
    """The results that a search adds -> shape and dtype of one item. n_items: number of items in the group."""
    if search is None:
        return {}
    found = _records(search, kernel, search.n_compared(n_items))
    return {name: shape for name, (_, shape) in found.items()}


def _records(
    search: Search, kernel: Kernel, size: int
) -> dict[str, tuple[Var, jax.ShapeDtypeStruct]]:
    real, whole = np.dtype(np.float64), np.dtype(np.int32)
    found = {"search_advances": (Var((), "1", "advances made"), _shape((), whole))}
    if search.rungs:
        n = (len(search.ends(size)),)
        found["search_rung"] = (Var((), "1", "rungs survived"), _shape((), whole))
        text = f"{search.metric} at every rung"
        found["search_metric"] = (Var(("rung",), "1", text), _shape(n, real))
    if isinstance(search, Optuna):
        of_group = chosen(search, kernel)[0]  # they are in the labels of the group
        for name, law in search.params.items():
            if name not in of_group:
                var = Var((), "1", f"{name} proposed")
                found[f"final_{name}"] = var, _shape((), dtype_of(law))
    if not isinstance(search, Population):
        return found
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
    spec: JobSpec, kernel: Kernel, items: Items, shapes: Sequence[Mapping[str, object]], where: str
) -> None:
    """Check the search of a job.

    Args:
        shapes: for each group, result -> shape and dtype of one item.

    Raises:
        JobError: the search does not fit the job; the text names the field.
    """
    search = spec.search
    if search is None:
        return
    if isinstance(search, Optuna):
        _check_replicates(spec, where)
    for group, found in zip(items.groups, shapes, strict=True):
        _check_metric(search, kernel, found, where)
        _check_advances(search, kernel, group, where)
        if isinstance(search, Optuna):
            for name, law in search.params.items():
                _check_searched(law, name, kernel, group, items, where)
        if isinstance(search, Population):
            for name in search.params:
                _check_parameter(search, name, kernel, group, items, where)
    _check_names(search, kernel, where)
    for group in items.groups:
        _check_size(search, group, items, where)
    if isinstance(search, Optuna):
        # Members of a population start there; a trial of Optuna would never have this value.
        if both := [name for name in search.params if name in spec.params]:
            raise JobError(
                f"{where}: search.params: {both[0]}: is given in params as well; keep one of them"
            )
        # Last, since it imports Optuna: who has to install it first should find that the job is right then.
        check_installed(search, where)


def _check_replicates(spec: JobSpec, where: str) -> None:
    """Raise JobError if the sweep has replicates of its own: the trials of a study are replicates of one point."""
    for part in spec.sweep if isinstance(spec.sweep, list) else [spec.sweep]:
        if "seed" in part.names():
            raise JobError(
                f"{where}: sweep: seeds are given, but column `seed` numbers the trials of a study; leave them out"
            )


def _check_metric(search: Search, kernel: Kernel, shapes: Mapping[str, Any], where: str) -> None:
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


def _check_advances(search: Search, kernel: Kernel, group: Group, where: str) -> None:
    """Raise JobError if items finish before the first comparison. Only a kernel with `advances` tells when they finish."""
    # Optuna compares nothing before the end without `prune`.
    n = len(group.items)
    if kernel.advances is None or not search.ends(n):
        return
    most = kernel.advances(inputs_of(group.params))
    if most == 1:
        raise JobError(
            f"{where}: search: an item of kernel {kernel.name} makes a single advance here, so that nothing can be "
            "compared before its end; leave the section out"
        )
    if not search.ends(n, most):
        hint = " (lower report_every)" if "report_every" in kernel.Params.model_fields else ""
        raise JobError(f"{where}: {search.too_late(n, most)}{hint}")


def _check_names(search: Search, kernel: Kernel, where: str) -> None:
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
    value = _searched_field(
        name, kernel, group, float, "a population moves traced real numbers", where
    )
    low, high = extremes(search.params[name])
    _check_values(name, (low, high), kernel, group, where)
    starts = items.values(name, group.items) if name in items.columns else np.asarray([value])
    outside = starts[(starts < low) | (starts > high)]
    if len(outside):
        raise JobError(
            f"{where}: search.params: {name}: starts at {float(outside[0])!r}, outside of its range {[low, high]}; widen "
            f"the range, or give a start inside of it as search.params.{name}.start"
        )


def _check_searched(
    law: Distribution, name: str, kernel: Kernel, group: Group, items: Items, where: str
) -> None:
    """Raise JobError if Optuna cannot propose a field: it does not exist, is swept, is no number, or not in this range."""
    kinds = field_kinds(kernel.Params)
    at = f"{where}: search.params: {name}"
    if name in items.columns:
        raise JobError(f"{at}: is swept as well; leave it out of the sweep, or of search.params")
    if kinds.get(name, Kind.TRACED) is not Kind.TRACED:
        if isinstance(law, Choice):
            return
        raise JobError(
            f"{at}: is a {kinds[name].value} field, which is compiled in or read before; list its values, "
            f"`{name}: {{choice: [...]}}`"
        )
    if isinstance(law, Choice) and any(isinstance(value, str) for value in law.choice):
        raise JobError(f"{at}: {law.choice} given; a traced field takes numbers, without quotes")
    real = isinstance(law, Uniform | Loguniform)
    who = "Optuna proposes traced numbers, whole ones where the field is whole"
    _searched_field(name, kernel, group, float if real else (float, int), who, where)
    _check_values(name, extremes(law), kernel, group, where)


def _searched_field(
    name: str, kernel: Kernel, group: Group, kind: Any, who: str, where: str
) -> Any:
    """The field's value in the group's first item. Raises JobError if it is no traced number of this kind."""
    kinds = field_kinds(kernel.Params)
    traced = [field for field, k in kinds.items() if k is Kind.TRACED]
    at = f"{where}: search.params: {name}"
    if name not in kinds:
        known = {field: kernel.Params.model_fields[field] for field in traced}
        raise JobError(f"{at}: unknown field{nearest(name, known)}")
    value = getattr(group.params, name)
    if kinds[name] is not Kind.TRACED or not isinstance(value, kind):
        what = (
            f"a {kinds[name].value} field" if kinds[name] is not Kind.TRACED else "no real number"
        )
        can = ", ".join(f for f in traced if isinstance(getattr(group.params, f), kind))
        raise JobError(f"{at}: is {what}; {who}: {can}")
    return value


def _check_values(
    name: str, values: Iterable[object], kernel: Kernel, group: Group, where: str
) -> None:
    """Raise JobError if the kernel does not take one of these values of a field."""
    content = group.params.model_dump(mode="json")
    for value in values:
        at = f"{where}: search.params"
        in_32_bits(validated(kernel.Params, {**content, name: value}, at), at)


def _check_size(search: Search, group: Group, items: Items, where: str) -> None:
    """Raise JobError if a group cannot be cut into as many items as are compared, or they are too few."""
    n = len(group.items)
    size = search.n_compared(n)
    # Optuna compares with earlier trials, halving keeps one of eta items, a member of a population needs another one.
    least = 1 if isinstance(search, Optuna) else search.rungs.eta if search.rungs else 2
    labels = ", ".join(f"{k} = {v}" for k, v in group.labels.items())
    which = f"group {group.number}" + (f" ({labels})" if labels else "")
    if size < least:
        raise JobError(
            f"{where}: search.size: {count(size, 'item')} given, but a comparison needs at least {least}; "
            f"{which} has {count(n, 'item')}, sweep more (`samples`, `seeds`)"
        )
    if n % size:
        raise JobError(
            f"{where}: search.size: {which} has {count(n, 'item')}, which is not a multiple of {size}; only items "
            "that share all static and data fields are compared"
        )
    if isinstance(search, Population):
        _check_members(search, group, items, size, where)


def _check_members(search: Population, group: Group, items: Items, size: int, where: str) -> None:
    """Raise JobError if a traced field differs inside a population but is not searched.

    Members copy one another's states, so they must be models of the same kind.
    """
    for name, column in items.columns.items():
        if name in search.params or name in group.labels or name == "seed":
            continue
        # (populations, size): neighbours in the group are a population. Equal codes mean equal values.
        codes = column.codes[group.items].reshape(-1, size)
        differ = np.flatnonzero((codes != codes[:, :1]).any(axis=1))
        if len(differ):
            first, last = group.items[differ[0] * size], group.items[differ[0] * size + size - 1]
            raise JobError(
                f"{where}: search: {name} differs inside the population of items {first}-{last}, but is "
                f"not searched; give it a range in search.params, or a search.size within which {name} is "
                "constant (the axes of a sweep are grid, zip, samples, seeds; the last varies fastest)"
            )
