"""Fields that a sweep zips are one factor of its pictures, its tables and its page."""

import numpy as np
from stores import JOB, run

from jobs.gather.gather import gather
from jobs.query.collection import StoreCollection
from jobs.report.page import Content, several
from jobs.report.sweep import overview


def test_a_zip_is_one_factor(tmp_path):
    sweep = {"zip": {"n": [5, 3], "rate": [0.1, 0.2]}, "seeds": 4}
    store, _ = run(tmp_path / "t.zarr", {**JOB, "sweep": sweep})
    gather(store)
    store.description = store.description.model_copy(update={"metric": "norm"})
    plot = overview(store, "norm")
    assert plot.x.label == "n, rate"
    assert plot.x.ticks == ["5, 0.1", "3, 0.2"], "in the order of the job"
    points, medians = plot.layers
    assert (medians.name, "strokes" in plot.note) == ("median", True)
    wanted = [np.median(points.y[points.x == place]) for place in (0, 1)]
    np.testing.assert_allclose(medians.y, [k for m in wanted for k in (m, m, np.nan)])
    content = Content(store).results()
    assert content["sweep"]["parameters"] == ["n, rate", "seed"]
    assert {e["parameter"] for e in content["sweep"]["effects"]} == {"n, rate"}
    (column,) = [c for t in content["tables"] for c in t["columns"] if c["name"] == "n, rate"]
    assert column["labels"] == ["3, 0.2", "5, 0.1"]


def test_what_differs_between_stores_alone_is_one_factor(tmp_path):
    stores = []
    for steps in (7, 8):
        job = {
            **JOB,
            "params": {"n_steps": steps},
            "sweep": {"grid": {"rate": [0.1, 0.2]}, "seeds": 4},
        }
        made, _ = run(tmp_path / f"{steps}.zarr", job)
        gather(made)
        stores.append(made)
    found = several([Content(store).all() for store in stores], StoreCollection(stores))["sweep"]
    told = {e["parameter"] for e in found["effects"] if e["result"] == "norm"}
    assert told == {"store, n_steps", "rate"}
