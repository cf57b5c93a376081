"""Checks of data: entries must be finite reals for which the likelihood has a density, true rates of the size of counts."""

import warnings

import numpy as np

from ctd.containers import LABELS
from ctd.lfads.distributions import COUNTS

LARGEST_COUNT = 2**24
"""float32, in which counts enter the likelihood, holds all whole numbers up to here."""


def check_entries(where: str, array: np.ndarray, likelihood: str | None = None) -> None:
    """Raise ValueError unless all entries are finite reals for which the likelihood, if given, has a density.

    where: what the error begins with, such as file and dataset; it goes on with the first bad entry.

    >>> check_entries("spikes.npz: train", np.array([[[1.5]]]), "poisson")
    Traceback (most recent call last):
    ValueError: spikes.npz: train holds 1.5 at (0, 0, 0), but a Poisson likelihood needs counts 0, 1, 2, ...
    """
    if array.dtype.kind not in "biuf":
        hint = LABELS if array.dtype.kind in "SU" else ""
        raise ValueError(f"{where} has the type {array.dtype}; real numbers expected{hint}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        first = tuple(int(k) for k in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(
            f"{where} has {int((~np.isfinite(array)).sum())} NaN or infinite entries, the first at {first}; "
            "leave out such trials or fill them"
        )
    if likelihood is not None:
        _check_values(where, array, likelihood)


def _check_values(where: str, array: np.ndarray, likelihood: str) -> None:
    """Raise ValueError unless the likelihood has a density at all entries."""
    if likelihood in COUNTS:
        name = {"poisson": "Poisson", "negative_binomial": "negative binomial"}[likelihood]
        bad = (array < 0) | (array > LARGEST_COUNT)
        if array.dtype.kind == "f":
            bad |= array != np.floor(array)
        needs = (
            f"a {name} likelihood needs counts 0, 1, 2, ... up to {LARGEST_COUNT:,}; give spike counts, not rates, or "
            "`likelihood: gaussian`"
        )
    elif likelihood == "gamma":
        bad = array <= 0
        needs = "a gamma likelihood needs positive numbers; `zero_inflated_gamma` has zeros, too"
    elif likelihood == "zero_inflated_gamma":
        bad = array < 0
        needs = "a zero-inflated gamma likelihood needs 0 or positive numbers; rectify the data, or `likelihood: gaussian`"
    else:
        return
    if bad.any():
        first = tuple(int(k) for k in np.argwhere(bad)[0])
        raise ValueError(f"{where} holds {array[first]} at {first}, but {needs}")


FAR = 5
"""Warned of are true rates whose mean is so many times that of the counts, or the counts' that of the rates."""


def check_rates(where: str, rates: np.ndarray, counts: np.ndarray) -> None:
    """Warn of true rates that cannot be expected counts of a bin, such as rates a second.

    where: what the warning begins with, such as file and dataset. rates: of the first trials of counts (trial, time, unit).
    """
    expected, found = float(rates.mean()), float(counts[: len(rates)].mean())
    if found > 0 and not found / FAR <= expected <= found * FAR:
        warnings.warn(
            f"{where} has the mean {expected:.3g}, the counts {found:.3g}: it should be expected counts a bin; multiply "
            "rates a second by the width of a bin in s",
            stacklevel=2,
        )
