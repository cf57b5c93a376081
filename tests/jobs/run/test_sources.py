"""jobs.run.sources: which files a job's results come from, and what happens once they are edited."""

import hashlib
import importlib
import sys

import numpy as np
import pytest
from messages import refused
from places import ROOT
from stores import BASE

from ctd.catalogue import kernel_names
from jobs import keys
from jobs.errors import JobError
from jobs.gather.check import check
from jobs.gather.gather import set_gather
from jobs.run.fork import fork
from jobs.run.prepare import open_or_create
from jobs.run.shards import reconsider, run_shards
from jobs.run.sources import SourceDiffers, combined, sources_of
from jobs.run.stop import Stop
from jobs.run.worker import SerialExecutor
from jobs.spec.job import parse_job
from jobs.storage import objects
from jobs.storage.checksums import checksummed, write_sums
from jobs.store.events import read_events
from jobs.store.manifest import write_job
from jobs.store.marker import FailedItem, FailedItems
from jobs.store.store import Store

KERNEL = """
from typing import TYPE_CHECKING

import numpy
import jax.numpy as jnp
from ctd.kernel import File, Params, Static, Traced, Var, one_shot
from {name}_parts import factor
if TYPE_CHECKING:
    import {name}_absent


class Scale(Params):
    by: Traced[float] = 1.0
    path: File[str | None] = None


def run(static, shared, traced, key):
    return {{"value": traced.by * factor.FACTOR * shared}}


def load(inputs):
    return numpy.load(inputs.path) if inputs.path else numpy.float32(1)


kernel = one_shot("scale", Scale, {{"value": Var()}}, run, load=load)
"""
SWEEP = {"grid": {"by": [1.0, 2.0, 3.0, 4.0]}}


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A user's kernel in a module beside its job, with a package of its own."""
    name = f"own_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(KERNEL.format(name=name))
    parts = tmp_path / f"{name}_parts"
    parts.mkdir()
    (parts / "__init__.py").write_text("from . import factor\n")
    (parts / "factor.py").write_text("FACTOR = 2.0\n")
    (parts / "unused.py").write_text("raise RuntimeError\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    return name


def job(name, **changes):
    run = {"shard_items": 2, "slots": 1, "microbatch": 1, "workers": 1}
    return parse_job({"kernel": name, "sweep": SWEEP, "run": run} | changes, "job")


def make(name, folder, store="s.zarr", spec=None):
    path = str(folder / store)
    return open_or_create(spec or job(name), str(folder), "job", path, SerialExecutor(1))


def edit(folder, name, value):
    (folder / f"{name}_parts" / "factor.py").write_text(f"FACTOR = {value}\n")
    forget(name)


def forget(name):
    importlib.invalidate_caches()
    for module in [m for m in sys.modules if m.startswith(name)]:
        del sys.modules[module]


def test_sources_are_what_the_kernel_imports_of_the_users_and_of_ctd(own, tmp_path):
    found = sources_of(job(own), str(tmp_path))
    users = {module for module in found if not module.startswith("ctd")}
    assert users == {own, f"{own}_parts", f"{own}_parts.factor"}
    assert {"ctd.kernel", "ctd.batch"} <= found.keys()
    assert not any(module.split(".")[0] in ("jobs", "cluster", "numpy", "jax") for module in found)
    text = (tmp_path / f"{own}_parts" / "factor.py").read_bytes()
    assert found[f"{own}_parts.factor"] == hashlib.sha256(text).hexdigest()


APART = {
    "lfads": ("posterior.py", "torch_file.py"),
    "fixed_points": ("ablation.py", "connections.py", "trials.py"),
    "esn": ("nvar.py",),
    "mechanisms": ("evidence.py", "fits.py", "classifier.py", "summary.py"),
}
"""Files of a kernel's folder that its results do not depend on: a kernel of its own, a writer of files."""


@pytest.mark.parametrize("name", [name for name in kernel_names() if "." not in name])
def test_sources_of_every_kernel_are_its_own_modules(name):
    found = sources_of(parse_job({"kernel": name}, "job"), BASE)
    folder = ROOT / "ctd" / name
    files = [folder.with_suffix(".py")] if not folder.is_dir() else folder.glob("*.py")
    for path in files:
        if path.name in APART.get(name, ()):
            continue
        module = f"ctd.{name}" + ("" if path.stem in (name, "__init__") else f".{path.stem}")
        assert found[module] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_sources_of_a_kernel_inside_of_another_have_both():
    found = sources_of(parse_job({"kernel": "lfads.posterior"}, "job"), BASE)
    assert {"ctd.lfads.posterior", "ctd.lfads.inference", "ctd.lfads.model"} <= found.keys()


def test_sources_have_the_task_that_a_job_names(own, tmp_path):
    spec = parse_job({"kernel": "train_rnn", "params": {"task": f"{own}_parts.factor.X"}}, "job")
    assert f"{own}_parts.factor" in sources_of(spec, str(tmp_path))


def test_an_edited_source_is_refused_until_it_is_accepted(own, tmp_path, monkeypatch):
    monkeypatch.setattr("jobs.run.task.TICK_S", 0.0)
    store = make(own, tmp_path)
    stop = Stop()
    run_shards(store, SerialExecutor(1), lambda p: p.shards_done and stop.ask("enough", 0), stop)
    assert store.committed.numbers() == {0}
    edit(tmp_path, own, 5.0)
    for address in (store.address, make(own, tmp_path).address):
        with refused(JobError):
            run_shards(Store.open(address), SerialExecutor(1))
    objects.write(store.objects, "run/checkpoints/0/000001/x", b"of the old source")
    reconsider(Store.open(store.address), changes=True)
    assert not list(objects.list_keys(store.objects, "run/checkpoints"))
    again = Store.open(store.address)
    run_shards(again, SerialExecutor(1))
    assert again.rows(0, "value", 0, 4).tolist() == [2.0, 4.0, 15.0, 20.0]
    first, second = [marker.source for marker in again.committed.markers()]
    assert first == combined(store.job.sources) != second == combined(again.job.sources)
    said = [event.text for event in read_events(again) if event.kind == "decision"]
    assert said == [f"changes accepted: {own}_parts.factor"]


def test_a_replaced_input_file_is_refused_until_it_is_accepted(own, tmp_path):
    """Also where nothing is left to compute: the results are those of the file that was there."""
    np.save(tmp_path / "fed.npy", np.float32(1))
    store = make(own, tmp_path, spec=job(own, params={"path": "fed.npy"}))
    run_shards(store, SerialExecutor(1))
    np.save(tmp_path / "fed.npy", np.float32(2))
    with refused(JobError):
        run_shards(Store.open(store.address), SerialExecutor(1))
    reconsider(Store.open(store.address), changes=True)
    again = Store.open(store.address)
    run_shards(again, SerialExecutor(1))
    assert again.rows(0, "value", 0, 4).tolist() == [2.0, 4.0, 6.0, 8.0]
    said = [event.text for event in read_events(again) if event.kind == "decision"]
    assert said == ["changes accepted: fed.npy"]


def test_accepted_changes_leave_no_checksums_of_the_decisions_that_they_take(own, tmp_path):
    store = make(own, tmp_path)
    run_shards(store, SerialExecutor(1))
    objects.write(store.objects, keys.decision(0, 0), checksummed({}))
    write_sums(store.objects, "decisions/0", [keys.decision(0, 0)])
    assert check(store.address) == []
    edit(tmp_path, own, 5.0)
    reconsider(Store.open(store.address), changes=True)
    assert not list(objects.list_keys(store.objects, keys.DECISIONS))
    assert check(store.address) == []


def test_settings_and_accepted_source_of_two_processes_are_both_kept(own, tmp_path):
    """Each process opened the store before the other one wrote run/job.json."""
    address = make(own, tmp_path).address
    edit(tmp_path, own, 5.0)
    settings = lambda name: f"reductions=[{{name: counts, table: {name}}}]"
    resumed, gathered, again = (Store.open(address) for _ in range(3))
    set_gather(gathered, [settings("a")])
    reconsider(resumed, changes=True)
    tables = lambda job: [one["table"] for one in job.spec.gather["reductions"]]
    assert tables(Store.open(address).job) == ["a"]
    accepted = Store.open(address).job.sources
    set_gather(again, [settings("b")])
    job = Store.open(address).job
    assert tables(job) == ["b"]
    assert job.sources == accepted == resumed.job.sources != gathered.job.sources


def test_trying_failed_items_again_takes_nothing_away_before_it_may_run(own, tmp_path):
    store = make(own, tmp_path)
    run_shards(store, SerialExecutor(1))
    shard = next(store.job.plan.shards())
    failing = [FailedItem(row=0, item=0, error="no")]
    store.failed.add(FailedItems(shard=shard, rows=failing))
    edit(tmp_path, own, 5.0)
    assert [item.error for item in store.failed.items()[0]] == ["no"]
    with refused(JobError):
        reconsider(Store.open(store.address), failed=True)
    # Without --failed, too: the new source may mend what failed.
    with refused(JobError):
        run_shards(Store.open(store.address), SerialExecutor(1))
    assert store.committed.numbers() == {0, 1}
    reconsider(Store.open(store.address), failed=True, changes=True)
    assert store.committed.numbers() == {1}
    assert (store.failed.items(), list(objects.list_all(store.objects, "run/failed"))) == ({}, [])


def test_a_process_that_has_imported_what_was_edited_since_is_refused(own, tmp_path):
    store = make(own, tmp_path)
    (tmp_path / f"{own}_parts" / "factor.py").write_text("FACTOR = 5.0\n")
    with refused(JobError):
        run_shards(store, SerialExecutor(1))
    importlib.reload(sys.modules[f"{own}_parts.factor"])
    with refused(JobError):
        run_shards(store, SerialExecutor(1))


def test_sources_execute_nothing(own, tmp_path, monkeypatch):
    (tmp_path / "loud.py").write_text("raise SystemExit('executed')\n")
    package = tmp_path / "loud_package"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('executed')\n")
    (package / "inner.py").write_text("")
    kernel = tmp_path / f"{own}.py"
    kernel.write_text(kernel.read_text() + "\ndef late():\n    import loud, loud_package.inner\n")
    found = sources_of(job(own), str(tmp_path))
    assert {"loud", "loud_package", "loud_package.inner"} <= found.keys()
    assert not {"loud", "loud_package"} & sys.modules.keys()


def test_sources_are_not_looked_for_in_the_names_of_files():
    spec = parse_job({"kernel": "lfads", "params": {"data": "jax.h5"}}, "job")
    assert (
        sources_of(spec, BASE).keys()
        == sources_of(parse_job({"kernel": "lfads"}, "job"), BASE).keys()
    )


def test_sources_are_found_where_the_current_folder_is_no_more(own, tmp_path, monkeypatch):
    here = sources_of(job(own), str(tmp_path))
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    assert sources_of(job(own), ".") == here
    gone.rmdir()  # Ray does so, once the driver of a job has begun
    assert sources_of(job(own), ".") == here


def test_a_kernel_may_be_called_like_a_module_of_ctd(own, tmp_path):
    (tmp_path / "curves.py").write_text((tmp_path / f"{own}.py").read_text())
    assert "curves" in sources_of(job("curves"), str(tmp_path))
    del sys.modules["curves"]


def test_another_module_of_the_same_name_is_refused(own, tmp_path):
    sources_of(job(own), str(tmp_path))
    other = tmp_path / "other"
    other.mkdir()
    copy = other / f"{own}.py"
    copy.write_text((tmp_path / f"{own}.py").read_text())
    sources_of(job(own), str(other))
    copy.write_text(copy.read_text() + "# another\n")
    with refused(JobError):
        sources_of(job(own), str(other))


def test_a_complete_store_of_other_source_is_not_taken_for_the_jobs(own, tmp_path):
    store = make(own, tmp_path)
    run_shards(store, SerialExecutor(1))
    run_shards(make(own, tmp_path), SerialExecutor(1))
    edit(tmp_path, own, 5.0)
    with refused(JobError):
        run_shards(make(own, tmp_path), SerialExecutor(1))


def test_a_fork_of_other_source_is_refused(own, tmp_path):
    store = make(own, tmp_path)
    run_shards(store, SerialExecutor(1))
    edit(tmp_path, own, 5.0)
    grown = job(own, sweep=[SWEEP, {"grid": {"by": [9.0]}}])
    where = grown, str(tmp_path), "job", str(tmp_path / "grown.zarr")
    with refused(JobError):
        fork(*where, store, SerialExecutor(1))
    assert not Store.exists(where[-1])


def test_a_worker_with_other_source_computes_nothing(own, tmp_path):
    store = make(own, tmp_path)

    class Edits(SerialExecutor):
        """The worker is on a machine with another version."""

        def start(self, *given):
            edit(tmp_path, own, 5.0)
            super().start(*given)

    with refused(SourceDiffers):
        run_shards(store, Edits(1))
    assert store.committed.numbers() == set()


def test_a_module_that_lies_elsewhere_on_another_machine_is_no_change(own, tmp_path, monkeypatch):
    store = make(own, tmp_path)
    assert f"{own}_parts.factor" in store.job.sources
    installed = tmp_path / "site-packages"
    installed.mkdir()
    (tmp_path / f"{own}_parts").rename(installed / f"{own}_parts")
    monkeypatch.syspath_prepend(str(installed))
    forget(own)
    assert f"{own}_parts.factor" not in sources_of(job(own), str(tmp_path))
    run_shards(store, SerialExecutor(1))
    assert {marker.source for marker in store.committed.markers()} == {combined(store.job.sources)}


def test_stores_without_sources_go_on(own, tmp_path):
    store = make(own, tmp_path)
    object.__setattr__(store.job, "sources", {})
    write_job(store.objects, store.job)
    edit(tmp_path, own, 5.0)
    run_shards(Store.open(store.address), SerialExecutor(1))
    assert store.committed.numbers() == {0, 1}
