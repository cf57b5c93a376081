"""Prepare a run: plan the job, create or reopen its store, or extend the store of a job whose sweep has grown.

A sweep grows by further sweeps at the end of its list. The old items keep their ids, and so their random
numbers. The old groups keep their layout, so their shards have the same rows, and new rows get the same bits as
in one run of the whole job.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from ctd.kernel import Kernel, Kind, field_kinds
from jobs.errors import Faults, JobError, within
from jobs.inputs.items import failed_inputs
from jobs.inputs.measure import Evaluated, data_told, evaluate_group, measured, paths_of
from jobs.inputs.versions import versions_of
from jobs.plan.items import Items, checked_items
from jobs.plan.layout import Machines, Plan, Sizes, lay_out
from jobs.plan.packing import check_keep_bits
from jobs.plan.search import check_search
from jobs.run.sources import sources_of
from jobs.run.task import Executor
from jobs.run.worker import usable_memory
from jobs.spec.job import JobSpec, find_kernel, leaves
from jobs.spec.reductions import check_reductions, options_of, reductions_of
from jobs.spec.sweep import Sweep
from jobs.spec.trust import allow_and_remember, modules_of
from jobs.storage import connect
from jobs.storage.lease import Lease
from jobs.store.creation import Outputs, create_store
from jobs.store.events import WARNING, Events, Remark
from jobs.store.manifest import Job, provenance
from jobs.store.store import Store


@dataclass(frozen=True)
class Prepared:
    """A planned job: everything that is known before the first item is computed."""

    spec: JobSpec
    base: str
    kernel: Kernel
    items: Items
    plan: Plan
    sizes: list[Sizes]
    """Sizes of each group."""
    outputs: list[Outputs]
    data: list[str]
    """The sizes of the groups' data, and which of them are not used, as texts."""
    warnings: list[str]
    """Warnings of the kernel's `load`, of given parameters that no result depends on, and of inputs that failed."""


def prepare(spec: JobSpec, base: str, location: str, machines: Callable[[], Machines]) -> Prepared:
    """Validate and plan a job; reads the groups' data and writes nothing. Raises JobError if the job is not valid.

    location: names the job in errors. machines: called once the job is known to be valid, since a cluster may take seconds to
    answer; `run.workers` may be more than it tells.
    """
    allow_and_remember(base, spec.modules())
    kernel = find_kernel(spec.kernel, base)
    items = checked_items(spec, kernel, location)
    shared = [group.params.model_dump(mode="json") for group in items.groups]
    # Validation has filled in the defaults, which may name further modules.
    allow_and_remember(base, modules_of(spec.kernel, *shared))
    evaluated, faults = [], Faults()
    for group in items.groups:
        with within(location):
            evaluated.append(evaluate_group(kernel, group.params, base))
    outputs = [group.outputs for group in evaluated]
    shapes = [output.shapes for output in outputs]
    # Collected, so that a user reads all faults at once.
    with faults:
        check_keep_bits(spec.keep_bits, shapes, location)
    with faults:
        if spec.search:
            started = [group.started for group in evaluated]
            check_search(spec.search, kernel, items, shapes, started, location)
    with faults:
        _check_reductions(spec, kernel, items, shapes, location)
    faults.raise_all()
    available = machines()
    # This executor may have fewer workers than each allocation of an array will have.
    available = replace(available, workers=max(available.workers, spec.run.workers or 1))

    def laid_out(sizes: list[Sizes], machines: Machines) -> Plan:
        groups = [(len(g.items), size) for g, size in zip(items.groups, sizes, strict=True)]
        with within(location):
            return lay_out(groups, kernel, spec.run, machines, spec.search, items.n_variants)

    # The first plan assumes unlimited memory. Measuring an item compiles this plan's program, and the workers then run the
    # same one, unless memory forces a smaller layout.
    first = laid_out([group.sizes for group in evaluated], replace(available, memory=sys.maxsize))
    sizes = measured(evaluated, first.layouts, available)
    plan, data = laid_out(sizes, available), data_told([group.shared for group in evaluated])
    warnings = list(dict.fromkeys(text for group in evaluated for text in group.warnings))
    warnings += _without_effect(spec, kernel, items, evaluated)
    warnings += failed_inputs(_files(items), base)
    return Prepared(spec, base, kernel, items, plan, sizes, outputs, data, warnings)


def _files(items: Items) -> list[str]:
    return [name for group in items.groups for _, name in paths_of(group.params)]


def _without_effect(
    spec: JobSpec, kernel: Kernel, items: Items, groups: Sequence[Evaluated]
) -> list[str]:
    """Return a warning for each traced parameter that is swept, searched or not its default, and that no result depends on.

    A field that is empty by default counts as set only if one of its numbers is not zero: a kernel may read zeros as the number
    of entries alone, as it does for `x` (docs/weights.md).
    """
    fields, first = kernel.Params.model_fields, items.groups[0].params

    def is_set(name: str) -> bool:
        value, default = getattr(first, name), fields[name].get_default()
        return bool(value != default and (default != () or any(value)))

    unread = {*spec.swept(), *spec.ranges}
    unread |= {name for name in spec.params if is_set(name)}
    unread &= {name for name, kind in field_kinds(kernel.Params).items() if kind is Kind.TRACED}
    for group in groups:
        unread &= group.unread
    about = {name: fields[name].description for name in sorted(unread)}
    descriptions = {name: f" ({text})" if text else "" for name, text in about.items()}
    return [f"{name} has no effect here{text}" for name, text in descriptions.items()]


def _check_reductions(
    spec: JobSpec, kernel: Kernel, items: Items, shapes: Sequence[Mapping[str, Any]], location: str
) -> None:
    """Raise JobError if a reduction asks for numbers that the items will not have. shapes: as those of `check_search`."""
    first_item = items.groups[0].items[:1]
    # As the item table will hold them: results of one value, and columns of what was swept.
    columns = {name: items.values(name, first_item) for name in items.columns}
    numbers = {name: v.dtype.kind in "iufb" and v.ndim == 1 for name, v in columns.items()}
    for group_shapes in shapes:
        for name, shape in group_shapes.items():
            if kernel.dims[name].axes == ():
                numbers[name] = numbers.get(name, True) and shape.dtype.kind in "iufb"
    with within(location):
        check_reductions(reductions_of(spec, kernel.dims, kernel.tables.dims), numbers)


def prepare_here(spec: JobSpec, base: str, location: str, workers: int) -> Prepared:
    """Plan the job for `run.workers` or else this many workers, with the memory of this machine; see `prepare`."""
    workers = spec.run.workers or workers
    devices = spec.run.devices(on_gpus=bool(spec.run.gpus_per_worker))
    memory = usable_memory(spec.run.memory_gb) // devices
    return prepare(spec, base, location, partial(Machines, workers, memory, devices))


def open_or_create(
    spec: JobSpec,
    base: str,
    location: str,
    address: str,
    executor: Executor,
    on_planned: Callable[[Sequence[str]], None] | None = None,
) -> Store:
    """Return the job's store; plan and create it if there is none. on_planned: called with `Prepared.data` of a job that is planned.

    Raises JobError if `address` holds another job, the job is not valid, or another process is creating or running the store.
    """
    if Store.exists(address):
        return reopen(spec, address, find_kernel(spec.kernel, base), location)
    ready = prepare(spec, base, location, executor.machines)
    if on_planned is not None:
        on_planned(ready.data)
    return create(ready, address)


def create(ready: Prepared, address: str, about: dict[str, Any] | None = None) -> Store:
    """Create the store of a planned job, or reopen it if another process has just created it. about: added to its provenance.

    Raises JobError if another process is creating it, or `address` holds another job.
    """
    sources = sources_of(ready.spec, ready.base)
    inputs = versions_of(_files(ready.items), ready.base)
    job = Job(
        spec=ready.spec, base=ready.base, group_sizes=ready.plan.group_sizes, layouts=ready.plan.layouts,
        provenance=provenance() | (about or {}), sources=sources, inputs=inputs,
    )  # fmt: skip
    # Two processes that start together: one creates the store, the other gets LeaseHeld or reopens it.
    with Lease.acquire(connect.open_objects(address, create=True), address).renewing() as lease:
        if Store.exists(address):
            return reopen(ready.spec, address, ready.kernel)
        # `create_store` checks the lease before it completes the store: if this process was silent for long, another one may
        # have taken the lease over.
        store = create_store(address, job, ready.items, ready.outputs, lease.check)
        if ready.warnings:
            with closing(Events(store)) as events:
                for text in ready.warnings:
                    events.note(Remark(kind=WARNING, text=text))
        return store


def reopen(
    spec: JobSpec, address: str, kernel: Kernel | None = None, location: str = "job"
) -> Store:
    """Return the store at `address`.

    kernel: the kernel that `spec` names; by default the store's. location: names the job in errors. Raises JobError, with the
    differences, if the store holds another job, or before that if the fields of `spec` are not valid.
    """
    store = Store.open(address)
    kernel = kernel or store.kernel
    if mismatch := another_job(store, spec, kernel):
        checked_items(spec, kernel, location)  # a typo is no other job
        raise JobError(mismatch)
    with within(location):
        options_of(spec, kernel)
        reductions_of(spec, kernel.dims, kernel.tables.dims)
    return store


def another_job(store: Store, spec: JobSpec, kernel: Kernel) -> str:
    """Return that a store holds another job than `spec`, what to do, and the differences, as text; "" if it holds this one."""
    old, address = store.job.spec, store.address
    # The digest says which axes are not in alphabetical order, but not which sweep has them.
    orders = [[names for _, names in _axes(job_spec)] for job_spec in (old, spec)]
    if old.digest() == spec.digest() and orders[0] == orders[1]:
        return ""
    is_alike = _alike(old, spec, kernel)
    if is_alike and _axes(old) == _axes(spec):
        return ""
    hint = "give another path as --store (store= in Python)"
    forked = f"`ctd run JOB --store NEW --fork {address}` keeps"
    if not is_alike:
        if spec.search is not None and spec.search != old.search:
            hint += ", where the search begins anew"
    elif spec.search is not None and spec.search.block is None:
        hint += ": its search compares all items, so that with more items it is another search"
    elif has_grown(old, spec, kernel):
        hint = f"{forked} its items"
    else:
        hint += (
            ". To add items, leave the old sweep as it is and begin a list with it, `sweep: [{...}, {...}]`, "
            f"or raise the `samples` of a sweep without grid and zip; then {forked} what is done"
        )
    return f"{address}: holds another job; {hint}\n{difference(old, spec)}"


# --- do two specs describe one job? ---------------------------------------------------------------


def _axes(spec: JobSpec) -> list[tuple[Sweep, list[str]]]:
    """The sweeps of a job with the order of their axes, which is that of the items; mappings are equal in any order."""
    return [(part, [*part.grid]) for part in spec.sweeps()]


def _normal(params: Mapping[str, object], kernel: Kernel) -> dict[str, Any]:
    """Return the validated fields, without those that have their defaults."""
    fields, normalized = kernel.Params.model_fields, {}
    for name, value in params.items():
        if name in fields:
            info = fields[name]
            kind: Any = Annotated[info.annotation, info]
            with suppress(ValidationError):  # reported when the job is planned
                value = TypeAdapter(kind).validate_python(value)
            if value == info.get_default(call_default_factory=True):
                continue
        normalized[name] = value
    return normalized


def has_grown(old: JobSpec, new: JobSpec, kernel: Kernel) -> bool:
    """Return whether `new` is `old` with further sweeps at the end of its list, or more samples in the last one."""
    before, after = _axes(old), _axes(new)
    if len(after) < len(before) or after == before:
        return False
    # At the end alone: then every old item keeps its id, and with it its random numbers.
    last = len(before) - 1
    (was, order), (now, new_order) = before[last], after[last]
    grown = after[:last] == before[:last] and order == new_order and was.grown_to(now)
    return grown and _alike(old, new, kernel)


def _alike(a: JobSpec, b: JobSpec, kernel: Kernel) -> bool:
    """Return whether two jobs differ in their sweeps alone.

    `task: decision` equals `task: {name: decision}`, and a field that is given its default equals one left out.
    """
    # Validating fields imports the modules that they name, and one of the jobs may be a stranger's.
    if modules_of(a.kernel, a.params) != modules_of(b.kernel, b.params):
        return False
    but = lambda spec: {**spec.science(), "sweep": None, "params": _normal(spec.params, kernel)}
    return bool(but(a) == but(b))


def difference(old: JobSpec, new: JobSpec) -> str:
    """Return the fields that differ, one a line: path, value in the store (`old`), value in the job (`new`)."""
    return "\n".join(
        f"  {field.path}: {field.old} in the store, {field.new} in the job"
        for field in differing(old, new, {"name", "gather", "run"})
    )


NOT_GIVEN = "(not given)"
"""Stands for the value of a field that a spec does not have, not even by default."""


class Difference(NamedTuple):
    """A field in which two specs differ."""

    path: str
    old: Any
    new: Any


def differing(old: JobSpec, new: JobSpec, without: set[str]) -> list[Difference]:
    """Return the innermost fields that differ, by path. without: fields of a spec that are left out."""
    set_fields, all_fields = [], []
    several = isinstance(old.sweep, list) or isinstance(new.sweep, list)

    def content(spec: JobSpec, **options: Any) -> dict[str, Any]:
        dumped = spec.model_dump(mode="json", **options)
        if several and "sweep" in dumped:  # a sweep alone is the first of a list of one
            dumped["sweep"] = {str(k): part for k, part in enumerate(listed(dumped["sweep"]))}
        return leaves(dumped)

    listed = lambda sweep: sweep if isinstance(sweep, list) else [sweep]
    for spec in (old, new):
        set_fields.append(content(spec, exclude=without, exclude_defaults=True))
        # What only the other one gives has its default here.
        defaults = content(spec)
        all_fields.append({k: v for k, v in defaults.items() if v is not None} | set_fields[-1])
    a, b = all_fields
    return [
        Difference(path, a.get(path, NOT_GIVEN), b.get(path, NOT_GIVEN))
        for path in sorted(set_fields[0].keys() | set_fields[1].keys())
        if a.get(path, NOT_GIVEN) != b.get(path, NOT_GIVEN)
    ]
