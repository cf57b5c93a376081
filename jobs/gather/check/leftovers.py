"""Check objects that should be gone by now, objects of other programs, and the logs, which nothing can make again."""

import os
from collections.abc import Callable, Iterator, Set
from pathlib import Path

from jobs import keys
from jobs.gather.check.mending import Finding, Mending
from jobs.storage import objects
from jobs.storage.checksums import read_sums, read_verified, write_sums
from jobs.store.checkpoint import decode, folder
from jobs.store.rounds import is_whole_round

OTHERS = "not written by ctd: left alone"


def check_leftovers(mending: Mending, done: Set[int]) -> Iterator[Finding]:
    """Check what running shards, creation and killed processes left behind, and the pictures.

    done: the numbers of the shards whose commit is intact.
    """
    plan = mending.store.job.plan
    # Rounds of a search have numbers of their own; they are over once all shards of their group are committed.
    committed = {g for g in range(len(plan.group_sizes)) if done >= {*plan.numbers(g)}}
    over = {str(g) for g in committed if committed >= {*plan.together(g)}}
    is_over = lambda key: key.split("/")[2] in over
    stale = {folder(shard) for shard in mending.shards if shard.number in done}
    is_stale = lambda key: key.rpartition("/")[0] in stale or is_over(key)
    is_whole = lambda key: decode(objects.read(mending.objects, key) or b"") is not None
    yield from _left(mending, keys.CHECKPOINTS, is_stale, is_whole)
    named = {
        keys.live(shard.group, shard.number) for shard in mending.shards if shard.number in done
    }
    is_sealed = lambda key: read_verified(mending.objects, key) is not None
    yield from _left(mending, keys.LIVE, lambda key: key in named or is_over(key), is_sealed)
    # `resume --failed` goes on from the states beside items that failed.
    records = mending.store.failed.latest().values()
    failed = {str(plan.together(record.shard.group)[0]) for record in records}
    is_unused = lambda key: is_over(key) and key.split("/")[2] not in failed
    is_whole_states = lambda key: is_whole_round(mending.store, key)
    yield from _left(mending, keys.ROUNDS, is_unused, is_whole_states)
    # Those of a search that is over have checksums: check_logs.
    logged = mending.summed("decisions")
    is_known = lambda key: _log(key) in logged or is_sealed(key)
    yield from _left(mending, keys.DECISIONS, lambda key: False, is_known)
    yield from _left(mending, keys.PICTURES, lambda key: False, is_sealed)
    for key, cure in ((keys.CARD, "removed"), (keys.NOTE, "removed; `ctd note` writes another")):
        if mending.exists(key) and not is_sealed(key):
            yield mending.mend(key, cure, what="damaged")
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


def _log(key: str) -> str:
    """The name of the log that an event or a decision belongs to, as run/sums has it."""
    return key.removeprefix("run/").rpartition("-" if key.startswith(keys.EVENTS) else "/")[0]


def check_logs(mending: Mending) -> Iterator[Finding]:
    """Check the events, which a driver seals when its run ends, and the decisions of searches that are over."""
    logs: dict[str, list[str]] = {}
    for place in (keys.EVENTS, keys.DECISIONS):
        for key in sorted(objects.list_keys(mending.objects, place)):
            logs.setdefault(_log(key), []).append(key)
    summed = mending.summed("events") | mending.summed("decisions")
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
        found = [Finding(key, mending.state(key), "what is readable is kept") for key in bad]
        if bad and mending.repair:
            write_sums(mending.objects, name, own)
        yield from found
