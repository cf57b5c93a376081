"""Search: compare the items of a sweep between their advances, and decide which go on, from which state and with which values.

The decisions made in this folder depend on the job and the reports alone; nothing here knows a store.

    jobs.search.method          a method of search: its section of a job file, and all that other folders ask about it
    jobs.search.comparison      the metric, and after how many advances items are compared
    jobs.search.searcher        the decisions: rounds out, reports in; blocks of items that are compared in step
    jobs.search.halving, asha   successive halving, in step and asynchronous
    jobs.search.optuna          Optuna's proposals, and pruning
    jobs.search.population      population-based training: which member copies which, where its parameters move

The rest of a search is the same for all methods:

    jobs.spec.presets           searches that a kernel declares under a name
    jobs.plan.search            checks the section against the job; the results that the store keeps of a search
    ctd.batch.round             items on the devices for one round
    jobs.run.search             the driver's side: asks, writes down, hands out, tells
    jobs.run.rounds             the tasks of rounds, and the states that they go on from
    jobs.store.rounds           the states that a round leaves, and the log of decisions
    jobs.query.readers          the table `search` of a query
    jobs.report.search_plots    what a report shows of it, beside jobs.report.page
"""

from functools import reduce
from operator import or_
from typing import Annotated, Any

from pydantic import GetCoreSchemaHandler, Tag

from jobs.forms import kind_by
from jobs.search.asha import Asha
from jobs.search.halving import Halving
from jobs.search.method import Method
from jobs.search.optuna import Optuna
from jobs.search.population import Population

SEARCH_TABLE = "search"
"""The name of the table of a search in queries."""

METHODS: dict[str, type[Method]] = {
    "halving": Halving,
    "asha": Asha,
    "population": Population,
    "optuna": Optuna,
}
"""Every method by its name in a job file."""


class _ByMethod:
    """Reads a section of a job file as that of the method that it names."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        sections = (Annotated[m, Tag(f"[{name}]")] for name, m in METHODS.items())
        return handler.generate_schema(Annotated[reduce(or_, sections), kind_by("method", METHODS)])


Search = Annotated[Method, _ByMethod()]
