"""Which network a file holds: round trips through every kind of file, inference by names and shapes, refusals."""

import subprocess
import sys

import h5py
import numpy as np
import pytest
from messages import refused, warned

from ctd.cells import CELLS, get_cell
from ctd.weights import read_tensors, read_weights, understand, write_named, write_weights
from ctd.weights.formats import WRITABLE
from ctd.weights.tensors import Tensors, collect_tensors

N, N_IN, N_OUT = 4, 3, 2
RNG = np.random.default_rng(0)


def drawn(name, dtype=np.float32):
    """Random weights of a cell with readout and h0."""
    cell = CELLS[name]
    shapes = cell.shapes(N, N_IN)
    shapes |= {"wO": (N_OUT, N), "bO": (N_OUT,), "h0": (cell.state_size(N),)}
    made = {key: RNG.normal(size=shape).astype(dtype) for key, shape in shapes.items()}
    return made | {key: np.ones(shapes[key], dtype) for key in cell.constants}


def assert_same(got, expected):
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert got[name].dtype == value.dtype
        np.testing.assert_array_equal(got[name], value)


@pytest.mark.filterwarnings("ignore:.*does not tell the units")
@pytest.mark.parametrize("ending", WRITABLE)
@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_comes_back_from_every_kind_of_file(tmp_path, cell, ending):
    params = drawn(cell, np.float64)
    write_weights(tmp_path / f"net{ending}", params, cell)
    found = read_weights(tmp_path / f"net{ending}")
    assert found.cell == cell
    assert_same(found.params, params)
    again = tmp_path / f"again{ending}"
    write_weights(again, params, cell)
    assert again.read_bytes() == (tmp_path / f"net{ending}").read_bytes()


def test_pytorch_gets_its_own_names_and_no_others(tmp_path):
    params = drawn("lstm")
    params["h0"] = np.zeros_like(params["h0"])  # where PyTorch starts, too
    for ending in (".pt", ".safetensors"):
        write_weights(tmp_path / f"net{ending}", params, "lstm")
        arrays = read_tensors(tmp_path / f"net{ending}").arrays
        layer = {f"rnn.{name}_l0" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
        assert set(arrays) == layer | {"readout.weight", "readout.bias"}


def test_a_cell_that_pytorch_lacks_is_told_where_pytorch_would_load_it(tmp_path):
    for name, cell, told in (
        ("gru.pt", "gru", "of cell gru, has ctd's names"),
        ("relu.safetensors", "vanilla:relu", "vanilla (nn.RNN), gru_torch (nn.GRU), lstm"),
        ("gru.h5", "gru", ""),
        ("lstm.pt", "lstm", ""),
    ):
        said = write_weights(tmp_path / name, drawn(cell.partition(":")[0]), cell)
        assert told in said
        assert bool(told) == bool(said)


def test_results_that_are_no_network_keep_their_names(tmp_path):
    arrays = {"rates": np.ones((3, 2)), "wO": np.zeros(4)}
    for ending in (".h5", ".pt", ".npz", ".safetensors"):
        write_named(tmp_path / f"r{ending}", arrays, {"cell": "gru_torch", "item": 3})
        assert_same(dict(read_tensors(tmp_path / f"r{ending}").arrays), arrays)


def test_bfloat16_of_safetensors_needs_no_jax(tmp_path):
    """Which imports the library by which NumPy knows the type; so in a process of its own."""
    header = b'{"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}'
    data = len(header).to_bytes(8, "little") + header + b"\x80\x3f\x00\xc0"
    (tmp_path / "net.safetensors").write_bytes(data)
    code = (
        "from ctd.weights import read_tensors as read; print(read('net.safetensors').arrays['a'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout == "[ 1. -2.]\n", done.stderr


def torch_names(blocks, prefix="net.rnn.", **changed):
    """The tensors of a PyTorch layer with these blocks of gates, and a linear layer `out`."""
    shapes = {
        f"{prefix}weight_ih_l0": (blocks * N, N_IN), f"{prefix}weight_hh_l0": (blocks * N, N),
        f"{prefix}bias_ih_l0": (blocks * N,), f"{prefix}bias_hh_l0": (blocks * N,),
        "out.weight": (N_OUT, N), "out.bias": (N_OUT,),
    }  # fmt: skip
    shapes |= changed
    return {name: RNG.normal(size=shape) for name, shape in shapes.items() if shape is not None}


def of(arrays, **more):
    return understand(Tensors("net.pt", arrays, **more))


@pytest.mark.parametrize("prefix", ["", "rnn.", "module.model.core."])
def test_the_cell_is_told_by_names_and_shapes(prefix):
    for blocks, cell in ((1, "vanilla"), (3, "gru_torch"), (4, "lstm")):
        found = of(torch_names(blocks, prefix))
        assert found.cell == cell
        assert found.params["wO"].shape == (N_OUT, N)
        assert "readout: out" in found.notes


def test_double_biases_are_added_and_an_initial_state_is_kept():
    arrays = torch_names(1) | {"h0": RNG.normal(size=(1, 1, N))}
    found = of(arrays).params
    np.testing.assert_array_equal(
        found["bR"], arrays["net.rnn.bias_ih_l0"] + arrays["net.rnn.bias_hh_l0"]
    )
    np.testing.assert_array_equal(found["h0"], arrays["h0"].ravel())
    both = RNG.normal(size=(2, 1, N))  # h and c
    np.testing.assert_array_equal(of(torch_names(4) | {"h0": both}).params["h0"], both.ravel())


def test_the_state_of_training_is_left_out_by_whole_words():
    own = {"step_readout": np.ones(2), "optimizer_head": np.ones(3, np.float16)}
    own |= {"step.weight_hh": np.ones((2, 2))}
    words = (
        "opt_state",
        "optimizer",
        "optimizer_state_dict",
        "optimizer_states",
        "lr_schedulers",
    )
    state = {word: {"a": np.ones(2)} for word in words} | {"step": np.ones(())}
    found = collect_tensors("net.pt", own | state).arrays
    assert found.keys() == own.keys()
    assert found["optimizer_head"].dtype == np.float32, "no 16 bits, with which nothing is computed"


NAN = np.where(np.arange(12).reshape(4, 3) == 7, np.nan, 1.0)
REFUSED = {
    "missing": torch_names(3, **{"net.rnn.weight_ih_l0": None}),
    "one bias": torch_names(3, **{"net.rnn.bias_hh_l0": None}),
    "extra": torch_names(3) | {"embed.table": np.ones((9, 3))},
    "two linear layers": torch_names(3) | {"mid.weight": np.ones((N, N))},
    "transposed": torch_names(3, **{"net.rnn.weight_hh_l0": (N, 3 * N)}),
    "transposed input": torch_names(3, **{"net.rnn.weight_ih_l0": (N_IN, 3 * N)}),
    "transposed readout": torch_names(3, **{"out.weight": (N, N_OUT)}),
    "bias": torch_names(3, **{"net.rnn.bias_ih_l0": (N,)}),
    "two blocks": torch_names(2),
    "nan": torch_names(1, "") | {"weight_ih_l0": NAN},
    "whole numbers": torch_names(1, "") | {"weight_ih_l0": np.ones((4, 3), int)},
    "two cells": torch_names(3) | torch_names(3, "other."),
    "two states": torch_names(1) | {"a.h0": np.ones(N), "b.h0": np.ones(N)},
    "a state of another shape": torch_names(1) | {"h0": np.ones((2, N // 2))},
    "no cell": {"out.weight": np.ones((2, 4))},
    "one name of ctd": {"W": np.ones((4, 4)), "b": np.ones(4)},
    "most names of ctd": {"wR": np.ones((4, 4)), "wI": np.ones((4, 1)), "b": np.ones(4)},
    "before or after": torch_names(3, **{"net.rnn.weight_ih_l0": (3 * N, N), "out.weight": None, "out.bias": None})
        | {"net.rnn_out.weight": np.ones((N, N)), "h0": np.ones(N)},
}  # fmt: skip


@pytest.mark.parametrize("arrays", REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused_by_name(arrays):
    with refused(ValueError) as error:
        of(arrays)
    assert "\n" not in str(error.value)


def test_another_cell_than_the_expected_one_is_refused():
    with refused(ValueError):
        understand(Tensors("net.pt", torch_names(3)), "lstm")


def test_units_that_a_file_does_not_tell_are_the_users_word(tmp_path):
    """A state_dict of nn.RNN does not say whether it is of tanh or relu."""
    tensors = Tensors("net.pt", torch_names(1))
    assert understand(tensors).cell == "vanilla"
    taken = (
        "the file does not tell the units: tanh is taken; if they are relu, give cell vanilla:relu"
    )
    assert taken in understand(tensors).notes
    np.savez(tmp_path / "net.npz", **tensors.arrays)
    with warned():
        read_weights(tmp_path / "net.npz")
    assert read_weights(tmp_path / "net.npz", "vanilla").cell == "vanilla"
    assert "does not tell the units: cell vanilla:relu" in " ".join(
        understand(tensors, "vanilla:relu").notes
    )
    found = understand(tensors, "vanilla:relu")
    assert found.cell == "vanilla:relu"
    x, h = np.full(found.params["wI"].shape[1], 0.5), np.zeros(len(found.params["wR"]))
    given = {name.split(".")[-1]: value for name, value in tensors.arrays.items()}
    expected = np.maximum(0, given["weight_ih_l0"] @ x + given["bias_ih_l0"] + given["bias_hh_l0"])
    after = get_cell(found.cell).step(found.params, h, x)
    np.testing.assert_allclose(after, expected, rtol=1e-5)  # float32
    with refused(ValueError):
        understand(tensors, "leaky")


def test_only_some_of_the_tensors():
    tensors = Tensors("net.pt", torch_names(3) | {"embed.table": np.ones((9, 3))})
    assert set(understand(tensors.under(["net.", "out"])).params) >= {"weight_hh", "wO"}
    assert "wO" not in understand(tensors.under(["net."])).params
    with refused(ValueError):
        tensors.under(["rnn"])


def test_names_of_several_cells_of_ctd(tmp_path):
    """Of the tutorials' two GRUs a file without the attribute is the newer one, and says so."""
    found = of(drawn("gru"))
    assert found.cell == "gru"
    assert "cell gru_candidate_bias has the same names" in found.notes[1]
    assert of(drawn("gru"), cell="gru_candidate_bias").cell == "gru_candidate_bias"


@pytest.mark.parametrize("text", [np.bytes_("leaky_rates"), np.array([b"leaky_rates"])])
def test_a_cell_that_is_told_in_bytes(tmp_path, text):
    """As MATLAB and R write attributes of HDF5 files; leaky has the same names."""
    with h5py.File(tmp_path / "net.h5", "w") as file:
        file.update(drawn("leaky_rates"))
        file.attrs["cell"] = text
    np.savez(tmp_path / "net.npz", cell=text, **drawn("leaky_rates"))
    for name in ("net.h5", "net.npz"):
        assert read_weights(tmp_path / name).cell == "leaky_rates"


def test_the_users_cell_is_looked_up_first():
    with refused(ValueError):
        understand(Tensors("net.h5", drawn("gru")), "grru")
    tensors = Tensors("net.h5", drawn("vanilla"), cell="vanilla")
    assert understand(tensors, "vanilla:tanh").cell == "vanilla"


def hdf5_text(path):
    with h5py.File(path, "w") as file:
        file["names"] = ["a", "b"]


FILES = {
    "net.h5": lambda path: path.write_text("no"),
    "text.h5": hdf5_text,
    "net.npz": lambda path: path.write_text("no"),
    "objects.npz": lambda path: np.savez(path, a=np.array([{}], dtype=object)),
    "net.safetensors": lambda path: path.write_text("no"),
    "net.pt": lambda path: path.write_text("no"),
    "net.msgpack": lambda path: path.write_text("{no"),
    "net.eqx": lambda path: path.write_text("no"),
    "net.keras": lambda path: path.write_text("no"),
    "net.mat": lambda path: path.write_text("no"),
    "folder": lambda path: path.mkdir(),
    "none.pt": lambda path: None,
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_cannot_be_read_are_told_in_one_line(tmp_path, name):
    FILES[name](tmp_path / name)
    with refused(ValueError) as error:
        read_weights(tmp_path / name)
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_written_is_told(tmp_path):
    with refused(ValueError):
        write_weights(tmp_path / "absent" / "net.pt", drawn("lstm"), "lstm")
    with refused(ValueError):
        write_weights(tmp_path / "net.mat", drawn("lstm"), "lstm")
    types = {"pt": ["c8", "u4", "U1"], "safetensors": ["c16", "U1"], "h5": ["U1"]}
    for ending, dtype in [(ending, dtype) for ending, names in types.items() for dtype in names]:
        with refused(ValueError):
            write_named(tmp_path / f"r.{ending}", {"a": np.ones(2), "b": np.ones(2, dtype)}, {})
    assert not list(tmp_path.iterdir())
