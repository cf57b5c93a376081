"""The PNG beside a store."""

from dataclasses import replace

import pytest
from stores import JOB, run

import jobs
from ctd.plots import Axis, Figure, Lines, Plot
from jobs.errors import JobError
from jobs.gather.gather import gather
from jobs.query.tree import StoreTree
from jobs.report.figures import save_figure


def test_a_kernels_figure_is_drawn_if_it_is_one_of_plots(tmp_path):
    store, _ = run(tmp_path / "t.zarr", {**JOB, "sweep": {"grid": {"rate": [0.1, 0.2]}}})
    gather(store)

    def figure(inputs, shared, columns, results, reduced):
        norms = results["norm"][:]
        return Figure(
            [Plot("norms", [Lines(columns["rate"][:], norms)], Axis("rate"), Axis("norm"))]
        )

    def elsewhere(*given):
        from matplotlib.figure import Figure

        return Figure()

    kernel = store.kernel
    store.kernel = replace(kernel, figure=figure)
    assert save_figure(store, 0, tmp_path / "t.png")
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")
    assert jobs.figure(StoreTree.of(store)).axes[0].get_xlabel() == "rate"
    assert jobs.figure(store.address) is None, "the toy has no figure of its own"
    store.kernel = replace(kernel, figure=elsewhere)
    with pytest.raises(JobError, match=r"figure: is a matplotlib.figure.Figure, ctd.plots.Figure"):
        save_figure(store, 0, tmp_path / "u.png")
