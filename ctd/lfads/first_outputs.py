"""What a model gives for its data before it is trained: each unit's own moments, the same at all times."""

import numpy as np

SMALLEST, LARGEST = 0.05, 100.0
"""Bounds of shapes and sizes that moments give."""


def first_outputs(likelihood: str, data: np.ndarray) -> np.ndarray:
    """(output,) the outputs of `ctd.lfads.distributions.N_OUTPUTS` by the method of moments, float64.

    data: (trial, time, unit), as the likelihood has it.
    """
    n = data.shape[0] * data.shape[1]
    mean = data.mean((0, 1), dtype=float)
    # A unit without any spike counts as half a spike in all of the data, so that its logarithm is finite.
    log_mean = np.log(np.maximum(mean, 0.5 / n))
    if likelihood == "poisson":
        return log_mean
    variance = data.var((0, 1), dtype=float)
    bounded = lambda x: np.log(np.clip(x, SMALLEST, LARGEST))
    if likelihood == "gaussian":
        return np.concatenate([mean, np.log(np.maximum(variance, 1e-6))])
    if likelihood == "negative_binomial":
        beyond = np.maximum(variance - mean, mean**2 / LARGEST + 1e-12)
        return np.concatenate([log_mean, bounded(mean**2 / beyond)])
    if likelihood == "gamma":
        log_mean = np.log(mean)
        return np.concatenate([log_mean, bounded(mean**2 / np.maximum(variance, 1e-12))])
    # Of a zero-inflated one the moments are those of what is not 0.
    there = data > 0
    k = there.sum((0, 1))
    share = np.clip(k / n, 0.5 / n, 1 - 0.5 / n)
    mean = np.where(k > 0, mean * n / np.maximum(k, 1), 1.0)
    square = np.where(there, (data - mean) ** 2, 0).sum((0, 1), dtype=float)
    shape = mean**2 / np.maximum(square / np.maximum(k, 1), 1e-12)
    logit = np.log(share) - np.log1p(-share)
    return np.concatenate([np.log(mean), bounded(shape), logit])
