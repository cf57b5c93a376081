"""Checks of data: entries for which the likelihood has a density, axes and lengths that agree, true rates of the size of counts."""

import warnings

import numpy as np

from ctd.containers import check_numbers
from ctd.lfads.chop import SplitArrays
from ctd.lfads.distributions import COUNTS

LARGEST_COUNT = 2**24
"""float32, in which counts enter the likelihood, holds all whole numbers up to here."""

_COUNTS = f"needs counts 0, 1, 2, ... up to {LARGEST_COUNT:,}; give spike counts, not rates, or `likelihood: gaussian`"
NEEDS = {
    "poisson": f"a Poisson likelihood {_COUNTS}",
    "negative_binomial": f"a negative binomial likelihood {_COUNTS}",
    "gamma": "a gamma likelihood needs positive numbers; `zero_inflated_gamma` has zeros, too",
    "zero_inflated_gamma": "a zero-inflated gamma likelihood needs 0 or positive numbers; rectify the data, or `likelihood: gaussian`",
}
"""Likelihood -> what it needs. A Gaussian takes any numbers."""


def check_entries(source: str, array: np.ndarray, likelihood: str | None = None) -> None:
    """Raise ValueError unless all entries are finite reals for which the likelihood, if given, has a density.

    source: the beginning of the error, such as file and dataset; the first bad entry follows.

    >>> check_entries("spikes.npz: train", np.array([[[1.5]]]), "poisson")
    Traceback (most recent call last):
    ValueError: spikes.npz: train holds 1.5 at (0, 0, 0), but a Poisson likelihood needs counts 0, 1, 2, ...
    """
    check_numbers(source, array, "; leave out such trials or fill them")
    if likelihood is None or likelihood not in NEEDS:
        return
    bad = array <= 0 if likelihood == "gamma" else array < 0
    if likelihood in COUNTS:
        bad |= array > LARGEST_COUNT
        if array.dtype.kind == "f":
            bad |= array != np.floor(array)
    if bad.any():
        first = tuple(np.argwhere(bad)[0].tolist())
        raise ValueError(f"{source} holds {array[first]} at {first}, but {NEEDS[likelihood]}")


FAR = 5
"""Factor between the means of true rates and of counts beyond which a warning says so."""


def check_rates(source: str, rates: np.ndarray, counts: np.ndarray) -> None:
    """Warn of true rates that cannot be expected counts of a bin, such as rates a second.

    source: the beginning of the warning, such as file and dataset. rates: of the first trials of counts (trial, time, unit).
    """
    expected, mean_count = float(rates.mean()), float(counts[: len(rates)].mean())
    if mean_count > 0 and not mean_count / FAR <= expected <= mean_count * FAR:
        warnings.warn(
            f"{source} has the mean {expected:.3g}, the counts {mean_count:.3g}: it should be expected counts a bin; multiply "
            "rates a second by the width of a bin in s",
            stacklevel=2,
        )


MANY = 20
"""Mean count of a bin beyond which a warning asks whether counts are rates a second."""


def check_counts(source: str, counts: np.ndarray) -> None:
    """Warn of counts that look like rates a second.

    >>> check_counts("spikes.h5: train", np.array([0, 2, 1]))
    """
    # The first trials tell nearly always.
    step = np.gcd.reduce(counts[:20], axis=None)
    step = step if step == 1 else np.gcd.reduce(counts, axis=None)
    mean = float(counts.mean())
    if step > 1 or mean > MANY:
        fault = f"are multiples of {step}" if step > 1 else f"have the mean {mean:.3g}"
        warnings.warn(
            f"{source}: the counts {fault}: spikes in a bin are expected; multiply rates a second by the width of a bin in s",
            stacklevel=2,
        )


def check_bin(source: str, bin_s: np.ndarray) -> None:
    """Warn of a width of bins that can hardly be in s."""
    if bin_s.dtype.kind in "iuf" and bin_s.size == 1 and bin_s.item() > 1:
        warnings.warn(
            f"{source}: bin_s: {bin_s.item():g} s is long for a bin; bin_s is in s", stacklevel=2
        )


# --- arrays that belong together --------------------------------------------------------------------


def check_all(source: str, arrays: SplitArrays, likelihood: str) -> None:
    """Check the entries of all arrays of a split, before recordings are cut, so that errors name a place in the file."""
    for field, (name, array) in arrays.items():
        law = likelihood if field == "data" else None
        if isinstance(array, list):
            for k, recording in enumerate(array):
                check_entries(f"{source}: {name}[{k}]", recording, law)
        else:
            check_entries(f"{source}: {name}", array, law)


AXES = {"initial_states": ("trial", "state"), "condition": ("trial",)}
"""Axes of the fields of `Trials` that have no (trial, time, ...)."""


def check_within(source: str, parts: SplitArrays) -> None:
    """Check the axes of a split's arrays, and that lengths along trial, time and unit agree; true values may have fewer trials."""
    by, data = parts["data"]
    for field, (dataset, array) in parts.items():  # `data` is the first
        label, axes = f"{source}: {dataset}", AXES.get(field, ("trial", "time", "..."))
        if array.ndim != len(axes):
            hint = "; `chop: {window, overlap}` cuts recordings (time, unit)" * (
                array.ndim == 2 and field not in AXES
            )
            raise ValueError(
                f"{label} has the shape {array.shape}; ({', '.join(axes)}) expected{hint}"
            )
        if 0 in array.shape:
            raise ValueError(f"{label} has the shape {array.shape}: it is empty")
        # What the encoder sees may be shorter and narrower; only rates have the units of the data.
        n_alike = 1 if field in ("encoded", *AXES) else 3 if field == "rates" else 2
        alike = ("trials", "time bins", "units")[:n_alike]
        for axis_name, has, expected in zip(alike, array.shape, data.shape, strict=False):
            truth = field in ("rates", "inputs", "initial_states", "states")
            if has != expected and not (axis_name == "trials" and truth and has < expected):
                raise ValueError(f"{label} has {has} {axis_name}, but {by} has {expected}")
        if field == "encoded" and (np.array(array.shape) > data.shape).any():
            raise ValueError(
                f"{label} has the shape {array.shape}, more than {by} with {data.shape}: what the encoder sees is a part of "
                "what is reconstructed"
            )


def check_between(source: str, first: SplitArrays, second: SplitArrays) -> None:
    """Check that training and evaluation have the same datasets, with the same bins, units and channels."""
    for field in ("data", "encoded", "external", "behavior"):
        if (field in first) != (field in second):
            has, lacks = (first, "evaluation") if field in first else (second, "training")
            raise ValueError(
                f"{source}: {has[field][0]} is there, but the same for {lacks} is missing; give both, or neither"
            )
        if field in first and first[field][1].shape[1:] != second[field][1].shape[1:]:
            (a, x), (b, y) = first[field], second[field]
            turned = source.endswith(".mat") and x.shape[:-1] == y.shape[:-1]
            hint = (
                ". A file of MATLAB has its axes reversed: save them as (unit, time, trial)"
                * turned
            )
            raise ValueError(
                f"{source}: {a} has (time, ...) {x.shape[1:]}, but {b} has {y.shape[1:]}; they must agree{hint}"
            )
