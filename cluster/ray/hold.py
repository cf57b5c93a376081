"""The script that keeps a Ray up until its standard input closes, or Ray has died: hold.py FOLDER CPUS.

It imports nothing of ctd but `lean`, and so starts quickly. `ray.init` and `ray start` would do, but for what they start
besides that nobody needs here, and that answers anyone.
"""

import json
import os
import select
import shutil
import sys
from typing import Any

from cluster.ray.lean import lean

OBJECT_STORE = 100 << 20
"""Bytes. Small, because workers write results to the store: Ray carries a few hundred bytes per shard."""

LOOK_S = 0.5
"""Seconds between two looks at Ray's processes."""

VITAL = {"gcs_server", "raylet"}
"""The processes without which there is no Ray."""

ENVIRONMENT = {
    # Metrics are told to whoever asks, without a token.
    "RAY_enable_metrics_collection": "0",
    # Of one server of metrics Ray cannot be told to leave it out: at no port it does not start.
    "DASHBOARD_METRIC_PORT": "65536",
    # Ray would start workers in advance, without our thread settings: useless.
    "RAY_prestart_worker_first_driver": "0",
}


def start(folder: str, cpus: int) -> Any:
    """Start Ray on 127.0.0.1 alone; its processes die with this one."""
    from ray._private.node import Node
    from ray._private.parameter import RayParams

    # Ray opens its own folder to every user; the one around it is closed.
    settings = RayParams(
        node_ip_address="127.0.0.1", num_cpus=cpus, object_store_memory=OBJECT_STORE,
        temp_dir=f"{folder}/r", dashboard_agent_listen_port=0, include_dashboard=False,
        include_log_monitor=False, no_monitor=True,
    )  # fmt: skip
    lean()
    return Node(settings, head=True, shutdown_at_exit=False, spawn_reaper=True)


def hold(folder: str, cpus: int) -> None:
    """Start Ray, print its address, and keep it up until standard input closes."""
    os.environ.pop("RAY_ADDRESS", None)
    os.environ.update(ENVIRONMENT)
    node = None
    try:
        node = start(folder, cpus)
        print(json.dumps(node.gcs_address), flush=True)
        while not select.select([sys.stdin], [], [], LOOK_S)[0]:
            if VITAL & {kind for kind, _ in node.dead_processes()}:
                break
    finally:
        if node is not None:
            node.kill_all_processes(check_alive=False, allow_graceful=True)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    hold(sys.argv[1], int(sys.argv[2]))
