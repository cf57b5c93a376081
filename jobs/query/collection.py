"""Several stores: as one that answers questions, or as a list, one row a store.

A table of a collection has the rows of all stores, one store after another. It has a column `store`, and one for every parameter
that differs between the stores, swept or not: the `kernel`, the job's seed (`job_seed`), and all fields of its params,
defaults included. Rows of a store without a column have NaN or an empty text there.
"""

from __future__ import annotations

import time
from calendar import timegm
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, partial
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from obstore.exceptions import BaseError

from ctd.words import brief
from jobs.errors import JobError, nearest
from jobs.query import query as questions
from jobs.query.columns import as_array, as_column, as_text, labelled
from jobs.query.expression import Expression
from jobs.query.table import Read, Table, end_to_end
from jobs.query.tables import Source, Tables, ask, tables_of
from jobs.spec.job import leaves
from jobs.storage import objects
from jobs.storage.addresses import without_ending
from jobs.store.arrays import attributes
from jobs.store.card import Card, read_card
from jobs.store.finding import Read as ReadObject
from jobs.store.finding import find_stores, unfollowed, walk
from jobs.store.roles import JOB_SEED
from jobs.store.store import Store

FEW = 4
"""Most values of a swept field that are listed; a longer list is summed up by its number and range."""


def open_all(addresses: Iterable[str], warn: Callable[[str], object]) -> StoreCollection:
    """Open the stores that addresses stand for; a single one answers without the column `store`. warn: the `tell` of jobs.store.finding.find_stores."""
    stores = [Store.open(address) for address in find_stores(addresses, warn)]
    return StoreCollection(stores, labelled=len(stores) > 1)


class StoreCollection(Source):
    """One or several opened stores. `query` and `table` are those of one store, over the rows of all.

    labelled: the rows have the column `store`, and each parameter that differs between stores; otherwise they are those of the
    only store.

    >>> stores = StoreCollection([Store.open("points.zarr")])
    >>> stores.query(group_by="store", agg="count").store.tolist()
    ['points']
    """

    def __init__(self, stores: Sequence[Store], *, labelled: bool = True) -> None:
        super().__init__(stores)
        self.labelled = labelled
        self.labels = short_names([store.address for store in stores])
        """The value of the column `store` for each."""
        self._parts = [tables_of(store) for store in stores]

    query, table = questions.query, questions.table

    @cached_property
    def _fixed(self) -> list[dict[str, Any]]:
        return [fixed(store) for store in self.stores]

    @cached_property
    def swept(self) -> list[str]:
        """The fields that any of the stores sweeps or searches."""
        swept = [name for store in self.stores for name in store.swept]
        ended = [name for store in self.stores for name in store.roles.column_of_array.values()]
        return list(dict.fromkeys(swept + ended))

    @cached_property
    def differing(self) -> dict[str, list[Any]]:
        """Parameter -> its value in each store, of those that differ; None where a store sweeps it or has no such field."""
        differing = {}
        for name in dict.fromkeys(name for params in self._fixed for name in params):
            values = [params[name] for params in self._fixed if name in params]
            if name in self.swept or any(value != values[0] for value in values):
                differing[name] = [params.get(name) for params in self._fixed]
        return differing

    def overview(self) -> dict[str, list[Any]]:
        """A table of the stores: `store`, every parameter that differs, and what each store swept, in words."""

        def describe(_: Source) -> dict[str, list[Any]]:
            items = [self._table_of(k, "items") for k in range(len(self.stores))]
            columns: dict[str, list[Any]] = {"store": list(self.labels)}
            for name in dict.fromkeys([*self.differing, *self.swept]):
                values = self.differing.get(name) or [None] * len(items)
                columns[name] = [
                    _in_words(table, name) if value is None else as_text(value)
                    for table, value in zip(items, values, strict=True)
                ]
            return columns

        return ask(self, describe)

    # --- the tables of a Source ---------------------------------------------------------------------

    def _gathered(self) -> Any:
        return self._of_all(Tables.refresh)

    def stamp(self) -> Any:
        return self._of_all(Tables.stamp)

    def _of_all(self, of_one: Callable[[Tables], Any]) -> Any:
        """The stamps of all stores; None if one of them changes."""
        stamps = list(objects.each(self.stores[0].objects, of_one, self._parts))
        return None if None in stamps else stamps

    def names(self) -> list[str]:
        names = dict.fromkeys(name for part in self._parts for name in part.names())
        return [*(name for name in names if name != "shards"), "shards"]

    def _make_table(self, name: str) -> Table:
        if not self.labelled:
            return self._parts[0][name]
        if name not in self.names():
            raise JobError(f"unknown table {name!r}{nearest(name, self.names())}")
        pieces = [self._table_of(k, name) for k in range(len(self.stores))]
        columns = dict.fromkeys(c for piece in pieces for c in (*piece.names, *self.differing))
        for k, piece in enumerate(pieces):
            values = {c: self.value(k, c) for c in columns if c not in piece.reads}
            piece.reads |= {c: _constant(v, piece.n) for c, v in values.items() if v is not None}
        store_index = np.repeat(np.arange(len(pieces)), [piece.n for piece in pieces])
        table = end_to_end(pieces)
        # A parameter that one store sweeps and the others leave at None may have no value in any row.
        nowhere = dict.fromkeys(columns, lambda rows: np.full(len(store_index), np.nan)[rows])
        store: dict[str, Read] = {"store": lambda rows: labelled(store_index[rows], self.labels)}
        table.reads = store | nowhere | table.reads
        first = [piece.listed[0] for piece in pieces if piece.listed]
        swept = self.swept
        # First the fields that no store sweeps, then the swept ones, then results.
        unswept = [name for name in self.differing if name not in swept]
        is_swept = lambda c: c in swept or c.partition(".")[0].partition("[")[0] in swept
        varied = filter(is_swept, table.listed)
        table.listed = list(
            dict.fromkeys(["store", *first, *unswept, *varied, *self.differing, *table.listed])
        )
        return table

    def _table_of(self, k: int, name: str) -> Table:
        """A table of store k, without rows if it has none."""
        if name not in self._parts[k].names():
            return Table(0)
        table = self._parts[k][name]
        reads: dict[str, Read] = {column: partial(table.read, column) for column in table.names}
        return Table(table.n, reads, table.default_columns)

    def value(self, k: int, column: str) -> object:
        """The value of a parameter, or of an element such as push[0], that store k sets; None if it sweeps it or has no such one."""
        params = self._fixed[k]
        name, _, place = column.removesuffix("]").partition("[")
        value = params.get(column)
        if place.isdigit() and isinstance(params.get(name), list):
            value = dict(enumerate(params[name])).get(int(place))
        return value if value is None or isinstance(value, int | float) else as_text(value)


def _constant(value: object, n: int) -> Read:
    """The reader of a column of n rows with one value."""
    column = as_column([value])
    return lambda rows: column[np.zeros(n, np.int64)[rows]]


def fixed(store: Store) -> dict[str, Any]:
    """The parameters that all items of a store share, by dotted path, defaults included; `kernel` and `job_seed`."""
    spec = store.job.spec
    varied = [*spec.swept(), *store.roles.searched]
    is_varied = lambda path: any(path == name or path.startswith(f"{name}.") for name in varied)
    params = leaves(attributes(store.results(0))["params"])
    fixed_params = {path: value for path, value in params.items() if not is_varied(path)}
    return {"kernel": spec.kernel, JOB_SEED: spec.seed, **fixed_params}


def short_names(addresses: Sequence[str]) -> list[str]:
    """Name each store by the last parts of its address: as few as tell the stores apart, without the ending if that suffices.

    >>> short_names(["lab/a/gru.zarr", "lab/b/gru.zarr"]), short_names(["a.zarr", "a.zip"])
    (['a/gru', 'b/gru'], ['a.zarr', 'a.zip'])
    """
    paths = [PurePosixPath(address.rstrip("/")) for address in addresses]
    for parts in ([without_ending(path).parts for path in paths], [path.parts for path in paths]):
        for k in range(1, max(map(len, parts), default=0) + 1):
            names = ["/".join(part[-k:]) for part in parts]
            if len(set(names)) == len(names):
                return names
    return list(addresses)


def _in_words(items: Table, name: str) -> str:
    """Describe the values of a field that a store sweeps: list them, or give their number and range; "" without such a column."""
    if name not in items.names:
        return ""
    values = as_array(items.read(name))
    # An item that failed lacks the values that a search proposed; a NaN differs from any other.
    present = {v for v in values.tolist() if v == v and v != ""}
    kinds = sorted(present, key=lambda v: (isinstance(v, str), v))
    texts = [brief(value) for value in kinds]
    if len(kinds) <= FEW:
        return ", ".join(texts)
    numbers = values.dtype.kind in "iuf"
    return f"{len(kinds):,} values" + (f" from {texts[0]} to {texts[-1]}" if numbers else "")


# --- a list of stores -----------------------------------------------------------------------------

COUNTS = ("items", "done", "dropped", "failed", "left")

VERSIONS = ("ctd", "jax", "python")
"""Packages whose versions have a column."""

COLUMNS = (
    *("store", "kernel", "swept", *COUNTS, "state", "metric", "best", "best_item", "size_mb"),
    *("when", *VERSIONS, "name", "tags", "note", "address"),
)
"""The columns of every list; further ones are fields of jobs in which stores differ."""


def list_stores(
    addresses: Iterable[str],
    where: str | None = None,
    tags: Sequence[str] = (),
    sort: str | None = None,
    limit: int | None = None,
) -> tuple[dict[str, np.ndarray], list[str]]:
    """List the stores that addresses stand for (jobs.store.finding): (columns, a line for each store that cannot be read).

    where: a condition over the columns (jobs.query.expression). tags: only stores that have all of these. sort, limit: as of a
    query. A field of the job in which stores of one kernel differ is a column, and a metric is one for `where` and `sort`: its best value.

    >>> columns, _ = list_stores(["points.zarr"], where="failed == 0")
    >>> columns["store"].tolist(), columns["left"].tolist()
    (['points'], [0])

    Raises JobError if there is no store, or the condition names an unknown column or does not parse.
    """

    def look(address: str, read: ReadObject) -> Card | JobError | None:
        try:
            return read_card(address, read)
        except JobError as error:
            return error
        except BaseError as error:  # the store may be closed to this user
            return JobError(f"{address}: {objects.reason(error)}")

    addresses, entries, links = list(addresses), dict[str, Card | JobError](), list[str]()
    for address in addresses:
        entries.update(walk(address, look, links.append))
    if not entries:
        raise JobError(f"{', '.join(addresses)}: no store lies there; give a folder of stores")
    errors = [entry for entry in entries.values() if isinstance(entry, JobError)]
    wrong = [str(error).splitlines()[0] for error in errors] + [unfollowed(links)] * bool(links)
    cards = {at: card for at, card in entries.items() if isinstance(card, Card)}
    tagged = [(at, card) for at, card in cards.items() if set(tags) <= set(card.tags)]
    table = _table(dict(sorted(tagged, key=lambda pair: -_when(pair[1]))))
    if not tagged:  # no metric is known, of which a condition may speak
        where = sort = None
    test = Expression(where) if where else None
    if unknown := {*questions.sort_keys(sort), *(test.names if test else ())} - {*table.reads}:
        near = nearest(first := min(unknown), table.reads)
        elsewhere = "parameters and results of items are columns of `ctd query STORES`"
        raise JobError(f"unknown column {first!r}{near}\n{elsewhere}")
    rows = questions.select(table, test, sort, limit)
    columns = table.columns((), rows)
    # A number as any other for conditions; an id, or None, for readers.
    ids = [None if np.isnan(item) else int(item) for item in columns["best_item"]]
    return {**columns, "best_item": np.asarray(ids, object)}, wrong


def _differing(cards: Sequence[Card]) -> dict[str, list[Any]]:
    """Field of a job -> its value for each store, if stores of one kernel differ in it; None where a job leaves it out, and for the
    stores of other kernels, whose field of this name means something else."""
    fields = {}
    for name in dict.fromkeys(name for card in cards for name in card.fields or ()):
        values = [_job_value(card, name) for card in cards]
        texts: dict[str, set[str]] = {}
        for card, value in zip(cards, values, strict=True):
            texts.setdefault(card.kernel, set()).add(str(value))
        differ = [len(texts[card.kernel]) > 1 for card in cards]
        if any(differ):
            fields[name] = [v if is_one else None for v, is_one in zip(values, differ, strict=True)]
    return fields


def _job_value(card: Card, name: str) -> int | float | str | None:
    """The value that a job gives a field; None if it leaves it out."""
    if any(name == field or name.startswith(f"{field}.") for field in card.swept):
        return "swept"
    value = (card.fields or {}).get(name)
    return value if value is None or isinstance(value, int | float) else as_text(value)


def _table(by_address: dict[str, Card]) -> Table:
    cards = list(by_address.values())
    numbers = lambda values: np.asarray([np.nan if v is None else v for v in values], float)
    times = [time.localtime(_when(card)) for card in cards]
    columns: dict[str, Any] = {
        "store": short_names(list(by_address)),
        "kernel": [card.kernel for card in cards],
        "swept": [", ".join(card.swept) for card in cards],
        **{name: [getattr(card.tally, name) for card in cards] for name in COUNTS},
        "state": [card.tally.state for card in cards],
        "metric": [card.metric for card in cards],
        "best": numbers(card.best for card in cards),
        "best_item": numbers(card.best_item for card in cards),
        "size_mb": numbers(card.size / 1e6 for card in cards),
        "when": [time.strftime("%Y-%m-%d %H:%M", at) for at in times],
        **{name: [card.versions.get(name, "") for card in cards] for name in VERSIONS},
        "name": [card.name for card in cards],
        "tags": [", ".join(card.tags) for card in cards],
        "note": [card.note for card in cards],
        "address": list(by_address),
    }
    # A field that is called as a column of every list has none.
    table = Table.from_columns(_differing(cards) | columns)
    table.listed = list(dict.fromkeys([*columns, *table.names]))
    of_metric = {
        metric: numbers(card.best if card.metric == metric else None for card in cards)
        for metric in dict.fromkeys(card.metric for card in cards if card.metric)
    }
    table.reads = Table.from_columns(of_metric).reads | table.reads
    return table


def _when(card: Card) -> float:
    """The time at which the last item of a store was computed, else of its creation (seconds since 1970)."""
    try:
        return card.ended or timegm(time.strptime(card.created, "%Y-%m-%dT%H:%M:%SZ"))
    except ValueError:
        return 0.0
