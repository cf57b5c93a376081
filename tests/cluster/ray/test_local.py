"""cluster.ray.local: a Ray of our own, where starting it goes wrong."""

import shutil
import socket

import pytest
from processes import listening, mentioning

from cluster.ray import local
from cluster.ray.lean import lean
from cluster.ray.local import LocalRay
from cluster.ray.pool import Pool
from jobs.errors import JobError
from jobs.spec.job import RunSettings

# In place of the helper: it fails as often as the file says, each time one less, then says where Ray is.
HELPER = """
import json, os, shutil, sys
from pathlib import Path

assert (Path(sys.argv[1]) / "token").stat().st_mode & 0o777 == 0o600
left = Path(__file__).with_name("left")
n, text = left.read_text().split(":", 1)
if int(n):
    left.write_text(f"{int(n) - 1}:{text}")
    shutil.rmtree(sys.argv[1])
    sys.exit(text)
print(json.dumps("127.0.0.1:1"), flush=True)
sys.stdin.read()
"""
SLOW = "Exception: The current node timed out during startup."


@pytest.fixture
def helper(tmp_path, monkeypatch):
    (tmp_path / "helper.py").write_text(HELPER)
    monkeypatch.setattr(local, "HELPER", tmp_path / "helper.py")
    return lambda failures, text: (tmp_path / "left").write_text(f"{failures}:{text}")


@pytest.mark.parametrize("failures", [0, 1, 2])
def test_ray_that_is_too_slow_is_started_again(helper, failures):
    helper(failures, SLOW)
    ray = LocalRay(1)
    assert ray.address() == ray.address() == "127.0.0.1:1"
    ray.stop()
    assert not ray._folder.exists()


@pytest.mark.parametrize(("failures", "text"), [(3, SLOW), (1, "no space left")])
def test_ray_that_does_not_start_is_one_clear_error(helper, failures, text):
    helper(failures, text)
    ray = LocalRay(1)
    with pytest.raises(JobError, match=rf"(?s)did not start.*{text}.*--executor serial"):
        Pool(RunSettings(), None, ray)
    ray.stop()
    assert not ray._folder.exists()


def test_a_ray_of_other_names_starts_as_it_is(monkeypatch):
    """What is left out is left out by names that are Ray's own, and may be others in the next release."""
    from ray import _raylet
    from ray._private import services

    before = services.start_ray_process
    monkeypatch.delattr(_raylet, "persist_port")
    assert not lean()
    assert services.start_ray_process is before


def test_what_a_killed_helper_left_is_removed_by_the_next_start(helper):
    helper(0, "")
    killed, alive = LocalRay(1), LocalRay(1)
    for ray in (killed, alive):
        ray.address()
    killed._helper.kill()
    killed._helper.wait()
    other = killed._folder.with_name(f"{killed._folder.name}-other")
    other.mkdir()  # of somebody else, or of another program
    (other / "owner").write_text("[")
    assert killed._folder.exists()
    LocalRay(1).stop()
    assert not killed._folder.exists()
    assert alive._folder.exists()
    assert other.exists()
    shutil.rmtree(other)
    alive.stop()
    killed.stop()


@pytest.mark.ray
def test_a_real_one_has_no_dashboard_and_listens_on_loopback_alone():
    local = LocalRay(1)
    try:
        local.address()
        assert not mentioning(local._folder, "ray::Dashboard")
        assert not mentioning(local._folder, "/dashboard.py")
        found = listening(mentioning(local._folder))
        assert len(found) >= 3  # its head, and both ports of its node
        assert {address for address, _ in found} <= {"0100007F", "0000000000000000FFFF00000100007F"}
        for _, port in found:
            with socket.create_connection(("127.0.0.1", port), 5) as asked:
                asked.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
                assert b" 200 " not in asked.recv(20)
    finally:
        local.stop()
    assert not local._folder.exists()
