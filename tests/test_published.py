"""The figures of the papers: job files that are valid, definitions that agree with other libraries, a table that tells what lies in the stores."""

import doctest
import itertools
import shutil
from dataclasses import replace
from typing import get_origin

import compare
import definitions
import degeneracy
import few_shot
import jax
import numpy as np
import pytest
import table
from channel_tasks import Channels
from compare import PAGE, measure, overrides, read_kept
from figure import Figure, Row
from messages import refused
from places import EXAMPLES
from rows import ROWS
from table import Measured, page

from ctd.late import Late
from jobs.pipeline import read_stages
from jobs.plan.items import expand
from jobs.spec.job import parse_job
from jobs.spec.presets import expand_preset

metrics, distance = Late("sklearn.metrics"), Late("scipy.spatial.distance")
linear_model = Late("sklearn.linear_model")
FOLDER = EXAMPLES / "published"
BY_NAME = {row.name: row for row in ROWS}


def test_every_job_file_has_a_row():
    assert sorted(path.stem for path in FOLDER.glob("*.yaml")) == sorted(BY_NAME)


@pytest.mark.parametrize("name", BY_NAME)
@pytest.mark.parametrize("setting", table.SETTINGS)
def test_job_files_have_fields_that_there_are(name, setting):
    path = FOLDER / f"{name}.yaml"
    for stage in read_stages(path, overrides(path) if setting == "full" else None):
        content = expand_preset(stage.content, kernel := stage.kernel(), stage.where)
        fields = kernel.Params.model_fields
        given = {
            k: a_file(fields[k]) if isinstance(v, dict) and "stage" in v else v
            for k, v in (content.get("params") or {}).items()
        }
        spec = parse_job({**content, "params": given}, stage.where)
        assert len(expand(spec, kernel).groups) > 0


@pytest.mark.parametrize("name", BY_NAME)
def test_full_setting_is_another_than_the_small_one(name):
    small, full = (read_stages(FOLDER / f"{name}.yaml", of) for of in (None, full_of(name)))
    assert [stage.content for stage in small] != [stage.content for stage in full]


@pytest.mark.parametrize("name", ["mackey_glass", "narma"])
def test_full_setting_has_as_many_units_as_the_published_figure_is_of(name):
    (small,), (full,) = (read_stages(FOLDER / f"{name}.yaml", of) for of in (None, full_of(name)))
    assert full.content["params"] == small.content["params"]


def full_of(name):
    return overrides(FOLDER / f"{name}.yaml")


def a_file(field):
    """What a reference to another stage may stand for."""
    return ["a.h5"] if get_origin(field.annotation) is tuple else "a.h5"


def test_page_is_that_of_the_kept_table():
    assert PAGE.read_text() == page(read_kept())


def test_kept_table_has_every_row():
    figures = {(one.row, one.figure) for one in read_kept()}
    assert {(row.name, row.figures[0].name) for row in ROWS} <= figures


# --- definitions --------------------------------------------------------------------------------------


def test_examples_of_the_definitions():
    assert doctest.testmod(definitions) == (0, 4)


def test_definitions_are_those_of_other_libraries():
    rng = np.random.default_rng(0)
    true, found = rng.normal(size=(2, 5, 7, 3))
    expected = metrics.r2_score(true.ravel(), found.ravel())
    assert definitions.r2(true, found) == pytest.approx(expected, rel=1e-12)
    a, b = rng.normal(size=(2, 6, 6))
    expected = 1 - distance.cosine(a.ravel(), b.ravel())
    assert definitions.cosine(a, b) == pytest.approx(expected, rel=1e-12)
    error, y = rng.normal(size=(2, 40, 3)) * [1, 2, 3]
    nrmse = np.sqrt(np.mean(error**2) / y.var(axis=0).mean())
    expected = np.sqrt(metrics.mean_squared_error(y, y + error) / np.var(y.ravel()))
    assert definitions.whole_deviation(y) * nrmse == pytest.approx(expected, rel=1e-12)


def test_effective_connectivity_does_to_reachable_states_what_the_connectivity_does():
    """m n' and the effective one agree on states in the span of m and the inputs, and the latter is 0 on all others."""
    rng = np.random.default_rng(1)
    m, n, inputs = rng.normal(size=(3, 20, 2))
    effective = definitions.effective_connectivity(m, n, inputs)
    reachable = np.column_stack([m, inputs])
    np.testing.assert_allclose(effective @ reachable, m @ n.T @ reachable, atol=1e-12)
    other = rng.normal(size=20)
    other -= reachable @ np.linalg.lstsq(reachable, other)[0]
    np.testing.assert_allclose(effective @ other, 0, atol=1e-12)


def test_turn_of_a_rotation():
    """A block-diagonal map: it turns by .2 in its least stable plane, by .7 in another; its largest mode does not turn."""
    turn = lambda angle: np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    step = np.zeros((5, 5))
    step[:2, :2], step[2:4, 2:4], step[4, 4] = 1.05 * turn(0.2), 0.9 * turn(0.7), 1.3
    assert definitions.turn_per_step(np.linalg.eigvals(step)) == pytest.approx(0.2)
    assert np.isnan(definitions.turn_per_step(np.array([0.5 + 0j])))


@pytest.mark.parametrize("s", [1.2, 1.5, 4])
def test_mean_field_by_another_quadrature(s):
    """Gauss and Hermite's, with 200 nodes."""
    z, weight = np.polynomial.hermite_e.hermegauss(200)
    gain = weight @ np.cosh(definitions.mean_field(s) * z) ** -2.0 / weight.sum()
    assert s * gain == pytest.approx(1, abs=1e-4)


def test_few_shot_readout_is_a_poisson_regression(float64):
    """scikit-learn's, whose penalty is of the mean over samples."""
    rng = np.random.default_rng(2)
    z = rng.normal(size=(150, 4))
    y = rng.poisson(np.exp(z @ [0.5, -0.3, 0, 0.8] - 0.5))
    expected = linear_model.PoissonRegressor(alpha=3 / 150, tol=1e-10, max_iter=1000).fit(z, y)
    w, b = few_shot.poisson_readout(z, y, 3.0)
    np.testing.assert_allclose([*w, b], [*expected.coef_, expected.intercept_], atol=1e-6)


def test_weight_distance_ignores_permutations():
    """A turned copy is at distance 0; of other matrices, the search finds what all 120 permutations of five units do."""
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(2, 5, 5))
    p = rng.permutation(5)
    assert degeneracy.weight_distance(a, a[np.ix_(p, p)]) == pytest.approx(0, abs=1e-12)
    best = min(
        np.linalg.norm(a - b[np.ix_(q, q)]) for q in map(list, itertools.permutations(range(5)))
    )
    assert degeneracy.weight_distance(a, b) == pytest.approx(best / 5)


def test_change_per_level_is_that_of_its_law():
    """Distances that fall by a factor of e^-.5 a level; errors whose deviation doubles, whatever networks are drawn."""
    levels = np.exp(-0.5 * np.arange(3))[:, None] * np.ones((3, 10))
    np.testing.assert_allclose(definitions.change_per_level([levels, 4 * levels], True, 20), -0.5)
    errors = np.array([[1.0, 2, 4, 7], [2.0, 4, 8, 14]])
    found = definitions.change_per_level([errors], False, 2000)
    # Each level draws its own networks: the median alone is that of the law, log 2 = .693.
    assert np.median(found) == pytest.approx(np.log(2), abs=0.05)


def test_channels_are_independent():
    """Positions are sums of velocities, sines have the frequency that is named, bits the sign of the last pulse; targets have their gain."""

    def trial(**given):
        draw = jax.jit(lambda key: Channels(channels=2, **given).trial(key, "float32")[:2])
        return map(np.asarray, draw(jax.random.key(0)))

    inputs, targets = trial(kind="paths", gain=3.0)
    np.testing.assert_allclose(targets, 0.3 * np.cumsum(inputs, axis=0), rtol=1e-5)
    assert abs(np.corrcoef(inputs.T)[0, 1]) < 0.9
    inputs, targets = trial(kind="sines")
    w = 0.1 + 0.2 * (inputs[0] - 0.25)
    np.testing.assert_allclose(targets, np.sin(w * np.arange(1, 41)[:, None]), atol=1e-5)
    inputs, targets = trial(kind="flipflop")
    np.testing.assert_array_equal(np.sign(inputs)[inputs != 0], targets[inputs != 0])


def test_setting_is_chosen_by_validation():
    validation, test = np.array([[3, 1], [1, 2]]), np.array([[0, 0], [5, 7]])
    assert definitions.best_by(validation, test).tolist() == [5, 7]
    assert definitions.best_by([[np.nan, 0], [1, 2]], test).tolist() == [5, 7]


def test_reached_spread():
    """The published number, or behind it by no more than its published spread: no slack besides."""
    figure = Figure("x", "", lambda stores: [], published=0.5)
    assert [figure.reached(x) for x in (0.49, 0.5, 0.51)] == [False, True, True]
    less = replace(figure, goal="less", spread=0.1)
    assert [less.reached(x) for x in (0.1, 0.59, 0.61)] == [True, True, False]
    equal = replace(figure, goal="equal", spread=0.1)
    assert [equal.reached(x) for x in (0.39, 0.59, 0.61)] == [False, True, False]
    words = replace(figure, published="> 0")
    assert [x.published_text() for x in (figure, less, words)] == ["0.5", "0.5 +- 0.1", "> 0"]
    with refused(ValueError):
        words.reached(1.0)


@pytest.mark.parametrize(
    ("settings", "published", "differs", "verdict"),
    [
        (("full",), 0.5, "", "reached"),
        (("full",), 0.7, "", "missed"),
        (("small",), 0.5, "", ""),
        ((), 0.5, "", ""),
        (("full",), 0.5, "of other data", ""),
        (("full",), "> 0", "", ""),
    ],
)
def test_verdict_settings(settings, published, differs, verdict):
    """Only the paper's own quantity, data and settings have one."""
    figure = Figure("x", "", lambda stores: [], published=published, differs=differs)
    line = Measured("row", "full", "x", median=0.6, n=3)
    assert table.verdict(Row("row", "paper", (figure,), settings), figure, line) == verdict


def test_verdicts_of_rows():
    """What has a verdict has to be defended by hand: other optimisers, cells, spikes and draws have none."""
    judged = {(row.name, figure.name, setting) for row, figure in table.all_figures() for setting in table.SETTINGS if row.judges(figure, setting)}  # fmt: skip
    assert judged == {
        ("decision", "loss", "full"),
        ("input_dsa", "silhouette, dynamics", "small"),
        ("input_dsa", "silhouette, inputs", "small"),
        ("nvar", "training NRMSE", "small"),
        ("nvar", "training NRMSE", "full"),
    }


def test_marks_and_shares_of_the_table():
    """Seconds have the mark of their machine where there are several; of yes and no, the table has the share."""
    row, figure = next((r, f) for r, f in table.all_figures() if f.yes_no)
    stores = {"x": None}
    yes = replace(figure, measure=lambda stores: [1.0] * 11 + [0.0])
    one = compare.line(row, "small", yes, stores, "", {"seconds": 7.0, "device": "slow"})
    assert table.marked([one]) == {}
    marks = table.marked([one, replace(one, device="fast")])
    found = dict(zip(table.HEAD, table.cells(one, marks), strict=True))
    assert found["ours: median (lowest to highest, n)"] == "11 of 12"
    assert (found["verdict"], found["seconds"]) == ("", "7 b")


def test_page_opens_with_figures():
    """Each once, in the paper's settings or else in the full ones, and how many have a verdict."""
    lines = [
        Measured("flipflop", "small", "8/12/6/1 points", median=0.4, n=10),
        Measured("flipflop", "full", "8/12/6/1 points", median=0.7, n=10),
        Measured("decision", "full", "loss", median=0.05, n=3, low=0.04, high=0.06),
        Measured("integrator", "small", "loss", "not run"),
        Measured("input_dsa", "small", "silhouette, inputs", median=0.8, n=1),
        Measured("input_dsa", "full", "silhouette, inputs", median=0.9, n=1),
    ]
    page_head = table.glance(lines)
    assert "2 figures can be judged" in page_head
    assert "Of these 1 are reached. The other 1 " in page_head
    assert [row.split(" | ")[1:5] for row in page_head.splitlines()[-3:]] == [
        ["0.0355", "0.05 (0.04 to 0.06, 3)", "missed", "full, the paper's"],
        ["yes", "7 of 10", "", "full"],
        ["0.747", "0.8", "reached", "small, the paper's"],
    ]


# --- rows, run --------------------------------------------------------------------------------------


@pytest.fixture
def no_pictures(monkeypatch):
    """Of rows that are only measured; `-m endurance` draws each row's."""
    monkeypatch.setattr("jobs.report.figures.save_figures", lambda *_: [])


def run_row(name, folder, command_line):
    """Run a row's small setting in a folder of its own."""
    for path in FOLDER.glob("*.py"):
        shutil.copy(path, folder)
    shutil.copy(FOLDER / f"{name}.yaml", folder)
    code, out, err = command_line("run", folder / f"{name}.yaml", "--executor", "serial")
    assert code == 0, err + out


def holds(name, folder):
    for figure, one in zip(
        BY_NAME[name].figures, measure(BY_NAME[name], "small", folder), strict=True
    ):
        assert one.note == ""
        assert figure.hold[0] <= one.median <= figure.hold[1], (one, figure.why)


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_a_row_from_its_file_to_the_table(tmp_path, command_line, monkeypatch):
    """And what the table says where versions or settings are others, or a package is not there."""
    row = BY_NAME["mean_field"]
    shutil.copy(FOLDER / "mean_field.yaml", tmp_path)
    (before,) = measure(row, "small", tmp_path)
    assert (before.note, before.n) == ("not run", 0)
    run_row("mean_field", tmp_path, command_line)
    holds("mean_field", tmp_path)
    lines = measure(row, "small", tmp_path)
    assert [one.n for one in lines] == [40]
    assert table.values(lines[0], yes_no=False) in table.cells(lines[0], {})
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mean_field.png").write_bytes(b"a picture")
    page = table.web_page(lines, tmp_path)
    assert '<td data-name="verdict"></td>' in page
    assert '<td data-name="setting">small</td>' in page
    assert "<h2>mean_field, full</h2>" in page
    monkeypatch.setattr(compare, "version_of", lambda name: "0")
    (other,) = measure(row, "small", tmp_path)
    assert other.note.startswith("made with ctd ")
    assert other.median == lines[0].median
    monkeypatch.undo()
    path = tmp_path / "mean_field.yaml"
    path.write_text(path.read_text().replace("seeds: 10", "seeds: 9"))
    (other,) = measure(row, "small", tmp_path)
    assert other.note == "mean_field.zarr is of other settings than the file has now"
    assert other.n == 40

    def lacking(stores):
        raise ImportError("No module named 'sklearn'", name="sklearn")

    needy = replace(row, figures=(replace(row.figures[0], measure=lacking), *row.figures))
    first, second = measure(needy, "small", tmp_path)
    assert "needs the package sklearn" in first.note
    assert second.n == 40


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_a_row_whose_second_stage_is_missing_is_unfinished(tmp_path, command_line):
    path = tmp_path / "nvar.yaml"
    first = (FOLDER / "nvar.yaml").read_text().partition("  models:")[0]
    for module in FOLDER.glob("*.py"):
        shutil.copy(module, tmp_path)
    path.write_text(first)
    code, out, err = command_line("run", path, "--executor", "serial")
    assert code == 0, err + out
    shutil.copy(FOLDER / "nvar.yaml", path)
    (cut,) = measure(BY_NAME["nvar"], "small", tmp_path)
    assert (cut.note, cut.n) == ("unfinished: nvar.models.zarr is missing", 0)


@pytest.mark.endurance
@pytest.mark.parametrize("name", BY_NAME)
def test_row_holds_its_figures(name, tmp_path, command_line):
    folder = tmp_path / "published"  # job files name what lies beside it
    folder.mkdir()
    shutil.copy(EXAMPLES / "oscillation_trials.h5", tmp_path)
    run_row(name, folder, command_line)
    holds(name, folder)


def test_kept_lines_are_replaced_by_measured_ones_alone(tmp_path):
    path = tmp_path / "results.csv"
    row, figure = ROWS[0].name, ROWS[0].figures[0].name
    done = Measured(row, "small", figure, median=0.5, low=0.25, high=1.0, n=3, seconds=7.0)
    assert compare.keep([done], path)[0].median == 0.5
    (kept,) = compare.keep([Measured(row, "small", figure, "not run")], path)
    assert (kept.n, kept.median) == (3, 0.5)
    (newer,) = compare.keep([replace(done, median=0.75)], path)
    assert newer.median == 0.75
