"""What the published figures are: functions of arrays, each as its paper defines it. tests/test_published.py holds them to other libraries."""

import itertools

import numpy as np
from scipy.integrate import quad
from scipy.optimize import brentq


def census(q: np.ndarray, n_unstable: np.ndarray, most_q: float = 1e-12) -> list[int]:
    """Fixed points by their number of unstable directions, for 0, 1, 2, ...; points with a larger q are slow ones.

    q, n_unstable: (point,).

    >>> census(np.array([0, 0, 1e-3, 0]), np.array([0, 1, 0, 0]))
    [2, 1]
    """
    return np.bincount(np.asarray(n_unstable)[np.asarray(q) < most_q]).tolist()


def whole_deviation(y: np.ndarray) -> float:
    """The factor from an NRMSE over the mean variance of outputs to one over the variance of all entries as one sample.

    y: (time, output). Gauthier et al. 2021 have the latter, which counts the distances between means as variance.
    """
    return float(np.sqrt(y.var(axis=0).mean() / y.var()))


def r2(true: np.ndarray, found: np.ndarray) -> float:
    """1 - squared error / squared distance from the mean of all entries (LINT: scikit-learn's `r2_score` of flat arrays)."""
    return float(1 - np.sum((found - true) ** 2) / np.sum((true - true.mean()) ** 2))


def effective_connectivity(m: np.ndarray, n: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """m n' with n projected on the columns of m and of the input weights, which span what states can be (Valente et al. 2022).

    m, n: (unit, rank). inputs: (unit, input). Returns (unit, unit).
    """
    axes, _ = np.linalg.qr(np.column_stack([m, inputs]))
    return m @ (axes @ (axes.T @ n)).T


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """The cosine of the angle between two matrices as vectors; the correlation of connectivities in LINT."""
    return float(np.vdot(a, b) / np.linalg.norm(a) / np.linalg.norm(b))


def turn_per_step(eigenvalues: np.ndarray) -> float:
    """The angle (rad) by which the least stable oscillating mode of a map turns in a step; NaN if no mode oscillates.

    eigenvalues: (mode,), complex.

    >>> round(turn_per_step(np.array([0.9, 1.1 * np.exp(0.3j), 1.1 * np.exp(-0.3j)])), 3)
    0.3
    """
    turning = eigenvalues[eigenvalues.imag > 1e-9]
    return float(np.angle(turning[np.argmax(np.abs(turning))])) if len(turning) else float("nan")


def best_by(validation: np.ndarray, test: np.ndarray) -> np.ndarray:
    """The test errors (seed,) of the setting with the least mean error in validation; both (setting, seed). A setting with a NaN is the last choice."""
    errors = np.mean(validation, axis=1)
    return np.asarray(test)[np.argmin(np.where(np.isnan(errors), np.inf, errors))]


def mean_field(s: float) -> float:
    """Kappa > 0 of 1 = s E[sech^2(kappa z)], z ~ N(0, 1), or 0 for s <= 1 (Mastrogiuseppe & Ostojic 2018, g = 0).

    >>> round(mean_field(4), 3)
    3.063
    """
    if s <= 1:
        return 0.0
    weight = lambda z: np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    gain = lambda k: 2 * quad(lambda z: weight(z) / np.cosh(k * z) ** 2, 0, 10)[0]
    return float(brentq(lambda k: s * gain(k) - 1, 1e-3, 20))


def change_per_level(
    measured: list[np.ndarray], of_pairs: bool, draws: int, seed: int = 0
) -> np.ndarray:
    """Bootstrap the slope of the logarithm of degeneracy over the numbers of levels, mean over tasks: (draw,).

    measured: for each task (level, pair), distances of networks in the order of itertools.combinations, whose degeneracy is their mean; or
    (level, network), numbers of which it is the standard deviation. A draw takes networks of a level with replacement; a network
    is not compared with itself.

    >>> change_per_level([np.array([[1.0, 1, 1], [2, 2, 2]])], True, draws=2).round(3).tolist()
    [0.693, 0.693]
    """
    rng, found = np.random.default_rng(seed), []
    for _ in range(draws):
        slopes = []
        for task in measured:
            logs = [np.log(_resampled(np.asarray(level, float), of_pairs, rng)) for level in task]
            slopes.append(np.polyfit(np.arange(len(logs)), logs, 1)[0])
        found.append(np.mean(slopes))
    return np.asarray(found)


def _resampled(values: np.ndarray, of_pairs: bool, rng: np.random.Generator) -> float:
    """The degeneracy of a level in one draw of its networks."""
    n = round((1 + (1 + 8 * len(values)) ** 0.5) / 2) if of_pairs else len(values)
    # At least two networks: one alone has no distance and no deviation.
    while len(np.unique(some := rng.integers(0, n, n))) < 2:
        pass
    if not of_pairs:
        return float(values[some].std())
    apart = np.zeros((n, n))
    apart[tuple(np.array(list(itertools.combinations(range(n), 2))).T)] = values
    apart += apart.T
    i, j = np.array([(a, b) for a, b in itertools.combinations(some, 2) if a != b]).T
    return float(apart[i, j].mean())
