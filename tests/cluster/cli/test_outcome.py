"""cluster.cli.outcome: the last table of a run, and its last words."""

from types import SimpleNamespace

import pytest
from search_jobs import HALVING
from stores import TOY, copied_run

from cluster.cli.outcome import other_outcomes, show_results, show_summary
from ctd.kernel import Outcome
from jobs.gather.gather import gather
from jobs.plan.layout import Shard
from jobs.store.marker import Marker
from jobs.store.store import Store

RANKED = """
from dataclasses import replace

import numpy as np
import toy
from ctd.kernel import Display, Var


def reduce(inputs, shared, columns, results, options):
    found = toy.reduce(inputs, shared, columns, results, options)
    if inputs.n == 3:
        found = {name: values[:0] for name, values in found.items()}
    rates = columns["rate"][found["best_item"] % 6]
    return found | {"rate": rates, "said": np.full(len(rates), "a"), "gap_width": np.zeros(0)}


kernel = replace(
    toy.kernel,
    name="ranked",
    tables=replace(
        toy.kernel.tables,
        reduce=reduce,
        dims=toy.kernel.tables.dims
        | {"rate": Var(("place",), "1", "their rates"), "said": Var(("place",), usual="a"), "gap_width": Var(("gap",))},
    ),
    display=Display(summary=("gap_width", "best_norm", "said")),
)
"""


@pytest.mark.usefixtures("no_pictures")
def test_last_table_names_the_points_and_itself(ctd, job_file, tmp_path, capsys, monkeypatch):
    """Swept fields that the kernel's `summary` does not list are columns too: without them all rows look alike. Its first
    table has no rows."""
    (tmp_path / "ranked.py").write_text(RANKED)
    path = job_file(TOY.replace("toy", "ranked") + "gather: {top: 6}\n")
    code, _, err = ctd("run", path, "--executor", "serial")
    assert code == 0, err
    store = Store.open(str(path.with_suffix(".zarr")))
    show_summary(store)
    name, heads, *rows = capsys.readouterr().out.splitlines()
    assert (name.strip(), heads.split()) == ("place", ["place", "rate", "best_norm"])
    assert {row.split()[1] for row in rows} == {"0", "0.1", "0.2", "0.3", "0.4", "0.5"}
    reduced = store.description.reduced
    other = reduced | {"said": reduced["said"]._replace(usual="b")}
    monkeypatch.setitem(
        vars(store), "description", store.description.model_copy(update={"reduced": other})
    )
    show_summary(store)
    assert capsys.readouterr().out.splitlines()[1].split()[-1] == "said"
    ids = store.description.model_copy(update={"summary": ("best_item",)})
    monkeypatch.setitem(vars(store), "description", ids)
    show_summary(store)
    assert capsys.readouterr().out.strip().startswith("their items (table place)")
    plain = store.description.model_copy(update={"reduced": {}, "summary": ("norm",)})
    monkeypatch.setitem(vars(store), "description", plain)
    show_summary(store)
    heads, *rows = capsys.readouterr().out.splitlines()
    assert (heads.split(), len(rows)) == (["item", "rate", "norm"], 6)


def test_a_summary_without_the_ids_of_its_items_has_not_their_fields(tmp_path, capsys, monkeypatch):
    """Rows may be about groups, and name an item beside."""
    store = copied_run(tmp_path / "s.zarr")
    gather(store)
    for summary, heads in (
        (("best_norm",), ["group", "place", "n", "best_norm"]),
        (
            ("best_norm", "best_item"),
            ["group", "place", "n", "push", "rate", "best_norm", "best_item"],
        ),
    ):
        found = store.description.model_copy(update={"summary": summary})
        monkeypatch.setitem(vars(store), "description", found)
        show_summary(store)
        shown = capsys.readouterr().out.splitlines()[1].split()
        assert sorted(shown) == sorted(heads)


@pytest.mark.usefixtures("no_pictures")
def test_last_words_name_groups_without_rows(ctd, job_file, tmp_path):
    (tmp_path / "ranked.py").write_text(RANKED)
    path = job_file(TOY.replace("toy", "ranked").replace("grid: {", "grid: {n: [3, 4], "))
    code, out, err = ctd("run", path, "--executor", "serial")
    assert code == 0, err
    said = "table place has no rows of group 0: 6 items ended as stopped (ran its steps)"
    assert out.splitlines()[-2] == said
    assert "no picture: the kernel's plots have nothing to show" in err


def test_last_words_say_what_became_of_the_few():
    ends = Outcome("fixed", "found"), Outcome("limit", "gave up"), Outcome("bad", "no", failed=True)
    marker = lambda n, outcomes: Marker(shard=Shard(0, 0, 0, n), outcomes=outcomes)
    markers = [marker(10, {"fixed": 9, "bad": 1}), marker(6, {"limit": 2, "fixed": 4})]
    store = SimpleNamespace(
        committed=SimpleNamespace(markers=lambda: markers),
        description=SimpleNamespace(outcomes=ends),
        job=SimpleNamespace(
            spec=SimpleNamespace(kernel="esn", search=None),
            plan=SimpleNamespace(n_items=76, n_shards=4),
        ),
    )
    assert other_outcomes(store) == ["2 limit: gave up", "1 bad: no"]
    store.description.outcomes = [outcome._replace(reason="") for outcome in ends]
    assert other_outcomes(store) == ["13 fixed, 2 limit, 1 bad"], "which may all be the answer"
    store.description.outcomes = ends
    markers.append(marker(40, {"limit": 40}))
    assert other_outcomes(store) == ["1 bad: no"]
    markers.append(marker(20, {"bad": 20}))
    assert other_outcomes(store) == [], "a warning tells of many"


def test_a_search_ends_with_its_best_by_its_own_metric(tmp_path, capsys):
    store = copied_run(tmp_path / "h.zarr", HALVING)
    show_results(store)
    title, head, row, best, following = capsys.readouterr().out.splitlines()
    assert (title, head.split()) == ("items, the best by loss first", ["item", "rate", "loss"])
    item, _, loss = row.split()
    assert best == f"best    item {item}, loss {loss}"
    assert following == f"next    ctd best {store.address}"
