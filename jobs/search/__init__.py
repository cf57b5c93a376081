"""Search: compare the items of a sweep between their advances, and decide which go on, from which state and with which values.

The decisions made in this folder depend on the job and the reports alone; nothing here knows a store.

    jobs.search.searcher        the interface: rounds out, reports in; blocks of items that are compared in step
    jobs.search.halving         successive halving, in step and asynchronous
    jobs.search.optuna          Optuna's proposals, and pruning
    jobs.search.population      population-based training: which member copies which, where its parameters move

What belongs to a search elsewhere:

    jobs.spec.search            the `search:` section of a job file; jobs.spec.halving: of halving
    jobs.spec.presets           searches that a kernel declares under a name
    jobs.plan.search            checks the section against the job; what the store keeps: the lineage of every item
    ctd.batch.round             items on the devices for one round
    jobs.run.search             the driver's side: asks, writes down, hands out, tells
    jobs.run.rounds             the tasks of rounds, and the states that they go on from
    jobs.store.rounds           the states that a round leaves, and the log of decisions
    jobs.query.tables           the table `search` of a query
    jobs.report.search_plots    what a report shows of it, beside jobs.report.page
"""

from collections.abc import Mapping, Sequence

import numpy as np

from jobs.search.halving import AshaSearcher, HalvingSearcher
from jobs.search.optuna import OptunaSearcher
from jobs.search.population import PopulationSearcher
from jobs.search.searcher import Round, Searcher, Told
from jobs.spec.search import Asha, Halving, Optuna, Search

__all__ = ["Round", "Searcher", "Told", "searcher_of"]


def searcher_of(
    search: Search,
    seed: int,
    items: np.ndarray,
    starts: Mapping[str, np.ndarray],
    ways: Sequence[Mapping[str, object]] = ({},),
) -> Searcher:
    """Return the searcher of one group, or of those that are searched together, at its start.

    seed: the job's. items: (n,) ids. starts: searched field -> (n,) its first values. ways: of each group, what the search has
    chosen there: compiled-in field -> value.
    """
    if isinstance(search, Halving):
        return HalvingSearcher(search, items)
    if isinstance(search, Asha):
        return AshaSearcher(search, items)
    if isinstance(search, Optuna):
        return OptunaSearcher(search, seed, items, ways)
    return PopulationSearcher(search, seed, items, starts)
