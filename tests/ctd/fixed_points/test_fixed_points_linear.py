"""Jacobians and modes against finite differences and SciPy."""

import jax
import numpy as np
import pytest
import scipy.linalg
from networks import spiral, starts

from ctd.batch import precision
from ctd.cells import get_cell
from ctd.fixed_points.linear import (
    derivatives,
    frequencies,
    growth,
    modes,
    stability,
    time_constants,
)
from ctd.fixed_points.search.params import FixedPoint


def test_jacobians_finite_differences():
    rng = np.random.default_rng(0)
    w = {
        name: rng.standard_normal(shape) / 2 for name, shape in get_cell("gru").shapes(5, 2).items()
    }
    with precision(FixedPoint()):
        step = jax.jit(lambda h, x: get_cell("gru").step(w, h, x))
        jacobian = jax.jit(jax.jacfwd(step))
        h, x = starts(3, 5), starts(3, 2)
        d = derivatives(get_cell("gru").step, w, h, x)
        f = lambda h, x: np.asarray(step(h, x))
        e = 1e-6
        for k in range(3):
            dh = [(f(h[k] + e * u, x[k]) - f(h[k] - e * u, x[k])) / (2 * e) for u in np.eye(5)]
            dx = [(f(h[k], x[k] + e * u) - f(h[k], x[k] - e * u)) / (2 * e) for u in np.eye(2)]
            # Central differences of step 1e-6: 1e-12 from curvature, 1e-10 from rounding.
            np.testing.assert_allclose(d.dh[k], np.transpose(dh), atol=1e-8)
            np.testing.assert_allclose(d.dx[k], np.transpose(dx), atol=1e-8)

            def gradient(h, k=k):
                jac = np.asarray(jacobian(h, x[k]))
                return (jac - np.eye(5)).T @ (f(h, x[k]) - h)

            hessian = [
                (gradient(h[k] + e * u) - gradient(h[k] - e * u)) / (2 * e) for u in np.eye(5)
            ]
            least = np.linalg.eigvalsh((np.array(hessian) + np.transpose(hessian)) / 2)[0]
            assert d.curvature[k] == pytest.approx(least, abs=1e-7)
            newton = np.linalg.solve(np.transpose(dh) - np.eye(5), f(h[k], x[k]) - h[k])
            assert d.error[k] == pytest.approx(np.linalg.norm(newton), rel=1e-6)


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
            assert abs(np.vdot(right[:, i], m.right_vectors[k][:, j])) == pytest.approx(
                1, abs=1e-10
            )
            cosine = np.vdot(left[:, i], m.left_vectors[k][:, j]) / np.linalg.norm(
                m.left_vectors[k][:, j]
            )
            assert abs(cosine) == pytest.approx(1, abs=1e-10)
        np.testing.assert_allclose(
            m.left_vectors[k].conj().T @ m.right_vectors[k], np.eye(9), atol=1e-11
        )
        rebuilt = (m.right_vectors[k] * m.eigenvalues[k]) @ m.left_vectors[k].conj().T
        np.testing.assert_allclose(rebuilt, matrix, atol=1e-11)


def test_modes_conjugate_pairs_positive_angle_first():
    values = modes(np.array([scipy.linalg.block_diag(0.3, spiral(0.9, 0.4), -0.95)])).eigenvalues[0]
    np.testing.assert_allclose(np.abs(values), [0.95, 0.9, 0.9, 0.3], atol=1e-12)
    assert values[1].imag > 0 > values[2].imag


def test_time_constants_and_frequencies():
    values = np.array([np.exp(-0.1), -np.exp(-0.5), 1.0, np.exp(0.2 + 0.3j), 0.0])
    np.testing.assert_allclose(time_constants(values), [10, 2, np.inf, -5, 0])
    np.testing.assert_allclose(frequencies(values), [0, 0.5, 0, 0.3 / (2 * np.pi), 0])
    assert np.isinf(time_constants(np.array([1 + 4e-11, 1 - 4e-11]))).all(), "a drift, to rounding"
    np.testing.assert_allclose(time_constants(np.array([-0.1, 0.2 + 3j]), True), [10, -5])
    np.testing.assert_allclose(frequencies(np.array([-0.1, 0.2 + 3j]), True), [0, 3 / (2 * np.pi)])


def test_stability_has_three_names():
    """A node, a rotation that neither grows nor decays, a saddle, and a slow point whose drift rounding moved out."""
    values = np.array([[0.9, 0.5], [1j, -1j], [1.1, 0.5], [1 + 1e-4, 0.5]])
    found = growth(values, np.array([False, False, False, True]))
    assert found.tolist() == [[-1, -1], [0, 0], [1, -1], [0, -1]]
    assert stability(found).tolist() == ["stable", "marginal", "unstable", "marginal"]
