"""jobs.inputs.items: items of a store as files."""

import errno
import json
import shutil

import h5py
import numpy as np
import pytest
from messages import refused
from stores import FOUR_SLOTS, SMALL_RNN, run

from ctd.data import read_hdf5
from jobs.errors import JobError
from jobs.inputs import items
from jobs.inputs.items import materialise
from jobs.storage import objects
from jobs.storage.addresses import ItemPart
from jobs.storage.objects import StorageFailed
from jobs.store.store import Store, rows_of

NETS = {"kernel": "train_rnn", "params": SMALL_RNN, "sweep": {"seeds": 3}, "run": FOUR_SLOTS}


@pytest.fixture(scope="module")
def nets(tmp_path_factory):
    """A store of three networks."""
    return run(tmp_path_factory.mktemp("nets") / "nets.zarr", NETS)[0].address


def test_an_item_of_a_new_store_at_an_old_address(tmp_path):
    """As in a notebook that deletes a store and trains again: not the file of the store that is gone."""
    address = str(tmp_path / "nets.zarr")
    found = []
    for seed in (1, 2):
        store, _ = run(address, {**NETS, "seed": seed})
        path = materialise(ItemPart(address, 1, "weights"))
        assert materialise(ItemPart(address, 1, "weights")) == path
        kept = store.rows(0, "weights.weight_hh", 1, 2)[0]
        np.testing.assert_array_equal(read_hdf5(path)["weight_hh"], kept)
        with h5py.File(path) as file:
            assert file.attrs["address"] == f"{address}::1"
        found.append(kept)
        shutil.rmtree(address)
    assert not np.array_equal(*found)


def test_inputs_that_failed_are_told(ctd, tmp_path):
    """A run, its plan and an export use diverged networks, which may be what is wanted, but say so."""
    steps = {"learning_rate": [0.01, 1e20]}
    hot, _ = run(tmp_path / "hot.zarr", {**NETS, "sweep": {"grid": steps, "seeds": 2}})
    said = (
        "2 of 3 items of hot.zarr that are inputs failed (diverged); add status == 'done' to where"
    )
    used = [f"hot.zarr::{item}" for item in (1, 2, 2, 3)]
    assert items.failed_inputs([*used, "hot.zarr::3::results", "net.h5"], str(tmp_path)) == [said]
    assert items.failed_inputs(["hot.zarr::0", "net.h5"], str(tmp_path)) == []
    reference = "{store: hot.zarr, where: item > 0}"
    (tmp_path / "points.yaml").write_text(
        f"{{kernel: fixed_points, params: {{weights: {reference}, n_trials: 4}}}}"
    )
    assert json.loads(ctd("plan", "points.yaml", "--json")[1])["warnings"] == said
    code, _, err = ctd("export", hot.address, 2, "net.h5")
    assert (code, "warning: item 2 failed (diverged)" in err) == (0, True), err


def test_many_items_of_a_store_cost_few_requests(nets, monkeypatch):
    """A stage may refer to all items of the stage before: their places are looked up in what was read before."""
    kept = Store.open(nets).rows(0, "weights.weight_hh", 0, 3)
    materialise(ItemPart(nets, 0, "weights"))
    read, asked = objects.read, []
    monkeypatch.setattr(objects, "read", lambda *given: asked.append(given) or read(*given))
    opened = []
    monkeypatch.setattr("jobs.store.store.Store.open", opened.append)
    for item in (1, 2):
        found = read_hdf5(materialise(ItemPart(nets, item, "weights")))
        np.testing.assert_array_equal(found["weight_hh"], kept[item])
    assert (len(asked), opened) == (2, [])
    monkeypatch.setattr(items, "how_failed", lambda store, of: dict.fromkeys(of, "diverged"))
    (said,) = items.failed_inputs([f"{nets}::1"], "")
    assert (said.startswith("1 of 1 item of "), opened) == (True, [])


def test_a_full_disk_of_temporary_files_is_no_fault_of_the_job(nets, tmp_path, monkeypatch):
    address = shutil.copytree(nets, tmp_path / "nets.zarr")  # of which no item is a file yet

    def fail(*given):
        raise ValueError("w.h5: cannot be written: full") from OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(items, "write_named", fail)
    with refused(StorageFailed):
        materialise(ItemPart(str(address), 0, "weights"))


def test_parts_of_an_item_are_its_rows_of_the_results(nets):
    """All results, one of them, or a family: each as it is read on its own, whatever pack it lies in."""
    store = Store.open(nets)
    names = [name for name in store.names(0) if not name.startswith("weights.")]
    of_both = rows_of(
        store, 0, ["item", names[0]], 1, 3
    )  # a column of its own, and a part of a pack
    assert of_both["item"].tolist() == [1, 2]
    np.testing.assert_array_equal(of_both[names[0]], store.rows(0, names[0], 1, 3))
    for part, expected in {
        "results": {name: name for name in names},
        "eval_loss": {"eval_loss": "eval_loss"},
        "weights": {n.removeprefix("weights."): n for n in store.names(0) if n not in names},
    }.items():
        found = items.item_arrays(store, 2, part)
        assert found.keys() == expected.keys()
        for name, stored in expected.items():
            np.testing.assert_array_equal(found[name], store.rows(0, stored, 2, 3)[0])
    with refused(JobError):
        items.item_arrays(store, 2, "lossy")


def test_rows_of_a_pack_do_not_keep_the_others_in_memory(nets):
    """Also a small result of a large pack is read alone, as a reduction in blocks counts on."""
    store = Store.open(nets)
    names = store.names(0)
    for some in (names, names[:1], [names[0], names[-1]]):
        for name, values in rows_of(store, 0, some, 0, 3).items():
            np.testing.assert_array_equal(values, store.rows(0, name, 0, 3))
            held = values if values.base is None else values.base
            assert held.nbytes <= values.nbytes, name
