"""The markers, and the rows of the shards that they commit."""

from collections.abc import Generator, Iterator

from jobs import keys
from jobs.gather.check.mending import Finding, Mending
from jobs.plan.layout import Shard
from jobs.storage import objects
from jobs.storage.checksums import digest, read_sealed
from jobs.store.marker import Marker

AGAIN = "its shard is computed again"


def check_markers(mending: Mending) -> Generator[Finding, None, dict[int, Marker]]:
    """Yield findings; return shard -> marker of those that are as they should be."""
    missing = {_key(shard): shard for shard in mending.shards}
    good: dict[int, Marker] = {}
    for key in sorted(objects.list_keys(mending.objects, keys.DONE)):
        content = read_sealed(mending.objects, key)
        marker = Marker.from_json(content) if content else None
        if marker and marker.shard == missing.get(key):
            good[marker.shard.number] = marker
            del missing[key]
        else:
            yield mending.mend(key, f"removed: {AGAIN}", what="damaged")
    for key in missing:
        yield Finding(key, "not there: the shard is not computed", "")
    return good


def check_results(mending: Mending, markers: dict[int, Marker]) -> Iterator[Finding]:
    """Check every object of the committed shards; take the damaged shards out of `markers`."""
    for shard in mending.shards:
        if shard.number not in markers or shard.group in mending.broken_groups:
            continue
        sums = markers[shard.number].sha256
        bad = {
            key: "missing" if data is None else "not as committed"
            for key, data in objects.read_all(mending.objects, sums)
            if data is None or digest(data) != sums[key]
        }
        if bad:
            del markers[shard.number]
            compute_again(mending, shard)
        for key, what in bad.items():
            yield Finding(key, what, AGAIN)


def compute_again(mending: Mending, shard: Shard) -> None:
    """Have `resume` compute a shard, if this is a repair."""
    if mending.repair:
        objects.delete(mending.objects, _key(shard))


def _key(shard: Shard) -> str:
    return keys.marker(shard.group, shard.number)
