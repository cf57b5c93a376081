"""`ctd ls` and `ctd note` on the command line."""

import json

import pandas as pd
import pytest
from stores import JOB, make, run

from jobs.gather.gather import gather


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Stores: whole.zarr and, beside it, deep/empty.zarr, of which nothing is computed."""
    folder = tmp_path_factory.mktemp("folder")
    gather(run(folder / "whole.zarr", JOB)[0])
    make(folder / "deep" / "empty.zarr", {**JOB, "seed": 6})
    return folder


@pytest.fixture
def ctd(command_line, monkeypatch, folder):
    monkeypatch.chdir(folder)
    return command_line


def test_ls_shows_a_line_a_store(ctd, tmp_path):
    code, out, err = ctd("ls")
    assert (code, err) == (0, "")
    head, *lines, versions = (line.split() for line in out.splitlines())
    assert {line[-1] for line in lines} == {"5", "6"}
    assert head == ["store", "kernel", "swept", "state", "done", "left", "size", "when", "job_seed"]
    assert versions[:3] == ["made", "with", "ctd"]
    assert {line[0] for line in lines} == {"whole.zarr", "deep/empty.zarr"}, "as commands take them"
    assert json.loads(ctd("ls", "--where", "left == 0", "--json")[1])[0]["store"] == "whole"
    assert ctd("ls", "deep", "--to", tmp_path / "list.csv")[0] == 0
    frame = pd.read_csv(tmp_path / "list.csv")
    assert frame[["store", "items", "done", "left"]].to_numpy().tolist() == [["empty", 44, 0, 44]]
    code, out, err = ctd("ls", "--tag", "none")
    assert (code, out, err) == (0, "", "no store meets the conditions\n")


def test_note_is_shown_by_ls_status_and_page(ctd, tmp_path):
    assert ctd("note", "whole.zarr")[1] == "no note\n"
    assert ctd("note", "whole.zarr", "for figure 2", "--tag", "paper,old", "--tag", "new") == (
        0,
        "",
        "",
    )
    assert json.loads(ctd("ls", "--tag", "old, paper", "--json")[1])[0]["tags"] == "paper, old, new"
    assert ctd("note", "whole.zarr", "--untag", "old,new")[0] == 0
    assert ctd("note", "whole.zarr")[1] == "for figure 2; paper\n"
    (row,) = json.loads(ctd("ls", "--tag", "paper", "--json")[1])
    assert (row["note"], row["tags"]) == ("for figure 2", "paper")
    status = ctd("status", "whole.zarr")[1]
    assert "for figure 2" in status
    assert "paper" in status
    assert ctd("report", "whole.zarr", "--to", tmp_path / "page.html")[0] == 0
    assert '"note":"for figure 2","tags":"paper"' in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["ls", "none"], "none: no store lies there"),
        (["ls", "no*.zarr"], "no*.zarr: no store lies there"),
        (
            ["ls", "--where", "bets < 1"],
            "unknown column 'bets'; did you mean 'best'?\nparameters and results of items are columns of `ctd query",
        ),
        (["ls", "--to", "list.xlsx"], "list.xlsx: a name that ends in"),
        (["ls", "--to", "list.csv", "--json"], "--json: not with --to list.csv"),
        (["query", "whole.zarr", "--to", "a.csv", "--json"], "--json: not with --to a.csv"),
        (["note", "none.zarr", "x"], "none.zarr: no such store"),
        (["compare", "whole", "whole.zarr"], "whole: no such store; did you mean whole.zarr?"),
        (
            ["best", "."],
            "whole, empty: kernel toy names no metric to judge items by; give one as --by",
        ),
        (["note", "deep", "x"], "it is a folder of stores, give one: deep/empty.zarr"),
    ],
)
def test_list_refuses(ctd, args, said):
    code, out, err = ctd(*args)
    assert (code, out) == (2, "")
    assert said in err
