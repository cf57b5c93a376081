"""Stores on a real S3 server: run, kill, resume, cancel, check; a server that is busy, away, or wants new keys.

Amazon's own promises are taken as given: that of several conditional PUTs one succeeds is tested on the
server here, and that the project rests on nothing else.
"""

import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import s3 as lab
from failing import Meddling
from killing import begun, command, dies_after_a_checkpoint, killed
from obstore.exceptions import BaseError
from obstore.store import MemoryStore
from processes import until
from search_jobs import DECISIONS, in_rounds, left, same, whole_store
from stores import BASE, make, run, tree_bytes

from ctd.data import read_hdf5
from jobs import Store, open_store
from jobs.gather.check import check
from jobs.gather.gather import gather
from jobs.run.shards import run_shards
from jobs.run.stop import Stop
from jobs.run.worker import SerialExecutor
from jobs.storage import connect, objects
from jobs.storage.lease import Lease

JOB = {
    "kernel": "toy",
    "params": {"n_steps": 12},
    "sweep": {"grid": {"rate": {"linspace": [-0.5, 0.5, 12]}}},
    "run": {"shard_items": 6, "slots": 4, "microbatch": 2, "checkpoint_s": 0, "backoff_s": 0},
}


SLOW = """
kernel: toy
params: {n_steps: 2000000000}
sweep: {grid: {rate: [0.1, 0.2, 0.3]}}
run: {shard_items: 1, slots: 1, microbatch: 1, checkpoint_s: 0}
"""
"""Its shards never end: whatever is seen of it was seen while one ran."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The job's store on a disk."""
    store, _ = run(tmp_path_factory.mktemp("store") / "whole.zarr", JOB)
    gather(store)
    return store


def bucket_bytes(s3, address):
    """As `stores.tree_bytes`, of a store in the bucket."""
    prefix = address.removeprefix("s3://lab/") + "/"
    found = {key.removeprefix(prefix): data for key, data in s3.objects(prefix).items()}
    return {
        key: data for key, data in found.items()
        if key.partition("/")[0] not in ("run", "shards", "zarr.json")
    }  # fmt: skip


def results_of(tree):
    """The part of a tree's bytes that a run writes before anything is gathered."""
    return {key: data for key, data in tree.items() if key.startswith("results")}


# --- what everything stands on --------------------------------------------------------------------


def test_one_of_many_conditional_puts_succeeds(address):
    store = connect.open_objects(address)
    for k in range(3):
        start, won = threading.Barrier(6), []

        def put(i, k=k, start=start, won=won):
            start.wait()
            if objects.create(store, f"key{k}", b"writer %d" % i):
                won.append(b"writer %d" % i)

        threads = [threading.Thread(target=put, args=(i,)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert won == [objects.read(store, f"key{k}")]
    assert not objects.create(store, "key0", b"late")


def test_put_whose_answer_was_lost_is_known_as_ours(s3, address, monkeypatch):
    """The server does it and answers 503; the client repeats it and hears that something is there."""
    lost = []

    def once(method, path):
        if method == "PUT" and path not in lost:
            lost.append(path)
            return "lost"
        return None

    with lab.Proxy(s3.url, once) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        store = connect.open_objects(address)
        assert objects.create(store, "key", b"a")
        assert not objects.create(store, "key", b"b")
        Lease.acquire(store, address).release()
        assert Lease.acquire(store, address).generation == 1
        assert proxy.counts["lost"] >= 3


@pytest.mark.parametrize("place", ["disk", "bucket", "memory"])
def test_a_range_is_read_whole_or_not_at_all(s3, address, tmp_path, place):
    """In memory lies a store in an archive."""
    del s3
    where = address if place == "bucket" else str(tmp_path)
    store = MemoryStore() if place == "memory" else connect.open_objects(where)
    objects.write(store, "a/b", b"0123456789")
    cases = {(2, 3): b"234", (0, 10): b"0123456789", (8, 3): None, (10, 1): None, (99, 1): None}
    for (start, length), expected in cases.items():
        assert objects.read_range(store, "a/b", start, length) == expected
    assert objects.read_range(store, "a/c", 0, 1) is None


def test_a_server_that_is_away_is_no_range_that_is_not_there(s3, monkeypatch):
    """Whatever the name of what is read."""
    del s3
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    store = connect.remote("s3://lab/orange.zarr", connect.IMPATIENT)
    with pytest.raises(BaseError):
        objects.read_range(store, "range", 0, 1)


# --- runs -----------------------------------------------------------------------------------------


def test_same_bytes_as_on_a_disk(s3, address, whole):
    store, progress = run(address, JOB)
    assert progress.items_done == 12
    gather(store)
    assert bucket_bytes(s3, address) == tree_bytes(whole.address)
    assert check(address) == []
    tree = open_store(address)
    np.testing.assert_array_equal(tree["results/0"].x, open_store(whole.address)["results/0"].x)


def test_killed_between_checkpoint_and_marker_and_resumed(s3, address, whole, tmp_path):
    """SIGKILL where checkpoints are in the bucket; nothing in it, nor what was printed, holds a secret."""
    said = killed(dies_after_a_checkpoint, address, JOB, 1)
    left = s3.objects(address.removeprefix("s3://lab/"))
    assert any("run/checkpoints/0/000001" in key for key in left)
    store = Store.open(address)
    assert store.committed.numbers() == {0}
    progress = run_shards(store, SerialExecutor(1))
    assert (progress.items_before, progress.items_done) == (6, 12)
    assert any(marker.resumed_at for marker in store.committed.markers())
    assert results_of(bucket_bytes(s3, address)) == results_of(tree_bytes(whole.address))
    after = s3.objects(address.removeprefix("s3://lab/"))
    assert lab.hides_secrets(*left.values(), *after.values(), said)


def test_a_search_goes_on_from_its_decisions(s3, address):
    del s3
    store, stop = make(address, in_rounds("halving")), Stop()
    run_shards(store, Meddling(6, lambda: stop.ask("test")), stop=stop)
    assert left(store, DECISIONS)
    assert run_shards(Store.open(address), SerialExecutor(1)).failed == {}
    same(store, whole_store("halving"))


def test_two_drivers_and_a_cancel_from_elsewhere(s3, ctd, job_file, address, tmp_path):
    given, log = ("run", str(job_file(SLOW)), "--store", address), tmp_path / "log"
    first = begun(command, *given, "--executor", "serial", said=log)
    store = connect.open_objects(address)
    under_way = lambda: (
        list(objects.list_keys(store, "run/checkpoints")) or first.exitcode is not None
    )
    until(under_way, "a checkpoint")
    code, _, err = ctd("resume", address, "--executor", "serial")
    assert code == 2
    assert f"{address}: is being run by process {first.pid}" in err
    code, out, err = ctd("cancel", address)
    assert code == 0, err
    assert f"stopped process {first.pid}" in out
    first.join(300)
    said = log.read_bytes()
    assert first.exitcode == 75, said
    assert b"cancelled by" in said
    code, out, err = ctd("logs", address)
    assert (code, "cancelled by" in out) == (0, True), err
    assert lab.hides_secrets(
        said, out.encode(), *s3.objects(address.removeprefix("s3://lab/")).values()
    )


def test_commands_take_an_address(s3, ctd, address, tmp_path, monkeypatch):
    run(address, JOB)
    assert json.loads(ctd("status", address, "--json")[1])["items_done"] == 12
    rows = json.loads(ctd("query", address, "--where", "rate > 0.4", "--json")[1])
    assert [round(row["rate"], 3) for row in rows] == [0.409, 0.5]
    assert ctd("gather", address, "--set", "top=2")[0] == 0
    assert open_store(address)["gathered/0"].sizes["place"] == 2
    for target in ("item.h5", "s3://lab/item.h5"):
        code, out, err = ctd("export", address, 3, target, "--results")
        assert (code, out) == (0, f"wrote {target}\n"), err
    code, _, err = ctd("export", address, 2, target, "--results")
    assert (code, f"{target}: exists already; delete it" in err) == (2, True), err
    (tmp_path / "copy.h5").write_bytes(s3.objects("item.h5")["item.h5"])
    here, there = read_hdf5("item.h5"), read_hdf5("copy.h5")
    assert here.keys() == there.keys()
    np.testing.assert_array_equal(here["x"], there["x"])
    code, out, err = ctd("report", address)
    assert code == 0, err
    assert lab.hides_secrets(Path("test_commands_take_an_address.html").read_bytes())
    objects.delete(connect.open_objects(address), "results/0/x/c/1/0")
    with monkeypatch.context() as reader:  # whoever may list and read can look
        reader.setenv("AWS_ACCESS_KEY_ID", lab.READER)
        reader.setenv("AWS_SECRET_ACCESS_KEY", lab.READER_SECRET)
        for command in ("status", "query", "logs", "check"):
            code, out, err = ctd(command, address)
            assert code == (command == "check"), out + err
    assert ctd("check", address, "--repair")[0] == 0
    assert ctd("resume", address, "--executor", "serial")[0] == 0
    assert ctd("check", address)[0] == 0


@pytest.mark.ray
@pytest.mark.endurance
def test_workers_of_a_local_ray_reach_the_bucket(s3, ctd, job_file, address, monkeypatch):
    """They have the driver's environment; none of it is in what Ray writes down."""
    from cluster.ray.local import LocalRay

    written = {}
    real = LocalRay.stop

    def stop(self):
        files = [path for path in self._folder.rglob("*") if path.is_file()]
        written.update({str(path): path.read_bytes() for path in files})
        real(self)

    monkeypatch.setattr(LocalRay, "stop", stop)
    text = json.dumps({**JOB, "run": {**JOB["run"], "workers": 1}})
    run = ("run", job_file(text), "--store", address, "--base", BASE)
    code, out, err = ctd(*run, "--executor", "ray")
    assert code == 0, err
    assert json.loads(ctd("status", address, "--json")[1])["items_done"] == 12
    assert written
    assert lab.hides_secrets(out.encode(), err.encode(), *written.values())


# --- a server that is busy, or away, or wants new keys --------------------------------------------


def test_busy_server_slows_a_run_down_and_no_more(s3, address, whole, monkeypatch):
    with lab.Proxy(s3.url, lab.sometimes(0.07)) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        store, progress = run(address, JOB)
        gather(store)
        assert proxy.counts["busy"] > 3
        assert proxy.counts["lost"] > 3
    assert progress.items_done == 12
    assert (progress.failed, progress.retried) == ({}, 0)
    assert bucket_bytes(s3, address) == tree_bytes(whole.address)


@pytest.mark.parametrize("fault", ["busy", "reset"])
def test_first_request_to_a_busy_server(s3, address, monkeypatch, fault):
    """It is repeated for as long as any other: longer than a user waits for a server that is not there."""
    faults = [fault] * 8
    with lab.Proxy(s3.url, lambda method, path: faults.pop() if faults else None) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        connect.open_objects(address)
    assert proxy.counts[fault] == 8


def test_server_that_is_away_for_long_is_waited_for(s3, address, whole, monkeypatch):
    """Longer than requests are repeated: the run pauses, says why, and goes on."""
    impatient = {"max_retries": 1, "retry_timeout": lab.timedelta(seconds=1)}
    monkeypatch.setitem(connect.PATIENT, "retry_config", impatient)
    monkeypatch.setattr("jobs.run.limits.LONGEST_PAUSE_S", 0.5)
    monkeypatch.setattr("jobs.run.task.TICK_S", 0.0)
    heard, away = [], threading.Event()
    with lab.Proxy(s3.url, lambda method, path: "busy" if away.is_set() else None) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)

        def listen(progress):
            if progress.trouble and progress.trouble not in heard:
                heard.append(progress.trouble)
                away.clear()
            elif progress.shards_done == 1 and not heard:
                away.set()

        store = make(address, JOB)
        progress = run_shards(store, SerialExecutor(1), listen)
    assert progress.items_done == 12
    assert progress.failed == {}
    assert heard == [f"{address}: the storage fails: GenericError: Reduce your rate (SlowDown)"]
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.url)
    assert results_of(bucket_bytes(s3, address)) == results_of(tree_bytes(whole.address))


def test_keys_of_a_profile_that_run_out_and_are_renewed(s3, address, whole, monkeypatch, tmp_path):
    """The run waits for the new ones; it need not be started again."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_REGION"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_PROFILE", "lab")
    monkeypatch.setattr("jobs.storage.connect.REREAD", lab.timedelta(seconds=0.1))
    monkeypatch.setattr("jobs.run.limits.LONGEST_PAUSE_S", 0.5)
    monkeypatch.setattr("jobs.run.task.TICK_S", 0.0)
    (tmp_path / "config").write_text(f"[profile lab]\nendpoint_url = {s3.url}\n")

    def write(secret):
        keys = f"aws_access_key_id = {lab.KEY}\naws_secret_access_key = {secret}\n"
        (tmp_path / "credentials").write_text(f"[lab]\n{keys}")

    heard = []

    def listen(progress):
        if progress.trouble and progress.trouble not in heard:
            heard.append(progress.trouble)
            write(lab.SECRET)
        elif progress.shards_done == 1 and not heard:
            write("hush")
            time.sleep(0.2)

    write(lab.SECRET)
    store = make(address, JOB)
    progress = run_shards(store, SerialExecutor(1), listen)
    assert (progress.items_done, progress.failed) == (12, {})
    (said,) = heard
    assert "the credentials are wrong: the secret does not belong to the access key" in said
    assert results_of(bucket_bytes(s3, address)) == results_of(tree_bytes(whole.address))
    assert lab.hides_secrets(*s3.objects(address.removeprefix("s3://lab/")).values())
    assert not any(b"hush" in data for data in s3.objects().values())
