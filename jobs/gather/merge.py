"""Merge finished stores of one kernel into one: the items of the first, then those of the second, and so on, renumbered.

The merged job sweeps the fields that the jobs swept or in which they differ. Its store differs from others in one thing: no
item can be computed again, because its random numbers came from its old id and its old job's seed. run/job.json
(`provenance: merged`) and the markers (`copied_from`) name the store that each item came from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pydantic import BaseModel

from ctd.kernel import Kernel
from jobs.errors import JobError, count
from jobs.inputs.items import places_of_items
from jobs.inputs.measure import outputs_of
from jobs.plan.items import Items, expand
from jobs.plan.layout import GroupLayout, Plan, Shard
from jobs.run.sources import combined
from jobs.run.worker import nan_counts, outcome_counts
from jobs.spec.files import with_files_from
from jobs.spec.job import JobSpec
from jobs.spec.sweep import Sweep, columns_of
from jobs.storage import connect
from jobs.storage.lease import Lease
from jobs.store.arrays import FAILED, attributes, plain
from jobs.store.creation import Outputs, create_store
from jobs.store.finding import made_from
from jobs.store.manifest import Job, origin, provenance
from jobs.store.marker import Marker
from jobs.store.store import Store, resume_command
from jobs.store.writer import write_shard

MOST_LISTED = 100_000
"""Most values of random sweeps of a store that are listed in the merged job, which would draw others."""


def merge(stores: Sequence[Store], address: str) -> Store:
    """Write the items of several stores as one store at `address`, which must hold none, and return it; not yet gathered.

    Raises:
        JobError: the stores do not fit together, one of them is not complete, or `address` holds something already or
            cannot be written, or somebody asked the merge to stop (`ctd cancel`). Nothing is left there.
        Held: another process creates a store at `address`.
    """
    _refuse_taken(address)
    for store in stores:
        _refuse(store, stores[0])
    first, kernel = stores[0], stores[0].kernel
    spec = _merged(stores, kernel)
    items = expand(spec, kernel, "the merged job")
    starts = np.cumsum([0, *(sum(store.job.plan.group_sizes) for store in stores)])
    places = [places_of_items(store)[1] for store in stores]
    origins = [_origins(group.items, stores, starts, places) for group in items.groups]
    layouts = tuple(_layout(pieces[0]) for pieces in origins)
    plan = Plan(tuple(len(group.items) for group in items.groups), layouts)
    outputs = [outputs_of(kernel, group.params, first.job.base) for group in items.groups]
    for group, (pieces, made) in enumerate(zip(origins, outputs, strict=True)):
        for piece in pieces:
            _check_piece(piece, items, group, made)
    about = provenance() | {"merged": [_about(*pair) for pair in zip(stores, starts, strict=False)]}
    job = Job(spec, plan, first.job.base, about, first.job.sources, first.job.inputs)
    lease = Lease.acquire(connect.open_objects(address, create=True), address)
    with lease.held():
        # Another process may have made a store there since the first look.
        _refuse_taken(address)
        # Rows and markers come before run/job.json: until the last row is there, there is no store.
        fill = lambda store: _fill(store, origins, lease)
        return create_store(address, job, items, outputs, fill)


def _refuse_taken(address: str) -> None:
    if Store.exists(address):
        raise JobError(f"{address}: holds something already; give another path")


def _unfit(store: Store, why: str) -> JobError:
    return JobError(f"{store.address}: cannot be merged: {why}")


def _refuse(store: Store, first: Store) -> None:
    """Raise JobError if a store cannot be merged into one with the first."""
    spec, of = store.job.spec, first.job.spec
    why = ""
    if spec.kernel != of.kernel:
        why = f"its kernel is {spec.kernel}, but that of {first.address} is {of.kernel}"
    elif spec.search is not None:
        why = "has a search, whose comparisons hold only among the items of one store"
    elif spec.keep_bits != of.keep_bits:
        why = f"rounds other results (keep_bits) than {first.address}"
    elif missing := store.job.plan.n_shards - len(store.committed.numbers()):
        why = f"lacks {count(missing, 'shard')}; {resume_command(store)} computes what is left"
    if why:
        raise _unfit(store, why)


# --- the merged job -------------------------------------------------------------------------------


def _merged(stores: Sequence[Store], kernel: Kernel) -> JobSpec:
    """The job whose items are those of the stores, in order."""
    base = stores[0].job.base
    specs, known = list[JobSpec](), set[tuple[Any, Any]]()
    for store in stores:
        spec = store.job.spec
        own = _jobs_of(store)
        if store.job.base != base:  # relative files start at its own folder
            absolute = with_files_from(_dumped(spec), kernel, store.job.base)
            spec = JobSpec.model_validate(absolute)
        if own & known or spec.digest() in [one.digest() for one in specs]:
            raise _unfit(
                store,
                "has items of another of these stores: it has its job, or one is made of the other",
            )
        known |= own
        specs.append(spec)
    given = [spec.params for spec in specs]
    swept = [set(spec.swept()) for spec in specs]
    anywhere = set().union(*swept)
    for name in sorted(name for name in anywhere if "." in name):
        if not all(name in own for own in swept):
            raise JobError(f"cannot be merged: {name} is swept in some stores, but set in others")
    same = {
        name: value
        for name, value in given[0].items()
        if name not in anywhere and all(name in one and one[name] == value for one in given)
    }
    parts, drawn = list[Sweep](), set[str]()
    for store, spec in zip(stores, specs, strict=True):
        fixed = {name: [value] for name, value in spec.params.items() if name not in same}
        sweeps = spec.sweeps()
        random = {name for part in sweeps for name in part.random}
        # A second random sweep of a field would go on behind the draws of the first.
        if random and (spec.seed != specs[0].seed or random & drawn):
            sweeps = _listed(sweeps, spec.seed, store)
        drawn |= random
        parts += [part.model_copy(update={"grid": {**fixed, **part.grid}}) for part in sweeps]
    update = {"params": same, "sweep": [_dumped(part) for part in parts], "name": None}
    return JobSpec.model_validate(_dumped(specs[0]) | update)


def _dumped(model: BaseModel) -> dict[str, Any]:
    return model.model_dump(mode="json", exclude_defaults=True)


def _listed(parts: list[Sweep], seed: int, store: Store) -> list[Sweep]:
    """The sweeps with their drawn values as lists: the merged job would draw others."""
    n = sum(part.count() * len(part.names()) for part in parts if part.random)
    if n > MOST_LISTED:
        raise _unfit(
            store,
            f"the merged job would draw its {n:,} random values differently, and a job lists at most {MOST_LISTED:,}",
        )
    values = lambda column: [plain(column.values[code]) for code in column.codes]
    listed = lambda columns: Sweep(zip={name: values(one) for name, one in columns.items()})
    drawn = columns_of(parts, seed)
    return [listed(c) if part.random else part for part, c in zip(parts, drawn, strict=True)]


def _jobs_of(store: Store) -> set[tuple[Any, Any]]:
    """(Digest, base) of the jobs that computed a store's items, so far as its provenance tells."""
    made_of = made_from(store.job.provenance)
    jobs = {(part.get("spec_sha256"), part.get("base")) for part in made_of}
    return {*jobs, (store.job.spec.digest(), store.job.base)}


def _about(store: Store, start: np.integer[Any]) -> dict[str, Any]:
    """The entry of a store in the provenance of the merged job."""
    job = store.job
    return origin(job, store.address) | {
        "first_item": int(start),
        "items": sum(job.plan.group_sizes),
        "spec": _dumped(job.spec),
        "source": combined(job.sources),
    }


# --- its rows -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Piece:
    """Rows of a merged group that come from one group of one store; there may be fewer than that group has."""

    store: Store
    group: int
    first_item: int
    """The merged id of the store's item 0."""
    rows: range
    """Its merged rows."""
    shift: int
    """What is added to a row of the old group to get the merged row."""

    def read(self, name: str, rows: range) -> np.ndarray:
        """A result or column in some of its merged rows."""
        return self.store.rows(self.group, name, rows.start - self.shift, rows.stop - self.shift)

    def committed(self, marker: Marker, rows: range) -> range:
        """Those of some of its merged rows that an old marker committed."""
        old = marker.shard
        if old.group != self.group:
            return range(0)
        return _overlap(rows, range(old.start + self.shift, old.stop + self.shift))


def _overlap(a: range, b: range) -> range:
    return range(max(a.start, b.start), min(a.stop, b.stop))


def _origins(
    ids: np.ndarray, stores: Sequence[Store], starts: np.ndarray, places: Sequence[np.ndarray]
) -> list[Piece]:
    """The old rows that make up a merged group, in order. Raises JobError if it mixes groups of one store.

    ids: its items; places: the (group, row) of each store's items.
    """
    pieces, row = [], 0
    for store, place, first, last in zip(stores, places, starts, starts[1:], strict=False):
        own = ids[(ids >= first) & (ids < last)].astype(np.int64) - int(first)
        if not len(own):
            continue
        group, at = map(int, place[own[0]])
        # Ids rise within a group: the piece is a range of its rows.
        if (place[own] != np.stack([np.full(len(own), group), at + np.arange(len(own))], 1)).any():
            raise _unfit(store, "the merged job groups its items differently")
        pieces.append(Piece(store, group, int(first), range(row, row + len(own)), row - at))
        row += len(own)
    return pieces


def _layout(piece: Piece) -> GroupLayout:
    """The layout of a piece's old group, with the microbatch that its first worker chose: nobody measures it again."""
    planned = piece.store.job.plan.layouts[piece.group]
    used = piece.store.committed.markers(piece.group)[0].layout.microbatch
    return planned._replace(microbatch=planned.microbatch or used)


def _check_piece(piece: Piece, items: Items, group: int, made: Outputs) -> None:
    """Raise JobError unless a piece has the results of the merged group, and its swept values to the bit."""
    store, ids = piece.store, items.groups[group].items[piece.rows.start : piece.rows.stop]
    own = {name: store.array(piece.group, name) for name in store.names(piece.group)}
    shapes = {name: (array.shape[1:], array.dtype) for name, array in own.items()}
    if shapes != {name: (one.shape, one.dtype) for name, one in made.shapes.items()}:
        differing = [name for name in made.shapes if name not in shapes] or list(shapes)
        named = ", ".join(differing[:3])
        raise _unfit(
            store,
            f"results/{piece.group}: results, or their shapes, differ from those that this ctd makes ({named})",
        )
    # Fields that nobody gave: each must still have the default with which the store was made.
    then = attributes(store.results(piece.group))["params"]
    now = items.groups[group].params.model_dump(mode="json")
    given = {name.partition(".")[0] for name in (*items.columns, *store.job.spec.params)}
    for name in sorted(now.keys() - given):
        if then.get(name) != now[name]:
            made_with = f"it was made with {name}: {then.get(name)}"
            raise _unfit(store, f"{made_with}, but the default is {now[name]} now")
    for name in items.columns:
        if name not in store.results(piece.group):
            continue
        found = piece.read(name, piece.rows)
        expected = items.values(name, ids)
        numbers = found.dtype.kind in "iuf" or expected.dtype.kind in "iuf"
        if numbers and not np.array_equal(found, expected):
            raise _unfit(store, f"its {name} cannot be drawn again")


def _fill(store: Store, origins: Sequence[Sequence[Piece]], lease: Lease) -> None:
    """Copy all rows, a shard at a time. Raises, before it writes more, as `Lease.check`."""
    markers = {
        piece.store: piece.store.committed.markers() for pieces in origins for piece in pieces
    }
    failed = {one: one.failed.items() for one in markers}
    for shard in store.job.plan.shards():
        rows = range(shard.start, shard.stop)
        here = [(piece, _overlap(piece.rows, rows)) for piece in origins[shard.group]]
        here = [(piece, some) for piece, some in here if some]
        values = {
            name: np.concatenate([piece.read(name, some) for piece, some in here])
            for name in (*store.names(shard.group), "status")
        }
        old = [
            (piece, marker, found)
            for piece, some in here
            for marker in markers[piece.store]
            if (found := piece.committed(marker, some))
        ]
        entries = [
            entry.model_copy(update={"row": row, "item": entry.item + piece.first_item})
            for piece, marker, found in old
            for entry in failed[piece.store].get(marker.shard.number, ())
            if (row := entry.row + piece.shift) in found
        ]
        lease.check()
        # Before the marker: it lacks the rows that these records explain.
        if entries:
            store.failed.add(shard, entries)
        # All rows count as computed: those of failed items hold fill values already, and their status says so.
        write_shard(store, _marker(store, shard, values, old), values, np.array(rows))


def _marker(
    store: Store,
    shard: Shard,
    values: Mapping[str, np.ndarray],
    old: Sequence[tuple[Piece, Marker, range]],
) -> Marker:
    """The marker of a merged shard: counts from its rows, and where and when as the old markers say.

    old: the old markers, with those of its rows that each committed.
    """
    without = [row + p.shift for p, m, rows in old for row in m.without if row + p.shift in rows]
    return replace(
        old[0][1],
        shard=shard,
        without=tuple(without),
        outcomes=outcome_counts(store.kernel, values),
        nan=nan_counts(values) or None,
        n_failed=int((values["status"] == FAILED).sum()),
        started=min(m.started for _, m, _ in old),
        end=max(m.ended for _, m, _ in old),
        # The new shards may cut an old one: each gets seconds by its rows.
        seconds=sum(m.seconds * len(rows) / m.shard.n_items for _, m, rows in old),
        narrowed_to=None,
        copied_from=", ".join(dict.fromkeys(piece.store.address for piece, _, _ in old)),
    )
