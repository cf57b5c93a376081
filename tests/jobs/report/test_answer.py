"""The first screen of a page is an answer: the best item, or how many of what, with a picture; the table opens on it."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from page_stores import finished
from stores import SMALL_RNN

from ctd.plots import is_geometric
from jobs.query.best import best
from jobs.query.collection import StoreCollection
from jobs.query.query import query
from jobs.report.page import Content, content_of, several
from jobs.report.page.answer import _summed_up, are_names, first_rows, in_each, kinds
from jobs.report.page.several import OFFSET, _best_first, _status
from jobs.store.roles import Metric


@pytest.fixture(scope="module")
def swept():
    """The page of a geometric sweep of one parameter of train_rnn, with two seeds."""
    store = finished("swept")
    return store, Content(store).all()


def test_a_sweep_of_one_parameter_opens_as_the_metric_against_it(swept):
    store, content = swept
    [answer] = content["answers"]
    found = best(store, Metric("eval_loss"))
    assert answer["lead"].startswith(f"Item {found.item}, the best of 6 by eval_loss")
    assert dict(answer["facts"])["learning_rate"] == f"{found.params['learning_rate']:.4g}"
    assert ["its trained model as a file (its other results: --results)", f"ctd export {store.address} {found.item} swept-{found.item}.h5"] in answer["next"]  # fmt: skip
    [plot] = answer["plots"]
    assert plot["title"] == "eval_loss against learning_rate"
    assert plot["x"]["log"], "it was swept geometrically"
    ids = [item for layer in plot["layers"] for item in layer.get("item", ())]
    assert sorted(ids) == list(range(6)), "which a saved CSV names"
    assert content["progress"]["counted"] == "done 6"
    sweep = content["sweep"]
    assert (sweep["replicates"], sweep["log"], sweep["plots"]) == (["seed"], ["learning_rate"], [])
    assert (sweep["metric"], sweep["falling"]) == ("eval_loss", False)


def test_stores_of_two_kernels_on_one_page_are_told_apart(swept, monkeypatch):
    store, content = swept
    toy = finished("toy")
    found = several([content, Content(toy).all()], StoreCollection([store, toy]))
    assert found["status"]["text"] == "toy: complete, 1 of 44 failed; 1 with an error"
    assert {line.partition(": ")[0] for line in found["learned"]} == {"toy"}
    first = dict(content["answers"][0]["facts"])
    table = {column["name"]: column["values"] for column in found["differing"]}
    assert [*table][:6] == ["store", "kernel", "swept", "done", "failed", "eval_loss"]
    given = [name for name in table if name in (*SMALL_RNN, "n_steps", "learning_rate", "seed")]
    assert [*table][6 : 6 + len(given)] == given, "what job files name comes before defaults"
    assert table["swept"] == ["learning_rate, seed", "n, rate, push"]
    assert (table["done"], table["failed"]) == ([6, 43], [0, 1])
    assert table["eval_loss"] == [first["eval_loss"], ""]
    together, *own = found["groups"]
    assert [plot["title"].partition(": ")[0] for plot in together["plots"]] == ["swept", "toy"]
    assert own[0]["label"].startswith("swept, ")
    ids = found["tables"][0]["ids"]
    assert ids == [*range(6), *range(OFFSET, OFFSET + 44)], "each item has a number of its own"
    # Results of one kernel compare with those of no other: one with a metric is shown.
    sweep = found["sweep"]
    assert (sweep["kernel"], sweep["metric"]) == ("train_rnn", "eval_loss")
    assert sweep["parameters"] == ["learning_rate", "seed"]
    monkeypatch.setitem(content, "sweep", None)
    sweep = several([content, Content(toy).all()], StoreCollection([store, toy]))["sweep"]
    assert sweep["kernel"] == "toy"
    assert {"n", "rate"} <= set(sweep["parameters"]) <= {"n", "rate", "push", "push[0]", "push[1]"}
    assert (sweep["results"], sweep["metric"]) == (["norm", "steps"], "")
    assert {effect["n"] for effect in sweep["effects"] if effect["result"] == "norm"} == {43}
    monkeypatch.undo()
    alone = several([content, content], StoreCollection([store, store]))
    assert alone["sweep"]["kernel"] == ""
    assert alone["sweep"]["parameters"] == ["learning_rate", "store", "seed"]
    assert alone["groups"][0]["items"] == "the items of all stores"
    [worker] = alone["hosts"]
    assert (alone["n_workers"], worker["items"]) == (1, 2 * 6), "one process computed both"


def test_sweep_of_stores_once(swept, monkeypatch):
    store, _ = swept
    measured = []
    monkeypatch.setattr("jobs.report.sweep.effects", lambda *names: measured.append(names))
    assert content_of([store, finished("toy")])["sweep"]["metric"] == "eval_loss"
    assert measured == [], "of each store alone"


def test_a_default_of_a_kernel_is_in_no_column_of_another_kernels_field(swept):
    store, content = swept
    points = finished("fixed_points")
    collection = StoreCollection([store, points])
    assert float(collection.overview()["learning_rate"][1]) > 0, (
        "fixed_points has a field of that name"
    )
    found = several([content, Content(points).all()], collection)
    table = {column["name"]: column["values"] for column in found["differing"]}
    assert table["learning_rate"] == [collection.overview()["learning_rate"][0], ""]


def test_without_a_metric_what_was_found_is_counted(swept):
    store = finished("toy")
    content = Content(store).all()
    [answer] = content["answers"]
    assert answer["lead"] == f"{len(query(store, table='place'))} places"
    assert answer["opens"] == "place"
    assert [c["name"] for c in answer["table"]["columns"]] == [
        "place",
        "n",
        "best_norm",
        "best_item",
    ]
    assert answer["table"]["note"] == ""
    cut = first_rows(pd.DataFrame({"gain_index": range(16)}), ["gain_index"])
    assert cut["note"] == "6 of 16 rows; more under Tables"
    alike = first_rows(
        pd.DataFrame({"a": [0, 0], "b": [1, 1], "c": [2, 3]}), ["a", "b", "c"], ["b"]
    )
    assert [column["name"] for column in alike["columns"]] == ["b", "c"]
    named = pd.DataFrame({"parameter": ["n", "seed"], "r2": [0.1, 0.2]})
    shown = first_rows(named, ["parameter", "parameter", "r2"])
    assert [column["name"] for column in shown["columns"]] == ["parameter", "r2"]
    [(item, *_)] = [[one.item for one in some] for some in store.failed.items().values()]
    assert answer["next"][-2:] == [
        ["the items that failed with an error, again", f"ctd resume {store.address} --failed"],
        ["why one of them failed", f"ctd logs {store.address} --item {item}"],
    ]
    assert content["progress"]["counted"] == "done 43, failed 1"
    points = Content(store := finished("fixed_points")).all()
    [answer] = points["answers"]
    assert answer["opens"] == "fixed_point"
    kind = query(store, table="fixed_point")["kind"]
    of_kind = {k: int((kind == k).sum()) for k in ("fixed", "slow")}
    lead = [f"{n} {kind} point{'s' * (n > 1)}" for kind, n in of_kind.items() if n]
    assert answer["lead"] == ", ".join(lead)
    assert (["kind", "fixed"] in answer["facts"]) == (len(kind) == 1)  # the values of one row
    assert (answer["picture"], answer["plots"]) == (
        True,
        [],
    )  # it shows the first plot of the only group


def test_a_kernel_without_pictures_answers_with_the_default_one(monkeypatch):
    monkeypatch.setattr("jobs.report.page.groups", lambda store: ([{"plots": []}], 0))
    [answer] = Content(finished("toy")).all()["answers"]
    assert [plot["title"].split(" against ")[0] for plot in answer["plots"]] == ["norm"]


@pytest.mark.parametrize(
    ("values", "more_is_better", "order"),
    [([3.0, 1.0, 2.0], False, "bca"), ([3.0, np.nan, 5.0], True, "cab"), ([1.0, 1.0], False, "ab")],
)
def test_answers_of_stores_begin_with_the_best(values, more_is_better, order):
    names, roles = sorted(order), SimpleNamespace(metric=Metric("y", more_is_better))
    items = pd.DataFrame({"store": names, "status": "done", "y": values})
    each, collection = (
        [(name, {}) for name in names],
        SimpleNamespace(stores=[SimpleNamespace(roles=roles)] * len(names), differing={}, swept=[]),
    )
    assert "".join(name for name, _ in _best_first(each, collection, items)) == order


def test_rows_are_counted_in_each_setting():
    frame = pd.DataFrame({"net": np.repeat(np.arange(9), [3, *[2] * 8]), "n": 20})
    assert in_each(frame, ["net"]) == [("net: 9 values", "2 to 3 each, median 2")]
    assert in_each(frame[:5], ["net", "n"]) == [("net 0, n 20", "3"), ("net 1, n 20", "2")]
    assert in_each(frame, []) == []


def test_kinds_are_counted_by_texts():
    frame = query(finished("toy"), table="items")
    found = dict(kinds(frame, ["norm", "outcome", "push"]))
    assert sum(map(int, found.values())) == len(frame)
    assert all(name.startswith("stopped, ") for name, n in found.items() if int(n) > 1)


def test_items_that_failed_with_an_error_are_counted_as_such():
    """They have no outcome, and a number without a name says nothing."""
    store = finished("toy")
    frame = query(store, table="items", limit=5)
    lost = {"outcome": ["", "", "stopped", "stopped", "diverged"], "status": ["failed"] * 5}
    assert _summed_up(store, {"items": frame.assign(**lost)}, {})["facts"] == [
        ("failed", "2"),
        ("stopped", "2"),
        ("diverged", "1"),
    ]


def test_pairs_of_networks_are_names_and_kinds_are_not():
    pairs = pd.DataFrame({"group": [0, 0, 1, 1], "first": ["net"] * 4, "second": ["a", "b"] * 2})
    points = pd.DataFrame({"group": [0, 0, 1], "kind": ["fixed", "slow", "fixed"]})
    shown = ["kind", "first", "second", "pair_distance"]
    assert [are_names(frame, shown) for frame in (pairs, pairs[:3], points)] == [True, False, False]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1e-4, 1e-3, 1e-2], True),
        ([1, 2, 4, 8], True),
        ([1, 2, 3], False),
        ([100, 200, 300, 400], False),
        ([1, 10], False),
        ([0, 1, 2, 4], False),
        ([1, 2, np.inf], False),
    ],
)
def test_geometric_sweeps(values, expected):
    assert is_geometric(values) is expected


def test_the_best_is_proposed_by_real_numbers_of_several_items(monkeypatch):
    """Not by the whole number `steps`, nor of a single item."""
    store = finished("toy")
    frame = query(store, table="items")
    columns = {name: frame[name].to_numpy() for name in frame}
    commands = lambda: _summed_up(store, {"items": frame}, columns)["next"].values()
    by = [command for command in commands() if command.startswith("ctd best")]
    assert by == [f"ctd best {store.address} --by norm"]
    monkeypatch.setattr(type(store.job.plan), "n_items", 1)
    assert not any(command.startswith("ctd best") for command in commands())


@pytest.mark.parametrize(("n", "said"), [(5, "failed"), (6, "and 1 more store"), (7, "and 2 more stores")])  # fmt: skip
def test_the_status_of_many_stores_names_a_few(n, said):
    each = [{"mood": "bad", "word": "incomplete", "text": "failed"}] * n
    assert _status(each, [f"s{k}" for k in range(n)])["text"].endswith(said)
