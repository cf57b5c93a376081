"""The result that items are judged by, its direction, and which item is best."""

from typing import Literal, NamedTuple

import numpy as np

from jobs.store.store import Store

Mode = Literal["min", "max"]
"""Whether small or large values of a metric are better."""


class Metric(NamedTuple):
    """The result that items are judged by, and its direction."""

    name: str
    more_is_better: bool = False

    def rank(self, values: np.ndarray) -> np.ndarray:
        """Return the order of values (n,), best first, equal ones as they come; NaN and infinities last.

        >>> Metric("accuracy", more_is_better=True).rank(np.array([0.5, np.nan, 0.9])).tolist()
        [2, 0, 1]
        """
        signed = -values if self.more_is_better else values
        return np.argsort(np.where(np.isfinite(signed), signed, np.inf), kind="stable")


def metric_of(store: Store, by: str | None = None, mode: Mode | None = None) -> Metric | None:
    """Return the metric of a store: `by`, else that of the job's search, else the kernel's; None if none of them names one.

    mode: the direction; by default as the search says, else as the kernel does.

    >>> metric_of(Store.open("points.zarr"), "q")
    Metric(name='q', more_is_better=False)
    """
    search, described = store.job.spec.search, store.description
    name = by or (search.metric if search else described.metric)
    if not name:
        return None
    own = search.mode if search and search.metric == name else None
    declared = name in described.dims and described.dims[name].more_is_better
    return Metric(name, (mode or own or ("max" if declared else "min")) == "max")
