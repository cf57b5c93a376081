"""The store that is checked or repaired, and those parts of it that can be made again: job, metadata, columns, tables."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from obstore.store import ObjectStore

from jobs import keys
from jobs.errors import JobError
from jobs.gather.gather import GATHERED, gather
from jobs.inputs.measure import outputs_of
from jobs.plan.items import expand
from jobs.spec.description import Description
from jobs.storage import addresses, objects
from jobs.storage.checksums import Sums, digest, is_intact, parsed, write_sums
from jobs.storage.lease import Lease
from jobs.store.creation import description_of, keys_outside_run, laid_out
from jobs.store.manifest import Job
from jobs.store.store import Store, known_kernel

OTHER = (
    "not made again, since these versions of ctd and its libraries would make a different object; install the versions "
    "that run/job.json names under provenance"
)


class Finding(NamedTuple):
    """One finding of a check."""

    key: str
    """The object's key."""
    what: str
    """The fault, in words."""
    cure: str
    """The repair, in words; empty if nothing is wrong, as with a shard not computed yet or an object of others."""


@dataclass
class Mending:
    """A store that is checked or repaired."""

    store: Store
    lease: Lease | None = None
    """The store's lease, which a repair holds; without it, nothing is written."""

    @property
    def objects(self) -> ObjectStore:
        return self.store.objects

    def exists(self, key: str) -> bool:
        return objects.read(self.objects, key) is not None

    def mend(self, key: str, cure: str, right: bytes | None = None, fault: str = "") -> Finding:
        """Report an object as wrong; a repair writes `right` to it, or without `right` deletes it.

        fault: the fault, in words; by default that the object is damaged or missing.
        """
        finding = Finding(key, fault or self.state(key), cure)
        if self.may_write():
            self.write_or_delete(key, right)
        return finding

    def write_or_delete(self, key: str, right: bytes | None) -> None:
        """Write an object, or delete it if `right` is None. Raises JobError if a folder is in its place."""
        root = addresses.local_path(self.store.address)
        if root and (root / key).is_dir():
            raise JobError(
                f"{root / key}: a folder in the place of a file; remove it, then repair again"
            )
        if right is None:
            objects.delete(self.objects, key)
        else:
            objects.write(self.objects, key, right)

    def may_write(self) -> bool:
        """Return whether this is a repair. Raises LeaseHeld if another process has taken over its lease: ask before each change."""
        if self.lease:
            self.lease.check()
        return self.lease is not None

    def state(self, key: str) -> str:
        """Tell whether an object that is not intact is damaged or missing."""
        return "damaged" if self.exists(key) else "missing"

    def altered(self, name: str) -> list[str]:
        """The objects that differ from the checksums `name`; these themselves if they are damaged or missing."""
        if (sums := Sums.read(self.objects, keys.sums(name))) is None:
            return [keys.sums(name)]
        return [key for key, sha in sums.sha256.items() if not is_intact(self.objects, key, sha)]

    def summed(self, folder: str) -> set[str]:
        """The names of the checksums below a folder of run/sums."""
        listed = objects.list_keys(self.objects, f"{keys.SUMS}/{folder}")
        return {key.removeprefix(f"{keys.SUMS}/").removesuffix(".json") for key in listed}

    def has_gathered(self) -> bool:
        """Return whether the store holds anything that a gather wrote."""
        parts = (objects.list_keys(self.objects, part) for part in GATHERED)
        return self.exists(keys.sums("gathered")) or any(map(any, parts))


# --- what can be made again -----------------------------------------------------------------------


def check_job(mending: Mending) -> Iterator[Finding]:
    """Check both copies of the job against their checksums, and the description of its kernel."""
    for key, other in ((keys.JOB, keys.JOB_COPY), (keys.JOB_COPY, keys.JOB)):
        # One of them is whole, or the store could not have been opened.
        if Job.read(mending.objects, key) is None:
            right = objects.read(mending.objects, other) or b""
            yield mending.mend(key, f"copied from {other}", right)
    if Description.read(mending.objects, keys.KERNEL) is None:
        description = description_of(mending.store) if mending.may_write() else None
        yield mending.mend(keys.KERNEL, "made again from the kernel", description)


def check_created(mending: Mending) -> Iterator[Finding]:
    """Check metadata and columns."""
    sums = Sums.read(mending.objects, keys.sums("created"))
    if sums is None:
        key = keys.sums("created")
        # Making these checksums again would run a kernel that the user has not trusted.
        if not mending.may_write() and known_kernel(mending.store) is None:
            yield Finding(key, mending.state(key), "made again")
            return
        again = _made_again(mending.store)
        write_sums(again.objects, "created", keys_outside_run(again))
        sums = Sums.read(again.objects, keys.sums("created")) or Sums(sha256={})
        yield mending.mend(key, "made again", objects.read(again.objects, key))
    bad = [key for key, sha in sums.sha256.items() if not is_intact(mending.objects, key, sha)]
    # A gather changes the root's metadata, and keeps its own checksum of it.
    if "zarr.json" in bad and _root_is_as_gathered(mending):
        bad.remove("zarr.json")
    remade_store = _made_again(mending.store) if bad and mending.may_write() else None
    for key in bad:
        right = None if remade_store is None else objects.read(remade_store.objects, key) or b""
        if right is None or digest(right) == sums.sha256[key]:
            yield mending.mend(key, "made again from the job", right)
        else:
            yield Finding(key, mending.state(key), OTHER)
    if remade_store is not None:
        # The old Store has cached the damaged metadata.
        mending.store = Store.open(mending.store.address)


def _made_again(store: Store) -> Store:
    """Create the store again, in memory."""
    job = store.job
    items = expand(job.spec, store.kernel, store.address)
    return laid_out(
        job, items, [outputs_of(store.kernel, g.params, job.base) for g in items.groups]
    )


def _root_is_as_gathered(mending: Mending) -> bool:
    sums = Sums.read(mending.objects, keys.sums("gathered"))
    if sums is not None:
        return is_intact(mending.objects, "zarr.json", sums.sha256["zarr.json"])
    return mending.has_gathered() and parsed(objects.read(mending.objects, "zarr.json")) is not None


def check_gathered(mending: Mending) -> Iterator[Finding]:
    """Check all objects of the last gather; a repair removes damaged ones and gathers again."""
    if not mending.has_gathered():
        return
    sums = Sums.read(mending.objects, keys.sums("gathered"))
    gathered_groups = sums.about.get("groups", ()) if sums else ()
    groups = {f"gathered/{g}" for g in gathered_groups} | mending.summed("gathered")
    # Name of the checksums -> its damaged objects.
    bad = {name: mending.altered(name) for name in ["gathered", *sorted(groups)]}
    bad = {name: wrong for name, wrong in bad.items() if wrong}
    findings = [
        Finding(key, mending.state(key), "gathered again")
        for key in dict.fromkeys(key for wrong in bad.values() for key in wrong)
        if key != "zarr.json"  # check_created reports it
    ]
    if bad and mending.may_write():
        # A gather makes again what has no checksums, and nothing else.
        for name, wrong in bad.items():
            for key in {*wrong, keys.sums(name)} - {"zarr.json"}:
                mending.write_or_delete(key, None)
            for part in [name] if name != "gathered" else [p for p in GATHERED if p != name]:
                objects.delete_all(mending.objects, part)
        gather(Store.open(mending.store.address))
    yield from findings
