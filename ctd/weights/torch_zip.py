"""Read and write PyTorch's files without PyTorch.

`torch.save` writes a zip archive: `data.pkl`, a pickle that describes the tensors, and one member for the numbers of
each. A pickle may call any function. The unpickler here knows only the names that describe tensors and refuses all
others; it returns descriptions, from which `_array` makes arrays.
Source: torch/serialization.py, torch/_utils.py (`_rebuild_tensor_v2`).
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from ctd.containers import check_claim, explained, opened_zip
from ctd.weights.tensors import Array, Tensors, collect_tensors

STORAGES = {
    "DoubleStorage": "f8", "FloatStorage": "f4", "HalfStorage": "f2", "BFloat16Storage": "bfloat16",
    "LongStorage": "i8", "IntStorage": "i4", "ShortStorage": "i2", "CharStorage": "i1",
    "ByteStorage": "u1", "BoolStorage": "?",
}  # fmt: skip
"""PyTorch's name of a storage -> NumPy's name of its type."""


class Described(NamedTuple):
    """A tensor as the pickle describes it; offset and stride count numbers, not bytes."""

    member: str
    """Name of the archive's member with its numbers."""
    dtype: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def _describe(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> Described:
    """Describe a tensor in place of `torch._utils._rebuild_tensor_v2`. Raises ValueError if the numbers make no tensor."""
    tensor = Described(storage[0], storage[1], offset, tuple(shape), tuple(stride))
    numbers = (tensor.offset, *tensor.shape, *tensor.stride)
    if not all(isinstance(n, int) and 0 <= n < 2**63 for n in numbers):
        raise ValueError(f"a tensor has the numbers {numbers!r:.60}")
    if len(tensor.shape) != len(tensor.stride):
        raise ValueError(f"a tensor has {len(tensor.shape)} axes and {len(tensor.stride)} strides")
    if tensor.dtype not in STORAGES.values():
        raise ValueError(f"a tensor has the type {tensor.dtype!r:.60}")
    return tensor


SHOWN_AGAIN = 8
"""Bytes that one byte of a file can stand for: PyTorch does not compress, but several tensors may show the same numbers."""


def read(path: Path) -> Tensors:
    """Read the tensors of a state_dict, or of a checkpoint's nested dicts. Raises ValueError, naming the file."""
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"{path}: is damaged, a plain pickle, or from before PyTorch 1.6; if you trust it, load it in "
            "PyTorch and write it again with torch.save(model.state_dict(), ...)"
        )
    with opened_zip(path, "a file of PyTorch", SHOWN_AGAIN) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        # TorchScript archives have a data.pkl too, beside the source of the model in code/.
        if len(pickles) != 1 or any("/code/" in name for name in archive.namelist()):
            raise ValueError(
                f"{path}: is an archive, but not of a state_dict (perhaps TorchScript); "
                "write one with torch.save(model.state_dict(), ...)"
            )
        storages = Storages(path, archive, pickles[0].removesuffix("data.pkl"))
        data = archive.read(pickles[0])
        # A damaged pickle may raise any exception.
        with explained(path, "a pickle of tensors"):
            _check_memo(data)
            content = _Reader(path, data).load()
        cell = content.get("cell") if isinstance(content, Mapping) else None
        return collect_tensors(
            str(path), content, cell if isinstance(cell, str) else None, storages.array
        )


def _check_memo(data: bytes) -> None:
    """Raise ValueError if a memo index exceeds the pickle's length: the unpickler allocates room up to that index."""
    for code, value, _ in pickletools.genops(data):
        if "PUT" in code.name and int(value or 0) > len(data):
            raise ValueError(f"value {value} of {len(data)} bytes")


class _Reader(pickle.Unpickler):
    """An unpickler that knows only the names that describe tensors."""

    def __init__(self, path: Path, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self.path = path

    def persistent_load(self, pid: Any) -> Any:
        """The (member, dtype) of a tensor's storage, for PyTorch's persistent id ("storage", type, key, device, size)."""
        _, storage, key, *_ = pid
        return str(key), storage()

    def find_class(self, module: str, name: str) -> Any:
        """Return a new function for a known name, so that no change by a pickle outlives its file."""
        if module == "collections" and name == "OrderedDict":
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda *args: _describe(*args)
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            # The rest are requires_grad and hooks, which matter in training alone.
            return lambda tensor, *_: tensor
        if (module, name) == ("torch", "Size"):
            return lambda sizes: tuple(sizes)
        if module == "torch" and name in STORAGES:
            return lambda: STORAGES[name]
        raise ValueError(
            f"{self.path}: reading it would run {module}.{name}, but ctd runs no code of a file; if you trust "
            "it, load it in PyTorch and write it again with torch.save(model.state_dict(), ...)"
        )


class Storages:
    """The numbers of an archive's tensors."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, root: str) -> None:
        self._path, self._archive, self._root = path, archive, root
        names = archive.namelist()
        big = f"{root}byteorder" in names and archive.read(f"{root}byteorder") == b"big"
        self._order: Literal["<", ">"] = ">" if big else "<"
        self._last: tuple[str, bytes] | None = None
        """The member that was read last: tensors of one storage follow one another."""
        self._claimed = 0

    def array(self, tensor: Described) -> Array:
        """Copy the numbers of a tensor out of its storage. Raises ValueError if they do not lie in it."""
        dtype = np.dtype(tensor.dtype)
        # Whole numbers of the same size: not all of these types have an order of bytes.
        bits = f"u{dtype.itemsize}"
        source = f"{self._path}: a tensor {tensor.shape}"
        self._claimed += math.prod(tensor.shape) * dtype.itemsize
        check_claim(source, self._claimed, self._path.stat().st_size, packed=SHOWN_AGAIN)
        numbers = np.frombuffer(self._member(tensor.member), f"{self._order}{bits}")
        # An empty tensor has no last number, so that the bound below would not hold for it.
        if 0 in tensor.shape:
            return np.zeros(tensor.shape, np.float32)
        last = tensor.offset + sum(
            (n - 1) * s for n, s in zip(tensor.shape, tensor.stride, strict=True)
        )
        if last >= len(numbers):
            raise ValueError(f"{source} lies outside of its member {tensor.member}")
        # PyTorch counts strides in numbers, NumPy in bytes.
        strides = [numbers.itemsize * s for s in tensor.stride]
        # as_strided checks nothing: the bound above keeps it within the member.
        view = np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.shape, strides)
        return view.astype(bits).view(dtype)

    def _member(self, name: str) -> bytes:
        if self._last is None or self._last[0] != name:
            try:
                self._last = name, self._archive.read(f"{self._root}data/{name}")
            except KeyError:
                raise ValueError(f"{self._path}: its member {name:.60} is missing") from None
        return self._last[1]


# --- writing --------------------------------------------------------------------------------------

NAMES = {np.dtype(dtype): name for name, dtype in STORAGES.items() if dtype != "bfloat16"}


def write(path: Path, arrays: Mapping[str, Array], about: Mapping[str, object]) -> None:
    """Write a dict of tensors that `torch.load(weights_only=True)` reads, with the entry `cell` of `about`."""
    with zipfile.ZipFile(path, "w") as archive:

        def add(name: str, data: bytes) -> None:
            # ZipInfo has a fixed date, so that equal arrays give equal bytes.
            archive.writestr(zipfile.ZipInfo(f"net/{name}"), data)

        entries = [
            _text(name) + _tensor(str(k), value) + b"s"
            for k, (name, value) in enumerate(arrays.items())
        ]
        # A state_dict has no place for other attributes.
        entries += [_text("cell") + _text(str(about["cell"])) + b"s"] if "cell" in about else []
        # Protocol 2, an empty dict, one SETITEM for each entry, STOP.
        add("data.pkl", b"\x80\x02}" + b"".join(entries) + b".")
        add("byteorder", b"little")
        for k, value in enumerate(arrays.values()):
            add(f"data/{k}", value.astype(value.dtype.newbyteorder("<")).tobytes())
        # torch.save writes version 3 of the archive.
        add("version", b"3\n")


def _tensor(member: str, value: Array) -> bytes:
    """The pickle of _rebuild_tensor_v2(storage, 0, shape, stride, False, OrderedDict())."""
    kind = f"ctorch\n{NAMES[value.dtype.newbyteorder('=')]}\n".encode()
    storage = (
        b"(" + _text("storage") + kind + _text(member) + _text("cpu") + _int(value.size) + b"tQ"
    )
    stride = (
        # tobytes writes C order whatever the memory is: the strides must be those of a C-ordered copy.
        [s // value.itemsize for s in np.ascontiguousarray(value).strides] if value.ndim else []
    )
    shapes = b"".join(b"(" + b"".join(map(_int, axis)) + b"t" for axis in (value.shape, stride))
    hooks = b"ccollections\nOrderedDict\n)R"
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + storage
        + _int(0)
        + shapes
        # NEWFALSE: requires_grad.
        + b"\x89"
        + hooks
        + b"tR"
    )


def _text(text: str) -> bytes:
    data = text.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _int(number: int) -> bytes:
    return b"J" + struct.pack("<i", number)
