"""ctd.principal against NumPy's singular value decomposition."""

import numpy as np

from ctd.principal import principal


def test_principal_is_the_svd():
    rng = np.random.default_rng(2)
    points = rng.normal(size=(40, 6)) @ rng.normal(size=(6, 6))
    project, share = principal(points, 2)
    _, s, v = np.linalg.svd(points - points.mean(axis=0))
    np.testing.assert_allclose(share, s[:2] ** 2 / np.sum(s**2), rtol=1e-10)
    np.testing.assert_allclose(
        np.abs(project(points)), np.abs((points - points.mean(0)) @ v[:2].T), atol=1e-8
    )
