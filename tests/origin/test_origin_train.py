"""Steps of training against the tutorials' loop in NumPy (tests/support/origin.py)."""

import jax
import numpy as np
import origin
import pytest
from stores import item_of

from ctd import train_rnn
from ctd.batch import Layout, run_items
from ctd.kernel import static_of, traced_of
from ctd.train_rnn.loss import eval_trials, minibatch
from ctd.training import item_keys


def as_numpy(trials):
    return np.asarray(trials.inputs), np.asarray(trials.targets)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cell", "step", "task", "mask"),
    [
        ("gru", origin.gru, "decision", np.array([5])),
        # What differs is the cell, whose formula tests/ctd/cells/test_cells.py holds, and the task.
        pytest.param(
            "vanilla", origin.vrnn, "integrator", np.arange(6), marks=pytest.mark.endurance
        ),
        pytest.param(
            "gru_candidate_bias",
            origin.gru_before_2020,
            "decision",
            np.array([5]),
            marks=pytest.mark.endurance,
        ),
    ],
    ids=["gru", "vanilla", "gru-candidate"],
)
def test_train_steps(job, cell, step, task, mask):
    """Four steps of the origin's loop from the same weights on the same trials, their losses, and the evaluation loss.

    Of this project there are only the trials and, by its program with steps too small to move anything,
    the first weights. Gradients are complex steps of the origin's loss; of two networks, one has its gradients clipped.
    """
    task = {"name": task, "n_steps": 6, "sd": 0.1}
    params = {"cell": cell, "task": task, "n": 4, "batch_size": 4, "n_batches": 4}
    params |= {"report_every": 3, "n_eval": 8, "n_saved": 8, "dtype": "float64"}
    params |= {"learning_rate": 0.03, "decay": 0.9, "l2": 0.01, "adam_eps": 0.1}
    # A gradient of these networks has a norm of 0.4 to 5: the first of these clips it.
    clip_norms = [0.05, 10.0]
    still = train_rnn.Network(**params | {"learning_rate": 1e-300})
    first = run_items(train_rnn.kernel, still, {"clip_norm": clip_norms}, layout=Layout(4, 1))
    trained = job("train_rnn", params, sweep={"grid": {"clip_norm": clip_norms}})
    weights = lambda values: {
        name.removeprefix("weights."): value
        for name, value in values.items()
        if name.startswith("weights.")
    }
    network = train_rnn.Network(**params)
    with jax.enable_x64(True):
        inputs, targets = as_numpy(eval_trials(network.task, 8, np.float64))
        draw = jax.jit(lambda key, i: minibatch(static_of(network), (), key, i))
    for item, clip_norm in enumerate(clip_norms):
        with jax.enable_x64(True):
            key = jax.random.fold_in(jax.random.key(0), item)
            _, key_data = item_keys(key, traced_of(network))
            batches = [as_numpy(draw(key_data, i)) for i in range(4)]
        start = weights({name: values[item] for name, values in first.items()})
        found = item_of(trained, item)
        expected, losses = origin.train(step, start, batches, mask, 0.01, clip_norm, 0.03, 0.9, 0.1)
        # A block is three steps, and what is left. The origin's loss has the penalty, this project's curve has not.
        curve = [np.mean(losses[:3]), losses[3]]
        np.testing.assert_allclose(found["curve"], curve, rtol=1e-12)
        for name, value in weights(found).items():
            # Rounding through six steps forth and back; a step moves weights by up to 0.03.
            np.testing.assert_allclose(value, expected[name], rtol=0, atol=1e-12, err_msg=name)
        moved = max(abs(expected[name] - start[name]).max() for name in start)
        assert moved > 1e-3, "the test can fail"
        expected = origin.loss(step, weights(found), inputs, targets, mask, 0.0)
        assert float(found["eval_loss"]) == pytest.approx(expected, rel=1e-12)
        for k in range(8):
            hiddens, outputs = origin.run(step, weights(found), inputs[k])
            np.testing.assert_allclose(found["states"][k], hiddens, rtol=0, atol=1e-13)
            np.testing.assert_allclose(found["outputs"][k], outputs, rtol=0, atol=1e-13)
