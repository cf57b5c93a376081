"""Which ends of searches are one point, against brute force."""

import warnings

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.spatial
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from networks import FIXED, starts

from ctd.fixed_points.network import make_network
from ctd.fixed_points.search.params import FixedPoint, Options
from ctd.fixed_points.search.summary import reduce
from ctd.fixed_points.search.unique import N_CROWDS, Basins, cover, nearest_distance
from ctd.kernel import inputs_of


def cover_by_brute_force(points, tol):
    leader = np.full(len(points), -1)
    for i in range(len(points)):
        if leader[i] < 0:
            near = np.linalg.norm(points - points[i], axis=1) <= tol
            leader[near & (leader < 0)] = i
    return leader


@settings(max_examples=30)
@given(
    arrays(np.int8, st.tuples(st.integers(0, 40), st.integers(1, 6)), elements=st.integers(-3, 3)),
    st.sampled_from([0.1, 1.01, 1.5, 2.3]),
)
def test_cover_against_brute_force(grid, tol):
    points = grid + 1e-3 * np.sin(np.arange(grid.size)).reshape(grid.shape)
    np.testing.assert_array_equal(cover(points, tol), cover_by_brute_force(points, tol))
    # Behind rows that lie far apart, all lists are made at once.
    far = 100 * np.arange(1, N_CROWDS + 1)[:, None] * np.ones(points.shape[1])
    points = np.concatenate([far, points])
    np.testing.assert_array_equal(cover(points, tol), cover_by_brute_force(points, tol))


CLOUDS = [
    # name, seeds -> points, tol
    ("sparse", lambda rng: rng.standard_normal((900, 30)), 0.1),
    ("crowded in the projection", lambda rng: rng.standard_normal((900, 30)), 3.0),
    ("dense", lambda rng: rng.standard_normal((900, 3)), 0.3),
    ("line", lambda rng: rng.uniform(0, 1, (900, 1)) * np.ones(20), 0.01),
    ("pairs", lambda rng: np.repeat(rng.standard_normal((450, 20)), 2, axis=0), 1e-3),
]


@pytest.mark.parametrize(("draw", "tol"), [case[1:] for case in CLOUDS], ids=[c[0] for c in CLOUDS])
def test_cover_of_clouds_against_brute_force(draw, tol):
    points = draw(np.random.default_rng(4))
    np.testing.assert_array_equal(cover(points, tol), cover_by_brute_force(points, tol))


def test_cover_looks_up_few_rows(monkeypatch):
    """Distinct points in number: no row has a query of its own but the first ones."""
    asked = []

    class Counting(scipy.spatial.cKDTree):
        def query_ball_point(self, *args, **kwargs):
            asked.append(args)
            return super().query_ball_point(*args, **kwargs)

    monkeypatch.setattr(scipy.spatial, "cKDTree", Counting)
    leaders = cover(np.random.default_rng(5).standard_normal((5000, 20)), 1e-3)
    np.testing.assert_array_equal(leaders, np.arange(5000))
    assert 0 < len(asked) <= N_CROWDS


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
    expected = {"point": points[row], "outcome": rank[row], "q": q[row], "count": counts[order]}
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


@settings(max_examples=25)
@given(
    arrays(np.int8, st.tuples(st.integers(1, 60), st.integers(1, 5)), elements=st.integers(-4, 4)),
    st.sampled_from([0.1, 1.01, 2.3]),
    st.integers(1, 60),
)
def test_basins_stand_apart_and_hold_their_members(grid, tol, size):
    """Whatever the points: all are counted, no two results are within tol, each row is within 1.5 tol."""
    points = grid + 1e-3 * np.sin(np.arange(grid.size)).reshape(grid.shape)
    q = np.abs(np.cos(np.arange(len(points))))
    ends = found_in_blocks(points, np.zeros(len(points), int), q, tol, size)
    found = ends["point"]
    apart = np.linalg.norm(found[:, None] - found, axis=-1)
    assert (apart[~np.eye(len(found), dtype=bool)] > tol).all()
    reach = np.linalg.norm(points[:, None] - found, axis=-1).min(axis=1)
    assert (reach <= 1.5 * tol * (1 + 1e-9)).all()
    assert ends["count"].sum() == len(points)
    assert ends["q"].min() == q.min()
    assert not ends["outcome"].any()


def test_basins_behind_each_other_in_the_projection():
    """Twenty points that differ only beyond the first three principal components are told apart."""
    rng = np.random.default_rng(2)
    wide = 10 * rng.standard_normal((400, 3))
    points = np.zeros((400, 24))
    points[:, :3] = np.repeat(wide[:20], 20, axis=0)
    points[np.arange(400), 3 + np.arange(400) % 20] = 0.1
    for times in (1, 3):
        many, n = np.concatenate([points] * times), 400 * times
        found = found_in_blocks(many, np.zeros(n, int), np.arange(1.0 * n), 1e-2, 50)
        assert found["count"].tolist() == [times] * 400


def test_basins_tell_the_first_origin_of_their_members():
    basins = Basins(1e-2, 2)
    for x, q, origin in (
        ([0.0, 1.0], [1.0, 2.0], [2, 3]),
        ([1.001, 0.0, 2.0], [1.0, 3.0, 9.0], [1, 0, 2]),
    ):
        points = np.column_stack([x, np.zeros(len(x))])
        basins.add(points, np.zeros(len(x), int), np.asarray(q), np.asarray(origin))
    found = basins.points()
    np.testing.assert_array_equal(found["point"][:, 0], [0, 1.001, 2])
    assert found["origin"].tolist() == [0, 1, 2]


def test_nearest_distance_in_blocks():
    points, states = starts(31, 4), starts(57, 4, seed=1)
    expected = np.linalg.norm(points[:, None] - states, axis=-1).min(axis=1)
    np.testing.assert_allclose(nearest_distance(points, states, block=200), expected, rtol=1e-12)


def test_reduce_keeps_the_largest_basins_and_flags_outliers():
    """Points at -1, 1 and 0 of F(h) = h + 0.1 sin(pi h), at which searches from candidates around them have ended."""
    counts = [50, 30, 5]
    step = lambda weights, h, x: h + 0.1 * jnp.sin(jnp.pi * h)
    network = make_network(step, {}, np.repeat([-0.9, 0.9, 0.1], counts)[:, None], "float64")
    ends = {"point": np.repeat([-1.0, 1.0, 0.0], counts)[:, None]}
    ends |= {"constant_input": np.zeros((85, 0)), "q": np.zeros(85), "outcome": np.full(85, FIXED)}
    table = lambda **options: reduce(inputs_of(FixedPoint()), network, {}, ends, Options(**options))
    found = table(max_points=2, outlier_tol=0.01)
    assert found["n_unique"] == 3
    np.testing.assert_allclose(found["point"][:, 0], [-1, 1], atol=1e-9)
    np.testing.assert_array_equal(found["count"], [50, 30])
    np.testing.assert_allclose(found["nearest_state"], 0.1, atol=1e-9)
    # 0.1 is more than a hundredth of the spread of the candidates, and less than twice it.
    assert found["outlier"].all()
    assert not table()["outlier"].any()


@pytest.mark.parametrize(("near", "warns"), [(0, True), (2, True), (3, False)])
def test_reduce_warns_of_far(near, warns):
    """Twenty points of F(h) = h: some near one of the two states, at -1 and 1, and the others on a circle in their middle."""
    at = np.zeros((20, 2))
    angle = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    at[:] = 0.4 * np.column_stack([np.cos(angle), np.sin(angle)])
    at[:near, 0] = 1 + 0.01 * np.arange(near)
    at[:near, 1] = 0
    network = make_network(lambda weights, h, x: h, {}, [[-1.0, 0.0], [1.0, 0.0]], "float64")
    ends = {"point": at, "constant_input": np.zeros((20, 0)), "q": np.zeros(20)}
    ends["outcome"] = np.full(20, FIXED)
    options = Options(settle=0, between=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        reduce(inputs_of(FixedPoint()), network, {}, ends, options)
    said = [str(one.message) for one in caught if "near the states" in str(one.message)]
    assert [text.split(" points")[0] for text in said] == [f"{near} of 20"] * warns
