"""Nullclines of two state variables, and the graph of connections, as plots."""

import jax.numpy as jnp
import numpy as np

from ctd.batch import precision
from ctd.fixed_points import find
from ctd.fixed_points.connections import Table, graph
from ctd.fixed_points.pictures import Part
from ctd.fixed_points.search.phase import GRID, phase, zero_line
from ctd.plots.png import draw


def test_zero_line_of_a_circle():
    """Linear between places 0.05 apart: off a circle of radius 1 by at most 0.05^2 / 4, and 2 pi long."""
    at = np.arange(-1.5, 1.51, 0.05)
    x, y = zero_line(at, at, at[None] ** 2 + at[:, None] ** 2 - 1)
    assert np.abs(np.hypot(x, y) - 1).max() < 0.05**2 / 4
    assert abs(np.hypot(np.diff(x), np.diff(y)).sum() - 2 * np.pi) < 0.01
    assert zero_line(at, at, np.full((len(at), len(at)), np.nan))[0].shape == (0, 2)


def test_phase_portrait_of_two_parabolas():
    """h1 stays where h2 = h1^2, h2 where h1 = h2^2; they cross in the points (0, 0) and (1, 1).

    `find` passes on an input that all candidates share, and the settings of the table.
    """
    step = lambda h, x: h + x * jnp.array([h[1] - h[0] ** 2, h[0] - h[1] ** 2])
    candidates = [[0.1, 0.05], [0.9, 0.95], [-0.5, 0.4]]
    settings = {"method": "adam", "q_tol": 1e-12, "max_points": 1}
    found = find(step, candidates, x=[0.1], **settings)
    assert found.results["constant_input"].tolist() == [[0.1]] * 3
    assert (found.unique["n_unique"], len(found.unique["point"])) == (2, 1)
    made = found.figure()
    assert [axes.get_title() for axes in made.axes][:2] == ["Phase portrait", "Spectra of the linearisation"]  # fmt: skip
    with precision(found.inputs):
        plot = phase(step, found.network.states, found.unique, np.arange(1))
    layers = {layer.name: layer for layer in plot.layers}
    width = 2.5 / GRID
    for name, still in (("h1 stays", lambda x, y: y - x**2), ("h2 stays", lambda x, y: x - y**2)):
        line = layers[name]
        ends = np.isfinite(line.y)
        assert ends.sum() > GRID
        assert np.abs(still(line.x[ends], line.y[ends])).max() < width**2
    # An arrow's tip lies where the map leads to.
    flow = layers["flow"]
    x, y = (np.reshape(values, (-1, 6)) for values in (flow.x, flow.y))
    with np.errstate(invalid="ignore"):
        along = np.stack([x[:, 1] - x[:, 0], y[:, 1] - y[:, 0]])
        led = np.stack([y[:, 0] - x[:, 0] ** 2, x[:, 0] - y[:, 0] ** 2])
    assert np.abs(along[0] * led[1] - along[1] * led[0]).max() < 1e-5
    assert (np.sum(along * led, axis=0) >= 0).all()


def test_graph_of_connections():
    """A saddle between two memories: two lines, and the saddle is hollow."""
    points = np.array([[0.0, 0, 0], [2.0, 0, 0], [-2.0, 0, 0]])
    leads = np.array([[0, 1, 1], [0, 0, 0], [0, 0, 0]])
    table = Table(
        {}, {}, points, np.zeros((3, 0)), np.zeros((0, 3), int), np.zeros((0, 3)),
        growing=np.array([1, 0, 0]), marginal=np.zeros(3, int), in_plane=np.zeros((0, 0)),
    )  # fmt: skip
    plot = graph(table, leads, Part(np.arange(3)))
    lines, stable, saddle = plot.layers
    assert lines.text == ["point 0 leads to 1", "point 0 leads to 2"]
    np.testing.assert_allclose(np.abs(lines.x), [[0, 2], [0, 2]], atol=1e-12)
    assert (stable.name, saddle.name) == ("stable (2)", "1 growing mode (1)")
    assert (stable.hollow, saddle.hollow, saddle.key.tolist()) == (False, True, [0])
    assert plot.x.label == "principal component 1 of the points"
    # In the plane of the states, of which these have one component.
    again = graph(table._replace(in_plane=np.array([[5.0], [6], [7]])), leads, Part(np.arange(3)))
    assert again.layers[0].x.tolist() == [[5, 6], [5, 7]]
    assert again.x.label == "principal component 1 of the states"
    draw([plot]).canvas.draw()
    # Of the points at one input alone.
    some = graph(table, leads, Part(np.array([0, 2]), ", x = (1)"))
    assert some.title == "Which point leads to which, x = (1)"
    assert [(layer.name, layer.key.tolist()) for layer in some.layers[1:]] == [
        ("stable (1)", [2]),
        ("1 growing mode (1)", [0]),
    ]
