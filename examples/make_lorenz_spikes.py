"""Make `lorenz_spikes.h5`: spikes of 30 neurons that read out a chaotic system, with the true rates.

    python examples/make_lorenz_spikes.py [PATH]

32 initial states on the attractor of Lorenz's equations, each 20 times with fresh Poisson spikes: 16 to train on,
4 to evaluate with. See `ctd.tasks.lorenz_spikes`.
"""

import sys
from pathlib import Path

import jax
import numpy as np

from ctd import tasks
from ctd.data import write_hdf5

PATH = Path(__file__).with_name("lorenz_spikes.h5")
N_CONDITIONS, N_TRIALS, N_TRAIN = 32, 20, 16
BIN_S = 0.01


def main(path: Path) -> None:
    made = tasks.lorenz_spikes(
        jax.random.key(0), n_conditions=N_CONDITIONS, n_trials=N_TRIALS, bin_s=BIN_S, base_rate=15.0
    )
    counts = np.asarray(made["spikes"], np.uint8)
    rates = np.repeat(np.asarray(made["rates"])[:, None] * BIN_S, N_TRIALS - N_TRAIN, axis=1)
    flat = lambda a: a.reshape(-1, *a.shape[2:])
    arrays = {
        "train": flat(counts[:, :N_TRAIN]),
        "eval": flat(counts[:, N_TRAIN:]),
        "eval_rates": flat(rates).astype(np.float16),
    }
    write_hdf5(path, arrays)
    print(f"{path}: {', '.join(f'{name} {a.shape}' for name, a in arrays.items())}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else PATH)
