"""jobs.report.page.pictures: what a store keeps for readers who do not run its kernel is checked when it is read."""

import copy

import numpy as np
import pytest
from stores import make

from ctd.plots import Axis, Band, Bars, Image, Lines, Plot, Points, Scale, Spans
from jobs import keys
from jobs.gather.check import check
from jobs.report.page.encode import plot_json
from jobs.report.page.pictures import MAX_BYTES, read_pictures, write_pictures
from jobs.storage import objects
from jobs.storage.checksums import checksummed

X = np.array([0.0, 1.0, np.nan])
PLOTS = [
    Plot("lines", [Lines(X, np.ones((2, 3)), "a", text=["one", "two"], strong=True)], Axis("x")),
    Plot("coloured", [Lines(X, X, colour=[1.0]), Lines([X, X], [X, X], colour=np.ones((2, 3)))]),
    Plot("marks", [Points(X, X, size=X, colour=X, key=[1, 2, 1234567], marker="diamond", text=["a"] * 3)],
         scale=Scale("q", low=0)),
    Plot("bars", [Bars([0, 1], [1, 2], [3, 4], "n"), Band(X, X - 1, X + 1), Bars([], [], [])], equal=True),
    Plot("spans", [Spans(X, X + 1, [0, 1, 2])], y=Axis("", ticks=["a", "b", "c"])),
    Plot("image", [Image(np.eye(3))], note="cells"),
]  # fmt: skip


@pytest.fixture
def store(tmp_path):
    return make(tmp_path / "s.zarr")


def test_pictures_come_back_as_they_were(store):
    made = [plot_json(plot) for plot in PLOTS]
    write_pictures(store, 0, made)
    read = [plot_json(plot) for plot in read_pictures(store, 0)]
    assert len(read) == len(PLOTS)
    for got, plot in zip(read, made, strict=True):
        drop = lambda part: {k: v for k, v in part.items() if v not in (None, [], "", False)}
        assert drop(got["scale"]) == drop(plot["scale"])
        for layer, before in zip(got["layers"], plot["layers"], strict=True):
            assert drop(layer) == drop(before)
        assert {k: got[k] for k in ("title", "x", "y", "equal", "note")} == {
            k: plot[k] for k in ("title", "x", "y", "equal", "note")
        }
    assert read_pictures(store, 1) == []


def test_pictures_that_are_too_large_are_left_out(store):
    plot = plot_json(PLOTS[0])
    large = {**plot, "note": "x" * (MAX_BYTES // 2)}
    write_pictures(store, 0, [large, large, plot])
    assert len(read_pictures(store, 0)) == 1


WRONG = {
    "no list": lambda plots: {},
    "another field": lambda plots: plots[0].update(onclick="hacked()"),
    "no text": lambda plots: plots[0].update(title=["<b>"]),
    "another kind": lambda plots: plots[0]["layers"][0].update(kind="__proto__"),
    "a text for a number": lambda plots: plots[2]["layers"][0]["x"].__setitem__(0, "<b>"),
    "no number": lambda plots: plots[2]["layers"][0]["x"].__setitem__(0, float("nan")),
    "too few": lambda plots: plots[2]["layers"][0]["x"].pop(),
    "too few texts": lambda plots: plots[2]["layers"][0]["text"].pop(),
    "a ragged line": lambda plots: plots[0]["layers"][0]["y"][0].pop(),
    "a ragged image": lambda plots: plots[5]["layers"][0]["z"][1].pop(),
    "an empty image": lambda plots: plots[5]["layers"][0].update(z=[], rows=[]),
    "a marker": lambda plots: plots[2]["layers"][0].update(marker="url(//evil)"),
    "no hue": lambda plots: plots[0]["layers"][0].update(hue=-1),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_pictures_of_which_one_is_wrong_are_not_shown(store, wrong):
    plots = copy.deepcopy([plot_json(plot) for plot in PLOTS])
    found = WRONG[wrong](plots)
    found = {} if wrong == "no list" else plots
    objects.write(store.objects, keys.pictures(0), checksummed({"plots": found}))
    assert read_pictures(store, 0) == []


def test_check_finds_and_removes_damaged_pictures(store):
    write_pictures(store, 0, [])
    before = [finding.key for finding in check(store.address)]
    objects.write(store.objects, keys.pictures(0), b'{"plots":[],"seal":"0"}')
    after = [finding.key for finding in check(store.address)]
    assert [key for key in after if key not in before] == [keys.pictures(0)]
    check(store.address, repair=True)
    assert objects.read(store.objects, keys.pictures(0)) is None
