"""Distances of two networks against SciPy and the published formulas."""

from functools import cache

import h5py
import jax
import numpy as np
import pytest
from messages import refused
from places import DATA
from scipy import linalg, optimize
from scipy.spatial import distance as scipy_distance
from scipy.spatial import procrustes
from scipy.spatial.transform import Rotation

from ctd.batch import precision, run_items
from ctd.kernel import inputs_of, static_of
from ctd.similarity.dynamics import alignment, linear_dynamics
from ctd.similarity.features import features_of
from ctd.similarity.kernel import kernel
from ctd.similarity.pairs import distance
from ctd.similarity.params import OF_POINTS, Comparison
from ctd.similarity.summary import joined

pytestmark = pytest.mark.usefixtures("float64")

RNG = np.random.default_rng(0)
Q = np.linalg.qr(RNG.normal(size=(6, 6)))[0]


def walk(n, seed):
    """(trial, time, n) states of a stable linear network that noise drives, and a nonlinearity."""
    rng = np.random.default_rng(seed)
    a, h = 0.95 * linalg.expm(0.3 * (m := rng.normal(size=(n, n))) - 0.3 * m.T), np.zeros((4, n))
    steps = []
    for _ in range(30):
        h = np.tanh(h @ a.T + 0.3 * rng.normal(size=h.shape))
        steps.append(h)
    return np.stack(steps, axis=1)


X, Y = walk(6, 1), walk(4, 2)
FLAT = [states.reshape(-1, states.shape[-1]) for states in (X, Y)]


@cache
def compiled(static):
    return jax.jit(lambda a, b, sizes: distance(static, a, b, sizes, jax.random.key(0)))


def between(method, *given, **settings):
    params = Comparison(method=method, **settings)
    shown = given if method in OF_POINTS else [(x, None) for x in given]
    features = features_of(inputs_of(params), "ab", shown)
    return float(compiled(static_of(params))(*features.values, features.size))


def centred(x):
    return x - x.mean(axis=0)


def cka(k, m):
    """HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)), HSIC(K, L) = tr(K H L H) / (n - 1)^2 (Kornblith et al. 2019)."""
    h = np.eye(len(k)) - 1 / len(k)
    hsic = lambda k, m: np.trace(k @ h @ m @ h)
    return hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))


def gaussian(x):
    apart = scipy_distance.squareform(scipy_distance.pdist(x))
    return np.exp(-(apart**2) / (2 * (0.8 * np.median(apart[np.triu_indices(len(x), 1)])) ** 2))


def main_axes(x, variance):
    values, vectors = np.linalg.eigh(np.cov(x.T))
    k = int(np.sum(np.cumsum(values[::-1]) / values.sum() < variance)) + 1
    return centred(x) @ vectors[:, ::-1][:, :k]


def correlations(x, y):
    return np.cos(linalg.subspace_angles(x, y)).mean()


EXPECTED = {
    # SciPy's disparity is 1 - cos^2; it takes equal widths.
    "procrustes": lambda x, y: np.arccos(
        np.sqrt(1 - procrustes(x, np.pad(y, ((0, 0), (0, 2))))[2])
    ),
    "cka": lambda x, y: np.arccos(cka(x @ x.T, y @ y.T)),
    "rbf_cka": lambda x, y: np.arccos(cka(gaussian(x), gaussian(y))),
    "cca": lambda x, y: 1 - correlations(centred(x), centred(y)),
    "svcca": lambda x, y: 1 - correlations(main_axes(x, 0.9), main_axes(y, 0.9)),
}


@pytest.mark.parametrize("method", EXPECTED)
def test_distance_follows_the_formula(method):
    """And does not see a rotation, a scale or an offset of either network, nor which one is first."""
    found = between(method, X, Y, variance=0.9)
    assert found > 0.05
    assert found == pytest.approx(EXPECTED[method](*FLAT), abs=1e-9)
    assert between(method, Y, X, variance=0.9) == pytest.approx(found, abs=1e-9)
    assert between(method, 3 * X @ Q + 1, Y, variance=0.9) == pytest.approx(found, abs=1e-9)
    # arccos(1 - eps) is sqrt(2 eps): a cosine known to 1e-15 gives an angle known to 5e-8.
    assert between(method, X, 3 * X @ Q + 1, variance=0.9) == pytest.approx(0, abs=3e-7)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_cca_leaves_out_the_rounding_of_states(dtype):
    """Rank 3 in 50 units, and a rotation of it: beyond, there is rounding alone, of float32 also once it is in float64."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 100, 3)) @ rng.normal(size=(3, 50))
    turned = x @ np.linalg.qr(rng.normal(size=(50, 50)))[0]
    shown = [states.astype(dtype).astype(float) for states in (x, turned)]
    assert between("cca", *shown) == pytest.approx(0, abs=1e-6)


def test_dsa_sees_no_rotation():
    assert between("dsa", X, X @ Q, rank=5) == pytest.approx(0, abs=3e-7)
    assert between("dsa", X, 2 * X @ Q, rank=5) < 0.1 * between("dsa", X, walk(6, 3), rank=5)


def dynamics_by_svd(states, n_delays, rank):
    """A of the first right singular vectors of the Hankel matrix (Ostrow et al. 2023, eq. 2 to 4)."""
    trials, steps, n = states.shape
    rows = steps - n_delays + 1
    h = np.zeros((trials, rows, n_delays * n))
    for trial in range(trials):
        for t in range(rows):
            h[trial, t] = states[trial, t : t + n_delays][::-1].ravel()
    u, _, _ = np.linalg.svd(h.reshape(trials * rows, -1), full_matrices=False)
    v = u[:, :rank].reshape(trials, rows, rank)
    before, after = v[:, :-1].reshape(-1, rank), v[:, 1:].reshape(-1, rank)
    a = (np.linalg.inv(before.T @ before) @ before.T @ after).T
    return a / np.linalg.norm(a)


def best_cosine(a, b):
    """max <A, C B C'> over both halves of O(3), by BFGS from many rotations."""
    rotation = lambda p, flip: Rotation.from_rotvec(p).as_matrix() @ np.diag([flip, 1, 1])
    loss = lambda p, flip: -np.sum(a * ((c := rotation(p, flip)) @ b @ c.T))
    rng = np.random.default_rng(0)
    return max(
        -optimize.minimize(loss, 2 * rng.normal(size=3), flip).fun
        for flip in (-1, 1)
        for _ in range(3)
    )


def test_dsa_is_the_best_alignment_of_the_linear_dynamics():
    a, b = (dynamics_by_svd(states, 3, 3) for states in (X, Y))
    expected = np.arccos(best_cosine(a, b))
    assert 0.1 < expected < 1.5
    # BFGS stops at gradients of 1e-5, and near the maximum the cosine errs by their square.
    assert between("dsa", X, Y, rank=3, n_delays=3) == pytest.approx(expected, abs=1e-6)
    # The signs of singular vectors are free: what both fits have in common are norms and eigenvalues.
    fitted = linear_dynamics(list(X), 3, 1, 3)
    ours = np.linalg.eigvals(fitted / np.linalg.norm(fitted))
    np.testing.assert_allclose(np.sort_complex(ours), np.sort_complex(np.linalg.eigvals(a)), atol=1e-9)  # fmt: skip


def test_distance_of_a_pair_does_not_depend_on_the_items_number():
    """The rotations that `dsa` starts from are drawn by the pair."""
    rng = np.random.default_rng(0)
    states = np.cumsum(rng.normal(size=(3, 4, 30, 5)), axis=2)
    inputs = inputs_of(params := Comparison(method="dsa", n_delays=2, rank=4))
    with precision(inputs):
        features = features_of(inputs, "abc", [(x, None) for x in states])
    rows = np.arange(3)
    one, two = (
        joined(order, run_items(kernel, params, {"matrix_row": order}, shared=features), 3)
        for order in (rows, rows[::-1])
    )
    np.testing.assert_array_equal(one, two)


def test_dsa_agrees_with_its_authors_program():
    """Three networks of dsa-metric 2.0.2, see tests/data/make_dsa_metric.py."""
    with h5py.File(DATA / "dsa_metric.h5") as file:
        settings = {name: int(value) for name, value in file.attrs.items()}
        x, y, z = (file[f"states{k}"][...] for k in range(3))
        expected = file["distances"][...]
    # Adam in float32 ends within 1e-5 of the maximum.
    found = [between("dsa", *pair, **settings) for pair in ((x, y), (x, z), (y, z))]
    np.testing.assert_allclose(found, expected[np.triu_indices(3, 1)], atol=3e-5)


highest = jax.jit(alignment)
"""One program for the tests of rank 9 in float64."""


@pytest.mark.usefixtures("float64")
def test_alignment_of_rotations():
    """Modes on the unit circle come in pairs, of equal eigenvalues of the symmetric part; the last one is real."""
    rng = np.random.default_rng(0)
    turns = [Rotation.from_euler("z", w).as_matrix()[:2, :2] for w in (0.1, 0.5, 1.0, 2.0)]
    a = linalg.block_diag(*turns, 1.0) / 3
    for k in range(3):
        q = linalg.qr(rng.normal(size=a.shape))[0]
        assert highest(a, q @ a @ q.T, 1, 500, jax.random.key(k)) == pytest.approx(1, abs=1e-9)


@pytest.mark.usefixtures("float64")
def test_alignment_over_keys():
    """One top whatever the drawn starts, of which four miss it by .0042 for one of these keys."""
    a, b = np.random.default_rng(5).normal(size=(2, 9, 9))
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    assert np.ptp([highest(a, b, 4, 500, jax.random.key(k)) for k in (0, 5)]) < 1e-6


def test_alignment_finds_the_rotation_of_large_dynamics():
    a = RNG.normal(size=(20, 20))
    a /= np.linalg.norm(a)
    turn = np.linalg.qr(RNG.normal(size=(20, 20)))[0]
    found = jax.jit(lambda a, b: alignment(a, b, 1, 500, jax.random.key(0)))(a, turn @ a @ turn.T)
    assert float(found) == pytest.approx(1, abs=1e-12)


def test_topology_is_bray_curtis_of_points_by_stability():
    table = lambda unstable, marginal=0: {
        "n_unstable": unstable, "n_marginal": np.full(len(unstable), marginal), "q": np.zeros(len(unstable))
    }  # fmt: skip
    first, second = table([0, 0, 1, 2, 2]), table([0, 1, 1])
    expected = scipy_distance.braycurtis([2, 0, 1, 2], [1, 0, 2, 0])
    assert between("topology", first, second) == pytest.approx(expected, abs=1e-12)
    # A marginal point is not a stable one, and two networks without points are alike.
    assert between("topology", table([0]), table([0], 1)) == 1
    assert between("topology", table([]), table([])) == 0
    slow = {**second, "q": np.array([0, 1, 1])}
    alone = scipy_distance.braycurtis([2, 0, 1, 2], [1, 0, 0, 0])
    assert between("topology", first, slow, max_q=0.5) == pytest.approx(alone, abs=1e-12)
    slow = {**second, "error": [0, np.nan, np.nan]}
    assert between("topology", first, slow) == pytest.approx(alone, abs=1e-12)


def test_topology_tells_points_of_several_inputs_apart():
    at = lambda unstable, x: {
        "n_unstable": unstable, "n_marginal": np.zeros(len(x)), "q": np.zeros(len(x)), "constant_input": x
    }  # fmt: skip
    # Stable at 0.1, saddle at 0.1, stable at 1.
    first = at([0, 0, 1, 0], np.array([[0.1], [0.1], [0.1], [1]]))
    second = at([0, 1, 0, 0], np.array([[0.1], [0.1], [1], [1]], np.float32))
    expected = scipy_distance.braycurtis([2, 1, 1], [1, 1, 2])
    assert between("topology", first, second) == pytest.approx(expected, abs=1e-12)
    # Networks with one input each need not have the same one, nor of the same size.
    one, other = at([0, 1], np.zeros((2, 1))), at([0, 1], np.ones((2, 3)))
    assert between("topology", one, other) == 0
    with refused(ValueError):
        between("topology", first, other)


def graph(n_unstable, connections, order=None):
    """The table of points with these connections, in another order of the points where one is given."""
    n = len(n_unstable)
    leads = np.zeros((n, n), int)
    leads[tuple(np.transpose(connections))] = 1
    order = np.arange(n) if order is None else order
    table = {"n_unstable": np.asarray(n_unstable), "n_marginal": np.zeros(n), "q": np.zeros(n)}
    return {name: value[order] for name, value in table.items()} | {"leads": leads[np.ix_(order, order)]}  # fmt: skip


def test_connections_are_compared_by_what_points_see():
    """Memories 0, 1, 2 in a row, between them the saddles 3 and 4: without the connection of 4 to 2, five points are alike
    in round 0; 0, 1 and 3 in round 1; 0 and 3 in round 2, as 1 sees another saddle than before."""
    stability, row = [0, 0, 0, 1, 1], [(3, 0), (3, 1), (4, 1), (4, 2)]
    whole, less = graph(stability, row), graph(stability, row[:-1])
    turned = graph(stability, row, np.array([4, 1, 0, 3, 2]))
    assert between("connections", whole, turned) == 0
    for rounds, alike in enumerate([5, 5 + 3, 5 + 3 + 2]):
        expected = 1 - alike / (5 * (rounds + 1))
        assert between("connections", whole, less, rounds=rounds) == pytest.approx(expected, abs=1e-12)  # fmt: skip
        assert between("connections", turned, less, rounds=rounds) == pytest.approx(expected, abs=1e-12)  # fmt: skip
    # Where a point with two growing modes leads to is not compared.
    two = graph([0, 0, 2], [(2, 0), (2, 1)])
    assert between("connections", two, graph([0, 0, 2], [(2, 1)])) == 0
    # A point that does not count takes its connections with it.
    slow = {**whole, "q": np.array([0, 0, 1, 0, 0])}
    alone = graph([0, 0, 1, 1], [(2, 0), (2, 1), (3, 1)])
    assert between("connections", slow, alone, max_q=0.5) == 0
