"""Fixed points against closed forms, SciPy, finite differences and brute force."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ctd.batch import Layout, precision, run_items
from ctd.cells import get_cell
from ctd.data import write_hdf5, write_weights
from ctd.fixed_points import find, kernel
from ctd.fixed_points.kernel import FixedPoint, make_kernel
from ctd.fixed_points.linear import derivatives, frequencies, modes, time_constants
from ctd.fixed_points.unique import Basins, cover, nearest_distance
from ctd.kernel import inputs_of

FIXED, SLOW, LIMIT, DIVERGED = range(4)
BOTH = pytest.mark.parametrize("method", ["lm", "adam"])


def starts(n_candidates, n, scale=1.0, seed=0):
    return scale * np.random.default_rng(seed).standard_normal((n_candidates, n))


def doubling(weights, h, x):
    """A user's map for the kernel: F(h) = h / 2 + x; the fixed point is 2 x."""
    return h / 2 + x


# --- known answers --------------------------------------------------------------------------------


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


def spiral(radius, angle):
    return radius * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


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


def test_all_points_of_planar_map():
    """F(h) = h - 0.4 (h_i^3 - h_i): nine points, h_i in {-1, 0, 1}; 0 is unstable in each axis."""
    rng = np.random.default_rng(3)
    found = find(lambda h: h - 0.4 * (h**3 - h), rng.uniform(-1.4, 1.4, (300, 2)))
    points = found.unique["point"][found.unique["kind"] == "fixed"]
    grid = np.array([(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1)])
    assert sorted(map(tuple, np.round(points).astype(int))) == sorted(map(tuple, grid))
    np.testing.assert_allclose(points, np.round(points), atol=1e-9)
    zeros = (np.round(points) == 0).sum(axis=1)
    np.testing.assert_array_equal(found.unique["n_unstable"][: len(points)], zeros)
    assert found.unique["basin_share"].sum() == pytest.approx(1)


def parabola(h):
    """No fixed point: F - h = (0.1 + h0^2, h1 / 2), q is least at 0, where it is 0.1^2 / 2."""
    return jnp.stack([h[0] + 0.1 + h[0] ** 2, 1.5 * h[1]])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_slow_point_of_map_without_fixed_point(dtype):
    found = find(parabola, starts(50, 2, 0.5), dtype=dtype)
    assert (found.results["outcome"] == SLOW).all()
    assert list(found.unique["kind"]) == ["slow"]
    # Newton steps below 1e-5 spreads certify; float32's q is flat to 1e-7 q, h to about 1e-3.
    atol = {"float64": 1e-5, "float32": 2e-3}[dtype]
    np.testing.assert_allclose(found.results["point"], 0, atol=atol)
    assert found.unique["q"][0] == pytest.approx(0.005, rel=1e-5)
    # H = diag(f0 f0'', f1'^2) = diag(0.2, 0.25), and the drift has the eigenvalue 1.
    assert found.unique["curvature"][0] == pytest.approx(0.2, rel=1e-3)
    assert np.abs(found.unique["eigenvalue"][0] - 1).min() < 5e-3
    assert found.unique["n_unstable"][0] == 1


def test_slow_point_is_not_claimed_on_a_slope():
    """F - h = exp(-h): q falls for ever, there is nothing to find; only the limit ends it."""
    found = find(lambda h: h + jnp.exp(-h), starts(5, 1), max_iterations=300, stray=1e6)
    assert not np.isin(found.results["outcome"], (FIXED, SLOW)).any()
    assert (found.results["iterations"] <= 300).all()
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


def test_stray_search_has_diverged():
    """F - h = exp(-h) + 0.01: a search down the endless slope leaves the candidates' region."""
    found = find(lambda h: h + jnp.exp(-h) + 0.01, starts(5, 1, 0.1), stray=2.0)
    assert (found.results["outcome"] == DIVERGED).all()


@BOTH
def test_methods_agree_with_fixed_iteration(method):
    """A contraction: iterating F is the reference."""
    w = np.random.default_rng(5).standard_normal((8, 8)) * 0.6 / np.sqrt(8)
    reference = np.zeros(8)
    for _ in range(200):
        reference = np.tanh(w @ reference + 0.3)
    step = lambda h: jnp.tanh(jnp.asarray(w) @ h + 0.3)
    found = find(step, starts(12, 8), method=method, q_tol=1e-16, max_iterations=20_000)
    assert (found.results["outcome"] == FIXED).all()
    np.testing.assert_allclose(found.results["point"], np.tile(reference, (12, 1)), atol=1e-6)
    distance = np.linalg.norm(reference - starts(12, 8), axis=1)
    np.testing.assert_allclose(found.results["distance"], distance, atol=1e-6)


# --- the kernel -----------------------------------------------------------------------------------


LAYOUT = Layout(8, 8)
"""One layout for most tests: they share compiled programs."""


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A file of a small GRU's weights."""
    weights = get_cell("gru").init(jax.random.key(2), 12, 1, 1, recurrent_scale=2.0)
    path = tmp_path_factory.mktemp("network") / "net.h5"
    write_weights(path, weights, "gru")
    return str(path)


def search(params, n, layout=LAYOUT, **columns):
    return run_items(kernel, params, {"candidate": np.arange(n), **columns}, layout=layout)


@pytest.fixture(scope="module")
def searched(network):
    """(inputs, shared, results) of 40 noisy candidates at x = 0.2."""
    params = FixedPoint(weights=network, n_trials=8, x=(0.2,), noise=0.1)
    with precision(params):
        shared = kernel.load(inputs_of(params))
    return inputs_of(params), shared, search(params, 40)


def test_item_does_not_depend_on_neighbours(network, searched):
    """Bit-equal at one microbatch, whatever else is in the batch and however many slots there are."""
    _, _, crowd = searched
    params = FixedPoint(weights=network, n_trials=8, x=(0.2,), noise=0.1)
    alone = search(params, 3)
    wide = search(params, 40, Layout(16, 8))
    for name, values in crowd.items():
        np.testing.assert_array_equal(values[:3], alone[name], err_msg=name)
        np.testing.assert_array_equal(values, wide[name], err_msg=name)


def test_point_is_fixed_in_numpy(searched):
    _, shared, results = searched
    w = shared.weights
    sigmoid = lambda a: 1 / (1 + np.exp(-a))
    for h, q, residual in zip(results["point"], results["q"], results["residual"], strict=True):
        r, u = np.split(sigmoid(w["wRUHX"] @ np.append(h, 0.2) + w["bRU"]), 2)
        c = np.tanh(w["wCHX"] @ np.append(r * h, 0.2) + w["bC"] + 0.5)
        speed = np.linalg.norm(u * h + (1 - u) * c - h)
        assert speed == pytest.approx(residual, abs=1e-14)
        assert 0.5 * speed**2 == pytest.approx(q, abs=1e-24)


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["vanilla", "gru", "gru_torch", "lstm", "leaky"])
def test_every_cell(tmp_path, cell):
    """Small random networks are contractions: one stable point, h = F(h) by iteration."""
    weights = get_cell(cell).init(jax.random.key(0), 7, 2, 1, recurrent_scale=0.4)
    path = tmp_path / "net.h5"
    write_weights(path, weights, cell)
    params = FixedPoint(
        cell=cell,
        weights=str(path),
        task={"name": "flipflop", "n_bits": 2, "n_steps": 5},
        n_trials=4,
    )
    results = search(params, 20)
    assert (results["outcome"] == FIXED).all()
    with precision(params):
        shared = kernel.load(inputs_of(params))
        step = jax.jit(lambda h: get_cell(cell).step(shared.weights, h, jnp.zeros(2)))
        h = jnp.asarray(shared.states[0, 0])
        for _ in range(2000):
            h = step(h)
        table = kernel.reduce(inputs_of(params), shared, {}, results, kernel.Options())
    np.testing.assert_allclose(results["point"], np.tile(h, (20, 1)), atol=1e-8)
    assert list(table["stable"]) == [True]
    assert table["output"].shape == (1, 1)


def test_inputs_are_reduced_apart(network):
    """Each distinct x has its own points, in the order of first appearance."""
    params = FixedPoint(weights=network, n_trials=8)
    x = np.where(np.arange(30) % 3 == 0, 0.5, -0.5)[:, None]
    results = search(params, 30, x=x)
    with precision(params):
        shared = kernel.load(inputs_of(params))
        table = kernel.reduce(inputs_of(params), shared, {}, results, kernel.Options())
    xs = table["constant_input"][:, 0]
    assert xs[0] == 0.5
    assert set(xs) == {0.5, -0.5}
    assert (np.diff(xs) <= 0).all()
    for value in (0.5, -0.5):
        assert table["basin_share"][xs == value].sum() == pytest.approx(1)
    assert table["count"].sum() == 30


def test_starts_wrap_mix_and_vary(network):
    params = FixedPoint(weights=network, n_trials=8, x=(0.0,), max_iterations=1, q_tol=1e3)
    with precision(params):
        states = kernel.load(inputs_of(params)).states.reshape(-1, 12)
    k = len(states)
    results = search(params, 2 * k)
    # With q_tol = 1000 a search ends where it starts.
    np.testing.assert_array_equal(results["point"], np.concatenate([states, states]))
    noisy = search(params.model_copy(update={"noise": 0.1}), 2 * k)["point"] - results["point"]
    assert np.std(noisy) == pytest.approx(0.1, rel=0.1)
    assert not (noisy[:k] == noisy[k:]).any()
    mixed = search(params.model_copy(update={"mix": 1.0}), 400)["point"]
    own = np.concatenate([states, states])
    offsets = np.linalg.norm(mixed - own, axis=1)
    assert (offsets > 0).mean() > 0.9
    # Every start lies on the segment to some state, and a good half of them halfway.
    towards = states[None] - own[:, None]
    squares = np.maximum(np.sum(towards**2, axis=-1), 1e-300)
    share = np.einsum("isn,in->is", towards, mixed - own) / squares
    gap = np.linalg.norm(share[..., None] * towards - (mixed - own)[:, None], axis=-1)
    best = gap.argmin(axis=1)
    assert gap.min(axis=1).max() < 1e-7
    half = np.abs(share[np.arange(400), best] - 0.5) < 1e-7
    assert 0.4 < half.mean() < 0.6


def test_candidates_from_file(network, tmp_path):
    states = starts(200, 12, 0.3).reshape(8, 25, 12)
    write_hdf5(tmp_path / "states.h5", {"h": states})
    params = FixedPoint(
        weights=network, candidates=str(tmp_path / "states.h5"), dataset="h", q_tol=1e3, x=(0.0,)
    )
    np.testing.assert_array_equal(search(params, 200)["point"], states.reshape(-1, 12))


def test_users_map_by_dotted_path(tmp_path):
    write_hdf5(tmp_path / "states.h5", {"hiddens": starts(5, 2)})
    params = FixedPoint(
        cell=f"{__name__}.doubling", candidates=str(tmp_path / "states.h5"), x=(0.5, -1.5)
    )
    results = search(params, 5)
    np.testing.assert_allclose(results["point"], np.tile([1.0, -3.0], (5, 1)), atol=1e-9)


@pytest.mark.slow
def test_float32_stops_at_rounding(network):
    """q_tol below what float32 can reach: the search ends at rounding, near the float64 point."""
    params = FixedPoint(weights=network, n_trials=2, q_tol=1e-30, dtype="float32", x=(0.0,))
    single = search(params, 20)
    double = search(params.model_copy(update={"dtype": "float64"}), 20)
    assert single["point"].dtype == np.float32
    assert np.isin(single["outcome"], (FIXED, SLOW)).all()
    np.testing.assert_allclose(single["point"], double["point"], atol=2e-4)


@BOTH
def test_max_iterations_is_exact(network, method):
    params = FixedPoint(
        weights=network, n_trials=8, method=method, max_iterations=7, q_tol=1e-30, x=(0.0,)
    )
    results = search(params, 10)
    assert (results["outcome"] == LIMIT).all()
    assert (results["iterations"] == 7).all()


BAD = [
    ({"weights": None}, "weights: cell gru needs a file"),
    ({"task": "flipflop"}, "task: flipflop has 3 inputs, but the network in .* takes 1"),
    ({"candidates": "STATES", "dataset": "nope"}, "no such dataset; found nan, small, states"),
    ({"candidates": "STATES", "dataset": "nan"}, "nan: 1 of 24 entries are NaN"),
    ({"candidates": "STATES", "dataset": "small"}, r"\(2, 3\), but the state .* 12 entries"),
    ({"cell": "lstm"}, "lacks .*weight_hh"),
    ({"x": (1.0, 2.0)}, "x: 2 numbers given, but the network has 1 input"),
    ({"cell": f"{__name__}.doubling"}, "give a file of candidate states"),
]


@pytest.mark.parametrize(("fields", "said"), BAD)
def test_bad_input_is_refused(network, tmp_path, fields, said):
    states = {"states": starts(2, 12), "small": starts(2, 3), "nan": starts(2, 12)}
    states["nan"][1, 2] = np.nan
    write_hdf5(tmp_path / "states.h5", states)
    if fields.get("candidates"):
        fields = {**fields, "candidates": str(tmp_path / "states.h5")}
    with pytest.raises(ValueError, match=said):
        run_items(kernel, FixedPoint(**{"weights": network, "n_trials": 2, **fields}))


BAD_FIELDS = [
    ({"q_tol": 0}, "q_tol"),
    ({"q_tol": -1e-3}, "q_tol"),
    ({"cell": "gruu"}, "did you mean 'gru'"),
    ({"cell": "no_such_module.f"}, "no module no_such_module"),
    ({"cell": "numpy.no_such_function"}, "has no no_such_function"),
    ({"method": "newton"}, "'lm' or 'adam'"),
    ({"mix": 1.5}, "mix"),
    ({"tolerance": 1}, "tolerance"),
]


@pytest.mark.parametrize(("fields", "said"), BAD_FIELDS)
def test_bad_fields_are_refused(fields, said):
    with pytest.raises(ValueError, match=said):
        FixedPoint(**fields)


BAD_FIND = [
    (np.zeros(3), {}, r"candidates: shape \(3,\)"),
    (np.zeros((0, 3)), {}, "at least one state"),
    (np.full((2, 3), np.nan), {}, "candidates: 6 of 6 entries are NaN"),
    (np.zeros((2, 3)), {"x": np.zeros((3, 1))}, r"x: shape \(3, 1\)"),
]


@pytest.mark.parametrize(("candidates", "more", "said"), BAD_FIND)
def test_find_refuses(candidates, more, said):
    with pytest.raises(ValueError, match=said):
        find(lambda h, x=None: h, candidates, **more)


def test_figure_is_drawn(searched, tmp_path):
    inputs, shared, results = searched
    for n in (len(results["q"]), 0):
        some = {name: values[:n] for name, values in results.items()}
        with precision(inputs):
            table = kernel.reduce(inputs, shared, {}, some, kernel.Options())
            figure = kernel.figure(inputs, shared, {}, some, table)
        figure.savefig(tmp_path / "points.png")
        space, plane = figure.axes[:2]
        assert space.get_title().startswith(f"{len(table['q'])} points")
        assert f"at {len(table['q'])} points" in plane.get_title()


# --- derivatives and modes ------------------------------------------------------------------------


def test_jacobians_finite_differences():
    weights = get_cell("gru").init(jax.random.key(0), 5, 2, 1)
    with precision(FixedPoint()):
        w = {name: jnp.asarray(np.asarray(v), jnp.float64) for name, v in weights.items()}
        step = lambda h, x: get_cell("gru").step(w, h, x)
        h, x = starts(3, 5), starts(3, 2)
        d = derivatives(step, h, x)
        f = lambda h, x: np.asarray(step(jnp.asarray(h), jnp.asarray(x)))
        e = 1e-6
        for k in range(3):
            dh = [(f(h[k] + e * u, x[k]) - f(h[k] - e * u, x[k])) / (2 * e) for u in np.eye(5)]
            dx = [(f(h[k], x[k] + e * u) - f(h[k], x[k] - e * u)) / (2 * e) for u in np.eye(2)]
            # Central differences of step 1e-6: 1e-12 from curvature, 1e-10 from rounding.
            np.testing.assert_allclose(d.dh[k], np.transpose(dh), atol=1e-8)
            np.testing.assert_allclose(d.dx[k], np.transpose(dx), atol=1e-8)

            def gradient(h, k=k):
                jac = np.asarray(jax.jacfwd(step)(jnp.asarray(h), jnp.asarray(x[k])))
                return (jac - np.eye(5)).T @ (f(h, x[k]) - h)

            hessian = [
                (gradient(h[k] + e * u) - gradient(h[k] - e * u)) / (2 * e) for u in np.eye(5)
            ]
            least = np.linalg.eigvalsh((np.array(hessian) + np.transpose(hessian)) / 2)[0]
            assert d.curvature[k] == pytest.approx(least, abs=1e-7)


def test_modes_against_scipy():
    matrices = starts(4, 81).reshape(4, 9, 9)
    m = modes(matrices)
    for k, matrix in enumerate(matrices):
        values, left, right = scipy.linalg.eig(matrix, left=True)
        assert (np.diff(np.abs(m.eigenvalues[k])) <= 1e-12).all()
        for j, value in enumerate(m.eigenvalues[k]):
            i = np.argmin(np.abs(values - value))
            assert abs(values[i] - value) < 1e-12
            # Eigenvectors agree up to a factor: SciPy's are of unit length.
            assert abs(np.vdot(right[:, i], m.right[k][:, j])) == pytest.approx(1, abs=1e-10)
            cosine = np.vdot(left[:, i], m.left[k][:, j]) / np.linalg.norm(m.left[k][:, j])
            assert abs(cosine) == pytest.approx(1, abs=1e-10)
        np.testing.assert_allclose(m.left[k].conj().T @ m.right[k], np.eye(9), atol=1e-11)
        rebuilt = (m.right[k] * m.eigenvalues[k]) @ m.left[k].conj().T
        np.testing.assert_allclose(rebuilt, matrix, atol=1e-11)


def test_modes_conjugate_pairs_positive_angle_first():
    values = modes(np.array([scipy.linalg.block_diag(0.3, spiral(0.9, 0.4), -0.95)])).eigenvalues[0]
    np.testing.assert_allclose(np.abs(values), [0.95, 0.9, 0.9, 0.3], atol=1e-12)
    assert values[1].imag > 0 > values[2].imag


def test_time_constants_and_frequencies():
    values = np.array([np.exp(-0.1), -np.exp(-0.5), 1.0, np.exp(0.2 + 0.3j), 0.0])
    np.testing.assert_allclose(time_constants(values), [10, 2, np.inf, -5, 0])
    np.testing.assert_allclose(frequencies(values), [0, 0.5, 0, 0.3 / (2 * np.pi), 0])


# --- uniqueness -----------------------------------------------------------------------------------


def cover_by_brute_force(points, tol):
    leader = np.full(len(points), -1)
    for i in range(len(points)):
        if leader[i] < 0:
            near = np.linalg.norm(points - points[i], axis=1) <= tol
            leader[near & (leader < 0)] = i
    return leader


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.int8, st.tuples(st.integers(0, 40), st.integers(1, 6)), elements=st.integers(-3, 3)),
    st.sampled_from([0.1, 1.01, 1.5, 2.3]),
)
def test_cover_against_brute_force(grid, tol):
    points = grid + 1e-3 * np.sin(np.arange(grid.size)).reshape(grid.shape)
    np.testing.assert_array_equal(cover(points, tol), cover_by_brute_force(points, tol))


def test_cover_does_not_chain_along_a_line():
    """A hundred points a tenth of tol apart: leaders stand every tol, not one for all."""
    line = np.linspace(0, 10, 100)[:, None] * np.ones(5) / np.sqrt(5)
    assert len(np.unique(cover(line, 1.0))) == 10


def test_cover_many_converged_points():
    """20,000 rows at three points: 10^8 close pairs, which must not be listed."""
    rng = np.random.default_rng(0)
    which = rng.integers(3, size=20_000)
    points = rng.standard_normal((3, 50))[which] + 1e-9 * rng.standard_normal((20_000, 50))
    leaders, counts = np.unique(cover(points, 1e-3), return_counts=True)
    assert len(leaders) == 3
    np.testing.assert_array_equal(np.sort(counts), np.sort(np.bincount(which)))


def found_in_blocks(points, rank, q, tol, size):
    basins = Basins(tol, points.shape[1])
    for start in range(0, len(points), size):
        some = slice(start, start + size)
        basins.add(points[some], rank[some], q[some])
    return basins.points()


@pytest.mark.parametrize("size", [7, 100, 4000])
def test_basins_of_settled_ends_do_not_depend_on_blocks(size):
    """Clusters far narrower than tol and farther apart: points, sizes, best members as computed at once."""
    rng = np.random.default_rng(1)
    centres = rng.standard_normal((9, 20))
    which = rng.integers(9, size=4000)
    points = centres[which] + 1e-6 * rng.standard_normal((4000, 20))
    q, rank = rng.random(4000), (rng.random(4000) < 0.3).astype(int) + (which > 6)
    found = found_in_blocks(points, rank, q, 1e-2, size)
    best = [min(np.flatnonzero(which == k), key=lambda r: (rank[r], q[r])) for k in range(9)]
    counts = np.bincount(which)
    order = np.lexsort((q[best], -counts, rank[best]))
    row = np.array(best)[order]
    for got, expected in zip(found, (points[row], rank[row], q[row], counts[order]), strict=True):
        np.testing.assert_array_equal(got, expected)


@settings(max_examples=40, deadline=None)
@given(
    arrays(np.int8, st.tuples(st.integers(1, 60), st.integers(1, 5)), elements=st.integers(-4, 4)),
    st.sampled_from([0.1, 1.01, 2.3]),
    st.integers(1, 60),
)
def test_basins_stand_apart_and_hold_their_members(grid, tol, size):
    """Whatever the points: all are counted, no two results are within tol, each row is within 1.5 tol."""
    points = grid + 1e-3 * np.sin(np.arange(grid.size)).reshape(grid.shape)
    q = np.abs(np.cos(np.arange(len(points))))
    found, rank, best_q, count = found_in_blocks(points, np.zeros(len(points), int), q, tol, size)
    apart = np.linalg.norm(found[:, None] - found, axis=-1)
    assert (apart[~np.eye(len(found), dtype=bool)] > tol).all()
    reach = np.linalg.norm(points[:, None] - found, axis=-1).min(axis=1)
    assert (reach <= 1.5 * tol * (1 + 1e-9)).all()
    assert count.sum() == len(points)
    assert best_q.min() == q.min()
    assert not rank.any()


def test_basins_behind_each_other_in_the_projection():
    """Twenty points that differ only beyond the first three principal components are told apart."""
    rng = np.random.default_rng(2)
    wide = 10 * rng.standard_normal((400, 3))
    points = np.zeros((400, 24))
    points[:, :3] = np.repeat(wide[:20], 20, axis=0)
    points[np.arange(400), 3 + np.arange(400) % 20] = 0.1
    found, *_, count = found_in_blocks(points, np.zeros(400, int), np.arange(400.0), 1e-2, 50)
    assert len(found) == 400
    again, *_, count = found_in_blocks(
        np.concatenate([points] * 3), np.zeros(1200, int), np.arange(1200.0), 1e-2, 50
    )
    assert len(again) == 400
    assert (count == 3).all()


def test_nearest_distance_in_blocks():
    points, states = starts(31, 4), starts(57, 4, seed=1)
    expected = np.linalg.norm(points[:, None] - states, axis=-1).min(axis=1)
    np.testing.assert_allclose(nearest_distance(points, states, block=200), expected, rtol=1e-12)


def test_reduce_keeps_the_largest_basins_and_flags_outliers():
    """Points at -1, 1 and 0 of F(h) = h + 0.1 sin(pi h), seen from candidates around 0."""
    step = lambda h: h + 0.1 * jnp.sin(jnp.pi * h)
    centre = np.repeat([-0.9, 0.9, 0.1], [50, 30, 5])[:, None]
    found = find(step, centre, max_points=2, outlier_tol=0.01)
    assert found.unique["n_unique"] == 3
    np.testing.assert_allclose(found.unique["point"][:, 0], [-1, 1], atol=1e-9)
    np.testing.assert_array_equal(found.unique["count"], [50, 30])
    np.testing.assert_allclose(found.unique["nearest_state"], 0.1, atol=1e-9)
    # 0.1 is more than a hundredth of the spread of the candidates, and less than twice it.
    assert found.unique["outlier"].all()
    with precision(found.inputs):
        args = (found.inputs, found.network, {}, found.results)
        assert not kernel_of_find(step).reduce(*args, kernel.Options())["outlier"].any()


def kernel_of_find(step):
    return make_kernel("find", lambda _: lambda w, h, x: step(h), lambda _: None, lambda *_: None)
