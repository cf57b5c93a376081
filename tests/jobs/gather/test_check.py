"""`ctd check`: whatever is done to any object of a store is found, and repaired to the same bytes."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from failing import Failing, holds
from messages import refused
from processes import until
from stores import JOB, files, make, run, tree_bytes

from jobs import keys
from jobs.errors import JobError
from jobs.gather.check import OTHERS, check
from jobs.gather.check import damage as damage_behind
from jobs.gather.gather import gather
from jobs.query.collection import open_all
from jobs.query.query import answer
from jobs.run.shards import run_shards
from jobs.storage import connect, objects
from jobs.storage.checksums import checksummed, read_verified
from jobs.storage.lease import Lease, LeaseHeld, holder, part_place
from jobs.store.store import Store

NOTES = (
    *("run/events", "run/sums/events"),
    *("run/gathering", "run/lease", "run/cancel", "run/submit", "run/card.json"),
)
"""What only says what happened: nothing is made from it. (The card may be missing: tests/jobs/query/test_listing.py.)"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A store with all that there can be in it: a measured layout, halved slots, a failed item."""
    path = tmp_path_factory.mktemp("store") / "toy.zarr"
    job = {**JOB, "run": {"shard_items": 11, "slots": 4, "retries": 0, "backoff_s": 0}}
    store = make(path, job)

    def fault(task):
        if task.shard.group == 1 and (task.slots or 4) > 2:
            return "memory"
        return task.shard.group == 0 and holds(task, {3}) and "error"

    run_shards(store, Failing(fault))
    gather(store)
    assert check(str(path)) == []
    return store


def damage(path, how, rng):
    data = path.read_bytes()
    if how == "deleted":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(data[: int(rng.integers(len(data)))])
    else:
        at = int(rng.integers(len(data)))
        path.write_bytes(data[:at] + bytes([data[at] ^ (1 << rng.integers(8))]) + data[at + 1 :])


def objects_of(path):
    return {k: data for k, data in files(path).items() if not k.startswith(NOTES)}


def every_object(path):
    return sorted(objects_of(path))


ARRAYS = re.compile("^(results/0|gathered/0|items|shards|reduced/[^/]+)/[^/]+/")


def of_each_kind(path):
    """Of objects whose names are equal but for numbers and the name of an array, the second, or the one there is."""
    kinds = {}
    for key in every_object(path):
        kinds.setdefault(ARRAYS.sub(r"\1/array/", re.sub(r"\d+", "0", key)), []).append(key)
    return [keys[min(1, len(keys) - 1)] for keys in kinds.values()]


def recover(path, finished, key, how, seed, resumed):
    """Damage an object; find it, repair it, resume; say what else was touched on the way.

    `resumed`: the shards that were left, and the kind of damage, of the resumptions so far: they are not seen again.
    A copy that has become what it was is there for the next object.
    """
    if not path.exists():
        shutil.copytree(finished.address, path)
    damage(path / key, how, np.random.default_rng(seed))
    before = objects_of(path)
    assert check(str(path), repair=True), f"{key} {how}: not found"
    after = objects_of(path)
    touched = {k for k in before.keys() | after.keys() if before.get(k) != after.get(k)}
    store = Store.open(str(path))
    left = frozenset(store.committed.numbers()), how
    if len(left[0]) < 4:
        if left in resumed:
            shutil.rmtree(path)
            return touched
        resumed.add(left)
        run_shards(
            store, Failing(lambda task: holds(task, {3}) and task.shard.group == 0 and "error")
        )
        gather(store)
    assert tree_bytes(path) == tree_bytes(finished.address), f"{key} {how}"
    # Of the finished store, object by object, nothing was found.
    if objects_of(path) != objects_of(finished.address):
        assert check(str(path)) == []
        shutil.rmtree(path)
    return touched


HOW = ("truncated", "flipped", "deleted")


def test_damage_to_each_kind_of_object_is_found_and_repaired(tmp_path, finished):
    """At a random place; a repair changes that object and markers, nothing else.

    The run goes on once from the same shards.
    """
    resumed = set()
    for seed, key in enumerate(of_each_kind(finished.address)):
        damaged_and_repaired(tmp_path, finished, key, HOW[seed % 3], seed, resumed)
    assert len(resumed) > 1


@pytest.mark.endurance
def test_any_damage_to_any_object_is_found_and_repaired(tmp_path, finished):
    """In all ways, and the run goes on each time."""
    for seed, key in enumerate(every_object(finished.address)):
        for how in HOW:
            damaged_and_repaired(tmp_path, finished, key, how, seed, set())


def damaged_and_repaired(tmp_path, finished, key, how, seed, resumed):
    touched = recover(tmp_path / "d.zarr", finished, key, how, seed, resumed)
    derived = key.startswith(("gathered", "items", "shards", "zarr.json", "run/sums/gathered"))
    if not derived:
        others = {k for k in touched - {key} if "segments/" not in k}
        assert others == set(), f"{key} {how}"


def test_what_other_versions_would_make_otherwise_is_not_written(tmp_path, finished, monkeypatch):
    """Metadata that do not go with the arrays that are there would be worse than damaged ones."""
    path, key = tmp_path / "v.zarr", "results/0/zarr.json"
    shutil.copytree(finished.address, path)
    damage(path / key, "flipped", np.random.default_rng(4))
    before = (path / key).read_bytes()
    with monkeypatch.context() as other:
        other.setattr("jobs.plan.packing.MOST_OBJECTS", 0)  # as another version may have it
        findings = {finding.key: finding.cure for finding in check(str(path), repair=True)}
    assert findings[key].startswith("not made again, since these versions")
    assert (path / key).read_bytes() == before
    check(str(path), repair=True)
    assert tree_bytes(path) == tree_bytes(finished.address)


def test_an_error_in_making_a_store_is_no_damage(tmp_path, monkeypatch):
    """What is not there yet is not missing."""
    monkeypatch.setattr("jobs.store.creation.write_sums", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError) as caught:
        make(tmp_path / "toy.zarr", JOB)
    assert damage_behind(caught.value) is None


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("folder", ["run/events", "run/sums/events"])
def test_damage_to_what_happened_is_found_and_the_rest_kept(tmp_path, finished, folder, how):
    path = tmp_path / "e.zarr"
    shutil.copytree(finished.address, path)
    (key,) = [key for key in files(path) if key.startswith(folder)]
    damage(path / key, how, np.random.default_rng(2))
    assert [finding.key for finding in check(str(path))] == [key]
    before = files(path)
    check(str(path), repair=True)
    after = files(path)
    changed = {k for k in before.keys() | after.keys() if before.get(k) != after.get(k)}
    assert all(k.startswith(("run/sums/events", "run/lease")) for k in changed)
    assert check(str(path)) == []


@pytest.mark.parametrize(
    ("key", "how", "again"),
    [
        ("results/0/x/c/1/0", "flipped", {1}),
        ("results/1/status/c/0", "deleted", {2}),
        ("run/segments/00000000.jsonl", "flipped", {1}),
        ("run/segments/00000000.jsonl", "truncated", {1, 2, 3}),
        ("run/failed-segments/00000000.jsonl", "truncated", {0}),
        ("results/0/item/c/0", "flipped", set()),
        ("run/job.json", "flipped", set()),
    ],
)
def test_only_damaged_shards_are_computed_again(tmp_path, finished, key, how, again):
    path = tmp_path / "s.zarr"
    shutil.copytree(finished.address, path)
    damage(path / key, how, np.random.default_rng(1))
    found = check(str(path), repair=True)
    assert key in [finding.key for finding in found]
    store = Store.open(str(path))
    assert {0, 1, 2, 3} - store.committed.numbers() == again
    executor = Failing(lambda task: False)
    run_shards(store, executor)
    assert {task.shard.number for task in executor.seen} == again


def test_repair_of_results_and_of_a_table_made_of_them(tmp_path, finished, ctd):
    """The gather that makes the table again reads the rows of all shards, also those that are to be computed again."""
    path = tmp_path / "s.zarr"
    shutil.copytree(finished.address, path)
    for key in ("results/0/x/c/1/0", "results/1/status/c/0", "items/status/c/0"):
        damage(path / key, "flipped", np.random.default_rng(1))
    code, out, err = ctd("check", path, "--repair")
    assert code == 0, err
    assert "2 shards not computed; `ctd resume" in out
    code, out, err = ctd("query", path)
    assert code == 0, err
    assert ctd("check", path)[0] == 0
    run_shards(Store.open(str(path)), Failing(lambda task: False))
    gather(Store.open(str(path)))
    for key in ("results/0/x/c/1/0", "results/1/status/c/0"):
        assert (path / key).read_bytes() == (Path(finished.address) / key).read_bytes()


def test_check_of_a_run_that_is_not_complete_says_so(tmp_path):
    store = make(tmp_path / "p.zarr")
    executor = Failing(lambda task: task.shard.number != 2 and "input")
    run_shards(store, executor)
    found = check(store.address)
    assert len(found) == 7
    assert all("not computed" in finding.what for finding in found)


def test_leftovers_are_found_and_removed(tmp_path, finished):
    path = tmp_path / "l.zarr"
    shutil.copytree(finished.address, path)
    left = [
        "run/checkpoints/0/000001/0",
        "results/0/x/c/0/0#7",
        "run/done/0/000000-0a1b2c3d.json#1",
    ]
    for key in left:
        (path / key).parent.mkdir(parents=True, exist_ok=True)
        (path / key).write_bytes(b"half")
    assert sorted(finding.key for finding in check(str(path))) == sorted(left)
    check(str(path), repair=True)
    assert check(str(path)) == []
    assert not any((path / key).exists() for key in left)


def test_a_reader_refuses_a_damaged_object_in_place_of_wrong_numbers(tmp_path, finished):
    import xarray as xr

    path = tmp_path / "r.zarr"
    shutil.copytree(finished.address, path)
    damage(path / "results/0/norm/c/0", "flipped", np.random.default_rng(3))
    with refused(ValueError):
        xr.open_datatree(path, engine="zarr")["results/0"].norm.load()


def test_damage_behind_a_question(tmp_path, finished):
    """A question asks a collection of stores, also where there is one."""
    path = tmp_path / "q.zarr"
    shutil.copytree(finished.address, path)
    damage(path / "items/rate/c/0", "flipped", np.random.default_rng(3))
    with pytest.raises(ValueError) as caught:
        answer(open_all([str(path)], print), columns="rate")
    assert damage_behind(caught.value).startswith(f"{path}: items/rate/c/0 is damaged; ")


def test_repair_of_a_store_that_runs_is_refused(tmp_path, finished):
    path = tmp_path / "b.zarr"
    shutil.copytree(finished.address, path)
    lease = Lease.acquire(connect.open_objects(str(path)), str(path))
    with refused(JobError):
        check(str(path), repair=True)
    assert check(str(path)) == []
    lease.release()


def test_repair_beside_a_driver_of_a_part_is_refused(tmp_path, finished):
    path = tmp_path / "p.zarr"
    shutil.copytree(finished.address, path)
    lease = Lease.acquire(part_place(str(path), "0001"), str(path))
    with lease.renewing(), refused(LeaseHeld):
        check(str(path), repair=True)
    assert check(str(path), repair=True) == []


@pytest.mark.parametrize("key", ["run/checkpoints/0/000001/0", "results/0/zarr.json"])
def test_repair_renews_its_lease_and_stops_once_it_is_lost(tmp_path, finished, monkeypatch, key):
    """Nothing more is removed or written after another process has taken the store over."""
    path = tmp_path / "t.zarr"
    shutil.copytree(finished.address, path)
    left = path / key
    left.parent.mkdir(parents=True, exist_ok=True)
    left.write_bytes(b"half")
    monkeypatch.setattr("jobs.storage.lease.POLL_S", 0.01)
    monkeypatch.setattr("jobs.storage.lease.RENEW_S", 0.02)
    store, real = Store.open(str(path)), Lease.check

    def slow(lease):
        before = holder(store.objects)
        until(lambda: holder(store.objects).renewed > before.renewed, "it is renewed")
        newer = before.model_copy(update={"generation": before.generation + 1, "host": "node9"})
        objects.write(
            store.objects, keys.lease(newer.generation), json.dumps(newer.model_dump()).encode()
        )
        real(lease)

    monkeypatch.setattr(Lease, "check", slow)
    with refused(LeaseHeld):
        check(str(path), repair=True)
    assert left.read_bytes() == b"half"


def test_a_driver_that_folds_meanwhile_is_no_damage(tmp_path, monkeypatch):
    monkeypatch.setattr("jobs.run.ledger.Ledger.compact", lambda *args: None)
    store, _ = run(tmp_path / "f.zarr")
    listing = objects.list_keys

    def late(where, prefix):
        if prefix == keys.SEGMENTS:
            monkeypatch.setattr(objects, "list_keys", listing)
            store.committed.compact()
        return listing(where, prefix)

    monkeypatch.setattr(objects, "list_keys", late)
    assert check(store.address) == []
    assert list(listing(store.objects, keys.DONE)) == []


def test_both_copies_of_the_job_damaged_is_an_error(tmp_path, finished):
    path = tmp_path / "j.zarr"
    shutil.copytree(finished.address, path)
    for name in ("job.json", "job.copy.json"):
        damage(path / "run" / name, "flipped", np.random.default_rng(5))
    with refused(JobError):
        check(str(path))


JOBS = {
    "a list for the spec": {"spec": []},
    "a text for the format": {"format": "one"},
    "a number for the layouts": {"layouts": 0},
    "no slots": {"layouts": 2 * [{"slots": 0, "microbatch": 0, "shard_items": 11}]},
    "more items than the sweep": {"group_sizes": [10**15]},
    "one group more": {"group_sizes": [22, 11, 11]},
    "no base": {"base": None},
    "a list of sources": {"sources": ["a"]},
}


@pytest.mark.parametrize("fields", JOBS.values(), ids=JOBS)
def test_job_that_is_sealed_and_no_job_is_damaged(tmp_path, finished, ctd, fields):
    path = tmp_path / "j.zarr"
    shutil.copytree(finished.address, path)
    store = connect.open_objects(str(path))
    sealed = checksummed({**read_verified(store, keys.JOB), **fields})
    objects.write(store, keys.JOB_COPY, sealed)
    found = [finding.key for finding in check(str(path), repair=True)]
    assert (found, check(str(path))) == ([keys.JOB_COPY], [])
    for key in (keys.JOB, keys.JOB_COPY):
        objects.write(store, key, sealed)
    for command in ("status", "query", "check"):
        code, _, err = ctd(command, path)
        assert (code, len(err.splitlines())) == (2, 1), err
        assert f"{path}: run/job.json" in err.replace("\n", "")
        assert "from a backup" in err


METADATA = {
    "results/0/zarr.json": ["query"], "zarr.json": ["query"], "gathered/zarr.json": ["gather"],
    "results/1/norm/zarr.json": ["query", "--to", "answer.nc"], "items/zarr.json": ["query"],
}  # fmt: skip


ALWAYS = {("zarr.json", b"{}"), ("results/0/zarr.json", b'{"node_type": 3}')}
"""Of damage that is JSON; the rest with the endurance tests."""


@pytest.mark.parametrize(
    ("key", "content"),
    [
        pytest.param(
            key, content, marks=[pytest.mark.endurance] * (rare and (key, content) not in ALWAYS)
        )
        for key in METADATA
        for content, rare in ((b"[", False), (b"{}", True), (b'{"node_type": 3}', True))
    ],
)
def test_unreadable_metadata_is_named_with_the_cure(
    tmp_path, monkeypatch, finished, ctd, key, content
):
    """Or does not matter to the command, as what lies in the consolidated copy."""
    path = tmp_path / "m.zarr"
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished.address, path)
    (path / key).write_bytes(content)
    code, _, err = ctd(METADATA[key][0], path, *METADATA[key][1:])
    assert (code, "Traceback" in err) in ((0, False), (2, False)), err
    if code:
        assert (
            err.splitlines()[-1] == f"error: {path}: {key} is damaged; `ctd check {path} --repair`"
        )
    assert check(str(path), repair=True)
    assert ctd(METADATA[key][0], path, *METADATA[key][1:])[0] == 0


OTHERS_FILES = [
    "run/.nfs000000000001", "run/done/0/.nfs000000000001", "run/lease/.nfs0001", "run/failed/0/._000001.json",
    "run/done/1/000003.json~", "run/events/.DS_Store", "run/slots/note.txt", "run/layout/.x.json",
    "run/checkpoints/0/.nfs02", "run/segments/.nfs05", "run/rounds/0/.nfs02", "run/decisions/0/.nfs02", "run/cancel/desktop.ini", "run/parts/.nfs03",
    "results/0/.nfs04", "gathered/.DS_Store",
]  # fmt: skip
"""What NFS, macOS, editors and people leave in a folder."""

NO_KEYS = [
    b"run/events/\xff\xfe.jsonl", b"run/done/0/000001\n.json", b"run/segments/\x01", b"run/\xff/job.json",
    b"run/lease/\x7f#3", b"results/0/\xe9t\xe9",
]  # fmt: skip
"""Files whose names are not UTF-8, or hold a character that no key can: no listing tells of them."""


def test_files_of_others_are_passed_over_and_counted(tmp_path, finished, ctd, monkeypatch):
    monkeypatch.setattr("jobs.report.figures.save_figures", lambda *_: [])
    path = tmp_path / "s.zarr"
    shutil.copytree(finished.address, path)
    whole = Store.open(str(path))
    shard = whole.committed.markers()[0].shard
    whole.committed.forget([shard])
    for name in OTHERS_FILES:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text("[")
    for name in NO_KEYS:
        odd = os.path.join(os.fsencode(path), name)
        os.makedirs(os.path.dirname(odd), exist_ok=True)
        with open(odd, "wb") as file:
            file.write(b"[")
    own = [name for name in OTHERS_FILES if name.startswith("run/")]
    assert {f.key for f in check(str(path)) if f.what == OTHERS} == set(own)
    code, out, _ = ctd("check", path)
    assert (code, "1 shard not computed" in out) == (0, True), out
    assert f"{len(own)} objects not of ctd's own, left alone: run/.nfs0" in out
    assert (
        f"1 of them have results but no marker: {keys.place(keys.DONE, shard.group, shard.number)}"
        in out
    )
    for command in (
        ["status"],
        ["query"],
        ["logs"],
        ["report"],
        ["resume", "--executor", "serial"],
        ["check", "--repair"],
        ["gather"],
    ):
        code, out, err = ctd(command[0], path, *command[1:])
        # One item of this store fails.
        assert (code, "Traceback" in err) == (command[0] == "resume", False), (command, out, err)
    assert len(Store.open(str(path)).committed.numbers()) == len(finished.committed.numbers())
    assert all((path / name).exists() for name in own)
    assert all(os.path.exists(os.path.join(os.fsencode(path), name)) for name in NO_KEYS)


@pytest.mark.parametrize("which", ["kernel", "rows"])
def test_a_folder_in_the_place_of_an_object_is_named_with_what_to_do(tmp_path, finished, which):
    """It was told as a storage that fails."""
    path = tmp_path / "s.zarr"
    shutil.copytree(finished.address, path)
    rows = next(iter(finished.committed.markers()[0].sha256))
    place = path / (keys.KERNEL if which == "kernel" else rows)
    place.unlink()
    place.mkdir()
    with refused(JobError):
        check(str(path), repair=True)
    place.rmdir()
    check(str(path), repair=True)
    assert not [finding for finding in check(str(path)) if finding.cure]
