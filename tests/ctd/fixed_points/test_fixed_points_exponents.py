"""Lyapunov exponents against closed forms and published values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from messages import refused, warned
from places import EXAMPLES

from ctd.fixed_points import lyapunov
from ctd.fixed_points.exponents import Trajectory, dimension, kernel
from ctd.kernel import inputs_of
from ctd.weights import write_named


def lorenz(h):
    x, y, z = h
    return jnp.array([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z])


def halves(h):
    """Half of h, but from 2 on its square."""
    return jnp.where(h < 2, h / 2, h**2)


def test_exponents_of_lorenz():
    """Their sum is the divergence, -(10 + 1 + 8/3), to the error of the method (1e-4 at this dt); .9056, 0 and the dimension 2.062 are
    those of Sprott 2003, within four standard errors. Over seeds the largest of 400 units spreads by .0087 (`mean_growth`'s test)."""
    found = lyapunov(
        lorenz, [1.0, 1, 20], time="continuous", dt=0.01, transient=2000, n_steps=40_000
    ).results
    assert found["sum"][0] == pytest.approx(-13 - 2 / 3, abs=5e-4)
    largest, zero, _ = found["exponent"][0]
    assert largest == pytest.approx(0.9056, abs=4 * found["largest_error"][0])
    assert 0.0087 / 2 < found["largest_error"][0] < 2 * 0.0087
    assert found["largest_error"][0] == found["exponent_error"][0, 0]
    assert zero == pytest.approx(0, abs=0.01)
    assert found["dimension"][0] == pytest.approx(2.062, abs=0.005)


def test_exponents_of_linear_and_logistic_maps():
    """ln |eigenvalue| of a linear map, exactly but for a transient of the frame; ln 2 of 4 h (1 - h)."""
    values = np.array([1.0, -0.8, 0.5])
    q = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]
    j = q @ np.diag(values) @ q.T

    def both(h):
        return jnp.append(jnp.asarray(j) @ h[:3], 4 * h[3] * (1 - h[3]))

    found = lyapunov(both, [0.0, 0, 0, 0.3], transient=1000, n_steps=20_000).results
    expected = [np.log(2), 0, np.log(0.8), np.log(0.5)]
    np.testing.assert_allclose(found["exponent"][0], expected, atol=5e-3)
    np.testing.assert_allclose(found["exponent"][0, 1:], expected[1:], atol=1e-9)
    # 3 + (ln 2 + 0 + ln .8) / |ln .5|: the sum of the first three is positive, that of all is not.
    assert found["dimension"][0] == pytest.approx(3 + np.log(1.6) / np.log(2), abs=0.02)


def test_exponents_that_rounding_hides_are_not_told():
    """All of a chaotic network add up to the mean of ln |det J|; the smallest lie 5 below the largest, e^-50 in ten steps."""
    w = 2 * np.random.default_rng(0).standard_normal((40, 40)) / np.sqrt(40)
    f = lambda h: jnp.tanh(jnp.asarray(w) @ h)
    settings = {"transient": 500, "n_steps": 6000, "n_exponents": 40}
    with warned():  # fmt: skip
        coarse = lyapunov(f, [0.1] * 40, every=10, **settings).results
    fine = lyapunov(f, [0.1] * 40, every=1, **settings).results
    h, logs = fine["end"][0], []
    for _ in range(20_000):  # dF/dh is diag(1 - F^2) w
        h = np.tanh(w @ h)
        logs.append(np.log(1 - h**2).sum() + np.linalg.slogdet(w)[1])
    assert fine["sum"][0] == pytest.approx(np.mean(logs), abs=1), "means of 6,000 and 20,000 steps"
    lost = np.isnan(coarse["exponent"][0])
    assert 0 < lost.sum() < 10
    assert np.isnan(coarse["sum"][0])
    assert not np.isnan(fine["exponent"]).any()
    np.testing.assert_allclose(coarse["exponent"][0][~lost], fine["exponent"][0][~lost], atol=0.05)


@pytest.mark.parametrize(
    ("exponents", "n", "expected"),
    [
        ([-1.0, -2.0], 2, 0),  # a point
        ([0.0, -1.0], 2, 1),  # a cycle
        ([1.0, -2.0], 5, 1.5),
        ([1.0, 0.5], 5, np.nan),  # the others are not known
        ([1.0, 0.5], 2, 2),
        ([np.nan, np.nan], 2, np.nan),
    ],
)
def test_dimension_kaplan_yorke(exponents, n, expected):
    found = jax.jit(dimension, static_argnums=1)(np.array(exponents), n)
    np.testing.assert_allclose(float(found), expected)


@pytest.mark.parametrize(
    ("settings", "known"),
    [
        ({"transient": 1000, "n_steps": 4000, "every": 100}, False),  # an advance is 5,000 steps
        ({"transient": 1000, "n_steps": 15_000, "every": 100}, False),
        ({"transient": 1000, "n_steps": 15_001, "every": 100}, True),
        ({"transient": 5000, "n_steps": 20_000, "every": 100}, True),
    ],
)
def test_exponents_of_few_advances(settings, known):
    """Begun after the transient, as many advances count as `n_steps` needs; fewer than four have no standard error."""
    found = lyapunov(halves, [[1.0]], **settings).results
    np.testing.assert_allclose(found["exponent"], [[np.log(0.5)]])
    assert np.isfinite(found["exponent_error"]).all() == known


def test_dimension_of_cycles_of_a_flow_is_one():
    """Van der Pol's, whose exponent along the cycle is estimated above 0 from some starts and below it from others."""
    flow = lambda h: jnp.array([h[1], (1 - h[0] ** 2) * h[1] - h[0]])
    starts = np.random.default_rng(0).uniform(-1, 1, (6, 2))
    settings = {"time": "continuous", "dt": 0.02, "transient": 2000, "n_steps": 10_000}
    computed = lyapunov(flow, starts, **settings)
    found = computed.results
    assert str(computed).splitlines()[0] == "6 done"
    assert len(computed.figure().axes[0].lines) == 1 + 6
    assert found["dimension"].tolist() == [1] * 6
    assert (found["exponent"][:, 1] < -0.9).all()


def test_a_trajectory_that_leaves_all_bounds_has_diverged():
    found = lyapunov(halves, [[2.0]], transient=0, n_steps=500, every=100).results
    assert found["outcome"].tolist() == [1]


def test_pictures_name_the_spectra_by_their_inputs():
    inputs = inputs_of(Trajectory(n_exponents=2))
    columns = {"item": np.array([4, 5, 6]), "x": np.array([[0.0, 0], [0.5, 0], [0, 0]])}
    results = {"exponent": np.array([[1.0, 0], [2, 0], [3, 0]])}
    (plot,) = kernel.display.plots(inputs, None, columns, results, {})
    zero, rest, driven = plot.layers
    assert (zero.name, rest.name, driven.name) == ("0", "x = (0, 0)", "x = (0.5, 0)")
    assert (rest.text, rest.y[:, 0].tolist(), driven.text) == (
        ["item 4", "item 6"],
        [1, 3],
        ["item 5"],
    )
    (plot,) = kernel.display.plots(inputs, None, columns | {"x": np.zeros((3, 2))}, results, {})
    assert plot.layers[1].item.tolist() == [4, 5, 6]  # the report colours them by what was swept


def test_more_exponents_than_a_network_has_are_told():
    given = {"weights": str(EXAMPLES / "decision_gru.h5")}
    with warned():
        kernel.load(inputs_of(Trajectory(**given, n_exponents=200)))
    kernel.load(inputs_of(Trajectory(**given, n_exponents=100)))


def test_a_reservoir_that_starts_before_its_washout_is_told(tmp_path):
    path = str(tmp_path / "reservoir.h5")
    shapes = {"wI": (3, 0), "wR": (3, 3), "bR": (3,), "alpha": (), "h0": (3,)}
    write_named(
        path, {k: np.ones(v) for k, v in shapes.items()}, {"cell": "leaky", "kernel": "esn"}
    )
    with warned():
        kernel.load(inputs_of(Trajectory(weights=path)))
    kernel.load(inputs_of(Trajectory(weights=path, states=path, dataset="h0")))


def test_bad_states_are_told_with_their_file(tmp_path):
    path = tmp_path / "states.npz"
    np.savez(path, hiddens=np.full((2, 100), np.nan))
    given = {"weights": str(EXAMPLES / "decision_gru.h5"), "states": str(path)}
    with refused(ValueError):
        kernel.load(inputs_of(Trajectory(**given)))
