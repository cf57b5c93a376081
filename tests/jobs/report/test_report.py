"""jobs.report.page without a browser: what it says, how much, and what it must not."""

import json
import re
import time
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from page_stores import HOSTILE, SECRET, create, finished
from scipy.stats import f_oneway, spearmanr

from ctd.lfads.plots import plots as lfads_plots
from ctd.plots import Axis, Bars, Image, Lines, Plot, Points, histogram, stacked, tick
from ctd.principal import principal
from jobs.query.query import table
from jobs.report.history import history, history_lines
from jobs.report.importance import bins_of, effects, variance_share
from jobs.report.page import Content, render
from jobs.report.page.encode import (
    MAX_LINES,
    MAX_MARKS,
    MAX_ROWS,
    MAX_VERTICES,
    numbers,
    plot_json,
    spread,
    table_json,
)
from jobs.report.page.redact import redact, secrets_of
from jobs.report.page.rows import Rows
from jobs.report.page.together import is_curves, together
from jobs.run.task import Task
from jobs.run.worker import Worker
from jobs.storage.lease import Lease


@pytest.fixture(scope="module")
def store():
    return finished("toy")


@pytest.fixture(scope="module")
def content(store):
    return Content(store).all()


# --- what it says ---------------------------------------------------------------------------------


def test_content_counts_what_the_store_holds(store, content):
    assert content["progress"]["items_done"] == content["progress"]["items"] == 44
    assert content["progress"]["items_failed"] == 1
    assert content["status"] == {
        "word": "complete", "mood": "warning", "text": "1 of 44 items failed",
    }  # fmt: skip
    assert {o["name"]: o["n"] for o in content["outcomes"]} == {"stopped": 43, "diverged": 0}
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
        assert any("  committed  " in line for line in said)


@pytest.mark.parametrize(("lengths", "lines"), [((3, 3), [400]), ((3, 4), [250, 250])])
def test_together_joins_lines_over_one_x_and_bounds_them(lengths, lines):
    plots = [
        plot_json(
            Plot(
                "loss",
                [Lines(np.arange(n), np.ones((250, n)), item=np.arange(250) + 250 * k)],
                Axis("step"),
                Axis("loss"),
            )
        )
        for k, n in enumerate(lengths)
    ]
    (made,) = together([[plots[0]], [plots[1]]], is_curves)
    assert (
        [len(layer["y"]) for layer in made["layers"]]
        == [len(layer["item"]) for layer in made["layers"]]
        == lines
    )
    assert together([[plots[0]], []], is_curves) == []


def test_content_tells_failures_once_with_their_items(store, content):
    failed = content["failures"]
    assert [(f["what"], f["n_ids"], f["open"]) for f in failed] == [
        ("item", 1, True),
        ("shard", 1, False),
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
    assert list(shown)[-3:] == ["status", "group", "row"], "where an item lies comes last"
    np.testing.assert_allclose(shown["rate"]["values"], frame["rate"], rtol=1e-5)  # 6 digits
    status = [shown["status"]["labels"][k] for k in shown["status"]["values"]]
    assert status == list(frame["status"])
    assert shown["norm"]["title"] == "distance (m)"


def test_content_of_a_part_of_the_shards(tmp_path):
    """What is committed is shown, while a driver holds the store; groups without any item are not."""
    store = create(tmp_path, "toy")
    worker, shards = Worker(store.address), list(store.job.plan.shards())
    lease = Lease.take(store.objects, store.address)
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
    assert stopped["text"].startswith("7 of 8 shards are not computed")


@pytest.mark.parametrize("name", ["train_rnn", "esn", "fixed_points"])
def test_content_has_the_pictures_of_the_kernel(name):
    wanted = {
        "train_rnn": ["Training vanilla", "Evaluation against training loss", "Outputs of item", "State space",
                      "Recurrent weights"],
        "esn": ["Success", "Replay error", "Replay of item", "Training error by pass", "Replay error"],
        "fixed_points": ["State space", "State space", "Spectra", "Basin shares", "Where the searches"],
    }  # fmt: skip
    groups = Content(finished(name)).results()["groups"]
    assert "error" not in groups[0]
    titles = [plot["title"] for plot in groups[0]["plots"]]
    assert len(titles) == len(wanted[name])
    assert all(t.startswith(w) for t, w in zip(titles, wanted[name], strict=True)), titles


def test_fixed_point_plots_show_the_points_of_the_store():
    """Projections keep distances of points in the plane of the components, and spectra are the store's."""
    store = finished("fixed_points")
    plots = Content(store).results()["groups"][0]["plots"]
    reduced = store.root["gathered/0"]
    spectra = next(p for p in plots if p["title"].startswith("Spectra"))
    layers = [layer for layer in spectra["layers"] if layer["kind"] == "points"]
    pairs = [xy for layer in layers for xy in zip(layer["x"], layer["y"], strict=True)]
    drawn = sorted((complex(*xy) for xy in pairs), key=lambda z: (round(z.real, 4), z.imag))
    expected = np.asarray(reduced["eigenvalue"][...]).ravel()
    order = np.lexsort((expected.imag, expected.real.round(4)))
    np.testing.assert_allclose(drawn, expected[order], atol=2e-4)  # 5 digits
    basins = next(p for p in plots if p["title"] == "Basin shares")
    total = sum(h for layer in basins["layers"] for h in layer["height"])
    assert total == pytest.approx(float(np.sum(reduced["basin_share"][...])), abs=1e-4)


def test_esn_map_and_replay_show_the_numbers_of_the_store():
    store = finished("esn")
    plots = {p["title"].split(" of ")[0]: p for p in Content(store).results()["groups"][0]["plots"]}
    points = table(store, "point")
    image = plots["Success"]
    for _, point in points.iterrows():
        column = image["x"]["ticks"].index(tick(point.g))
        row = image["y"]["ticks"].index(tick(point.alpha))
        # 4 digits
        assert image["layers"][0]["z"][row][column] == pytest.approx(point.success_rate, abs=1e-4)
    # Offsets and scale are taken off again: the NRMSE between the lines is the stored one.
    target, network = (
        np.array(layer["y"], float) for layer in plots["Replay"]["layers"]
    )  # (output, time), in units of one step
    best = table(store, "items").replay_nrmse.min()
    found = np.sqrt(np.mean((network - target) ** 2) / np.mean(target.var(axis=1)))
    assert found == pytest.approx(best, rel=0.01)  # 5 digits of lines offset by 1


def test_lfads_plots_scale_the_true_input_and_pair_data_with_rates():
    rng = np.random.default_rng(4)
    trials, time, units = 3, 8, 5
    truth, rates = rng.normal(size=(trials, time, 1)), rng.random((trials, time, units))
    counts = rng.poisson(rates)
    dims = {"eval_loss": [3.0, 2.0], "outcome": [0, 0], "curve.eval.loss": rng.random((2, 4)) + 1}
    saved = {
        "rates": rates,
        "factors": rates @ rng.normal(size=(units, 4)),
        "inferred_inputs": 1 - 2 * truth,
    }
    results = {name: np.asarray(v) for name, v in dims.items()}
    results |= {name: np.stack([v * 0, v]) for name, v in saved.items()}
    condition = np.array([[True, False, False], [False, False, True], [True, False, False]])
    evaluation = SimpleNamespace(data=counts, rates=None, inputs=truth, condition=condition)
    inputs = SimpleNamespace(report_every=10, n_batches=40)
    plots = lfads_plots(
        inputs, SimpleNamespace(evaluation=evaluation, stitched=None), {"item": np.array([7, 9])}, results,
        {"model": np.array([9])},
    )  # fmt: skip
    by_title = {plot.title: plot for plot in plots}
    true, inferred = by_title["Inferred inputs of model 9"].layers
    np.testing.assert_allclose(true.y, inferred.y, atol=1e-12)
    one_trial = by_title["Rates of model 9 against the data, one trial"]
    data = next(layer for layer in one_trial.layers if layer.name == "data")
    assert len(data.x) == np.count_nonzero(counts[0])
    image = by_title["Rates of model 9 on that trial"]
    order = [int(text) for text in image.y.ticks]
    np.testing.assert_array_equal(image.layers[0].z, rates[0][:, order].T)
    unit = int(np.argmax(counts.sum(axis=(0, 1))))
    single = by_title[f"Rates of unit {unit}, single trials, model 9"].layers
    np.testing.assert_allclose(
        np.diff(single[0].y[1]), np.diff(rates[1, :, unit]) / (1.2 * rates[..., unit].max())
    )
    # Condition 1 has no trial here: averages are of 0 and 2.
    psths = by_title["PSTHs of data and of model 9, by condition"]
    assert [layer.name for layer in psths.layers[1::2]] == [
        "condition 0, rates",
        "condition 2, rates",
    ]
    units = [int(text.removeprefix("unit ")) for text in psths.y.ticks[::-1]]
    step = 1.2 * max(
        v[..., units].max()
        for v in (rates[[0, 2]].mean(0), rates[1], counts[[0, 2]].mean(0), counts[1])
    )
    for layer, average in zip(
        psths.layers,
        (counts[[0, 2]].mean(0), rates[[0, 2]].mean(0), counts[1], rates[1]),
        strict=True,
    ):
        lines = layer.y - np.arange(len(units))[::-1, None]
        np.testing.assert_allclose(lines * step, average[:, units].T, atol=1e-12)
    (plane,) = by_title["Factors of model 9 by condition, components 2 and 3"].layers
    assert plane.x.shape == (2, time)
    assert list(plane.colour) == [0, 2]


def test_a_picture_that_fails_is_said_and_the_rest_stays(store, monkeypatch):
    def broken(*given):
        raise KeyError("curve")

    monkeypatch.setitem(
        store.__dict__, "kernel", __import__("dataclasses").replace(store.kernel, plots=broken)
    )
    content = Content(store).results()
    assert content["groups"][0]["error"] == "no picture: KeyError: 'curve'"
    assert len(content["tables"]) == 3


# --- numbers --------------------------------------------------------------------------------------


def test_effects_agree_with_scipy():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=300), "b": rng.integers(0, 4, 300).astype(float)})
    frame["text"] = np.where(frame.b > 1, "high", "low")
    frame["y"] = np.exp(frame.b + 0.3 * frame.a)
    found = {e.parameter: e for e in effects(frame, ["a", "b", "text"], ["y"])}
    for name in ("a", "b"):
        expected = spearmanr(frame[name], frame.y).statistic
        assert found[name].rho == pytest.approx(expected, abs=1e-12)
    assert found["text"].rho is None
    ranks = frame.y.rank().to_numpy()
    for name in ("b", "text"):
        groups = [ranks[frame[name] == v] for v in frame[name].unique()]
        n, k, f = 300, len(groups), f_oneway(*groups).statistic
        eta2 = f * (k - 1) / (f * (k - 1) + n - k)
        expected = 1 - (1 - eta2) * (n - 1) / (n - k)
        assert found[name].share == pytest.approx(expected, abs=1e-12)


def test_effects_of_a_small_random_sweep():
    """12 items are enough to see what decides. Ranks 1 ... n have the variance (n^2 - 1) / 12."""
    frame = pd.DataFrame({"a": np.geomspace(1, 100, 12), "y": np.arange(12.0)})
    (found,) = effects(frame, ["a"], ["y"])
    within, total = 3 * 4 * (4**2 - 1) / 12, 12 * (12**2 - 1) / 12
    assert found.share == pytest.approx(1 - within / total * 11 / 9, abs=1e-12)
    assert found.rho == pytest.approx(1)


def test_variance_share_of_noise_is_nil_on_average():
    """Without the adjustment 10 bins of 50 values would explain 9/49 = 18 %."""
    rng = np.random.default_rng(1)
    shares = []
    for _ in range(200):
        bins = bins_of(rng.normal(size=50))
        values = rng.permutation(50.0 + np.arange(50))
        n, k = 50, bins.max() + 1
        means = np.bincount(bins, values) / np.bincount(bins)
        eta2 = np.sum(np.bincount(bins) * (means - values.mean()) ** 2) / np.var(values) / n
        shares.append(1 - (1 - eta2) * (n - 1) / (n - k))
        assert variance_share(bins, values) == pytest.approx(max(0, shares[-1]), abs=1e-12)
    # Standard error of the mean of 200 shares whose standard deviation is 0.08.
    assert abs(np.mean(shares)) < 4 * 0.08 / np.sqrt(200)


def test_bins_are_equally_filled_or_the_values():
    assert list(np.bincount(bins_of(np.arange(1000.0)))) == [100] * 10
    assert list(np.bincount(bins_of(np.arange(12.0)))) == [4] * 3
    assert list(bins_of(np.array(["b", "a", "b"], object))) == [1, 0, 1]
    assert list(bins_of(np.array([5, 5, 7]))) == [0, 0, 1]
    assert bins_of(np.zeros(50)).max() == 0


def test_principal_is_the_svd():
    rng = np.random.default_rng(2)
    points = rng.normal(size=(40, 6)) @ rng.normal(size=(6, 6))
    project, share = principal(points, 2)
    _, s, v = np.linalg.svd(points - points.mean(axis=0))
    np.testing.assert_allclose(share, s[:2] ** 2 / np.sum(s**2), rtol=1e-10)
    np.testing.assert_allclose(
        np.abs(project(points)), np.abs((points - points.mean(0)) @ v[:2].T), atol=1e-8
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.01, "0.01"),
        (3.1623, "3.16"),
        (1000.0, "1000"),
        (1e5, "1e5"),
        (2.5e-7, "2.5e-7"),
        (0, "0"),
    ],
)
def test_tick_is_short(value, text):
    assert tick(value) == text


def test_numbers_are_json_with_five_digits():
    found = numbers(np.array([[1 / 3, np.nan], [np.inf, 1e-30 / 3]]))
    assert found == [[0.33333, None], [None, 3.3333e-31]]
    assert numbers(np.array([1, 2])) == [1, 2]
    assert numbers(np.float32(0.1)) == 0.1


# --- size -----------------------------------------------------------------------------------------


def test_plots_are_thinned_and_say_so():
    lines = Lines(np.arange(500), np.zeros((1000, 500)), "curves", text=["x"] * 1000)
    points = Points(np.arange(20_000), np.arange(20_000), "items", key=np.arange(20_000))
    out = plot_json(Plot("t", [lines, points, Image(np.zeros((1000, 2)))]))
    drawn = out["layers"][0]
    assert len(drawn["y"]) == len(drawn["text"]) == MAX_LINES
    assert len(drawn["y"]) * len(drawn["x"]) <= MAX_VERTICES
    assert drawn["x"][0] == 0
    assert drawn["x"][-1] == 499
    assert len(out["layers"][1]["x"]) == MAX_MARKS
    assert out["layers"][1]["key"][-1] == 19_999
    assert len(out["layers"][2]["z"]) == 256
    for said in (
        "400 of 1,000 curves",
        "150 of 500 samples",
        "5,000 of 20,000 items",
        "256 of 1000",
    ):
        assert said in out["note"]


def test_tables_keep_the_extremes_of_every_number():
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"item": np.arange(50_000), "loss": rng.random(50_000)})
    out = table_json("items", frame, {})
    columns = {c["name"]: c["values"] for c in out["columns"]}
    assert len(columns["item"]) <= MAX_ROWS
    best = frame.nsmallest(25, "loss")["item"]
    worst = frame.nlargest(25, "loss")["item"]
    assert set(best) | set(worst) <= set(columns["item"])
    assert "of 50,000 rows" in out["note"]
    assert len(json.dumps(out)) < 200_000


def test_tables_keep_infinity_and_text():
    frame = pd.DataFrame(
        {"a": [1.0, np.inf, np.nan], "b": [1 + 2j, 0, -1j], "c": [True, False, True]}
    )
    columns = {c["name"]: c for c in table_json("t", frame, {})["columns"]}
    assert columns["a"]["values"] == [1.0, "inf", None]
    assert columns["b"]["labels"][columns["b"]["values"][0]] == "1+2i"
    assert columns["c"]["labels"][columns["c"]["values"][1]] == "no"


@pytest.mark.parametrize(("n", "most"), [(0, 5), (1, 5), (5, 5), (1000, 7)])
def test_spread_has_both_ends(n, most):
    found = spread(n, most)
    assert len(found) == min(n, most)
    if n:
        assert (found[0], found[-1]) == (0, n - 1)


def test_histogram_and_stacked():
    bars = histogram([1, 1, 2, np.nan], bins=2, ends=(0, 4))
    assert isinstance(bars, Bars)
    assert list(bars.height) == [2, 1]
    assert len(histogram([np.nan]).height) == 0
    np.testing.assert_array_equal(stacked([[0, 2], [0, 4]], 4), [[1, 1.5], [0, 1]])
    assert Axis().ticks == ()


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

SECRETS = [
    "s3://AKIAABCDEFGHIJKLMNOP:" + SECRET + "@bucket/x.zarr",
    f"https://host/x?X-Amz-Signature={SECRET}&b=1",
    f"https://host/x?sig={SECRET}",
    f"ctd run job.yaml --set params.token={SECRET}",
    f"ctd run job.yaml --api-key {SECRET}",
    f'{{"aws_secret_access_key": "{SECRET}"}}',
    f"AWS_SECRET_ACCESS_KEY='{SECRET}'",
    f"Authorization: Bearer {SECRET}",
    f"password: {SECRET}",
    f"-----BEGIN RSA PRIVATE KEY-----\n{SECRET}\n-----END RSA PRIVATE KEY-----",
    f"the value {SECRET} of the environment alone",
]


@pytest.mark.parametrize("text", SECRETS)
def test_redact_hides_credentials(text):
    hidden = redact({"a": [text], text: 1}, [SECRET] if "environment" in text else [])
    assert SECRET not in json.dumps(hidden)
    assert "AKIAABCDEFGHIJKLMNOP" not in json.dumps(hidden)


@pytest.mark.parametrize(
    "text",
    [
        "group 0: monkey = 3, keyboard=4",
        "key = jax.random.fold_in(key, 1)",
        "s3://bucket/folder/x.zarr",
        "File /home/user/a.py, line 3: tokens are counted",
        "https://host/x?page=2",
    ],
)
def test_redact_leaves_what_is_no_credential(text):
    assert redact(text, []) == text


def test_secrets_are_the_environments_values_by_name():
    environment = {
        "AWS_SECRET_ACCESS_KEY": SECRET, "GITHUB_TOKEN": "ghp_0123456789", "HOME": "/home/someone",
        "AWS_SHARED_CREDENTIALS_FILE": "/home/someone/.aws/credentials", "SHORT_KEY": "abc",
    }  # fmt: skip
    assert secrets_of(environment) == [SECRET, "ghp_0123456789"]


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
    page = page.replace("http://www.w3.org/2000/svg", "")  # the name of SVG, which nobody asks for
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


def test_report_refuses(ctd, store, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "nothing").mkdir()
    (tmp_path / "folder.html").mkdir()
    empty = create(tmp_path / "empty", "toy").address
    for args, said in (
        (["none.zarr"], "none.zarr: no such store"),
        ([tmp_path / "nothing"], "not a complete ctd store"),
        ([empty], "no item has been computed yet"),
        ([store.address, "--to", "/proc/none/x.html"], "/proc/none/x.html: cannot be written"),
        ([store.address, "--to", tmp_path / "folder.html"], "cannot be written"),
        (
            [store.address, "--to", "page.pdf"],
            "page.pdf: the report is a page; a name that ends in .html",
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
