"""Search in the plan: the results that it adds to the kernel's own (`_records`), and whether it fits its job.

Halving, asynchronous halving and Optuna with `prune` are on rungs. An item that left at a rung has the status and the outcome
*dropped*, and its results at that rung. An item whose population ended early (`patience`) has the outcome *settled*, and its
results at that time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ctd.kernel import Kernel, Kind, Outcome, Var, field_kinds, inputs_of
from jobs.errors import JobError, count, nearest, validated, within
from jobs.forms import Choice, Loguniform, Uniform, dtype_of, extremes
from jobs.plan.items import Group, Items, chosen
from jobs.plan.params import in_32_bits
from jobs.search.optuna import check_installed
from jobs.spec.search import Optuna, Population, Search


def searched(kernel: Kernel, search: Search | None) -> Kernel:
    """The kernel with the results and outcomes that a search adds; the kernel itself without a search."""
    if search is None:
        return kernel
    outcomes = kernel.outcomes
    if outcomes and search.rungs:
        outcomes = (*outcomes, Outcome("dropped", "left at a rung of the search"))
    if outcomes and isinstance(search, Population) and search.patience:
        outcomes = (*outcomes, Outcome("settled", "its population no longer improved"))
    # Names and axes are the same for any number of items: 1 stands for all.
    dims = {**kernel.dims, **{name: var for name, (var, _) in _records(search, kernel, 1).items()}}
    return replace(kernel, dims=dims, outcomes=outcomes)


def shapes(search: Search | None, kernel: Kernel, n_items: int) -> dict[str, np.ndarray]:
    """The results that a search adds -> an array like that of one item. n_items: number of items in the group."""
    if search is None:
        return {}
    found = _records(search, kernel, search.n_compared(n_items))
    return {name: like for name, (_, like) in found.items()}


def _records(search: Search, kernel: Kernel, size: int) -> dict[str, tuple[Var, np.ndarray]]:
    number = lambda text, like: (Var((), "1", text), np.zeros((), like))
    found: dict[str, tuple[Var, np.ndarray]] = {}
    found["search_advances"] = number("advances made", np.int32)
    if search.rungs:
        found["search_rung"] = number("rungs survived", np.int32)
        var = Var(("rung",), "1", f"{search.metric} at every rung")
        found["search_metric"] = var, np.zeros(len(search.ends(size)))
    if isinstance(search, Optuna):
        for name, law in search.params.items():
            if name not in chosen(search, kernel)[0]:  # they are in the labels of the group
                found[f"final_{name}"] = number(f"{name} proposed", dtype_of(law))
    if isinstance(search, Population):
        each = lambda text, like=float: (
            Var(("generation",), "1", text),
            np.zeros(search.generations, like),
        )
        found["search_metric"] = each(f"{search.metric} at its end")
        found["search_parent"] = each("item whose state it began with", np.int32)
        for name in search.params:
            found[f"search_{name}"] = each(f"{name} during it")
            found[f"final_{name}"] = number(f"last value of {name}", float)
    return found


def check_search(
    search: Search,
    kernel: Kernel,
    items: Items,
    shapes: Sequence[Mapping[str, object]],
    started: Sequence[frozenset[str]],
    where: str,
) -> None:
    """Raise JobError, which names the field, if the search of a job does not fit its items.

    shapes: for each group, result -> shape and dtype of one item. started: for each group, the traced fields that act at an item's
    start alone.
    """
    with within(where):
        for group, found, at_start in zip(items.groups, shapes, started, strict=True):
            _check_metric(search, kernel, found)
            _check_advances(search, kernel, group)
            if isinstance(search, Population | Optuna):
                for name in search.params:
                    _check_param(name, search, kernel, group)
            if isinstance(search, Population):
                _check_moves(search, group, items, at_start)
        _check_names(search, kernel)
        for group in items.groups:
            _check_size(search, group, items)
    if isinstance(search, Optuna):
        # Last, since it imports Optuna: whoever must install it first should find no further fault afterwards.
        check_installed(search, where)


def _check_metric(search: Search, kernel: Kernel, shapes: Mapping[str, Any]) -> None:
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


def _check_advances(search: Search, kernel: Kernel, group: Group) -> None:
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


def _check_names(search: Search, kernel: Kernel) -> None:
    new = searched(kernel, search).dims.keys() - kernel.dims.keys()
    own = {name for name in kernel.dims if name.startswith(("search_", "final_"))}
    if twice := sorted(own | (new & kernel.Params.model_fields.keys())):
        raise JobError(
            f"search: kernel {kernel.name} has its own {twice[0]!r}, but the search uses this name "
            "for its results; rename the kernel's"
        )


def _check_param(name: str, search: Population | Optuna, kernel: Kernel, group: Group) -> None:
    """Raise JobError if a searched field is unknown, or does not take what the search gives it."""
    kinds, law = field_kinds(kernel.Params), search.params[name]
    traced = [field for field, kind in kinds.items() if kind is Kind.TRACED]
    at = f"search.params: {name}"
    if name not in kinds:
        known = {field: kernel.Params.model_fields[field] for field in traced}
        raise JobError(f"{at}: unknown field{nearest(name, known)}")
    if name not in traced and isinstance(search, Optuna):
        if isinstance(law, Choice):
            return  # its values have been read: each has a group
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
        what = f"no {'real ' * real}number" if name in traced else f"a {kinds[name].value} field"
        who = "Optuna proposes" if isinstance(search, Optuna) else "a population moves"
        raise JobError(f"{at}: is {what}; {who} traced numbers, here {', '.join(can)}")
    content = group.params.model_dump(mode="json")
    for value in extremes(law):
        params = validated(kernel.Params, {**content, name: value}, "search.params")
        with within("search.params"):
            in_32_bits(params)


def _check_moves(search: Population, group: Group, items: Items, started: frozenset[str]) -> None:
    """Raise JobError if members start outside of the range of a searched field, or it cannot be moved later."""
    if names := started & search.params.keys():
        raise JobError(
            f"search.params: {', '.join(sorted(names))}: acts only at an item's start, but a population changes it later; "
            "sweep it, or search it by optuna"
        )
    for name, law in search.params.items():
        low, high = extremes(law)
        own = np.array([getattr(group.params, name)])
        starts = items.values(name, group.items) if name in items.columns else own
        outside = starts[(starts < low) | (starts > high)]
        if len(outside):
            raise JobError(
                f"search.params: {name}: starts at {float(outside[0])!r}, outside of its range {[low, high]}; widen "
                f"the range, or give a start inside of it as search.params.{name}.start"
            )


def _check_size(search: Search, group: Group, items: Items) -> None:
    """Raise JobError if a group cannot be cut into as many items as are compared, or they are too few."""
    n = len(group.items)
    size = search.n_compared(n)
    # Optuna compares with earlier trials, halving keeps one of eta items, a member of a population needs another one.
    least = 1 if isinstance(search, Optuna) else search.rungs.eta if search.rungs else 2
    labels = ", ".join(f"{k} = {v}" for k, v in group.labels.items())
    which = f"group {group.number}" + (f" ({labels})" if labels else "")
    if size < least:
        needs = f"but a comparison needs at least {least}"
        if search.size is not None:
            raise JobError(f"search.size: {count(size, 'item')} given, {needs}")
        raise JobError(
            f"search: {which} has {count(n, 'item')}, {needs}; sweep more (`samples`, `seeds`)"
        )
    if n % size:
        raise JobError(
            f"search.size: {which} has {count(n, 'item')}, which is not a multiple of {size}; only items "
            "that share all static and data fields are compared"
        )
    if isinstance(search, Population):
        _check_members(search, group, items, size)


def _check_members(search: Population, group: Group, items: Items, size: int) -> None:
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
                f"search: {name} differs inside the population of items {first}-{last}, but is "
                f"not searched; give it a range in search.params, or a search.size within which {name} is "
                "constant (the axes of a sweep are grid, zip, samples, seeds; the last varies fastest)"
            )
