"""PyTorch's files without PyTorch: its own numbers of 50 steps, what is refused, what PyTorch reads of ours.

The files and the numbers are those of tests/data/make_torch_nets.py.
"""

import os
import pickle
import zipfile

import jax
import numpy as np
import pytest
from fuzz_files import TREE, pickled_tensor
from messages import refused
from networks import assert_states, run_file
from places import DATA, load_script

from ctd.cells import get_cell
from ctd.weights import read_tensors, read_weights, write_weights

FOLDER = DATA / "torch_nets"
STATES = np.load(FOLDER / "states.npz")
CELLS = {
    "rnn": "vanilla", "gru": "gru_torch", "lstm": "lstm", "rnn32": "vanilla", "gru32": "gru_torch", "lstm32": "lstm",
    "no_bias": "gru_torch", "rnn_cell": "vanilla",
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*does not tell the units")
@pytest.mark.parametrize("name", CELLS)
def test_states_are_those_of_torch(name):
    found, states, outputs = run_file(FOLDER / f"{name}.pt", STATES[f"{name}.inputs"])
    assert found.cell == CELLS[name]
    assert_states(states, STATES[f"{name}.states"])
    if name == "rnn_cell":
        assert outputs.shape == (50, 0)
    else:
        # A sum of six such states, with weights of about 0.7.
        atol = 1e-5 if name.endswith("32") else 1e-11
        np.testing.assert_allclose(outputs, STATES[f"{name}.outputs"], atol=atol, rtol=0)


def test_a_checkpoint_is_its_network_without_the_optimizer():
    found = read_weights(FOLDER / "checkpoint.ckpt")
    assert found.cell == "gru_torch"
    assert set(found.params) == {"weight_ih", "weight_hh", "bias_ih", "bias_hh", "wO", "bO"}


def test_half_precision():
    found = read_tensors(FOLDER / "bfloat16.pt").arrays["rnn.weight_hh_l0"]
    np.testing.assert_array_equal(found, STATES["bfloat16.weight"])


REFUSED = ("two_layers.pt", "bidirectional.pt", "projections.pt", "whole.pt", "script.pt", "old.pt")


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_network_of_ctd_is_refused(name):
    with refused(ValueError) as error:
        read_weights(FOLDER / name)
    assert "\n" not in str(error.value)


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("protocol", range(2, 6))
def test_code_in_a_pickle_is_not_run(tmp_path, protocol):
    made = str(tmp_path / "made")
    data = pickle.dumps({"rnn.weight_hh_l0": Evil(made)}, protocol)
    with zipfile.ZipFile(tmp_path / "evil.pt", "w") as archive:
        archive.writestr("evil/data.pkl", data)
    with refused(ValueError):
        read_weights(tmp_path / "evil.pt")
    assert not os.path.exists(made)
    pickle.loads(data)  # it would have
    assert os.path.exists(made)


def cut(path, name, change):
    """A copy of gru.pt with one member changed, or without it."""
    with zipfile.ZipFile(FOLDER / "gru.pt") as old, zipfile.ZipFile(path, "w") as new:
        for member in old.namelist():
            data = old.read(member)
            if member.endswith(name):
                data = change(data)
            if data is not None:
                new.writestr(member, data)


@pytest.mark.parametrize(
    ("member", "change"),
    [
        ("data.pkl", lambda data: data[:60]),
        ("data/1", lambda data: data[:-8]),
        ("data/1", lambda data: None),
    ],
)
def test_damage_is_told(tmp_path, member, change):
    cut(tmp_path / "net.pt", member, change)
    with refused(ValueError):
        read_weights(tmp_path / "net.pt")


def archive_of(path, pickled):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data.pkl", b"\x80\x02}" + pickled + b".")
        archive.writestr("net/data/0", bytes(120))


NAME = b"X\x01\x00\x00\x00a"
"""The pickle of a text."""


@pytest.mark.parametrize(
    "pickled",
    [
        # 13 GiB were asked for before anything was compared.
        NAME + pickled_tensor((60_000, 60_000), (0, 0)) + b"s",
        NAME + pickled_tensor((2**62, 2**62), (1, 1)) + b"s",
        NAME + pickled_tensor((3, 3), (3, 1), -1) + b"s",
        NAME + pickled_tensor((3, 3), (3,)) + b"s",
        NAME + pickled_tensor((3,), (1,), 0, "N") + b"s",
        NAME + b"]q\x00h\x00as",
        NAME + TREE + b"s",
        NAME + b"]r\xff\xff\xff\x7fs",
    ],
)
def test_pickle_that_claims_too_much_is_refused(tmp_path, monkeypatch, pickled):
    # A hundredth of what it is: a million values take more than a second.
    monkeypatch.setattr("ctd.weights.tensors.MOST_VALUES", 10_000)
    archive_of(tmp_path / "net.pt", pickled)
    with refused(ValueError) as error:
        read_weights(tmp_path / "net.pt")
    assert "\n" not in str(error.value)


@pytest.mark.frameworks
@pytest.mark.slow
@pytest.mark.parametrize("cell", ["vanilla", "gru_torch", "lstm"])
def test_torch_reads_what_ctd_writes(tmp_path, cell):
    torch = pytest.importorskip("torch", reason="uv run --group frameworks pytest -m frameworks")
    drawn = {
        k: np.asarray(v)
        for k, v in get_cell(cell).init(jax.random.key(0), 5, 3, 2, dtype="float32").items()
    }
    del drawn["h0"]
    write_weights(tmp_path / "net.pt", drawn, cell)
    state = torch.load(tmp_path / "net.pt", weights_only=True)
    layer = {"vanilla": torch.nn.RNN, "gru_torch": torch.nn.GRU, "lstm": torch.nn.LSTM}[cell]
    model = torch.nn.ModuleDict({"rnn": layer(3, 5), "readout": torch.nn.Linear(5, 2)})
    model.load_state_dict(state)
    x = np.linspace(-1, 1, 30, dtype=np.float32).reshape(10, 3)
    with torch.no_grad():
        expected = model["readout"](model["rnn"](torch.tensor(x))[0]).numpy()
    np.testing.assert_allclose(run_file(tmp_path / "net.pt", x)[2], expected, atol=1e-6)


@pytest.mark.frameworks
@pytest.mark.slow
def test_torch_numbers_again(tmp_path, monkeypatch):
    """To 1e-12, or 1e-6 in float32: 50 steps of another version's or another processor's sums."""
    pytest.importorskip("torch", reason="uv run --group frameworks pytest -m frameworks")
    module = load_script("make_torch_nets")
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    module.numbers()
    again = np.load(tmp_path / "states.npz")
    for name, values in STATES.items():
        np.testing.assert_allclose(
            again[name], values, atol=1e-12 if values.dtype == "f8" else 1e-6
        )
