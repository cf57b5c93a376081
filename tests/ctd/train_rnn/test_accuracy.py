"""Losses, accuracy and the end of training by it, against NumPy; trials of a file; weights of a low rank."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from messages import refused
from pydantic import ValidationError

from ctd import tasks
from ctd.batch import Layout, evaluated, run_items
from ctd.cells import check_params, get_cell, run
from ctd.data import write_hdf5
from ctd.kernel import inputs_of, static_of, traced_of
from ctd.tasks.scores import weighted_loss
from ctd.train_rnn import Network, kernel
from ctd.train_rnn.loss import Shared, evaluate

TASK = tasks.RandomDots(dt=100, delay=100, coherences=(-16, -4, 4, 16))
# Two minibatches of evaluation trials and no rest, which would be compiled as a second run (test_train_rnn.py has one).
SMALL = {"task": TASK, "cell": "vanilla", "n": 8, "batch_size": 16, "n_eval": 32, "n_saved": 6}
SMALL |= {"n_batches": 60, "report_every": 5, "learning_rate": 0.02, "adam_eps": 1e-6, "l2": 0}


def numpy_outputs(found, row, inputs):
    """Outputs of the stored tanh network, by the textbook."""
    w = {name[8:]: v[row] for name, v in found.items() if name.startswith("weights.")}
    h, outputs = np.tile(w["h0"], (len(inputs), 1)), []
    for t in range(inputs.shape[1]):
        h = np.tanh(h @ w["wR"].T + inputs[:, t] @ w["wI"].T + w["bR"])
        outputs.append(h @ w["wO"].T + w["bO"])
    return np.stack(outputs, axis=1)


@pytest.fixture(scope="module")
def stopped():
    """(parameters, results) of three networks that stop at their accuracy; the last one is too slow to get there."""
    params = Network(**SMALL, stop_at=0.9)
    return params, run_items(
        kernel, params, {"learning_rate": [0.02, 0.05, 1e-7]}, layout=Layout(2, 1)
    )


def test_accuracy_of_the_stored_network(stopped):
    params, found = stopped
    shared = kernel.load(inputs_of(params)).evaluation
    trials = [np.asarray(leaf) for leaf in shared]
    inputs, targets, mask, condition = trials
    for row in range(3):
        outputs = numpy_outputs(found, row, inputs)
        mean = lambda values: (values[..., 0] * mask).sum(1)
        right = np.sign(mean(outputs)) == np.sign(mean(targets))
        assert found["accuracy"][row] == pytest.approx(right.mean())
        shares = [right[condition == k].mean() for k in range(4)]
        np.testing.assert_allclose(found["condition_accuracy"][row], shares, rtol=1e-6)
        assert found["worst_accuracy"][row] == pytest.approx(min(shares))
        loss = (mask[..., None] * (outputs - targets) ** 2).sum() / mask.sum()
        assert found["eval_loss"][row] == pytest.approx(loss, rel=1e-4)


def test_training_stops_at_the_accuracy(stopped):
    _, found = stopped
    assert [kernel.outcomes[k].name for k in found["outcome"]] == ["trained"] * 3
    for row in range(3):
        blocks = int(np.isfinite(found["curve"][row]).sum())
        accuracy = found["accuracy_curve"][row]
        assert found["batches"][row] == 5 * blocks
        assert np.isfinite(accuracy[:blocks]).all()
        assert np.isnan(accuracy[blocks:]).all()
        assert accuracy[blocks - 1] == pytest.approx(found["accuracy"][row])
        assert (accuracy[: blocks - 1] < 0.9).all(), "it goes on until then"
        assert found["batches"][row] == 60 or found["accuracy"][row] >= 0.9
    assert found["batches"][0] < 60
    assert found["batches"][2] == 60


def test_conditions_are_coordinates(stopped):
    params, _ = stopped
    shared = kernel.load(inputs_of(params))
    found = kernel.coords(inputs_of(params), shared)
    np.testing.assert_array_equal(found["condition"].values, [-16, -4, 4, 16])
    # What the first saved trials show while the stimulus is on, but for its noise of 0.03.
    inputs = np.asarray(shared.evaluation.inputs)[:6, 1:9, 0].mean(axis=1) / 0.032
    np.testing.assert_allclose(found["trial"].values, inputs, atol=5 * 0.03 / 8**0.5 / 0.032)


def test_pictures(stopped):
    params, found = stopped
    shared, columns = kernel.load(inputs_of(params)), {"item": np.arange(3)}
    plots = kernel.display.plots(inputs_of(params), shared, columns, found, {})
    titles = {plot.title.partition(" of item")[0]: plot for plot in plots}
    assert {"Psychometric curves", "Outputs", "State space"} <= titles.keys()
    curves = plots[0]
    assert curves.layers[0].item.tolist() == [
        0,
        1,
        2,
    ]  # whoever draws groups them by what was swept
    (lines,) = titles["Psychometric curves"].layers
    share = found["condition_accuracy"]
    np.testing.assert_allclose(lines.y[:, 2:], share[:, 2:])
    np.testing.assert_allclose(lines.y[:, :2], 1 - share[:, :2])
    space = titles["State space"].layers[0]
    of = np.asarray(shared.evaluation.condition)[:6]
    np.testing.assert_array_equal(space.colour, np.array([-16, -4, 4, 16])[of])
    # The projections keep the distances that the first two components have.
    best = int(np.argmin(found["eval_loss"]))
    states = found["states"][best].reshape(-1, 8)
    expected = np.linalg.svd(states - states.mean(0))[1][:2] ** 2
    flat = np.stack([space.x.ravel(), space.y.ravel()])
    np.testing.assert_allclose((flat**2).sum(axis=1), expected, rtol=1e-3)


ONE_NETWORK = {"curve": np.ones((1, 1)), "eval_loss": np.ones(1), "train_loss": np.ones(1)}
ONE_NETWORK |= {"outcome": np.zeros(1, int)}
"""What every plot of a trained network reads."""


def test_conditions_without_a_trial_have_no_bar():
    """As of two trials, which cannot show all of a task: no median of nothing, of which NumPy warns."""
    task = {"name": "yang", "rule": "dm1", "n_ring": 4, "dt": 40, "time_scale": 0.2}
    params, seen = Network(**SMALL | {"task": task, "n_batches": 5}), [0, 2]
    assert len(params.task.conditions.values) > 2
    # NaN where no trial is: test_a_file_of_categories.
    share = np.full((1, len(params.task.conditions.values)), np.nan)
    share[0, seen] = [0.25, 0.75]
    found = ONE_NETWORK | {"accuracy": np.ones(1), "condition_accuracy": share}
    plots = kernel.display.plots(inputs_of(params), None, {"item": np.arange(1)}, found, {})
    bars, lines = next(plot for plot in plots if plot.title.startswith("Accuracy by")).layers
    np.testing.assert_array_equal(bars.left + 0.4, seen)
    np.testing.assert_array_equal(bars.height, share[0, seen])
    assert lines.y.shape == share.shape


def test_a_target_of_one_step_is_drawn():
    params = Network(**SMALL | {"task": tasks.Decision(n_steps=6), "n_batches": 5, "n_saved": 2})
    shared = kernel.load(inputs_of(params))
    results = ONE_NETWORK | {"outputs": np.zeros((1, 2, 6, 1))}
    results |= {"states": np.random.default_rng(0).normal(size=(1, 2, 6, 8))}
    plots = kernel.display.plots(inputs_of(params), shared, {"item": np.arange(1)}, results, {})
    (outputs,) = (p for p in plots if p.title.startswith("Outputs"))
    assert [layer.name for layer in outputs.layers] == ["output", "target"], "no line"
    points = outputs.layers[-1]
    np.testing.assert_array_equal(points.x, [5, 5])
    # Trials lie one below the other, 1.2 ranges apart.
    targets = np.asarray(shared.evaluation.targets)[:2, -1, 0]
    step = 1.2 * max(np.ptp(targets), 1e-9)
    np.testing.assert_allclose(points.y, targets / step + [1, 0], rtol=1e-6)


def test_states_are_drawn_to_the_last_step_of_any_output():
    task = tasks.FlipFlop(n_bits=2, n_steps=6)
    params = Network(**SMALL | {"task": task, "n_batches": 5, "n_saved": 2})
    shared = kernel.load(inputs_of(params))
    # As of a unit that was recorded for three steps alone.
    trials = shared.evaluation._replace(mask=np.ones((32, 6, 2)))
    trials.mask[:, 3:, 0] = 0
    results = ONE_NETWORK | {"outputs": np.zeros((1, 2, 6, 2))}
    results |= {"states": np.random.default_rng(0).normal(size=(1, 2, 6, 8))}
    columns, shared = {"item": np.arange(1)}, shared._replace(evaluation=trials)
    plots = kernel.display.plots(inputs_of(params), shared, columns, results, {})
    (space,) = (p for p in plots if p.title.startswith("State space"))
    assert np.isfinite(space.layers[0].x).all()


def test_weights_are_drawn_by_area_and_type():
    """Two areas of three units, of which two excite; in each of the three, weights grow with the unit."""
    dale = {"dale": True, "areas": 2, "mask": "random", "excitatory": 2 / 3, "n": 6}
    params = Network(**SMALL | dale | {"cell": "leaky", "n_batches": 5})
    weights = np.tile([1.0, 2, -3, 4, 5, -6], (6, 1)) + np.arange(6)[:, None] / 10
    results = ONE_NETWORK | {"weights.wR": weights[None]}
    shared = kernel.load(inputs_of(params))
    drawn = kernel.display.plots(inputs_of(params), shared, {"item": np.arange(1)}, results, {})[-1]
    image, borders = drawn.layers
    order = [1, 0, 2, 4, 3, 5]
    np.testing.assert_array_equal(image.z, weights[np.ix_(order, order)])
    assert sorted(set(borders.x[:3].ravel())) == [1.5, 2.5, 4.5]
    assert drawn.scale.low == -drawn.scale.high == -6
    assert "4 excitatory units before 2 inhibitory ones" in drawn.note


@pytest.mark.parametrize("whole", [False, True])
def test_weighted_loss_numpy(whole):
    """Squared error and cross-entropy from their formulas, masks over time or over time and outputs."""
    rng = np.random.default_rng(1)
    z, y = rng.normal(size=(5, 4, 3)), rng.dirichlet(np.ones(3), size=(5, 4))
    mask = rng.uniform(size=(5, 4, 3) if whole else (5, 4))
    w = mask if whole else np.repeat(mask[..., None], 3, axis=-1)
    p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    trials = tasks.Trial(z, y, mask)
    squared = np.divide(*weighted_loss("squared_error", z, trials))
    np.testing.assert_allclose(squared, (w * (z - y) ** 2).sum() / w.sum(), rtol=1e-5)
    entropy = np.divide(*weighted_loss("cross_entropy", z, trials))
    np.testing.assert_allclose(entropy, (w * -y * np.log(p)).sum() / (w.sum() / 3), rtol=1e-5)


CATEGORIES = SMALL | {"task": {"name": "file", "score": "category"}, "loss": "cross_entropy"}
CATEGORIES |= {"rank": 2, "batch_size": 1, "n_saved": 12}
"""Networks of rank 2 on the files below, which have arrays of the same shapes: one program."""


def test_a_file_of_categories(tmp_path):
    """A step says which of two categories a trial is of: learned by cross-entropy from a file.

    Of a third condition there is one trial, in training.
    """
    rng = np.random.default_rng(0)
    which = rng.integers(0, 2, 60)
    inputs = np.where(which, 1.0, -1.0)[:, None, None] + 0.1 * rng.normal(size=(60, 4, 1))
    targets = np.tile(np.eye(2)[which][:, None], (1, 4, 1))
    path = tmp_path / "trials.h5"
    conditions = np.where(np.arange(60) == 0, 20, 10 * which)
    write_hdf5(path, {"inputs": inputs, "targets": targets, "conditions": conditions})
    params = Network(**CATEGORIES, trials=str(path))
    found = run_items(kernel, params)
    assert found["accuracy"][0] == found["worst_accuracy"][0] == 1
    np.testing.assert_array_equal(found["condition_accuracy"][0], [1, 1, np.nan])
    assert found["outputs"].shape == (1, 12, 4, 2)
    shared = kernel.load(inputs_of(params))
    told = kernel.coords(inputs_of(params), shared)["condition"].values
    np.testing.assert_array_equal(told, [0, 10, 20])
    assert len(shared.evaluation.inputs) == 12
    outputs = numpy_outputs(found, 0, np.asarray(shared.evaluation.inputs))
    p = np.exp(outputs) / np.exp(outputs).sum(-1, keepdims=True)
    loss = -np.log((p * np.asarray(shared.evaluation.targets)).sum(-1)).mean()
    assert found["eval_loss"][0] == pytest.approx(loss, rel=1e-4)


@pytest.fixture(scope="module")
def weightless(tmp_path_factory):
    """(arrays, which trials have a weight, results) of a network on a file of chance: two of three trials have no weight."""
    rng = np.random.default_rng(0)
    counts = np.arange(60) % 3 == 0
    path = tmp_path_factory.mktemp("weightless") / "t.h5"
    targets = np.tile(np.eye(2)[rng.integers(0, 2, 60)][:, None], (1, 4, 1))
    arrays = {"inputs": rng.normal(size=(60, 4, 1)), "targets": targets}
    arrays |= {"mask": np.tile(counts[:, None], (1, 4)) * 1.0, "conditions": np.arange(60) // 20}
    write_hdf5(path, arrays)
    return arrays, counts, run_items(kernel, Network(**CATEGORIES, trials=str(path)))


def test_trials_without_weight_count_in_no_score(weightless):
    """Most minibatches of one trial have none: they teach nothing, and have no loss."""
    arrays, counts, found = weightless
    found = {k: v[0] for k, v in found.items()}
    assert (found["outcome"], found["batches"]) == (0, 60)
    assert (found["curve"][np.isfinite(found["curve"])] > 0).all()
    assert np.isfinite(found["train_loss"])
    held = counts[4::5]
    right = found["outputs"][:, -1].argmax(1) == arrays["targets"][4::5, -1].argmax(1)
    assert found["accuracy"] == pytest.approx(right[held].mean())
    assert found["accuracy"] < 1


def test_low_rank_training_stays_low_rank(weightless):
    arrays, _, found = weightless
    m, n, w = (found[name][0] for name in ("low_rank.m", "low_rank.n", "weights.wR"))
    np.testing.assert_allclose(w, m @ n.T / 8, rtol=1e-5, atol=1e-7)
    assert np.linalg.matrix_rank(w, tol=1e-5) == 2
    weights = {name: found[f"weights.{name}"][0] for name in get_cell("vanilla").axes}
    check_params("vanilla", weights, "here")
    outputs = numpy_outputs(found, 0, arrays["inputs"][4::5])
    np.testing.assert_allclose(found["outputs"][0], outputs, rtol=1e-4, atol=1e-5)


def test_networks_without_inputs_are_evaluated():
    cell, shape = get_cell("vanilla"), (5, 4)
    weights = cell.init(jax.random.key(0), 8, 0, 1)
    trials = tasks.Trial(
        jnp.zeros((*shape, 0)), jnp.ones((*shape, 1)), jnp.ones(shape), jnp.zeros(5, int)
    )
    static = static_of(Network(**SMALL | {"batch_size": 2}))
    _, outputs = jax.vmap(lambda x: run(cell, weights, x))(trials.inputs)
    loss = evaluate(static, Shared(trials), cell, weights).mean_loss()
    assert loss == pytest.approx(np.mean((np.asarray(outputs) - 1) ** 2), rel=1e-5)


MIXTURE = {"name": "yang", "rule": ["dm1", "delaygo"], "n_ring": 4, "dt": 100, "time_scale": 0.5}


def test_the_mixture_stores_the_accuracy_of_every_rule():
    params = Network(**SMALL | {"task": MIXTURE, "n_batches": 2, "report_every": 2, "n_saved": 3})
    shared = kernel.load(inputs_of(params))
    shapes = evaluated(kernel, static_of(params), shared, traced_of(params)).results
    assert shapes["condition_accuracy"].shape == (2,)
    assert shapes["worst_accuracy"].shape == ()
    found = kernel.coords(inputs_of(params), shared)
    assert list(found["condition"].values) == ["dm1", "delaygo"]
    assert set(found["trial"].values) <= {"dm1", "delaygo"}
    assert (found["time"].units, found["time"].values[:3].tolist()) == ("ms", [0, 100, 200])


BAD = {
    "no rule": {"task": "integrator", "stop_at": 0.9},
    "no score": {"task": "file", "stop_at": 0.9},
    "above 1": {"stop_at": 1.5},
    "two tasks": {"trials": "x.h5"},
    "loss": {"loss": "hinge"},
}


@pytest.mark.parametrize("changes", BAD.values(), ids=BAD)
def test_params_refused(changes):
    with refused(ValidationError):
        Network(**SMALL | changes)


@pytest.mark.parametrize(
    "task",
    [
        tasks.Decision(n_steps=6),
        MIXTURE,
    ],
    ids=["decision", "yang"],
)
def test_cross_entropy_needs_probabilities(task):
    params = Network(**SMALL | {"task": task}, loss="cross_entropy")
    with refused(ValueError):
        kernel.load(inputs_of(params))
