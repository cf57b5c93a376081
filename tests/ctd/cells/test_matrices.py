"""The spectral radius against NumPy's eigenvalues."""

import jax
import numpy as np
import pytest

from ctd.cells import spectral_radius

radius = jax.jit(spectral_radius)


@pytest.mark.parametrize("n", [5, 100])
@pytest.mark.parametrize("seed", range(4))
def test_spectral_radius_random(n, seed):
    w = np.random.default_rng(seed).standard_normal((n, n))
    expected = np.abs(np.linalg.eigvals(w)).max()
    assert float(radius(w.astype("float32"))) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    "w", [np.zeros((5, 5)), np.triu(np.ones((5, 5)), 1)], ids=["zero", "nilpotent"]
)
def test_spectral_radius_none(w):
    assert radius(w.astype("float32")) == 0
