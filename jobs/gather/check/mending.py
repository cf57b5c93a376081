"""The shared parts of a check: findings, and the store that is checked or repaired."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import obstore
from obstore.store import ObjectStore

from jobs import keys
from jobs.gather.gather import GATHERED
from jobs.plan.layout import Shard
from jobs.storage import objects
from jobs.storage.checksums import is_intact
from jobs.store.store import Store


class Finding(NamedTuple):
    """One finding of a check."""

    key: str
    """The object's key."""
    what: str
    """What is wrong with the object."""
    cure: str
    """What a repair does; empty if nothing is wrong, as with a shard not computed yet or an object of others."""


@dataclass
class Mending:
    """A store that is checked, and with `repair` repaired; without it nothing is written."""

    store: Store
    repair: bool
    broken_groups: set[int] = field(default_factory=set)
    """Groups whose rows cannot be read, since their metadata are damaged."""

    @property
    def objects(self) -> ObjectStore:
        """The objects of the store."""
        return self.store.objects

    @property
    def shards(self) -> list[Shard]:
        """All shards of the plan."""
        return list(self.store.job.plan.shards())

    def exists(self, key: str) -> bool:
        """Whether there is an object at `key`."""
        try:
            obstore.head(self.objects, key)
        except FileNotFoundError:
            return False
        return True

    def mend(self, key: str, cure: str, right: bytes | None = None, what: str = "") -> Finding:
        """Report an object as wrong; a repair writes `right` to it, or without `right` deletes it.

        what: what is wrong; by default that the object is damaged or missing.
        """
        finding = Finding(key, what or self.state(key), cure)
        if self.repair and right is not None:
            objects.write(self.objects, key, right)
        elif self.repair:
            objects.delete(self.objects, key)
        return finding

    def state(self, key: str) -> str:
        """Tell whether an object that is not intact is damaged or missing."""
        return "damaged" if self.exists(key) else "missing"

    def altered(self, sums: Mapping[str, str]) -> list[str]:
        """The objects that differ from their checksums (key -> checksum)."""
        return [key for key, sha in sums.items() if not is_intact(self.objects, key, sha)]

    def summed(self, folder: str) -> set[str]:
        """The names of the checksums below a folder of run/sums."""
        found = objects.list_keys(self.objects, f"{keys.SUMS}/{folder}")
        return {keys.sums_name(key) for key in found}

    def has_gathered(self) -> bool:
        """Whether the store holds anything that a gather wrote."""
        return self.exists(keys.sums("gathered")) or any(
            True for part in GATHERED for _ in objects.list_keys(self.objects, part)
        )
