"""Damaged files of weights, for tests/test_fuzz.py."""

import io
import json
import struct

import msgpack
import numpy as np
from fuzz_containers import archive, hdf5, npy
from fuzzing import HUGE, of_bytes, of_tree
from places import DATA

from ctd.weights import write_tensors

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


# --- PyTorch ------------------------------------------------------------------------------------------------------


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


# --- the others ---------------------------------------------------------------------------------------------------


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


def _npz(rng, path):
    odd = rng.choice(list(CELL))
    members = {}
    for name, value in CELL.items():
        file = io.BytesIO()
        np.save(file, value)
        members[f"{name}.npy"] = npy(rng, value) if name == odd else file.getvalue()
    path.write_bytes(archive(rng, members))


def _hdf5(rng, path):
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


MAKERS = {
    ".pt": _torch, ".safetensors": _safetensors, ".msgpack": _msgpack, ".eqx": _equinox, ".npz": _npz,
    ".h5": _hdf5, ".keras": _keras,
}  # fmt: skip


def weights_file(rng, folder):
    """A damaged file of weights of any kind."""
    ending = rng.choice(list(MAKERS))
    MAKERS[ending](rng, folder / f"net{ending}")
    return ["weights", f"net{ending}", *rng.choice([[], ["--json"], ["--to", "out.npz"]])]
