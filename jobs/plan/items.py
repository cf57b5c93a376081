"""Expand a job into items and groups, as columns over the items, and check its fields. Pure arithmetic: no file is opened."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from pydantic import ValidationError

from ctd.kernel import Kernel, Kind, Params, field_kinds
from ctd.rows import combinations
from jobs.errors import Faults, JobError, count, home_of, nearest
from jobs.forms import MAX_ITEMS
from jobs.plan.params import Reader, join
from jobs.spec.job import JobSpec, parse_job
from jobs.spec.reductions import options_of, reductions_of
from jobs.spec.sweep import Column, Lookup, Sweep, columns_of, listed


class Group(NamedTuple):
    """Items with equal static and data fields."""

    number: int
    params: Params
    """The parameters of the group's first item: all its items share the static and data fields."""
    items: np.ndarray
    """(n,) uint32, item ids in ascending order: row r of the group's results belongs to item items[r]."""
    labels: dict[str, Any]
    """Swept or chosen static or data field -> its value in this group."""


@dataclass(frozen=True)
class Items:
    """All items of a job: columns over them, and their groups."""

    n: int
    columns: dict[str, Column]
    groups: list[Group]
    n_variants: int = 1
    """Number of neighbouring groups that have the same items, because a search chooses the group of each (`Method.variants`)."""

    def values(self, name: str, items: np.ndarray) -> np.ndarray:
        """A column's values at these items, as an array. Mappings, lists of texts and lists of several lengths become texts."""
        return self.lookup(name, items)[:]

    def lookup(self, name: str, items: np.ndarray) -> Lookup:
        """The array of `values`, to be read in parts."""
        column = self.columns[name]
        values = column.values
        # An array has one dtype: numbers and texts stay, lists of numbers of one length lie along a second axis, and all else
        # becomes text.
        if isinstance(values, list):
            plain = all(isinstance(v, bool | int | float | str) for v in values)
            rows = all(isinstance(v, tuple | list) and not _of_texts(v) for v in values)
            rows = rows and len({len(v) for v in values}) == 1
            values = np.asarray(values if plain or rows else [text_of(v) for v in values])
        return Lookup(np.asarray(values), column.codes, items)


def _of_texts(value: object) -> bool:
    return isinstance(value, tuple | list) and any(isinstance(v, str) for v in value)


def text_of(value: Any) -> str:
    """The text that stands for a value that is no number, in a column of texts.

    >>> text_of(["traces", "weights"]), text_of([1.0, -0.5])
    ('traces, weights', '[1.0, -0.5]')
    """
    return ", ".join(map(str, value)) if _of_texts(value) else str(value)


def _check_number(parts: Sequence[Sweep], counts: Sequence[int]) -> None:
    """Raise JobError if sweeps have no items, or too many."""
    total = sum(counts)
    if total > MAX_ITEMS:
        shapes = " + ".join(" x ".join(map(str, part.shape())) for part in parts)
        size = f"{count(total, 'item')} ({shapes})"
        raise JobError(f"sweep: {size} given; a job has at most {MAX_ITEMS:,}")
    if 0 in (total, *counts):
        raise JobError("sweep: 0 items; give every axis at least one value")


def expand(spec: JobSpec, kernel: Kernel, location: str = "job") -> Items:
    """Expand a job into all its items and groups.

    Raises:
        JobError: there are no items or too many, or fields are unknown, given twice or not valid. Each fault has a
            line, which begins with `location` and names the field.

    >>> from ctd.esn import kernel
    >>> spec = JobSpec(kernel="esn", sweep={"grid": {"n": [50, 100], "g": [0.9, 1.1, 1.3]}})
    >>> items = expand(spec, kernel)
    >>> items.n, [int(group.labels["n"]) for group in items.groups]
    (6, [50, 100])
    """
    parts = spec.sweeps()
    counts = [part.count() for part in parts]
    total = sum(counts)
    faults = Faults(location)
    with faults:
        _check_number(parts, counts)
    faults.raise_all()
    bad = _check_names(spec, kernel, faults)
    base = dict(spec.params)
    # A sweep that lacks a field of another sweep has its value from `params`, or the default.
    columns_by_sweep = [
        (n, {k: c for k, c in columns.items() if k not in bad})
        for n, columns in zip(counts, columns_of(parts, spec.seed), strict=True)
    ]
    # A required field has no default: `_check_names` has noted its fault, and any value serves until `faults` are raised.
    firsts = {
        name: column.values[0] for _, part in columns_by_sweep for name, column in part.items()
    }
    fields = kernel.Params.model_fields
    defaults = {
        k: f.get_default(call_default_factory=True)
        for k, f in fields.items()
        if not f.is_required()
    }
    fill = {**firsts, "seed": 0, **defaults, **base}
    columns = join(columns_by_sweep, fill) if len(columns_by_sweep) > 1 else columns_by_sweep[0][1]
    with faults:
        drawn_starts, base = _starts(spec, base, total, kernel)
        columns = columns | drawn_starts
    reader = Reader(kernel)
    columns = reader.columns(columns, base, faults)
    faults.raise_all()
    variants = spec.search.variants(kernel) if spec.search else [{}]
    with faults:
        groups = _groups(total, columns, base, reader, variants)
    faults.raise_all()
    return Items(total, columns, groups, len(variants))


def _check_names(spec: JobSpec, kernel: Kernel, faults: Faults) -> set[str]:
    """The swept names that are not fields, or inner fields of a traced field, or also in `params`; each adds a fault."""
    bad, fields, kinds = set(), kernel.Params.model_fields, field_kinds(kernel.Params)
    parts = [{*part.names()} for part in spec.sweeps()]
    varied = set().union(*parts, spec.ranges)
    for name in sorted(set().union(*parts)):
        fault = ""
        top, _, inner = name.partition(".")
        missing = f"{name!r} is missing in a sweep of the list" * any(name not in p for p in parts)
        if top not in kinds and name != "seed":
            home = home_of(name, _first_value(spec, name), spec.params, kernel.Params)
            near = nearest(name, fields, f"ctd kernels {kernel.name}")
            hint = f"; {home} has it, swept as {home}.{name}" if home else near
            fault = f"unknown field {name!r}{hint}"
        elif inner and kinds[top] is Kind.TRACED:
            fault = f"{name!r}: {top!r} is a number and has no field {inner!r}"
        elif inner and top in varied:
            fault = f"{name!r}: {top!r} is swept or searched as a whole, too; keep one of them"
        elif inner and missing:
            fault = f"{missing}; give it in each"
        elif (
            name in spec.params and top in kinds
        ):  # a `seed` that is no field is reported as unknown
            fault = f"{name!r} is given in params and in sweep; keep one of them"
        if fault:
            bad.add(name)
        elif missing and name in fields and fields[name].is_required():
            fault = f"{missing}, and has no default; give it in each"
        if fault:
            with faults:
                raise JobError(f"sweep: {fault}")
    return bad


def _first_value(spec: JobSpec, name: str) -> Any:
    column = next(part for part in spec.sweeps() if name in part.names()).columns(spec.seed)[name]
    return listed(column.values)[0]


def _starts(
    spec: JobSpec, base: dict[str, object], n: int, kernel: Kernel
) -> tuple[dict[str, Column], dict[str, Any]]:
    """The starts of searched fields (`Method.starts`): (columns of those that differ between items, `params` with the others).

    Raises JobError if a field begins in the search, and is also given in `params` or swept.
    """
    columns, fixed, search = {}, {}, spec.search
    if search is None:
        return {}, base
    if search.proposes:
        parts = spec.sweep if isinstance(spec.sweep, list) else [spec.sweep]
        if any("seed" in part.names() for part in parts):
            raise JobError(
                "sweep: seeds are given, but column `seed` numbers the trials of a study; leave them out"
            )
    for name, start in search.starts(kernel.Params, spec.seed, n).items():
        for place, fields in (("params", spec.params), ("sweep", spec.swept())):
            if name in fields:
                raise JobError(
                    f"{name!r} is given in {place}, but its values begin in search.params; keep one of them"
                )
        if isinstance(start, np.ndarray):
            columns[name] = Column(np.arange(n, dtype=np.int32), start, True)
        elif start is not None:
            fixed[name] = start
    return columns, base | fixed


def _groups(
    n: int,
    columns: dict[str, Column],
    base: dict[str, object],
    reader: Reader,
    variants: list[dict[str, object]],
) -> list[Group]:
    """Group n items by their values of the static and data fields, in order of first item.

    base: the fields that all items share. variants: the values that a search chooses from; each has a group of its own with the same items.
    """
    kinds = field_kinds(reader.kernel.Params)
    kind_of = lambda name: kinds.get(name.partition(".")[0], Kind.TRACED)
    splitting = [name for name in columns if kind_of(name) is not Kind.TRACED]
    # In the order of their first items: when a sweep grows at its end, the old groups keep their numbers (jobs.run.prepare).
    _, group = combinations([columns[name].codes for name in splitting], n)
    # A stable sort, so that ids rise within a group; NumPy sorts 16 bits by radix.
    small = group.astype(np.min_scalar_type(group.max()))
    order = np.argsort(small, kind="stable").astype(np.uint32)
    groups: list[Group] = []
    for items in np.split(order, np.cumsum(np.bincount(group))[:-1]):
        first = {name: column.values[column.codes[items[0]]] for name, column in columns.items()}
        content = copy.deepcopy(base)
        for name, value in first.items():
            reader.set_value(content, name, value)
        labels = {name: first[name] for name in splitting}
        for variant in variants:
            params = reader.read({**content, **variant}, searched=variant.keys())
            groups.append(Group(len(groups), params, items, {**labels, **variant}))
    return groups


# --- all faults of a job at once ------------------------------------------------------------------


def checked_items(spec: JobSpec, kernel: Kernel, location: str) -> Items:
    """All items of a job. Raises JobError, with a line for each fault of `params`, `sweep` and `gather`."""
    faults = Faults(location)
    with faults:
        options_of(spec, kernel)
    with faults:
        reductions_of(spec, kernel.dims, kernel.tables.dims)
    with faults:
        items = expand(spec, kernel, "")
    faults.raise_all()
    return items


def checked_job(content: Mapping[str, object], kernel: Kernel, location: str) -> JobSpec:
    """Validate the form of a job. If it is right, `params`, `sweep` and `gather` are left to `checked_items`.

    Raises:
        JobError: the form is not right; the text also lists the faults inside fields whose form is right.
    """
    faults = Faults()
    with faults:
        return parse_job(content, location)
    sound = {name: value for name, value in content.items() if _is_sound(name, value)}
    with faults:
        try:
            checked_items(
                JobSpec.model_validate({**sound, "kernel": kernel.name}), kernel, location
            )
        except JobError as error:
            # The fields that are left out here may have caused the others.
            if primary := [line for line in str(error).splitlines() if line not in error.secondary]:
                raise JobError("\n".join(primary)) from None
    faults.raise_all()
    raise AssertionError("parse_job has raised")


def _is_sound(name: str, value: object) -> bool:
    """Return whether a field of a job is known and its value has the right form."""
    if name not in JobSpec.model_fields:
        return False
    try:
        JobSpec.model_validate({"kernel": "", name: value})
    except ValidationError:
        return False
    return True
