"""jobs.report.page without a browser: what it says of a store, what it must not say, and the command."""

import json
import re
import time
from dataclasses import replace

import numpy as np
import pytest
from page_stores import HOSTILE, SECRET, create, finished

from ctd.kernel import Display
from ctd.plots import Plot
from jobs.query.query import table
from jobs.redact import redact
from jobs.report.history import history, history_lines
from jobs.report.page import Content, render
from jobs.report.page.groups import keep
from jobs.run.task import Task
from jobs.run.worker import Worker
from jobs.storage.lease import Lease
from jobs.store.arrays import Rows
from jobs.store.store import Store


@pytest.fixture(scope="module")
def store():
    return finished("toy")


@pytest.fixture(scope="module")
def content(store):
    return Content(store).all()


# --- what it says ---------------------------------------------------------------------------------


def test_content_counts_what_the_store_holds(store, content):
    assert (content["progress"]["items_done"], content["progress"]["items"]) == (43, 44)
    assert content["progress"]["items_failed"] == 1
    assert content["status"] == {
        "word": "complete, 1 of 44 failed", "mood": "warning", "text": "1 with an error",
    }  # fmt: skip
    assert {o["name"]: o["n"] for o in content["outcomes"]} == {"stopped": 43, "diverged": 0}
    of_group = ["22 of 22 items, 1 failed", "22 of 22 items"]
    assert [group["items"] for group in content["groups"]][1:] == of_group
    assert sum(worker["shards"] for worker in content["hosts"]) == 8
    assert [group["label"] for group in content["groups"]] == [
        "all groups", "group 0: n = 3", "group 1: n = 5",
    ]  # fmt: skip
    assert content["spec"].startswith("kernel: toy")


def test_content_draws_the_curves_of_all_groups_together(content):
    """So that a reader can colour them by a field that tells the groups apart."""
    shared, *groups = content["groups"]
    ids = lambda group: {
        i for plot in group["plots"] for layer in plot["layers"] for i in layer.get("item", ())
    }
    assert ids(shared) == ids(groups[0]) | ids(groups[1])
    assert len(shared["plots"]) == len(groups[0]["plots"])


def test_content_has_the_log_of_every_shard(store, content):
    """The rows of an item lead to the lines that `ctd logs --item` prints."""
    shards = list(store.job.plan.shards())
    places = [(log["group"], log["start"], log["stop"]) for log in content["logs"]]
    assert places == [(s.group, s.start, s.stop) for s in shards]
    for shard, log in zip(shards, content["logs"], strict=True):
        said = history_lines(history(store, shard=shard.number), time.gmtime)
        assert log["lines"] == redact(said)
        assert any(
            re.search(rf"  shard {shard.number}(, attempt \d+)? committed, ", line) for line in said
        )


def test_content_tells_failures_once_with_their_items(store, content):
    failed = content["failures"]
    assert [(f["what"], f["n_ids"], f["open"], f["in_part"]) for f in failed] == [
        ("item", 1, True, False),
        ("shard", 1, False, True),
    ]
    assert failed[0]["ids"] == [int(store.rows(0, "item", 8, 9)[0])]
    assert failed[0]["error"] == f"ValueError: {HOSTILE}"
    assert HOSTILE in failed[0]["trace"]


def test_content_tables_are_those_of_query(store, content):
    tables = {t["name"]: t for t in content["tables"]}
    assert list(tables) == ["items", "place", "shards"]
    frame = table(store, "items")
    shown = {column["name"]: column for column in tables["items"]["columns"]}
    assert sorted(shown) == sorted(frame.columns)
    assert list(shown)[:3] == ["item", "n", "rate"]
    assert list(shown)[-3:] == ["group", "row", "status"], "where an item lies comes last"
    np.testing.assert_allclose(shown["rate"]["values"], frame["rate"], rtol=1e-5)  # 6 digits
    status = [shown["status"]["labels"][k] for k in shown["status"]["values"]]
    assert status == list(frame["status"])
    assert shown["norm"]["title"] == "distance (m)"


def test_content_of_a_part_of_the_shards(tmp_path):
    """What is committed is shown, while a driver holds the store; groups without any item are not."""
    store = create(tmp_path, "toy")
    worker, shards = Worker(store.address), list(store.job.plan.shards())
    lease = Lease.acquire(store.objects, store.address)
    assert worker.do(Task(shards[0], 1)).error is None
    content = Content(store).all()
    lease.release()
    assert content["status"]["word"] == "running"
    assert content["progress"]["items_done"] == 6
    assert [(g["label"], g["items"]) for g in content["groups"]] == [
        ("group 0: n = 3", "6 of 22 items")
    ]
    assert len(content["groups"][0]["plots"][0]["layers"][0]["y"]) == 6
    assert {t["name"]: t["n"] for t in content["tables"]} == {"items": 6, "place": 3, "shards": 1}
    stopped = Content(store).facts()["status"]
    assert (stopped["word"], stopped["mood"]) == ("incomplete", "warning")
    assert stopped["text"].startswith("7 of 8 shards not computed")
    assert stopped["text"].endswith(f"; `ctd resume {store.address}` continues it")


def test_a_picture_that_fails_is_said_and_the_rest_stays(store, monkeypatch):
    def broken(*given):
        raise KeyError("curve")

    draws = lambda plots: monkeypatch.setitem(
        store.__dict__, "kernel", replace(store.kernel, display=Display(plots=plots))
    )
    draws(broken)
    content = Content(store).results()
    first, line, after = content["groups"][0]["error"].splitlines()
    assert first == "no picture: kernel toy: plots: KeyError: 'curve'"
    assert line.endswith('in broken: raise KeyError("curve")')
    assert "once plots is mended, `ctd gather " in after
    assert len(content["tables"]) == 3
    draws(lambda *given: Plot("alone", []))
    assert "a ctd.plots.Plot is returned, expected a list" in keep(store), "in the terminal, too"
    draws(lambda *given: [])
    assert Content(store).results()["groups"][0]["items"].endswith("1 failed: 21 stopped")


def test_rows_read_only_what_is_indexed(store):
    chosen = np.array([0, 3, 4, 9, 20])
    whole = store.rows(0, "x", 0, 22)[chosen]
    rows = Rows(store.array(0, "x"), chosen)
    assert rows.shape == (5, 3)
    for key in (0, -1, slice(None), slice(1, 3), [4, 0, 0], np.array([], int), np.array([1, 2])):
        np.testing.assert_array_equal(rows[key], whole[key])
    np.testing.assert_array_equal(rows[1:3, 2], whole[1:3, 2])
    np.testing.assert_array_equal(rows[2, 1], whole[2, 1])
    np.testing.assert_array_equal(np.asarray(rows, np.float64), whole.astype(np.float64))


# --- what it must not say -------------------------------------------------------------------------


def test_page_holds_no_secret_and_no_markup_of_the_content(store, content, monkeypatch):
    page = render(content)
    assert SECRET not in page
    assert HOSTILE not in page
    assert "<img" not in page
    data = re.search(r'<script type="application/json" id="content">(.*?)</script>', page, re.S)
    assert json.loads(data[1])["content"] == content
    assert page.count("</script>") == 2


def test_page_allows_itself_no_network(content):
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', render(content))[1]
    assert "default-src &#x27;none&#x27;" in policy
    assert "connect-src &#x27;none&#x27;" in policy
    assert "unsafe" not in policy
    page = render(content | {"spec": "", "facts": []})
    urls = re.findall(r"(?:https?:)?//[\w.-]+\.\w+", page)
    assert urls == []


# --- the command ----------------------------------------------------------------------------------


def test_report_writes_beside_the_store_or_where_asked(ctd, store, tmp_path):
    code, out, err = ctd("report", store.address)
    assert code == 0, err
    beside = store.address.removesuffix(".zarr") + ".html"
    assert out.strip() == f"report  {beside}"
    code, out, err = ctd("report", store.address, "--to", tmp_path / "page.html")
    assert code == 0, err
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
    # As when a folder has a store whose run was stopped early.
    (tmp_path / "empty").mkdir()
    empty = create(tmp_path / "empty", "toy").address
    code, out, err = ctd("report", empty, store.address)
    assert (code, out.strip()) == (0, f"report  {beside}"), err
    assert f"left out: {empty}: no item has been computed yet; `ctd status {empty}`" in err
    assert f"`ctd resume {empty}` continues it" in err
    lease = Lease.acquire(Store.open(empty).objects, empty)
    err = ctd("report", empty, store.address)[2]
    assert f"no item has been computed yet; the job is running, `ctd status {empty}`" in err
    lease.release()


def test_report_refuses(ctd, store, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "nothing").mkdir()
    (tmp_path / "folder.html").mkdir()
    empty = create(tmp_path / "empty", "toy").address
    for args, said in (
        (["none.zarr"], "none.zarr: no such store"),
        ([tmp_path / "nothing"], "nothing: no store lies in this folder"),
        ([empty], "no item has been computed yet"),
        ([store.address, "--to", "/proc/none/x.html"], "/proc/none/x.html: cannot be written"),
        ([store.address, "--to", tmp_path / "folder.html"], "cannot be written"),
        (
            [store.address, "--to", "page.pdf"],
            "page.pdf: the report is a page; give a name that ends in .html",
        ),
    ):
        code, _, err = ctd("report", *args)
        assert code == 2, err
        assert said in err.replace("\n", " ")
        assert "Traceback" not in err


def test_wheel_has_the_parts_of_the_page():
    """The parts are read as package data: they lie inside the package that the wheel takes whole."""
    from importlib.resources import files

    assets = files("jobs.report.page") / "assets"
    assert {"page.html", "page.css", "page.js", "plot.js"} <= {p.name for p in assets.iterdir()}


def test_a_page_has_as_many_colours_of_layers_as_a_png():
    """In the light and the dark theme; with fewer, two layers of one plot have one colour."""
    from importlib.resources import files

    style = (files("jobs.report.page") / "assets" / "page.css").read_text()
    named = re.findall(r"--c(\d+): #\w{6};", style)
    assert named == 2 * [str(k) for k in range(10)]
