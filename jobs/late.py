"""Zarr and its codecs, imported at the first call of one of their functions: `ctd status` and the like start without it (see ctd.late)."""

from typing import TYPE_CHECKING

from ctd.late import Late

if TYPE_CHECKING:
    import numcodecs
    import zarr
    from zarr import codecs as zarr_codecs
else:
    numcodecs, zarr, zarr_codecs = map(Late, ("numcodecs", "zarr", "zarr.codecs"))

__all__ = ["numcodecs", "zarr", "zarr_codecs"]
