"""Consolidated metadata: all of a store's metadata in its root object, so that one read opens it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence, Set

from obstore.store import ObjectStore

from jobs.late import zarr
from jobs.storage import objects


def consolidate(store: ObjectStore) -> None:
    """Copy all metadata into the root's zarr.json: readers open the store with one read and no listing."""
    with warnings.catch_warnings():
        # Both warnings are expected: xarray reads this convention, and run/ is not a Zarr node.
        warnings.filterwarnings("ignore", "Consolidated metadata|Object at run")
        zarr.consolidate_metadata(zarr.storage.ObjectStore(store), zarr_format=3)


def consolidate_gathered(store: ObjectStore, parts: Sequence[str], unchanged: Set[str]) -> None:
    """Update the consolidated metadata after a gather.

    Args:
        parts: the folders at the root whose nodes are listed again; all others are taken as they were.
        unchanged: PART/NAME, the nodes in `parts` whose known metadata, and of all below them, still holds.
    """
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
    # Zarr's order: parents before children.
    paths = sorted(nodes, key=lambda path: (path.count("/"), path))
    root["consolidated_metadata"]["metadata"] = {path: nodes[path] for path in paths}
    objects.write(store, "zarr.json", json.dumps(root, indent=2).encode())
