"""Which parameters of a sweep matter for which result: one parameter at a time, from ranks alone.

share  fraction of the variance of the result's ranks that lies between bins of the parameter (one bin per
       value, or up to 10 bins of equal counts): eta^2, adjusted for chance over n items and k bins:
       1 - (1 - eta^2)(n - 1)/(n - k), at least 0
rho    Spearman's rank correlation: sign and strength of a monotone relation; None for text

Neither sees interactions: a parameter that matters only together with another seems not to matter.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ctd.late import scipy

N_BINS = 10
IN_A_BIN = 4
"""Least average number of items per bin: with bins of one item, all variance would lie between bins."""
LEAST_ITEMS = 8
"""With fewer items, shares are noise and are not computed."""


class Effect(NamedTuple):
    """How one result depends on one parameter, over n items."""

    parameter: str
    result: str
    share: float
    rho: float | None
    n: int


def effects(columns: Mapping[str, Any], parameters: list[str], results: list[str]) -> list[Effect]:
    """The effect of every parameter on every result, over the items whose result is finite.

    columns: name -> (n,) values; a table serves too.

    Leaves out results with too few items or a single value, and parameters with a single bin.
    """
    found = []
    for result in results:
        values = np.asarray(columns[result], float)
        rows = np.isfinite(values)
        if rows.sum() < LEAST_ITEMS or np.ptp(values[rows]) == 0:
            continue
        ranks = scipy.stats.rankdata(values[rows])
        for parameter in parameters:
            column = np.asarray(columns[parameter])[rows]
            number = column.dtype.kind in "iuf"
            bins = bins_of(column)
            if bins.max() == 0:
                continue
            rho = _correlation(scipy.stats.rankdata(column), ranks) if number else None
            found.append(Effect(parameter, result, variance_share(bins, ranks), rho, len(ranks)))
    return found


def bins_of(column: np.ndarray) -> np.ndarray:
    """The bin (0, 1, ...) of each value: one bin per distinct value if there are few, else equal counts."""
    kinds, codes = np.unique(
        column if column.dtype.kind in "iufb" else column.astype(str), return_inverse=True
    )
    n_bins = min(N_BINS, max(2, len(column) // IN_A_BIN))
    if column.dtype.kind not in "iuf" or len(kinds) <= n_bins + 2:
        return codes
    edges = np.unique(np.quantile(column, np.linspace(0, 1, n_bins + 1)[1:-1]))
    return np.unique(np.searchsorted(edges, column, side="right"), return_inverse=True)[1]


def variance_share(bins: np.ndarray, values: np.ndarray) -> float:
    """Fraction of the variance of `values` between bins: adjusted eta^2; NaN if every value has its own bin."""
    n, k = len(values), int(bins.max()) + 1
    if n <= k:
        return float("nan")
    counts = np.bincount(bins)
    means = np.bincount(bins, values) / counts
    between = np.sum(counts * (means - values.mean()) ** 2)
    total = np.sum((values - values.mean()) ** 2)
    return max(0.0, float(1 - (1 - between / total) * (n - 1) / (n - k)))


def _correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    a, b = a - a.mean(), b - b.mean()
    size = np.sqrt(np.sum(a * a) * np.sum(b * b))
    return float(np.sum(a * b) / size) if size > 0 else None
