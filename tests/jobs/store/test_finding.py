"""jobs.store.finding: stores by name, folder, prefix and pattern; on a disk and in a bucket."""

import json
import shutil
import zipfile
import zlib
from pathlib import Path

import pytest
from messages import refused, warned
from obstore.exceptions import PermissionDeniedError
from stores import BASE, JOB, make, run

import jobs
from jobs import keys
from jobs.errors import JobError
from jobs.exports.archive import write_archive
from jobs.gather.gather import gather
from jobs.query.collection import list_stores
from jobs.run.fork import fork
from jobs.run.shards import run_shards
from jobs.run.worker import SerialExecutor
from jobs.spec.job import parse_job
from jobs.storage import connect, objects
from jobs.store.finding import find_stores
from jobs.store.store import Store

SMALL = {**JOB, "sweep": {"grid": {"rate": [0.1, 0.2]}}}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """lab/{a1.zarr, a2.zarr, deep/b.zarr, deep/er/c.zarr, 1/2/3/4.zarr}, and folders without a store."""
    lab = tmp_path_factory.mktemp("lab")
    for k, name in enumerate(
        ("a1.zarr", "a2.zarr", "deep/b.zarr", "deep/er/c.zarr", "1/2/3/4.zarr", ".hid/d.zarr")
    ):
        make(lab / name, {**SMALL, "seed": k})
    (lab / "empty").mkdir()
    return lab


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (["a1.zarr"], ["a1.zarr"]),
        (["a1.zarr/", "./a1.zarr"], ["a1.zarr"]),
        (["a2.zarr", "a*.zarr"], ["a2.zarr", "a1.zarr"]),
        (["."], ["a1.zarr", "a2.zarr", "deep/b.zarr", "deep/er/c.zarr"]),
        (["deep"], ["deep/b.zarr", "deep/er/c.zarr"]),
        (["*/er/*"], ["deep/er/c.zarr"]),
        (["dee?/*"], ["deep/b.zarr", "deep/er/c.zarr"]),
        (["1"], ["1/2/3/4.zarr"]),
        (["none.zarr"], ["none.zarr"]),
    ],
)
def test_find_stores(lab, monkeypatch, given, found):
    monkeypatch.chdir(lab)
    assert find_stores(given) == found
    absolute = [str(lab / address) for address in given]
    assert find_stores(absolute) == [str(lab / address) for address in found]


@pytest.mark.parametrize("given", ["", "*", "*.zarr"])
def test_find_stores_at_links(lab, tmp_path, given):
    """Whoever may write to a shared folder could have a page made of the reader's own stores."""
    own = tmp_path / "own.zarr"
    shutil.copytree(lab / "a1.zarr", own)
    (tmp_path / "far.zarr").symlink_to(lab / "a2.zarr")
    (tmp_path / "deep").symlink_to(lab / "deep")
    told = list[str]()
    assert find_stores([f"{tmp_path}/{given}"], told.append) == [str(own)]
    [line] = told
    assert "far.zarr" in line
    assert (f"{tmp_path}/deep" in line) == (given != "*.zarr")
    assert find_stores([f"{tmp_path}/far.zarr"], told.append) == [f"{tmp_path}/far.zarr"]
    assert find_stores([f"{tmp_path}/deep"], told.append) == [
        f"{tmp_path}/deep/b.zarr",
        f"{tmp_path}/deep/er/c.zarr",
    ]
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "b.zarr").symlink_to(lab / "a2.zarr")
    with refused(JobError):
        find_stores([f"{tmp_path}/i*/b.zarr"], told.append)
    assert f"{tmp_path}/inner/b.zarr" in told.pop()
    found, wrong = list_stores([f"{tmp_path}/{given}"])
    assert (found["store"].tolist(), len(told), len(wrong)) == (["own"], 1, 1)


@pytest.mark.parametrize("given", ["empty", "x*.zarr", "*/none/*"])
def test_find_stores_says_where_there_is_none(lab, monkeypatch, given):
    monkeypatch.chdir(lab)
    with refused(JobError):
        find_stores([given])


def test_find_stores_in_a_bucket(s3, lab):
    del s3
    for name in ("a1.zarr", "a2.zarr", "deep/b.zarr"):
        place = connect.open_objects(f"s3://lab/found/{name}")
        for key in ("run/job.json", "zarr.json", "results/0/zarr.json"):
            objects.write(place, key, (lab / name / key).read_bytes())
    at = lambda *names: [f"s3://lab/found/{name}" for name in names]
    assert find_stores(at("")) == at("a1.zarr", "a2.zarr", "deep/b.zarr")
    assert find_stores(at("a*")) == at("a1.zarr", "a2.zarr")
    assert find_stores(["s3://lab/fo*/*/*.zarr"]) == at("deep/b.zarr")
    assert find_stores(at("a1.zarr")) == at("a1.zarr")
    assert set(at("a1.zarr", "deep/b.zarr")) <= set(find_stores(["s3://lab"], notify=[].append))
    assert find_stores(at("none.zarr")) == at("none.zarr"), (
        "whoever opens it says that it is not there"
    )
    with refused(JobError):
        find_stores(["s3://none/found/*"])


def grown(old, address, *rates):
    """A store that is forked from another, with a sweep for each rate more."""
    spec = parse_job({**SMALL, "seed": old.job.spec.seed, "sweep": sweeps(*rates)}, "job")
    executor = SerialExecutor(1)
    store = fork(spec, BASE, "job", str(address), old, executor)
    run_shards(store, executor)
    return store


def sweeps(*rates):
    return [SMALL["sweep"], *({"grid": {"rate": [rate, 2 * rate]}} for rate in rates)]


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    """{a, b}.zarr, a.zip, all.zarr, forked from a.zarr, all.zip, and more/c.zarr, forked from all.zarr."""
    folder = tmp_path_factory.mktemp("copies")
    path = lambda name: str(folder / name)
    a, _ = (run(path(f"{n}.zarr"), {**SMALL, "seed": k})[0] for k, n in enumerate("ab"))
    both = grown(a, path("all.zarr"), 0.3)
    grown(both, path("more/c.zarr"), 0.3, 0.5)
    for store in (a, both):
        gather(store)
        write_archive(store, folder / store.address.replace(".zarr", ".zip"))
    return folder


@pytest.mark.parametrize(
    ("gone", "given", "found", "told"),
    [
        (["more"], ["."], ["all.zarr", "b.zarr"],
         "a.zarr (part of all.zarr), a.zip (part of all.zarr), all.zip (an archive of all.zarr)"),
        (["more", "all.zarr", "all.zip"], ["."], ["a.zarr", "b.zarr"], "a.zip (an archive of a.zarr)"),
        (["more", "all.zarr", "all.zip", "a.zarr"], ["."], ["a.zip", "b.zarr"], ""),
        (["more"], [".", "a.zarr"], ["a.zarr", "all.zarr", "b.zarr"], "a.zip (part of all.zarr), all.zip (an archive of all.zarr)"),
        (["more"], ["*a*.zarr", "a.zip"], ["a.zarr", "all.zarr", "a.zip"], ""),
        (["all.zarr", "all.zip", "b.zarr", "a.zip"], ["."], ["more/c.zarr"], "a.zarr (part of more/c.zarr)"),
    ],
)  # fmt: skip
def test_no_item_of_a_folder_counts_twice(copies, tmp_path, monkeypatch, gone, given, found, told):
    shutil.copytree(copies, tmp_path / "lab")
    monkeypatch.chdir(tmp_path / "lab")
    for name in gone:
        shutil.rmtree(name) if not name.endswith(".zip") else (tmp_path / "lab" / name).unlink()
    lines = []
    assert find_stores(given, lines.append) == found
    begins, ends = (
        "left out, since another store here has their items: ",
        "; name a store to take it too",
    )
    assert lines[: bool(told)] == ([f"{begins}{told}{ends}"] if told else [])
    # What is named is taken all the same.
    assert lines[bool(told) :] == {
        "a.zarr": ["a.zarr and all.zarr hold the same items, which count twice: those of a.zarr"],
        "a.zip": [
            "a.zarr, all.zarr and a.zip hold the same items, which count 3 times: those of a.zarr"
        ],
    }.get(given[-1], [])


def test_items_that_two_forks_share_are_told(copies, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    a = Store.open(str(copies / "a.zarr"))
    for name, rate in (("c.zarr", 0.6), ("d.zarr", 0.7)):
        grown(a, name, rate)
    lines = []
    assert find_stores(["."], lines.append) == ["c.zarr", "d.zarr"]
    (line,) = lines
    assert line.startswith("c.zarr and d.zarr hold the same items, which count twice: those of ")


def test_a_copy_in_a_folder_is_left_out_and_a_finished_one_taken(copies, tmp_path, monkeypatch):
    for name in ("early", "late", "latest"):
        shutil.copytree(copies / "a.zarr", tmp_path / f"{name}.zarr")
    monkeypatch.chdir(tmp_path)
    Path("early.zarr/run/card.json").unlink()
    lines = []
    assert find_stores(["."], lines.append) == ["late.zarr"]
    assert "early.zarr (a copy of late.zarr), latest.zarr (a copy of late.zarr); " in lines[0]


def test_the_copy_with_the_name_of_the_job_is_kept(tmp_path):
    """In the order of names, a-copy.zarr comes before a.zarr."""
    at = make(tmp_path / "a.zarr", {**SMALL, "name": "a"}).address
    shutil.copytree(at, tmp_path / "a-copy.zarr")
    assert find_stores([str(tmp_path)], lambda _: None) == [at]


@pytest.mark.parametrize("gone", ["zarr.json", "results/0/zarr.json"])
def test_a_damaged_store_in_a_folder_is_left_out_and_its_whole_copy_taken(lab, tmp_path, gone):
    a, b, other = (str(tmp_path / name) for name in ("a.zarr", "b.zarr", "other.zarr"))
    for address, of in ((a, "a1"), (b, "a1"), (other, "a2")):
        shutil.copytree(lab / f"{of}.zarr", address)
    Path(a, gone).write_text("{")
    told = []
    assert find_stores([str(tmp_path)], told.append) == [b, other]
    assert told == [
        f"left out, since an object there is damaged, missing or closed to you: {a} ({gone}); `ctd check` says more"
    ]
    assert find_stores([a], told.append) == [a]
    for key in (keys.JOB, keys.JOB_COPY):
        Path(b, key).write_text("{")
    assert find_stores([str(tmp_path)], told.append) == [other]
    assert f"{b} (run/job.json)" in told[-1]


def test_a_store_without_its_job_is_named_as_left_out(lab, tmp_path):
    a, b = (str(shutil.copytree(lab / f"{k}.zarr", tmp_path / f"{k}.zarr")) for k in ("a1", "a2"))
    shutil.rmtree(Path(b, "run"))
    told = []
    assert find_stores([str(tmp_path)], told.append) == [a]
    assert f"{b} (run/job.json)" in told[0]
    found, wrong = list_stores([str(tmp_path)])
    assert found["store"].tolist() == ["a1"]
    (said,) = wrong
    assert said.startswith(f"{b}: not a complete ctd store (it has no run/job.json)")
    # One that is being created is none yet.
    Path(b, "run").mkdir()
    Path(b, keys.CREATING).write_text("{}")
    assert list_stores([str(tmp_path)])[1] == []


def test_archives_without_their_store_count_once(copies, tmp_path, monkeypatch):
    for name in ("a.zip", "b.zip"):
        shutil.copy(copies / "a.zip", tmp_path / name)
    monkeypatch.chdir(tmp_path)
    lines = []
    assert find_stores(["."], lines.append) == ["a.zip"]
    assert (
        "left out, since another store here has their items: b.zip (an archive of the store in a.zip)"
        in lines[0]
    )
    assert find_stores([".", "b.zip"], lines.append) == ["b.zip"]


def test_items_of_a_folder_with_a_fork(copies, command_line, monkeypatch):
    monkeypatch.chdir(copies)
    with warned():
        opened = jobs.open_stores(["."])
    assert [(one.address, one.job.plan.n_items) for one in opened.stores] == [
        ("b.zarr", 2),
        ("more/c.zarr", 6),
    ]
    code, out, err = command_line("query", ".", "--agg", "count")
    assert (code, out.split()[-1], "left out, since" in err) == (0, "8", True)
    assert len(list_stores(["."])[0]["store"]) == 6, "a list has what lies there"


def test_damaged_members_of_an_archive_are_refused(command_line, tmp_path, monkeypatch):
    """What is left of run/job.json may end early, or be nothing that deflate made: zlib.error, EOFError."""
    monkeypatch.chdir(tmp_path)
    for name, packed in (("bad.zip", b"\xff"), ("short.zip", b"\x00")):
        with zipfile.ZipFile(name, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("run/job.json", json.dumps({"format": list(range(1000))}))
            at = archive.getinfo("run/job.json")
            start = len(at.FileHeader())
        data = bytearray((tmp_path / name).read_bytes())
        data[start : start + at.compress_size] = packed * at.compress_size
        (tmp_path / name).write_bytes(data)
        with pytest.raises(zlib.error), zipfile.ZipFile(name) as archive:
            archive.read("run/job.json")
        assert connect.read_member(tmp_path / name, "run/job.json") is None
        code, out, err = command_line("query", name)
        assert (code, out) == (2, "")
        assert err.startswith(f"error: {name}: not an archive of a store, or a damaged one")


def test_a_store_that_may_not_be_read_is_named(monkeypatch, tmp_path):
    """A folder that is closed, and not named like a store, may be anything."""
    mine, closed = make(tmp_path / "a.zarr", SMALL).address, str(tmp_path / "b.zarr")
    for name in ("b.zarr", "other"):
        (tmp_path / name).mkdir()
    read, opened = Path.read_bytes, Store.open

    def refuse(path):
        if str(path).startswith(mine):
            return read(path)
        raise PermissionError(13, "Permission denied")

    def refuse_to_open(address):
        if address == mine:
            return opened(address)
        raise PermissionDeniedError("Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    monkeypatch.setattr(Store, "open", refuse_to_open)
    found, wrong = list_stores([str(tmp_path)])
    assert (found["store"].tolist(), wrong) == (["a"], [f"{closed}: Permission denied"])
    told = []
    assert find_stores([str(tmp_path)], told.append) == [mine]
    assert f"{closed} ({keys.JOB})" in told[0]
