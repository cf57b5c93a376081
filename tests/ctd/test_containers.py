"""What files claim and what they hold: HDF5, zip and NumPy's arrays from anybody."""

import io
import zipfile

import h5py
import numpy as np
import pytest
import scipy.io
from messages import refused

from ctd import containers
from ctd.containers import check_hdf5, opened_hdf5, opened_zip, read_array
from ctd.data import read_arrays, read_hdf5, read_npz
from ctd.weights import read_tensors

SECRET = np.arange(6.0)


def external(file):
    file.create_dataset("x", (6,), "f8", external=[("secret.bin", 0, SECRET.nbytes)])


def virtual(file):
    layout = h5py.VirtualLayout((6,), "f8")
    layout[:] = h5py.VirtualSource("secret.h5", "x", (6,))
    file.create_virtual_dataset("x", layout)


def linked(file):
    file["x"] = h5py.ExternalLink("secret.h5", "/x")


def linked_softly(file):
    file["far"] = h5py.ExternalLink("secret.h5", "/")
    file["x"] = h5py.SoftLink("/far/x")


@pytest.mark.parametrize("make", [external, virtual, linked, linked_softly])
def test_numbers_of_another_file_are_not_read(tmp_path, monkeypatch, make):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.bin").write_bytes(SECRET.tobytes())
    with h5py.File("secret.h5", "w") as file:
        file["x"] = SECRET
    with h5py.File("x.h5", "w") as file:
        make(file)
    with h5py.File("x.h5") as file:
        np.testing.assert_array_equal(file["x"], SECRET)  # the library would
    with refused(ValueError):
        read_hdf5("x.h5")


@pytest.mark.parametrize(
    "options",
    [
        {"shape": (2**40,)},
        {"shape": (10**6, 10**6), "chunks": (1000, 1000), "compression": "gzip"},
        {"shape": (3, 3), "chunks": (10**4, 10**4), "maxshape": (None, None)},
    ],
)
def test_dataset_that_claims_more_than_the_file_holds_is_refused(tmp_path, options):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("x", dtype="f8", **options)
    for read in (read_hdf5, check_hdf5):
        with refused(ValueError):
            read(tmp_path / "x.h5")


@pytest.mark.parametrize("version", ["4", "5"])
def test_matlab_before_hdf5(tmp_path, version):
    """The error shows the lines that convert the file."""
    counts = np.arange(6.0).reshape(2, 3)
    scipy.io.savemat(tmp_path / "x.mat", {"counts": counts}, format=version)
    with refused(ValueError) as caught:
        read_hdf5(tmp_path / "x.mat")
    exec(str(caught.value).partition("give the .npz: ")[2])
    found = read_arrays(tmp_path / "x.npz", "")
    assert list(found) == ["counts"]
    np.testing.assert_array_equal(found["counts"], counts)
    with refused(ValueError):
        read_hdf5(tmp_path / "none.mat")


@pytest.mark.parametrize("read", [read_hdf5, check_hdf5])
def test_name_that_is_no_text_is_refused(tmp_path, read):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file[b"w\xff"] = SECRET
    with refused(ValueError):
        read(tmp_path / "x.h5")


def test_honest_files_are_read_however_well_they_pack(tmp_path):
    value = np.zeros((3000, 1000))  # 24 MB in 23 kB
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("packed", data=value, compression="gzip", compression_opts=9)
        file.create_dataset("never written", (100, 100), "f4")
        file.create_dataset("scalar", data=3)
    np.savez_compressed(tmp_path / "x.npz", packed=value, text="gru")
    found = read_hdf5(tmp_path / "x.h5")
    assert {name: array.shape for name, array in found.items()} == {
        "packed": (3000, 1000), "never written": (100, 100), "scalar": (),
    }  # fmt: skip
    assert read_npz(tmp_path / "x.npz")["packed"].shape == (3000, 1000)
    assert str(read_npz(tmp_path / "x.npz")["text"]) == "gru"


@pytest.mark.parametrize("change", [{"shape": (2**40,)}, {"shape": (-1,)}, {"descr": "<c16"}])
def test_array_that_claims_more_than_it_holds_is_refused(tmp_path, change):
    header = np.lib.format.header_data_from_array_1_0(SECRET) | change
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, header)
    data = file.getvalue() + SECRET.tobytes()
    (tmp_path / "x.npy").write_bytes(data)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", data)
    for name in ("x.npy", "x.npz"):
        with refused(ValueError):
            read_arrays(tmp_path / name, "x")


def test_array_of_nested_brackets_is_told_in_one_line():
    text = b"-" * 9000 + b"1"
    data = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text
    with refused(ValueError):
        read_array("x", io.BytesIO(data), len(data))


def test_archive_that_claims_more_than_it_holds_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("zeros", bytes(1 << 20))
    with refused(ValueError), opened_zip(tmp_path / "x.zip", "it"):
        pass
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("few", b"1234")
    data = bytearray((tmp_path / "x.zip").read_bytes())
    at = data.index(b"PK\x01\x02") + 24  # the size of the member in the archive's directory
    data[at : at + 4] = (2**31).to_bytes(4, "little")
    (tmp_path / "x.zip").write_bytes(data)
    with (
        refused(ValueError),
        opened_zip(tmp_path / "x.zip", "it"),
    ):
        pass


def test_whatever_the_library_raises_names_the_file(tmp_path):
    (tmp_path / "x.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    for error in (KeyError("a\nb"), RuntimeError("a\nb"), MemoryError("a\nb")):
        with h5py.File(tmp_path / "y.h5", "w"):
            pass
        with refused(ValueError):
            raise_in(tmp_path / "y.h5", error)
    with refused(ValueError) as caught:
        read_hdf5(tmp_path / "x.h5")
    assert "\n" not in str(caught.value)


def raise_in(path, error):
    with opened_hdf5(path):
        raise error


def npz(path, **options):
    np.savez_compressed(path, x=np.zeros(2**18))


def hdf5(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.zeros(2**18), compression="gzip")


def pytorch(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/data.pkl", b"")
        archive.writestr("net/data/0", bytes(2**23))


@pytest.mark.parametrize(
    ("make", "name", "read"),
    [(npz, "x.npz", read_npz), (hdf5, "x.h5", read_hdf5), (pytorch, "x.pt", read_tensors)],
)
def test_bomb_is_refused(tmp_path, monkeypatch, make, name, read):
    """A file that packs better than recordings do is refused by what it claims."""
    monkeypatch.setattr(containers, "LARGE", 2**20)
    monkeypatch.setattr(containers, "MOST_PACKED_LARGE", 50)
    make(tmp_path / name)
    with refused(ValueError):
        read(tmp_path / name)


def test_rare_spikes_are_no_bomb(tmp_path, monkeypatch):
    """A hundredth of a spike a bin, as NumPy's integers."""
    monkeypatch.setattr(containers, "LARGE", 0)
    spikes = np.random.default_rng(0).poisson(0.01, (100, 100, 20))
    np.savez_compressed(tmp_path / "x.npz", x=spikes)
    assert read_npz(tmp_path / "x.npz")["x"].sum() == spikes.sum()
