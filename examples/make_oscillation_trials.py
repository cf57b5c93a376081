"""Write oscillation_trials.h5: one trial of the oscillation of DePasquale et al. 2018, for `full_force`.

    python make_oscillation_trials.py

A pulse of 50 ms asks for a sine whose frequency rises from 1 Hz in one second; the next second is the first, backwards and
with the other sign. Steps of 1 ms. Datasets: `inputs` (trial, time, 1) and `targets` (trial, time, 1).
"""

from pathlib import Path

import numpy as np

from ctd.data import write_hdf5

t = np.linspace(0, 1, 1001)
rising = np.sin((2 * np.pi + 4 * np.pi * t) * t)
wanted = np.concatenate([rising[:-1], -rising[::-1]])
pulse = np.arange(len(wanted)) < 50
arrays = {"inputs": pulse[None, :, None] * 1.0, "targets": wanted[None, :, None]}
write_hdf5(Path(__file__).parent / "oscillation_trials.h5", arrays)
