"""The items of a shard that fail by themselves; the shard is computed without them.

Their records lie as markers do (jobs.store.records); each item that is found makes a new one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from obstore.store import ObjectStore
from pydantic import TypeAdapter

from jobs import keys
from jobs.plan.layout import Plan, Shard
from jobs.storage.checksums import checksummed, verified
from jobs.store.records import Records


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
    """When the item was found (seconds since 1970)."""
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
        return _ITEM.validate_python({**known, "about": rest})


_ITEM = TypeAdapter(FailedItem)


@dataclass(frozen=True)
class FailedItems:
    """The record of one shard."""

    shard: Shard
    items: Sequence[FailedItem]

    @property
    def version(self) -> tuple[float, int]:
        """Latest time of an item, number of items: each new record of a shard adds an item to the one before."""
        return max((item.time for item in self.items), default=0.0), len(self.items)

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> "FailedItems":
        """Return the record with this content."""
        rows = tuple(FailedItem.from_json(entry) for entry in content["rows"])
        return FailedItems(_SHARD.validate_python(content["shard"]), rows)


_SHARD = TypeAdapter(Shard)


class Failed(Records[FailedItems]):
    """The failing items of one store."""

    def __init__(self, store: ObjectStore, plan: Plan) -> None:
        folders = keys.FAILED, keys.FAILED_SEGMENTS
        super().__init__(store, plan, folders, FailedItems.from_json)

    def items(self) -> dict[int, list[FailedItem]]:
        """Return shard -> its items that fail by themselves; a damaged record gives none."""
        return {number: list(record.items) for number, record in self.latest().items()}

    def add(self, shard: Shard, items: Sequence[FailedItem]) -> None:
        """Write the record of a shard: those of its items that are known to fail."""
        self.write({"shard": shard._asdict(), "rows": [item.to_json() for item in items]})

    def line(self, key: str, data: bytes) -> bytes:
        """Return the line of a record. Stores of an older head did not name the shard in it: it comes from the key."""
        content, shard = verified(data), self.plan.shard(keys.number_of(key))
        if content is None or "shard" in content or shard is None:
            return data
        return checksummed({"shard": shard._asdict(), **content})
