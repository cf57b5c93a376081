"""Check objects that should be gone by now, objects of other programs, and the events, which nothing can make again."""

import os
from collections.abc import Callable, Iterator, Set
from pathlib import Path

from jobs import keys
from jobs.gather.check.mending import Finding, Mending
from jobs.run.rendezvous import populations, whole_arrival
from jobs.storage import objects
from jobs.storage.checksums import read_sums, read_verified, write_sums
from jobs.store.checkpoint import decode, folder

OTHERS = "not written by ctd: left alone"


def check_leftovers(mending: Mending, done: Set[int]) -> Iterator[Finding]:
    """Check what running shards, creation and killed processes left behind, and the pictures.

    done: the numbers of the shards whose commit is intact.
    """
    stale = {folder(shard) for shard in mending.shards if shard.number in done}
    is_stale = lambda key: key.rpartition("/")[0] in stale
    is_whole = lambda key: decode(objects.read(mending.objects, key) or b"") is not None
    yield from _left(mending, keys.CHECKPOINTS, is_stale, is_whole)
    named = {
        keys.live(shard.group, shard.number) for shard in mending.shards if shard.number in done
    }
    is_sealed = lambda key: read_verified(mending.objects, key) is not None
    yield from _left(mending, keys.LIVE, named.__contains__, is_sealed)
    shards = populations(mending.store.job)
    is_over = lambda key: done >= {*shards.get(keys.number_of(key), ())}
    is_arrival = lambda key: whole_arrival(mending.objects, key)
    yield from _left(mending, keys.MEETINGS, is_over, is_arrival)
    yield from _left(mending, keys.PICTURES, lambda key: False, is_sealed)
    if mending.exists(keys.CREATING):
        yield mending.mend(keys.CREATING, "removed", what="left over: the store is complete")
    for path in _half_written(mending.store.address):
        if mending.repair:
            path.unlink(missing_ok=True)
        key = str(path.relative_to(Path(mending.store.address)))
        yield Finding(key, "left over: half written", "removed")


def _left(
    mending: Mending,
    prefix: str,
    is_stale: Callable[[str], bool],
    is_whole: Callable[[str], bool],
) -> Iterator[Finding]:
    """Check the objects that running shards left below `prefix`; a repair removes stale and damaged ones."""
    for key in sorted(objects.list_keys(mending.objects, prefix)):
        if is_stale(key):
            yield mending.mend(key, "removed", what="left over: its shard is committed")
        elif not is_whole(key):
            yield mending.mend(key, "removed", what="damaged")


def _half_written(address: str) -> Iterator[Path]:
    """Iterate over files `NAME#N`, which a killed process leaves on a file system and no listing of objects shows."""
    root = objects.local_path(address)
    for place, _, names in os.walk(root) if root else ():
        for name in names:
            stem, mark, number = name.rpartition("#")
            if mark and stem and number.isdigit() and name.isprintable():
                yield Path(place) / name


def check_others(mending: Mending) -> Iterator[Finding]:
    """Name the objects below run/ that ctd has not written; a repair leaves them alone."""
    for key in sorted(objects.list_all(mending.objects, "run")):
        if not keys.is_ours(key):
            yield Finding(key, OTHERS, "")


def check_events(mending: Mending) -> Iterator[Finding]:
    """Check the events, which a driver seals when its run ends."""
    logs: dict[str, list[str]] = {}
    for key in sorted(objects.list_keys(mending.objects, keys.EVENTS)):
        logs.setdefault(key.removeprefix("run/").rpartition("-")[0], []).append(key)
    summed = mending.summed("events")
    for name in sorted(logs.keys() | summed):
        sums, own = read_sums(mending.objects, name), logs.get(name, [])
        if sums is not None:
            bad = mending.altered(sums)
        else:
            # A driver that was killed wrote no checksums; one that ended did.
            ended = any(
                b'"event": "end"' in (objects.read(mending.objects, key) or b"") for key in own
            )
            bad = [keys.sums(name)] if ended or name in summed else []
        found = [Finding(key, mending.state(key), "its readable lines are kept") for key in bad]
        if bad and mending.repair:
            write_sums(mending.objects, name, own)
        yield from found
