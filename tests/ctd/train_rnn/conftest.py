"""What two files of these tests train, so that its programs are compiled once."""

import pytest

from ctd import tasks
from ctd.batch import Layout
from ctd.train_rnn import Network


@pytest.fixture(scope="session")
def noisy_dale():
    """(parameters, layout) of networks with noise, Dale's law and a mask."""
    params = Network(
        cell="leaky:relu",
        task=tasks.Integrator(n_steps=5),
        n=10,
        batch_size=4,
        n_batches=4,
        report_every=2,
        n_eval=8,
        n_saved=2,
        l2=0.0,
        adam_eps=1e-7,
        dale=True,
        mask="random",
        density=0.6,
        self_connections=False,
        noise=True,
        learning_rate=0.05,
    )
    return params, Layout(8, 1)  # item by item a program compiles in less time
