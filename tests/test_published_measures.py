"""How the figures of the papers are read from stores: an item that failed and a store that is damaged cost their own row alone."""

from dataclasses import replace
from types import SimpleNamespace

import compare
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from rows import ROWS

from jobs.errors import JobError

BY_NAME = {row.name: row for row in ROWS}


class Held(dict):
    """A store: its table of items, and the tables that reductions left."""

    def __init__(self, *gathered, status, **columns):
        tree = {str(k): SimpleNamespace(to_dataset=lambda t=t: t) for k, t in enumerate(gathered)}
        super().__init__(gathered=SimpleNamespace(children=tree))
        self.table = lambda: pd.DataFrame({"status": status, **columns})


LOST = ["done", "failed", "failed"]
GRID = {
    "input_scale": [1, 2, 1, 2], "bias": [0.1] * 4, "seed": [0, 0, 1, 1],
    "validation_nrmse": [0.1, 0.5, np.nan, 0.5], "replay_nrmse": [0.1, 0.6, np.nan, 0.6],
}  # fmt: skip
ONE_POINT = xr.Dataset(
    {
        "constant_input": (("point", "input"), [[1.25]]),
        "q": ("point", [0.0]),
        "n_unstable": ("point", [2]),
        "eigenvalue": (("point", "mode"), [[np.exp(0.5j), np.exp(-0.5j)]]),
    }
)
"""Of two inputs, the second has a point, whose pair turns as it should."""
OF_POINTS = Held(ONE_POINT, status=["done"] * 2, x=["[0.27]", "[1.25]"])
POINTS = {"train": Held(status=["done"]), "points": OF_POINTS}
UNTRAINED = {"train": Held(status=["done"] * 3), "points": OF_POINTS}
"""Two of three networks did not learn their task, so that no points of theirs were searched."""
CUBE = xr.Dataset(
    {"q": ("point", [0.0] * 27), "n_unstable": ("point", np.repeat([0, 1, 2, 3], [8, 12, 6, 1]))}
)
MODELS = {
    "status": ["done", "failed", "done", "done"], "truth": [0, 0, 1, 1], "extraneous": [0, 8, 0, 8],
    "few_shot_co_bps": [0.1, np.nan, 0.3, 0.2],
}  # fmt: skip


@pytest.mark.parametrize(
    ("row", "figure", "stores", "median"),
    [
        ("mackey_glass", 0, {"mackey_glass": Held(status=LOST, replay_last_nrmse=[1e-4, 1e-5, np.nan])}, np.inf),
        ("mackey_glass", 0, {"mackey_glass": Held(status=["done"] * 2 + ["failed"], replay_last_nrmse=[1e-4, 2e-4, np.nan])}, 2e-4),
        ("attractors", 0, {"node": Held(status=LOST, rate_r2_units=[0.9, 0.9, np.nan])}, -np.inf),
        ("sines", 0, {"train": Held(status=LOST, eval_loss=[0, 0, 0])}, -np.inf),
        ("mean_field", 0, {"mean_field": Held(status=LOST, kappa=[3.06] * 3, overlap=[4.0] * 3)}, np.inf),
        ("yang", 1, {"yang": Held(status=LOST, accuracy=[0.9] * 3, **{"task.rule": list("abc")})}, -np.inf),
        ("stitched", 0, {"stitched": Held(status=LOST, rate_r2=[0.9] * 3), "single": Held(status=["done"], rate_r2=[0.8])}, -np.inf),
        ("narma", 0, {"narma": Held(status=["done", "done", "failed", "done"], **GRID)}, 0.36),
        ("few_shot", 0, {"few_shot": Held(**MODELS)}, 1.0),
        ("sines", 1, POINTS, 0.5),
        ("sines", 2, POINTS, np.inf),
        ("sines", 1, UNTRAINED, 0.0),
        ("sines", 2, UNTRAINED, np.inf),
        ("flipflop", 0, {**UNTRAINED, "points": Held(CUBE, status=["done"])}, 1 / 3),
        ("oscillation", 2, {"series": {"results/0": {"targets": xr.DataArray([[[1.0], [-1.0]]])}}, "force": Held(status=LOST, replay_nrmse=[1.0] * 3)}, np.inf),
        ("few_shot", 1, {"few_shot": Held(**MODELS, co_bps=[0.1, np.nan, 0.3, np.nan])}, np.inf),
    ],
)  # fmt: skip
def test_what_is_not_there_counts_as_the_worst_value(row, figure, stores, median):
    figure = BY_NAME[row].figures[figure]
    one = compare.line(BY_NAME[row], "small", figure, stores, "", {})
    assert (one.note, one.median) == ("", pytest.approx(median))


@pytest.mark.parametrize(
    ("error", "note"),
    [
        (ValueError("the checksum differs\nin a chunk"), "ValueError: the checksum differs"),
        (OSError(), "OSError"),
        (IndexError("of no entry"), "IndexError: of no entry"),
        (JobError("not run"), "not run"),
        (JobError(""), "JobError"),
        (ImportError("No module named 'sklearn'", name="sklearn"), "needs the package sklearn: uv sync --all-extras"),
    ],
)  # fmt: skip
def test_damaged_store_leaves_the_other_rows(monkeypatch, error, note):
    def damaged(*_):
        raise error

    row = BY_NAME["mean_field"]
    one = compare.line(row, "small", replace(row.figures[0], measure=damaged), {}, "", {})
    assert (one.note, one.n) == (f"cannot be measured: {note}", 0)
    monkeypatch.setattr(compare, "opened", damaged)
    (one,) = compare.measure(row, "small")
    assert (one.note, one.n) == (note, 0)


def test_currents_within_a_region_do_not_count():
    rng = np.random.default_rng(0)
    true = rng.standard_normal((1, 3, 50, 6))  # (item, source, time, unit of all regions)
    fits = np.repeat(true, 2, axis=0)
    for region in range(3):
        own = slice(2 * region, 2 * region + 2)
        fits[:, region, :, own] = rng.standard_normal((2, 50, 2))
    fits[1, 0, :, 2:4] *= -1  # one of the six pairs
    stores = {
        "simulation": {"results/0": {"currents": xr.DataArray(true)}},
        "fit": {"results/0": {"currents": xr.DataArray(fits)}},
    }
    found = BY_NAME["regions"].figures[1].measure(stores)
    np.testing.assert_allclose(found, [1, 4 / 6], rtol=1e-12)
