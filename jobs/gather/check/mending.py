"""What every part of the check needs: the store, whether to repair it, and how an object is mended."""

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
    """One thing that is not as it should be."""

    key: str
    """The object's key."""
    what: str
    cure: str
    """What a repair does about it; empty if nothing is wrong: a shard not computed yet, an object of others."""


@dataclass
class Mending:
    """A store that is checked and, with `repair`, made right; without it nothing is written."""

    store: Store
    repair: bool
    broken_groups: set[int] = field(default_factory=set)
    """Groups whose rows cannot be read because their metadata are damaged."""

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
        """Return the finding about an object; a repair writes what is right, or without it deletes the object.

        what: what is wrong, if not that the object is damaged or missing.
        """
        finding = Finding(key, what or self.state(key), cure)
        if self.repair and right is not None:
            objects.write(self.objects, key, right)
        elif self.repair:
            objects.delete(self.objects, key)
        return finding

    def state(self, key: str) -> str:
        """Return what is wrong with an object that does not hold what it should."""
        return "damaged" if self.exists(key) else "missing"

    def altered(self, sums: Mapping[str, str]) -> list[str]:
        """Return the objects that are not as their checksums say."""
        return [key for key, sha in sums.items() if not is_intact(self.objects, key, sha)]

    def summed(self, folder: str) -> set[str]:
        """Return the names of the checksums below a folder of run/sums."""
        found = objects.list_keys(self.objects, f"{keys.SUMS}/{folder}")
        return {keys.sums_name(key) for key in found}

    def has_gathered(self) -> bool:
        """Whether there is anything that a gather made."""
        return self.exists(keys.sums("gathered")) or any(
            True for part in GATHERED for _ in objects.list_keys(self.objects, part)
        )
