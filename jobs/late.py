"""Zarr and its codecs, imported at the first call of one of their functions: `ctd status` and the like start without it (see ctd.late)."""

from typing import TYPE_CHECKING

from ctd.late import Late

if TYPE_CHECKING:
    import google_crc32c
    import numcodecs
    import zarr
    from zarr import codecs as zarr_codecs
    from zarr.buffer import cpu as zarr_buffer
else:
    names = "zarr", "zarr.codecs", "zarr.buffer.cpu"
    zarr, zarr_codecs, zarr_buffer = map(Late, names)
    numcodecs, google_crc32c = map(Late, ("numcodecs", "google_crc32c"))

__all__ = ["google_crc32c", "numcodecs", "zarr", "zarr_buffer", "zarr_codecs"]
