"""Make `nlb_bits.h5`: bits_per_spike of nlb_tools.evaluation on random counts and rates.

    uv run --script tests/data/make_nlb_bits.py [FILE]      (made with nlb_tools 0.0.4)

It needs an environment of its own, the one that the lines below describe: nlb_tools asks for a pandas
that this project, and every Python since 3.11, is too new for. Its bits_per_spike needs no pandas.

For each case: counts and rates (trial, time, unit), and bits (). In the case `silent` one unit has no
spike, and so a mean of 0, which nlb_tools takes for 1e-9.
"""

# /// script
# requires-python = ">=3.11"
# dependencies = ["nlb_tools==0.0.4"]
# [tool.uv]
# override-dependencies = ["pandas>=2.2"]
# ///

import sys
from importlib.metadata import version
from pathlib import Path

import h5py
import numpy as np
from nlb_tools.evaluation import bits_per_spike

SHAPE = (12, 10, 5)


def cases() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Name -> counts and rates, both float64."""
    rng = np.random.default_rng(0)
    truth = rng.gamma(2.0, 0.4, SHAPE)
    counts = rng.poisson(truth).astype(float)
    silent = counts.copy()
    silent[..., 2] = 0
    return {
        "truth": (counts, truth),
        "noise": (counts, rng.gamma(2.0, 0.4, SHAPE)),
        "silent": (silent, truth),
        "sparse": (rng.poisson(0.3 * truth).astype(float), 0.3 * truth),
    }


def write(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.attrs["nlb_tools"] = version("nlb_tools")
        for name, (counts, rates) in cases().items():
            group = file.create_group(name)
            bits = bits_per_spike(rates.copy(), counts.copy())
            for key, value in (("counts", counts), ("rates", rates), ("bits", bits)):
                group.create_dataset(key, data=value, track_times=False)


if __name__ == "__main__":
    write(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).with_name("nlb_bits.h5"))
