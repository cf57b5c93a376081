"""Count results that are NaN, so that readers of a store learn of them without reading the results."""

from collections.abc import Mapping

import numpy as np

from jobs.store.arrays import DONE


def nan_counts(values: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Return result -> number of done items all of whose numbers are NaN, where there are any. values: with `status`."""
    done = values["status"] == DONE
    floats = {k: v for k, v in values.items() if v.dtype.kind in "fc" and v[0:1].size}
    counts = {
        name: int(np.isnan(v[done]).reshape(int(done.sum()), -1).all(axis=1).sum())
        for name, v in floats.items()
        if done.any() and not name.startswith("search_")  # NaN where a search did not come to
    }
    return {name: n for name, n in counts.items() if n}
