"""jobs.exports.archive: one file that is read as the store is, unpacks to it, and is described by RO-Crate."""

import shutil
import zipfile

import numpy as np
import pytest
import zarr
from messages import refused
from rocrate.rocrate import ROCrate
from stores import JOB, make, run, tree_bytes

import jobs
from jobs import keys
from jobs.errors import JobError
from jobs.exports.archive import CRATE, LEFT_OUT, About, write_archive
from jobs.gather.check import check
from jobs.gather.gather import gather
from jobs.query.collection import list_stores
from jobs.query.query import query, table, tables
from jobs.run.shards import run_shards
from jobs.run.worker import SerialExecutor
from jobs.storage import addresses, objects
from jobs.storage.lease import Lease
from jobs.store.card import Note, write_note
from jobs.store.store import Store

ABOUT = About("CC-BY-4.0", ("Ada Lovelace 0000-0002-1825-0097", "Charles Babbage"), "2026-11-28")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store, _ = run(tmp_path_factory.mktemp("archive") / "a.zarr", {**JOB, "name": "walks"})
    gather(store)
    write_note(store, Note(note="for figure 2", tags=("paper", "toy")))
    return store


@pytest.fixture(scope="module")
def archive(store):
    path = addresses.local_path(store.address).with_suffix(".zip")
    write_archive(store, path, ABOUT)
    return path


def test_archive_answers_as_its_store(store, archive):
    packed = Store.open(str(archive))
    for name in tables(store):
        assert table(packed, name).equals(table(store, name)), name
    assert query(packed, "n == 3 and norm > 1", agg="count, median(norm)").equals(
        query(store, "n == 3 and norm > 1", agg="count, median(norm)")
    )
    ours, theirs = (jobs.open_store(str(where)) for where in (archive, store.address))
    np.testing.assert_array_equal(ours["results/1"].x, theirs["results/1"].x)
    assert check(str(archive)) == []
    found, _ = list_stores([str(archive.parent)])
    assert found["store"].tolist() == ["a.zarr", "a.zip"]
    assert found["note"].tolist() == ["for figure 2"] * 2
    assert found["size_mb"][1] * 1e6 == pytest.approx(archive.stat().st_size)


def test_archive_is_read_by_zarr_and_unpacks_to_the_store(store, archive, tmp_path):
    with zarr.storage.ZipStore(archive, mode="r") as opened:
        root = zarr.open_group(opened, mode="r")
        np.testing.assert_array_equal(root["items/norm"][...], store.root["items/norm"][...])
    shutil.unpack_archive(archive, tmp_path / "b.zarr")
    assert check(str(tmp_path / "b.zarr")) == []
    expected = tree_bytes(store.address)
    assert {k: v for k, v in tree_bytes(tmp_path / "b.zarr").items() if k != CRATE} == expected
    names = zipfile.ZipFile(archive).namelist()
    assert not [name for name in names if name.startswith(LEFT_OUT)]
    assert run_shards(Store.open(str(tmp_path / "b.zarr")), SerialExecutor(1)).items_done == 44


def test_archive_is_described(store, archive):
    """As rocrate reads it; each file and folder that it describes is there."""
    crate = ROCrate(str(archive))
    root = crate.root_dataset
    assert (crate.name, crate.description) == ("walks", "for figure 2")
    assert (str(root["datePublished"])[:10], root["keywords"]) == (
        "2026-11-28",
        "paper, toy",
    )
    assert root["license"][0].id == "https://spdx.org/licenses/CC-BY-4.0"
    assert [(one.id, one["name"]) for one in root["author"]] == [
        ("https://orcid.org/0000-0002-1825-0097", "Ada Lovelace"), ("#author-2", "Charles Babbage"),
    ]  # fmt: skip
    names = zipfile.ZipFile(archive).namelist()
    parts = [one.id for one in root["hasPart"]]
    assert {keys.JOB, "results/", "items/"} <= {*parts}
    assert all(any(name.startswith(part) for name in names) for part in parts)
    made = {one.id: one for one in root["mentions"]}
    for name, sha256 in store.job.sources.items():
        assert made[f"#source-{name}"]["identifier"] == f"sha256:{sha256}"
    for name, version in store.job.provenance["versions"].items():
        assert made[f"#{name}"]["softwareVersion"] == version


def test_archive_of_the_same_store_has_the_same_bytes(store, archive, tmp_path):
    write_archive(store, tmp_path / "a.zip", ABOUT)
    assert (tmp_path / "a.zip").read_bytes() == archive.read_bytes()


def test_nothing_is_written_to_an_archive(archive):
    packed = Store.open(str(archive))
    before = archive.read_bytes()
    packed.committed.forget([next(iter(packed.job.plan.shards()))])
    for write in (
        lambda: run_shards(packed, SerialExecutor(1)),
        lambda: write_note(packed, Note(note="x")),
        lambda: check(str(archive), repair=True),
    ):
        with refused(JobError):
            write()
    assert archive.read_bytes() == before


def test_archive_of_a_part_holds_what_is_there(tmp_path):
    make(tmp_path / "part.zarr")
    write_archive(Store.open(str(tmp_path / "part.zarr")), tmp_path / "part.zip")
    assert list_stores([str(tmp_path / "part.zip")])[0]["left"].tolist() == [44]


def test_archive_refuses(store, tmp_path):
    path = shutil.copytree(store.address, tmp_path / "b.zarr")
    damaged = Store.open(str(path))
    target = tmp_path / "out.zip"
    target.write_bytes(b"old")
    with refused(JobError):
        write_archive(store, tmp_path / "out.tar")
    for date in ("yesterday", "2026-13-45"):
        with refused(JobError):
            write_archive(store, target, About(date=date))
    for license_ in ("bogus", "CC-BY-9", "MIT OR Apache-2.0", "LicenseRef-mine"):
        with refused(JobError):
            write_archive(store, target, About(license_))
    lease = Lease.acquire(damaged.objects, damaged.address)
    with refused(JobError):
        write_archive(damaged, target)
    lease.release()
    objects.delete(damaged.objects, keys.KERNEL)
    with refused(JobError):
        write_archive(damaged, target)
    with refused(JobError):
        write_archive(store, tmp_path / "none" / "out.zip")
    assert target.read_bytes() == b"old"


@pytest.mark.parametrize("bound", ["MOST_BYTES", "MOST_PACKED"])
def test_an_archive_that_is_too_large_is_not_read(archive, monkeypatch, bound):
    monkeypatch.setattr(f"jobs.storage.connect.{bound}", 1000)
    with refused(JobError):
        Store.open(str(archive))


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "is not an archive"), (b"PK\x03\x04broken", "not an archive")],
)
def test_what_is_no_archive_is_refused_in_a_line(tmp_path, content, said):
    path = tmp_path / "x.zip"
    path.write_bytes(content)
    with pytest.raises(JobError) as caught:
        Store.open(str(path))
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("place", ["run/note.json", "results/0/norm/c/9", "items"])
def test_archive_refuses_links(store, tmp_path, place):
    """A stranger's store may link to a file of the user's, which the archive would publish."""
    copy, mine = shutil.copytree(store.address, tmp_path / "s.zarr"), tmp_path / "mine"
    mine.write_text("secret")
    shutil.rmtree(copy / "items") if place == "items" else None
    (copy / place).unlink(missing_ok=True)
    (copy / place).symlink_to(mine)
    with refused(JobError):
        write_archive(Store.open(str(copy)), tmp_path / "o.zip")
    assert not (tmp_path / "o.zip").exists()


def test_archive_on_the_command_line(ctd, store, tmp_path):
    code, out, err = ctd("archive", store.address, tmp_path / "o.zip", "--author", "Ada", "--license", "CC-BY-4.0")  # fmt: skip
    assert (code, err) == (0, "")
    assert out.startswith("wrote ")
    code, _, err = ctd("archive", store.address, tmp_path / "o.zip")
    assert (code, "o.zip: exists already; delete it" in err) == (2, True), err
    for command in (
        ["status"],
        ["query"],
        ["report"],
        ["logs"],
        ["check"],
        ["best", "--by", "norm"],
    ):
        code, _, err = ctd(command[0], tmp_path / "o.zip", *command[1:])
        assert code == 0, (command, err)
    assert (tmp_path / "o.html").exists()
    with zipfile.ZipFile(tmp_path / "o.zip") as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    held[keys.CARD] = b"{}"
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        for name, content in held.items():
            archive.writestr(name, content)
    code, told, _ = ctd("check", tmp_path / "bad.zip")
    assert (code, "1 found" in told, "--repair" in told) == (1, True, False), told
    code, _, err = ctd("resume", tmp_path / "o.zip", "--executor", "serial")
    assert (code, "an archive is only read" in err) == (2, True), err
    code, _, err = ctd("note", tmp_path / "o.zip", "x")
    assert (code, "an archive is only read" in err) == (2, True)
