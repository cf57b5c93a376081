"""One driver for each store: its lease is renewed by the holder, and expires once the holder has died.

    run/lease/NNNNNNNN.json     generation N: who holds it, since when, last sign of life
    run/cancel/NNNNNNNN.json    a request to the holder of generation N to stop

The highest generation is the lease. A driver takes it over by creating the next one; exactly one of several
drivers succeeds, on a file system as on an object store. Only the holder writes its generation again. If a
holder was taken for dead and comes back, it finds a higher generation and stops. Until then, for RENEW_S at most,
two drivers run. This harms nothing: both write the same bytes, in whole objects.
"""

import json
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Protocol

from obstore.store import ObjectStore
from pydantic import Field

from jobs import keys
from jobs.errors import JobError, advised
from jobs.storage import addresses, connect, objects
from jobs.storage.addresses import refuse_zip
from jobs.storage.checksums import parsed
from jobs.storage.process import Process, this_process

log = logging.getLogger("ctd")

TTL_S = 30.0
"""Seconds of silence after which a holder on another machine may be dead; whoever asks then watches for a renewal."""

SILENT_S = 2 * TTL_S
"""Seconds of silence after which a reader calls a holder on another machine dead without watching: the file system may show it late."""

RENEW_S = 5.0
"""Seconds between two renewals by the holder."""

POLL_S = 1.0
"""Seconds between two checks for a request to stop."""

CANCEL_GRACE_S = 6.0
"""Seconds for workers to write checkpoints when the run is cancelled: with POLL_S and the end, less than 10."""


class Listener(Protocol):
    """A holder that is told of requests to stop, from the thread that renews its lease."""

    def ask(self, reason: str, grace_s: float | None = None) -> None:
        """Stop because of `reason`, within `grace_s` seconds."""


class LeaseHeld(JobError):
    """Another driver holds the lease."""


IF_ANY = Field(exclude_if=lambda value: not value)
"""Written only if there is something to write."""


class LeaseRecord(Process):
    """One generation of the lease, as its holder last wrote it."""

    id: str = ""
    """Makes the record unique, so that `objects.create` can recognise its own write."""
    generation: int
    since: float = 0.0
    """When it was acquired (seconds since 1970)."""
    renewed: float = 0.0
    """When the holder last renewed it (seconds since 1970)."""
    said: Annotated[Mapping[str, Any], IF_ANY] = {}
    """The holder's progress at that time."""
    released: Annotated[bool, IF_ANY] = False
    """The holder has given it up; written only then."""

    @property
    def is_silent(self) -> bool:
        """Return whether the holder seems to be dead: it is not seen to run here, and has not renewed its lease for `SILENT_S`."""
        return not self.is_running and abs(time.time() - self.renewed) > SILENT_S


class Lease:
    """A lease that this process holds; `acquire` returns one."""

    def __init__(self, store: ObjectStore, address: str, record: LeaseRecord) -> None:
        self._objects, self._address, self._record = store, address, record
        self.generation = record.generation
        self.progress: Callable[[], Mapping[str, Any]] = dict
        """Returns the holder's progress; called at each renewal, from the thread that renews."""
        self._passed_over: str | None = None
        self._asked: str | None = None

    @staticmethod
    def acquire(store: ObjectStore, address: str) -> "Lease":
        """Acquire the lease of the store at `address`.

        Raises LeaseHeld if another driver holds it, with holder and age; JobError if the store cannot be written.
        """
        refuse_zip(addresses.local_path(address))
        for _ in objects.read_attempts(keys.LEASE):
            last = holder(store)
            if last is not None and _is_alive(store, last):
                raise held_by(address, last)
            generation = last.generation + 1 if last else 0
            record = LeaseRecord(
                **this_process().model_dump(),
                id=secrets.token_hex(8), generation=generation, since=time.time(),
            )  # fmt: skip
            lease = Lease(store, address, record)
            with objects.writing(address):
                try:
                    if not objects.create(store, keys.lease(generation), lease._stamped()):
                        continue  # another driver was quicker
                    newest = max(_generations(store))
                except Exception:
                    lease.release()  # what was written may have arrived all the same
                    raise
            if newest == generation:
                break
            # After we had read the holder, others took this generation and higher ones, and pruned it: what we created
            # is an old generation.
            objects.delete(store, keys.lease(generation))
        with objects.may_fail():  # the next holder deletes what stays
            lease._prune()
        return lease

    @contextmanager
    def renewing(self, listener: Listener | None = None) -> Iterator["Lease"]:
        """Renew the lease until the block ends, then release it.

        The holder must stop when somebody asks it to, when another driver has taken over, and when an error ends the renewals:
        nobody runs a store without its lease. So it passes a listener, or calls `check` before it writes.
        """
        listener = listener or self
        ended = threading.Event()
        keep = lambda: self._keep(listener, ended)
        thread = threading.Thread(target=keep, name="lease", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            # The thread ends before the release, which a renewal that it had begun could overwrite.
            ended.set()
            thread.join()
            self.release()

    def ask(self, reason: str, grace_s: float | None = None) -> None:
        """Have the next `check` raise because of `reason`: the lease is its own listener where `renewing` is given none."""
        del grace_s
        self._asked = self._asked or reason

    def check(self) -> None:
        """Raise LeaseHeld if another process has taken the lease over, as it may while this one is suspended.

        Raise JobError if somebody asked the holder to stop, and it has no other listener. This asks the storage: in a process
        that wakes up, another thread may write before the one that renews has looked.
        """
        if newer := self._successor():
            stops = "took over while this process was silent; this process stops"
            raise LeaseHeld(f"{self._address}: {describe(newer)} {stops}")
        if self._asked:
            again = "the same command begins again"
            raise JobError(f"{self._address}: stopped: {self._asked}; {again}")

    def _successor(self) -> LeaseRecord | None:
        newest = holder(self._objects)
        return newest if newest and newest.generation > self.generation else None

    def release(self) -> None:
        """Release the lease, so that the next driver need not wait; its generation is never used again."""
        with objects.may_fail():  # then the lease runs out by itself
            # If it was pruned, another driver has the lease: writing it would bring an old generation back. If our write failed,
            # another one may have this very generation.
            data, id_ = objects.read(self._objects, keys.lease(self.generation)), self._record.id
            if data is not None and (parsed(data) or {}).get("id", id_) == id_:
                self._record = self._record.model_copy(update={"released": True})
                objects.write(self._objects, keys.lease(self.generation), self._stamped())
                objects.delete(self._objects, keys.cancel(self.generation))

    def _keep(self, listener: Listener, ended: threading.Event) -> None:
        try:
            renewed = time.monotonic()  # not the wall clock, which may be set meanwhile
            while not ended.wait(POLL_S):
                self._pass_request(listener)
                # A storage that fails for a while ends no run: the next turn tries again.
                with objects.may_fail():
                    if time.monotonic() - renewed < RENEW_S:
                        continue
                    # A takeover between this look and the write is found at the next renewal. The write harms nobody: each
                    # holder writes its own generation, and the highest counts.
                    if newer := self._successor():
                        listener.ask(f"the lease was taken over by {describe(newer)}", 0.0)
                        return
                    objects.write(self._objects, keys.lease(self.generation), self._stamped())
                    renewed = time.monotonic()
        except BaseException as error:
            listener.ask(f"the lease cannot be renewed: {type(error).__name__}: {error}", 0.0)
            raise

    def _pass_request(self, listener: Listener) -> None:
        """Tell the listener of a request to stop. Report an unreadable request once, and ignore it."""
        key = keys.cancel(self.generation)
        try:
            request = objects.read(self._objects, key)
            by = None if request is None else Process.from_json(parsed(request))
        except ValueError:
            fault = f"no request to stop, {(request or b'')[:40]!r}"
        except Exception as error:
            if not objects.is_storage_error(error):
                raise
            fault = f"cannot be read: {objects.reason(error)}"
        else:
            if by:
                listener.ask(f"cancelled by {by.user} on {by.host}", CANCEL_GRACE_S)
            return
        if fault != self._passed_over:
            self._passed_over = fault
            log.warning("%s: %s: passed over", key, fault)

    def _stamped(self) -> bytes:
        update = {"renewed": time.time(), "said": self.progress()}
        self._record = self._record.model_copy(update=update)
        return json.dumps(self._record.model_dump()).encode()

    def _prune(self) -> None:
        for prefix in (keys.LEASE, keys.CANCEL):
            for key in list(objects.list_keys(self._objects, prefix)):
                if keys.number_of(key) < self.generation:
                    objects.delete(self._objects, key)


def holder(store: ObjectStore) -> LeaseRecord | None:
    """Return the record of the newest lease, which may be released or expired; None if there is none yet."""
    for generation in sorted(_generations(store), reverse=True):
        data = objects.read(store, keys.lease(generation))
        # None: a newer holder has pruned it since the listing. Whoever acts on the older one that follows finds the newer
        # one soon: `acquire` looks again at the generations, `_keep` at each renewal.
        if data is not None:
            try:
                return LeaseRecord.from_json({**(parsed(data) or {}), "generation": generation})
            except ValueError:  # damaged; a living holder rewrites it within RENEW_S
                return LeaseRecord(generation=generation)
    return None


def running(store: ObjectStore) -> LeaseRecord | None:
    """Return the lease record of the driver that runs the store, or None; it may wait 2 * RENEW_S for a renewal."""
    lease = holder(store)
    return lease if lease is not None and _is_alive(store, lease) else None


def last_seen(store: ObjectStore) -> LeaseRecord | None:
    """Return the newest lease unless it is released or its holder is known to be dead, without waiting for a renewal."""
    lease = holder(store)
    return None if lease is None or lease.released or lease.has_ended else lease


def part_place(address: str, name: str) -> ObjectStore:
    """Return the folder of the lease of a part of the store at `address` (see jobs.run.shards)."""
    place = f"{address.rstrip('/')}/{keys.PARTS}/{name}"
    if addresses.local_path(place):
        return connect.open_objects(place, create=True)
    # No first request, whose patience is short: a busy server may not end a run between two parts.
    return connect.remote(place)


def part_places(store: ObjectStore, address: str) -> list[ObjectStore]:
    """Return the folders of the leases of all parts that drivers have run."""
    names = {key.split("/")[2] for key in objects.list_keys(store, keys.PARTS)}
    return [part_place(address, name) for name in sorted(names)]


def drivers(store: ObjectStore, address: str) -> list[LeaseRecord]:
    """Return the leases of a store and its parts that are not released, without waiting for renewals."""
    leases = [last_seen(place) for place in (store, *part_places(store, address))]
    return [lease for lease in leases if lease is not None]


def cancel(store: ObjectStore, timeout_s: float = 30.0) -> LeaseRecord | None:
    """Ask the store's driver to stop, wait until it has, and return its lease record; None if none runs. Raises TimeoutError."""
    if (lease := running(store)) is None:
        return None
    request = json.dumps(this_process().model_dump()).encode()
    # Addressed to one generation: a driver that takes over meanwhile is not meant, and does not hear it.
    objects.write(store, keys.cancel(lease.generation), request)
    deadline = time.monotonic() + timeout_s
    while (now := last_seen(store)) and now.generation == lease.generation:
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.2)
    return lease


def describe(record: LeaseRecord) -> str:
    """Return who holds a lease, and for how long, as text."""
    process, now = f"process {record.pid} of {record.user} on {record.host}", time.time()
    sign = f"last sign of life {now - record.renewed:.0f} s ago"
    return f"{process} (since {now - record.since:.0f} s, {sign})"


def held_by(address: str, record: LeaseRecord) -> LeaseHeld:
    """Return the error that another driver, of this lease, runs the store at `address`."""
    advice = f"wait for it, or stop it with {advised('ctd', 'cancel', address)}"
    return LeaseHeld(f"{address}: is being run by {describe(record)}; {advice}")


def _is_alive(store: ObjectStore, record: LeaseRecord) -> bool:
    if record.released or record.has_ended:
        return False
    if record.is_running:
        return True
    # abs: the clock of the holder may be ahead of ours, so that its renewal lies in the future.
    if abs(time.time() - record.renewed) < TTL_S:
        return True
    # The clocks of the two machines may differ by any amount, so an old time proves nothing: the holder is dead if it
    # misses two renewals while we watch.
    deadline = time.monotonic() + 2 * RENEW_S + POLL_S
    while time.monotonic() < deadline:
        time.sleep(POLL_S)
        if holder(store) != record:
            return True
    return False


def _generations(store: ObjectStore) -> list[int]:
    return [keys.number_of(key) for key in objects.list_keys(store, keys.LEASE)]
