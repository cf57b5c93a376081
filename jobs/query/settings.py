"""What the job of a store says of its items' settings: whether each is computed once, and the ends of ranges."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from jobs.query.tables import REPLICATES
from jobs.spec.job import JobSpec
from jobs.spec.search import Optuna, Population, extremes
from jobs.spec.sweep import Loguniform, Uniform
from jobs.store.store import Store

NEAR = 0.01
"""Share of a range, or of its logarithm's, that counts as its end."""


def computes_once(store: Store) -> bool:
    """Whether the kernel has replicates, by a field `seed` or its keys alone, and the job has no seeds.

    >>> computes_once(Store.open("points.zarr"))  # fixed_points
    False
    """
    spec = store.job.spec
    swept = {name for part in spec.sweeps() for name in part.names()}
    # A trial of Optuna is a setting of its own, and its seed the number of the trial.
    # The parameters of a population's member move, so that no setting is its own.
    once = isinstance(spec.search, Optuna) or not (
        isinstance(spec.search, Population) or swept & {*REPLICATES}
    )
    described = store.description
    return once and (described.draws or any(name in described.fields for name in REPLICATES))


def ends(spec: JobSpec, params: Mapping[str, Any]) -> dict[str, str]:
    """The parameters that lie at an end of the range that a sweep or a search draws them from -> "lower" or "upper".

    params: field -> its value.

    >>> job = {"kernel": "esn", "sweep": {"random": {"g": {"loguniform": [0.01, 1]}}, "samples": 9}}
    >>> ends(JobSpec.model_validate(job), {"g": 0.0101}), ends(JobSpec.model_validate(job), {"g": 0.02})
    ({'g': 'lower'}, {})
    """
    laws = {name: law for part in spec.sweeps() for name, law in part.random.items()}
    laws |= getattr(spec.search, "params", {})
    found = {}
    for name, law in laws.items():
        if name not in params or not isinstance(law, Uniform | Loguniform):
            continue
        scale = math.log if isinstance(law, Loguniform) else float
        low, high = extremes(law)
        share = (scale(params[name]) - scale(low)) / (scale(high) - scale(low))
        if min(share, 1 - share) < NEAR:
            found[name] = "lower" if share < 0.5 else "upper"
    return found
