"""All metadata of a store at its root: readers open it by one read and list nothing."""

import json
import warnings
from collections.abc import Sequence, Set

import zarr
from obstore.store import ObjectStore

from jobs.storage import objects


def consolidate(store: ObjectStore) -> None:
    """Gather all metadata at the root: readers open the store by one read and list nothing."""
    with warnings.catch_warnings():
        # Both are so on purpose: the convention is xarray's, and run/ is not a Zarr node.
        warnings.filterwarnings("ignore", "Consolidated metadata|Object at run")
        zarr.consolidate_metadata(zarr.storage.ObjectStore(store), zarr_format=3)


def consolidate_gathered(store: ObjectStore, parts: Sequence[str], unchanged: Set[str]) -> None:
    """The same, where only nodes below `parts` can have changed, and none of those in `unchanged`."""
    root = json.loads(objects.read(store, "zarr.json") or b"{}")
    known = root["consolidated_metadata"]["metadata"]
    nodes = {path: node for path, node in known.items() if path.split("/")[0] not in parts}
    for part in parts:
        for key in objects.list_keys(store, part):
            path, _, name = key.rpartition("/")
            if name == "zarr.json":
                is_known = path in known and "/".join(path.split("/")[:2]) in unchanged
                read = lambda key=key: json.loads(objects.read(store, key) or b"{}")
                nodes[path] = known[path] if is_known else read()
    # As Zarr orders them: parents before children.
    paths = sorted(nodes, key=lambda path: (path.count("/"), path))
    root["consolidated_metadata"]["metadata"] = {path: nodes[path] for path in paths}
    objects.write(store, "zarr.json", json.dumps(root, indent=2).encode())
