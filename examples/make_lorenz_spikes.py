"""Make `lorenz_spikes.h5`: spikes of 30 neurons that read out a chaotic system, with the true rates.

    python examples/make_lorenz_spikes.py [PATH]

As in the tests of LFADS (Pandarinath et al. 2018): 32 initial states on the attractor of Lorenz's equations, each 20 times with
fresh Poisson spikes, 16 to train on, 4 to evaluate with. Neuron i fires at 15 exp(w_i . s) spikes/s. w_i lies on the unit sphere;
each coordinate of the state s is scaled to mean 0 and variance 1, so that log rates vary by about 1.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ctd import tasks
from ctd.cells import runge_kutta
from ctd.data import write_hdf5

PATH = Path(__file__).with_name("lorenz_spikes.h5")
N_CONDITIONS, N_TRIALS, N_TRAIN, N_NEURONS, N_BINS = 32, 20, 16, 30, 100
BIN_S, BASE_RATE = 0.01, 15.0
"""Length of a bin (s), which is 0.01 time units of the system, too; rate at the mean state (spikes/s)."""
SETTLE = 1000
"""Steps that are discarded: the transient to the attractor lasts a few time units."""


def flow(s):
    """dx/dt = 10 (y - x), dy/dt = x (28 - z) - y, dz/dt = x y - 8/3 z (Lorenz 1963)."""
    x, y, z = s
    return jnp.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z])


def lorenz(start, n_steps, dt=0.01):
    """The states (n_steps, 3) after each of the Runge-Kutta steps of dt from `start` (3,)."""
    step = lambda s, _: (runge_kutta(flow, s, dt),) * 2
    return jax.lax.scan(step, start, length=n_steps)[1]


def draw(key):
    """Spikes (condition, trial, bin, neuron), rates (condition, bin, neuron) in spikes/s, states (condition, bin, 3)."""
    key_start, key_weights, key_spikes = jax.random.split(key, 3)
    # Near the height z = 27 of the two unstable fixed points, between the wings around them.
    start = jnp.array([0.0, 0.0, 25.0]) + jax.random.normal(key_start, (N_CONDITIONS, 3))
    raw = jax.vmap(lambda s: lorenz(s, SETTLE + N_BINS)[SETTLE:])(start)
    states = (raw - raw.mean((0, 1))) / raw.std((0, 1))
    # Uniform on the sphere: no coordinate of the system is seen better than another.
    weights = jax.random.normal(key_weights, (3, N_NEURONS))
    rates = BASE_RATE * jnp.exp(states @ (weights / jnp.linalg.norm(weights, axis=0)))
    repeated = jnp.broadcast_to(rates[:, None], (N_CONDITIONS, N_TRIALS, N_BINS, N_NEURONS))
    return tasks.spikes_from_rates(key_spikes, repeated, BIN_S), rates, states


def main(path: Path) -> None:
    spikes, rates, _ = map(np.asarray, draw(jax.random.key(0)))
    counts = spikes.astype(np.uint8)
    rates = np.repeat(rates[:, None] * BIN_S, N_TRIALS - N_TRAIN, axis=1)
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
