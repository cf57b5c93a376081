"""run/kernel.json: the description of a store's kernel for readers. If it is missing, the arrays give most of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from obstore.store import ObjectStore

from ctd.kernel import Kernel, Outcome, Var
from jobs import keys
from jobs.late import zarr
from jobs.plan.layout import Plan
from jobs.spec.description import Description
from jobs.storage.checksums import checksummed, read_verified
from jobs.store.arrays import attributes


def read_description(store: ObjectStore) -> Description | None:
    """Return the description that a store keeps; None if it is missing or damaged."""
    return Description.from_json(read_verified(store, keys.KERNEL))


def description_of(kernel: Kernel) -> bytes:
    """Return the content of run/kernel.json. kernel: with the results that a search adds."""
    return checksummed(Description.of(kernel).to_json())


def described_by_arrays(root: zarr.Group, plan: Plan) -> Description:
    """Return the description that the arrays give: results, reduced results and outcomes; no summary and no fields."""
    dims: dict[str, Var] = {}
    reduced: dict[str, Var] = {}
    outcomes: tuple[Outcome, ...] = ()
    for group in range(len(plan.group_sizes)):
        for result in _results(root[f"results/{group}"]):
            dims.setdefault(result.name, result.var)
            if result.name == "outcome":
                outcomes = _outcomes(result.attrs)
        if f"gathered/{group}" in root:
            for name, array in root[f"gathered/{group}"].arrays():  # type: ignore[union-attr]
                reduced.setdefault(name, _var(_axes(array), attributes(array)))
    reduced = {name: var for name, var in reduced.items() if var.axes != (name,)}  # coordinates
    # Arrays do not say whether the kernel has a `reduce`; whoever gathers imports the kernel and finds out.
    return Description(dims, reduced, outcomes, reduces=True)


class _Result(NamedTuple):
    """A result of a group."""

    name: str
    var: Var
    attrs: dict[str, Any]
    """Its attributes, or those that it would have if it shared no array."""


def _results(group: Any) -> Iterator[_Result]:
    """Yield every result of a group, packed or not."""
    about = attributes(group)
    packed = {
        name: one for names in about.get("packed", {}).values() for name, one in names.items()
    }
    for name in about["results"]:
        attrs = packed[name] if name in packed else attributes(group[name])
        axes = attrs["axes"] if name in packed else _axes(group[name])[1:]
        yield _Result(name, _var(tuple(axes), attrs), attrs)


def _axes(array: Any) -> tuple[str, ...]:
    return tuple(str(name) for name in array.metadata.dimension_names or ())


def _var(axes: tuple[str, ...], attrs: dict[str, Any]) -> Var:
    return Var(axes, str(attrs.get("units", "1")), str(attrs.get("long_name", "")))


def _outcomes(attrs: dict[str, Any]) -> tuple[Outcome, ...]:
    return tuple(Outcome(name, "") for name in str(attrs.get("flag_meanings", "")).split())
