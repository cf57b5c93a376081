"""Damaged HDF5 files, zip archives and NumPy's arrays, for files of weights and of spikes."""

import io
import zipfile

import h5py
import numpy as np
from fuzzing import HUGE, of_bytes

SHAPES = (
    (10**5, 10**5),
    (2**40,),
    (2**62, 2, 2),
    (0, 2**62),
    (-1, 3),
    (3,) * 33,
    (),
    (0,),
    (1, 1, 1, 1),
)


def npy(rng, array):
    """An .npy file that claims another shape or type than it has, or is damaged."""
    file = io.BytesIO()
    np.save(file, array)
    data = file.getvalue()
    kind = rng.randrange(5)
    if kind < 2:
        file, header = io.BytesIO(), np.lib.format.header_data_from_array_1_0(array)
        if kind == 0:
            header["shape"] = rng.choice(SHAPES)
        else:
            header["descr"] = rng.choice(
                ["O", "V8", "<U1000000", "<f16", "M8[s]", [("a", "<f8")], "x", "<c16"]
            )
        np.lib.format.write_array_header_1_0(file, header)
        return file.getvalue() + data[-array.nbytes :]
    if kind == 2:
        text = rng.choice(
            [b"(" * 4000, b"-" * 9000 + b"1", b"{'descr': 0}", b"[" * 150 + b"]" * 150]
        )
        return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text
    return of_bytes(rng, data)


def archive(rng, members):
    """A zip archive of these members (name -> bytes), one of them damaged, missing, doubled, or packed strangely."""
    file = io.BytesIO()
    odd, kind = rng.choice(list(members)), rng.randrange(7)
    packing = rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    with zipfile.ZipFile(file, "w", packing) as made:
        for name, data in members.items():
            if name != odd or kind > 5:
                made.writestr(name, data)
            elif kind == 0:
                made.writestr(f"{name}x", data)
            elif kind == 1:
                made.writestr(zipfile.ZipInfo(name), b"\0" * (30 << 20), zipfile.ZIP_DEFLATED)
            elif kind == 2:
                made.writestr(
                    zipfile.ZipInfo(name), data, rng.choice([zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
                )
            else:
                made.writestr(name, of_bytes(rng, data))
    return of_bytes(rng, file.getvalue()) if kind == 6 else file.getvalue()


def _external(file, name, value):
    file.create_dataset(name, value.shape, value.dtype, external=[("/etc/passwd", 0, value.nbytes)])


def _virtual(file, name, value):
    layout = h5py.VirtualLayout(value.shape, value.dtype)
    layout[...] = h5py.VirtualSource("other.h5", "x", value.shape)
    file.create_virtual_dataset(name, layout)


def _link(file, name, value):
    with h5py.File(f"{file.filename}.other", "w") as other:
        other["x"] = value
    file[name] = h5py.ExternalLink(f"{file.filename}.other", "/x")


def _ring(file, name, value):
    file.create_group(name)[name] = file["/"]


def _deep(file, name, value):
    file["/".join([name] * 300)] = value


STRANGE = (
    _external, _virtual, _link, _ring, _deep,
    lambda file, name, value: file.create_dataset(name, (10**6, 10**6), "f8", chunks=(1000, 1000)),
    lambda file, name, value: file.create_dataset(name, (10, 10), "f8", chunks=(10**4, 10**4), maxshape=(None, None)),
    lambda file, name, value: file.create_dataset(name, (2**40,), "f8"),
    lambda file, name, value: file.create_dataset(name, data=h5py.Empty("f4")),
    lambda file, name, value: file.create_dataset(name, data=["a", "b"]),
    lambda file, name, value: file.create_dataset(name, data=np.zeros(3, [("a", "f4")])),
    lambda file, name, value: file.create_dataset(name, data=np.full(value.shape, np.nan)),
    lambda file, name, value: file.__setitem__(name, h5py.SoftLink(f"/{name}")),
    lambda file, name, value: file.create_dataset(name, data=np.zeros((0, 5))),
    lambda file, name, value: file.create_dataset(name, data=value[..., None]),
)  # fmt: skip
"""Ways to write a dataset strangely."""


def hdf5(rng, path, arrays, attributes=()):
    """Write an HDF5 file, a dataset or attribute of which is strange, or whose bytes are damaged."""
    odd, kind = rng.choice(list(arrays)), rng.randrange(3)
    with h5py.File(path, "w") as file:
        for name, value in arrays.items():
            if name == odd and kind == 0:
                rng.choice(STRANGE)(file, name, value)
            else:
                packed = {"compression": "gzip"} if value.ndim and rng.random() < 0.3 else {}
                file.create_dataset(name, data=value, **packed)
        for name, value in dict(attributes).items():
            file.attrs[name] = value
            if rng.random() < 0.2:
                file.attrs[name] = rng.choice(
                    [3, np.zeros(3), "x" * 1000, np.bytes_(b"\xff\xfe"), "[" * 5000]
                )
    if kind:
        data = bytearray(path.read_bytes())
        if kind == 1:
            path.write_bytes(of_bytes(rng, bytes(data)))
        else:  # headers have numbers of 8 bytes
            for _ in range(rng.choice([1, 4])):
                at = rng.randrange(len(data) // 8) * 8
                data[at : at + 8] = rng.choice([*HUGE, 0, 1, 3]).to_bytes(8, "little")
            path.write_bytes(data)
