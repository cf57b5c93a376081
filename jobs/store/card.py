"""The card of a store: what `ctd ls` says of it, in one small object, run/card.json.

A gather writes the card once all items are computed, so a list of finished stores reads one object of each. Whoever takes
items back deletes it. Without a card, a reader makes one from the markers.

run/note.json holds what the user wrote about the store; the card repeats it.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import numpy as np
from obstore.store import ObjectStore
from pydantic import Field, ValidationError

from jobs import keys
from jobs.errors import JobError, advised
from jobs.spec.job import leaves
from jobs.storage import addresses, objects
from jobs.storage.checksums import Sealed
from jobs.store.arrays import DONE
from jobs.store.finding import Read, is_store
from jobs.store.look import Look
from jobs.store.roles import JOB_SEED
from jobs.store.store import Store, refuse_links
from jobs.store.tally import Tally

Count = Annotated[int, Field(ge=0, lt=2**53)]
"""A count: a card may be a stranger's."""


class Note(Sealed):
    """A user's words about a store."""

    note: str = ""
    tags: tuple[str, ...] = ()


class Card(Note):
    """One store's line in a list of stores."""

    kernel: str
    name: str
    swept: tuple[str, ...]
    items: Count
    done: Count
    failed: Count
    dropped: Count = 0
    """Items that a search took out; cards of earlier versions count them as done."""
    metric: str
    """The result that items are judged by; "" without one."""
    best: float | None
    """Its best value over the done items that were gathered; None without one."""
    best_item: Count | None
    size: Count
    """Bytes of all objects; of an archive, those of its file."""
    created: str
    """When the store was created, as 2026-11-28T14:30:00Z."""
    ended: Annotated[float, Field(ge=0, lt=1e11)]
    """When the last shard was committed that was computed in this store and not copied (seconds since 1970); 0 without one."""
    versions: dict[str, str]
    fields: dict[str, Any] | None = None
    """The fields that the job gives, by dotted path, and its `job_seed`; None in cards of earlier versions, which are made again."""

    @property
    def tally(self) -> Tally:
        """The numbers of items."""
        return Tally(self.items, self.done, self.dropped, self.failed)


def read_card(address: str, read: Read) -> Card | None:
    """Return the card of the store at an address, None if there is no store; one request for a finished store.

    read: reads an object of the store (jobs.store.finding.walk).

    Raises JobError if the store is damaged or out of reach.
    """
    card = Card.from_bytes(read(keys.CARD))
    if card is None or card.fields is None:
        card = write_card(Look(Store.open(address))) if is_store(read) else None
    path = addresses.local_path(address)
    if card and path and addresses.is_zip(path):  # its card has the size of the store
        return card.model_copy(update={"size": path.stat().st_size})
    return card


def write_card(look: Look) -> Card:
    """Make the card of a store, and write it if all its items are computed and the process may write to it.

    A card is taken back if shards were committed or taken back since the look.
    """
    store, stamp, tally = look.store, look.stamp, look.tally
    spec, about = store.job.spec, store.job.provenance
    metric = store.roles.metric
    best, item = _best(store)
    versions = about.get("versions")
    versions = versions if isinstance(versions, dict) else {}
    try:
        card = Card(
            kernel=spec.kernel,
            name=spec.name or "",
            swept=tuple(store.roles.all_swept),
            items=tally.items,
            done=tally.done,
            failed=tally.failed,
            dropped=tally.dropped,
            metric=metric.name if metric else "",
            best=best,
            best_item=item,
            size=objects.size_of(store.objects),
            created=str(about.get("created", "")),
            ended=max((m.ended for m in look.markers if m.copied_from is None), default=0.0),
            fields={JOB_SEED: spec.seed, **leaves(spec.params)},
            versions={str(k): str(v) for k, v in versions.items()},
            **read_note(store.objects).model_dump(),
        )
    except ValidationError:
        names = f"{advised('ctd', 'check', store.address)} names them"
        raise JobError(f"{store.address}: its markers are damaged; {names}") from None
    # The card of an unfinished store would be out of date with the next shard. A reader who may not write makes it at each look.
    if not tally.left:
        with objects.may_fail():
            _write(store, card, stamp)
    return card


def read_note(store: ObjectStore) -> Note:
    """Return what the user wrote about a store; an empty note if there is none, or it is damaged."""
    return Note.read(store, keys.NOTE) or Note()


def write_note(store: Store, note: Note) -> None:
    """Keep what the user wrote about a store. Raises JobError if it cannot be written."""
    refuse_links(store)
    with objects.writing(store.address):
        # The note first: after a kill in between the card shows the old one, until the same command is repeated.
        note.write(store.objects, keys.NOTE)
        stamp = store.committed.stamp()
        if card := Card.read(store.objects, keys.CARD):
            _write(store, card.model_copy(update=note.model_dump()), stamp)


def _best(store: Store) -> tuple[float | None, int | None]:
    """The best value of the metric over the done items, and its item, as of the last gather; (None, None) without one."""
    metric, sums = store.roles.metric, partial(objects.read, store.objects, keys.sums("gathered"))
    before, best = sums(), None
    if metric is None or before is None or f"items/{metric.name}" not in store.root:
        return None, None
    try:
        table: Any = store.root["items"]
        if _is_measured_twice(store, table):
            return None, None
        rows = np.flatnonzero(table["status"][...] == DONE)
        values = np.asarray(table[metric.name][...], float)[rows]
        if np.isfinite(values).any():
            first = int(metric.rank(values)[0])
            best = float(values[first]), int(table["item"][int(rows[first])])
    except Exception:
        if sums() == before:
            raise
    # A gather deletes the checksums first and writes them last: what was read while they changed may be of two gathers.
    return best if best and sums() == before else (None, None)


def _is_measured_twice(store: Store, table: Any) -> bool:
    """Return whether items differ in a field that changes what the metric is measured on, so that there is no best of all."""
    values = (table[name][...] for name in store.roles.swept_bases if name in table)
    return any(len(np.unique(column, axis=0)) > 1 for column in values)


def _write(store: Store, card: Card, stamp: str) -> None:
    """Write a card that was made of the markers as they were at `stamp`, and take it back if they have changed."""
    card.write(store.objects, keys.CARD)
    # `forget` deletes the card before and after it takes markers back: either it or this finds the other's work.
    if store.committed.stamp() != stamp:
        objects.delete(store.objects, keys.CARD)
