"""Searches for fixed points against closed forms and fixed iteration."""

from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest
from searches import DIVERGED, FIXED, SLOW, cube, spiral, starts

from ctd.fixed_points import find, kernel
from ctd.fixed_points.search.missed import Known, between, newton_of, settled
from ctd.fixed_points.search.summary import Options, reduce


def test_linear_map_closed_form():
    """F(h) = A h + B x: h* = (1 - A)^-1 B x, and A's eigenvalues."""
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((6, 6)) / 4, rng.standard_normal((6, 2))
    x = np.array([0.3, -1.0])
    found = find(lambda h, x: jnp.asarray(a) @ h + jnp.asarray(b) @ x, starts(20, 6), x=x)
    assert (found.results["outcome"] == FIXED).all()
    assert len(found.unique["point"]) == 1
    # |F - h| <= 1.4e-10 by the default q_tol; the smallest singular value of 1 - A is above 0.1.
    exact = np.linalg.solve(np.eye(6) - a, b @ x)
    np.testing.assert_allclose(found.results["point"], np.tile(exact, (20, 1)), atol=2e-9)
    np.testing.assert_allclose(found.unique["jacobian"][0], a, atol=1e-14)
    np.testing.assert_allclose(found.unique["input_jacobian"][0], b, atol=1e-14)
    expected = np.linalg.eigvals(a)
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
    centre = np.array([1.0, -2.0])

    def step(h, x):
        away = h - centre
        return centre + x.reshape(2, 2) @ away + 0.1 * away**3

    x = np.repeat([jacobian.ravel() for _, jacobian, *_ in STABILITY], 8, axis=0)
    return find(step, centre + starts(len(x), 2, 0.1), x=x, dt=0.01).unique


@pytest.mark.parametrize(
    ("name", "jacobian", "n_unstable", "angle"), STABILITY, ids=[case[0] for case in STABILITY]
)
def test_stability_types(planar, name, jacobian, n_unstable, angle):
    here = (planar["constant_input"] == jacobian.ravel()).all(axis=1)
    distance = np.linalg.norm(planar["point"] - [1, -2], axis=1)
    row = np.argmin(np.where(here, distance, np.inf))
    np.testing.assert_allclose(planar["point"][row], [1, -2], atol=1e-8)
    assert planar["stable"][row] == (n_unstable == 0)
    assert planar["n_unstable"][row] == n_unstable
    magnitude = np.abs(np.linalg.eigvals(jacobian)).max()
    tau = -1 / np.log(magnitude)
    assert planar["leading"][row] == pytest.approx(magnitude, abs=1e-7)
    assert planar["time_constant"][row, 0] == pytest.approx(tau, rel=1e-5)
    assert planar["time_constant_s"][row, 0] == pytest.approx(0.01 * tau, rel=1e-5)
    assert abs(planar["frequency"][row, 0]) == pytest.approx(angle / (2 * np.pi), abs=1e-6)
    assert abs(planar["frequency_hz"][row, 0]) == pytest.approx(
        angle / (2 * np.pi) / 0.01, abs=1e-4
    )


CORNERS = np.stack(np.meshgrid(*[[-1.0, 1.0]] * 3), axis=-1).reshape(-1, 3)


def test_saddles_are_found_between_memories():
    """From beside the eight memories of three bits, without mix or noise: all 27 points, and where each came from."""
    found = find(lambda h: cube({}, h, None), CORNERS + 1e-3)
    points, unique = found.unique["point"], found.unique
    np.testing.assert_allclose(points, np.round(points), atol=1e-9)
    assert len({tuple(p) for p in np.round(points).astype(int)}) == len(points) == 27
    assert np.bincount(unique["n_unstable"]).tolist() == [8, 12, 6, 1]
    assert unique["origin"].tolist() == ["states"] * 8 + ["between points"] * 19
    assert unique["count"].tolist() == [1] * 8 + [0] * 19
    assert unique["n_unique"] == 27
    assert unique["basin_share"].sum() == pytest.approx(1)
    zeros = (np.round(points) == 0).sum(axis=1)
    np.testing.assert_array_equal(unique["n_unstable"], zeros)
    first, heads, *rows = repr(found).splitlines()
    assert first.startswith("8 candidates: ")
    assert heads.split()[:4] == ["kind", "q", "error", "stability"]
    assert len(rows[:-1]) == 20
    assert "7 more" in rows[-1]


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
    known = Known(newton_of_sine, column(fixed), column(slow), 1.0, 1e-3)
    more = between(newton_of_sine, known, most)
    np.testing.assert_allclose(np.sort(more.ravel()), expected, atol=1e-9)


@pytest.mark.parametrize(
    ("f", "known", "expected"),
    [
        (lambda h: jnp.tanh(2 * h), [], [-0.9575040, 0.9575040]),  # the zeros of tanh 2h = h
        (lambda h: jnp.tanh(2 * h), [0.9575040], [-0.9575040]),
        (lambda h: -2 * jnp.tanh(h), [], []),  # a cycle of two steps around 0, where a mode grows
        (lambda h: 2 * h, [], []),  # overflows in a thousand steps
    ],
)
def test_settled_are_the_stable_points_that_are_new(f, known, expected):
    step, states = lambda weights, h, x: f(h), np.linspace(-1, 1, 8)[:, None]
    newton = partial(newton_of(step, {}), np.zeros(0))
    known = Known(newton, np.reshape(known, (-1, 1)), np.zeros((0, 1)), 1.0, 1e-3)
    found = settled(step, {}, np.zeros(0), newton, known, states, 1100)
    np.testing.assert_allclose(np.sort(found.ravel()), expected, atol=1e-7)


def test_table_has_the_stable_point_behind_a_slow_one():
    """F - h = (0.1 + h^2) (3 - h) / 10: all searches end at the minimum of q near 0, which the map passes on its way to 3."""
    step = lambda weights, h, x: h + (0.1 + h**2) * (3 - h) / 10
    found = find(lambda h: step(None, h, None), np.linspace(-1, 0.5, 40)[:, None])
    assert (found.results["outcome"] == SLOW).all()
    assert found.unique["kind"].tolist() == ["fixed", "slow"]
    assert found.unique["origin"].tolist() == ["settled", "states"]
    assert found.unique["count"].tolist() == [0, 40]
    assert found.unique["n_unique"] == 2
    assert found.unique["stable"][0]
    np.testing.assert_allclose(found.unique["point"][0], 3, rtol=1e-12)
    given = lambda *_: step, found.inputs, found.network, {}, found.results
    assert reduce(*given, Options(settle=0))["kind"].tolist() == ["slow"]


def parabola(h):
    """No fixed point: F - h = (0.1 + h0^2, h1 / 2), q is least at 0, where it is 0.1^2 / 2."""
    return jnp.stack([h[0] + 0.1 + h[0] ** 2, 1.5 * h[1]])


def test_points_tell_how_coarsely_they_were_searched():
    """F(h) = h - h^3 / 10 has one fixed point, 0, of which a coarse search makes several; Newton's step from h is -h / 3."""
    search = lambda **settings: (
        find(
            lambda h: h - h**3 / 10,
            np.array([[-1.0], [1.0], [0.5], [-0.3]]),
            dtype="float64",
            between=0,
            **settings,
        ).unique
    )
    coarse = search(q_tol=5e-11)
    assert (coarse["kind"] == "fixed").all()
    assert len(coarse["error"]) > 1
    assert (coarse["error"] > 1e-3).all()  # unique_tol
    np.testing.assert_allclose(coarse["error"], np.abs(coarse["point"][:, 0]) / 3, rtol=1e-9)
    exact = search(q_tol=1e-28)
    assert len(exact["error"]) == 1
    assert exact["error"][0] < 1e-3


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_slow_point_of_map_without_fixed_point(dtype):
    found = find(parabola, starts(50, 2, 0.5), dtype=dtype)
    assert (found.results["outcome"] == SLOW).all()
    assert list(found.unique["kind"]) == ["slow"]
    assert np.isnan(found.unique["error"]).all()
    assert found.unique["n_marginal"][0] >= 1  # its drift
    # Newton steps below 1e-5 spreads certify; float32's q is flat to 1e-7 q, h to about 1e-3.
    atol = {"float64": 1e-5, "float32": 2e-3}[dtype]
    np.testing.assert_allclose(found.results["point"], 0, atol=atol)
    assert found.unique["q"][0] == pytest.approx(0.005, rel=1e-5)
    # H = diag(f0 f0'', f1'^2) = diag(0.2, 0.25), and the drift has the eigenvalue 1.
    assert found.unique["curvature"][0] == pytest.approx(0.2, rel=1e-3)
    assert np.abs(found.unique["eigenvalue"][0] - 1).min() < 5e-3
    assert found.unique["n_unstable"][0] == 1


def test_slow_point_is_not_claimed_on_a_slope():
    """F - h = exp(-h) + x: q falls for ever, to 0 or to x^2 / 2. There is nothing to find, and a search leaves the
    candidates' region."""
    x = np.repeat([0, 0.01], 5)[:, None]
    found = find(lambda h, x: h + jnp.exp(-h) + x, starts(10, 1), x=x, stray=2.0)
    assert (found.results["outcome"] == DIVERGED).all()
    for name, values in found.unique.items():
        var = kernel.reduced[name]
        assert values.ndim == len(var.axes), name
        assert values.shape[:1] == (0,) * len(var.axes[:1]), name
    assert found.unique["jacobian"].shape == (0, 1, 1)


def test_diverged_start_and_neighbours():
    """A candidate at which F is NaN ends at once and changes nothing for those beside it."""
    h = starts(32, 3, 0.1)
    bad = np.where(np.arange(32)[:, None] % 5 == 3, 2.0, h)
    found = find(lambda h: 0.5 * jnp.sqrt(1 - h) - 0.2, np.concatenate([h, bad]))
    results = {
        name: values.reshape(2, 32, *values.shape[1:]) for name, values in found.results.items()
    }
    lost = (bad == 2).all(axis=1)
    assert (results["outcome"][1, lost] == DIVERGED).all()
    assert (results["outcome"][0] == FIXED).all()
    # Where h is the same twice, the second half of the batch repeats the first to the bit.
    for name, values in results.items():
        np.testing.assert_array_equal(values[1, ~lost], values[0, ~lost], err_msg=name)


def test_adam_agrees_with_fixed_iteration():
    """A contraction: iterating F is the reference. That of lm: `test_every_cell` of the kernel."""
    w = np.random.default_rng(5).standard_normal((8, 8)) * 0.6 / np.sqrt(8)
    reference = np.zeros(8)
    for _ in range(200):
        reference = np.tanh(w @ reference + 0.3)
    step = lambda h: jnp.tanh(jnp.asarray(w) @ h + 0.3)
    found = find(step, starts(12, 8), method="adam", q_tol=1e-16, max_iterations=20_000)
    assert (found.results["outcome"] == FIXED).all()
    np.testing.assert_allclose(found.results["point"], np.tile(reference, (12, 1)), atol=1e-6)
    distance = np.linalg.norm(reference - starts(12, 8), axis=1)
    np.testing.assert_allclose(found.results["distance"], distance, atol=1e-6)


def test_maximum_of_q_is_no_slow_point():
    """q = 1 / 2 (1 + h^2)^2 is largest at 0, where its gradient is 0."""
    found = find(lambda h: h + 1 / (1 + h**2), [[0.0]])
    assert [found.outcomes[k] for k in found.results["outcome"]] == ["limit"]
    assert not len(found.unique["point"])
