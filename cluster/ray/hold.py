"""The script that keeps a Ray up until its standard input closes: hold.py FOLDER CPUS.

It imports nothing of ctd, and so starts quickly.
"""

import json
import os
import shutil
import sys

OBJECT_STORE = 100 << 20
"""Bytes. Small, because workers write results to the store: Ray carries a few hundred bytes per shard."""


def hold(folder: str, cpus: int) -> None:
    """Start Ray, print its address, and keep it up until standard input closes."""
    import ray

    os.environ.pop("RAY_ADDRESS", None)
    try:
        # Ray opens its own folder to every user; the one around it is closed.
        ray.init(
            address="local", num_cpus=cpus, object_store_memory=OBJECT_STORE, _temp_dir=f"{folder}/r",
            include_dashboard=False, log_to_driver=False, logging_level="error",
        )  # fmt: skip
        print(json.dumps(ray.get_runtime_context().gcs_address), flush=True)
        sys.stdin.read()
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    hold(sys.argv[1], int(sys.argv[2]))
