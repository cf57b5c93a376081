"""A list of stores: one row a store, from their cards, newest first."""

from __future__ import annotations

import time
from calendar import timegm
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from jobs.errors import JobError, nearest
from jobs.query.columns import Column, Text, as_array, labelled
from jobs.query.expression import Expression, condition
from jobs.query.shelf import short_names
from jobs.store.card import Card, read_card
from jobs.store.finding import Read, walk

VERSIONS = ("ctd", "jax", "python")
"""Packages whose versions have a column."""


def list_stores(
    given: Iterable[str], where: str | None = None, tags: Sequence[str] = ()
) -> tuple[dict[str, np.ndarray], list[str]]:
    """List the stores that addresses stand for (jobs.store.finding): (columns, what is wrong with stores that cannot be read).

    where: a condition over the columns (jobs.query.expression). tags: only stores that have all of these.

    >>> found, _ = list_stores(["points.zarr"], where="failed == 0")
    >>> found["store"].tolist(), found["left"].tolist()
    (['points'], [0])

    Raises:
        JobError: there is no store, or the condition names an unknown column or does not parse.
    """
    found: dict[str, Card] = {}
    wrong: list[str] = []

    def look(address: str, read: Read) -> Card | JobError | None:
        try:
            return read_card(address, read)
        except JobError as error:
            return error

    addresses = list(given)
    for address in addresses:
        there: Iterator[tuple[str, Card | JobError]] = walk(address, look)
        for at, card in there:
            if isinstance(card, JobError):
                wrong.append(str(card).splitlines()[0])
            else:
                found[at] = card
    if not found and not wrong:
        raise JobError(f"{', '.join(addresses)}: no store lies there; give a folder of stores")
    kept = {at: card for at, card in found.items() if set(tags) <= set(card.tags)}
    newest = sorted(kept, key=lambda at: -_when(kept[at]))
    columns = _columns({at: kept[at] for at in newest})
    rows = np.arange(len(newest))
    if where is not None and len(newest):
        test = Expression(where)
        if unknown := sorted({*test.names} - columns.keys()):
            raise JobError(f"unknown column {unknown[0]!r}{nearest(unknown[0], columns)}")
        rows = np.flatnonzero(condition(test, columns, len(newest)))
    return {name: as_array(column[rows]) for name, column in columns.items()}, wrong


def _columns(found: dict[str, Card]) -> dict[str, Column]:
    cards = list(found.values())
    numbers = lambda values: np.asarray([np.nan if v is None else v for v in values], float)
    whole = lambda values: np.asarray(list(values), np.int64)
    times = [time.localtime(_when(card)) for card in cards]
    return {
        "store": texts(short_names(list(found)) if found else []),
        "kernel": texts(card.kernel for card in cards),
        "swept": texts(", ".join(card.swept) for card in cards),
        "items": whole(card.items for card in cards),
        "done": whole(card.done for card in cards),
        "failed": whole(card.failed for card in cards),
        "left": whole(card.left for card in cards),
        "metric": texts(card.metric for card in cards),
        "best": numbers(card.best for card in cards),
        "best_item": numbers(card.best_item for card in cards),
        "size_mb": numbers(card.size / 1e6 for card in cards),
        "when": texts(time.strftime("%Y-%m-%d %H:%M", at) for at in times),
        **{name: texts(card.versions.get(name, "") for card in cards) for name in VERSIONS},
        "name": texts(card.name for card in cards),
        "tags": texts(", ".join(card.tags) for card in cards),
        "note": texts(card.note for card in cards),
        "address": texts(found),
    }


def texts(values: Iterable[str]) -> Text:
    """A column of texts, made without pandas."""
    labels, codes = np.unique(np.asarray([*values], str), return_inverse=True)
    return labelled(codes, labels.tolist())


def _when(card: Card) -> float:
    """When the last item of a store was computed, or else when it was created (seconds since 1970)."""
    try:
        return card.ended or timegm(time.strptime(card.created, "%Y-%m-%dT%H:%M:%SZ"))
    except ValueError:
        return 0.0
