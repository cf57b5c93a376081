"""Chains of slow points on a ring and on a line whose every measure is known."""

import numpy as np
import pytest

from ctd.fixed_points import line

N = 6


def table_of(points, tangents, **more):
    """Points whose first mode, along `tangents`, is slow; an input drives it with cosine 0.6, and the last axis else."""
    k = len(points)
    vectors = np.zeros((k, N, N), complex)
    vectors[:, :, 1] = tangents
    values = np.tile([1.2, 1.01, 0.9, 0.5, 0.2, 0.1], (k, 1)).astype(complex)
    away = np.eye(N)[-1]
    driven = 0.6 * tangents + 0.8 * away
    return {
        "point": points,
        "residual": np.arange(float(k)),
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
    np.testing.assert_array_equal(found.columns["residual"], found.rows)
    assert repr(found).startswith("ring of 40 points, length 12.55, dimension 1\n")


def test_line_with_a_branch_an_outlier_and_uneven_gaps():
    """Positions 0, 1, 2, 12 along a diagonal; F pulls to the first point, at a hundredth of the distance a step."""
    along = np.array([1.0, 1, 0, 0, 0, 0]) / np.sqrt(2)
    position = np.array([2.0, 0, 12, 1, 1, 50])
    points = position[:, None] * along
    points[4, 3] = 0.5  # beside the line
    outlier = position == 50
    found = line(
        table_of(points, np.tile(along, (6, 1)), outlier=outlier),
        readout=[[1.0, 0, 0, 0, 0, 0]],
        step=lambda h: 0.99 * h,
    )
    assert not found.closed
    assert sorted([found.rows.tolist(), found.rows[::-1].tolist()])[0] in (
        [1, 3, 0, 2],
        [2, 0, 3, 1],
    )
    assert found.aside.tolist() == [4]
    assert found.length == pytest.approx(12)
    assert found.widest == pytest.approx(10)
    np.testing.assert_allclose(found.columns["readout"], np.sqrt(0.5))
    at, drift = found.drift.T
    away = at if found.rows[0] == 1 else 12 - at
    np.testing.assert_allclose(np.abs(drift), 0.01 * away, atol=1e-12)


def test_points_that_no_chain_describes():
    """Two slow modes at each point: a plane."""
    points = np.random.default_rng(0).standard_normal((12, N))
    table = table_of(points, np.tile(np.eye(N)[0], (12, 1)))
    table["eigenvalue"][:, 2] = 0.99
    assert line(table).dimension == 2


@pytest.mark.parametrize(
    ("more", "settings", "said"),
    [
        ({"outlier": np.array([1, 1, 0, 0], bool)}, {}, "table: 2 points that are no outliers"),
        ({"constant_input": np.eye(4)[:, :1]}, {}, "points at 2 inputs; choose the rows of one"),
        ({}, {"readout": np.ones((1, 3))}, r"readout: shape \(1, 3\), \(output, 6\) expected"),
    ],
)
def test_line_refuses(more, settings, said):
    points = np.arange(4.0)[:, None] * np.eye(N)[0]
    with pytest.raises(ValueError, match=said):
        line(table_of(points, np.tile(np.eye(N)[0], (4, 1)), **more), **settings)
