"""The twenty tasks, trial by trial against the authors' definitions written down again in NumPy."""

import jax
import numpy as np
import pytest
from messages import refused

from ctd.tasks import RULES, Conditions, Trial, Yang, batch, get_task

N = 12
ALL = Yang(rule="all", noise=0, weights=(1.0,) * 20)
PREFERRED = np.arange(32) * 2 * np.pi / 32


@pytest.fixture(scope="module")
def trials():
    """Rule -> its trials without noise, as NumPy, all from one compiled program."""
    draw = jax.jit(lambda key: batch(ALL, key, 40 * N))
    drawn = Trial(*map(np.asarray, draw(jax.random.key(0))))
    return {
        rule: Trial(*(leaf[drawn.condition == k] for leaf in drawn)) for k, rule in enumerate(RULES)
    }


def apart(a, b):
    d = np.abs(a - b) % (2 * np.pi)
    return np.minimum(d, 2 * np.pi - d)


def bump(direction):
    return 0.8 * np.exp(-((apart(direction, PREFERRED) / (np.pi / 8)) ** 2) / 2)


def direction_of(ring):
    """The one direction whose bump has the shape of `ring`, and its strength."""
    # The logarithm of a Gaussian's ratio at two units is linear in its centre.
    k = int(np.argmax(ring))
    left, right = ring[k - 1], ring[(k + 1) % 32]
    step = 2 * np.pi / 32
    shift = np.log(right / left) * (np.pi / 8) ** 2 / (2 * step)
    direction = (PREFERRED[k] + shift) % (2 * np.pi)
    return direction, ring[k] / bump(direction)[k]


def epochs(on):
    """[start, end) of the runs of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], on.astype(int), [0]])))
    return list(zip(edges[::2], edges[1::2], strict=True))


def shown(trial, modality):
    """(steps with a stimulus, ring at each step) of one modality."""
    ring = trial.inputs[:, 1 + 32 * modality : 33 + 32 * modality]
    return ring.max(axis=1) > 1e-3, ring


def each(trials):
    for k in range(len(trials.inputs)):
        yield Trial(*(leaf[k] for leaf in trials))


def go_of(trial):
    """(when the weight after go begins less 100 ms, when the trial ends) by the mask."""
    late = np.flatnonzero(trial.mask[:, 1] == 25)
    return late[0] - 5, late[-1] + 1


def steps(*ms):
    return {m // 20 for m in ms}


@pytest.mark.parametrize("rule", RULES)
def test_rule_cue_mask_and_targets(trials, rule):
    assert len(trials[rule].inputs) > N
    for trial in each(trials[rule]):
        go, end = go_of(trial)
        keeps_cue = rule.startswith(("react", "dms", "dmc"))
        np.testing.assert_array_equal(
            trial.inputs[:, 0], np.arange(ALL.length) < (end if keeps_cue else go)
        )
        number = trial.inputs[:end, 65:]
        assert (number == np.eye(20)[list(RULES).index(rule)]).all()
        ring = np.zeros(ALL.length)
        ring[5:go], ring[go + 5 : end] = 1, 25
        np.testing.assert_array_equal(trial.mask[:, 1:], np.tile(ring[:, None], 32))
        np.testing.assert_array_equal(trial.mask[:, 0], 4 * ring)
        # Fixation: 0.8 until go, and after it where the answer is to fixate; the ring is 0.05 then.
        assert (trial.targets[:go, 0] == np.float32(0.8)).all()
        np.testing.assert_allclose(trial.targets[:go, 1:], 0.05, atol=1e-7)
        fixates = trial.targets[end - 1, 0] > 0.5
        assert (trial.targets[go:end, 0] == np.float32(0.8 if fixates else 0.05)).all()
        assert fixates in ({True, False} if rule.startswith("dm") and "go" in rule else {False})


@pytest.mark.parametrize("rule", [r for r in RULES if r.endswith(("go", "anti")) and "dm" not in r])
def test_rule_go(trials, rule):
    for trial in each(trials[rule]):
        go, end = go_of(trial)
        assert end - go == 25  # 500 ms
        on = [shown(trial, m)[0] for m in (0, 1)]
        (modality,) = (m for m in (0, 1) if on[m].any())
        ((start, stop),) = epochs(on[modality])
        if rule.startswith("react"):
            assert start == go
            assert 25 <= start < 125
        elif rule.startswith("fd"):
            assert 15 <= start < 35
            assert 25 <= go - start < 75
        else:
            assert start in steps(300, 500, 700)
            assert stop - start in steps(200, 400, 600)
            assert go - stop in steps(200, 400, 800, 1600)
        if not rule.startswith("delay"):
            assert stop == end
        direction, strength = direction_of(shown(trial, modality)[1][start])
        assert strength == pytest.approx(1, abs=1e-4)
        answer = direction + np.pi * rule.endswith("anti")
        # float32 angles: 1e-6 rad, enlarged by the logarithm of small activities.
        np.testing.assert_allclose(trial.targets[end - 1, 1:], 0.05 + bump(answer), atol=1e-4)


@pytest.mark.parametrize("rule", [r for r in RULES if r.endswith(("dm", "dm1", "dm2"))])
def test_rule_decisions(trials, rule):
    delayed, context = "delay" in rule, rule.startswith(("context", "multi"))
    coherences = (0.08, 0.16, 0.32) if delayed else (0.01, 0.02, 0.04, 0.08)
    for trial in each(trials[rule]):
        go, end = go_of(trial)
        assert end - go == 25
        modalities = (0, 1) if context else (int(rule[-1]) - 1,)
        strength = np.zeros((2, 2))
        directions = None
        for m in modalities:
            on, ring = shown(trial, m)
            spans = epochs(on)
            if delayed:
                (a, b), (c, d) = spans
                assert a in steps(200, 400, 600)
                assert {b - a, d - c} <= steps(200, 400, 600)
                assert c - b in steps(200, 400, 800, 1600)
                assert 5 <= go - d < 15
                found = [direction_of(ring[t]) for t in (a, c)]
                strength[:, m] = [f[1] for f in found]
                directions = np.array([f[0] for f in found])
            else:
                ((a, b),) = spans
                assert 5 <= a < 20
                assert b == go
                assert b - a in steps(400, 800, 1600)
        if not delayed:
            # The answer's own bump is one of the two: the other is what is left of the ring.
            answer = direction_of(trial.targets[end - 1, 1:] - 0.05)[0]
            own = int(np.argmax(bump(answer)))
            rings = np.array([shown(trial, m)[1][a] for m in modalities])
            at = rings[:, own] / bump(answer)[own]
            assert (at > 0.4).all()
            continue
        assert np.pi / 2 - 1e-3 < apart(*directions)
        if rule.startswith("multi"):
            value = strength.sum(axis=1)
            share = np.abs(strength[:, 0] - strength[:, 1]) / (value / 2)
            assert (share > 0.2 - 1e-3).all()
            assert (share < 0.8 + 1e-3).all()
            half = value / 2
        else:
            half = strength[:, int(rule[-1]) - 1]
        assert 0.8 - 1e-3 < half.mean() < 1.2 + 1e-3
        assert np.abs(np.abs(half[0] - half[1]) / 2 - coherences).min() < 1e-3
        expected = directions[int(half[1] > half[0])]
        np.testing.assert_allclose(trial.targets[end - 1, 1:], 0.05 + bump(expected), atol=1e-3)


@pytest.mark.parametrize("rule", ["dmsgo", "dmsnogo", "dmcgo", "dmcnogo"])
def test_rule_match(trials, rule):
    matches = []
    for trial in each(trials[rule]):
        go, end = go_of(trial)
        assert end - go in (steps(200, 400, 600) if rule.startswith("dmc") else {25})
        rings = trial.inputs[:, 1:65].reshape(-1, 2, 32)
        rings = rings.sum(axis=1)
        (a, b), (c, d) = epochs(rings.max(axis=1) > 1e-3)
        assert a in steps(200, 400, 600)
        assert b - a in steps(200, 400, 600)
        assert c - b in steps(200, 400, 800, 1600)
        assert (c, d) == (go, end)
        first, second = (direction_of(rings[t])[0] for t in (a, c))
        if rule.startswith("dmc"):
            match = (first < np.pi) == (second < np.pi)
            tenths = np.array([first, second]) / np.pi * 10
            np.testing.assert_allclose(tenths % 2, 1, atol=1e-3)
        else:
            match = apart(first, second) < 1e-3
            assert match or apart(first, second) > np.pi / 9 - 1e-3
        matches.append(match)
        responds = match == (not rule.endswith("nogo"))
        expected = 0.05 + responds * bump(second)
        np.testing.assert_allclose(trial.targets[end - 1, 1:], expected, atol=1e-4)
        assert (trial.targets[end - 1, 0] < 0.5) == responds
    # A binomial of more than N trials: 5 standard errors.
    assert abs(np.mean(matches) - 0.5) < 5 * 0.5 / len(matches) ** 0.5


def numpy_success(target, output):
    """The authors' `get_perf` for one trial's last step; the answer is read from the target."""
    vector = lambda ring: (
        np.arctan2(ring @ np.sin(PREFERRED), ring @ np.cos(PREFERRED)) % (2 * np.pi)
    )
    if target[0] > 0.5:
        return output[0] > 0.5
    return output[0] <= 0.5 and apart(vector(output[1:]), vector(target[1:])) < 0.2 * np.pi


def test_success(trials):
    """Answers turned by up to half a circle, with fixation outputs on both sides of 0.5."""
    rng = np.random.default_rng(0)
    drawn = trials["dmsgo"]
    outputs = drawn.targets + 0.0
    expected = []
    for k, trial in enumerate(each(drawn)):
        last = go_of(trial)[1] - 1
        outputs[k, :, 1:] = np.roll(outputs[k, :, 1:], rng.integers(-6, 7), axis=-1)
        outputs[k, :, 0] += rng.choice([-0.5, 0, 0.5])
        outputs[k, last + 1 :] = rng.normal(size=outputs[k, last + 1 :].shape)  # does not matter
        expected.append(numpy_success(trial.targets[last], outputs[k, last]))
    found = jax.jit(jax.vmap(ALL.success))(drawn, outputs)
    assert 0.2 < np.mean(expected) < 0.8
    np.testing.assert_array_equal(found, expected)


def test_mixture_weights_and_conditions():
    task = Yang(rule=["dm1", "contextdm1"], time_scale=0.1, n_ring=4)
    drawn = np.asarray(jax.jit(lambda key: batch(task, key, 2000).condition)(jax.random.key(1)))
    assert task.conditions == Conditions("rule", ("dm1", "contextdm1"))
    assert abs(drawn.mean() - 5 / 6) < 5 * (5 / 36 / 2000) ** 0.5
    assert Yang(rule="fdgo", time_scale=0.05).longest == 5, "its stimulus lasts as long as it takes"


def test_noise_and_one_hot():
    task = Yang(rule="delaygo", noise=0.02, dt=40, code="one_hot", n_ring=8, time_scale=0.5)
    quiet = task.model_copy(update={"noise": 0.0})
    draw = jax.jit(lambda key: (batch(task, key, 300), batch(quiet, key, 300)))
    loud, still = draw(jax.random.key(0))
    noise = np.asarray(loud.inputs - still.inputs)
    # sigma_x sqrt(2 / alpha), alpha = dt / tau; 5 standard errors.
    expected = 0.02 * (2 * 100 / 40) ** 0.5
    assert noise.std() == pytest.approx(expected, rel=5 / (2 * noise.size) ** 0.5)
    np.testing.assert_array_equal(np.unique(loud.targets), [0, 1])
    np.testing.assert_array_equal(loud.targets.sum(axis=-1), 1)
    assert set(np.unique(loud.mask)) == {0, 1, 5}


BAD = {
    "rule": {"rule": "delaygoo"},
    "twice": {"rule": ["dm1", "dm1"]},
    "weights": {"rule": ["dm1", "dm2"], "weights": [1]},
    "epochs": {"rule": "delaygo", "n_steps": 100},
    "NaN": {"noise": float("nan")},
    "response": {"rule": "fdgo", "response": 110},
    "no response": {"rule": ["fdgo", "dm1"], "time_scale": 0.2, "dt": 40, "response": 120},
    "response of its own": {"rule": "dmcgo", "time_scale": 0.1, "stimulus": [900], "delay": [900], "dt": 40},
    "scaled": {"time_scale": 0.05},
}  # fmt: skip


@pytest.mark.parametrize("fields", BAD.values(), ids=BAD)
def test_yang_refuses(fields):
    with refused(ValueError) as caught:
        get_task({"name": "yang"} | fields)
    assert "\n" not in str(caught.value)
