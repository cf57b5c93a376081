"""jobs.inputs.fetch: data on disk, on a web server, as Zarr; what kernels get of it is the same numbers."""

import errno
import functools
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import h5py
import jax
import numpy as np
import pytest
import zarr
from messages import refused
from places import DATA
from processes import free_ports

from ctd import esn, lfads, spikes
from ctd.data import read_hdf5, write_hdf5
from jobs.errors import JobError
from jobs.inputs import fetch as files
from jobs.inputs.fetch import local_file
from jobs.inputs.measure import evaluate_group, load_group
from jobs.storage import connect
from jobs.storage.objects import StorageFailed

RNG = np.random.default_rng(0)
ARRAYS = {"targets": RNG.normal(size=(3000, 2)), "deep/inputs": RNG.integers(0, 9, (7, 3, 5))}


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("CTD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "files"


def write_zarr(path, arrays=ARRAYS, version=3):
    root = zarr.open_group(str(path), mode="w", zarr_format=version)
    for name, values in arrays.items():
        chunks = tuple(max(1, n // 3) for n in values.shape)
        root.create_array(name, data=np.asarray(values), chunks=chunks)
    return str(path)


@pytest.mark.parametrize("version", [2, 3])
def test_zarr_group_becomes_hdf5(tmp_path, version, monkeypatch):
    monkeypatch.setattr(files, "BLOCK", 1 << 14)  # several steps an array
    address = write_zarr(tmp_path / "d.zarr", version=version)
    with h5py.File(local_file(address)) as file:
        assert file.attrs["address"] == address
        for name, values in ARRAYS.items():
            np.testing.assert_array_equal(file[name], values)
            assert file[name].dtype == values.dtype


@pytest.mark.parametrize("named", ["d.zarr/targets", "targets.zarr"])
def test_zarr_array_is_called_by_its_own_name(tmp_path, named):
    if named == "targets.zarr":
        zarr.create_array(str(tmp_path / named), data=ARRAYS["targets"])
    else:
        write_zarr(tmp_path / "d.zarr")
    found = read_hdf5(local_file(str(tmp_path / named)))
    np.testing.assert_array_equal(found.pop("targets"), ARRAYS["targets"])
    assert not found


def test_scalar_and_empty_arrays(tmp_path):
    arrays = {"scalar": np.float32(3), "empty": np.zeros((0, 4))}
    found = read_hdf5(local_file(write_zarr(tmp_path / "d.zarr", arrays)))
    assert found["scalar"] == np.float32(3)
    assert found["empty"].shape == (0, 4)


def test_file_and_missing_file_stay_as_they_are(tmp_path):
    write_hdf5(tmp_path / "d.h5", {"a": np.ones(2)})
    for path in (tmp_path / "d.h5", tmp_path / "none.h5", tmp_path):
        assert local_file(str(path)) == str(path)
    assert local_file(f"file://{tmp_path}/d.h5") == str(tmp_path / "d.h5")


def test_one_copy_for_all_and_a_new_one_of_what_has_changed(tmp_path, cache):
    address = write_zarr(tmp_path / "d.zarr")
    with ThreadPoolExecutor(8) as threads:
        (path,) = set(threads.map(lambda _: local_file(address), range(8)))
    assert [p.name for p in cache.glob("*.h5")] == [Path(path).name]
    zarr.open_group(address)["targets"][0, 0] = 42
    assert read_hdf5(local_file(address))["targets"][0, 0] == 42


def test_unused_copies_are_removed(tmp_path, cache, monkeypatch):
    old = local_file(write_zarr(tmp_path / "a.zarr"))
    monkeypatch.setattr(files, "UNUSED_S", -1.0)
    new = local_file(write_zarr(tmp_path / "b.zarr"))
    assert not Path(old).exists()
    assert Path(new).exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda g: g["targets"].attrs.update(scale_factor=0.1),
        lambda g: [g.__delitem__(name) for name in list(g)],
    ],
)
def test_zarr_that_kernels_cannot_read(tmp_path, cache, change):
    address = write_zarr(tmp_path / "d.zarr")
    change(zarr.open_group(address))
    with refused(JobError):
        local_file(address)
    assert not list(cache.glob("*.h5"))


def test_a_whole_store_is_no_file(tmp_path, cache):
    """Its packs of numbers are no results of any name."""
    address = write_zarr(tmp_path / "train.zarr")
    (tmp_path / "train.zarr" / "run").mkdir()
    (tmp_path / "train.zarr" / "run" / "job.json").write_text("{}")
    with refused(JobError):
        local_file(address)
    assert local_file(f"{address}/deep").endswith(".h5")
    assert len(list(cache.glob("*.h5"))) == 1


@pytest.mark.parametrize(("what", "data"), [("zarr.json", b"{"), ("targets/c/0/0", b"abc")])
def test_damaged_zarr(tmp_path, what, data):
    address = write_zarr(tmp_path / "d.zarr")
    (tmp_path / "d.zarr" / what).write_bytes(data)
    with refused(JobError):
        local_file(address)


def test_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CTD_CACHE", str(tmp_path / "file"))
    with refused(JobError) as error:
        local_file(write_zarr(tmp_path / "d.zarr"))
    assert error.type is JobError


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.ENOSPC, StorageFailed), (errno.EROFS, JobError)]
)
def test_cache_on_a_disk_that_fails(tmp_path, cache, monkeypatch, number, kind):
    """A full disk may have room again: no fault of the job, whose shards are tried again."""

    def fail(*given):
        raise OSError(number, "a fault of the disk")

    monkeypatch.setattr(files, "_convert", fail)
    with refused(JobError) as error:
        local_file(write_zarr(tmp_path / "d.zarr"))
    assert error.type is kind
    assert not list(cache.glob("*.h5"))


# --- what kernels see -----------------------------------------------------------------------------

ESN = {"n": 10, "m": 2, "target": "file", "washout": 100, "train": 900, "passes": 1}


def test_network_gets_the_same_target_from_hdf5_and_zarr(tmp_path):
    arrays = {"targets": ARRAYS["targets"]}
    write_hdf5(tmp_path / "d.h5", arrays)
    write_zarr(tmp_path / "d.zarr", arrays)
    loaded = [
        load_group(esn.kernel, esn.EchoState(**ESN, path=name), str(tmp_path))
        for name in ("d.h5", "d.zarr", f"file://{tmp_path}/d.zarr")
    ]
    for other in loaded[1:]:
        np.testing.assert_array_equal(other.targets, loaded[0].targets)


def test_lfads_gets_the_same_trials_from_hdf5_and_zarr(tmp_path):
    arrays = {name: RNG.poisson(2.0, (n, 12, 5)) for name, n in (("train", 8), ("eval", 3))}
    write_hdf5(tmp_path / "d.h5", arrays)
    write_zarr(tmp_path / "d.zarr", arrays)
    first, second = (
        load_group(lfads.kernel, lfads.Model(data=name, batch_size=8), str(tmp_path))
        for name in ("d.h5", "d.zarr")
    )
    np.testing.assert_array_equal(first.train.data, arrays["train"])
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(a, b)


def test_error_in_a_copy_names_what_the_user_wrote(tmp_path):
    write_zarr(tmp_path / "d.zarr")
    params = esn.EchoState(**ESN, path="d.zarr", dataset="tragets")
    with pytest.raises(JobError) as error:
        load_group(esn.kernel, params, str(tmp_path))
    assert "params: d.zarr: dataset 'tragets' is missing; did you mean 'targets'" in str(
        error.value
    )


def test_load_group_loads_anew_only_what_has_changed(tmp_path):
    """A run plans, computes, reduces and draws in one process: all four load the same data."""
    calls = []

    def load(inputs):
        calls.append(inputs.path)
        return np.loadtxt(inputs.path)

    kernel = replace(esn.kernel, load=load)
    path = tmp_path / "target.txt"
    path.write_text("1 2 3")
    params = esn.EchoState(**ESN, path="target.txt")
    first = load_group(kernel, params, str(tmp_path))
    assert load_group(kernel, params, str(tmp_path)) is first
    load_group(kernel, params.model_copy(update={"washout": 1}), str(tmp_path))
    path.write_text("4 5 6 7")
    assert load_group(kernel, params, str(tmp_path)).tolist() == [4, 5, 6, 7]
    assert len(calls) == 3


def test_an_error_in_load_is_told_with_its_line_unless_its_author_worded_it(tmp_path):
    """The words of NumPy, and a key alone, name neither a file nor what to change."""
    (tmp_path / "a.txt").write_text("1 2 3")
    params = esn.EchoState(**ESN, path="a.txt")

    def refused(load):
        with pytest.raises(JobError) as error:
            evaluate_group(replace(esn.kernel, load=load), params, str(tmp_path))
        return str(error.value)

    def worded(inputs):
        raise ValueError(f"{inputs.path}: need (time,)")

    assert refused(worded) == f"params: {tmp_path}/a.txt: need (time,)"
    assert refused(lambda inputs: np.loadtxt(tmp_path / "none.txt")).startswith("params: ")
    for load, said in (
        (lambda inputs: np.loadtxt(inputs.path) @ np.ones(2), "ValueError: matmul"),
        (lambda inputs: {}[inputs.path], "KeyError: "),
    ):
        first, line = refused(load).splitlines()
        assert first.startswith(f"kernel esn: load: {said}")
        assert line.startswith("  test_files.py, line ")


# --- a web server ---------------------------------------------------------------------------------


@pytest.fixture
def web(tmp_path):
    """The address of a server of the files in tmp_path."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            del arguments

    serve = functools.partial(Quiet, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_weights_that_pytorch_wrote_by_address(tmp_path, web):
    """The cell is told by the file; what is refused has the address that was given, not the copy's path."""
    for name in ("gru", "two_layers"):
        shutil.copy(DATA / "torch_nets" / f"{name}.pt", tmp_path)
    of = lambda name: spikes.Spikes(weights=f"{web}/{name}.pt", task={"name": "flipflop"})
    shared = load_group(spikes.kernel, of("gru"), str(tmp_path))
    assert shared.cell == {"gru_torch": None}
    assert shared.weights["weight_hh"].shape == (18, 6)
    with refused(JobError):
        load_group(spikes.kernel, of("two_layers"), str(tmp_path))


def test_file_on_the_web(tmp_path, web):
    write_hdf5(tmp_path / "d.h5", {"a": np.arange(5.0)})
    path = local_file(f"{web}/d.h5")
    assert path != str(tmp_path / "d.h5")
    np.testing.assert_array_equal(read_hdf5(path)["a"], np.arange(5.0))
    with refused(JobError):
        local_file(f"{web}/none.h5")


@pytest.mark.parametrize("patience", ["IMPATIENT", "PATIENT"])
def test_a_server_that_is_away_is_no_bad_file(tmp_path, web, monkeypatch, patience):
    """It is away before the first request, or once it has said that the file is there."""
    once = {"max_retries": 0, "retry_timeout": timedelta(seconds=0.1)}
    write_hdf5(tmp_path / "d.h5", {"targets": np.ones((9, 2))})
    away = f"http://127.0.0.1:{free_ports(1)[0]}/d.h5"
    monkeypatch.setitem(getattr(connect, patience), "retry_config", once)
    if patience == "PATIENT":
        monkeypatch.setattr(files, "_store", lambda address: connect.remote(away))
    address = away if patience == "IMPATIENT" else f"{web}/d.h5"
    params = esn.EchoState(**ESN, path=address, dataset="targets")
    with refused(StorageFailed):
        load_group(esn.kernel, params, str(tmp_path))
    with refused(StorageFailed):
        evaluate_group(esn.kernel, params, str(tmp_path))


def test_a_disk_that_fails_while_data_are_loaded_is_no_bad_file(tmp_path):
    def load(inputs):
        raise OSError(errno.EIO, "Input/output error")

    write_hdf5(tmp_path / "d.h5", {"targets": np.ones((9, 2))})
    params = esn.EchoState(**ESN, path="d.h5", dataset="targets")
    with refused(OSError):
        load_group(replace(esn.kernel, load=load), params, str(tmp_path))
