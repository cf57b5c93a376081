"""Compare a store with what it should be, bit for bit, and repair what is damaged.

    run/job.json, its copy      carry their own checksums; each is the other's backup
    metadata, sweep columns     checksums taken at creation; made again from the job
    commit markers              carry their own checksums; without one its shard is computed again
    rows of committed shards    every storage object there, checksums as in the marker
    reductions                  checksums taken by gather; reduced again
    events of runs that ended   checksums taken at the end; nothing makes them again

A repair removes the markers of damaged shards, so that `resume` computes them. Leases, requests and submissions
are not checked: they change as runs come and go, and nothing is made from them.
"""

import json
import os
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import obstore

from jobs import keys
from jobs.gather.gather import GATHERED, gather
from jobs.inputs.measure import outputs_of
from jobs.plan.items import expand
from jobs.plan.layout import Shard
from jobs.run.rendezvous import populations, whole_arrival
from jobs.storage import objects
from jobs.storage.checksums import (
    digest,
    is_intact,
    read_sealed,
    read_sums,
    seal,
    unseal,
    write_sums,
)
from jobs.storage.lease import Lease
from jobs.store.checkpoint import decode, folder
from jobs.store.creation import keys_outside_run, laid_out
from jobs.store.marker import Marker
from jobs.store.store import Store

OTHER = (
    "not made again: these versions of ctd and its libraries would make another object; run/job.json has, under "
    "provenance, those that made the store"
)


class Finding(NamedTuple):
    """One thing that is not as it should be."""

    key: str
    """The object's key."""
    what: str
    cure: str
    """What a repair does about it; empty if its shard is just not computed yet, and nothing is wrong."""


def check(address: str, repair: bool = False) -> list[Finding]:
    """Return everything that is wrong with a store; with `repair`, make right what can be.

    After a repair, `resume` computes what is missing. Raises JobError if there is no store, if both copies of
    run/job.json are damaged, or, for a repair, if the store is being run.
    """
    store = Store.open(address)
    if not repair:
        return list(_Check(store, False).all())
    lease = Lease.take(store.objects, address)
    try:
        return list(_Check(store, True).all())
    finally:
        lease.release()


class _Check:
    def __init__(self, store: Store, repair: bool) -> None:
        self.store, self.objects, self.repair = store, store.objects, repair
        self.broken_groups: set[int] = set()
        """Groups whose rows cannot be read because their metadata are damaged."""

    def all(self) -> Iterator[Finding]:
        yield from self.job()
        yield from self.created()
        markers = yield from self.markers()
        yield from self.results(markers)
        yield from self.notes(markers)
        yield from self.leftovers(set(markers))
        yield from self.events()
        yield from self.gathered()

    # --- what creation wrote ----------------------------------------------------------------------

    def job(self) -> Iterator[Finding]:
        for key, other in ((keys.JOB, keys.JOB_COPY), (keys.JOB_COPY, keys.JOB)):
            if unseal(objects.read(self.objects, key)) is None:
                state = self._state(key)
                if self.repair:
                    self._write(key, objects.read(self.objects, other) or b"")
                yield Finding(key, state, f"copied from {other}")

    def created(self) -> Iterator[Finding]:
        sums = read_sums(self.objects, "created")
        if sums is None:
            key = keys.sums("created")
            yield Finding(key, self._state(key), "made again")
            made = self._laid_out()
            write_sums(made.objects, "created", keys_outside_run(made))
            if self.repair:
                self._write(key, objects.read(made.objects, key) or b"")
            sums = read_sums(made.objects, "created") or {}
        bad = self._altered(sums)
        # gather adds to the root's metadata and keeps its own checksum of it.
        if "zarr.json" in bad and self._root_is_as_gathered():
            bad.remove("zarr.json")
        states = {key: self._state(key) for key in bad}
        lost: set[str] = set()
        if bad and self.repair:
            made = self._laid_out()
            for key in bad:
                data = objects.read(made.objects, key) or b""
                if digest(data) == sums[key]:
                    self._write(key, data)
                else:
                    lost.add(key)
            self.store = Store.open(self.store.address)  # the old one keeps what it has read
        elif bad:
            groups = range(len(self.store.job.plan.group_sizes))
            hit = lambda g: any(key.startswith(f"results/{g}/") for key in bad)
            at_root = any(key.count("/") < 2 for key in bad)
            self.broken_groups = {g for g in groups if at_root or hit(g)}
        for key in bad:
            yield Finding(key, states[key], OTHER if key in lost else "made again from the job")

    def _root_is_as_gathered(self) -> bool:
        sums = read_sums(self.objects, "gathered")
        if sums is not None:
            return is_intact(self.objects, "zarr.json", sums["zarr.json"])
        return self._has_gathered() and _is_json(objects.read(self.objects, "zarr.json"))

    def _laid_out(self) -> Store:
        store, job = self.store, self.store.job
        items = expand(job.spec, store.kernel, store.address)
        outputs = [outputs_of(store.kernel, g.params, job.base) for g in items.groups]
        return laid_out(job, items, outputs)

    # --- shards -----------------------------------------------------------------------------------

    def markers(self) -> Generator[Finding, None, dict[int, Marker]]:
        """Yield findings; return shard -> marker of those that are as they should be."""
        shards = {shard.number: shard for shard in self.store.job.plan.shards()}
        good: dict[int, Marker] = {}
        for key in sorted(objects.list_keys(self.objects, keys.DONE)):
            content = unseal(objects.read(self.objects, key))
            marker = Marker.from_json(content) if content else None
            shard = marker and marker.shard
            if (
                marker
                and shard == shards.get(marker.shard.number)
                and key == self._key(marker.shard)
            ):
                good[marker.shard.number] = marker
                continue
            if self.repair:
                objects.delete(self.objects, key)
            yield Finding(key, "damaged", "removed: its shard is computed again")
        for number in sorted(shards.keys() - good.keys()):
            key = self._key(shards[number])
            yield Finding(key, "not there: the shard is not computed", "")
        return good

    @staticmethod
    def _key(shard: Shard) -> str:
        return keys.marker(shard.group, shard.number)

    def results(self, markers: dict[int, Marker]) -> Iterator[Finding]:
        for shard in self.store.job.plan.shards():
            if shard.number not in markers or shard.group in self.broken_groups:
                continue
            bad = list(self._bad_results(markers[shard.number].sha256))
            if bad:
                del markers[shard.number]
                self._compute_again(shard)
                yield from bad

    def _bad_results(self, sums: Mapping[str, str]) -> Iterator[Finding]:
        for key, data in objects.read_all(self.objects, sums):
            if data is None:
                yield Finding(key, "missing", "its shard is computed again")
            elif digest(data) != sums[key]:
                yield Finding(key, "not as committed", "its shard is computed again")

    def _compute_again(self, shard: Shard) -> None:
        if self.repair:
            objects.delete(self.objects, self._key(shard))

    # --- notes that shards depend on --------------------------------------------------------------

    def notes(self, markers: dict[int, Marker]) -> Iterator[Finding]:
        yield from self._layouts(markers)
        yield from self._slots(markers)
        for shard in self.store.job.plan.shards():
            without = shard.number in markers and markers[shard.number].without
            key = keys.failed(shard.group, shard.number)
            known = unseal(objects.read(self.objects, key))
            if known is None and (without or _exists(self.objects, key)):
                state = self._state(key)
                if self.repair:
                    objects.delete(self.objects, key)
                self._compute_again(shard)
                yield Finding(key, state, "its shard is computed again")

    def _slots(self, markers: Mapping[int, Marker]) -> Iterator[Finding]:
        """Check the notes of halved slots; the markers of shards that ran with them hold them too."""
        wanted: dict[str, dict[str, int]] = {}
        for marker in markers.values():
            group, slots = marker.shard.group, marker.narrowed_to
            key = keys.slots(group)
            if slots and slots <= wanted.get(key, {"slots": slots})["slots"]:
                planned = self.store.job.plan.layouts[group].slots
                wanted[key] = {"slots": slots, "planned": planned}
        for key in sorted({*objects.list_keys(self.objects, keys.SLOTS), *wanted}):
            if unseal(objects.read(self.objects, key)) is None:
                state = self._state(key)
                if self.repair and key in wanted:
                    self._write(key, seal(wanted[key]))
                elif self.repair:
                    objects.delete(self.objects, key)
                yield Finding(key, state, "taken from the markers, or learned again")

    def _layouts(self, markers: Mapping[int, Marker]) -> Iterator[Finding]:
        """Check the notes of chosen microbatches; every marker holds one too."""
        wanted: dict[str, int] = {}
        for marker in markers.values():
            group = marker.shard.group
            if self.store.job.plan.layouts[group].microbatch == 0 and marker.longest_s:
                key = keys.layout(group, marker.device_kind)
                wanted[key] = max(wanted.get(key, 0), marker.layout.microbatch)
        for key in sorted({*objects.list_keys(self.objects, keys.LAYOUT), *wanted}):
            if read_sealed(self.objects, key) is not None:
                continue
            state = self._state(key)
            if self.repair and key in wanted:
                self._write(key, seal({"microbatch": wanted[key], "seconds_per_item": {}}))
            elif self.repair:
                objects.delete(self.objects, key)
            yield Finding(key, state, "taken from the markers, or measured again")

    # --- the rest ---------------------------------------------------------------------------------

    def leftovers(self, done: set[int]) -> Iterator[Finding]:
        stale = {folder(shard) for shard in self.store.job.plan.shards() if shard.number in done}
        is_stale = lambda key: key.rpartition("/")[0] in stale
        is_whole = lambda key: decode(objects.read(self.objects, key) or b"") is not None
        yield from self._left(keys.CHECKPOINTS, is_stale, is_whole)
        shards = populations(self.store.job)
        is_over = lambda key: done >= {*shards.get(keys.number_of(key), ())}
        yield from self._left(keys.MEETINGS, is_over, lambda key: whole_arrival(self.objects, key))
        if _exists(self.objects, keys.CREATING):
            if self.repair:
                objects.delete(self.objects, keys.CREATING)
            yield Finding(keys.CREATING, "left over: the store is complete", "removed")
        for path in self._half_written():
            if self.repair:
                path.unlink(missing_ok=True)
            key = str(path.relative_to(Path(self.store.address)))
            yield Finding(key, "left over: half written", "removed")

    def _left(
        self, prefix: str, is_stale: Callable[[str], bool], is_whole: Callable[[str], bool]
    ) -> Iterator[Finding]:
        """Check what shards under way have left below `prefix`; a repair removes what is stale or damaged."""
        for key in sorted(objects.list_keys(self.objects, prefix)):
            if is_stale(key) or not is_whole(key):
                what = "left over: its shard is committed" if is_stale(key) else "damaged"
                if self.repair:
                    objects.delete(self.objects, key)
                yield Finding(key, what, "removed")

    def events(self) -> Iterator[Finding]:
        """Check the events, which a driver seals when its run ends. Nothing can make them again."""
        noted: dict[str, list[str]] = {}
        for key in sorted(objects.list_keys(self.objects, keys.EVENTS)):
            noted.setdefault(key.removeprefix("run/").rpartition("-")[0], []).append(key)
        seals = self._seals("events")
        for name in sorted(noted.keys() | seals):
            sums, own = read_sums(self.objects, name), noted.get(name, [])
            if sums is not None:
                bad = self._altered(sums)
            else:  # a driver that was killed has sealed nothing
                ended = any(
                    b'"event": "end"' in (objects.read(self.objects, k) or b"") for k in own
                )
                bad = [keys.sums(name)] if ended or name in seals else []
            states = [(key, self._state(key)) for key in bad]
            if bad and self.repair:
                write_sums(self.objects, name, own)
            for key, state in states:
                yield Finding(key, state, "what can still be read is kept")

    def _half_written(self) -> Iterator[Path]:
        """Yield what a killed process left on a file system: `NAME#N`, which no listing of objects shows."""
        root = objects.local_path(self.store.address)
        for place, _, names in os.walk(root) if root else ():
            for name in names:
                stem, mark, number = name.rpartition("#")
                if mark and stem and number.isdigit():
                    yield Path(place) / name

    def gathered(self) -> Iterator[Finding]:
        if not self._has_gathered():
            return
        own = read_sums(self.objects, "gathered")
        made = unseal(objects.read(self.objects, keys.sums("gathered"))) or {}
        seals = self._seals("gathered")
        bad: dict[str, list[str]] = {}  # what is to be gathered again -> the objects that are wrong
        for name in [
            "gathered",
            *sorted(seals | {f"gathered/{g}" for g in made.get("groups", ())}),
        ]:
            sums = own if name == "gathered" else read_sums(self.objects, name)
            if sums is None:
                wrong = [keys.sums(name)]
            else:
                wrong = self._altered(sums)
            if wrong:
                bad[name] = wrong
        states = {key: self._state(key) for wrong in bad.values() for key in wrong}
        if bad and self.repair:
            for name in bad:
                for key in {*bad[name], keys.sums(name)} - {"zarr.json"}:
                    objects.delete(self.objects, key)
                for part in [name] if name != "gathered" else [p for p in GATHERED if p != name]:
                    objects.delete_all(self.objects, part)
            gather(Store.open(self.store.address))
        for key, state in states.items():
            if key != "zarr.json":  # reported with what creation wrote
                yield Finding(key, state, "gathered again")

    def _has_gathered(self) -> bool:
        return _exists(self.objects, keys.sums("gathered")) or any(
            True for part in GATHERED for _ in objects.list_keys(self.objects, part)
        )

    def _seals(self, folder: str) -> set[str]:
        """Return the names of the checksums below a folder of run/sums."""
        return {
            keys.sums_name(key) for key in objects.list_keys(self.objects, f"{keys.SUMS}/{folder}")
        }

    def _altered(self, sums: Mapping[str, str]) -> list[str]:
        """Return the objects that are not as their checksums say."""
        return [key for key, sha in sums.items() if not is_intact(self.objects, key, sha)]

    def _state(self, key: str) -> str:
        return "damaged" if _exists(self.objects, key) else "missing"

    def _write(self, key: str, data: bytes) -> None:
        objects.write(self.objects, key, data)


def _is_json(data: bytes | None) -> bool:
    try:
        return json.loads(data or b"null") is not None
    except ValueError:
        return False


def _exists(store: Any, key: str) -> bool:
    try:
        obstore.head(store, key)
    except FileNotFoundError:
        return False
    return True
