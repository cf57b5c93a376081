"""The commit marker. A shard is done if, and only if, its marker exists.

run/done/G/SSSSSS-XXXXXXXX.json     as a worker writes it; XXXXXXXX: the first digits of its checksum
run/segments/NNNNNNNN.jsonl         later, with many others (jobs.store.segments)
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from obstore.store import ObjectStore
from pydantic import TypeAdapter

from ctd.batch import Layout
from jobs import keys
from jobs.plan.layout import Plan, Shard
from jobs.storage import objects
from jobs.store.records import Records


@dataclass(frozen=True, kw_only=True)
class Marker:
    """The commit marker of a shard. Fields that do not apply to the attempt are None, and are not written."""

    shard: Shard
    sha256: Mapping[str, str] = field(default_factory=dict)
    """Key -> checksum of every object that the shard wrote."""
    attempt: int = 1
    without: tuple[int, ...] = ()
    """Rows that were not computed, because their items fail even alone."""
    unused: tuple[int, ...] | None = None
    """Rows that stay empty, because the search has their items in another group."""
    outcomes: Mapping[str, int] = field(default_factory=dict)
    """Outcome -> number of items."""
    n_failed: int = 0
    nan: Mapping[str, int] | None = None
    """Result -> number of done items whose values are all NaN; results with no such item are left out."""
    source: str = ""
    """Digest of the source code that computed the shard."""

    layout: Layout = field(default_factory=lambda: Layout(0, 0))
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
    """Duration of the attempt (s); in a search, plus its items' share of their rounds."""
    host: str = ""
    pid: int = 0
    platform: str = ""
    device_kind: str = ""
    copied_from: str | None = None
    """The store that `--fork` copied the shard from."""

    @property
    def others(self) -> tuple[int, ...]:
        """The unused rows."""
        return self.unused or ()

    @property
    def n_items(self) -> int:
        """The number of items, failing ones included."""
        return self.shard.n_items - len(self.others)

    @property
    def version(self) -> tuple[float, int]:
        """The marker of a shard with the highest version counts: the attempt that ended last."""
        return self.ended, 0

    @property
    def ended(self) -> float:
        """When the shard was committed, nearly: `started` + `seconds` (seconds since 1970)."""
        return self.started + self.seconds

    def to_json(self) -> dict[str, Any]:
        """Return the content of the marker's object, without its checksum."""
        said = {name: value for name, value in asdict(self).items() if value is not None}
        return said | {"shard": self.shard._asdict(), "layout": self.layout._asdict()}

    @staticmethod
    def from_json(content: Any) -> "Marker":
        """Return the marker that `to_json` described; fields added by a later ctd are ignored.

        Raises ValueError if `content` describes none.
        """
        return _PARSER.validate_python(content)


_PARSER = TypeAdapter(Marker)


class Committed(Records[Marker]):
    """The committed shards of one store, that is, those with a marker."""

    def __init__(self, store: ObjectStore, plan: Plan) -> None:
        super().__init__(store, plan, (keys.DONE, keys.SEGMENTS), Marker.from_json)

    def forget(self, shards: Iterable[Shard]) -> None:
        """Take back the markers of some shards; the caller must hold the store's lease."""
        if named := list(shards):
            objects.delete(self.objects, keys.CARD)  # it says that all items are computed
            super().forget(named)

    def markers(self, group: int | None = None) -> list[Marker]:
        """Return the markers of all committed shards (of one group, if given), in the order of the plan.

        Damaged markers are left out.
        """
        return list(self.latest(group).values())
