"""Check the markers, and the rows of the shards that they commit."""

from collections.abc import Generator, Iterable, Iterator

from jobs import keys
from jobs.gather.check.mending import Finding, Mending
from jobs.gather.check.segments import check_segments
from jobs.plan.layout import Shard
from jobs.storage import objects
from jobs.storage.checksums import digest
from jobs.store.marker import Marker
from jobs.store.records import newest

AGAIN = "its shard is computed again"

NOT_COMPUTED = "not there: the shard is not computed"
LOST = "not there, though the shard's results are: the marker is lost, or they are to be computed again"


def check_markers(mending: Mending) -> Generator[Finding, None, dict[int, Marker]]:
    """Yield findings; return shard -> marker for the intact markers."""
    committed = mending.store.committed
    read = committed.singles()
    found = yield from check_segments(mending, committed)
    single = committed.whole(read)
    for key in sorted(read):
        if key not in single:
            yield mending.mend(key, f"removed: {AGAIN}", what="damaged")
    good = found | {number: single[key] for number, key in newest(single).items()}
    for shard in mending.shards:
        if shard.number not in good:
            what = LOST if _has_results(mending, shard) else NOT_COMPUTED
            yield Finding(keys.place(keys.DONE, shard.group, shard.number), what, "")
    return good


def _has_results(mending: Mending, shard: Shard) -> bool:
    """Whether a shard's results are stored; its `status` is among the last arrays that a worker writes."""
    try:
        return bool(mending.store.rows(shard.group, "status", shard.start, shard.stop).any())
    except Exception:
        # Metadata or objects are damaged; other parts of the check report them.
        return False


def check_results(mending: Mending, markers: dict[int, Marker]) -> Iterator[Finding]:
    """Check every object of the committed shards; remove damaged shards from `markers`."""
    damaged = []
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
            damaged.append(shard)
        for key, what in bad.items():
            yield Finding(key, what, AGAIN)
    compute_again(mending, damaged)


def compute_again(mending: Mending, shards: Iterable[Shard]) -> None:
    """If this is a repair, remove the markers of these shards, so that `resume` computes them."""
    if mending.repair:
        mending.store.committed.forget(shards)
