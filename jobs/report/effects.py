"""How strongly each result depends on each swept parameter, one parameter at a time, from ranks.

share  fraction of the variance of the result's ranks that lies between bins of the parameter (one bin per
       value, or up to 10 bins of equal counts): eta^2, adjusted for chance over n items and k bins:
       1 - (1 - eta^2)(n - 1)/(n - k), at least 0
rho    Spearman's rank correlation: sign and strength of a monotone relation; None for texts

Neither sees interactions: a parameter that acts only together with another seems to have no effect.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

N_BINS = 10
IN_A_BIN = 4
"""Least mean number of items per bin: with one item per bin, all variance would lie between bins."""
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


def effects(
    columns: Mapping[str, object], parameters: list[str], results: list[str]
) -> list[Effect]:
    """Measure the effect of every parameter on every result, over the items that have the parameter and a finite result.

    columns: name -> (n,) values; items without a parameter have NaN or "" there. The answer leaves out a parameter with a
    single bin, and a pair with too few items or a single value of the result.

    >>> g = np.repeat([0.5, 1.0, 1.5], 10)
    >>> effect = effects({"g": g, "loss": g**2 + 1e-3 * np.arange(30)}, ["g"], ["loss"])[0]
    >>> effect.share > 0.8, effect.n
    (True, 30)
    """
    measured = []
    parameter_columns = {name: np.asarray(columns[name]) for name in parameters}
    present = {name: has_value(column) for name, column in parameter_columns.items()}
    for result in results:
        values = np.asarray(columns[result], float)
        for parameter, column in parameter_columns.items():
            rows = np.isfinite(values) & present[parameter]
            if rows.sum() < LEAST_ITEMS or np.ptp(values[rows]) == 0:
                continue
            settings, ranks = column[rows], ranks_of(values[rows])
            bins, rho = bins_of(settings), None
            if bins.max() == 0:
                continue
            if settings.dtype.kind in "iuf":
                rho = float(np.corrcoef(ranks_of(settings), ranks)[0, 1])
            measured.append(Effect(parameter, result, variance_share(bins, ranks), rho, len(ranks)))
    return measured


def effects_of_stores(
    columns: Mapping[str, np.ndarray], parameters: list[str], results: list[str]
) -> list[Effect]:
    """The `effects` over the items of several stores. A parameter that varies within stores is measured over these stores, from
    ranks within each, of numbers its own, too, so that nothing else in which stores differ is taken for its effect.

    columns: (n,) each; one of them is "store".
    """
    labels = columns["store"].astype(str)
    stores = [labels == label for label in np.unique(labels)]

    def ranked(values: np.ndarray) -> np.ndarray:
        ranks = np.full(len(values), np.nan)
        for rows in stores:
            rows = rows & np.isfinite(values.astype(float))
            ranks[rows] = (ranks_of(values[rows]) - 0.5) / max(1, rows.sum())
        return ranks

    of_stores = {result: ranked(columns[result]) for result in results}
    measured = []
    for name in parameters:
        settings, mask = columns[name], has_value(columns[name])
        within = [rows for rows in stores if len(set(settings[rows & mask].tolist())) > 1]
        used: Mapping[str, np.ndarray] = columns
        if within:
            mask, used = mask & np.any(within, axis=0), of_stores
            settings = ranked(settings) if settings.dtype.kind in "iuf" else settings
        result_columns = {result: used[result][mask] for result in results}
        measured += effects({name: settings[mask], **result_columns}, [name], results)
    return measured


def has_value(column: np.ndarray) -> np.ndarray:
    """Mark the items that have the parameter; those of other stores, or of another part of a joined sweep, have NaN or "" there.

    >>> has_value(np.array([0.1, np.nan])).tolist(), has_value(np.array(["gru", ""])).tolist()
    ([True, False], [True, False])
    """
    return column == column if column.dtype.kind == "f" else column.astype(str) != ""


def by_importance(measured: Iterable[Effect], parameters: Sequence[str], result: str) -> list[str]:
    """Parameters by how much of a result they explain, most first; those without a measured effect on it come last."""
    share = {e.parameter: np.nan_to_num(e.share) for e in measured if e.result == result}
    return sorted(parameters, key=lambda name: -share.get(name, 0.0))


def ranks_of(values: np.ndarray) -> np.ndarray:
    """The ranks 1, 2, ... of numbers; equal ones share the mean of theirs, and a NaN makes all NaN.

    >>> ranks_of(np.array([30, 10, 30])).tolist()
    [2.5, 1.0, 2.5]
    """
    # As scipy.stats.rankdata, which takes longer to import than a report takes.
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
