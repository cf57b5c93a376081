"""What a committed shard says of itself: run/done/G/SSSSSS.json. A shard is done when, and only when, it is there."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ctd.batch import Layout
from jobs.plan.layout import Shard


@dataclass(frozen=True, kw_only=True)
class Marker:
    """The commit marker of a shard. Fields that an attempt has nothing to say of are None, and are not written."""

    shard: Shard
    sha256: Mapping[str, str] = field(default_factory=dict)
    """Key -> checksum of every object that the shard wrote."""
    attempt: int = 1
    without: tuple[int, ...] = ()
    """Rows that were not computed, since their items fail by themselves."""
    outcomes: Mapping[str, int] = field(default_factory=dict)
    """How many items ended how."""
    n_failed: int = 0
    source: str = ""
    """Digest of the source code that it was computed with."""

    layout: Layout = field(default_factory=lambda: Layout(0, 0))
    rounds: int = 0
    """Advances that its devices made."""
    narrowed_to: int | None = None
    """Slots, where memory left fewer than planned."""
    longest_s: float | None = None
    """Its longest advance."""
    checkpoints: int | None = None
    """How many were kept on the way."""
    resumed_at: int | None = None
    """Advances that the checkpoint had behind it that this attempt went on from."""
    advances: int | None = None
    """Advances that its items made in a search."""
    meeting: str | None = None
    """The folder of the meetings that it took part in."""

    started: float = 0.0
    """When its first attempt began (seconds since 1970)."""
    seconds: float = 0.0
    """What all attempts that came to something took."""
    host: str = ""
    pid: int = 0
    platform: str = ""
    device_kind: str = ""
    copied_from: str | None = None
    """The store that `--fork` took it from."""

    @property
    def n_items(self) -> int:
        """How many rows the shard has."""
        return self.shard.stop - self.shard.start

    @property
    def ended(self) -> float:
        """When it was committed, by the time that it took."""
        return self.started + self.seconds

    def to_json(self) -> dict[str, Any]:
        """As it is written."""
        said = {name: value for name, value in asdict(self).items() if value is not None}
        return said | {"shard": self.shard._asdict(), "layout": self.layout._asdict()}

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> "Marker":
        """The inverse of `to_json`; what a later ctd adds is passed over."""
        known = {f.name: content[f.name] for f in fields(Marker) if f.name in content}
        known["shard"] = Shard(**content["shard"])
        known["without"] = tuple(content.get("without", ()))
        if "layout" in content:
            known["layout"] = Layout(**content["layout"])
        return Marker(**known)
