"""Answer, as a job of a Ray cluster, the questions of `ctd clusters`, in JSON.

python -m cluster.ray.answers [FILE]     versions; nodes: GPUs of each; seen: whether a worker sees FILE, null without one
"""

import json
import os
import sys

import ray

from cluster.versions import versions


def main(file: str | None = None) -> None:
    """Print the answers; the environment says which Ray this is."""
    ray.init(log_to_driver=False, logging_level="error")
    sees = ray.remote(num_cpus=0)(os.path.exists)
    is_seen = ray.get(sees.remote(file), timeout=60) if file else None
    nodes = [node["Resources"].get("GPU", 0) for node in ray.nodes() if node["Alive"]]
    print(json.dumps({"versions": versions(), "nodes": nodes, "seen": is_seen}))


if __name__ == "__main__":
    main(*sys.argv[1:])
