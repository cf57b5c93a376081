"""jobs.store.store, jobs.run.worker, jobs.run.shards, jobs.gather.gather with the serial executor: a toy job from file to answer."""

import json
import shutil

import jax
import numpy as np
import pytest
import toy
import xarray as xr
import zarr
from messages import refused
from stores import BASE, JOB, make, run, tree_bytes

from ctd.batch import DeviceSlots, Layout
from jobs import Store, open_store
from jobs.errors import JobError
from jobs.gather.check import check
from jobs.gather.gather import gather, set_gather
from jobs.run.prepare import difference, open_or_create, reopen
from jobs.run.shards import run_shards
from jobs.run.task import Task
from jobs.run.worker import SerialExecutor
from jobs.spec.job import parse_job
from jobs.storage import objects
from jobs.storage.checksums import digest, read_verified
from jobs.store.events import read_events
from jobs.store.manifest import FORMAT
from jobs.store.marker import Marker
from jobs.store.writer import write_shard


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "toy.zarr"
    store, progress = run(path)
    gather(store)
    return store, progress


def test_a_job_written_in_another_way_is_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(DeviceSlots, "temporaries", lambda self: 0)  # nothing is compiled
    job = lambda params: parse_job({"kernel": "train_rnn", "params": params}, "job")
    path = str(tmp_path / "j.zarr")
    open_or_create(job({"task": "integrator"}), BASE, "job", path, SerialExecutor(1))
    reopen(job({"task": {"name": "integrator"}}), path)
    reopen(job({"task": "integrator", "n": 100, "cell": "gru"}), path)
    for other in (
        {"task": "integrator", "n": 99},
        {"task": {"name": "integrator", "n_steps": 24}},
        {},
        {"task": "integrator", "m": 3},
        {"task": "integrator", "n": -1},
    ):
        with refused(JobError):
            reopen(job(other), path)


def test_run_computes_every_item(finished):
    store, progress = finished
    assert progress.items_done == progress.n_items == 44
    assert progress.shards_done == progress.n_shards == 8
    assert progress.outcomes == {"stopped": 44, "diverged": 0}
    for group, n in ((0, 3), (1, 5)):
        found = xr.open_zarr(zarr.storage.ObjectStore(store.objects), group=f"results/{group}")
        assert found.x.dims == ("item", "component")
        np.testing.assert_array_equal(found.component, np.arange(n) * 0.5)
        for k in (0, 10, 21):
            with jax.enable_x64(True):
                rate, push = float(found.rate[k]), found.push[k].values
                expected = toy.walk(int(found.item[k]), 5, n, 0.0, 7, rate, push, np.float32)
            # float32 walk of 7 steps with values of about 3.
            np.testing.assert_allclose(found.x[k], expected, atol=2e-6)
        assert (found.status == 1).all()


def test_a_result_that_is_missing_is_not_made_up(tmp_path):
    """Its files have changed since the plan, say: a fill value must not pass for a result."""
    store = make(tmp_path / "s.zarr", JOB)
    shard = next(store.job.plan.shards())
    n = shard.stop - shard.start
    values = {
        "x": np.zeros((n, 3)),
        "steps": np.zeros(n),
        "outcome": np.zeros(n),
        "status": np.ones(n),
    }
    with refused(ValueError):
        write_shard(store, Marker(shard=shard), values, np.arange(shard.start, shard.stop))
    assert store.committed.numbers() == set()


def test_store_opens_with_xarray_alone(finished):
    store, _ = finished
    tree = xr.open_datatree(store.address, engine="zarr")
    assert tree.attrs["ctd_format"] == FORMAT
    assert (
        tree.attrs["spec"]["sweep"]
        == parse_job(JOB, "job").model_dump(mode="json", exclude_defaults=True)["sweep"]
    )
    assert tree.attrs["provenance"]["versions"]["jax"] == jax.__version__
    group = tree["results/1"]
    assert group.attrs["swept"] == {"n": 5}
    assert set(group.to_dataset().coords) == {"item", "rate", "push", "component"}
    assert group.component.attrs == {"units": "m", "long_name": "place"}
    assert group.x.attrs == {"units": "m", "long_name": "position"}
    assert group.outcome.attrs["flag_meanings"] == "stopped diverged"
    assert tree["items"].sizes["item"] == 44
    assert open_store(store.address).groups == tree.groups


def test_gather_reduces_each_group(finished):
    store, _ = finished
    tree = open_store(store.address)
    for group in (0, 1):
        norms = np.sort(tree[f"results/{group}"].norm.values)[::-1]
        np.testing.assert_array_equal(tree[f"gathered/{group}"].best_norm, norms[:3])
    assert json.loads(tree["gathered/0"].attrs["options"]) == {"top": 3}


def test_gather_is_idempotent_and_takes_new_settings(finished):
    store, _ = finished
    before = tree_bytes(store.address)
    gather(store)
    assert tree_bytes(store.address) == before
    set_gather(store, ["top=2"])
    gather(Store.open(store.address))
    assert open_store(store.address)["gathered/0"].sizes["place"] == 2
    with refused(JobError):
        set_gather(store, ["top=0"])
    with refused(JobError):
        set_gather(store, ["tpo=0"])
    set_gather(store, ["top=3"])
    gather(Store.open(store.address))


def test_rerun_does_nothing_and_another_job_is_refused(finished):
    store, _ = finished
    before = tree_bytes(store.address)
    again, progress = run(store.address)
    assert progress.items_before == progress.items_done == 44
    assert tree_bytes(again.address) == before
    other = {**JOB, "params": {"n_steps": 8}, "seed": 6}
    with pytest.raises(JobError) as caught:
        make(store.address, other)
    assert "params.n_steps: 7 in the store, 8 in the job" in str(caught.value)
    assert "seed: 5 in the store, 6 in the job" in str(caught.value)


@pytest.mark.parametrize("keep", [[], [0], [1, 2, 7], range(7)])
def test_run_goes_on_from_any_set_of_markers(finished, tmp_path, keep):
    """Shards without a marker are done again, whatever is in their rows; the bytes are the same."""
    store, _ = finished
    path = tmp_path / "again.zarr"
    shutil.copytree(store.address, path)
    partial = Store.open(str(path))
    left = [shard for shard in partial.job.plan.shards() if shard.number not in keep]
    partial.committed.forget(left)
    for shard in left:
        partial.array(shard.group, "x")[shard.start : shard.stop] = -1.0
    progress = run_shards(partial, SerialExecutor(1))
    assert progress.shards_done == 8
    gather(partial)
    assert tree_bytes(path) == tree_bytes(store.address)


def test_gather_of_a_partial_run_has_the_committed_items(tmp_path):
    store = make(tmp_path / "p.zarr")
    assert gather(store) == 0
    executor = SerialExecutor(1)
    executor.start(store.address)
    shards = list(store.job.plan.shards())
    executor.submit(Task(shards[5]))
    assert executor.wait(0)[0].error is None
    assert gather(store) == shards[5].stop - shards[5].start
    items = open_store(store.address)["items"]
    assert items.sizes["item"] == 6
    assert (items.group == 1).all()


def test_markers_say_where_and_what(finished):
    store, _ = finished
    for marker, shard in zip(store.committed.markers(), store.job.plan.shards(), strict=True):
        assert marker.shard == shard
        assert marker.layout == Layout(4, 2, 1)
        assert marker.device_kind == "cpu"
        assert marker.seconds > 0
        names = {key.split("/")[2] for key in marker.sha256}
        assert names == {*store.names(shard.group), "status"}
        for key, sha in marker.sha256.items():
            assert digest(objects.read(store.objects, key)) == sha
    events = [e.kind for e in read_events(store)]
    assert events.count("done") == 8
    assert events[0] == "run"


def test_each_shard_writes_whole_objects(finished):
    """Every stored object holds rows of one shard only (a retry can never touch another's)."""
    store, _ = finished
    for group in (0, 1):
        for name in [*store.names(group), "status"]:
            chunk = store.array(group, name).chunks[0]
            assert store.job.plan.layouts[group].shard_items % chunk == 0


def test_microbatch_is_chosen_once_and_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("ctd.batch.tune.SHARE", 0.0)
    job = {**JOB, "run": {"shard_items": 6, "slots": 4}}
    store, _ = run(tmp_path / "m.zarr", job)
    chosen = read_verified(store.objects, "run/layout/0-cpu.json")
    # No run is long enough for a second candidate.
    assert set(chosen["seconds_per_item"]) == {"1"}
    used = {m.layout.microbatch for m in store.committed.markers() if m.shard.group == 0}
    assert used == {chosen["microbatch"]}


def test_failed_items_are_data(tmp_path):
    job = {**JOB, "sweep": {"grid": {"rate": [0.5, 1e30]}}, "params": {"n_steps": 20}}
    store, progress = run(tmp_path / "f.zarr", job)
    assert progress.outcomes == {"stopped": 1, "diverged": 1}
    np.testing.assert_array_equal(store.rows(0, "status", 0, 2), [1, 2])


def test_failing_load_is_reported_before_anything_is_written(tmp_path):
    job = {**JOB, "params": {"offset": "x"}}
    with refused(JobError):
        run(tmp_path / "x.zarr", job)
    assert not (tmp_path / "x.zarr").exists()


def test_a_store_whose_creation_begins_meanwhile_does_not_exist_yet(tmp_path, monkeypatch):
    """Else `ctd watch`, which waits for it, would end because run/job.json is missing."""
    listed = objects.list_keys

    def begun(place, prefix):
        for key in ("run/creating.json", "zarr.json"):
            objects.write(place, key, b"{}")
        return listed(place, prefix)

    monkeypatch.setattr(objects, "list_keys", begun)
    assert not Store.exists(str(tmp_path))


class Flaky(SerialExecutor):
    """Fails the first attempts at some shards, as a lost worker would."""

    name = "flaky"

    def __init__(self, times):
        super().__init__(1)
        self.times = dict(times)

    def wait(self, timeout):
        reports = super().wait(timeout)
        for k, report in enumerate(reports):
            if self.times.get(report.shard, 0) > 0:
                self.times[report.shard] -= 1
                reports[k] = report._replace(marker=None, error="lost", about={"host": "h"})
        return reports


@pytest.mark.parametrize(
    ("times", "failed", "retried"), [({2: 1, 3: 2}, {}, 3), ({1: 3}, {1: "lost"}, 2)]
)
def test_run_retries_then_gives_up(tmp_path, times, failed, retried):
    store = make(
        tmp_path / "r.zarr", {**JOB, "run": {**JOB["run"], "retries": 2, "backoff_s": 0.01}}
    )
    progress = run_shards(store, Flaky(times))
    assert progress.failed == failed
    assert progress.retried == retried
    errors = [e for e in read_events(store) if e.kind == "error"]
    assert len(errors) == sum(times.values())


def test_listener_sees_progress(tmp_path):
    seen = []
    store = make(tmp_path / "l.zarr")
    run_shards(store, SerialExecutor(1), lambda p: seen.append((p.items_done, p.shards_done)))
    assert seen[0] == (0, 0)
    assert seen[-1] == (44, 8)
    assert seen == sorted(seen)


@pytest.mark.parametrize("what", ["format", "missing", "nothing"])
def test_open_refuses(tmp_path, finished, what):
    path = tmp_path / "s.zarr"
    if what != "nothing":
        shutil.copytree(finished[0].address, path)
        job = path / "run" / "job.json"
        if what == "format":
            job.write_text(json.dumps({**json.loads(job.read_text()), "format": FORMAT + 1}))
        else:
            job.unlink()
            job.with_name("job.copy.json").unlink()
    with refused(JobError):
        Store.open(str(path))


def test_create_leaves_nothing_after_an_error(tmp_path, monkeypatch):
    path = tmp_path / "c.zarr"
    monkeypatch.setattr(
        "jobs.store.creation._consolidate",
        lambda store: (_ for _ in ()).throw(OSError("disk full")),
    )
    with refused(JobError) as raised:
        make(path)
    assert raised.value.exit_code == 2, "it is no fault of the storage that may pass"
    assert not path.exists()


def test_difference_names_fields():
    a, b = parse_job(JOB, "a"), parse_job({**JOB, "seed": 1, "run": {"retries": 9}}, "b")
    assert difference(a, b) == "  seed: 5 in the store, 1 in the job"
    default = parse_job({**JOB, "seed": 0}, "c")
    assert difference(default, a) == "  seed: 0 in the store, 5 in the job"


# --- the layout of arrays -----------------------------------------------------------------------------

WIDE = {
    "kernel": "toy",
    "params": {"n_steps": 3, "n": 900},
    "sweep": {"grid": {"rate": {"linspace": [-0.5, 0.5, 20]}}},
    "run": {"shard_items": 8, "slots": 8, "microbatch": 2},
}
"""Shards of 8, 8 and 4 items with results of 3.6 kB."""


@pytest.fixture
def cut(monkeypatch):
    """Chunks of 4 to 8 kB, so that a shard's values are cut into chunks inside its object."""
    monkeypatch.setattr("jobs.plan.layout.CHUNK_BYTES", (4_000, 8_000))


def test_large_objects_are_cut_inside(tmp_path, cut):
    store, _ = run(tmp_path / "w.zarr", WIDE)
    array = store.array(0, "x")
    assert (array.shards, array.chunks) == ((8, 900), (2, 900))
    assert store.array(0, "norm").shards is None
    keys = {
        k.removeprefix("results/0/x/") for k in objects.list_keys(store.objects, "results/0/x/c")
    }
    assert keys == {"c/0/0", "c/1/0", "c/2/0"}
    assert all(
        len(marker.sha256) == 5 for marker in store.committed.markers()
    )  # one an array and shard
    tree = xr.open_datatree(store.address, engine="zarr")
    with jax.enable_x64(True):
        walked = toy.walk(19, 0, 900, 0.0, 3, 0.5, (0, 0), np.float32)
    np.testing.assert_allclose(tree["results/0"].x[19], walked, atol=2e-6)  # float32, 3 steps
    assert check(store.address) == []


@pytest.mark.parametrize("where", ["whole", "last"])
@pytest.mark.parametrize("left", [b"torn", b""])
def test_a_shard_is_written_over_whatever_was_left(tmp_path, cut, where, left):
    """The last object of an array is not filled by its rows; what a killed worker left is not read."""
    store = make(tmp_path / "t.zarr", WIDE)
    number = 2 if where == "last" else 0
    for name in ("x", "norm"):
        key = f"results/0/{name}/c/{number}{'/0' if name == 'x' else ''}"
        objects.write(store.objects, key, left)
    progress = run_shards(store, SerialExecutor(1))
    assert progress.failed == {}
    again, _ = run(tmp_path / "u.zarr", WIDE)
    assert tree_bytes(store.address) == tree_bytes(again.address)


def test_objects_are_those_that_zarr_would_write(tmp_path, cut):
    store, _ = run(tmp_path / "z.zarr", WIDE)
    other = make(tmp_path / "y.zarr", WIDE)
    for name in [*store.names(0), "status"]:
        other.array(0, name)[:] = store.rows(0, name, 0, 20)
    found, expected = (
        {k: v for k, v in tree_bytes(s.address).items() if "/c/" in k} for s in (store, other)
    )
    assert found == expected
