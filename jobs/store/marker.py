"""The records of a shard: its commit marker, and its items that fail by themselves.

A shard is done if, and only if, its marker exists. It is computed without the items that are recorded as failing. Each
failing item that is found adds a new record, with those before it. jobs.store.records says where records lie.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, Field

from ctd.batch.program import Layout
from jobs import keys
from jobs.errors import Text
from jobs.plan.layout import Shard
from jobs.storage import objects
from jobs.storage.checksums import ByName
from jobs.store.records import Record, Records


@dataclass(frozen=True)
class Cost:
    """The cost of a round, for the markers of its items."""

    seconds: float = 0.0
    started: float = math.inf
    """When it began (seconds since 1970)."""
    longest_s: float = 0.0
    """Its longest advance."""
    rounds: int = 0
    """Advances of the devices."""


class Marker(Record):
    """The commit marker of a shard. Fields that do not apply to the attempt are None, and are not written."""

    sha256: Mapping[str, str] = {}
    """Key -> checksum of every object that the shard wrote."""
    attempt: int = 1
    without: tuple[int, ...] = ()
    """Rows that were not computed, because their items fail even alone."""
    unused: Annotated[tuple[int, ...], Field(exclude_if=lambda rows: not rows)] = ()
    """Rows that stay empty, because the search has their items in another group; not written if there are none."""
    outcomes: Mapping[str, int] = {}
    """Outcome -> number of items."""
    n_failed: int = 0
    nan: Mapping[str, int] | None = None
    """Result -> number of done items whose values are all NaN or infinite; results with no such item are left out."""
    source: str = ""
    """Digest of the source code that computed the shard."""

    layout: ByName[Layout] = Layout(0, 0)
    rounds: int = 0
    """Advances that the devices made."""
    narrowed_to: int | None = None
    """Number of slots, if memory allowed fewer than planned."""
    longest_s: float | None = None
    """Duration of the longest advance (s)."""
    checkpoints: int | None = None
    """Number of checkpoints that the attempt took."""
    resumed_at: int | None = None
    """Advances already made in the checkpoint that this attempt continued from."""
    advances: int | None = None
    """Advances that the shard's items made in a search."""

    started: float = 0.0
    """When the attempt began (seconds since 1970); in a search, the first round of its items."""
    seconds: float = 0.0
    """Duration of the attempt (s), plus what earlier ones took up to the checkpoint that it went on from; in a search,
    plus its items' share of their rounds."""
    end: float = 0.0
    """When the shard was committed, nearly (seconds since 1970); 0 in stores of an earlier ctd."""
    host: str = ""
    pid: int = 0
    platform: str = ""
    device_kind: str = ""
    idle_gpus: int | None = None
    """GPUs that the worker was given, and JAX did not see."""
    copied_from: str | None = None
    """The store that `--fork` copied the shard from."""

    @property
    def n_items(self) -> int:
        """The number of items, failing ones included."""
        return self.shard.n_items - len(self.unused)

    @property
    def version(self) -> tuple[float, int]:
        """The marker of a shard with the highest version counts: the attempt that ended last."""
        # The clocks of two workers may differ, so that the other marker may count: it names the same bytes.
        return self.ended, 0

    @property
    def ended(self) -> float:
        """When the shard was committed, nearly (seconds since 1970)."""
        return self.end or self.started + self.seconds

    def to_json(self) -> dict[str, Any]:
        """Return the content of the marker's object, without its checksum."""
        return self.model_dump(exclude_none=True)


class Committed(Records[Marker]):
    """The committed shards of one store, that is, those with a marker."""

    kind, folder, segments = Marker, keys.DONE, keys.SEGMENTS

    def forget(self, shards: Iterable[Shard]) -> None:
        """Take back the markers of some shards; the caller must hold the store's lease."""
        if taken_back := list(shards):
            objects.delete(self.objects, keys.CARD)  # it says that all items are computed
            # After the card: a kill in between leaves a store that is done and has no card, which the next reader makes.
            super().forget(taken_back)
            # And again: whoever had read the markers may have written the card since. It looks at them once more after that.
            objects.delete(self.objects, keys.CARD)

    def markers(self, group: int | None = None) -> list[Marker]:
        """Return the markers of all committed shards (of one group, if given), in the order of the plan; no damaged ones."""
        return list(self.latest(group).values())


class FailedItem(BaseModel, frozen=True, extra="allow"):
    """An item that fails even alone. Further fields say where it was computed, or how its worker died."""

    row: int
    """Its row in the group."""
    item: int
    error: Text
    trace: Text = ""
    fault: str = ""
    attempt: int = 1
    time: float = 0.0
    """When the item was found (seconds since 1970)."""

    @property
    def host(self) -> str:
        """The host that computed it; empty if the worker died."""
        return str((self.model_extra or {}).get("host", ""))


class FailedItems(Record):
    """The record of the items of one shard that are known to fail: of all of them, so that earlier records can go."""

    items: Sequence[FailedItem] = Field(alias="rows")

    @property
    def version(self) -> tuple[float, int]:
        """Latest time of an item, number of items: each new record of a shard adds an item to the one before."""
        return max((item.time for item in self.items), default=0.0), len(self.items)


class Failed(Records[FailedItems]):
    """The failing items of one store."""

    kind, folder, segments = FailedItems, keys.FAILED, keys.FAILED_SEGMENTS

    def items(self) -> dict[int, list[FailedItem]]:
        """Return shard -> its items that fail by themselves; a damaged record gives none."""
        return {number: list(record.items) for number, record in self.latest().items()}
