"""Chains of slow points on a ring and on a line whose every measure is known."""

import jax.numpy as jnp
import numpy as np
import pytest
from messages import refused, warned
from networks import FIXED
from places import EXAMPLES

from ctd.batch import precision, run_items
from ctd.data import read_hdf5
from ctd.fixed_points import kernel, line
from ctd.fixed_points.network import make_network
from ctd.fixed_points.search.params import FixedPoint
from ctd.kernel import inputs_of

N = 6


def table_of(points, tangents, **more):
    """Points whose first mode, along `tangents`, is slow; an input drives it with cosine 0.6, and the last axis else."""
    k = len(points)
    vectors = np.zeros((k, N, N), complex)
    vectors[:, :, 1] = tangents
    values = np.tile([0.93, 1.01, 0.9, 0.5, 0.2, 0.1], (k, 1)).astype(complex)
    away = np.eye(N)[-1]
    driven = 0.6 * tangents + 0.8 * away
    return {
        "point": points,
        "residual": 1e-3 * np.arange(k),
        "eigenvalue": values,
        "right": vectors,
        "left": 3 * vectors,
        "input_jacobian": driven[:, :, None],
        "constant_input": np.zeros((k, 1)),
        **more,
    }


def test_ring():
    """A regular polygon of k corners: its sides are 2 r sin(pi / k) long, its tangents those of the circle."""
    k, r = 40, 2.0
    order = np.random.default_rng(0).permutation(k)
    angle = 2 * np.pi * order / k
    zero = np.zeros((k, N - 2))
    points = np.column_stack([r * np.cos(angle), r * np.sin(angle), zero])
    found = line(table_of(points, np.column_stack([-np.sin(angle), np.cos(angle), zero])))
    assert found.closed
    side = 2 * r * np.sin(np.pi / k)
    assert found.length == pytest.approx(k * side)
    assert found.widest == pytest.approx(side)
    assert found.dimension == 1
    steps = np.diff(order[found.rows]) % k
    assert (steps == steps[0]).all()
    assert steps[0] in (1, k - 1)
    np.testing.assert_allclose(found.columns["mode"], 1)
    np.testing.assert_allclose(found.columns["input"], 0.6)
    np.testing.assert_allclose(found.columns["residual"], 1e-3 * found.rows)
    assert repr(found).startswith("ring of 40 points, length 12.55, dimension 1\n")
    drift = line(table_of(points, points), step=lambda h: h).drift
    assert drift[-1, 0] == pytest.approx(found.length), "the gap that closes it included"


def test_line_with_a_branch_an_outlier_and_uneven_gaps():
    """Positions 0 to 9 and 11 along a diagonal; F pulls to the first point, at a hundredth of the distance a step."""
    along = np.array([1.0, 1, 0, 0, 0, 0]) / np.sqrt(2)
    position = np.array([2.0, 0, 11, 1, 1, 50, *range(3, 10)])
    points = position[:, None] * along
    points[4, 3] = 0.5  # beside the line
    outlier = position == 50
    found = line(
        table_of(points, np.tile(along, (13, 1)), outlier=outlier),
        readout=[[1.0, 0, 0, 0, 0, 0]],
        step=lambda h: 0.99 * h,
    )
    assert not found.closed
    order = found.rows if found.rows[0] == 1 else found.rows[::-1]
    assert order.tolist() == [1, 3, 0, *range(6, 13), 2]
    assert found.nearby.tolist() == [4]
    assert not found.objections
    assert found.length == pytest.approx(11)
    assert found.widest == pytest.approx(2)
    # The point beside the line is as far along it as the one that it branches from; the outlier lies on its extension.
    np.testing.assert_allclose(np.abs(np.diff(found.places(points)[[3, 4, 5]])), [0, 49])
    np.testing.assert_allclose(found.columns["readout"], np.sqrt(0.5))
    at, drift = found.drift.T
    away = at if found.rows[0] == 1 else 11 - at
    np.testing.assert_allclose(np.abs(drift), 0.01 * away, atol=1e-12)


def test_line_of_a_flow():
    """dh/dt = 0 along the first axis but for a pull of 0.01, and -1 or faster across: at rest is the eigenvalue 0."""
    k, along = 7, np.eye(N)[0]
    points = np.arange(float(k))[:, None] * along
    table = table_of(points, np.tile(along, (k, 1)))
    table["eigenvalue"] = np.tile([-1.0, 0.0, -0.9, -1.02, -2, -3], (k, 1)).astype(complex)
    found = line(table, time="continuous", step=lambda h: -0.01 * h)
    assert found.dimension == 1
    assert (found.columns["slowest"] == 0).all()
    np.testing.assert_allclose(found.columns["mode"], 1)
    at, drift = found.drift.T
    away = at if found.rows[0] == 0 else 6 - at
    np.testing.assert_allclose(np.abs(drift), 0.01 * away, atol=1e-12)


def test_points_that_no_chain_describes():
    """Two slow modes at each point: a plane."""
    points = np.random.default_rng(0).standard_normal((12, N))
    table = table_of(points, np.tile(np.eye(N)[0], (12, 1)))
    table["eigenvalue"][:, 2] = 0.99
    found = line(table)
    assert found.dimension == 2
    assert "2 modes" in found.objections[0]


def gathered(position, rows=slice(None), output=None, **columns):
    """Points at these positions along an axis, whose readouts are these, with other columns at some rows."""
    table = table_of(position[:, None] * np.eye(N)[0], np.tile(np.eye(N)[0], (len(position), 1)))
    table["output"] = np.asarray(position if output is None else output)[:, None]
    for name, value in columns.items():
        table[name][rows] = value
    return table


EVEN = np.linspace(0, 10, 41)
GROWS = [1.15, 1.01, 0.9, 0.5, 0.2, 0.1]


@pytest.mark.parametrize(
    ("table", "said", "aside"),
    [
        (gathered(EVEN), (), []),
        # Two points beyond a hole of 3 in 13, and two that a mode leaves at .15 a step.
        (gathered(np.append(EVEN, [13, 13.1])), (), [41, 42]),
        (gathered(EVEN, slice(2), eigenvalue=GROWS), (), [0, 1]),
        (gathered(EVEN, slice(2), residual=3.0), (), [0, 1]),
        (gathered(EVEN, eigenvalue=GROWS), ("0 of 41",), []),
        (gathered(EVEN, slice(1, -1), residual=3.0), ("2 of 41",), []),
        # Two memories and the saddle between them, all within .05 of 1.
        (gathered(np.arange(3.0)), ("holes",), []),
        # Two memories: many searches that ended near each.
        (gathered(np.append(EVEN / 100, 10 + EVEN / 100)), ("holes", "readouts"), np.arange(41, 82)),
        (gathered(EVEN, output=np.append(np.zeros(40), 5.0), rows=40, eigenvalue=GROWS), ("readouts",), [40]),
    ],
)  # fmt: skip
def test_line_objections(table, said, aside):
    """A chain is a line only where the network rests on it, without holes, and where its readouts are those of all points."""
    found = line(table)
    assert len(found.objections) == len(said)
    assert all(word in text for text, word in zip(found.objections, said, strict=True))
    np.testing.assert_array_equal(found.aside, aside)
    assert found.summary.startswith("no line: " if said else "line of")


@pytest.mark.parametrize(
    ("more", "settings"),
    [
        ({"outlier": np.array([1, 1, 0, 0], bool)}, {}),
        ({"constant_input": np.eye(4)[:, :1]}, {}),
        ({}, {"readout": np.ones((1, 3))}),
    ],
)
def test_line_refuses(more, settings):
    points = np.arange(4.0)[:, None] * np.eye(N)[0]
    with refused(ValueError):
        line(table_of(points, np.tile(np.eye(N)[0], (4, 1)), **more), **settings)


def test_line_is_drawn():
    """Thirty places along the first axis, where F leaves them, and two beyond a hole: drawn at their places, these in grey."""
    places = np.zeros((32, 3))
    places[:, 0] = [*np.linspace(-1, 1, 30), 2.5, 2.6]
    step = lambda weights, h, x: h * jnp.array([1, 0.5, 0.2])
    network, inputs = make_network(step, {}, places, "float64"), inputs_of(FixedPoint())
    ends = {"point": places, "constant_input": np.zeros((32, 0)), "q": np.zeros(32)}
    ends["outcome"] = np.full(32, FIXED)
    options = kernel.tables.Options(settle=0, between=0)
    with warned():
        table = kernel.tables.reduce(inputs, network, {}, ends, options)
    plots = kernel.display.plots(inputs, network, {}, ends, table)
    (chain,) = [plot for plot in plots if plot.title == "Along the chain"]
    assert [(layer.name, layer.faint) for layer in chain.layers] == [
        ("line (30)", False),
        ("no part of a line (2)", True),
    ]
    x, y = (np.concatenate([getattr(layer, name) for layer in chain.layers]) for name in "xy")
    keys = np.concatenate([layer.key for layer in chain.layers])
    at = table["point"][keys, 0]
    np.testing.assert_allclose(np.abs(x - x[np.argmin(at)]), at + 1, atol=1e-9)
    # Without a readout, the first principal component: that axis, around the mean of the states.
    np.testing.assert_allclose(np.abs(y), np.abs(at - places[:, 0].mean()), atol=1e-9)
    assert chain.note.startswith("Line of 30 points, length 2, dimension 1; 2 points aside")


@pytest.mark.endurance
def test_line_of_the_decision_network():
    """Two bunches of points, no line. Along one runs the slowest mode, whose left eigenvector sees the input more than a random
    direction does; the outputs there are all near -1 or 1, so that its tangent is across the readout.
    """
    path = str(EXAMPLES / "decision_gru.h5")
    params = FixedPoint(weights=path, n_trials=20, q_tol=1e-6)
    columns = {"candidate": np.arange(200)}
    with precision(params):
        shared = kernel.load(inputs_of(params))
        results = run_items(kernel, params, columns, shared=shared)
        # As those of a line are; and some lie on where no trial comes.
        beyond, slow = (pytest.warns(match=of) for of in ("never comes", "may be slow points"))
        with beyond, slow:
            table = kernel.tables.reduce(
                inputs_of(params), shared, columns, results, kernel.tables.Options()
            )
    wO = read_hdf5(path)["wO"]
    found = line(table, readout=wO)
    # Many points at outputs near -1, some at 1, and one or two between: no line.
    assert "holes" in found.objections[0]
    assert found.dimension == 1
    # Slow points lie beside the line, further the weaker their tolerance; a random direction has 0.1.
    assert np.median(found.columns["mode"]) > 0.8
    n = table["point"].shape[1]
    assert found.columns["input"].min() > 1.5 / np.sqrt(n)
    points, out = (table[name][found.rows] for name in ("point", "output"))
    np.testing.assert_allclose(np.abs(out[:, 0]), 1, atol=0.1)
    tangent = np.gradient(points, axis=0)
    across = tangent @ wO[0] / np.linalg.norm(tangent, axis=1) / np.linalg.norm(wO)
    assert np.median(np.abs(across)) < 0.05
    assert np.median(found.columns["readout"]) < 0.05
