"""Check what a gather wrote, reductions and tables; a repair gathers again."""

from collections.abc import Iterator, Mapping, Sequence

from jobs import keys
from jobs.gather.check.mending import Finding, Mending
from jobs.gather.gather import GATHERED, gather
from jobs.storage import objects
from jobs.storage.checksums import read_sums, read_verified
from jobs.store.store import Store


def check_gathered(mending: Mending) -> Iterator[Finding]:
    """Check all objects of the last gather; a repair removes damaged ones and gathers again."""
    if not mending.has_gathered():
        return
    made = read_verified(mending.objects, keys.sums("gathered")) or {}
    groups = {f"gathered/{g}" for g in made.get("groups", ())} | mending.summed("gathered")
    # Name of the checksums -> its damaged objects.
    bad: dict[str, list[str]] = {}
    for name in ["gathered", *sorted(groups)]:
        sums = read_sums(mending.objects, name)
        if wrong := [keys.sums(name)] if sums is None else mending.altered(sums):
            bad[name] = wrong
    found = [
        Finding(key, mending.state(key), "gathered again")
        for key in dict.fromkeys(key for wrong in bad.values() for key in wrong)
        if key != "zarr.json"  # check_created reports it
    ]
    if bad and mending.repair:
        _gather_again(mending.store, bad)
    yield from found


def _gather_again(store: Store, bad: Mapping[str, Sequence[str]]) -> None:
    for name, wrong in bad.items():
        for key in {*wrong, keys.sums(name)} - {"zarr.json"}:
            objects.delete(store.objects, key)
        for part in [name] if name != "gathered" else [p for p in GATHERED if p != name]:
            objects.delete_all(store.objects, part)
    gather(Store.open(store.address))
