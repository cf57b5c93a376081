"""Packed results as xarray variables of their own, each read when, and as far as, it is asked for."""

from typing import Any

import numpy as np
import xarray as xr
import zarr
from xarray.backends import BackendArray
from xarray.core import indexing

from jobs.packs import Part, by_pack, places_of


class _Lazy(BackendArray):
    """A packed result behind xarray's lazy indexing."""

    def __init__(self, part: Part) -> None:
        self._part, self.shape, self.dtype = part, part.shape, part.dtype

    def __getitem__(self, key: Any) -> np.ndarray:
        support = indexing.IndexingSupport.OUTER
        return indexing.explicit_indexing_adapter(key, self.shape, support, self._part.__getitem__)


def unpacked(dataset: xr.Dataset, group: zarr.Group) -> xr.Dataset:
    """The dataset of results/G with its packed results in place of the packs."""
    places = places_of(dataset.attrs)
    if not places:
        return dataset
    found = dataset.drop_vars(by_pack(places))
    for name, where in places.items():
        about = dict(dataset.attrs["packed"][where.pack][name])
        array = group[where.pack]
        assert isinstance(array, zarr.Array)
        lazy = indexing.LazilyIndexedArray(_Lazy(Part(array, where)))
        axes = ("item", *about.pop("axes"))
        attrs = {key: value for key, value in about.items() if key not in ("at", "shape")}
        found[name] = xr.Variable(axes, lazy, attrs)
    return found
