"""Damaged files of weights and of spikes, for tests/test_fuzz.py."""

import io
import json
import struct
import tempfile
import zipfile
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import h5py
import msgpack
import numpy as np
from fuzzing import HUGE, of_bytes, of_tree
from places import DATA

from ctd.weights import write_tensors

# --- HDF5 files, zip archives and NumPy's arrays ------------------------------------------------

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


# --- weights ------------------------------------------------------------------------------------


N, N_IN = 5, 2
DRAW = np.random.default_rng(0)
CELL = {
    f"rnn.{name}_l0": DRAW.normal(size=shape).astype("f4")
    for name, shape in {
        "weight_ih": (3 * N, N_IN), "weight_hh": (3 * N, N), "bias_ih": (3 * N,), "bias_hh": (3 * N,),
    }.items()
}  # fmt: skip
KERAS = {
    f"layers/gru/cell/vars/{k}": DRAW.normal(size=shape).astype("f4")
    for k, shape in enumerate([(N_IN, 3 * N), (N, 3 * N), (2, 3 * N)])
}
LAYER = {"class_name": "GRU", "config": {"name": "gru", "activation": "tanh", "reset_after": True}}
CONFIG = {"config": {"layers": [LAYER]}}
CELL_OF_CTD = {"wI": DRAW.normal(size=(N, N_IN)), "wR": DRAW.normal(size=(N, N)), "bR": np.zeros(N)}


# --- weights: PyTorch ---------------------------------------------------------------------------


def _number(n):
    return f"I{n}\n".encode()


def _tuple(parts):
    return b"(" + b"".join(parts) + b"t"


def _text(text):
    return b"X" + struct.pack("<I", len(text.encode())) + text.encode()


def pickled_tensor(shape, stride, offset=0, storage="ctorch\nFloatStorage\n"):
    """The pickle of a tensor, right or wrong, of the archive's member 0."""
    where = _tuple([_text("storage"), storage.encode(), _text("0"), _text("cpu"), _number(30)])
    axes = [_tuple(map(_number, part)) for part in (shape, stride)]
    given = [where + b"Q", _number(offset), *axes, b"\x89", b"ccollections\nOrderedDict\n)R"]
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + _tuple(given) + b"R"


def _tensor(rng, shape):
    """The pickle of a tensor, some of whose numbers may be wrong."""
    stride = [int(np.prod(shape[k + 1 :])) for k in range(len(shape))]
    shape = list(shape)
    for _ in range(rng.choice([0, 0, 1, 2])):
        part = rng.choice([shape, stride])
        part[rng.randrange(len(part))] = rng.choice([*HUGE, 0, -1, 10**5, 10**400])
    if rng.random() < 0.1:
        stride = [0] * len(stride)
        shape = [60_000] * len(shape)
    kinds = ["ctorch\nFloatStorage\n"] * 5 + [
        "ctorch\nDoubleStorage\n",
        "ccollections\nOrderedDict\n",
        "N",
    ]
    return pickled_tensor(shape, stride, rng.choice([0, 0, 0, -1, 2**62]), rng.choice(kinds))


TREE = b"]q\x00" + b"".join(b"0](h%ch%ceq%c" % (k, k, k + 1) for k in range(40))
"""The pickle of a list that holds a list twice, which holds another one twice: 2^40 of them."""


def _pickle(rng):
    entries = [_text(name) + _tensor(rng, value.shape) + b"s" for name, value in CELL.items()]
    rings = (
        b"]q\x00h\x00a",  # a list that holds itself
        b"}q\x00" + _text("a") + b"h\x00s",
        TREE,
        b"]" + b"(" * 3000 + b"l" + b"e" * 5,
        b"(" + b"]" * 50,
        b"]r\xff\xff\xff\x7f0]",
        b"\x8e" + (2**40).to_bytes(8, "little"),
        b"cos\nsystem\n(X\x0c\x00\x00\x00touch hackedtR",
    )
    if rng.random() < 0.5:
        entries.append(_text("more") + rng.choice(rings) + b"s")
    rng.shuffle(entries)
    return b"\x80\x02}" + b"".join(entries) + b"."


def _torch(rng, path):
    if rng.random() < 0.4:
        real = rng.choice(sorted(DATA.glob("torch_nets/*.pt")))
        path.write_bytes(of_bytes(rng, real.read_bytes()))
        return
    data = b"".join(value.tobytes() for value in CELL.values())
    pickled = _pickle(rng)
    members = {
        "net/data.pkl": of_bytes(rng, pickled) if rng.random() < 0.3 else pickled,
        "net/data/0": data,
    }
    path.write_bytes(archive(rng, members | {"net/byteorder": b"little", "net/version": b"3\n"}))


# --- weights: the others ------------------------------------------------------------------------


def _safetensors(rng, path):
    write_tensors(path, CELL)
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = of_tree(rng, json.loads(data[8 : 8 + length]))
    try:
        text = json.dumps(header).encode()
    except TypeError:
        text = b"{"
    made = len(text).to_bytes(8, "little") + text + data[8 + length :]
    path.write_bytes(made if rng.random() < 0.6 else of_bytes(rng, data))


def _msgpack(rng, path):
    def packed(value):
        shape = rng.choice([*[value.shape] * 8, (2**40,), (-1,), "x", (10**5, 10**5)])
        kind = rng.choice([*["float32"] * 8, "O", "bfloat16", "x", "M8[s]"])
        return msgpack.ExtType(1, msgpack.packb((shape, kind, value.tobytes())))

    tree = {"params": {"GRUCell_0": {name: {"kernel": packed(v)} for name, v in CELL.items()}}}
    levels = rng.choice([0, 0, 0, 900, 3000])
    data = b"\x91" * levels + msgpack.packb(tree)  # lists of one
    path.write_bytes(data if rng.random() < 0.6 else of_bytes(rng, data))


def _equinox(rng, path):
    def saved(value):
        file = io.BytesIO()
        np.save(file, value)
        return file.getvalue()

    leaves = [saved(value) for value in CELL.values()]
    k = rng.randrange(4)
    leaves[k] = npy(rng, list(CELL.values())[k])
    path.write_bytes(rng.choice([b"", b"{}\n", b"{"]) + b"".join(leaves))


def _weights_npz(rng, path):
    odd = rng.choice(list(CELL))
    members = {}
    for name, value in CELL.items():
        file = io.BytesIO()
        np.save(file, value)
        members[f"{name}.npy"] = npy(rng, value) if name == odd else file.getvalue()
    path.write_bytes(archive(rng, members))


def _weights_hdf5(rng, path):
    arrays, about = rng.choice(
        [
            (CELL, {}),
            (CELL_OF_CTD, {"cell": "vanilla"}),
            (KERAS, {"model_config": json.dumps(CONFIG)}),
        ]
    )
    hdf5(rng, path, arrays, about)


def _keras(rng, path):
    hdf5(rng, path, KERAS) if rng.random() < 0.5 else _whole(path)
    config = json.dumps(of_tree(rng, CONFIG)) if rng.random() < 0.5 else json.dumps(CONFIG)
    path.write_bytes(
        archive(rng, {"config.json": config.encode(), "model.weights.h5": path.read_bytes()})
    )


def _whole(path):
    write_tensors(path.with_suffix(".h5"), KERAS)
    path.with_suffix(".h5").rename(path)


WEIGHTS = {
    ".pt": _torch, ".safetensors": _safetensors, ".msgpack": _msgpack, ".eqx": _equinox, ".npz": _weights_npz,
    ".h5": _weights_hdf5, ".keras": _keras,
}  # fmt: skip


def weights_file(rng, folder):
    """A damaged file of weights of any kind."""
    ending = rng.choice(list(WEIGHTS))
    WEIGHTS[ending](rng, folder / f"net{ending}")
    return ["weights", f"net{ending}", *rng.choice([[], ["--json"], ["--to", "out.npz"]])]


# --- spikes -------------------------------------------------------------------------------------


N_TIMES, N_UNITS = 6, 3
MODEL = {
    "encoder": 2, "controller": 0, "generator": 2, "n_factors": 1, "n_inputs": 1, "batch_size": 2, "n_batches": 2,
    "report_every": 1, "n_samples": 1, "n_metric": 2, "n_saved": 1, "kl_ramp": 1, "warm_up": 0,
}  # fmt: skip
NWB = {"bin_s": 0.05, "window": [0.0, 0.3], "align_to": "start_time", "eval_every": 3}


def counts(n):
    return np.random.default_rng(n).poisson(1.0, (n, N_TIMES, N_UNITS))


@cache
def nwb():
    """The bytes of a recording of three units, with six trials."""
    from pynwb import NWBHDF5IO, NWBFile

    draw = np.random.default_rng(0)
    made = NWBFile("a recording", "1", datetime(2020, 1, 1, tzinfo=UTC))
    for _ in range(N_UNITS):
        made.add_unit(spike_times=np.sort(draw.uniform(0, 12, 90)), obs_intervals=[[0.0, 12.0]])
    for k in range(6):
        made.add_trial(start_time=2.0 * k, stop_time=2.0 * k + 1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spikes.nwb"
        with NWBHDF5IO(path, "w") as file:
            file.write(made)
        return path.read_bytes()


def _nwb(rng, path):
    data = bytearray(nwb())
    if rng.random() < 0.5:
        path.write_bytes(of_bytes(rng, bytes(data)))
        return
    for _ in range(rng.choice([1, 4, 40])):
        at = rng.randrange(len(data) // 8) * 8
        data[at : at + 8] = rng.choice([*HUGE, 0, 1, 3]).to_bytes(8, "little")
    path.write_bytes(data)


def _spikes_hdf5(rng, path):
    hdf5(rng, path, rng.choice([
        {"train": counts(4), "eval": counts(2)},
        {"train_encod_data": counts(4), "train_recon_data": counts(4), "valid_encod_data": counts(2), "valid_recon_data": counts(2)},
        {"train": counts(4), "eval": counts(2), "train_rates": 1.0 * counts(4), "eval_rates": 1.0 * counts(2)},
    ]))  # fmt: skip


def _spikes_npy(rng, path):
    path.write_bytes(npy(rng, counts(6)))


def _spikes_npz(rng, path):
    arrays = {"train": counts(4), "eval": counts(2)} if rng.random() < 0.5 else {"arr_0": counts(6)}
    odd, members = rng.choice(list(arrays)), {}
    for name, value in arrays.items():
        file = io.BytesIO()
        np.save(file, value)
        members[f"{name}.npy"] = npy(rng, value) if name == odd else file.getvalue()
    path.write_bytes(archive(rng, members))


SPIKES = {".h5": _spikes_hdf5, ".npy": _spikes_npy, ".npz": _spikes_npz, ".nwb": _nwb}


def spikes_file(rng, folder):
    """A damaged file of spikes of any kind, and a job that reads it."""
    ending = rng.choice(list(SPIKES))
    SPIKES[ending](rng, folder / f"spikes{ending}")
    params = (
        MODEL | {"data": f"spikes{ending}", "eval_every": 3} | (NWB if ending == ".nwb" else {})
    )
    (folder / "job.yaml").write_text(json.dumps({"kernel": "lfads", "params": params}))
    return ["plan", "job.yaml"]
