"""Write lorenz_recording.npy: 5,000 samples of Lorenz's equations with 5 % observation noise, for `reconstruct`.

    python make_lorenz_recording.py

x, y, z (time, channel) have mean 0 and variance 1 on the attractor; samples are 0.01 time units apart.
"""

from pathlib import Path

import numpy as np

from ctd.esn.series import lorenz

x = lorenz(5000, dt=0.01, seed=1)
x += 0.05 * np.random.default_rng(1).standard_normal(x.shape)
np.save(Path(__file__).parent / "lorenz_recording.npy", x.astype(np.float32))
