"""jobs.gather.merge: the merged store has the rows of its parts, to the bit, and is an ordinary store."""

import json
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr
from failing import Failing, holds
from hostile import reseal
from page_stores import finished, network
from search_jobs import HALVING
from stores import JOB, make, run

import jobs
from jobs import keys
from jobs.errors import JobError
from jobs.gather import merge as merging
from jobs.gather.check import check
from jobs.gather.gather import gather, set_gather
from jobs.gather.merge import merge
from jobs.query.best import best
from jobs.query.compare import compare
from jobs.query.query import query
from jobs.query.shelf import Shelf
from jobs.report.page.facts import facts
from jobs.run.shards import run_shards
from jobs.run.worker import SerialExecutor
from jobs.spec.sweep import Sweep
from jobs.storage import connect, objects
from jobs.storage.lease import Held, Lease, holder
from jobs.store.card import current_card
from jobs.store.store import Metric, Store, title_of
from jobs.store.writer import write_shard

RUN = {"shard_items": 6, "slots": 4, "microbatch": 2, "retries": 0, "backoff_s": 0}
OTHER = {
    "kernel": "toy",
    "seed": 6,
    "params": {"n_steps": 5, "n": 5},
    "sweep": [
        {"random": {"rate": {"uniform": [-0.5, 0.5]}}, "samples": 7},
        {"grid": {"push": [[0, 0], [1, -1]]}, "seeds": 2},
    ],
    "run": RUN,
}
"""It sets what JOB sweeps, has other steps, draws with another seed, and replicates."""


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """JOB's store, of which an item fails with an error; that of OTHER."""
    folder = tmp_path_factory.mktemp("parts")
    a = make(folder / "a.zarr", {**JOB, "run": RUN})
    run_shards(a, Failing(lambda task: task.shard.group == 1 and holds(task, {3}) and "error"))
    return a, run(folder / "b.zarr", OTHER)[0]


@pytest.fixture(scope="module")
def merged(parts, tmp_path_factory):
    store = merge(parts, str(tmp_path_factory.mktemp("merged") / "m.zarr"))
    gather(store)
    return store


def test_merged_store_has_the_rows_of_its_parts(parts, merged):
    assert check(merged.address) == []
    found = query(
        merged, columns="item,n,rate,push,n_steps,seed,status,outcome,norm,steps", table="items"
    )
    assert found.item.tolist() == list(range(44 + 11))
    frames = [query(store, table="items") for store in parts]
    first = 0
    for frame in frames:
        own = found[first : first + len(frame)].reset_index(drop=True)
        for name in ("n", "rate", "push", "seed", "status", "outcome", "norm", "steps"):
            if name in frame:
                np.testing.assert_array_equal(own[name], frame[name], err_msg=name)
        first += len(frame)
    assert found.n_steps.tolist() == [7] * 44 + [5] * 11
    assert found.n[44:].unique().tolist() == [5]
    assert (found.status == "failed").sum() == 1
    a, m = (jobs.open_store(store.address) for store in (parts[0], merged))
    where = "n == 3 and rate > 0"
    for ours, theirs in zip(m.select(f"{where} and item < 44")["results"].values(), a.select(where)["results"].values(), strict=True):  # fmt: skip
        np.testing.assert_array_equal(ours.x, theirs.x)


def test_merged_store_says_where_everything_comes_from(parts, merged):
    about = merged.job.provenance["merged"]
    assert [one["store"] for one in about] == [store.address for store in parts]
    assert [one["first_item"] for one in about] == [0, 44]
    assert [one["spec_sha256"] for one in about] == [store.job.spec.digest() for store in parts]
    assert about[1]["spec"]["seed"] == 6
    card = current_card(merged)
    assert (card.ended, title_of(merged)) == (0, "m"), "it is listed by when it was merged"
    known = {store.address for store in parts}
    assert all(set(m.copied_from.split(", ")) <= known for m in merged.committed.markers())
    entries = [entry for some in merged.failed.items().values() for entry in some]
    (old,) = [entry for some in parts[0].failed.items().values() for entry in some]
    assert [(entry.item, entry.error) for entry in entries] == [(old.item, old.error)]
    assert sum(m.n_failed for m in merged.committed.markers()) == 1
    count = lambda store: pd.DataFrame([m.outcomes for m in store.committed.markers()]).sum()
    assert (count(merged) == count(parts[0]) + count(parts[1])).all()


def test_merged_store_computes_nothing_again(merged, tmp_path):
    """With the merged ids, its items would draw other random numbers."""
    store = Store.open(str(shutil.copytree(merged.address, tmp_path / "m.zarr")))
    run_shards(store, SerialExecutor(1))
    store.committed.forget([next(iter(store.job.plan.shards()))])
    with pytest.raises(JobError, match=r"m.zarr: was merged.* repair those stores, and merge"):
        run_shards(store, SerialExecutor(1))


def test_random_items_with_one_seed_stay_as_they_were_drawn(parts, tmp_path):
    """In the merged list, those of the second store would go on behind those of the first."""
    other, _ = run(tmp_path / "c.zarr", {**OTHER, "params": {"n_steps": 6, "n": 5}})
    merged = merge([parts[1], other], str(tmp_path / "m.zarr"))
    rates = [row for store in (parts[1], other) for row in store.rows(0, "rate", 0, 11).tolist()]
    assert merged.rows(0, "rate", 0, 22).tolist() == rates


def test_jobs_that_differ_in_their_seed_are_told_apart(tmp_path):
    """Also those of a merged store that is merged again: its own job has the seed of the first."""
    job = {"kernel": "toy", "sweep": {"grid": {"rate": [0.1, 0.2]}, "seeds": 2}, "run": RUN}
    a, b, c = (run(tmp_path / f"{seed}.zarr", {**job, "seed": seed})[0] for seed in (0, 7, 9))
    both = merge([b, c], str(tmp_path / "bc.zarr"))
    with pytest.raises(JobError, match=r"bc.zarr: cannot be merged: has items of another"):
        merge([b, both], str(tmp_path / "x.zarr"))
    twice = merge([a, both], str(tmp_path / "m.zarr"))
    gather(twice)
    found = query(twice)
    assert found.job_seed.tolist() == [0] * 4 + [7] * 4 + [9] * 4
    assert not found.duplicated(["rate", "seed", "job_seed"]).any()
    assert "job_seed" in jobs.open_store(twice.address)["items"].coords
    assert "job_seed" not in query(a)
    seeds = "{name: seeds, of: norm}, {name: seeds, of: norm, over: [seed], table: apart}"
    set_gather(twice, [f"reductions=[{seeds}, {{name: counts, by: [job_seed]}}]"])
    gather(twice)
    assert query(twice, table="seeds")["count"].tolist() == [6, 6]
    assert query(twice, table="apart").job_seed.tolist() == [0, 0, 7, 7, 9, 9]
    assert query(twice, table="counts")["count"].tolist() == [4, 4, 4]
    with pytest.raises(JobError, match="unknown column 'job_seed'"):
        set_gather(a, ["reductions=[{name: counts, by: [job_seed]}]"])
    found = best(twice, Metric("rate"))
    assert (found.seeds.n, found.replicates) == (6, ("seed", "job_seed"))
    assert [dict(facts(store)["facts"])["seed"] for store in (twice, a)] == ["0, 7, 9", "0"]
    found = compare(twice, b)
    assert (found.items, found.results.differ.sum()) == ({"both": 4, "a": 8, "b": 0}, 0)
    assert Shelf([twice, b]).overview()["job_seed"] == ["0, 7, 9", "7"]


@pytest.mark.parametrize(
    ("job", "said"),
    [
        (HALVING, "its kernel is hill, but that of .* is toy"),
        (JOB, "has items of another of these stores"),
        ({**OTHER, "keep_bits": {"x": 8}}, "rounds other results"),
    ],
)
def test_merge_refuses_what_does_not_fit(parts, tmp_path, job, said):
    other = make(tmp_path / "c.zarr", job)
    if job is JOB:
        other = run(tmp_path / "c.zarr", job)[0]
    with pytest.raises(JobError, match=f"c.zarr: cannot be merged: {said}"):
        merge([parts[0], other], str(tmp_path / "m.zarr"))
    assert not (tmp_path / "m.zarr").exists()


@pytest.mark.parametrize("swept", [False, True])
def test_merged_files_are_found_from_another_folder(tmp_path, swept):
    """Both jobs name net.h5, each in its own folder, or one sweeps it; the merged one finds both."""
    network(tmp_path)
    path = str(tmp_path / "copy.zarr")
    shutil.copytree(finished("fixed_points").address, path)
    reseal(Store.open(path), str(tmp_path), "fixed_points")
    stores = [Store.open(path), finished("fixed_points")]
    if swept:
        job = stores[1].job
        params = {name: value for name, value in job.spec.params.items() if name != "weights"}
        grid = {"weights": ["net.h5"], "candidate": list(range(24))}
        changed = {"params": params, "sweep": Sweep(grid=grid)}
        stores[1] = Store.open(stores[1].address)
        stores[1].job = replace(job, spec=job.spec.model_copy(update=changed))
    merged = merge(stores, str(tmp_path / "m.zarr"))
    gather(merged)
    assert check(merged.address) == []
    for k, store in enumerate(stores):
        q = query(merged, f"item >= {24 * k} and item < {24 * (k + 1)}", columns="q", table="items")
        np.testing.assert_array_equal(q.q, query(store, table="items").q)
    weights = query(merged, columns="weights", table="items").weights.unique().tolist()
    assert weights == ["net.h5", str(Path(stores[1].address).parent / "net.h5")]


def test_merged_whole_numbers_stay_numbers(tmp_path):
    """Seeds and steps that both stores sweep, more than ten, so that their texts have another order."""
    steps = {
        "kernel": "toy",
        "sweep": {"grid": {"n_steps": {"range": [1, 13]}}, "seeds": 2},
        "run": RUN,
    }
    stores = [
        run(tmp_path / f"{k}.zarr", {**steps, "params": {"rate": rate}})[0]
        for k, rate in enumerate((0.1, 0.2))
    ]
    merged = merge(stores, str(tmp_path / "m.zarr"))
    gather(merged)
    found = query(merged, columns="n_steps,seed,steps", table="items")
    assert found.n_steps.tolist() == found.steps.tolist() == 2 * np.repeat(range(1, 13), 2).tolist()
    assert found.seed.tolist() == 24 * [0, 1]


def test_merge_refuses_other_defaults_than_those_of_the_stores(tmp_path):
    stores = [
        run(tmp_path / f"{k}.zarr", {"kernel": "toy", "params": {"n_steps": k}, "sweep": {"seeds": 2}})[0]
        for k in (1, 2)
    ]  # fmt: skip
    # As an earlier version of the kernel had it.
    store = zarr.open_group(stores[1].address)["results/0"]
    store.attrs["params"] = {**store.attrs["params"], "rate": 0.25}
    with pytest.raises(
        JobError, match=r"2.zarr: .* made with rate: 0.25, but the default is 0.5 now"
    ):
        merge([stores[0], Store.open(stores[1].address)], str(tmp_path / "m.zarr"))


def test_merge_leaves_nothing_half_written(parts, tmp_path, monkeypatch):
    empty = make(tmp_path / "empty.zarr", OTHER)
    with pytest.raises(
        JobError, match=r"empty.zarr: cannot be merged: lacks 2 shards; `ctd resume"
    ):
        merge([parts[0], empty], str(tmp_path / "m.zarr"))
    with pytest.raises(JobError, match="holds something already"):
        merge(parts, str(tmp_path / "empty.zarr"))
    calls = []

    def fails(*given):
        calls.append(given)
        if len(calls) == 3:
            raise OSError(5, "Input/output error")
        write_shard(*given)

    monkeypatch.setattr(merging, "write_shard", fails)
    with pytest.raises(JobError, match=r"m.zarr: cannot be written: Input/output error"):
        merge(parts, str(tmp_path / "m.zarr"))
    assert not (tmp_path / "m.zarr").exists()


def at_the_third_shard(monkeypatch, does):
    """Have `does(store)` called once, before the third shard is written."""
    calls = []

    def written(store, *given):
        calls.append(given)
        if len(calls) == 3:
            does(store)
        write_shard(store, *given)

    monkeypatch.setattr(merging, "write_shard", written)


def test_merge_is_alone_at_its_address(parts, tmp_path, monkeypatch):
    """A second merge, or a run, that comes while it writes is refused, and so is a merge while a run creates its store."""
    to, refused = str(tmp_path / "m.zarr"), []

    def others(store):
        for other in (lambda: merge(parts[::-1], to), lambda: make(to)):
            with pytest.raises(Held, match=r"m.zarr: is being run by process \d+ of ") as told:
                other()
            refused.append(str(told.value).count("\n"))

    at_the_third_shard(monkeypatch, others)
    merged = merge(parts, to)
    assert refused == [0, 0]
    assert [one["store"] for one in merged.job.provenance["merged"]] == [p.address for p in parts]
    gather(merged)
    assert check(to) == []
    created = str(tmp_path / "created.zarr")
    lease = Lease.acquire(connect.open_objects(created, create=True), created)
    with pytest.raises(Held, match=r"created.zarr: is being run by process"):
        merge(parts, created)
    lease.release()
    assert len(merge(parts, created).committed.numbers()) == merged.job.plan.n_shards


def test_merge_that_lost_its_lease_stops_and_leaves_what_is_there(parts, tmp_path, monkeypatch):
    def taken_over(store):
        record = holder(store.objects)
        other = replace(
            record,
            generation=record.generation + 1,
            machine="other",
            host="node7",
            renewed=time.time(),
        )
        objects.write(store.objects, keys.lease(other.generation), json.dumps(other.to_json()).encode())  # fmt: skip

    at_the_third_shard(monkeypatch, taken_over)
    with pytest.raises(Held, match=r"m.zarr: process .* on node7 .* took over"):
        merge(parts, str(tmp_path / "m.zarr"))
    # What lies there is the other's now.
    assert (tmp_path / "m.zarr" / "results").exists()
    assert holder(connect.open_objects(str(tmp_path / "m.zarr"))).host == "node7"


def test_cancelled_merge_stops_and_leaves_nothing(ctd, parts, tmp_path, monkeypatch):
    """`ctd cancel` of the address stops it, as the refusal of a second merge advises, though no store is there yet."""
    to, asked, told = str(tmp_path / "m.zarr"), threading.Event(), []
    cancel = threading.Thread(target=lambda: told.append(ctd("cancel", to)))
    ask = Lease.ask
    monkeypatch.setattr(Lease, "ask", lambda self, *given: (ask(self, *given), asked.set()))

    def cancelled(store):
        cancel.start()
        assert asked.wait(60)

    at_the_third_shard(monkeypatch, cancelled)
    with pytest.raises(
        JobError, match=r"m.zarr: stopped: cancelled by .*; the same command begins again$"
    ):
        merge(parts, to)
    cancel.join()
    assert told[0][0] == 0
    assert "its command begins again" in told[0][1]
    assert not (tmp_path / "m.zarr").exists()
    code, _, err = ctd("cancel", to)
    assert code == 2
    assert "no such store" in err


def test_merge_on_the_command_line(ctd, parts, tmp_path):
    code, out, err = ctd("merge", tmp_path / "m.zarr", *(store.address for store in parts))
    assert code == 0, err
    assert out == f"merged 55 items of 2 stores; `ctd query {tmp_path / 'm.zarr'}`\n"
    out = ctd("status", tmp_path / "m.zarr")[1]
    assert f"merged from  {parts[0].address}, {parts[1].address}\n" in out
    assert "\nruns " not in out
    code, out, err = ctd("merge", tmp_path / "n.zarr", parts[0].address)
    assert (code, "1 store given; two or more expected" in err) == (2, True)
    one = parts[0].address
    said = f"error: {one} is given twice; give two or more stores\n"
    assert ctd("merge", tmp_path / "y.zarr", one, f"{one}/") == (2, "", said)
