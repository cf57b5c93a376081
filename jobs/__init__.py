"""What a job is: spec, plan, one shard's work, store, gather, query. Runs in one process, without a cluster."""

from typing import TYPE_CHECKING

from jobs.errors import JobError as JobError
from jobs.gather.gather import gather as gather
from jobs.inputs.items import export as export
from jobs.query.query import query as query
from jobs.store.store import Store as Store

if TYPE_CHECKING:
    from jobs.query.tree import StoreTree


def open_store(address: str) -> "StoreTree":
    """The store as a lazy xarray DataTree that can be asked: .query, .select, .table, .weights, .sql."""
    from jobs.query.tree import StoreTree  # here: xarray takes a second to import

    return StoreTree.of(Store.open(str(address)))
