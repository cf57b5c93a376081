"""An opened store: an xarray tree of its groups, with methods to query it."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from ctd.late import jax
from jobs.errors import JobError
from jobs.inputs.items import item_arrays
from jobs.plan.packing import by_pack, places_of
from jobs.query import query as questions
from jobs.query.best import Best, require_metric
from jobs.query.best import best as find_best
from jobs.query.best import bests as find_bests
from jobs.query.columns import as_array, decode
from jobs.query.expression import Expression
from jobs.query.query import find
from jobs.query.tables import Source, ask
from jobs.storage.hierarchy import zarr_store
from jobs.store.roles import Mode
from jobs.store.store import Store


class StoreTree(xr.DataTree):
    """The lazy DataTree of a store, with /results/0 ..., /gathered/0 ..., /items and /shards.

    It works like any xarray DataTree, and has the methods below. They need the store and not only its arrays, so that
    they fail on a tree derived from this one, for example by `isel`; therefore they are no accessor.
    Without ctd, `xr.open_datatree(path, engine="zarr")` opens the same tree, except that packed results
    stay packed (jobs.plan.packing) and texts are codes.

    >>> store = jobs.open_store("points.zarr")
    >>> store["results/0"].q.dims  # one value for each candidate
    ('item',)
    >>> best = store.query(where="q < 1e-10", sort="q", limit=20)  # same arguments as ctd query
    >>> selected = store.select("q < 1e-10 and distance < 1")  # the matching items with all their results
    """

    __slots__ = ("_store",)
    _store: Store

    @staticmethod
    def from_store(store: Store) -> StoreTree:
        """Open the tree of a store.

        Args:
            store: the store.

        Returns:
            The tree.
        """
        tree = xr.open_datatree(_zarr(store), engine="zarr", consolidated=True)
        for group in range(len(store.job.plan.group_sizes)):
            node = tree[f"results/{group}"]
            node.dataset = unpacked(node.to_dataset(), store, group)
        for node in tree.subtree:
            node.dataset = spelt(node.to_dataset(inherit=False))
        opened_tree = StoreTree(tree.to_dataset(), children=dict(tree.children))
        opened_tree._store = store
        return opened_tree

    @property
    def store(self) -> Store:
        """The store itself, with its job, plan and markers. Raises JobError on a derived tree."""
        try:
            return self._store
        except AttributeError:
            raise JobError(
                "this tree was derived from an opened store; call the method of the tree that open_store returned"
            ) from None

    query, table = questions.query, questions.table

    def select(
        self, where: str, *, sort: str | None = None, limit: int | None = None
    ) -> xr.DataTree:
        """Select the items that satisfy a condition, with all their results, which are read when they are needed, as a tree.

        /items has the matching items in the order of `sort`; /results/G has the results of those in group G, in the
        same order. Groups without a matching item are left out.

        >>> jobs.open_store("points.zarr").select("q < 1", limit=3)["items"].sizes["item"]
        3

        Args:
            where: a condition (see jobs.query.expression).
            sort: columns, separated by commas; a leading `-` sorts in descending order.
            limit: most items.

        Returns:
            A tree of xarray.

        Raises:
            JobError: a name is unknown, or an expression does not parse.
        """
        test = Expression(where)

        def select_items(tables: Source) -> xr.Dataset:
            items, rows = find(tables, "items", test, sort, limit)
            # Read here: the next gather of a running job has other items in these rows.
            dataset = spelt(_open(self.store, "items"))
            return dataset.isel(item=np.arange(items.n)[rows]).load()

        items = ask(self.store, select_items)
        group, row = items["group"].to_numpy(), items["row"].to_numpy()
        datasets = {"/": self.to_dataset(), "/items": items}
        for number in np.unique(group):
            path = f"results/{number}"
            dataset = spelt(unpacked(_open(self.store, path), self.store, int(number)))
            datasets[f"/{path}"] = dataset.isel(item=row[group == number])
        return xr.DataTree.from_dict(datasets)

    def best(self, by: str | None = None, mode: Mode | None = None) -> Best | None:
        """Find the best item, as `ctd best` shows it: its parameters, its metric, the spread over seeds, what to do next.

        >>> jobs.open_store("points.zarr").best(by="q").metric
        'q'

        Args:
            by: the result to judge by; None takes that of the search or the kernel.
            mode: "max" if larger values are better, "min" if smaller ones are.

        Returns:
            The best item; None if no item is done with a finite value.

        Raises:
            JobError: there is no such metric, or the job sweeps what it is measured on: `bests` then has the best for each value.
        """
        return find_best(self.store, require_metric(self.store, "by", by, mode))

    def bests(self, by: str | None = None, mode: Mode | None = None) -> list[Best]:
        """Find the best item for each value of the swept fields that change what the metric is measured on, such as the file of trials.

        >>> [best.metric for best in jobs.open_store("points.zarr").bests(by="q")]
        ['q']

        Args:
            by: the result to judge by; None takes that of the search or the kernel.
            mode: "max" if larger values are better, "min" if smaller ones are.

        Returns:
            The best items; without such a field, a list of one.

        Raises:
            JobError: there is no such metric.
        """
        return find_bests(self.store, require_metric(self.store, "by", by, mode))

    def weights(self, item: int) -> dict[str, jax.Array]:
        """Read the trained model of an item, the parameters of the functions of `ctd.cells`.

        Args:
            item: number of the item.

        Returns:
            Name -> array, in the stored precision.

        Raises:
            JobError: there is no such item, it is not computed yet, or no model is stored.
        """
        arrays = item_arrays(self.store, item)
        # Otherwise JAX would round a float64 network.
        with jax.enable_x64(True):
            return {name: jax.numpy.asarray(value) for name, value in arrays.items()}


def _zarr(store: Store) -> Any:
    return zarr_store(store.objects)


def _open(store: Store, group: str) -> xr.Dataset:
    """Open one group as it is now; the tree may have been opened before the last gather."""
    return xr.open_dataset(
        _zarr(store), engine="zarr", group=group, consolidated=False, zarr_format=3
    )


# --- variables that are read when they are needed -----------------------------------------------------


class _Lazy(BackendArray):
    """A backend array for xarray's lazy indexing that reads by calling `read` with slices and arrays, one for each axis."""

    def __init__(
        self, read: Callable[[Any], np.ndarray], shape: tuple[int, ...], dtype: object
    ) -> None:
        self._read, self.shape, self.dtype = read, shape, dtype

    def __getitem__(self, key: Any) -> np.ndarray:
        support = indexing.IndexingSupport.OUTER
        return indexing.explicit_indexing_adapter(key, self.shape, support, self._read)


# The readers are no closures: xarray pickles it where other processes read.


def _read(store: Store, group: int, name: str, key: Any) -> np.ndarray:
    return np.asarray(store.array(group, name)[key])


def _spell(codes: xr.Variable, key: Any) -> np.ndarray:
    return as_array(decode(codes[key].to_numpy(), codes.attrs)).astype(str)


def _lazily(axes: tuple[Hashable, ...], lazy: Any, attrs: Mapping[Any, Any]) -> xr.Variable:
    # The same wrappers as xarray's own: cached once read, copied before a user writes to it.
    data: Any = indexing.LazilyIndexedArray(lazy)
    return xr.Variable(axes, indexing.MemoryCachedArray(indexing.CopyOnWriteArray(data)), attrs)


def unpacked(dataset: xr.Dataset, store: Store, group: int) -> xr.Dataset:
    """The dataset of results/G, with each pack replaced by the results in it."""
    places = places_of(dataset.attrs)
    variables = {}
    for name, place in places.items():
        about = dict(dataset.attrs["packed"][place.pack][name])
        axes = ("item", *about.pop("axes"))
        attrs = {key: value for key, value in about.items() if key not in ("at", "shape")}
        shape = (dataset.sizes["item"], *place.shape)
        lazy = _Lazy(partial(_read, store, group, name), shape, dataset.variables[place.pack].dtype)
        variables[name] = _lazily(axes, lazy, attrs)
    alone = dataset.drop_vars(by_pack(places)).assign(variables)
    alone.attrs.pop("packed", None)
    return alone


def spelt(dataset: xr.Dataset) -> xr.Dataset:
    """The dataset with its texts, which the store keeps as codes with `labels` (docs/store-format.md), as strings, and its
    structured attributes as JSON."""
    variables = {}
    for name, variable in dataset.variables.items():
        if "labels" not in variable.attrs:
            continue
        codes = ("flag_values", "flag_meanings", "labels")
        attrs = {k: v for k, v in variable.attrs.items() if k not in codes}
        width = max([1, *map(len, variable.attrs["labels"])])  # an empty table has no texts
        lazy = _Lazy(partial(_spell, variable), variable.shape, np.dtype(f"<U{width}"))
        variables[name] = _lazily(variable.dims, lazy, attrs)
    return dataset.assign(variables).assign_attrs(_as_texts(dataset.attrs))


def _as_texts(attrs: Mapping[Any, Any]) -> dict[Any, str]:
    """Write the attributes that NetCDF does not know, mappings and lists, as JSON."""
    structured = {name: value for name, value in attrs.items() if isinstance(value, dict | list)}
    return {name: json.dumps(value, ensure_ascii=False) for name, value in structured.items()}
