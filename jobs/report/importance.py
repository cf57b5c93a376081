"""Importance: how strongly each result depends on each swept parameter, one parameter at a time, from ranks.

share  fraction of the variance of the result's ranks that lies between bins of the parameter (one bin per
       value, or up to 10 bins of equal counts): eta^2, adjusted for chance over n items and k bins:
       1 - (1 - eta^2)(n - 1)/(n - k), at least 0
rho    Spearman's rank correlation: sign and strength of a monotone relation; None for texts

Neither sees interactions: a parameter that acts only together with another seems to have no effect.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

N_BINS = 10
IN_A_BIN = 4
"""Least average number of items per bin: with one item per bin, all variance would lie between bins."""
LEAST_ITEMS = 8
"""Least number of items: with fewer, shares are noise."""


class Effect(NamedTuple):
    """The dependence of one result on one parameter, over n items."""

    parameter: str
    result: str
    share: float
    rho: float | None
    n: int

    def to_json(self) -> dict[str, Any]:
        """The effect for the page's script."""
        share = None if np.isnan(self.share) else round(self.share, 3)
        rho = None if self.rho is None else round(self.rho, 3)
        return {**self._asdict(), "share": share, "rho": rho}


def effects(columns: Mapping[str, Any], parameters: list[str], results: list[str]) -> list[Effect]:
    """Measure the effect of every parameter on every result, over the items whose result is finite.

    columns: name -> (n,) values. Results with too few items or a single value, and parameters with a single bin,
    are left out.

    >>> g = np.repeat([0.5, 1.0, 1.5], 10)
    >>> found = effects({"g": g, "loss": g**2 + 1e-3 * np.arange(30)}, ["g"], ["loss"])[0]
    >>> found.share > 0.8, found.n
    (True, 30)
    """
    found = []
    for result in results:
        values = np.asarray(columns[result], float)
        rows = np.isfinite(values)
        if rows.sum() < LEAST_ITEMS or np.ptp(values[rows]) == 0:
            continue
        ranks = ranks_of(values[rows])
        for parameter in parameters:
            column = np.asarray(columns[parameter])[rows]
            number = column.dtype.kind in "iuf"
            bins = bins_of(column)
            if bins.max() == 0:
                continue
            rho = _correlation(ranks_of(column), ranks) if number else None
            found.append(Effect(parameter, result, variance_share(bins, ranks), rho, len(ranks)))
    return found


def ranks_of(values: np.ndarray) -> np.ndarray:
    """The ranks 1, 2, ... of numbers; equal ones share the mean of theirs, and a NaN makes all NaN.

    >>> ranks_of(np.array([30, 10, 30])).tolist()
    [2.5, 1.0, 2.5]
    """
    # Those of scipy.stats.rankdata, whose import takes longer than all of a report.
    _, codes, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[codes]
    return ranks if (values == values).all() else np.full(len(values), np.nan)


def bins_of(column: np.ndarray) -> np.ndarray:
    """The bin 0, 1, ... of each value: one bin per distinct value if those are few, else bins of equal counts.

    >>> bins_of(np.array(["gru", "lstm", "gru"])).tolist()
    [0, 1, 0]
    """
    kinds, codes = np.unique(
        column if column.dtype.kind in "iufb" else column.astype(str), return_inverse=True
    )
    n_bins = min(N_BINS, max(2, len(column) // IN_A_BIN))
    if column.dtype.kind not in "iuf" or len(kinds) <= n_bins + 2:
        return codes
    edges = np.unique(np.quantile(column, np.linspace(0, 1, n_bins + 1)[1:-1]))
    return np.unique(np.searchsorted(edges, column, side="right"), return_inverse=True)[1]


def variance_share(bins: np.ndarray, values: np.ndarray) -> float:
    """The fraction of the variance of `values` between bins, adjusted eta^2; NaN if every value has its own bin.

    >>> variance_share(np.array([0, 0, 1, 1]), np.array([1.0, 1.0, 2.0, 2.0]))
    1.0
    """
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
