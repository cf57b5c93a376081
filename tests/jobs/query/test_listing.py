"""jobs.query.collection and jobs.store.card: a list of stores says what the stores say, of finished ones by one object each."""

import json
import os
import shutil

import numpy as np
import pytest
from messages import refused
from search_jobs import HALVING
from stores import JOB, copied_run, make, run

from jobs import keys
from jobs.errors import JobError
from jobs.gather.check import check
from jobs.gather.gather import gather
from jobs.query.collection import COLUMNS, list_stores
from jobs.query.query import query
from jobs.run.task import Task
from jobs.run.worker import SerialExecutor
from jobs.storage import connect, objects
from jobs.storage.checksums import checksummed, read_verified
from jobs.store.card import Note, read_card, read_note, write_card, write_note
from jobs.store.finding import walk
from jobs.store.look import Look
from jobs.store.store import Store


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    """JOB's store, of which nothing has been gathered."""
    return copied_run(tmp_path_factory.mktemp("computed") / "a.zarr").address


def copied(address, tmp_path):
    """A store that a test may change."""
    return Store.open(str(shutil.copytree(address, tmp_path / "a.zarr")))


@pytest.fixture(scope="module")
def lab(tmp_path_factory, computed):
    """whole.zarr (44 items), searched.zarr (halving by the least loss), part.zarr (one shard of 8), empty.zarr."""
    lab = tmp_path_factory.mktemp("lab")
    gather(Store.open(str(shutil.copytree(computed, lab / "whole.zarr"))))
    gather(copied_run(lab / "searched.zarr", HALVING))
    part = make(lab / "part.zarr")
    executor = SerialExecutor(1)
    executor.start(part.address)
    executor.submit(Task(next(iter(part.job.plan.shards()))))
    assert executor.wait(0)[0].error is None
    make(lab / "empty.zarr")
    return lab


def card_of(store):
    ((_, card),) = walk(store.address, read_card)
    return card


def size(path):
    return sum(
        os.path.getsize(os.path.join(folder, name))
        for folder, _, names in os.walk(path)
        for name in names
    )


def test_a_search_lists_what_it_proposes(tmp_path):
    laws = {"rate": {"uniform": [0.01, 0.3]}}
    search = {"method": "optuna", "metric": "loss", "trials": 3, "params": laws}
    store = make(tmp_path / "o.zarr", {**HALVING, "sweep": {}, "search": search})
    assert write_card(Look(store)).swept == ("rate", "seed")


def test_list_says_what_each_store_says(lab):
    found, wrong = list_stores([str(lab)])
    assert wrong == []
    rows = {name: k for k, name in enumerate(found["store"])}
    assert sorted(rows) == ["empty", "part", "searched", "whole"]
    of = lambda name: {column: values[rows[name]] for column, values in found.items()}
    counts = lambda name: [of(name)[c] for c in ("items", "done", "failed", "left")]
    assert counts("whole") == [44, 44, 0, 0]
    assert counts("part") == [44, 6, 0, 38]
    assert counts("empty") == [44, 0, 0, 44]
    assert of("whole")["swept"] == "n, rate, push"
    assert of("whole")["kernel"] == "toy"
    assert (of("whole")["metric"], np.isnan(of("whole")["best"])) == ("", True)
    searched = query(
        Store.open(str(lab / "searched.zarr")), "status == 'done'", sort="loss", limit=1
    )
    assert (of("searched")["metric"], of("searched")["best_item"]) == ("loss", searched.item[0])
    assert (type(of("searched")["best_item"]), of("whole")["best_item"]) == (int, None)
    status = query(Store.open(str(lab / "searched.zarr")), table="items").status.value_counts()
    assert status["dropped"] > 0
    assert counts("searched") == [27, status["done"], status.get("failed", 0), 0]
    assert of("searched")["dropped"] == status["dropped"]
    assert of("searched")["best"] == pytest.approx(searched.loss[0])
    # The card itself, and the end of the lease of the gather that wrote it, came later.
    later = os.path.getsize(lab / "whole.zarr" / keys.CARD) + 200
    assert of("whole")["size_mb"] * 1e6 == pytest.approx(size(lab / "whole.zarr"), abs=later)
    assert (
        of("whole")["jax"] == Store.open(str(lab / "whole.zarr")).job.provenance["versions"]["jax"]
    )


def test_list_is_sorted_by_time_and_filtered(command_line, tmp_path):
    for k, name in enumerate(("b.zarr", "c.zarr", "a.zarr")):
        store = make(tmp_path / name)
        about = {"ended": 100.0 - k, "done": 44, "best": float(k), "metric": "loss" if k else ""}
        whole = card_of(store).model_copy(update=about)
        whole.write(store.objects, keys.CARD)
    assert list_stores([str(tmp_path)])[0]["store"].tolist() == ["b", "c", "a"]
    found = lambda where: list_stores([str(tmp_path)], where)[0]["store"].tolist()
    assert found("kernel == 'toy' and best >= 1") == ["c", "a"]
    assert found("kernel == 'lfads'") == []
    # As a query sorts and limits; a metric is a column of its own.
    asked = lambda **words: list_stores([str(tmp_path)], **words)[0]["store"].tolist()
    assert asked(sort="-best", limit=2) == ["a", "c"]
    assert asked(sort="done,store") == ["a", "b", "c"]
    assert asked(where="loss < 2", sort="loss") == ["c"]
    assert asked(sort="-loss", limit=1) == ["a"]
    assert asked(limit=0) == []
    with refused(JobError):
        asked(sort="lost")
    code, out, err = command_line(
        "ls", tmp_path, "--sort", "-best", "--sort", "store", "--limit", "2"
    )
    assert (code, err) == (0, "")
    shown = [f"{tmp_path}/a.zarr", f"{tmp_path}/c.zarr"]
    assert [line.split()[0] for line in out.splitlines()[1:3]] == shown
    # A card of an earlier version has no such field.
    old = {k: v for k, v in whole.model_dump(mode="json").items() if k != "dropped"}
    objects.write(store.objects, keys.CARD, checksummed(old))
    assert found("dropped == 0 and left == 0") == ["b", "c", "a"]
    with refused(JobError):
        found("bets < 1")
    with refused(JobError):
        list_stores([str(tmp_path / "none")])


def test_list_says_what_differs(tmp_path):
    """Two jobs of one kernel, and one of another, whose only job differs from no other."""
    make(tmp_path / "a.zarr")
    make(tmp_path / "b.zarr", {**JOB, "seed": 6, "params": {"n_steps": 9, "offset": 1.0}})
    make(tmp_path / "c.zarr", {**JOB, "params": {}, "sweep": {"grid": {"n_steps": [1, 2]}}})
    other = {"kernel": "hill", "seed": 7}
    make(tmp_path / "d.zarr", other)
    found, _ = list_stores([str(tmp_path)], sort="store")
    fields = {name: found[name].astype(str).tolist() for name in found if name not in COLUMNS}
    assert fields == {
        "job_seed": ["5.0", "6.0", "5.0", "nan"], "n_steps": ["7", "9", "swept", ""],
        "offset": ["nan", "1.0", "nan", "nan"],
    }  # fmt: skip
    assert list_stores([str(tmp_path)], "job_seed == 6")[0]["store"].tolist() == ["b"]


def test_card_is_there_only_while_all_items_are(computed, tmp_path):
    """It goes when shards are taken back, and comes with the gather after they are computed again."""
    store = copied(computed, tmp_path)
    there = lambda: objects.read(store.objects, keys.CARD) is not None
    assert not there(), "nothing has been gathered"
    gather(store)
    assert there()
    store.committed.forget([next(iter(store.job.plan.shards()))])
    assert not there()
    assert card_of(store).tally.left == 6
    assert not there()
    run(tmp_path / "a.zarr", JOB)
    gather(Store.open(store.address))
    assert card_of(store).tally.left == 0


@pytest.mark.parametrize("at", ["before the write", "after the write"])
def test_card_that_is_written_as_shards_are_taken_back_does_not_stay(
    computed, tmp_path, monkeypatch, at
):
    """A reader has read the markers, and then `ctd check --repair` takes one back before or after the card is written."""
    store = copied(computed, tmp_path)
    write = objects.write

    def beside(where, key, data):
        steps = [
            lambda: store.committed.forget([next(iter(store.job.plan.shards()))]),
            lambda: write(where, key, data),
        ]
        assert key == keys.CARD
        for step in steps if at == "before the write" else reversed(steps):
            step()

    monkeypatch.setattr(objects, "write", beside)
    assert card_of(store).tally.left == 0
    assert objects.read(store.objects, keys.CARD) is None
    monkeypatch.undo()
    assert card_of(store).tally.left == 6


def test_note_is_kept_over_a_gather_and_damage_is_found(computed, tmp_path):
    store = copied(computed, tmp_path)
    note = Note(note="for figure 2", tags=("paper", "gru"))
    write_note(store, note)
    gather(store)
    card = card_of(store)
    assert (card.note, card.tags) == (note.note, note.tags)
    write_note(store, Note(tags=("paper",)))
    assert read_note(store.objects) == Note(tags=("paper",))
    assert card_of(store).tags == ("paper",)
    assert list_stores([str(tmp_path)], tags=["paper"])[0]["store"].tolist() == ["a"]
    assert not len(list_stores([str(tmp_path)], tags=["gru"])[0]["store"])
    assert check(store.address) == []
    for key in (keys.CARD, keys.NOTE):
        whole = objects.read(store.objects, key)
        objects.write(store.objects, key, whole.replace(b"paper", b"pager"))
        assert [finding.key for finding in check(store.address)] == [key]
        assert card_of(store).tally.left == 0, "made from the markers"
        objects.write(store.objects, key, whole)


def test_list_names_a_store_that_cannot_be_read(lab, tmp_path):
    store = make(tmp_path / "newer.zarr")
    content = read_verified(store.objects, keys.JOB) | {"format": 99}
    for key in (keys.JOB, keys.JOB_COPY):
        objects.write(store.objects, key, json.dumps(content).encode())
    found, wrong = list_stores([str(tmp_path), str(lab / "whole.zarr")])
    assert found["store"].tolist() == ["whole"]
    assert len(wrong) == 1
    assert "store format 99" in wrong[0]


def test_list_of_a_bucket_reads_one_object_a_finished_store(s3, lab, monkeypatch):
    from s3 import Proxy

    for k in range(5):
        place = connect.open_objects(f"s3://lab/many/{k}.zarr")
        for key in (keys.JOB, keys.CARD):
            objects.write(place, key, (lab / "whole.zarr" / key).read_bytes())
    seen = []
    with Proxy(s3.url, lambda method, path: seen.append((method, path))) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        found, wrong = list_stores(["s3://lab/many/"])
    assert (found["store"].tolist(), wrong) == ([str(k) for k in range(5)], [])
    gets = [path for method, path in seen if method == "GET" and "list-type" not in path]
    asked = [path for path in gets if ".zarr" in path]
    assert len(asked) == 5, asked
    assert len(seen) <= 5 + 5, seen


def test_note_brings_no_card_back_that_was_taken_back(lab, tmp_path, monkeypatch):
    """A shard is taken back while a note is written."""
    store = copied(lab / "whole.zarr", tmp_path)
    write = objects.write

    def beside(where, key, data):
        if key == keys.CARD:
            store.committed.forget([next(iter(store.job.plan.shards()))])
        write(where, key, data)

    monkeypatch.setattr(objects, "write", beside)
    write_note(store, Note(tags=("paper",)))
    monkeypatch.undo()
    assert (card_of(store).tally.left, card_of(store).tags) == (6, ("paper",))


def test_list_beside_a_gather_has_no_best(lab, tmp_path):
    """It has deleted the checksums, and replaced one of the arrays."""
    store = copied(lab / "searched.zarr", tmp_path)
    assert np.isfinite(card_of(store).best)
    for key in (keys.CARD, keys.sums("gathered")):
        objects.delete(store.objects, key)
    array = store.root["items/loss"]
    array.resize((2,))
    assert card_of(store).best is None
