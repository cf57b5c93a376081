"""Make `lfads_spikes.h5`: spikes of 30 neurons that follow an integrator, with the truth behind them.

    python examples/make_lfads_spikes.py [PATH]

The hidden input of a trial is that of the task `integrator`, z its running sum. Neuron i has the state
tanh(a_i z + b_i) and fires at up to 80 spikes/s, drawn in bins of 1/25 s.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ctd import tasks
from ctd.data import write_hdf5

PATH = Path(__file__).with_name("lfads_spikes.h5")
N_TRAIN, N_EVAL, N_UNITS = 640, 160, 30


def main(path: Path) -> None:
    task = tasks.Integrator()
    key_trials, key_slope, key_offset, key_spikes = jax.random.split(jax.random.key(0), 4)
    trials = tasks.batch(task, key_trials, N_TRAIN + N_EVAL)
    # z has a standard deviation of about 0.55 over all trials and steps.
    slope = 3 * jax.random.normal(key_slope, (N_UNITS,))
    states = jnp.tanh(slope * trials.targets + 0.5 * jax.random.normal(key_offset, (N_UNITS,)))
    dt = task.duration / task.n_steps
    rates = tasks.rates_from_states(states, max_rate=80.0)
    spikes = tasks.spikes_from_rates(key_spikes, rates, dt)
    counts = np.asarray(spikes, np.uint8)
    arrays = {
        "train": counts[:N_TRAIN],
        "eval": counts[N_TRAIN:],
        "eval_rates": np.asarray(rates[N_TRAIN:] * dt, np.float16),
        "eval_inputs": np.asarray(trials.inputs[N_TRAIN:], np.float32),
    }
    write_hdf5(path, arrays)
    print(f"{path}: {', '.join(f'{name} {a.shape}' for name, a in arrays.items())}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else PATH)
