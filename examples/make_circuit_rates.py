"""Write circuit_rates.h5: rates of 12 units in which a circuit of four nodes is mixed, for `latent_circuit`.

    python make_circuit_rates.py

Two constant inputs drive a node each. The first suppresses the second's node and drives the first output, as a cue that says which input
decides; the second drives the second output. Datasets: `inputs`, `targets`, `rates` (trial, time, ...), and the circuit's `weights` (node, node_from).
"""

from pathlib import Path

import numpy as np

from ctd.data import write_hdf5

WEIGHTS = np.array([[0, 0, 0, 0], [-0.8, 0, 0, 0], [0.9, 0, 0, 0], [0, 0.9, 0, 0]])
TRIALS, STEPS, UNITS, ALPHA = 50, 20, 12, 0.2


def make(seed: int = 0) -> dict[str, np.ndarray]:
    """The datasets by name."""
    rng = np.random.default_rng(seed)
    inputs = np.repeat(rng.uniform(0, 1, (TRIALS, 1, 2)), STEPS, axis=1)
    x, found = np.zeros((TRIALS, 4)), []
    for t in range(STEPS):
        drive = x @ WEIGHTS.T + np.pad(inputs[:, t], ((0, 0), (0, 2)))
        x = x + ALPHA * (-x + np.maximum(drive, 0))
        found.append(x)
    nodes = np.stack(found, axis=1)
    mixed, _ = np.linalg.qr(rng.normal(size=(UNITS, 4)))
    trials = {"inputs": inputs, "targets": nodes[..., 2:], "rates": nodes @ mixed.T}
    return {k: v.astype("float32") for k, v in trials.items()} | {"weights": WEIGHTS}


if __name__ == "__main__":
    write_hdf5(Path(__file__).with_name("circuit_rates.h5"), make())
