"""ctd.training against NumPy."""

import jax
import numpy as np
import pytest

from ctd.training import learning_rate

RATES = {
    "exponential": lambda k: 0.9**k,
    "constant": np.ones_like,
    "cosine": lambda k: (1 + np.cos(np.pi * k / 7)) / 2,
    "linear": lambda k: 1 - k / 7,
}


@pytest.mark.parametrize("name", RATES)
@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 1e-6), ("float64", 1e-14)])
def test_learning_rate_numpy(name, dtype, rtol):
    steps = np.arange(7.0)
    expected = 0.03 * RATES[name](steps) * np.minimum(1, (steps + 1) / 3)
    with jax.enable_x64(dtype == "float64"):
        peak, decay = np.asarray(0.03, dtype), np.asarray(0.9, dtype)
        rate = learning_rate(name, peak, 7, decay, np.int32(3))
        rates = np.asarray(jax.vmap(rate)(np.arange(7, dtype=np.int32)))
    assert rates.dtype == dtype
    np.testing.assert_allclose(rates, expected, rtol=rtol)
