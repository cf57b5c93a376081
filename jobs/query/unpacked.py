"""Turn packed results into separate, lazy xarray variables."""

from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from jobs.plan.packing import by_pack, places_of
from jobs.store.store import Store


class _Lazy(BackendArray):
    """One packed result as a backend array for xarray's lazy indexing. Opens nothing before it is read."""

    def __init__(
        self, store: Store, group: int, name: str, shape: tuple[int, ...], dtype: Any
    ) -> None:
        self._store, self._group, self._name = store, group, name
        self.shape, self.dtype = shape, dtype

    def __getitem__(self, key: Any) -> np.ndarray:
        part = self._store.array(self._group, self._name)
        support = indexing.IndexingSupport.OUTER
        return indexing.explicit_indexing_adapter(key, self.shape, support, part.__getitem__)


def unpacked(dataset: xr.Dataset, store: Store, group: int) -> xr.Dataset:
    """The dataset of results/G, with each pack replaced by the results in it."""
    places = places_of(dataset.attrs)
    if not places:
        return dataset
    found = {}
    for name, where in places.items():
        about = dict(dataset.attrs["packed"][where.pack][name])
        axes = ("item", *about.pop("axes"))
        attrs = {key: value for key, value in about.items() if key not in ("at", "shape")}
        shape = (dataset.sizes["item"], *where.shape)
        lazy: Any = _Lazy(store, group, name, shape, dataset.variables[where.pack].dtype)
        # Wrapped the way xarray wraps what it opens: cached once read, copied before it is written to.
        data: Any = indexing.LazilyIndexedArray(lazy)
        data = indexing.MemoryCachedArray(indexing.CopyOnWriteArray(data))
        found[name] = xr.Variable(axes, data, attrs)
    return dataset.drop_vars(by_pack(places)).assign(found)
