"""Searches over LFADS models by the names of the field: AutoLFADS."""

import math

from ctd.kernel import Preset

EPOCH = 20
"""Training steps for one epoch of the published settings, so that the length of training does not depend on the number of
trials."""
RAMP, BURN_IN, GENERATION, LONGEST = 80, 80 + 25, 25, 1000
"""In epochs: the ramp of penalties, the training before the first comparison, that between two comparisons, the longest training."""


def _times(low: float, high: float, weight: float) -> dict[str, object]:
    """A log-uniform range in which a perturbation multiplies or divides by up to 1 + weight."""
    share = math.log(1 + weight) / math.log(high / low)
    return {"loguniform": [low, high], "perturb": round(share, 3), "start": "range"}


def _by(low: float, high: float, weight: float) -> dict[str, object]:
    """A uniform range in which a perturbation adds or subtracts up to `weight` times the middle of the range."""
    share = weight * (low + high) / 2 / (high - low)
    return {"uniform": [low, high], "perturb": round(share, 3), "start": "range"}


AUTOLFADS = Preset(
    "AutoLFADS (Keshtkaran et al. 2022, Nat Methods 19:1572) with the settings of lfads-torch (Sedler & "
    f"Pandarinath 2023); an epoch counts {EPOCH} steps",
    search={
        "method": "population",
        "metric": "smoothed_nll",
        "every": GENERATION,
        "burn_in": BURN_IN,
        "generations": 1 + math.ceil((LONGEST - BURN_IN) / GENERATION),
        "patience": 4,
        "exploit": "tournament",
        "params": {
            "learning_rate": _times(1e-5, 5e-3, 0.3) | {"start": 4e-3},
            "dropout": _by(0.0, 0.6, 0.3),
            "coordinated_dropout": _by(0.01, 0.7, 0.3) | {"start": 0.5},
            "kl_input": _times(1e-6, 1e-4, 0.8),
            "kl_ic": _times(1e-6, 1e-3, 0.8),
            "l2_generator": _times(1e-4, 1.0, 0.8),
            "l2_controller": _times(1e-4, 1.0, 0.8),
        },
    },
    params={
        "n_batches": LONGEST * EPOCH,
        "report_every": EPOCH,
        "schedule": "exponential",
        "warm_up": 0,
        "penalties": "entry",
        "kl_start": 0.0,
        "kl_ramp": RAMP * EPOCH,
        "l2_ramp": RAMP * EPOCH,
        "clip_norm": 200.0,
        "criterion": "nll",
        "n_samples": 50,
    },
    sweep={"seeds": 20},
)

PRESETS = {"autolfads": AUTOLFADS}
