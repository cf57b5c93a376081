"""One driver a store: leases on a local folder, in memory and on an S3 server, and requests to stop."""

import json
import os
import stat
import subprocess
import sys
import threading
import time

import pytest
from messages import refused
from obstore.exceptions import GenericError
from obstore.store import MemoryStore, S3Store
from processes import until
from stores import JOB, make, run

from jobs import keys
from jobs.errors import JobError
from jobs.run.shards import run_shards
from jobs.run.stop import Stop
from jobs.run.worker import SerialExecutor
from jobs.storage import connect, objects
from jobs.storage import lease as module
from jobs.storage.lease import Lease, LeaseHeld, cancel, holder, running
from jobs.storage.process import born
from jobs.store import creation
from jobs.store.store import Store


@pytest.fixture(params=["folder", "memory", "s3"])
def storage(request, tmp_path):
    if request.param == "memory":
        return MemoryStore()
    if request.param == "s3":
        request.getfixturevalue("s3")
        return connect.open_objects(f"s3://lab/lease/{tmp_path.name}")
    return connect.open_objects(str(tmp_path))


def put(storage, **changes):
    """Write the lease with these changes, under the generation that it then has."""
    record = holder(storage).model_copy(update=changes)
    objects.write(storage, keys.lease(record.generation), json.dumps(record.model_dump()).encode())


def elsewhere(storage, **changes):
    """Make the lease one that a process of another machine holds."""
    put(storage, machine="other", host="node7", **changes)


def test_a_process_that_proc_hides_is_not_taken_for_dead(storage, monkeypatch):
    """As `hidepid` hides another user's, of whom a signal tells all the same."""

    def refused(pid, number):
        raise PermissionError

    Lease.acquire(storage, "s.zarr")
    put(storage, pid=2**22 - 1, born="7")
    assert running(storage) is None
    monkeypatch.setattr("jobs.storage.process.os.kill", refused)
    assert running(storage) is not None
    with pytest.raises(LeaseHeld):
        Lease.acquire(storage, "s.zarr")


@pytest.mark.parametrize(("name", "fails"), [("list_keys", True), ("delete", False)])
def test_a_lease_that_is_not_handed_over_is_free(storage, monkeypatch, name, fails):
    """The storage fails once behind the write of the lease."""
    Lease.acquire(storage, "s.zarr").release()
    create = objects.create

    def fail(*_):
        raise GenericError("timed out")

    def created(*args):
        patch.setattr(objects, name, fail)
        return create(*args)

    with monkeypatch.context() as patch:
        patch.setattr(objects, "create", created)
        if fails:
            with refused(JobError):
                Lease.acquire(storage, "s.zarr")
        else:
            lease = Lease.acquire(storage, "s.zarr")
    if not fails:
        lease.release()
    Lease.acquire(storage, "s.zarr")


def test_a_write_that_fails_releases_nobody_elses_lease(storage, monkeypatch):
    """Another driver was quicker, and our storage does not say so."""
    create, others = objects.create, []

    def lost(store, key, data):
        others.append(Lease.acquire(storage, "s.zarr"))
        raise GenericError("timed out")

    def once(*args):
        monkeypatch.setattr(objects, "create", create)
        return lost(*args)

    monkeypatch.setattr(objects, "create", once)
    with refused(JobError):
        Lease.acquire(storage, "s.zarr")
    assert len(others) == 1
    assert running(storage).generation == others[0].generation


def test_second_driver_is_refused_with_holder_and_age(storage):
    first = Lease.acquire(storage, "s.zarr")
    with refused(JobError):
        Lease.acquire(storage, "s.zarr")
    elsewhere(storage, renewed=time.time() - 7, since=time.time() - 60, pid=42)
    with refused(JobError):
        Lease.acquire(storage, "s.zarr")
    first.release()
    assert Lease.acquire(storage, "s.zarr").generation == 1


def test_released_lease_is_taken_at_once_and_numbers_rise(storage):
    for generation in range(4):
        lease = Lease.acquire(storage, "s")
        assert lease.generation == generation
        lease.release()
        assert running(storage) is None
    assert list(objects.list_keys(storage, "run/lease")) == [keys.lease(3)]


def test_dead_process_of_this_machine_is_recognised_at_once(storage):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    Lease.acquire(storage, "s")
    put(storage, pid=child.pid, born=born(child.pid))
    with refused(JobError):
        Lease.acquire(storage, "s")
    child.kill()
    child.wait()
    assert Lease.acquire(storage, "s").generation == 1


@pytest.mark.parametrize("skew", [-1, 1])
def test_silent_holder_elsewhere_expires_but_a_renewing_one_with_another_clock_does_not(
    storage, monkeypatch, skew
):
    monkeypatch.setattr(module, "POLL_S", 0.02)
    Lease.acquire(storage, "s")
    old = time.time() + skew * 2 * module.TTL_S
    elsewhere(storage, renewed=old)
    with monkeypatch.context() as patch:
        # While the holder is watched, it renews.
        patch.setattr(module.time, "sleep", lambda _: elsewhere(storage, renewed=old + 1))
        with refused(JobError):
            Lease.acquire(storage, "s")
    monkeypatch.setattr(module, "RENEW_S", 0.1)
    assert Lease.acquire(storage, "s").generation == 1


def test_one_of_many_gets_it(storage):
    """Ten threads that all find a dead holder: exactly one of them takes over, time and again."""
    for _ in range(3 if isinstance(storage, S3Store) else 10):
        taken, refused = [], []
        start = threading.Barrier(10)

        def attempt(start=start, taken=taken, refused=refused):
            start.wait()
            try:
                taken.append(Lease.acquire(storage, "s"))
            except JobError:
                refused.append(1)

        threads = [threading.Thread(target=attempt) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(taken) == 1
        assert len(refused) == 9
        put(storage, born="gone")


def test_slow_driver_that_looked_long_ago_does_not_get_a_number_that_was_used(storage, monkeypatch):
    Lease.acquire(storage, "s").release()
    seen = holder(storage)
    for _ in range(3):
        current = Lease.acquire(storage, "s")
        if current.generation < 3:
            current.release()
    answers = iter([seen])
    real = module.holder
    monkeypatch.setattr(module, "holder", lambda s: next(answers, None) or real(s))
    with refused(JobError):
        Lease.acquire(storage, "s")
    assert list(objects.list_keys(storage, "run/lease")) == [keys.lease(3)]


def test_lost_lease_stops_the_run(storage, monkeypatch):
    monkeypatch.setattr(module, "POLL_S", 0.01)
    monkeypatch.setattr(module, "RENEW_S", 0.02)
    stop = Stop()
    with Lease.acquire(storage, "s").renewing(stop):
        put(storage, generation=1, host="node9")
        until(lambda: stop.reason is not None, "it is told to stop")
    assert "taken over by process" in stop.reason
    assert "node9" in stop.reason


def test_holder_that_slept_while_the_lease_changed_hands_twice_stops(storage, monkeypatch):
    """The one that took it from us is gone too, with its traces; ours must not count again."""
    monkeypatch.setattr(module, "POLL_S", 0.01)
    monkeypatch.setattr(module, "RENEW_S", 0.02)
    stop = Stop()
    lease = Lease.acquire(storage, "s")
    put(storage, generation=2, host="node9")
    objects.delete(storage, keys.lease(0))
    with lease.renewing(stop):
        until(lambda: stop.reason is not None, "it is told to stop")
    assert "taken over by process" in stop.reason
    assert holder(storage).host == "node9"
    assert not holder(storage).released


def test_held_lease_is_renewed(storage, monkeypatch):
    monkeypatch.setattr(module, "POLL_S", 0.01)
    monkeypatch.setattr(module, "RENEW_S", 0.02)
    with Lease.acquire(storage, "s").renewing(Stop()):
        first = holder(storage).renewed
        until(lambda: holder(storage).renewed > first + 0.1, "it is renewed, again and again")
        assert running(storage)
    assert running(storage) is None


# --- a store --------------------------------------------------------------------------------------


REQUESTS = [
    b'{"host": "x', b"[1]", b"{}", b'"stop"', b"\xff", b'{"host": {}}', b"[" * 200_000,
]  # fmt: skip


@pytest.mark.parametrize("name", ["1.json", "0000000001.json"])
def test_file_of_others_among_the_leases_is_passed_over(storage, name):
    """Its number is that of no lease: a driver that took it for one created its own, and gave it up, for ever."""
    objects.write(storage, f"{keys.LEASE}/{name}", b"{}")
    assert holder(storage) is None
    lease = Lease.acquire(storage, "s")
    assert not holder(storage).released
    lease.release()
    assert holder(storage).released


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: repr(request[:9]))
def test_unreadable_request_is_named_and_passed_over(storage, monkeypatch, caplog, request_):
    monkeypatch.setattr(module, "POLL_S", 0.01)
    monkeypatch.setattr(module, "RENEW_S", 0.05)
    stop, lease = Stop(), Lease.acquire(storage, "s")
    with lease.renewing(stop):
        before = holder(storage).renewed
        objects.write(storage, keys.cancel(0), request_)
        until(lambda: caplog.messages, "it is told")
        until(lambda: holder(storage).renewed > before, "the lease is renewed all the same")
        assert stop.reason is None
        shown = f"no request to stop, {request_[:40]!r}"
        assert caplog.messages == [f"run/cancel/00000000.json: {shown}: passed over"]
        cancelled = threading.Thread(target=cancel, args=(storage, 200))
        cancelled.start()
        until(lambda: stop.reason, "a true request is heard after it")
    cancelled.join()
    assert stop.reason.startswith("cancelled by")


def test_request_that_cannot_be_read_does_not_keep_the_lease_from_being_renewed(
    tmp_path, monkeypatch, caplog
):
    """A socket is no object: it counts as a damaged one."""
    monkeypatch.setattr(module, "POLL_S", 0.01)
    monkeypatch.setattr(module, "RENEW_S", 0.02)
    storage, stop = connect.open_objects(str(tmp_path)), Stop()
    with Lease.acquire(storage, "s").renewing(stop):
        (tmp_path / "run" / "cancel").mkdir()
        os.mknod(tmp_path / keys.cancel(0), stat.S_IFSOCK | 0o600)
        until(lambda: caplog.messages, "it is told")
        before = holder(storage).renewed
        until(lambda: holder(storage).renewed > before + 0.1, "it is renewed, again and again")
        assert stop.reason is None
        (said,) = caplog.messages
        assert said.startswith("run/cancel/00000000.json: no request to stop")


def test_run_ends_with_the_thread_that_keeps_its_lease(storage, monkeypatch):
    monkeypatch.setattr(module, "POLL_S", 0.01)
    stop = Stop()

    def fail(*_):
        raise RuntimeError("no more")

    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    with Lease.acquire(storage, "s").renewing(stop):
        monkeypatch.setattr(Lease, "_pass_request", fail)
        until(lambda: stop.reason, "the run is asked to stop")
    assert stop.reason == "the lease cannot be renewed: RuntimeError: no more"


def test_two_drivers_at_once_and_cancel(tmp_path):
    store, stop, first = make(tmp_path / "two.zarr"), Stop(), []

    class Slow(SerialExecutor):
        """Computes two shards, and the others once it is told to stop."""

        def wait(self, timeout):
            if len(store.committed.numbers()) == 2:
                until(lambda: stop.reason, "it is told to stop")
            return super().wait(timeout)

    thread = threading.Thread(target=lambda: first.append(run_shards(store, Slow(1), stop=stop)))
    thread.start()
    until(store.committed.numbers, "the first is under way")
    with refused(JobError):
        run_shards(Store.open(store.address), SerialExecutor(1))
    assert cancel(store.objects, 200).pid == os.getpid()
    thread.join()
    assert first[0].stopped.startswith("cancelled by")
    assert 0 < first[0].shards_done < 8
    assert cancel(store.objects) is None
    assert run(store.address)[1].shards_done == 8
    assert not list(objects.list_keys(store.objects, "run/cancel"))


def test_creation_renews_its_lease_and_makes_no_store_once_it_is_lost(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "POLL_S", 0.01)
    monkeypatch.setattr(module, "RENEW_S", 0.02)
    path, real = tmp_path / "slow.zarr", creation._lay_out

    def slow(store, *rest):
        real(store, *rest)
        before = holder(store.objects).renewed
        until(lambda: holder(store.objects).renewed > before, "it is renewed")
        put(store.objects, generation=1, host="node9")

    monkeypatch.setattr(creation, "_lay_out", slow)
    with refused(LeaseHeld):
        make(path)
    assert not (path / keys.JOB).exists()


def test_creation_that_was_killed_is_done_again(tmp_path, monkeypatch):
    """At any of its writes: the next run makes the store anew, and what a submission left stays."""
    path = tmp_path / "half.zarr"
    objects.write(connect.open_objects(str(path), create=True), "run/submit/1/record.json", b"{}")

    class Killed(BaseException):
        pass

    real = creation.write_job
    monkeypatch.setattr(creation, "_remove", lambda path: None)

    def die(*_):
        raise Killed

    monkeypatch.setattr(creation, "write_job", die)
    with pytest.raises(Killed):
        make(path)
    assert (path / "results").exists()
    monkeypatch.setattr(creation, "write_job", real)
    other = {**JOB, "sweep": {"grid": {"rate": [0.1, 0.2]}}}
    store, progress = run(path, other)
    assert progress.items_done == 2
    assert sorted(p.name for p in (path / "results").iterdir()) == ["0", "zarr.json"]
    assert objects.read(store.objects, "run/submit/1/record.json") == b"{}"
