"""Numbers, plots and tables as the page holds them: few digits, bounded sizes, and what was left out is said."""

import json

import numpy as np
import pandas as pd
import pytest

from ctd.plots import Axis, Image, Lines, Plot, Points
from jobs.report.page.encode import (
    MAX_LINES,
    MAX_MARKS,
    MAX_ROWS,
    MAX_VERTICES,
    is_curves,
    join_plots,
    numbers,
    plot_json,
    spread,
    table_json,
)


def test_numbers_are_json_with_five_digits():
    found = numbers(np.array([[1 / 3, np.nan], [np.inf, 1e-30 / 3]]))
    assert found == [[0.33333, None], [None, 3.3333e-31]]
    assert numbers(np.array([1, 2])) == [1, 2]
    assert numbers(np.float32(0.1)) == 0.1


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


@pytest.mark.parametrize(("lengths", "lines"), [((3, 3), [400]), ((3, 4), [250, 250])])
def test_join_plots_joins_lines_over_one_x_and_bounds_them(lengths, lines):
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
    (made,) = join_plots({"a": [plots[0]], "b": [plots[1]]}, is_curves)
    assert (
        [len(layer["y"]) for layer in made["layers"]]
        == [len(layer["item"]) for layer in made["layers"]]
        == lines
    )
    assert join_plots({"a": [plots[0]], "b": []}, is_curves) == []


def test_notes_of_joined_plots_are_told_of_each():
    plot = lambda note: plot_json(Plot("loss", [Lines([0, 1], [[1, 2]], item=[0])], Axis("step"), Axis("loss"), note=note))  # fmt: skip
    joined = lambda *notes: join_plots({f"g{k}": [plot(note)] for k, note in enumerate(notes)}, is_curves)[0]["note"]  # fmt: skip
    assert joined("", "2 left out.") == "g1: 2 left out."
    assert joined("2 left out.", "2 left out.") == "Each: 2 left out."
    assert joined("", "") == ""
    many = joined(*(f"{k} left out." for k in range(11)))
    assert many.startswith("g0: 0 left out. g1: 1 left out. ")
    assert many.endswith("g7: 7 left out. 3 more have notes of their own.")


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


def test_tables_name_the_columns_that_they_leave_out():
    frame = pd.DataFrame({f"c{k}": [0.0, 1.0] for k in range(62)})
    frame.loc[0, "c7"] = np.nan  # in fewer rows than the others
    out = table_json("items", frame, {})
    assert out["without"] == "Without c7, c61: ctd query --table items --columns all shows them."
    assert (out["note"], len(out["columns"])) == ("", 60), "a picture of the rows is whole"
    assert table_json("items", frame[["c0"]], {})["without"] == ""


def test_tables_keep_infinity_and_text():
    frame = pd.DataFrame(
        {"a": [1.0, np.inf, np.nan], "b": [1 + 2j, 0, -1j], "c": [True, False, True]}
    )
    columns = {c["name"]: c for c in table_json("t", frame, {}, stay=["b"])["columns"]}
    assert [name for name, column in columns.items() if column["stays"]] == ["b"]
    assert columns["a"]["values"] == [1.0, "inf", None]
    assert columns["b"]["labels"][columns["b"]["values"][0]] == "1+2i"
    assert columns["c"]["labels"][columns["c"]["values"][1]] == "no"


def test_texts_of_tables_are_in_the_order_of_a_query():
    [column] = table_json("t", pd.DataFrame({"push": ["[-0.5]", "[10]", "[-1]"]}), {})["columns"]
    assert (column["labels"], column["values"]) == (["[-1]", "[-0.5]", "[10]"], [1, 2, 0])


@pytest.mark.parametrize(("n", "most"), [(0, 5), (1, 5), (5, 5), (1000, 7)])
def test_spread_has_both_ends(n, most):
    found = spread(n, most)
    assert len(found) == min(n, most)
    if n:
        assert (found[0], found[-1]) == (0, n - 1)


def test_a_thinned_image_names_the_cells_that_it_shows():
    z = np.tile(np.arange(400.0), (300, 1))
    units = [f"u{k}" for k in range(300)]
    out = plot_json(Plot("t", [Image(z)], Axis("bin"), Axis("unit", ticks=units)))
    assert [float(tick) for tick in out["x"]["ticks"]] == out["layers"][0]["z"][0]
    assert (out["y"]["ticks"][-1], len(out["y"]["ticks"])) == ("u299", 256)
    assert out["layers"][0].keys() == {"kind", "z"}


def test_the_seeds_of_jobs_are_categories():
    (column,) = table_json("items", pd.DataFrame({"job_seed": [10, 0, 7]}), {})["columns"]
    assert (column["kind"], column["labels"]) == ("text", ["0", "7", "10"])
