"""Gather: make the tables that queries read from the committed shards.

    gathered/G      the tables of the kernel's own `reduce` for group G              (jobs.gather.reduce)
    items           one row per item of all groups: sweep columns, status, scalar results
    shards          one row per committed shard: host, device, time
    reduced/TABLE   the job's further reductions, over all items                     (jobs.gather.tables)

jobs.gather.tables writes the last three.

A gather reads committed shards only, so it may run while the job does. It may be killed and repeated. It reduces a group
again only if shards were committed since the last time, or settings or the kernel's program changed. The same
shards give the same bytes. Memory holds one group, or a few blocks of it if the kernel's `reduce` reads in blocks.

Queries gather too. If the user has not trusted the kernel, they do not run its `reduce`: gathered/G stays as it was.
"""

from __future__ import annotations

import errno
import json
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from typing import Any

from obstore.store import ObjectStore

from jobs import keys
from jobs.errors import JobError
from jobs.gather.reduce import FunctionFailed, Reduction, is_reduced, made_from, reduce_group
from jobs.gather.tables import open_columns, write_items, write_reductions, write_shards
from jobs.late import zarr
from jobs.run.sources import edited
from jobs.run.task import Executor
from jobs.spec.job import JobSpec, set_field
from jobs.spec.reductions import check_reductions, options_of, reductions_of
from jobs.storage import connect, objects
from jobs.storage.checksums import Sums, digest_of, write_sums
from jobs.storage.lease import Lease, LeaseHeld
from jobs.store.card import write_card
from jobs.store.creation import renew_description
from jobs.store.groups import committed_rows
from jobs.store.look import Look
from jobs.store.manifest import Job
from jobs.store.store import Store, change_job, known_kernel, refuse_links

GATHERED = ("gathered", "items", "reduced", "shards")
"""The groups at a store's root that gather makes."""

BEHIND = "behind"
"""The field of run/sums/gathered.json that is true if the last gather left out the kernel's `reduce`."""

FAILED = "failed"
"""Its field that says why the kernel's `reduce` failed: group -> error."""

WAIT_S = 0.2
"""Poll interval (s) while another process gathers."""

ATTEMPTS = 3
"""Attempts at a group's reduction if its worker dies or stops, or memory or the storage fails."""


def gather(store: Store, executor: Executor | None = None) -> int:
    """Reduce the groups that changed since the last gather, and write the tables.

    The call waits while another process gathers the store.

    >>> from jobs.store.store import Store, refuse_links
    >>> gather(Store.open("points.zarr")) > 0
    True

    Args:
        store: the store.
        executor: reduces several groups in parallel; without it, or for a single group, this process reduces.

    Returns:
        The number of committed items.

    Raises:
        JobError: the kernel's `reduce` failed; all else is done.
        OSError: the store cannot be written.
        Untrusted: the user has not trusted the kernel's code.
        LeaseHeld: this process was silent for so long that another one took over.
    """
    renew_description(store)
    return _gather(store, executor, to_look=False)


def gather_to_look(store: Store) -> int:
    """Gather for a query: like `gather`, but leave out a kernel's `reduce` that is not trusted; see `left_out`."""
    return _gather(store, None, to_look=True)


def reduction_error(store: Store) -> str:
    """Return what the kernel's `reduce` raised in the last gather, group by group, else ""."""
    return _error_lines(store, _gathered(store).get(FAILED, {}))


def left_out(store: Store) -> str:
    """Return a sentence for the user if the kernel's own tables are missing or older than the others, else ""."""
    last_gather = _gathered(store)
    if last_gather.get(FAILED) or not last_gather.get(BEHIND):
        return _error_lines(store, last_gather.get(FAILED, {}))
    return (
        f"the tables of kernel {store.job.spec.kernel} itself are those of the last `ctd gather`, because "
        "queries do not run code that you have not run yourself (docs/security.md)"
    )


def _error_lines(store: Store, errors: Mapping[str, str]) -> str:
    """The errors of groups; groups with the same one share a line."""
    groups: dict[str, list[str]] = {}
    for group in sorted(errors, key=int):  # workers end in any order
        groups.setdefault(errors[group], []).append(group)
    if len(store.job.plan.group_sizes) == 1:
        return "\n".join(groups)
    labels = {
        error: f"group{'s' * (len(names) > 1)} {', '.join(names)}"
        for error, names in groups.items()
    }
    return "\n".join(f"{label}: {error}" for error, label in labels.items())


def _gather(store: Store, executor: Executor | None, to_look: bool) -> int:
    for _ in objects.read_attempts("gathered"):
        # The first look takes no lease: where nothing is new, a reader needs no right to write.
        before = _gathered(store)
        now = _Now(store, before, to_look)
        if not now.behind and now.about == before:
            break
        refuse_links(store)
        with _alone(store) as lease:
            # Another process gathered between the first look and the lease: look again.
            if _gathered(store) != before:
                continue
            errors = _make(store, now, before, executor, lease)
            write_card(now.look)
        if errors:
            raise JobError(_error_lines(store, errors))
        break
    return now.n_items


class _Now:
    """A look at a store, its committed rows, and the groups whose reduction is out of date."""

    def __init__(self, store: Store, before: Mapping[str, object], to_look: bool) -> None:
        kernel = None
        if store.description.reduces:
            kernel = known_kernel(store) if to_look else store.kernel
        self.look = Look(store)
        stamp = self.look.stamp  # before the markers are read
        self.reductions = reductions_of(
            store.job.spec, store.description.dims, store.description.reduced
        )
        by_group, sizes = self.look.by_group, store.job.plan.group_sizes
        self.rows = [committed_rows(n, ours) for n, ours in zip(sizes, by_group, strict=True)]
        self.n_items = int(sum(rows.sum() for rows in self.rows))
        digests: dict[str, str] = {}
        if kernel is not None and kernel.tables.reduce is not None:
            digests = {str(g): made_from(store, ours) for g, ours in enumerate(by_group) if ours}
        self.behind = [int(g) for g, d in digests.items() if not is_reduced(store, int(g), d)]
        # The table `shards` shows seconds and host, so that a shard that was computed again counts as new.
        ran = [[m.shard.number, m.sha256, m.seconds, m.host] for m in self.look.markers]
        self.about: dict[str, Any] = {
            "made_from": digest_of(ran),
            "groups": digests,
            "reductions": [reduction.model_dump(mode="json") for reduction in self.reductions],
            "stamp": stamp,
        }
        if store.description.reduces and kernel is None:
            same = before.get("made_from") == self.about["made_from"]
            self.about["groups"] = before.get("groups", {})
            if not same or before.get(BEHIND):
                self.about[BEHIND] = True


def _make(
    store: Store, now: _Now, before: Mapping[str, Any], executor: Executor | None, lease: Lease
) -> dict[str, str]:
    """Make the tables that differ from `before`; return group -> error for the reductions that failed.

    Raises LeaseHeld and writes no more once the lease is lost: the tables there are then newer than its own.
    """
    # After a gather that was killed `before` is empty, so that all tables are written again.
    is_new = before.get("made_from") != now.about["made_from"]
    if is_new:
        open_columns(store)  # a missing array is found before anything is written
    # Delete the checksums first and write them last: tables of a killed gather then do not count, and readers
    # notice that tables change.
    objects.delete(store.objects, keys.sums("gathered"))
    objects.delete(store.objects, keys.CARD)
    # Workers refuse other source than that of the shards, as it is after `reduce` was edited.
    if executor is not None and len(now.behind) > 1 and not edited(store):
        errors = _reduce_side_by_side(store, now.behind, executor, lease)
    else:
        errors = {}
        for group in now.behind:
            try:
                # Of the same shards as `items`, however many a job that runs has committed since.
                reduce_group(store, group, lease.check, now.look.by_group[group])
            except FunctionFailed as error:
                errors[str(group)] = str(error)
    lease.check()
    reduced = {g: d for g, d in now.about["groups"].items() if g not in errors}
    about = now.about | {"groups": reduced} | ({FAILED: errors} if errors else {})
    if is_new:
        write_items(store, now.rows)
        write_shards(store, now.look.markers)
    write_reductions(store, now.reductions)
    if reduced:
        store.root.require_group("gathered")
    lease.check()
    digests_before = before.get("groups", {})
    unchanged = {f"gathered/{g}" for g, d in reduced.items() if digests_before.get(g) == d}
    _consolidate(store.objects, unchanged)
    write_sums(store.objects, "gathered", _own_objects(store), **about)
    return errors


@contextmanager
def _alone(store: Store) -> Iterator[Lease]:
    """Let one process gather at a time, by a lease (`jobs.storage.lease`) in run/gathering."""
    try:
        place = connect.open_objects(f"{store.address.rstrip('/')}/{keys.GATHERING}", create=True)
        while True:
            try:
                lease = Lease.acquire(place, store.address)
                break
            except LeaseHeld:
                time.sleep(WAIT_S)
    except JobError as error:
        # A fault of the storage: a query then reads the tables as they are (jobs.query.tables: refresh).
        raise OSError(errno.EROFS, str(error)) from None
    with lease.renewing():
        yield lease


def _gathered(store: Store) -> dict[str, Any]:
    """Return the record of the last gather's sources; empty if it did not end or its tables are gone."""
    if objects.read(store.objects, "items/zarr.json") is None:
        return {}
    sums = Sums.read(store.objects, keys.sums("gathered"))
    return sums.about if sums else {}


def _own_objects(store: Store) -> Iterator[str]:
    """Iterate over the objects that a gather writes, except those of groups, which have checksums of their own."""
    yield "zarr.json"
    if objects.read(store.objects, "gathered/zarr.json") is not None:
        yield "gathered/zarr.json"
    for part in ("items", "reduced", "shards"):
        yield from objects.list_keys(store.objects, part)


def _consolidate(store: ObjectStore, unchanged: Set[str]) -> None:
    """Update the consolidated metadata of what gather makes; the rest stays as it was.

    unchanged: PART/NAME, the nodes in it whose known metadata, and of all below them, still holds.
    """
    # No lock: one process gathers at a time (`_alone`).
    root = json.loads(objects.read(store, "zarr.json") or b"{}")
    metadata = root["consolidated_metadata"]["metadata"]
    nodes = {path: node for path, node in metadata.items() if path.split("/")[0] not in GATHERED}
    for part in GATHERED:
        for key in objects.list_keys(store, part):
            path, _, name = key.rpartition("/")
            if name == "zarr.json":
                if path in metadata and "/".join(path.split("/")[:2]) in unchanged:
                    nodes[path] = metadata[path]
                else:
                    nodes[path] = json.loads(objects.read(store, key) or b"{}")
    # Zarr's order: parents before children.
    paths = sorted(nodes, key=lambda path: (path.count("/"), path))
    root["consolidated_metadata"]["metadata"] = {path: nodes[path] for path in paths}
    objects.write(store, "zarr.json", json.dumps(root, indent=2).encode())


def _reduce_side_by_side(
    store: Store, groups: Sequence[int], executor: Executor, lease: Lease
) -> dict[str, str]:
    """Reduce groups on an executor; return group -> error for those that it could not reduce."""
    executor.start(store.address)
    waiting = [Reduction(group) for group in groups]
    running: dict[int, Reduction] = {}
    errors: dict[str, str] = {}
    while waiting or running:
        while waiting and executor.capacity() > 0:
            lease.check()
            work = waiting.pop(0)
            running[work.group] = work
            executor.submit(work)
        for report in executor.wait(timeout=0.5):
            work = running.pop(report.shard)
            # These faults may pass by themselves; an exception of `reduce` would come again.
            may_pass = report.fault in ("death", "memory", "storage", "stopped")
            if report.error and may_pass and work.attempt < ATTEMPTS:
                waiting.append(work._replace(attempt=work.attempt + 1))
            elif report.error:
                errors[str(report.shard)] = f"{report.error}\n{report.trace}".strip()
    return errors


def require_rows(store: Store) -> zarr.Group:
    """The item table. Gathers first, as for a query, if it is missing or older than the committed shards."""
    last_gather = _gathered(store)
    behind = last_gather.get(BEHIND) and known_kernel(store) is not None
    if behind or last_gather.get("stamp") != store.committed.stamp():
        gather_to_look(store)
    table = store.root["items"]
    assert isinstance(table, zarr.Group)
    return table


def set_gather(
    store: Store, overrides: Sequence[str] = (), changes: Mapping[str, object] | None = None
) -> None:
    """Change settings of a store's reductions: to those given, then as `key=value` says; all others stay.

    Raises JobError if they are not valid, and then changes nothing.
    """
    kernel, description = store.kernel, store.description  # to import them may take seconds

    def changed(job: Job) -> Job:
        settings = {**job.spec.gather, **(changes or {})}
        for override in overrides:
            set_field(settings, override)
        spec = job.spec.model_copy(update={"gather": settings})
        options_of(spec, kernel)
        reductions = reductions_of(spec, description.dims, description.reduced)
        # A gather would find it after it has deleted the tables, and so would every query.
        check_reductions(reductions, open_columns(store))
        return job.model_copy(update={"spec": spec})

    change_job(store, changed)


def take_gather(store: Store, spec: JobSpec) -> None:
    """Take the settings of reductions that a job gives for its store; see `set_gather`."""
    if brings_settings(store, spec.gather):
        set_gather(store, changes=spec.gather)


def brings_settings(store: Store, settings: Mapping[str, object]) -> bool:
    """Return whether one of these settings of reductions is not the store's."""
    return {**store.job.spec.gather, **settings} != store.job.spec.gather
