"""LINT's tasks and CtDBenchmark's flip-flop against their published definitions, written down again in NumPy."""

import jax
import numpy as np
import pytest
from messages import refused

from ctd import tasks
from ctd.tasks import Trial, batch, get_task

N = 200


def draw(task):
    drawn = jax.jit(batch, static_argnums=(0, 2))(task, jax.random.key(0), N)
    return Trial(*map(np.asarray, drawn))


def span(on):
    """[first, last + 1) of the steps in each trial; they are neighbours."""
    first, last = on.argmax(1), on.shape[1] - on[:, ::-1].argmax(1)
    assert (on.sum(1) == last - first).all()
    return first, last


def test_rdm():
    """100 + 800 + 300 + 300 ms at 20 ms; inputs c * 3.2 / 100, targets +-1 in the response alone."""
    trials = draw(tasks.RandomDots(noise=0))
    coherence = np.array([-16, -8, -4, -2, -1, 1, 2, 4, 8, 16])[trials.condition]
    expected = np.zeros((N, 75))
    expected[:, 5:45] = 3.2 / 100 * coherence[:, None]
    np.testing.assert_allclose(trials.inputs[..., 0], expected, rtol=1e-6)
    np.testing.assert_array_equal(trials.mask, np.tile(np.arange(75) >= 60, (N, 1)))
    np.testing.assert_array_equal(trials.targets[..., 0], trials.mask * np.sign(coherence)[:, None])
    assert len(np.unique(coherence)) == 10
    loud = draw(tasks.RandomDots()).inputs[:, :5]
    assert loud.std() == pytest.approx(0.03, rel=5 / (2 * loud.size) ** 0.5)


def test_romo():
    """Two stimuli of 100 ms, 500 ... 2000 ms apart; target (f1 - f2) / 24 in the 100 ms after the second."""
    trials = draw(tasks.Romo(noise=0))
    lag = []
    for x, z, m, c in zip(*trials, strict=True):
        at = np.flatnonzero(m)
        f2 = x[at[0] - 1, 0] * 24 + 22
        f1 = x[5, 0] * 24 + 22
        delay = at[0] - 5 - 10
        lag.append(delay)
        expected = np.zeros(len(x))
        expected[5:10], expected[10 + delay : 15 + delay] = (f1 - 22) / 24, (f2 - 22) / 24
        np.testing.assert_allclose(x[:, 0], expected, atol=1e-6)
        assert min(f1, f2) > 10 - 1e-4
        assert max(f1, f2) < 34 + 1e-4
        np.testing.assert_array_equal(at, np.arange(at[0], at[0] + 5))
        np.testing.assert_allclose(z[at, 0], (f1 - f2) / 24, atol=1e-6)
        assert [-24, -16, -8, 8, 16, 24][c] == pytest.approx(f1 - f2, abs=1e-4)
    assert min(lag) >= 25
    assert max(lag) <= 100
    assert len(trials.inputs[0]) == 5 + 5 + 100 + 5 + 5


def test_mante():
    """100 + 350 + 800 + 100 + 20 ms; the context is on from 100 ms to the response."""
    trials = draw(tasks.Mante(noise=0))
    begin, end, answer = 5 + 17, 5 + 17 + 40, 5 + 17 + 40 + 5
    values = np.array([-4, -2, -1, 1, 2, 4])
    steps = np.arange(answer + 1)
    for x, z, m, c in zip(*trials, strict=True):
        context = int(x[5, 3] > 0)
        np.testing.assert_allclose(x[:, 2 + context], 0.1 * ((steps >= 5) & (steps < answer)))
        assert (x[:, 3 - context] == 0).all()
        coherence = x[begin, :2] / 0.1
        expected = ((steps >= begin) & (steps < end))[:, None] * coherence * 0.1
        np.testing.assert_allclose(x[:, :2], expected, atol=1e-6)
        assert np.abs(coherence[:, None] - values).min(axis=1).max() < 1e-5
        assert values[c] == pytest.approx(coherence[context], abs=1e-5)
        np.testing.assert_array_equal(m, steps == answer)
        np.testing.assert_array_equal(z[:, 0], m * np.sign(values[c]))


def test_dms():
    """Stimuli of 500 ms, 500 ... 3000 ms apart, answer in the next 1000 ms: +1 where they are the same."""
    trials = draw(tasks.MatchToSample(noise=0))
    first, last = span(trials.mask > 0)
    np.testing.assert_array_equal(last - first, 50)
    for k in range(N):
        x, at = trials.inputs[k], first[k]
        one, two = x[5], x[at - 1]
        assert sorted(one) == sorted(two) == [0, 1]
        expected = np.zeros_like(x)
        expected[5:30], expected[at - 25 : at] = one, two
        np.testing.assert_array_equal(x, expected)
        same = (one == two).all()
        np.testing.assert_array_equal(trials.targets[k, :, 0], trials.mask[k] * (1 if same else -1))
        label = tasks.MatchToSample().conditions.values[trials.condition[k]]
        assert label == "-".join("A" if s[0] else "B" for s in (one, two))
    delay = first - 25 - 30
    assert delay.min() >= 25
    assert delay.max() < 150


@pytest.mark.parametrize(("dt", "delay", "steps"), [(16.7, 50.1, 3), (2.2, 15.4, 7)])
def test_dms_of_a_fixed_delay(dt, delay, steps):
    """In float32 both quotients lie below a whole number."""
    task = tasks.MatchToSample(dt=dt, delay=(delay, delay), noise=0)
    assert (draw(task).inputs.sum(axis=(1, 2)) == 2 * task.steps(500)).all()
    shown = np.flatnonzero(draw(task).inputs[0].sum(axis=1))
    assert np.diff(shown).max() == 1 + steps


def numpy_blind(targets, blind):
    """CtDBenchmark's `NBFFLoss`: which steps count."""
    changed = np.diff(targets, axis=0) != 0
    mask = np.ones(changed.shape)
    for i in range(1, blind + 1):
        mask *= 1 - np.concatenate([np.zeros_like(changed[:i]), changed[:-i]])
    mask = np.concatenate([np.ones_like(mask[:1]), mask])
    mask[:5] = 0
    return mask


def test_nbff():
    task = tasks.NBitFlipFlop(n_steps=120, noise=0, p_pulse=0.05)
    trials = draw(task)
    state = np.zeros((N, 3))
    assert (trials.inputs[:, :3] == 0).all()
    for t in range(120):
        pulse = trials.inputs[:, t]
        state = np.where(pulse == 0, state, pulse > 0)
        np.testing.assert_array_equal(trials.targets[:, t], state)
    for k in range(20):
        np.testing.assert_array_equal(trials.mask[k], numpy_blind(trials.targets[k], 4))
    late = trials.inputs[:, 3:]
    for sign in (-1, 1):
        share = (late == sign).mean()
        assert abs(share - 0.05) < 5 * (0.05 * 0.95 / late.size) ** 0.5


@pytest.mark.parametrize("task", [tasks.RandomDots, tasks.Romo, tasks.MatchToSample])
def test_success_sign(task):
    """`accuracy_*` of LINT: the signs of the means over the response are equal."""
    task = task(noise=0)  # as it is drawn above
    trials = draw(task)
    outputs = np.random.default_rng(0).normal(0.02, 0.3, trials.targets.shape).astype("f4")
    mean = lambda values: np.array([v[m > 0, 0].mean() for v, m in zip(values, trials.mask)])  # noqa: B905
    expected = np.sign(mean(outputs)) == np.sign(mean(trials.targets))
    assert 0.2 < expected.mean() < 0.8
    np.testing.assert_array_equal(jax.jit(jax.vmap(task.success))(trials, outputs), expected)


BAD = {
    "epochs": {"name": "rdm", "n_steps": 50},
    "delay": {"name": "romo", "delay": [900, 100]},
    "no answer": {"name": "rdm", "coherences": [0, 1]},
    "frequency": {"name": "romo", "differences": [30]},
    "NaN": {"name": "mante", "scale": float("nan")},
    "seconds": {"name": "rdm", "stimulus": 0.8, "delay": 0.3},
    "seconds of a span": {"name": "romo", "delay": [0.5, 0.9]},
    "dt": {"name": "dms", "dt": 1e5},
}


@pytest.mark.parametrize("given", BAD.values(), ids=BAD)
def test_timed_tasks_refuse(given):
    with refused(ValueError) as caught:
        get_task(given)
    assert "\n" not in str(caught.value)
