"""Kernel: spikes of neurons that follow a chaotic system, by the recipe of Sedler, Versteeg & Pandarinath 2023 (arXiv 2212.03771).

Trials of 70 bins, 100 (Lorenz) or 35 (Arneodo, Roessler) a period; 10 readouts with weights U(-.5, .5), each standardised; their exp is
the mean count of a bin. `file` reads the authors' own spikes instead: one of the folder `datasets` of
github.com/snel-repo/expressive-latent-dynamics-paper. Trials made here start anywhere on the attractor, theirs follow each other.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np

from ctd.cells import runge_kutta
from ctd.data import read_hdf5
from ctd.kernel import Data, File, Params, Static, Var, one_shot

BINS, UNITS = 70, 10


class System(NamedTuple):
    """Equations, parameters and periods after Gilpin 2021 (arXiv 2110.05266), of which theirs are made."""

    field: Callable[..., tuple[np.ndarray, ...]]
    """dx/dt, dy/dt, dz/dt of x, y, z."""
    bin: float
    """Length of a bin in units of the system's time."""
    start: tuple[float, float, float]
    """In the attractor's basin."""
    spread: float
    """sd of the states that trials come from, around the start."""


SYSTEMS = {
    "lorenz": System(
        lambda x, y, z: (10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z), 0.0150081, (0, 0, 25), 8
    ),
    "arneodo": System(
        lambda x, y, z: (y, z, 5.5 * x - 4.5 * y - z - x**3), 3.1641 / 35, (-2.75, 0.19, 3.47), 0.1
    ),
    "rossler": System(
        lambda x, y, z: (-y - z, x + 0.2 * y, 0.2 + z * (x - 5.7)), 5.9086 / 35, (6.51, 0.48, 0.34), 0.1
    ),
}  # fmt: skip
THEIRS = {
    "train": "train_data", "eval": "valid_data", "eval_rates": "valid_activity", "eval_states": "valid_latents",
}  # fmt: skip


class Attractor(Params):
    """The parameters of one data set."""

    system: Data[Literal["lorenz", "arneodo", "rossler"]] = "lorenz"
    file: File[str | None] = None
    n_train: Static[int] = 1280
    n_eval: Static[int] = 320
    seed: Data[int] = 0


def states_of(system: System, n: int, seed: int) -> np.ndarray:
    """(trial, time, 3) states of a system, from anywhere on its attractor."""

    def field(h: np.ndarray) -> np.ndarray:
        return np.stack(system.field(*h.T), axis=1)

    def step(h: np.ndarray) -> np.ndarray:
        for _ in range(2):
            h = runge_kutta(field, h, system.bin / 2)
        return h

    h = np.random.default_rng(seed).normal(size=(n, 3)) * system.spread + system.start
    for _ in range(2000):
        h = step(h)
    states = []
    for _ in range(BINS):
        states.append(h := step(h))
    return np.stack(states, axis=1)


def load(inputs: Any) -> dict[str, np.ndarray]:
    """The trials: made here, or the first ones of the authors' file."""
    if inputs.file is not None:
        found = read_hdf5(inputs.file)
        counts = {name: inputs.n_train if name == "train" else inputs.n_eval for name in THEIRS}
        return {ours: found[theirs][: counts[ours]] for ours, theirs in THEIRS.items()}
    rng = np.random.default_rng(inputs.seed)
    states = states_of(SYSTEMS[inputs.system], inputs.n_train + inputs.n_eval, inputs.seed)
    activity = states @ rng.uniform(-0.5, 0.5, (3, UNITS))
    rates = np.exp((activity - activity.mean((0, 1))) / activity.std((0, 1)))
    spikes, k = rng.poisson(rates), inputs.n_train
    truth = {"eval_rates": rates[k:], "eval_states": states[k:]}
    return {"train": spikes[:k], "eval": spikes[k:], **truth}


DIMS = {
    "train": Var(("train_trial", "time", "unit"), "1", "counts to train on"),
    "eval": Var(("eval_trial", "time", "unit"), "1", "counts to evaluate with"),
    "eval_rates": Var(("eval_trial", "time", "unit"), "1", "true mean counts"),
    "eval_states": Var(("eval_trial", "time", "state"), "1", "true states"),
}
kernel = one_shot(
    "attractor_spikes", Attractor, DIMS, lambda static, shared, traced, key: dict(shared), load=load
)
