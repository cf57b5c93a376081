"""The laws of the tutorials' tasks: ours and the originals in NumPy (tests/support/origin.py) by closed forms."""

from functools import partial

import jax
import numpy as np
import origin
import pytest
from scipy.stats import norm

import ctd.tasks

N_TRIALS = 40_000


def ours(name, seed):
    trials = ctd.tasks.batch(ctd.tasks.get_task(name), jax.random.key(seed), N_TRIALS)
    return np.asarray(trials.inputs, float), np.asarray(trials.targets, float)


def origins(function, seed):
    return function(np.random.default_rng(seed), N_TRIALS)


@pytest.mark.parametrize(
    ("task", "draw"),
    [
        ("integrator", partial(ours, "integrator")),
        ("decision", partial(ours, "decision")),
        # That the origin has these laws, too, is a matter of tests/support/ alone.
        *(
            pytest.param(task, partial(origins, function), marks=pytest.mark.endurance)
            for task, function in (
                ("integrator", origin.pure_integration),
                ("decision", origin.binary_decision),
            )
        ),
    ],
    ids=["integrator", "decision", "integrator-origin", "decision-origin"],
)
def test_tasks_law(task, draw):
    """Inputs and targets against closed forms, within five standard errors over 40,000 trials."""
    bias, sd, T, ntime = origin.INPUT_PARAMS
    noise = sd / (T / ntime) ** 0.5  # 0.125 a step
    inputs, targets = draw(0)
    assert inputs.shape == targets.shape == (N_TRIALS, ntime, 1)
    x, total = inputs[..., 0], inputs[..., 0].sum(1)
    # Trial sums are normal: bias with mean -0.01 and SD 0.02 at all 25 steps, noise at each.
    mean, deviation = -bias * ntime, np.hypot(noise * ntime**0.5, 2 * bias * ntime)
    assert (mean, deviation) == (-0.25, pytest.approx(0.8004, abs=1e-4))
    assert abs(total.mean() - mean) < 5 * deviation / N_TRIALS**0.5
    assert abs(total.std() - deviation) < 5 * deviation / (2 * N_TRIALS) ** 0.5
    within = (x - x.mean(1, keepdims=True)).var() * ntime / (ntime - 1)
    # The variance of the noise alone, over 24 degrees of freedom a trial.
    assert abs(within - noise**2) < 5 * noise**2 * (2 / (N_TRIALS * (ntime - 1))) ** 0.5
    share = lambda p, event: abs(event.mean() - p) < 5 * (p * (1 - p) / N_TRIALS) ** 0.5
    if task == "integrator":
        # float32 sums of 25 numbers of order 0.1.
        np.testing.assert_allclose(targets[..., 0], np.cumsum(x, axis=1), rtol=0, atol=1e-5)
        final = targets[:, -1, 0]
        law = norm(mean, deviation)
        assert share(law.cdf(-1) + law.sf(1), abs(final) > 1)
        return
    assert (targets[:, :-1] == 0).all()
    clear = abs(total) > 1e-5  # else rounding decides
    np.testing.assert_array_equal(targets[clear, -1, 0], np.sign(total[clear]))
    assert set(np.unique(targets[:, -1])) == {-1.0, 1.0}
    assert share(norm.sf(0, mean, deviation), targets[:, -1, 0] > 0)
