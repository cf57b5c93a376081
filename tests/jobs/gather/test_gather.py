"""jobs.gather.gather and jobs.gather.reduce: incremental, restartable, side by side, in bounded memory.

On Ray: tests/cluster/ray/test_gather_on_ray.py.
"""

import dataclasses
import json
import shutil
import sys
import threading
import time
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import toy
import zarr
from messages import refused
from stores import JOB, copied_run, files, run, tree_bytes

from ctd.rows import blocks
from jobs import Store, keys, open_store
from jobs.errors import JobError
from jobs.gather.check import check
from jobs.gather.gather import (
    ATTEMPTS,
    GATHERED,
    gather,
    reduction_error,
    require_rows,
    set_gather,
)
from jobs.gather.reduce import reduce_group
from jobs.query.query import query
from jobs.run.task import Report
from jobs.run.worker import SerialExecutor
from jobs.storage import addresses, connect, objects
from jobs.storage.checksums import digest
from jobs.storage.lease import LeaseHeld, holder
from jobs.store.groups import Columns, GroupResults
from jobs.store.writer import write_shard

MODULE, TABLES, REDUCING = (
    sys.modules[f"jobs.gather.{name}"] for name in ("gather", "tables", "reduce")
)
"""`jobs.gather.gather` itself is the function."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    store = copied_run(tmp_path_factory.mktemp("gather") / "toy.zarr")
    gather(store)
    return store


@pytest.fixture
def copied(finished, tmp_path):
    """The store, which a test may change."""
    path = tmp_path / "copy.zarr"
    shutil.copytree(finished.address, path)
    return Store.open(str(path))


@pytest.fixture
def reduced(monkeypatch):
    """The groups that are reduced from now on."""
    seen = []

    def reduce_noted(store, group, *check):
        seen.append(group)
        reduce_group(store, group, *check)

    monkeypatch.setattr(MODULE, "reduce_group", reduce_noted)
    monkeypatch.setattr(REDUCING, "reduce_group", reduce_noted)
    return seen


def test_a_swept_list_of_texts_is_spelt_as_where_it_is_a_column():
    root = zarr.group(attributes={"swept": {"record": ["traces", "weights"], "x": [0.5, 1.0]}})
    read = lambda name: TABLES._column(SimpleNamespace(results=lambda _: root), name, 0, np.ones(2, bool))  # fmt: skip
    assert read("record").tolist() == ["traces, weights"] * 2
    assert read("x").tolist() == ["[0.5, 1.0]"] * 2


def written(store, since):
    """Objects that were written after this many nanoseconds."""
    root = addresses.local_path(store.address)
    return {
        str(p.relative_to(root))
        for p in root.rglob("*")
        if p.is_file() and p.stat().st_mtime_ns > since
    }


def newest(store):
    root = addresses.local_path(store.address)
    return max(p.stat().st_mtime_ns for p in root.rglob("*"))


def forget(store, number):
    """Take a shard back; returns what commits it again."""
    (marker,) = [marker for marker in store.committed.markers() if marker.shard.number == number]
    store.committed.forget([marker.shard])
    sealed = marker.to_bytes()
    key = keys.record(keys.DONE, marker.shard.group, number, digest(sealed))
    return lambda: objects.write(store.objects, key, sealed)


# --- what is reduced, and when ------------------------------------------------------------------------


def test_gather_with_nothing_new_writes_nothing(copied, reduced):
    before = newest(copied)
    assert gather(copied) == 44
    assert gather(Store.open(copied.address), SerialExecutor(1)) == 44
    assert reduced == []
    assert written(copied, before) == set()


@pytest.mark.parametrize("name", ["norm", "rate", "status"])
def test_gather_deletes_nothing_before_it_misses_an_array(copied, name):
    for part in ("items", f"results/1/{name}"):
        shutil.rmtree(f"{copied.address}/{part}")
    kept = lambda: {k: v for k, v in files(copied.address).items() if "gathering" not in k}
    before = kept()
    with pytest.raises((FileNotFoundError, KeyError)):
        gather(Store.open(copied.address))
    assert kept() == before


def test_gather_reduces_only_groups_with_new_shards(copied, reduced):
    whole = tree_bytes(copied.address)
    put_back = forget(copied, 5)  # of group 1
    assert gather(copied) == 38
    assert reduced == [1]
    assert open_store(copied.address)["items"].sizes["item"] == 38
    put_back()
    before = newest(copied)
    assert gather(copied) == 44
    assert reduced == [1, 1]
    assert tree_bytes(copied.address) == whole
    assert not any(key.startswith(("gathered/0", "results")) for key in written(copied, before))
    assert check(copied.address) == []


def test_gather_reduces_again_for_other_settings_and_another_program(copied, reduced, monkeypatch):
    set_gather(copied, ["top=2"])
    gather(copied)
    assert reduced == [0, 1]
    items = newest(copied)
    set_gather(copied, ["reductions=[{name: counts}]"])
    gather(copied)
    assert reduced == [0, 1]
    assert "items/item/c/0" not in written(copied, items)
    monkeypatch.setattr(REDUCING, "program_of", lambda kernel: "another")
    gather(copied)
    assert reduced == [0, 1, 0, 1]


def test_program_of_follows_the_source_of_reduce(tmp_path, monkeypatch):
    source = "def reduce(*args):\n    return {}\n"
    (tmp_path / "lonely_kernel.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    import lonely_kernel

    kernel = dataclasses.replace(
        toy.kernel, tables=dataclasses.replace(toy.kernel.tables, reduce=lonely_kernel.reduce)
    )
    first = REDUCING.program_of(kernel)
    (tmp_path / "another.py").write_text("")  # no package: its neighbours are not its own
    assert REDUCING.program_of(kernel) == first
    (tmp_path / "lonely_kernel.py").write_text(source + "# other\n")
    assert REDUCING.program_of(kernel) != first


@pytest.mark.parametrize("at", [0, 3, 14, 22])
def test_gather_that_was_ended_is_neither_whole_nor_in_the_way(copied, monkeypatch, at):
    """Ended at its n-th array: on the next occasion all that it had not finished is made."""
    whole = tree_bytes(copied.address)
    set_gather(copied, ["top=2"])
    put_back = forget(copied, 6)
    gather(copied)
    set_gather(copied, ["top=3"])
    put_back()
    left, put = [at], REDUCING.put_array

    def ended(*args):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        put(*args)

    monkeypatch.setattr(REDUCING, "put_array", ended)
    monkeypatch.setattr(TABLES, "put_array", ended)
    with pytest.raises(KeyboardInterrupt):
        gather(copied)
    monkeypatch.undo()
    assert require_rows(copied)["item"].shape == (44,)
    assert tree_bytes(copied.address) == whole
    assert check(copied.address) == []


def test_gather_waits_for_another_and_sees_what_it_did(copied, reduced):
    """Two at once: each group is reduced by one of them, and both are right about the items."""
    whole = tree_bytes(copied.address)
    for folder in (*GATHERED, "run/sums/gathered"):
        objects.delete_all(copied.objects, folder)
    found = []
    gather_one = lambda: found.append(gather(Store.open(copied.address)))
    threads = [threading.Thread(target=gather_one) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [44, 44, 44]
    assert reduced == [0, 1]
    assert tree_bytes(copied.address) == whole


@pytest.mark.parametrize(
    ("where", "name"), [(REDUCING, "load_with_warnings"), (MODULE, "write_reductions")]
)
def test_gather_that_lost_its_lease_writes_nothing_over_newer_tables(
    copied, monkeypatch, where, name
):
    """Suspended while it reduces, or before the last tables; another process takes over and gathers meanwhile."""
    whole, put_back = tree_bytes(copied.address), forget(copied, 5)
    place = connect.open_objects(f"{copied.address}/{keys.GATHERING}", create=True)
    does, seals = getattr(where, name), []

    def suspended(*args):
        found = does(*args)
        monkeypatch.setattr(where, name, does)
        put_back()
        held = holder(place)
        changes = {"machine": "other", "host": "node7", "generation": held.generation + 1}
        other = held.model_copy(update={**changes, "renewed": time.time()})
        objects.write(place, keys.lease(other.generation), json.dumps(other.model_dump()).encode())
        # Here it is the same process: it cannot wait for itself.
        lease = SimpleNamespace(check=lambda: None)
        monkeypatch.setattr(MODULE, "_alone", lambda store: nullcontext(lease))
        assert gather(Store.open(copied.address)) == 44
        seals.append(objects.read(copied.objects, keys.sums("gathered")))
        return found

    monkeypatch.setattr(where, name, suspended)
    with refused(LeaseHeld) as told:
        gather(copied)
    assert "\n" not in str(told.value)
    assert [objects.read(copied.objects, keys.sums("gathered"))] == seals
    assert tree_bytes(copied.address) == whole
    assert check(copied.address) == []


def test_tables_are_unsealed_before_anything_of_them_changes(copied, monkeypatch):
    """Who reads them can tell whether a gather has come between."""
    sealed = []
    put = REDUCING.put_array

    def noted(*args):
        sealed.append(objects.read(copied.objects, "run/sums/gathered.json") is not None)
        put(*args)

    monkeypatch.setattr(REDUCING, "put_array", noted)
    monkeypatch.setattr(TABLES, "put_array", noted)
    set_gather(copied, ["top=1", "reductions=[{name: counts}]"])
    gather(copied)
    assert sealed
    assert not any(sealed)


def test_require_rows_gathers_what_is_behind(copied):
    put_back = forget(copied, 0)
    assert require_rows(copied)["item"].shape == (38,)
    put_back()
    assert require_rows(copied)["item"].shape == (44,)


def test_gather_leaves_out_items_that_failed(copied):
    """Rows that a marker names as failed with an error are no part of a reduction, but of the items."""
    shard = next(copied.job.plan.shards())
    rows = np.arange(shard.start + 1, shard.stop)
    values = {
        n: copied.rows(0, n, shard.start, shard.stop)[1:] for n in [*copied.names(0), "status"]
    }
    marker = next(m for m in copied.committed.markers() if m.shard.number == 0)
    some = marker.model_copy(update={"without": (shard.start,)})
    write_shard(copied, some, values, rows)
    assert gather(copied) == 44
    tree = open_store(copied.address)
    assert tree["gathered/0"].attrs["items"] == 21
    assert int((tree["items"].status == 2).sum()) == 1


def test_reduce_of_done_items(tmp_path, monkeypatch):
    """An item that diverged has an infinite norm, the largest; a kernel gets it if it asks."""
    rates = {"rate": [0.1, 1e30, 0.2], "push": [[0, 0]] * 3}
    job = {**JOB, "params": {"n": 3, "n_steps": 7}, "sweep": {"zip": rates}}
    store, _ = run(tmp_path / "d.zarr", job)
    best = lambda: open_store(store.address)["gathered/0"].best_item.to_numpy().tolist()
    gather(store)
    assert sorted(best()) == [0, 2]
    monkeypatch.setattr(
        toy, "kernel", replace(toy.kernel, tables=replace(toy.kernel.tables, of_failed=True))
    )
    store = Store.open(store.address)
    gather(store)
    assert (best()[0], sorted(best())) == (1, [0, 1, 2])


def test_a_group_without_results_has_no_tables_and_is_not_reduced_again(copied, reduced):
    names = [*copied.names(0), "status"]
    for marker in copied.committed.markers(0):
        rows = np.arange(marker.shard.start, marker.shard.stop)
        none = {name: copied.rows(0, name, 0, 0) for name in names}
        empty = marker.model_copy(update={"without": tuple(rows.tolist())})
        write_shard(copied, empty, none, rows[:0])
    assert gather(copied) == 44
    assert reduced == [0]
    assert "gathered/0" not in open_store(copied.address).groups
    before = newest(copied)
    gather(copied)
    assert reduced == [0]
    assert written(copied, before) == set()
    assert not [one for one in check(copied.address) if "gathered" in one.key]


def test_a_reduction_that_fails_is_said_and_the_rest_is_gathered(copied, monkeypatch):
    def broken(store, group):
        if group == 0:
            raise ZeroDivisionError("no such median")
        reduce_group(store, group)

    set_gather(copied, ["top=1"])
    monkeypatch.setattr(REDUCING, "reduce_group", broken)
    with refused(JobError):
        gather(copied, SerialExecutor(1))
    monkeypatch.undo()
    assert reduction_error(copied).startswith("group 0: ZeroDivisionError: no such median")
    assert open_store(copied.address)["gathered/1"].sizes["place"] == 1
    gather(copied)
    assert reduction_error(copied) == ""
    assert open_store(copied.address)["gathered/0"].sizes["place"] == 1


MISTAKES = {
    "no result": lambda *given: given[3]["nrm"],
    "raises": lambda *given: given[2]["drvie"],
    "unknown": lambda *given: {"best": [1.0]},
    "axes": lambda *given: {"best_norm": 1.0},
    "objects": lambda *given: {"best_norm": np.array([1.0, None])},
    "wide": lambda *given: {"best_norm": np.ones(2, np.longdouble)},
    "lengths": lambda *given: {"best_norm": [1.0, 2.0], "best_item": [1]},
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_reduce_is_told_with_its_line_and_writes_nothing(copied, monkeypatch, mistake):
    broken = dataclasses.replace(
        copied.kernel, tables=dataclasses.replace(copied.kernel.tables, reduce=MISTAKES[mistake])
    )
    monkeypatch.setitem(copied.__dict__, "kernel", broken)
    with refused(JobError) as told:
        gather(copied)
    assert reduction_error(copied) == str(told.value)
    assert {*objects.list_keys(copied.objects, "items")}, "what needs no `reduce` is there"
    _, line, after = str(told.value).splitlines()
    assert line.startswith("  test_gather.py, line ")
    assert f"`ctd gather {copied.address} --trust` does the rest; the items then count as" in after
    again = Store.open(copied.address)
    gather(again)
    assert open_store(again.address)["gathered/0"].sizes["place"] == 3


# --- side by side -------------------------------------------------------------------------------------


def test_an_edited_reduce_needs_no_worker(copied, monkeypatch):
    """Workers refuse other source than that of the shards."""
    set_gather(copied, ["top=1"])
    monkeypatch.setattr(sys.modules["jobs.gather.gather"], "edited", lambda store: ["toy"])
    gather(copied, executor=Mortal({0: ATTEMPTS, 1: ATTEMPTS}))
    assert open_store(copied.address)["gathered/0"].sizes["place"] == 1


LATER = """
import numpy as np
from ctd.kernel import Display, Params, Tables, Traced, Var, one_shot

class P(Params):
    g: Traced[float] = 1.0

more = {}
kernel = one_shot("later", P, {"y": Var((), "1", "square")}, lambda static, shared, traced, key: {"y": traced.g**2}, **more)
"""
REDUCE = """
more = {
    "tables": Tables(
        lambda inputs, shared, columns, results, options: {"who": np.array([1, -1])},
        {"who": Var(("level",), "item", "the best item")},
    ), "display": Display(summary=("who",)),
}
"""


def test_a_reduce_that_is_written_later_makes_its_table(tmp_path, monkeypatch):
    """With the fields of the items that it names; -1 is none."""
    (tmp_path / "later.py").write_text(LATER)
    monkeypatch.syspath_prepend(tmp_path)
    job = {"kernel": "later", "sweep": {"grid": {"g": [2.0, 3.0]}}}
    store, _ = run(tmp_path / "l.zarr", job)
    (tmp_path / "later.py").write_text(LATER.replace("more = {}", REDUCE))
    sys.modules.pop("later", None)
    again = Store.open(store.address)
    gather(again)
    found = query(Store.open(store.address), table="level")
    assert found.who.tolist() == [1, -1]
    np.testing.assert_array_equal(found.g, [3.0, np.nan])


class Mortal(SerialExecutor):
    """Its worker dies of the first attempts at some groups."""

    def __init__(self, times):
        super().__init__(1)
        self.times = dict(times)
        self.seen = []

    def submit(self, work):
        self.seen.append(work.key)
        super().submit(work)

    def wait(self, timeout):
        work = self._waiting[0] if self._waiting else None
        if work and self.times.get(work.group, 0) > 0:
            self.times[work.group] -= 1
            self._waiting.pop(0)
            return [Report(*work.key, error="the worker died", fault="death")]
        return super().wait(timeout)


def test_groups_are_tried_again_on_another_worker(copied):
    whole = tree_bytes(copied.address)
    for folder in GATHERED:
        objects.delete_all(copied.objects, folder)
    executor = Mortal({1: 2})
    gather(copied, executor)
    assert executor.seen == [(0, 1), (1, 1), (1, 2), (1, 3)]
    assert tree_bytes(copied.address) == whole
    set_gather(copied, ["top=2"])
    with refused(JobError):
        gather(copied, Mortal({0: 3}))
    assert open_store(copied.address)["gathered/1"].sizes["place"] == 2


# --- blocks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block_bytes", [1, 100, 300, 1 << 20])
@pytest.mark.parametrize("chosen", ["all", "some", "none"])
def test_blocks_are_the_rows_in_order(finished, monkeypatch, block_bytes, chosen):
    monkeypatch.setattr("jobs.store.groups.BLOCK_BYTES", block_bytes)
    rows = {"all": np.ones(22, bool), "none": np.zeros(22, bool)}.get(chosen)
    if rows is None:
        rows = np.isin(np.arange(22), [0, 3, 4, 5, 13, 21])
    results = GroupResults(finished, 0, rows, finished.names(0))
    found = list(blocks(results, ["x", "norm"]))
    for name in ("x", "norm"):
        whole = finished.rows(0, name, 0, 22)[rows]
        got = [block[name] for block in found]
        assert all(len(part) for part in got)
        np.testing.assert_array_equal(np.concatenate(got or [whole[:0]]), whole)
        np.testing.assert_array_equal(results[name], whole)
    if block_bytes == 1:  # not even a shard: one at a time
        assert len(found) == {"all": 4, "some": 3, "none": 0}[chosen]


def test_blocks_of_plain_arrays_are_one():
    values = {"a": np.arange(3), "b": [1, 2, 3]}
    (block,) = blocks(values, ["a", "b"])
    np.testing.assert_array_equal(block["a"], [0, 1, 2])
    np.testing.assert_array_equal(block["b"], [1, 2, 3])


def test_columns_answer_for_traced_fields_that_are_not_swept():
    columns = Columns({"item": np.arange(3), "g": np.ones(3)}, {"g": 9.0, "push": [1.0, 2.0]}, 3)
    assert list(columns) == ["item", "g"]
    assert columns["g"].tolist() == [1, 1, 1]
    assert columns["push"].tolist() == [[1, 2]] * 3
    assert "push" not in columns
    with pytest.raises(KeyError):
        columns["psuh"]
