"""Searches for fixed points against closed forms and fixed iteration.

One program holds most maps: which of them an item is, the first number of its constant input says.
"""

from dataclasses import replace
from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from messages import warned
from networks import DIVERGED, FIXED, SLOW, cube, drawn, spiral, starts

from ctd.batch import Layout, precision, run_items
from ctd.fixed_points import find, kernel
from ctd.fixed_points.network import make_network
from ctd.fixed_points.notebook import FixedPoints
from ctd.fixed_points.search import approach
from ctd.fixed_points.search.methods import Problem, Problems, run_block
from ctd.fixed_points.search.missed import (
    KnownPoints,
    between,
    newton_of,
    stable_points,
    with_missed,
)
from ctd.fixed_points.search.params import FixedPoint, Options
from ctd.fixed_points.search.summary import _warn_of_pooled, _warn_of_reach, reduce
from ctd.kernel import inputs_of

RNG = np.random.default_rng(1)
A, B = RNG.standard_normal((3, 3)) / 3, RNG.standard_normal((3, 2))
W = 0.6 * RNG.standard_normal((3, 3)) / np.sqrt(3)
CENTRE = np.array([1.0, -2.0])
WEIGHTS = {"A": A, "B": B, "W": W, "centre": CENTRE}


def first(f):
    """f of the first unit; the two others are 0 after a step."""
    return lambda w, h, x: jnp.stack([f(h[0], x), 0 * h[1], 0 * h[2]])


def planar_map(w, h, x):
    """With the Jacobian x at CENTRE, where its third unit is 0."""
    away = h[:2] - w["centre"]
    return jnp.append(w["centre"] + x.reshape(2, 2) @ away + 0.1 * away**3, 0)


MAPS = {  # (weights, h (3,), x (4,)) -> the next state
    "linear": lambda w, h, x: w["A"] @ h + w["B"] @ x[:2],
    "contraction": lambda w, h, x: jnp.tanh(w["W"] @ h + 0.3),
    "planar": planar_map,
    "cube": cube,
    # Stable at 3 alone, but slow where it passes 0.
    "slow, then stable": first(lambda h, x: h + (0.1 + h**2) * (3 - h) / 10),
    "cubic": first(lambda h, x: h - h**3 / 10),
    # No fixed point: F - h = (0.1 + h0^2, h1 / 2), q is least at 0, where it is 0.1^2 / 2.
    "parabola": lambda w, h, x: jnp.stack([h[0] + 0.1 + h[0] ** 2, 1.5 * h[1], 0 * h[2]]),
    "slope": first(lambda h, x: h + jnp.exp(-h) + x[0]),
    "hill": lambda w, h, x: h + 1 / (1 + h**2),
}


def step(weights, h, x):
    """The next state of map number x[0], with the input x[1:]."""
    return lax.switch(x[0].astype(int), list(MAPS.values()), weights, h, x[1:])


def search(name, candidates, *, x=(), dtype="float64", options=None, **settings):
    """As `find(MAPS[name], candidates, x=x)`, in the one program."""
    n = len(candidates)
    states = np.zeros((n, 3))
    states[:, : np.shape(candidates)[1]] = candidates
    numbers = np.zeros((n, 5))
    numbers[:, 0] = list(MAPS).index(name)
    numbers[:, 1 : 1 + np.shape(x)[-1]] = x
    # Of one shape: candidate k is state k modulo their number.
    network = make_network(step, WEIGHTS, np.resize(states, (48, 3)), dtype)
    params, columns = FixedPoint(dtype=dtype, **settings), {"candidate": np.arange(n), "x": numbers}
    results = run_items(kernel, params, columns, shared=network, layout=Layout(8, 1))
    inputs = inputs_of(params)
    with precision(params):
        unique = kernel.tables.reduce(inputs, network, columns, results, Options(**options or {}))
    return FixedPoints(results, unique, kernel, network, inputs)


def test_linear_map_closed_form():
    """F(h) = A h + B x: h* = (1 - A)^-1 B x, and A's eigenvalues."""
    x = np.array([0.3, -1.0])
    found = search("linear", starts(20, 3), x=x)
    assert (found.results["outcome"] == FIXED).all()
    assert len(found.unique["point"]) == 1
    # |F - h| <= 1.4e-10 by the default q_tol.
    assert np.linalg.svd(np.eye(3) - A)[1].min() > 0.1
    exact = np.linalg.solve(np.eye(3) - A, B @ x)
    np.testing.assert_allclose(found.results["point"], np.tile(exact, (20, 1)), atol=2e-9)
    np.testing.assert_allclose(found.unique["jacobian"][0], A, atol=1e-14)
    np.testing.assert_allclose(found.unique["input_jacobian"][0, :, 1:3], B, atol=1e-14)
    expected = np.linalg.eigvals(A)
    got = found.unique["eigenvalue"][0]
    assert np.abs(got[:, None] - expected).min(axis=1).max() < 1e-12
    assert (np.diff(np.abs(got)) <= 1e-12).all()


STABILITY = [
    # name, Jacobian, unstable modes, angle of the leading eigenvalue
    ("stable node", np.diag([0.5, 0.8]), 0, 0.0),
    ("unstable node", np.diag([1.5, 1.2]), 2, 0.0),
    ("saddle", np.diag([0.5, 1.3]), 1, 0.0),
    ("stable focus", spiral(0.9, 0.7), 0, 0.7),
    ("unstable focus", spiral(1.1, 0.7), 2, 0.7),
    ("period-doubling saddle", np.diag([-1.2, 0.4]), 1, np.pi),
]


@pytest.fixture(scope="module")
def planar():
    """A nonlinear planar map with each of these Jacobians at (1, -2): the input chooses it."""
    x = np.repeat([jacobian.ravel() for _, jacobian, *_ in STABILITY], 8, axis=0)
    return search("planar", CENTRE + starts(len(x), 2, 0.1), x=x, dt=0.01).unique


@pytest.mark.parametrize(
    ("name", "jacobian", "n_unstable", "angle"), STABILITY, ids=[case[0] for case in STABILITY]
)
def test_stability_types(planar, name, jacobian, n_unstable, angle):
    here = (planar["constant_input"][:, 1:] == jacobian.ravel()).all(axis=1)
    distance = np.linalg.norm(planar["point"] - [1, -2, 0], axis=1)
    row = np.argmin(np.where(here, distance, np.inf))
    np.testing.assert_allclose(planar["point"][row], [1, -2, 0], atol=1e-8)
    assert planar["stable"][row] == (n_unstable == 0)
    assert planar["n_unstable"][row] == n_unstable
    magnitude = np.abs(np.linalg.eigvals(jacobian)).max()
    tau = -1 / np.log(magnitude)
    assert planar["leading"][row] == pytest.approx(magnitude, abs=1e-7)
    assert planar["time_constant"][row, 0] == pytest.approx(tau, rel=1e-5)
    assert planar["tau"][row] == planar["time_constant"][row, 0]
    sizes = np.abs(np.append(np.linalg.eigvals(jacobian), 0))  # of the third unit: 0
    slowest = sizes[sizes < 1].max()
    expected = -1 / np.log(slowest) if slowest else 0
    assert planar["tau_decaying"][row] == pytest.approx(expected, rel=1e-5)
    assert planar["leading_frequency"][row] == pytest.approx(abs(angle) / (2 * np.pi), abs=1e-7)
    assert planar["time_constant_s"][row, 0] == pytest.approx(0.01 * tau, rel=1e-5)
    assert abs(planar["frequency"][row, 0]) == pytest.approx(angle / (2 * np.pi), abs=1e-6)
    assert abs(planar["frequency_hz"][row, 0]) == pytest.approx(
        angle / (2 * np.pi) / 0.01, abs=1e-4
    )


CORNERS = np.stack(np.meshgrid(*[[-1.0, 1.0]] * 3), axis=-1).reshape(-1, 3)


def test_saddles_are_found_between_memories():
    """From beside the eight memories of three bits, without mix or noise: all 27 points, and where each came from."""
    found = search("cube", CORNERS + 1e-3)
    points, unique = found.unique["point"], found.unique
    np.testing.assert_allclose(points, np.round(points), atol=1e-9)
    assert len({tuple(p) for p in np.round(points).astype(int)}) == len(points) == 27
    assert np.bincount(unique["n_unstable"]).tolist() == [8, 12, 6, 1]
    assert unique["origin"].tolist() == ["states"] * 8 + ["between points"] * 19
    assert unique["count"].tolist() == [1] * 8 + [0] * 19
    assert unique["n_unique"] == 27
    assert unique["search_share"].sum() == pytest.approx(1)
    zeros = (np.round(points) == 0).sum(axis=1)
    np.testing.assert_array_equal(unique["n_unstable"], zeros)
    first, heads, *rows = repr(found).splitlines()
    assert first.startswith("8 candidates: ")
    assert heads.split()[:4] == ["kind", "q", "error", "stability"]
    assert len(rows[:-1]) == 20
    assert "7 more" in rows[-1]
    inputs = {"constant_input": np.arange(54).reshape(27, 2) / 2}
    driven = replace(found, table=unique | inputs)  # shown where the points' inputs differ
    assert repr(driven).splitlines()[2].split()[:3] == ["fixed", "[0,", "0.5]"]


def newton_of_sine(points):
    """Newton's steps for sin(pi h) = 0, whose zeros are the integers."""
    return np.abs(np.sin(np.pi * points[:, 0])) / np.pi, -np.tan(np.pi * points) / np.pi


@pytest.mark.parametrize(
    ("fixed", "slow", "most", "expected"),
    [
        ([-1.0, 1.0], [], 9, [0]),
        ([-1.0, 1.0], [5e-4], 9, []),  # known already, as a slow point
        ([-2.0, 2.0], [], 9, [-1, 0, 1]),  # the second time from halfway to 0
        ([-2.0, 2.0], [], 1, [0]),
        ([-2.0, 2.0, 0.02], [], 1, []),  # 0.02 was found to a coarse tolerance: it stands for 0
        ([-1.02, 1.02], [], 9, []),  # where all were, it stays at that
        ([-1.0], [], 9, []),
    ],
)
def test_between_adds_each_zero_once(fixed, slow, most, expected):
    column = lambda values: np.reshape(np.asarray(values, float), (-1, 1))
    known = KnownPoints(newton_of_sine, column(fixed), column(slow), 1.0, 1e-3)
    more = between(known, most)
    np.testing.assert_allclose(np.sort(more.ravel()), expected, atol=1e-9)


def test_fixed_points_between_others_stand_before_slow_ones():
    f = lambda weights, h, x: h + jnp.sin(jnp.pi * h)
    network = make_network(f, {}, [[-1.0], [1.0], [0.4]], "float64")
    table = {
        "point": network.states[:, 0], "outcome": np.array([FIXED, FIXED, SLOW]), "q": np.zeros(3), "count": np.ones(3, int),
        "origin": np.full(3, "states"), "search_share": np.ones(3) / 3, "constant_input": np.zeros((3, 0)), "n_unique": np.asarray(3),
    }  # fmt: skip
    found = with_missed(table, f, network, np.zeros(0), Options(), 0)
    assert found["outcome"].tolist() == [FIXED] * 3 + [SLOW]
    np.testing.assert_allclose(found["point"][:, 0], [-1, 1, 0, 0.4], atol=1e-9)
    assert (found["count"].tolist(), int(found["n_unique"])) == ([1, 1, 0, 1], 4)


@pytest.mark.parametrize(
    ("x", "known", "expected"),
    [
        ([1, 2, 0], [], [-0.9575040, 0.9575040]),  # the zeros of tanh 2h = h
        ([1, 2, 0], [0.9575040], [-0.9575040]),
        ([-2, 1, 0], [], []),  # a cycle of two steps around 0, where a mode grows
        ([0, 0, 2], [], []),  # overflows in a thousand steps
    ],
)
def test_settled_are_the_stable_points_that_are_new(x, known, expected):
    x, states = np.array(x, float), np.linspace(-1, 1, 8)[:, None]
    newton = newton_of(saturating, {}, x)
    known = KnownPoints(newton, np.reshape(known, (-1, 1)), np.zeros((0, 1)), 1.0, 1e-3)
    found = stable_points(saturating, {}, x, known, states, 1100)
    np.testing.assert_allclose(np.sort(found.ravel()), expected, atol=1e-7)


def saturating(weights, h, x):
    return x[0] * jnp.tanh(x[1] * h) + x[2] * h


def test_table_has_the_stable_point_behind_a_slow_one():
    """All searches end at the minimum of q near 0, which the map passes on its way to 3."""
    found = search("slow, then stable", np.linspace(-1, 0.5, 40)[:, None])
    assert (found.results["outcome"] == SLOW).all()
    assert found.unique["kind"].tolist() == ["fixed", "slow"]
    assert found.unique["origin"].tolist() == ["settled", "states"]
    assert found.unique["count"].tolist() == [0, 40]
    assert repr(found).splitlines()[1].split()[-2:] == ["count", "origin"]
    assert found.unique["n_unique"] == 2
    assert found.unique["stable"][0]
    np.testing.assert_allclose(found.unique["point"][0], [3, 0, 0], rtol=1e-12)
    given = found.inputs, found.network, {}, found.results
    assert reduce(*given, Options(settle=0))["kind"].tolist() == ["slow"]


def test_points_tell_how_coarsely_they_were_searched():
    """F(h) = h - h^3 / 10 has one fixed point, 0, of which a coarse search makes several; Newton's step from h is -h / 3."""
    candidates = np.array([[-1.0], [1.0], [0.5], [-0.3]])
    alone = {"between": 0}
    with warned():
        coarse = search("cubic", candidates, q_tol=5e-11, options=alone).unique
    exact = search("cubic", candidates, q_tol=1e-28, options=alone).unique
    assert (coarse["kind"] == "fixed").all()
    assert len(coarse["error"]) > 1
    assert (coarse["error"] > 1e-3).all()  # unique_tol
    np.testing.assert_allclose(coarse["error"], np.abs(coarse["point"][:, 0]) / 3, rtol=1e-9)
    assert len(exact["error"]) == 1
    assert exact["error"][0] < 1e-3


def test_find_takes_an_input_for_each_candidate():
    """h / 2 + x has the fixed point 2 x. By `lm`, several searches side by side."""
    x = np.array([[0.1], [0.2], [-0.3], [0.4]])
    found = find(lambda h, x: h / 2 + x, np.zeros((4, 1)), x=x, dtype="float64")
    np.testing.assert_allclose(found.results["point"], 2 * x, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_slow_point_of_map_without_fixed_point(dtype):
    found = search("parabola", starts(48, 3, 0.5), dtype=dtype)
    assert (found.results["outcome"] == SLOW).all()
    assert list(found.unique["kind"]) == ["slow"]
    assert np.isnan(found.unique["error"]).all()
    assert found.unique["n_marginal"][0] >= 1  # its drift
    # Newton steps below 1e-5 spreads certify; float32's q is flat to 1e-7 q, h to about 1e-3.
    atol = {"float64": 1e-5, "float32": 2e-3}[dtype]
    np.testing.assert_allclose(found.results["point"], 0, atol=atol)
    assert found.unique["q"][0] == pytest.approx(0.005, rel=1e-5)
    # H = diag(f0 f0'', f1'^2, 1) = diag(0.2, 0.25, 1), and the drift has the eigenvalue 1.
    assert found.unique["curvature"][0] == pytest.approx(0.2, rel=1e-3)
    assert np.abs(found.unique["eigenvalue"][0] - 1).min() < 5e-3
    assert found.unique["n_unstable"][0] == 1


def test_float32_stops_at_rounding():
    """q_tol below what float32 can reach: the search ends at rounding, near the float64 point."""
    single, double = (
        search("contraction", starts(20, 3), q_tol=1e-30, dtype=dtype).results
        for dtype in ("float32", "float64")
    )
    assert single["point"].dtype == np.float32
    assert np.isin(single["outcome"], (FIXED, SLOW)).all()
    np.testing.assert_allclose(single["point"], double["point"], atol=2e-4)


def test_slow_point_is_not_claimed_on_a_slope():
    """F - h = exp(-h) + x: q falls for ever, to 0 or to x^2 / 2. There is nothing to find, and a search leaves the
    candidates' region."""
    x = np.repeat([0, 0.01], 5)[:, None]
    found = search("slope", starts(10, 1), x=x, stray=2.0)
    assert (found.results["outcome"] == DIVERGED).all()
    for name, values in found.unique.items():
        var = kernel.tables.dims[name]
        assert values.ndim == len(var.axes), name
        if var.axes[:1] == ("fixed_point",):
            assert len(values) == 0, name
    assert found.unique["jacobian"].shape == (0, 3, 3)


def test_adam_agrees_with_fixed_iteration():
    """A contraction: iterating F is the reference. That of lm: `test_same_points_from_pytorchs_file_as_from_hdf5`."""
    reference = np.zeros(3)
    for _ in range(200):
        reference = np.tanh(W @ reference + 0.3)
    settings = {"method": "adam", "q_tol": 1e-16, "max_iterations": 20_000}
    found = search("contraction", starts(12, 3), **settings)
    assert (found.results["outcome"] == FIXED).all()
    np.testing.assert_allclose(found.results["point"], np.tile(reference, (12, 1)), atol=1e-6)
    distance = np.linalg.norm(reference - starts(12, 3), axis=1)
    np.testing.assert_allclose(found.results["distance"], distance, atol=1e-6)


def test_maximum_of_q_is_no_slow_point():
    """Of each unit q = 1 / 2 (1 + h^2)^2 is largest at 0, where its gradient is 0."""
    found = search("hill", [[0.0]])
    assert [found.outcomes[k] for k in found.results["outcome"]] == ["limit"]
    assert not len(found.unique["point"])


def test_an_approach_ends_where_rounding_hides_every_gain():
    """Every step that moves h raises q here, and one that was halved below the rounding of h is no gain."""
    h = jnp.ones(3, jnp.float32)

    def rough(at):  # F - h is 1e-4, or 1e-3 elsewhere than at h; its derivative is .01
        away = at - lax.stop_gradient(at)
        return at + 0.01 * away + jnp.where((at == h).all(), 1e-4, 1e-3)

    one, none = jnp.ones((), h.dtype), jnp.zeros((0, 0), h.dtype)
    problem = Problem(rough, none, one, 1e-20 * one, 10_000, one, 9 * one, one, one, one)
    begun = approach.begin(Problems(problem, problem), h).approach
    assert not begun.over
    ended = run_block(partial(approach._tick, problem), 1000, lambda s: ~s.over, begun)
    assert (bool(ended.over), ended.h.tolist()) == (True, [1, 1, 1])
    assert ended.iterations < 50, "it is not the limit of iterations that ends it"


def test_swept_settings_whose_points_stand_in_one_table_are_told(recwarn):
    columns = {
        "item": np.arange(4),
        "candidate": np.arange(4),
        "x": np.eye(4),
        "noise": np.zeros(4),
    }
    _warn_of_pooled(columns)
    assert not recwarn.list
    with warned():
        _warn_of_pooled(columns | {"q_tol": np.repeat([1e-6, 1e-20], 2)})


def test_points_where_a_gru_never_comes_are_told(recwarn):
    """Its state lies between the last one and a tanh."""
    weights, points = drawn("gru", 0, 2, 1, 1), np.array([[0.5, -1.0], [-3.0, 0.0], [0.0, 1.5]])
    _warn_of_reach(make_network("gru", weights, points[None], "float64"), points[:1])
    _warn_of_reach(make_network(step, WEIGHTS, points[None], "float64"), points)
    assert not recwarn.list
    with warned():
        _warn_of_reach(make_network("gru", weights, points[None], "float64"), points)
