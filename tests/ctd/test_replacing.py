"""ctd.replacing: the file that was there stays until the new one is whole."""

import os
import stat
import subprocess
import sys

import pytest
from messages import refused
from processes import full_disk, until

from ctd.replacing import replacing

WRITES_FOR_EVER = """
import sys, time
from ctd.replacing import replacing
with replacing(sys.argv[1]) as new:
    new.write_text("half")
    time.sleep(1000)
"""


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


def write(path, text="new"):
    with replacing(path) as new:
        assert new.suffix == path.suffix
        new.write_text(text)


def write_and_raise(path, error):
    with replacing(path) as new:
        new.write_text("half")
        raise error


def test_replaced_file_keeps_its_permissions(tmp_path):
    kept, fresh = tmp_path / "kept.csv", tmp_path / "fresh.csv"
    kept.write_text("old")
    kept.chmod(0o640)
    mask = os.umask(0o027)
    try:
        write(kept)
        write(fresh)
    finally:
        os.umask(mask)
    assert (kept.read_text(), mode_of(kept), mode_of(fresh)) == ("new", 0o640, 0o640)
    kept.chmod(0o604)
    write(kept)
    assert mode_of(kept) == 0o604
    assert sorted(tmp_path.iterdir()) == [fresh, kept]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("there", [True, False])
def test_error_leaves_what_was_there(tmp_path, error, there):
    path = tmp_path / "x.html"
    if there:
        path.write_text("old")
    with pytest.raises(error):
        write_and_raise(path, error)
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"] * there


def test_full_disk_leaves_what_was_there(tmp_path):
    (tmp_path / "x").write_text("old")
    with full_disk(), refused(OSError):
        write(tmp_path / "x", "n" * 1000)
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]


def test_killed_process_leaves_what_was_there(tmp_path):
    (tmp_path / "x").write_text("old")
    process = subprocess.Popen([sys.executable, "-c", WRITES_FOR_EVER, str(tmp_path / "x")])
    until(lambda: any(p.read_text() == "half" for p in tmp_path.iterdir()), "it writes")
    process.kill()
    process.wait()
    assert (tmp_path / "x").read_text() == "old"


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize("typed", [True, False])
def test_link_is_followed_if_typed(tmp_path, typed, exists):
    """The new file has the suffix of the name that was given: matplotlib adds .png to any other."""
    far, link = tmp_path / "far", tmp_path / "link.png"
    if exists:
        far.write_text("old")
    link.symlink_to(far)
    with replacing(link, typed=typed) as new:
        assert new.suffix == ".png"
        new.write_text("new")
    assert link.read_text() == "new"
    assert link.is_symlink() == typed
    assert far.exists() == (typed or exists)
    assert not far.exists() or far.read_text() == ("new" if typed else "old")


def test_device_stays_what_it_is(tmp_path):
    (tmp_path / "null.csv").symlink_to(os.devnull)
    with replacing(tmp_path / "null.csv", typed=True) as new:
        new.write_text("new")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


def test_pipe_of_a_stranger_goes(tmp_path):
    os.mkfifo(tmp_path / "x.html")
    write(tmp_path / "x.html")
    assert (tmp_path / "x.html").read_text() == "new"


def test_place_that_cannot_be_written_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        write(tmp_path / "none" / "x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        write(tmp_path / "folder")
