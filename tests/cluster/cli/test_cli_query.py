"""`ctd query` on the command line: what it shows and writes, and one clear error for each bad question."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from page_stores import finished
from processes import full_disk
from stores import JOB, make, run

from cluster.cli import display
from cluster.cli.outcome import no_rows
from cluster.cli.query import _default_columns, _is_constant
from jobs.gather.gather import gather
from jobs.query.collection import open_all
from jobs.query.query import tables
from jobs.run.task import Task
from jobs.run.worker import SerialExecutor
from jobs.store.store import Store


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Stores: whole.zarr, other.zarr (fewer items), part.zarr (one shard of 8), empty.zarr, no ctd store."""
    folder = tmp_path_factory.mktemp("cli")
    run(folder / "whole.zarr", JOB)
    run(
        folder / "other.zarr", {**JOB, "seed": 6, "sweep": {"grid": {"n": [5], "rate": [0.5, 0.7]}}}
    )
    part = make(folder / "part.zarr")
    executor = SerialExecutor(1)
    executor.start(part.address)
    executor.submit(Task(next(iter(part.job.plan.shards()))))
    assert executor.wait(0)[0].error is None
    make(folder / "empty.zarr")
    zarr.create_group(folder / "plain.zarr")
    gather(part)
    return folder


@pytest.fixture
def ctd(command_line, monkeypatch, folder):
    """Run `ctd query ARGS` among the stores; returns (exit code, standard output, standard error)."""
    monkeypatch.chdir(folder)
    return lambda *args: command_line("query", *args)


def test_query_shows_a_table(ctd):
    code, out, err = ctd("whole.zarr", "--where", "n == 5", "--sort", "-norm", "--limit", 2)
    assert (code, err) == (0, "in all rows: steps 7, outcome stopped\n")
    title, head, *lines = out.splitlines()
    assert title.strip() == "items"
    assert head.split()[:5] == ["item", "n", "rate", "push", "norm"], (
        "swept fields, then what it is sorted by"
    )
    assert "status" not in head, "it is done in all rows"
    assert len(lines) == 2
    assert "[1, -1]" in lines[0]
    assert "43  " in lines[0], "ids are whole numbers"


def test_query_begins_with_the_numbers_of_rows(ctd):
    """Connections name points by them."""
    head = lambda *stores: ctd(*stores, "--table", "place")[1].splitlines()[1].split()
    assert head("whole.zarr")[:3] == ["group", "place", "n"]
    assert head("whole.zarr", "other.zarr")[:3] == ["store", "group", "place"]


def test_query_says_why_there_are_no_rows(ctd):
    nothing = ctd("whole.zarr", "--where", "norm > 1e9")
    assert nothing == (0, "", "no row of table items meets the conditions\n")
    said = lambda name: no_rows("place", Store.open(name))
    assert said("whole.zarr") == (
        "table place has no rows: 44 items ended as stopped (ran its steps)"
    )
    assert said("empty.zarr") == "table place has no rows: no item has a result"
    networks = no_rows("quantile", finished("swept"))
    assert networks.startswith("table quantile (the quantiles' probabilities) has no rows: 6 items")
    assert tables(finished("swept")) == ["items", "rank", "shards"], "a coordinate alone is none"


def test_query_tells_once_what_is_the_same_in_all_rows(ctd, tmp_path):
    """A text that the sweep has one value of, as the file of an earlier stage; and results."""
    run(tmp_path / "one.zarr", {**JOB, "sweep": {"grid": {"push": [[1, -1]], "rate": [0.5, 0.7]}}})
    code, out, err = ctd(tmp_path / "one.zarr")
    assert (code, err) == (0, "in all rows: push [1, -1], steps 7, outcome stopped\n")
    assert out.splitlines()[1].split()[:3] == ["item", "rate", "norm"]
    assert {"push", "steps"} <= {*ctd(tmp_path / "one.zarr", "--columns", "all")[1].split()}


@pytest.mark.parametrize(
    ("column", "expected"),
    [([2, 2], True), ([np.nan, np.nan], True), ([np.nan, 2], False), (["a", "a"], True), ([2], False)],
)  # fmt: skip
def test_constant_columns(column, expected):
    assert _is_constant(np.asarray(column)) is expected


def test_query_of_a_narrow_terminal_cuts_no_value(ctd, monkeypatch):
    """It leaves columns out and names them; --columns all shows them, in further tables."""
    monkeypatch.setattr(display.out, "_width", 34)
    code, out, _ = ctd("whole.zarr", "--sort", "-norm", "--limit", 1)
    assert code == 0
    _, head, row, left_out = out.splitlines()
    assert head.split() == ["item", "n", "rate", "push", "norm"]
    assert len(row.split()) == 6, "push has a space in it"
    assert "--columns all shows them: " in left_out
    code, out, _ = ctd("whole.zarr", "--sort", "-norm", "--limit", 1, "--columns", "all")
    assert code == 0
    heads = [line.split() for line in out.splitlines() if line.startswith("item")][1:]
    assert len(heads) > 1
    assert {"status", "row", "group"} <= {name for head in heads for name in head}
    assert all(len(line.rstrip()) <= 34 for line in out.splitlines())


@pytest.mark.parametrize(
    ("limit", "lines", "said"),
    [
        (None, 102, "... 20 more rows; --json or --to FILE gives all"),
        (110, 111, None),
        (0, 0, None),
    ],
)
def test_query_shows_all_rows_that_were_asked_for(ctd, monkeypatch, limit, lines, said):
    """And without a limit it says how to get the others."""
    found = {"item": np.arange(120)}
    answer = lambda *a, limit, **b: ("items", {"item": found["item"][:limit]}, [])
    monkeypatch.setattr("cluster.cli.query.answer", answer)
    monkeypatch.setattr("cluster.cli.query.say_how_much", lambda store: None)
    asked = [] if limit is None else ["--limit", limit]
    code, out, err = ctd("whole.zarr", "--columns", "item", *asked)
    shown = out.splitlines()[1:]  # below the title
    assert (code, err, len(shown)) == (0, "", lines)
    assert said is None or shown[-1] == said


def test_query_groups_and_prints_json(ctd):
    code, out, err = ctd(
        "whole.zarr", "--group-by", "n, push", "--agg", "q95(norm), mean(norm > 2), count", "--json"
    )
    assert (code, err) == (0, "")
    rows = json.loads(out)
    assert [(row["n"], row["push"], row["count"]) for row in rows] == [
        (3, "[0, 0]", 11), (3, "[1, -1]", 11), (5, "[0, 0]", 11), (5, "[1, -1]", 11),
    ]  # fmt: skip


def test_aggregates_say_how_many_nan_they_leave_out(ctd):
    code, out, err = ctd("whole.zarr", "--agg", "mean(0 / (n - 3)), count", "--json")
    assert (code, json.loads(out)) == (0, [{"mean(0 / (n - 3))": 0, "count": 44}])
    assert err == "0 / (n - 3): 22 of 44 NaN left out\n"


def test_words_given_twice_are_all_heeded(ctd):
    once = ctd("whole.zarr", "--where", "(n == 5) and (norm > 1)", "--sort", "push,-norm", "--columns", "item,norm", "--json")  # fmt: skip
    twice = ctd("whole.zarr", "--where", "n == 5", "--where", "norm > 1", "--sort", "push", "--sort", "-norm",
                "--columns", "item", "--columns", "norm", "--json")  # fmt: skip
    assert twice == once
    assert once[0] == 0
    assert len(json.loads(once[1])) > 3


def test_query_writes_files(ctd, tmp_path):
    path = tmp_path / "out.parquet"
    code, out, err = ctd("whole.zarr", "--columns", "item, norm", "--to", path)
    assert (code, out) == (0, "")
    assert "wrote 44 rows" in err
    assert pd.read_parquet(path).columns.tolist() == ["item", "norm"]
    assert ctd("whole.zarr", "--to", tmp_path / "out.nc")[0] == 0
    with xr.open_dataset(tmp_path / "out.nc") as found:
        assert found.norm.attrs == {"units": "m", "long_name": "distance"}
        assert found.n.attrs == {"units": "1", "long_name": "components"}


def test_infinite_values_are_null_in_json_and_said(ctd, tmp_path):
    asked, said = ("whole.zarr", "--agg", "sum(n * 1e308)"), "JSON has no infinity: null in sum(n * 1e+308); --to X.csv keeps it\n"  # fmt: skip
    code, out, err = ctd(*asked, "--json")
    assert (code, json.loads(out)) == (0, [{"sum(n * 1e+308)": None}])
    assert said in err
    assert said in ctd(*asked, "--to", tmp_path / "out.json")[2]
    assert "infinity" not in ctd(*asked, "--to", tmp_path / "out.csv")[2]
    assert "inf" in (tmp_path / "out.csv").read_text()


def test_report_on_a_full_disk_leaves_the_old_page(command_line, folder, tmp_path):
    page = tmp_path / "page.html"
    page.write_text("old")
    with full_disk(room=100_000):  # the page has 500 kB
        code, _, err = command_line("report", folder / "whole.zarr", "--to", page)
    assert (code, "page.html: cannot be written: File too large" in err) == (2, True)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"page.html": "old"}


def test_entries_of_the_weights_stand_behind_the_results(folder):
    alone = open_all([str(folder / "whole.zarr")], print)
    rows = {name: np.zeros(1) for name in ("item", "weights.tau", "norm", "rate")}
    assert [*_default_columns("items", rows, alone, [])] == ["item", "rate", "norm", "weights.tau"]


def test_query_of_a_store_being_written_says_how_much_is_there(ctd):
    code, out, err = ctd("part.zarr", "--agg", "count", "--json")
    assert (code, json.loads(out)) == (0, [{"count": 6}])
    assert "6 of 44 items so far" in err


def test_query_of_several_stores_is_one_table(ctd, tmp_path):
    """A store may be named, lie in a folder, or match a pattern; what differs is a column."""
    code, out, err = ctd("whole.zarr", "other.zarr", "--where", "n == 5", "--sort", "-norm", "--limit", 3)  # fmt: skip
    assert (code, err) == (0, "in all rows: steps 7, outcome stopped\n")
    assert out.splitlines()[1].split()[:6] == ["store", "item", "job_seed", "n", "rate", "push"]
    groups = ["--group-by", "store,job_seed", "--agg", "count", "--json"]
    code, out, err = ctd("*e*.zarr", "part.zarr", *groups)
    assert code == 0
    assert {row["store"]: row["count"] for row in json.loads(out)} == {
        "whole": 44, "other": 2, "part": 6,
    }  # fmt: skip
    assert "52 of 134 items so far; `ctd status empty.zarr` shows more, and so for 1 other" in err
    assert ctd("whole.zarr", "other.zarr", "--to", tmp_path / "both.csv")[0] == 0
    assert pd.read_csv(tmp_path / "both.csv").store.value_counts().to_dict() == {
        "whole": 44, "other": 2,
    }  # fmt: skip


def test_query_over_several_kernels_says_how_to_ask_one(ctd):
    """A group without a name comes last and is marked."""
    both = [finished("toy").address, finished("fixed_points").address]
    code, out, err = ctd(*both, "--group-by", "push", "--agg", "count")
    said = "several kernels: --where \"kernel == 'toy'\" asks one\n"
    assert (code, err) == (0, said)
    names = [line.split()[0] for line in out.splitlines()[2:]]
    assert names == ["[0,", "[1,", "-"]
    *_, last = json.loads(ctd(*both, "--group-by", "push", "--agg", "count", "--json")[1])
    assert last == {"push": "", "count": 24}
    _, out, err = ctd(*both, "--where", "kernel == 'toy'", "--limit", 1)
    alone = ctd(both[0], "--limit", 1)[1]
    heads = [text.splitlines()[1].split() for text in (out, alone)]
    assert (heads[0], err) == (["store", *heads[1]], ""), "nothing of the other kernel"
    assert ctd(*both, "--table", "fixed_point", "--limit", 1)[2] == "", "only one has it"
    assert "several kernels" not in ctd(*both, "--where", "norm >= 0")[2], "only one has such rows"


def test_query_without_rows_says_so(ctd, tmp_path):
    asked, none = ["whole.zarr", "--where", "n > 9"], "no row of table items meets the conditions\n"
    assert ctd(*asked) == (0, "", none)
    err = ctd(*asked, "--to", tmp_path / "none.csv")[2]
    assert err == f"wrote 0 rows to {tmp_path / 'none.csv'}\n{none}"


def test_compare_two_stores(command_line, monkeypatch, folder):
    monkeypatch.chdir(folder)
    ctd = lambda *args: command_line("compare", *args)
    code, out, err = ctd("whole.zarr", "other.zarr")
    assert (code, err) == (0, "")
    assert "seed" in out
    assert "sweep.grid.rate" in out
    assert "items: 1 in both, matched by n, rate, push; 43 in a alone, 1 in b alone" in out
    assert "both have computed; |a-b|: of an array, each item's largest" in out
    found = json.loads(ctd("whole.zarr", "other.zarr", "--json")[1])
    assert found["items"] == {"both": 1, "a": 43, "b": 1}
    assert {row["result"] for row in found["results"]} == {"norm", "outcome", "steps", "x"}
    assert "the jobs are the same" in ctd("whole.zarr", "whole.zarr")[1]


def test_compare_matches_no_items_of_two_kernels(command_line):
    both = [finished("toy").address, finished("fixed_points").address]
    code, out, _ = command_line("compare", *both)
    assert code == 0
    first = out.split("the jobs differ in")[1].splitlines()[2]
    assert first.split() == ["kernel", "toy", "fixed_points"]
    assert out.endswith("\nthe items of two kernels do not correspond\n")
    found = json.loads(command_line("compare", *both, "--json")[1])
    assert (found["matched_by"], found["items"]["both"], found["results"]) == ([], 0, [])


BAD = [
    (["whole.zarr", "--where", "nrm > 1"], ["unknown column 'nrm'; did you mean 'norm'?"]),
    (["whole.zarr", "--sort", "-nrm"], ["unknown column 'nrm'; did you mean 'norm'?"]),
    (["whole.zarr", "--columns", "item,nrm"], ["unknown column 'nrm'"]),
    (["whole.zarr", "--where", "outcome == 'stoped'"], ["no row can have 'stoped'; did you mean 'stopped'? at column 12"]),
    (["whole.zarr", "--where", "'doen' != status"], ["no row can have 'doen'; did you mean 'done'?"]),
    (["whole.zarr", "--where", "status in ['done', 'x']"], ["no row can have 'x'; known: "]),
    (["whole.zarr", "--where", "outcome == arrived"], ["unknown column 'arrived'", "write a text in quotes, 'arrived'", "\n  items: item, ", "\n  place: "]),
    (["whole.zarr", "--columns", "n_steps"], ["unknown column 'n_steps': the job does not sweep it, and all its items have 7"]),
    (["whole.zarr", "--sort", "norm desc"], ["unknown column 'norm desc'; --sort=-norm sorts by it"]),
    (["whole.zarr", "--where", "norm > > 1"], ["not an expression at column 8", "\n  norm > > 1\n         ^"]),
    (["whole.zarr", "--where", "norm > 'x'"], ["text compared with a number", "\n         ^"]),
    (["whole.zarr", "--where", "__import__('os').system('touch hacked')"], ["is not allowed"]),
    (["whole.zarr", "--where", "norm.__class__ == 1"], ["attribute access is not allowed"]),
    (["whole.zarr", "--where", "(lambda: norm)()"], ["is not allowed"]),
    (["whole.zarr", "--where", "import os"], ["not an expression"]),
    (["whole.zarr", "--agg", "mean(open('x'))", "--group-by", "n"], ["function 'open'"]),
    (["whole.zarr", "--agg", "mean(outcome)", "--group-by", "n"], ["only count works"]),
    (["whole.zarr", "--group-by", "n"], ["--group-by needs --agg"]),
    (["whole.zarr", "--table", "itms"], ["unknown table 'itms'; did you mean 'items'?"]),
    (["whole.zarr", "--to", "out.xlsx"], ["out.xlsx: a name that ends in .csv, .json, .parquet, .nc"]),
    (["whole.zarr", "--to", "nowhere/out.csv"], ["cannot be written: there is no folder nowhere"]),
    (["whole.zarr", "--to", "/dev/full"], ["ends in"]),
    (["empty.zarr"], ["empty.zarr: no item has been computed yet", "ctd status"]),
    (["plain.zarr"], ["plain.zarr: not a complete ctd store"]),
    (["none.zarr"], ["none.zarr: no such store"]),
    (["whole.zarr", "none.zarr"], ["none.zarr: no such store"]),
    (["none*.zarr"], ["none*.zarr: no store matches"]),
]  # fmt: skip


@pytest.mark.parametrize(("args", "said"), BAD, ids=lambda value: " ".join(map(str, value))[:60])
def test_query_refuses(ctd, args, said):
    code, out, err = ctd(*args)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    for words in said:
        assert words in err, err
    assert "Traceback" not in err
    assert len(err.splitlines()) <= 5, err
    assert not Path("hacked").exists()
