"""cluster.ray.local: a Ray of our own, where starting it goes wrong. How closed it is, test_lost.py sees."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
from messages import refused
from processes import mentioning

from cluster.ray import local
from cluster.ray.local import LocalRay
from cluster.ray.pool import Pool
from cluster.ray.reach import NoRay, accepts
from jobs.errors import JobError
from jobs.spec.run import RunSettings

# In place of the helper: it fails as often as the file says, each time one less, then says where Ray is.
HELPER = """
import json, os, shutil, sys
from pathlib import Path

assert (Path(sys.argv[1]) / "token").stat().st_mode & 0o777 == 0o600
left = Path(__file__).with_name("left")
n, text = left.read_text().split(":", 1)
if int(n):
    left.write_text(f"{int(n) - 1}:{text}")
    if text == "killed":
        os.kill(os.getpid(), 9)
    shutil.rmtree(sys.argv[1])
    sys.exit(text)
print(json.dumps(["127.0.0.1:1", ""]), flush=True)
sys.stdin.read()
"""
SLOW = "Exception: The current node timed out during startup."


@pytest.fixture
def helper(tmp_path, monkeypatch):
    (tmp_path / "helper.py").write_text(HELPER)
    monkeypatch.setattr(local, "HELPER", tmp_path / "helper.py")
    return lambda failures, text: (tmp_path / "left").write_text(f"{failures}:{text}")


@pytest.mark.parametrize("text", [SLOW, "killed"])
@pytest.mark.parametrize("failures", [0, 1, 2])
def test_ray_that_fails_to_start_is_started_again(helper, failures, text):
    helper(failures, text)
    ray = LocalRay(1)
    assert ray.address() == ray.address() == "127.0.0.1:1"
    ray.stop()
    assert not ray._folder.exists()


def test_a_folder_between_two_starts_is_not_abandoned(helper, monkeypatch):
    """Other processes, which start a Ray meanwhile, remove abandoned folders."""
    helper(1, "killed")
    start = LocalRay._start

    def sweep(ray):
        local.remove_abandoned(ray._folder.parent)
        assert ray._folder.exists()
        start(ray)

    monkeypatch.setattr(LocalRay, "_start", sweep)
    ray = LocalRay(1)
    assert ray.address() == "127.0.0.1:1"
    ray.stop()
    assert not ray._folder.exists()


def test_ray_that_dies_before_one_has_connected_is_started_again(helper):
    helper(0, "")
    ray, tried = LocalRay(1), []

    def connect(address):
        tried.append(address)
        if len(tried) < 3:
            raise NoRay("nobody answers")

    assert ray.address(connect) == "127.0.0.1:1"
    assert len(tried) == 3
    ray.stop()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (SLOW, SLOW),
        ("Traceback\n  File\nno space left", "no space left"),
        ("killed", "exit code -9"),
    ],
)
def test_ray_that_does_not_start_is_one_clear_error(helper, text, said):
    helper(3, text)
    ray = LocalRay(1)
    with refused(JobError) as error:
        Pool(RunSettings(), None, ray)
    first, second = str(error.value).splitlines()
    assert first.startswith("Ray did not start on this machine, in 3 tries: ")
    assert first.endswith(said)
    assert second == "`--executor serial` computes without Ray"
    ray.stop()
    assert not ray._folder.exists()


@pytest.mark.ray
def test_helper_says_why_ray_does_not_start():
    """Although it kills its group, itself among it, at its end."""
    command = [sys.executable, "-P", str(local.HELPER), "/proc/none", "1"]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, start_new_session=True
    )  # fmt: skip
    assert "/proc/none" in done.stderr.strip().splitlines()[-1]


@pytest.mark.ray
@pytest.mark.endurance  # Ray waits 30 s for a head that is gone
def test_real_one_whose_head_is_killed_as_it_starts():
    """Each time at once, but for the last."""
    local, killed = LocalRay(1), set()

    def kill():
        while len(killed) < 2:
            for pid in mentioning(local._folder, "gcs_server"):
                if pid not in killed:
                    killed.add(pid)
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)

    def reached(address):
        if len(killed) < 2:  # this one has died, or is about to
            raise NoRay("killed")

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        assert accepts(local.address(reached))
    finally:
        killer.join()
        local.stop()


def test_what_a_killed_helper_left_is_removed_by_the_next_start(helper):
    helper(0, "")
    killed, alive = LocalRay(1), LocalRay(1)
    for ray in (killed, alive):
        ray.address()
    killed._helper.kill()
    killed._helper.wait()
    LocalRay(1).stop()
    assert killed._folder.exists()  # whoever asked for it lives
    killed._log.close()
    other = killed._folder.with_name(f"{killed._folder.name}-other")
    other.mkdir()  # of somebody else, or of another program
    (other / "log").touch()
    LocalRay(1).stop()
    assert not killed._folder.exists()
    assert alive._folder.exists()
    assert other.exists()
    shutil.rmtree(other)
    alive.stop()
    killed.stop()
