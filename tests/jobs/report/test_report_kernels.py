"""Pictures of the kernels on the page: they are there, and show the numbers of the store."""

import numpy as np
import pytest
from page_stores import finished

from ctd.words import number
from jobs.query.query import table
from jobs.report.page import Content


@pytest.mark.parametrize("name", ["train_rnn", "esn", "fixed_points"])
def test_content_has_the_pictures_of_the_kernel(name):
    wanted = {
        "train_rnn": ["Training vanilla", "Evaluation against training loss", "Outputs of item", "State space",
                      "Recurrent weights"],
        "esn": ["Success", "Replay error", "Valid time", "Replay of item", "Training error by pass", "Replay error"],
        "fixed_points": ["State space", "Spectra", "State space", "Search shares", "Where the searches"],
    }  # fmt: skip
    found = Content(finished(name)).results()
    groups = found["groups"]
    assert "error" not in groups[0]
    titles = [plot["title"] for plot in groups[0]["plots"]]
    assert len(titles) == len(wanted[name])
    assert all(t.startswith(w) for t, w in zip(titles, wanted[name], strict=True)), titles


def test_fixed_point_plots_show_the_points_of_the_store():
    """Projections keep distances of points in the plane of the components, and spectra are the store's."""
    store = finished("fixed_points")
    plots = Content(store).results()["groups"][0]["plots"]
    reduced = store.root["gathered/0"]
    spectra = next(p for p in plots if p["title"].startswith("Spectra"))
    layers = [layer for layer in spectra["layers"] if layer["kind"] == "points"]
    pairs = [xy for layer in layers for xy in zip(layer["x"], layer["y"], strict=True)]
    drawn = sorted((complex(*xy) for xy in pairs), key=lambda z: (round(z.real, 4), z.imag))
    expected = np.asarray(reduced["eigenvalue"][...]).ravel()
    order = np.lexsort((expected.imag, expected.real.round(4)))
    np.testing.assert_allclose(drawn, expected[order], atol=2e-4)  # 5 digits
    shares = next(p for p in plots if p["title"] == "Search shares")
    total = sum(h for layer in shares["layers"] for h in layer["height"])
    assert total == pytest.approx(float(np.sum(reduced["search_share"][...])), abs=1e-4)


def test_esn_map_and_replay_show_the_numbers_of_the_store():
    store = finished("esn")
    plots = {p["title"].split(" of ")[0]: p for p in Content(store).results()["groups"][0]["plots"]}
    points = table(store, "point")
    image = plots["Success"]
    assert "whose replay NRMSE is below 0.1" in image["note"]
    for _, point in points.iterrows():
        column = image["x"]["ticks"].index(number(point.g, 3))
        row = image["y"]["ticks"].index(number(point.alpha, 3))
        # 4 digits
        assert image["layers"][0]["z"][row][column] == pytest.approx(point.success_rate, abs=1e-4)
    # Offsets and scale are taken off again: the NRMSE between the lines is the stored one.
    target, network = (
        np.array(layer["y"], float) for layer in plots["Replay"]["layers"]
    )  # (output, time), in units of one step
    best = table(store, "items").replay_nrmse.min()
    found = np.sqrt(np.mean((network - target) ** 2) / np.mean(target.var(axis=1)))
    assert found == pytest.approx(best, rel=0.01)  # 5 digits of lines offset by 1
