"""Noise in training and in evaluation, each on its own."""

import jax
import numpy as np

from ctd.batch import run_items
from ctd.cells import get_cell, run
from ctd.train_rnn import kernel


def test_noise_in_training_and_evaluation_each_on_its_own(noisy_dale):
    """Without noise the trajectories of a trial are those of `run`; noise of one kind leaves the other alone."""
    params, layout = noisy_dale
    in_training = ["state_noise", "input_noise", "initial_noise"]
    names = [*in_training, "eval_state_noise", "eval_input_noise"]
    loud = {name: 0.5 * (np.arange(6) == k) for k, name in enumerate(names, start=1)}
    quiet = {name: np.zeros(6) for name in names}
    with_noise = run_items(kernel, params, loud, layout=layout)
    without = run_items(kernel, params, quiet, layout=layout)
    differs = lambda name: [
        not np.array_equal(with_noise[name][k], without[name][k]) for k in range(6)
    ]
    assert differs("weights.wR") == [False, True, True, True, False, False]
    assert differs("curve") == [False, True, True, True, False, False]
    assert differs("states") == [False, True, True, True, True, True]
    weights = {k[8:]: v[0] for k, v in without.items() if k.startswith("weights.")}
    trials = kernel.load(params).evaluation
    plain = jax.jit(jax.vmap(lambda x: run(get_cell(params.cell), weights, x)[0]))(
        trials.inputs[:2]
    )
    np.testing.assert_allclose(without["states"][0], plain, rtol=1e-5, atol=1e-6)
