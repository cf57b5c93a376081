"""The results that a search adds to the kernel's own.

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

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from ctd.kernel import Kernel, Outcome, Var
from ctd.late import jax
from jobs.spec.search import Halving, Population


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
