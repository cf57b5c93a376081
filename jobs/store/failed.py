"""The items of a shard that fail by themselves, run/failed/G/SSSSSS.json; the shard is computed without them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from jobs import keys
from jobs.plan.layout import Shard
from jobs.storage import objects
from jobs.storage.checksums import seal, unseal
from jobs.store.folding import uncommit
from jobs.store.store import Store


@dataclass(frozen=True, kw_only=True)
class FailedItem:
    """An item that fails even alone."""

    row: int
    """Its row in the group."""
    item: int
    error: str
    trace: str = ""
    fault: str = ""
    attempt: int = 1
    time: float = 0.0
    """When it was found (seconds since 1970)."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """Further fields, written beside the others: where it was computed, or how its worker died."""

    @property
    def host(self) -> str:
        """The host that computed it; empty if the worker died."""
        return str(self.about.get("host", ""))

    def to_json(self) -> dict[str, Any]:
        """Return the item's entry in the record of its shard."""
        named = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "about"}
        return {**named, **self.about}

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> "FailedItem":
        """Return the item that `to_json` described."""
        rest, names = dict(content), {f.name for f in fields(FailedItem)}
        known = {name: rest.pop(name) for name in content if name in names}
        return FailedItem(**known, about=rest)


def failed_items(store: Store) -> dict[int, list[FailedItem]]:
    """Return shard -> its items that fail by themselves; a damaged record gives none."""
    listed = list(objects.list_keys(store.objects, keys.FAILED))
    entries = lambda data: (unseal(data) or {}).get("rows", [])
    return {
        keys.number_of(key): [FailedItem.from_json(entry) for entry in entries(data)]
        for key, data in objects.read_all(store.objects, listed)
    }


def write_failed(store: Store, shard: Shard, items: Sequence[FailedItem]) -> None:
    """Write the record of a shard's failing items."""
    content = {"rows": [item.to_json() for item in items]}
    objects.write(store.objects, keys.failed(shard.group, shard.number), seal(content))


def forget_failed(store: Store) -> int:
    """Have the shards of all items that failed by themselves computed again; return how many items there were.

    The caller must hold the store's lease.
    """
    found, shards = failed_items(store), list(store.job.plan.shards())
    # The markers first: without the record, they would lack rows for no visible reason.
    uncommit(store.committed, (shards[number] for number in found))
    for number in found:
        objects.delete(store.objects, keys.failed(shards[number].group, number))
    return sum(map(len, found.values()))
