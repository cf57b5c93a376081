"""The bookkeeping of training, and what a diverged network leaves behind.

Every step against Adam written out: tests/origin/.
"""

import jax
import numpy as np
import pytest
from messages import refused
from pydantic import ValidationError
from small import FOUR, SMALL

from ctd import tasks
from ctd.batch import Run, evaluated, program, run_items, traced_columns
from ctd.cells import CELLS, check_params, get_cell
from ctd.kernel import inputs_of, static_of, traced_of
from ctd.plots import Lines
from ctd.train_rnn import Network, kernel
from ctd.train_rnn.loss import Shared, eval_trials, minibatch

TASK = tasks.Integrator(n_steps=6)


def small(**changes):
    """The smallest case of the kernel. Changes of traced fields share its compiled program, that of the contract's tests."""
    return Network(**SMALL["train_rnn"] | {"learning_rate": 0.02} | changes)


def weights_of(results, params, row=0):
    return {name: results[f"weights.{name}"][row] for name in get_cell(params.cell).axes}


def item_key(item=0, seed=0):
    return jax.random.fold_in(jax.random.key(seed), item)


# --- minibatches --------------------------------------------------------------------------------


def numpy_vanilla(w, inputs):
    """Outputs of the tanh network on a batch, by the textbook."""
    h, outputs = np.tile(w["h0"], (len(inputs), 1)), []
    for t in range(inputs.shape[1]):
        h = np.tanh(h @ w["wR"].T + inputs[:, t] @ w["wI"].T + w["bR"])
        outputs.append(h @ w["wO"].T + w["bO"])
    return np.stack(outputs, axis=1)


def test_minibatch_each_step_its_own():
    static = static_of(small())
    draw = jax.jit(lambda key, step: minibatch(static, (), key, step).inputs)
    first, other = ([np.asarray(draw(item_key(k), i)) for i in range(20)] for k in range(2))
    trials = np.concatenate(first + other).reshape(-1, TASK.n_steps)
    assert len(np.unique(trials, axis=0)) == 2 * 20 * static.batch_size
    np.testing.assert_array_equal(draw(item_key(), 3), first[3])


# --- bookkeeping ----------------------------------------------------------------------------------


def test_results_bookkeeping():
    params = small(l2=0.1)
    results = run_items(kernel, params, layout=FOUR)
    check_params("vanilla", weights_of(results, params), "here")
    assert results["curve"].shape == (1, 3)
    np.testing.assert_array_equal(
        kernel.coords(params, kernel.load(inputs_of(params)))["batch"].values, [3, 6, 7]
    )
    assert results["batches"] == 7
    assert kernel.outcomes[results["outcome"][0]].name == "trained"
    assert results["train_loss"] == results["curve"][0, -1]
    for name, value in results.items():
        assert value.ndim == 1 + len(kernel.dims[name].axes), name
    # 12 evaluation trials in minibatches of 5: the mean over all, without the L2 penalty.
    weights, trials = weights_of(results, params), eval_trials(TASK, 12)
    outputs = numpy_vanilla(weights, np.asarray(trials.inputs))
    loss = np.mean((outputs - trials.targets) ** 2)
    np.testing.assert_allclose(results["eval_loss"][0], loss, rtol=1e-5)
    np.testing.assert_allclose(results["outputs"][0], outputs[:4], rtol=1e-5, atol=1e-6)
    read = results["states"][0] @ weights["wO"].T + weights["bO"]
    np.testing.assert_allclose(read, outputs[:4], rtol=1e-5, atol=1e-6)


def test_networks_differ_by_item_and_seed():
    together = run_items(kernel, small(), {"seed": [0, 0, 1]}, layout=FOUR)
    rows = together["weights.wR"]
    assert min(np.abs(rows[i] - rows[j]).max() for i in range(3) for j in range(i)) > 0.1
    again = run_items(kernel, small(), {"seed": [0, 0]}, layout=FOUR)
    for name, value in again.items():
        np.testing.assert_array_equal(value, together[name][:2], err_msg=name)


@pytest.mark.endurance
@pytest.mark.parametrize("cell", sorted({*CELLS} - {"gru", "vanilla"}))
def test_every_cell_learns(cell):
    """Always: gradients of each cell (tests/ctd/cells/test_cells.py), the first weights of an lstm, whose state is two numbers a unit
    (test_constraints.py), and training of gru step by step (tests/origin/), vanilla (test_accuracy.py) and leaky (test_readout.py).
    """
    fast = {"alpha_min": 0.3, "alpha_max": 0.7}
    fast |= {"alpha": 0.5} if "alpha" in get_cell(cell).axes else {}
    params = small(
        cell=cell, n=16, n_batches=60, report_every=20, batch_size=16, learning_rate=0.05, **fast
    )
    results = run_items(kernel, params)
    curve = results["curve"][0]
    assert curve[-1] < 0.5 * curve[0]
    check_params(cell, weights_of(results, params), "here")
    if cell == "leaky":
        assert results["weights.alpha"] == np.float32(0.5)


def test_own_task_by_dotted_path(tmp_path, monkeypatch):
    (tmp_path / "mylab.py").write_text(
        "from typing import ClassVar\n"
        "import jax, jax.numpy as jnp\n"
        "from ctd.tasks import Task, Trial\n"
        "class Echo(Task):\n"
        "    gain: float = 1.0\n"
        "    n_in: ClassVar[int] = 2\n"
        "    n_out: ClassVar[int] = 2\n"
        "    def trial(self, key, dtype):\n"
        "        x = jax.random.normal(key, (self.n_steps, 2), dtype)\n"
        "        return Trial(x, self.gain * x, jnp.ones(self.n_steps, dtype))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    params = small(task={"name": "mylab.Echo", "gain": 0.5, "n_steps": 3})
    shared = kernel.load(inputs_of(params))
    found = evaluated(kernel, static_of(params), shared, traced_of(params))
    assert found.state.parameters["wI"].shape == (8, 2)
    assert found.results["outputs"].shape == (4, 3, 2)


# --- divergence -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "batches"),
    [
        (1e6, 3),  # the loss grows: seen at the end of the block
        (1e38, 1),  # the loss overflows: no step is taken from there on
    ],
)
def test_diverged_is_data(rate, batches):
    """A network that runs away stops early with finite weights; its neighbour is untouched."""
    both = run_items(kernel, small(), {"learning_rate": [0.02, rate]}, layout=FOUR)
    calm = run_items(kernel, small(), {"learning_rate": [0.02, 0.02]}, layout=FOUR)
    assert [kernel.outcomes[k].name for k in both["outcome"]] == ["trained", "diverged"]
    assert kernel.outcomes[1].failed
    assert both["batches"][1] == batches
    assert np.isnan(both["curve"][1, 1:]).all()
    assert np.isfinite(both["train_loss"]).all()
    check_params("vanilla", weights_of(both, small(), 1), "here")
    for name, value in both.items():
        np.testing.assert_array_equal(value[0], calm[name][0], err_msg=name)


def further(step, first, learning_rate):
    """Two networks before any training that are told to have taken `step` steps, the first with the loss `first`; a block later."""
    params, n = small(), len(learning_rate)
    columns = {name: np.repeat(value, n) for name, value in traced_of(params)._asdict().items()}
    traced = traced_columns(Network, columns | {"learning_rate": learning_rate}, "float32")
    made = program(kernel, static_of(params), FOUR)
    run = Run(made, kernel.load(inputs_of(params)), 0, np.arange(n), traced)
    slots = FOUR.slots
    told = {"step": np.full(slots, step, np.int32), "first": np.full(slots, first, np.float32)}
    # Placed as what they replace: JAX compiles the advance anew for arrays that lie elsewhere.
    run._slots = run._slots._replace(state=run._slots.state._replace(**run._send(told)))
    run.advance()
    return run


def test_a_small_first_loss_is_no_measure():
    """As that of a minibatch of one trial may be by chance."""
    state = further(3, 1e-9, [0.02, 0.02])._slots.state
    assert not np.asarray(state.diverged).any()
    np.testing.assert_array_equal(state.step[:2], 6)


def test_a_network_that_explodes_at_its_last_step_has_diverged():
    """The loss of that step, taken before it, is as small as ever."""
    run = further(6, 1, [1e30, 1e-3])
    assert run.finished
    np.testing.assert_array_equal(run._slots.state.diverged, False)
    assert run.results["outcome"].tolist() == [1, 0], run.results["eval_loss"]
    assert np.isfinite(run.results["train_loss"]).all()


@pytest.mark.parametrize("outcome", [(0, 1, 0, 0), (1, 1, 1, 1)])
def test_reduce_and_figure(outcome):
    # The third stopped at its accuracy after two blocks.
    curves = np.array([[3, 1, 0.5], [9, np.nan, np.nan], [3, 2, np.nan], [5, 3, 0.1]], np.float32)
    results = {
        "outcome": np.array(outcome),
        "curve": curves,
        "train_loss": np.nanmin(curves, axis=1),
        "eval_loss": np.array([0.4, np.nan, 0.9, 0.2]),
    }
    columns, options = {"item": np.array([10, 11, 12, 13])}, kernel.tables.Options(n_best=2)
    trials = eval_trials(TASK, 12)
    reduced = kernel.tables.reduce(small(), Shared(trials), columns, results, options)
    np.testing.assert_array_equal(reduced["inputs"], trials.inputs[:4])
    np.testing.assert_array_equal(reduced["targets"], trials.targets[:4])
    np.testing.assert_array_equal(reduced["mask"], trials.mask[:4, :, None])
    assert list(reduced["item"]) == ([] if all(outcome) else [13, 10])
    for name, value in reduced.items():
        assert value.ndim == len(kernel.tables.dims[name].axes), name
    if not all(outcome):
        np.testing.assert_allclose(reduced["curve_quantile"][1], [3, 2, 0.3])
    plot, losses = kernel.display.plots(small(), Shared(trials), columns, results, reduced)[:2]
    assert losses.title == "Evaluation against training loss"
    # The curves are of the training loss. Lines of diverged networks have no colour of it.
    assert plot.scale.label == ("" if all(outcome) else "log10 evaluation loss")
    lines = {layer.name: layer for layer in plot.layers if isinstance(layer, Lines)}
    trained = np.flatnonzero(np.array(outcome) == 0)
    assert set(lines) == {
        "diverged",
        *(["networks"] if len(trained) else []),
    }  # too few for a median
    assert len(lines["diverged"].y) == outcome.count(1)
    if len(trained):
        np.testing.assert_array_equal(lines["networks"].y, curves[trained])
    of_file = small(task="file", trials="data/trials.npz")
    plot = kernel.display.plots(of_file, Shared(trials), columns, results, reduced)[0]
    assert plot.title.endswith(", trials of trials.npz")


# --- parameters -----------------------------------------------------------------------------------

BAD = {
    "cell": {"cell": "grru"},
    "task": {"task": "decisoin"},
    "saved": {"n_saved": 13},
    "rate": {"learning_rate": 0},
    "field": {"n_units": 3},
}


@pytest.mark.parametrize("changes", BAD.values(), ids=BAD)
def test_params_refused(changes):
    with refused(ValidationError):
        small(**changes)


def test_longer_training_is_proposed_without_its_end_by_accuracy():
    proposed = kernel.display.next_jobs(Network(stop_at=0.9, n_batches=50), "net.zarr::0", {})
    assert proposed["train another for longer"]["params"] == {"n_batches": 100}


def test_fixed_points_after_trials_of_a_file_are_sought_from_saved_states():
    network = Network(task=tasks.Recorded(), trials="trials.npz", n_saved=4)
    assert "its fixed points" not in kernel.display.next_jobs(network, "net.zarr::0", {})
    job = kernel.display.next_jobs(network, "net.zarr::0", {"states": (4, 20, 8)})[
        "its fixed points"
    ]
    assert job["sweep"] == {"grid": {"candidate": {"range": 80}}}
    assert job["params"] == {
        "weights": "net.zarr::0",
        "candidates": "net.zarr::0::results",
        "dataset": "states",
    }


@pytest.mark.parametrize("task", [tasks.Mante(), tasks.ContextualIntegrator()])
def test_fixed_points_are_proposed_for_each_context(task):
    proposed = kernel.display.next_jobs(Network(task=task), "net.zarr::0", {})["its fixed points"]
    x = np.array(proposed["sweep"]["grid"]["x"])
    assert (x[:, :2] == 0).all(), "no stimulus"
    trials = eval_trials(task, 16)
    np.testing.assert_array_equal(
        np.unique(trials.inputs[:, 10, 2:], axis=0), x[::-1, 2:].astype("f4")
    )
