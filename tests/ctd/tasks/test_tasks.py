"""Tasks and spiking data: their statistics, their targets against NumPy, and how they are named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from messages import refused
from pydantic import ValidationError
from scipy.stats import nbinom

from ctd import tasks
from ctd.kernel import Params, Static
from ctd.tasks import TASKS, Task, Trial, batch, get_task

N = 4096


DRAWN = {name: cls() for name, cls in TASKS.items() if cls is not tasks.Recorded}


def draw(task, n=N, key=0):
    drawn = jax.jit(batch, static_argnums=(0, 2))(task, jax.random.key(key), n)
    return Trial(*(np.asarray(leaf, float) for leaf in drawn))


class Echo(Task):
    """A task of one's own: give the input back."""

    gain: float = 1.0

    @property
    def n_in(self):
        return 1

    @property
    def n_out(self):
        return 1

    def trial(self, key, dtype):
        x = jax.random.normal(key, (self.n_steps, 1), dtype)
        return Trial(x, self.gain * x, jnp.ones(self.n_steps, dtype))


class Model(Params):
    task: Static[tasks.AnyTask] = tasks.Decision()


# --- trials ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", DRAWN.values(), ids=DRAWN)
def test_trial_shapes(task):
    """In float64, where float32 could be left over; in float32, in which all others here are, JAX has no float64."""
    with jax.enable_x64(True):
        trial = jax.eval_shape(lambda key: task.trial(key, "float64"), jax.random.key(0))
    steps = task.length
    of_outputs = [(steps, task.n_out)] * isinstance(task, tasks.Yang | tasks.NBitFlipFlop)
    assert trial.inputs.shape == (steps, task.n_in)
    assert trial.targets.shape == (steps, task.n_out)
    assert trial.mask.shape == (*of_outputs, (steps,))[0]
    assert all(leaf.dtype == "float64" for leaf in trial[:3])
    if task.conditions:
        assert trial.condition.shape == ()
        assert jnp.issubdtype(trial.condition.dtype, jnp.integer)


def test_trial_is_pure():
    task = tasks.Integrator()
    trials = draw(task).inputs
    np.testing.assert_array_equal(trials, draw(task).inputs)
    assert np.abs(trials[0] - trials[1]).max() > 0.01
    assert np.abs(trials - draw(task, key=1).inputs).max() > 0.01


def test_white_noise_statistics():
    """The tutorials' numbers: b ~ N(-0.01, 0.02^2), noise of 0.025 / sqrt(1 / 25) = 0.125."""
    x = draw(tasks.Integrator()).inputs[:, :, 0]
    # Tolerances are 5 standard errors of 4096 x 25 normals, and of 4096 trial means.
    within = (x - x.mean(1, keepdims=True)).std() * (25 / 24) ** 0.5
    np.testing.assert_allclose(within, 0.125, rtol=5 / (2 * x.size) ** 0.5)
    # A trial's mean has variance 0.125^2 / 25 + 0.02^2 = 0.032^2.
    assert abs(x.mean() + 0.01) < 5 * 0.032 / N**0.5
    for centred, mean in ((False, -0.01), (True, 0.0)):
        quiet = draw(tasks.Integrator(sd=0, centred=centred)).inputs[:, 0, 0]
        np.testing.assert_allclose(quiet.mean(), mean, atol=5 * 0.02 / N**0.5)
        np.testing.assert_allclose(quiet.std(), 0.02, rtol=0.06)


def test_integrator_targets():
    trials = draw(tasks.Integrator())
    # float32 sums of 25 terms, in another order.
    np.testing.assert_allclose(trials.targets, np.cumsum(trials.inputs, axis=1), atol=1e-6)
    assert (trials.mask == 1).all()


def test_decision_targets():
    trials = draw(tasks.Decision())
    total = trials.inputs[:, :, 0].sum(1)
    sure = np.abs(total) > 1e-5  # float32 sums of either order agree on these
    np.testing.assert_array_equal(trials.targets[sure, -1, 0], np.sign(total[sure]))
    assert (trials.targets[:, :-1] == 0).all()
    # The sum has mean -0.25 and variance 25 x 0.125^2 + 0.5^2: Phi(0.25 / 0.8) = 0.62.
    assert abs((trials.targets[:, -1] == -1).mean() - 0.622) < 5 * 0.5 / N**0.5
    np.testing.assert_array_equal(trials.mask, np.tile(np.eye(25)[-1], (N, 1)))


def test_contextual_targets():
    trials = draw(tasks.ContextualIntegrator())
    streams, context = trials.inputs[:, :, :2], trials.inputs[:, :, 2:]
    assert (context == context[:, :1]).all()
    assert (context.sum(-1) == 1).all()
    assert abs(context[:, 0, 0].mean() - 0.5) < 5 * 0.5 / N**0.5
    chosen = np.where(context[:, 0, :1] == 1, streams[:, :, 0], streams[:, :, 1])
    np.testing.assert_allclose(trials.targets[:, :, 0], np.cumsum(chosen, axis=1), atol=1e-5)
    assert abs(np.corrcoef(streams[:, :, 0].sum(1), streams[:, :, 1].sum(1))[0, 1]) < 5 / N**0.5


def test_flipflop_targets():
    n_bits, p_pulse = 2, 0.3
    trials = draw(tasks.FlipFlop(n_bits=n_bits, p_pulse=p_pulse), 256)
    memory = np.zeros((256, n_bits))
    for t in range(trials.inputs.shape[1]):
        pulse = trials.inputs[:, t]
        memory = np.where(pulse != 0, pulse, memory)
        np.testing.assert_array_equal(trials.targets[:, t], memory)
    later = trials.inputs[:, 1:]
    assert set(np.unique(later)) == {-1, 0, 1}
    error = 5 * (p_pulse * (1 - p_pulse) / later.size) ** 0.5
    assert abs((later != 0).mean() - p_pulse) < error
    assert (trials.inputs[:, 0] != 0).all()


def test_chaotic_generator():
    task = tasks.ChaoticGenerator(n_steps=2000, n_units=200, n_targets=3)
    trials = draw(task, 2)
    np.testing.assert_array_equal(trials.targets[0], trials.targets[1])
    np.testing.assert_array_equal(trials.inputs[0, :, 0], np.eye(2000)[0])
    late = trials.targets[0, -500:]
    assert late.std() > 0.1, "g = 1.8 is chaotic: activity does not die"
    calm = draw(task.model_copy(update={"g": 0.8}), 1).targets[0, -500:]
    assert calm.std() < 0.01, "below g = 1 it does"
    other = draw(task.model_copy(update={"network_seed": 1}), 1).targets[0]
    assert np.abs(other - trials.targets[0]).max() > 0.1


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("decision", tasks.Decision()),
        ({"name": "integrator", "n_steps": 40}, tasks.Integrator(n_steps=40)),
        ({"name": f"{__name__}.Echo", "gain": 2}, Echo(gain=2)),
        (tasks.FlipFlop(n_bits=2), tasks.FlipFlop(n_bits=2)),
    ],
)
def test_task_field(given, expected):
    model = Model(task=given)
    assert model.task == expected
    assert hash(model) == hash(Model(task=expected))
    assert Model.model_validate_json(model.model_dump_json()) == model
    assert model != Model(task="contextual_integrator")


BAD = {
    "unknown": "decisoin",
    "unknown parameter": {"name": "flipflop", "n_bit": 2},
    "far parameter": {"name": "flipflop", "zzz": 2},
    "value": {"name": "integrator", "n_steps": 0},
    "type": {"name": "integrator", "sd": "much"},
    "a file": "my/t.h5",
    "no module": "nowhere.Task",
    "no class": f"{__name__}.Model",
    "no name": {"n_steps": 3},
    "number": 3,
}


@pytest.mark.parametrize("given", BAD.values(), ids=BAD)
def test_task_field_refuses(given):
    with refused(ValidationError):
        Model(task=given)


def test_get_task_missing_import(tmp_path, monkeypatch):
    """A fault inside the user's module is theirs to see as it is."""
    (tmp_path / "broken_task.py").write_text("import not_installed_here\n")
    monkeypatch.syspath_prepend(tmp_path)
    with refused(ModuleNotFoundError):
        get_task("broken_task.Mine")


def test_task_schema():
    options = Model.model_json_schema()["properties"]["task"]["anyOf"]
    names = {o["properties"]["name"].get("const") for o in options if "properties" in o}
    assert names == {*TASKS, None}


# --- spiking data ---------------------------------------------------------------------------------


def test_rates_and_spikes_of_states():
    states = np.tile(np.float32([-1.0, 0.0, 1.0, 5.0]), (80, 500, 1))

    @jax.jit
    def draw(key, states):
        rates = tasks.rates_from_states(states, max_rate=20)
        return rates[0, 0], tasks.spikes_from_rates(key, rates[..., :3], 0.04)

    rates, spikes = draw(jax.random.key(0), states)
    np.testing.assert_allclose(rates, [0, 10, 20, 20])
    assert spikes.dtype == jnp.int32
    counts = np.asarray(spikes).reshape(-1, 3)
    assert (counts[:, 0] == 0).all()
    # 40,000 Poisson counts: the mean to 5 standard errors, the variance to 3, of 1.1 % and 0.9 %.
    for k, expected in ((1, 0.4), (2, 0.8)):
        error = 5 * (expected / len(counts)) ** 0.5
        np.testing.assert_allclose(counts[:, k].mean(), expected, atol=error)
        np.testing.assert_allclose(counts[:, k].var(), expected, rtol=0.03)


def test_overdispersed_counts_are_negative_binomial():
    """Shares of 30,000 counts against SciPy's distribution, to 4 standard errors; no spikes where the rate is 0."""
    mean, dispersion, n = np.array([0.0, 0.2, 3.0]), 2.5, 30_000
    rates = np.tile(np.float32(mean / 0.04), (n, 1))
    draw = jax.jit(lambda key, rates: tasks.overdispersed(key, rates, 0.04, dispersion))
    drawn = np.asarray(draw(jax.random.key(0), rates)) * 0.04
    counts = np.random.default_rng(0).poisson(drawn)
    assert (counts[:, 0] == 0).all()
    for k in (1, 2):
        law = nbinom(mean[k] / (dispersion - 1), 1 / dispersion)
        assert law.mean() == pytest.approx(mean[k])
        assert law.var() == pytest.approx(dispersion * mean[k])
        for count in range(6):
            p = law.pmf(count)
            share = (counts[:, k] == count).mean()
            assert abs(share - p) < 4 * (p * (1 - p) / n) ** 0.5, (k, count)
