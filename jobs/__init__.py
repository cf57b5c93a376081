"""Jobs: spec, plan, the work on one shard, store, gather, query. All of it runs in one process, without a cluster."""

import os
from typing import TYPE_CHECKING

from jobs.errors import JobError as JobError
from jobs.gather.gather import gather as gather
from jobs.inputs.items import export as export
from jobs.query.query import query as query
from jobs.store.store import Store as Store

if TYPE_CHECKING:
    from collections.abc import Iterable

    from matplotlib.figure import Figure

    from jobs.query.collection import StoreCollection
    from jobs.query.tree import StoreTree


def open_store(address: "str | os.PathLike[str]") -> "StoreTree":
    """Open a store as a lazy xarray DataTree that answers queries: `query`, `select`, `table`, `best`, `weights`.

    >>> len(open_store("points.zarr").query("q < 1", limit=2))
    2

    Args:
        address: folder, zip archive or address such as "s3://lab/points.zarr".

    Returns:
        The tree; results are read when they are needed.

    Raises:
        JobError: no complete store is there, or it is damaged, newer or out of reach.
    """
    from jobs.query.tree import StoreTree  # here: xarray takes a second to import

    return StoreTree.from_store(Store.open(os.path.expanduser(address)))


def open_stores(
    addresses: "Iterable[str | os.PathLike[str]] | str | os.PathLike[str]",
) -> "StoreCollection":
    """Open several stores that answer as one: `query` and `table`, with a column `store` and every parameter that differs.

    A folder stands for its stores, without an archive that lies beside its store and without a store that was forked into
    another one there; a warning names them.

    >>> open_stores("points.zarr").query(agg="count").columns.tolist()
    ['count']

    Args:
        addresses: of stores, of folders of stores, or patterns such as "s3://lab/gru*.zarr"; also of a single store.

    Returns:
        The collection of these stores.

    Raises:
        JobError: there is no store.
    """
    from jobs.query.collection import StoreCollection
    from jobs.store.finding import find_stores

    patterns = [addresses] if isinstance(addresses, str | os.PathLike) else addresses
    if not (store_addresses := find_stores(map(os.path.expanduser, patterns))):
        raise JobError("addresses: none given; expected stores, folders of stores, or patterns")
    return StoreCollection([Store.open(address) for address in store_addresses])


def figure(store: "StoreTree | str | os.PathLike[str]", group: int | None = None) -> "Figure":
    """Draw the picture that `ctd run` saves as a PNG: the kernel's, else its results as they are.

    A notebook shows the figure; `figure(store).savefig("points.pdf")` writes it.

    Args:
        store: an opened store, or its address.
        group: items with one program (`group` in the table `items`); None takes all items.

    Returns:
        A figure of matplotlib.
    """
    from jobs.query.tree import StoreTree
    from jobs.report.figures import figure as draw

    opened_store = (
        store.store if isinstance(store, StoreTree) else Store.open(os.path.expanduser(store))
    )
    return draw(opened_store, group)
