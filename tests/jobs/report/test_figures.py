"""The PNGs beside a store, and the same pictures from Python."""

from dataclasses import replace

import numpy as np
import pytest
from failing import Failing, holds
from messages import refused
from page_stores import finished
from processes import full_disk
from search_jobs import HALVING, results, whole_store
from stores import JOB, make, run

import jobs
from ctd.kernel import Display, Var
from ctd.plots import Axis, Lines, Plot, Points
from ctd.words import number
from jobs.errors import JobError
from jobs.gather.gather import gather
from jobs.gather.reduce import reduce_group
from jobs.query.query import table
from jobs.query.tables import ask
from jobs.query.tree import StoreTree
from jobs.report.figures import (
    _by_item,
    _by_swept,
    data_of,
    default_plots,
    figure,
    generic_plots,
    replaced,
    save_figures,
    saved_figures,
)
from jobs.report.page.groups import groups
from jobs.report.sweep import _series, overview
from jobs.run.shards import run_shards
from jobs.store.arrays import put_array


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Two groups, with the programs of JOB, and three rates."""
    grid = {"n": [3, 5], "rate": [0.1, 0.2, 0.4]}
    made, _ = run(tmp_path_factory.mktemp("s") / "t.zarr", {**JOB, "sweep": {"grid": grid}})
    gather(made)
    made.description = made.description.model_copy(update={"metric": "norm"})
    return made


def norms(inputs, shared, columns, results, reduced):
    drawn = Lines(columns["rate"][:], results["norm"][:])
    return [Plot("norms", [drawn], Axis("rate"), Axis("norm"))]


def elsewhere(*given):
    from matplotlib.figure import Figure

    return Figure()


def test_a_kernels_plots_are_drawn(store, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "kernel", replace(store.kernel, display=Display(plots=norms)))
    paths = save_figures(store, tmp_path / "t")
    assert [path.name for path in paths] == ["t.png", "t-0.png", "t-1.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
    assert saved_figures(str(tmp_path / "t.zarr"), 2) == paths
    paths[0].rename(tmp_path / "mine.png")
    paths[0].symlink_to(tmp_path / "mine.png")
    assert saved_figures(str(tmp_path / "t.zarr"), 2) == paths[1:], "a link may lead anywhere"
    (tmp_path / "t-1.zarr").mkdir()
    paths[2].write_text("of the store t-1.zarr")
    assert save_figures(store, tmp_path / "t") == paths[:2]
    assert paths[2].read_text() == "of the store t-1.zarr"
    opened = StoreTree.from_store(store)
    of_group = jobs.figure(opened, 1)
    assert (of_group.get_suptitle(), of_group.axes[0].get_title()) == ("n 5", "norms")
    assert jobs.figure(opened).axes[0].get_title().startswith("norm against ")
    with monkeypatch.context() as patch:
        patch.setattr(store, "description", store.description.model_copy(update={"metric": ""}))
        found = save_figures(store, tmp_path / "v")
        assert [path.name for path in found] == ["v.png", "v-1.png"], "v.png is that of group 0"
    monkeypatch.setattr(store, "kernel", replace(store.kernel, display=Display(plots=elsewhere)))
    with refused(JobError):
        save_figures(store, tmp_path / "u")


def test_a_picture_that_cannot_be_written_is_told(store, tmp_path):
    """As in a folder of somebody else's: the results of a run are shown, and one line says why there is no picture."""
    (tmp_path / "t.png").mkdir()
    with refused(JobError):
        save_figures(store, tmp_path / "t")


def test_pictures_say_where_their_data_are_others_now(monkeypatch):
    """Also the page: they show what an input file holds, and it was replaced since."""
    store = finished("fixed_points")
    assert replaced(store, 0) == "", "nothing was"
    monkeypatch.setattr(
        store, "job", store.job.model_copy(update={"inputs": {"net.h5": "of another", "a": ""}})
    )
    said = "not the data that this store was made from: net.h5 changed since"
    assert figure(store).get_suptitle().splitlines()[-1] == said
    assert groups(store)[0][0]["error"] == said
    monkeypatch.setattr(store, "job", store.job.model_copy(update={"base": "/nowhere"}))
    with refused(JobError):
        figure(store)


def test_no_table_is_made_from_other_data(monkeypatch):
    """Fixed points of one network would get the Jacobians of another."""
    store = finished("fixed_points")
    monkeypatch.setattr(
        store, "job", store.job.model_copy(update={"inputs": {"net.h5": "of another"}})
    )
    with refused(JobError):
        reduce_group(store, 0)
    assert "gathered/0" in store.root


def test_a_figure_that_raises_is_told_with_its_line(store, tmp_path, monkeypatch):
    def broken(inputs, shared, columns, results, reduced):
        return columns["n"][0].shape[2]

    monkeypatch.setattr(store, "kernel", replace(store.kernel, display=Display(plots=broken)))
    with refused(JobError):
        save_figures(store, tmp_path / "t")


def test_a_figure_needs_no_reduction(tmp_path, monkeypatch):
    """A kernel of one's own often has none, and its stores no gathered group."""
    made, _ = run(tmp_path / "t.zarr", {**JOB, "sweep": {"grid": {"rate": [0.1, 0.2]}}})
    monkeypatch.setattr(
        made,
        "kernel",
        replace(
            made.kernel,
            display=Display(plots=norms),
            tables=replace(made.kernel.tables, reduce=None, dims={}),
        ),
    )
    assert "gathered/0" not in made.root
    assert [axes.get_title() for axes in figure(made).axes] == ["norms"]
    empty = replace(made.kernel, display=Display(plots=lambda *given: []))
    monkeypatch.setattr(made, "kernel", empty)
    assert save_figures(made, tmp_path / "empty") == [], "as where no cycle was found"
    assert not (tmp_path / "empty.png").exists()
    assert figure(made) is not None


def test_items_that_failed_are_not_drawn(tmp_path, monkeypatch):
    """Their rows hold fill values."""
    settings = {**JOB["run"], "retries": 0, "backoff_s": 0}
    sweep = {"grid": {"rate": [0.1, 0.2, 0.4]}}
    made = make(tmp_path / "t.zarr", {**JOB, "sweep": sweep, "run": settings})
    run_shards(made, Failing(lambda task: holds(task, {0}) and 0 not in task.without and "error"))
    drawn = []

    def look(inputs, shared, columns, results, reduced):
        drawn.append(columns["item"][:].tolist())
        return norms(inputs, shared, columns, results, reduced)

    monkeypatch.setattr(
        made,
        "kernel",
        replace(
            made.kernel,
            display=Display(plots=look),
            tables=replace(made.kernel.tables, reduce=None, dims={}),
        ),
    )
    assert figure(made) is not None
    (plot,) = default_plots(made, 0)
    assert [*drawn, plot.layers[0].item.tolist()] == [[1, 2], [1, 2]]
    assert plot.note == "1 failed item left out."
    gather(made)
    (by_item,) = _by_item(made, ["steps"])
    assert by_item.layers[0].x.tolist() == [1, 2], "their whole numbers are 0"
    assert _by_item(made, ["norm"])[0].y.label == "distance (m)"


def test_items_with_a_failing_outcome_are_not_drawn(store):
    """Their values would flatten all others."""
    columns, results = data_of(store, 0)
    for failing, drawn, note in (
        ([0, 1, 0], [0, 2], "1 failed item left out."),
        ([1, 1, 1], [0, 1, 2], ""),
    ):
        given = {**{name: results[name] for name in results}, "outcome": np.array(failing)}
        (plot,) = generic_plots(store, 0, columns, given)
        assert plot.layers[0].item.tolist() == columns["item"][:][drawn].tolist()
        assert plot.note == note
    x = np.where(np.arange(3)[:, None] == 2, np.nan, results["x"][:])
    (plot,) = generic_plots(store, 0, columns, {"x": x, "outcome": np.array([0, 1, 0])})
    assert plot.note == "1 failed item and 1 without a finite value left out."


def test_results_along_names_are_marks_beside_the_names(tmp_path):
    """No line joins two names. Without a kernel's own picture, on the page and in the PNG alike."""
    made, _ = run(tmp_path / "t.zarr", {**JOB, "sweep": {"grid": {"rate": [0.1, 0.2]}}})
    names = np.asarray(["slope", "width", "area", "rise"])  # their codes are sorted
    put_array(made.results(0), "component", names, Var(("component",)))
    (plot,) = default_plots(made, 0)
    (marks,) = plot.layers
    assert (type(marks), plot.y.ticks) == (Points, names.tolist())
    assert marks.y.tolist() == [0, 1, 2, 3] * 2
    assert marks.x.tolist() == made.rows(0, "x", 0, 2).ravel().tolist()
    assert marks.item.tolist() == [0] * 4 + [1] * 4


def test_full_disk_leaves_the_old_pictures(store, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "kernel", replace(store.kernel, display=Display(plots=norms)))
    for path in (tmp_path / "t.png", tmp_path / "t-0.png"):
        path.write_text("old")
    with full_disk(), refused(JobError):
        save_figures(store, tmp_path / "t")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old", "old"]


def test_all_items_are_drawn_by_what_was_swept(store):
    """Their metric against one parameter, and its medians over the other's values: here, the items themselves."""
    plot = overview(store, "norm")
    lines = [layer for layer in plot.layers if isinstance(layer, Lines)]
    points = [layer for layer in plot.layers if isinstance(layer, Points)]
    first, described = plot.x.label.split(", ")
    assert described == store.description.fields[first]
    other = ({"n", "rate"} - {first}).pop()
    found = table(store, "items").sort_values(first)
    for layer, some in zip(lines, points, strict=True):
        name, value = layer.name.split(" = ")
        rows = found[np.isclose(found[other].astype(float), float(value))]
        assert name == other
        assert sorted(some.y) == sorted(rows["norm"])
        np.testing.assert_allclose(layer.x, rows[first].astype(float))
        np.testing.assert_allclose(layer.y, rows["norm"])
    assert sum(len(some.y) for some in points) == 6
    assert {some.name for some in points} == {""}, "the lines are named"
    assert overview(store, "") is None
    assert overview(store, "x") is None, "it is no number"
    assert "left out" not in plot.note
    assert plot.x.at == sorted({*found[first]}), "a tick each"


def test_numbers_are_x_and_words_the_colours(store, monkeypatch):
    """Whichever explains more."""
    columns = ask(store, lambda tables: tables["items"].columns())
    n = np.where(columns["n"] == 3, "gru", "vanilla").astype(object)
    for norm in (columns["n"] == 3, columns["rate"]):
        asked = {**columns, "n": n, "norm": norm.astype(float)}
        monkeypatch.setattr("jobs.report.sweep.ask", lambda *_, asked=asked: asked)
        plot = overview(store, "norm")
        assert (plot.title, plot.x.at) == ("norm against rate", [0.1, 0.2, 0.4])
        assert {layer.name for layer in plot.layers if layer.name} == {"n = gru", "n = vanilla"}


def test_the_picture_of_all_items_says_how_many_failed(store, monkeypatch):
    columns = ask(store, lambda tables: tables["items"].columns())
    status = np.where(np.arange(6) < 2, "failed", columns["status"])
    norm = np.where(np.arange(6) % 2, np.inf, columns["norm"])
    asked = {**columns, "status": status, "norm": norm}
    monkeypatch.setattr("jobs.report.sweep.ask", lambda *_: asked)
    told = "is an item. 2 failed items and 2 without a finite value left out."
    assert overview(store, "norm").note.endswith(told)


def test_a_series_of_one_mark_is_in_the_legend(tmp_path):
    """It has no line of medians, which names the others."""
    grids = [{"n": [3], "rate": [0.1, 0.2]}, {"n": [5], "rate": [0.1]}]
    made, _ = run(tmp_path / "t.zarr", {**JOB, "sweep": [{"grid": grid} for grid in grids]})
    gather(made)
    plot = overview(made, "norm")
    kinds = {layer.name: type(layer) for layer in plot.layers if layer.name}
    assert kinds in (
        {"n = 3": Lines, "n = 5": Points},
        {"rate = 0.1": Lines, "rate = 0.2": Points},
    )


def test_draws_are_joined_by_no_line(tmp_path):
    sweep = {"random": {"rate": {"uniform": [0.1, 0.9]}}, "samples": 4}
    made, _ = run(tmp_path / "t.zarr", {**JOB, "sweep": sweep})
    gather(made)
    plot = overview(made, "norm")
    assert [type(layer) for layer in plot.layers] == [Points]
    assert plot.note == "Each mark is an item."
    sweep |= {"grid": {"n": [3, 5]}}  # each draw twice, once in each series
    made, _ = run(tmp_path / "g.zarr", {**JOB, "sweep": sweep})
    gather(made)
    plot = overview(made, "norm")
    assert [type(layer) for layer in plot.layers] == [Points, Points]
    assert plot.title == "norm against rate"


@pytest.mark.parametrize(("law", "log"), [("loguniform", True), ("uniform", False)])
def test_what_optuna_proposes_is_drawn_as_what_was_swept(tmp_path, law, log):
    params = {"rate": {law: [0.1, 0.9]}}
    search = {"method": "optuna", "metric": "loss", "trials": 6, "together": 3, "params": params}
    made, _ = run(
        tmp_path / "o.zarr", {k: v for k, v in HALVING.items() if k != "sweep"} | {"search": search}
    )
    made.kernel = replace(made.kernel, display=Display(plots=lambda *given: []))
    assert [path.name for path in save_figures(made, tmp_path / "o")] == ["o.png"]
    plot = overview(made, "loss")
    assert (plot.title, plot.x.log) == ("loss against rate", log)
    assert [type(layer) for layer in plot.layers] == [Points]


def test_no_medians_are_told_of_where_none_are_drawn(store, monkeypatch):
    assert "are medians" in overview(store, "norm").note
    monkeypatch.setattr("jobs.report.sweep.MAX_MEDIANS", 1)
    plot = overview(store, "norm")
    assert {type(layer) for layer in plot.layers} == {Points}
    assert plot.note == "Each mark is an item."


def test_items_that_differ_in_their_seeds_alone_have_no_legend(store):
    plot = Plot("curves", [Lines([0, 1], np.zeros((2, 2)), item=np.arange(2))])
    drawn = [plot]
    two = np.arange(2)
    assert _by_swept(store, drawn, {"item": two, "seed": two}, {}) is drawn
    made = _by_swept(store, drawn, {"item": two, "seed": two, "rate": two / 2}, {})
    assert [layer.name for layer in made[0].layers] == ["rate = 0", "rate = 0.5"]


def test_lines_of_a_population_have_the_final_values_of_what_it_moves():
    made = whole_store("tournament")
    columns, found = data_of(made, 0)
    plot = Plot("curves", [Lines([0, 1], np.zeros((8, 2)), item=columns["item"][:])])
    named = {layer.name for layer in _by_swept(made, [plot], columns, found)[0].layers}
    assert named == {
        f"final_rate = {number(rate, 3)}" for rate in results(made)["final_rate"].tolist()
    }


@pytest.mark.parametrize(
    ("values", "n", "last"),
    [
        (np.arange(1.0, 9.0), 8, 8.0),
        (np.arange(1.0, 21.0), 20, 20.0),
        (10.0 ** np.arange(-8, 1), 9, 0.0),
        (np.array(list("abcdefghi")), 1, 0.0),
        (np.arange(31.0), 1, 0.0),
    ],
)
def test_more_numbers_than_colours_get_shades_of_a_scale(values, n, last):
    """Nine colours do not exist on a page: the ninth would be the first again. Texts have no scale."""
    found = list(_series({"item": np.arange(len(values)), "g": values}, ["g"]))
    assert len(found) == n
    assert found[-1][1] == last


def test_a_kernel_without_figure_has_a_default_one(store, tmp_path):
    """Its numbers against what was swept; of a group, its results along an axis; of a job without a sweep, its numbers by item."""
    titles = lambda canvas: [axes.get_title() for axes in canvas.axes if axes.get_title()]
    plain = jobs.Store.open(store.address)
    assert {title.partition(" against ")[0] for title in titles(figure(plain))} >= {"norm", "x"}
    of_group = jobs.figure(store.address, 0)
    assert titles(of_group) == ["x"]
    assert of_group.axes[0].get_xlabel() == "place (m)", "of the coordinate along the axis"
    np.testing.assert_array_equal(of_group.axes[0].lines[0].get_xdata(), [0, 0.5, 1])
    single, _ = run(
        tmp_path / "one.zarr", {**JOB, "params": {"n_steps": 7, "n": 1}, "sweep": {"seeds": 1}}
    )
    assert titles(jobs.figure(single.address)) == ["norm", "steps"]
    assert [path.name for path in save_figures(single, tmp_path / "one")] == ["one.png"]
