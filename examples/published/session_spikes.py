"""Kernel: sessions of the chaotic network of the original LFADS generator (tensorflow/models, research/lfads, synth_data).

tau x' = -x + J tanh(x), J ~ N(0, g^2 / n), g 1.5, 50 neurons, tau 25 ms, dt 10 ms, 1 s, no inputs; a condition is an initial
state; rates from 0 to 30 Hz; each condition is spiked several times, every fifth spiking is for evaluation. A session records some of the neurons,
spiked anew.
"""

from typing import Any

import numpy as np

from ctd.kernel import Data, Params, Static, Var, one_shot

N, G, TAU, DT, SECONDS, MOST_HZ = 50, 1.5, 0.025, 0.01, 1.0, 30.0


class Session(Params):
    """The parameters of one session."""

    conditions: Static[int] = 40
    spikings: Static[int] = 10
    units: Static[int] = 15
    session: Data[int] = 0
    network: Data[int] = 0


def rates_of(conditions: int, seed: int) -> np.ndarray:
    """(condition, time, neuron) mean counts of a bin."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(N, N)) * G / np.sqrt(N)
    x = rng.normal(size=(conditions, N))
    rates = []
    for _ in range(round(SECONDS / DT)):
        x = x + DT / TAU * (-x + np.tanh(x) @ weights.T)
        rates.append((np.tanh(x) + 1) / 2 * MOST_HZ * DT)
    return np.stack(rates, axis=1)


def load(inputs: Any) -> dict[str, np.ndarray]:
    """The trials of a session."""
    rng = np.random.default_rng((inputs.network, inputs.session))
    units = np.sort(rng.choice(N, inputs.units, replace=False))
    condition = np.tile(np.arange(inputs.conditions), inputs.spikings)
    evaluation = np.repeat(np.arange(inputs.spikings) % 5 == 4, inputs.conditions)
    mine = rates_of(inputs.conditions, inputs.network)[condition][..., units]
    spikes = rng.poisson(mine)
    return {
        "train": spikes[~evaluation],
        "train_condition": condition[~evaluation],
        "eval": spikes[evaluation],
        "eval_rates": mine[evaluation],
        "bin_s": np.array(DT),
    }


DIMS = {
    "train": Var(("train_trial", "time", "unit"), "1", "counts to train on"),
    "train_condition": Var(("train_trial",), "1", "condition of each of these trials"),
    "eval": Var(("eval_trial", "time", "unit"), "1", "counts to evaluate with"),
    "eval_rates": Var(("eval_trial", "time", "unit"), "1", "true mean counts"),
    "bin_s": Var((), "s", "length of a bin"),
}
kernel = one_shot(
    "session_spikes", Session, DIMS, lambda static, shared, traced, key: dict(shared), load=load
)
