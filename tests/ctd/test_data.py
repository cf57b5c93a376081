"""HDF5 files of weights and arrays: round trips, clear refusals, whole files or none."""

import h5py
import numpy as np
import pytest
from messages import refused
from processes import full_disk
from small import drawn

from ctd.cells import get_cell
from ctd.data import read_arrays, read_hdf5, write_hdf5
from ctd.weights import read_weights, write_weights


def weights(name="gru"):
    return drawn(get_cell(name).shapes(5, 2), 5, 1, 0)


def assert_same(got, expected):
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert got[name].dtype == value.dtype
        np.testing.assert_array_equal(got[name], value)


def test_weights_flat_layout(tmp_path):
    """The tutorials' layout: one dataset a weight at the top of the file."""
    with h5py.File(tmp_path / "trained_params_vrnn.h5", "w") as file:
        for name, value in weights("vanilla").items():
            file.create_dataset(name, data=value)
    assert_same(
        read_weights(tmp_path / "trained_params_vrnn.h5", "vanilla").params, weights("vanilla")
    )
    write_weights(tmp_path / "ours.h5", weights("vanilla"), "vanilla")
    with h5py.File(tmp_path / "ours.h5") as file:
        assert set(file) == {"wI", "wR", "bR", "wO", "bO", "h0"}
        assert file.attrs["cell"] == "vanilla"


def test_write_hdf5_same_bytes(tmp_path):
    for name in ("a.h5", "b.h5"):
        write_hdf5(tmp_path / name, weights())
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_write_hdf5_failure_keeps_old(tmp_path):
    write_hdf5(tmp_path / "w.h5", {"a": np.arange(3)})
    with pytest.raises(TypeError):
        write_hdf5(tmp_path / "w.h5", {"a": np.arange(5), "b": np.array([object()])})
    assert [p.name for p in tmp_path.iterdir()] == ["w.h5"]
    np.testing.assert_array_equal(read_hdf5(tmp_path / "w.h5")["a"], np.arange(3))


@pytest.mark.parametrize("room", [0, 90, 500, 1100, 2000, 3000, 9000, 20_000])
def test_write_hdf5_to_a_full_disk_keeps_old(tmp_path, room):
    """Wherever the disk ends: at the file's head, in the data, or as the file is closed, where HDF5 itself crashes."""
    write_hdf5(tmp_path / "w.h5", weights())
    before = (tmp_path / "w.h5").read_bytes()
    arrays = {f"w{k}": np.random.default_rng(k).random((9, 9)) for k in range(50)}
    with full_disk(room), refused(ValueError):
        write_hdf5(tmp_path / "w.h5", arrays)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"w.h5": before}


def test_write_hdf5_no_folder(tmp_path):
    with refused(ValueError):
        write_hdf5(tmp_path / "absent" / "w.h5", {"a": np.arange(3)})


def test_write_weights_refuses_nan(tmp_path):
    with refused(ValueError):
        write_weights(tmp_path / "w.h5", weights() | {"bC": np.full(5, np.nan)}, "gru")
    assert not list(tmp_path.iterdir())


def spoil_cut(path):
    path.write_bytes(path.read_bytes()[:100])


def spoil_text(path):
    path.write_text("not HDF5")


def spoil_empty(path):
    with h5py.File(path, "w") as file:
        file.create_group("nothing")


def spoil_strings(path):
    with h5py.File(path, "w") as file:
        file["names"] = ["a", "b"]


FILES = {
    "missing": lambda path: path.unlink(),
    "cut short": spoil_cut,
    "text": spoil_text,
    "no dataset": spoil_empty,
    "strings": spoil_strings,
}


@pytest.mark.parametrize("spoil", FILES.values(), ids=FILES)
@pytest.mark.parametrize("read", [read_hdf5, read_weights])
def test_read_refuses_file(tmp_path, read, spoil):
    path = tmp_path / "x.h5"
    write_hdf5(path, weights())
    spoil(path)
    with refused(ValueError):
        read(path)


@pytest.mark.parametrize(
    "group",
    [
        "gathered",
        "net",
    ],
)
def test_a_file_of_groups_alone_names_them(tmp_path, group):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_group(group)["x"] = np.zeros(2)
    with refused(ValueError):
        read_hdf5(tmp_path / "a.h5")


def test_read_refuses_folder(tmp_path):
    with refused(ValueError):
        read_hdf5(tmp_path)


def test_read_weights_wrong_cell(tmp_path):
    write_weights(tmp_path / "w.h5", weights(), "gru")
    with refused(ValueError):
        read_weights(tmp_path / "w.h5", "vanilla")


def test_read_weights_heeds_the_cell_that_a_file_names(tmp_path):
    """Both GRUs of the tutorials have the same names; a file that says which is not read as the other."""
    write_weights(tmp_path / "w.h5", weights(), "gru_candidate_bias")
    found = read_weights(tmp_path / "w.h5", "gru_candidate_bias")
    assert set(found.params) == set(weights())
    assert read_weights(tmp_path / "w.h5").cell == "gru_candidate_bias"
    with refused(ValueError):
        read_weights(tmp_path / "w.h5", "gru")


def test_read_arrays_of_numpy(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(3))
    np.savez(tmp_path / "a.npz", x=np.arange(4))
    np.testing.assert_array_equal(read_arrays(tmp_path / "a.npy", "y")["y"], np.arange(3))
    np.testing.assert_array_equal(read_arrays(tmp_path / "a.npz", "y")["x"], np.arange(4))
    np.save(tmp_path / "o.npy", np.array([{}], dtype=object), allow_pickle=True)
    with refused(ValueError):
        read_arrays(tmp_path / "o.npy", "y")
