"""The script that keeps a Ray up until its standard input closes, or Ray has died: hold.py FOLDER CPUS.

It starts Ray by its private names, which listens on 127.0.0.1 alone and is up in a third of the time, or by `ray.init`.
"""

import json
import os
import select
import shutil
import sys
from collections.abc import Callable
from typing import NamedTuple

from cluster.ray.private import MISSED, start_node

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
    "AUTOSCALER_METRIC_PORT": "65536",
    # Ray would start workers in advance, without our thread settings: useless.
    "RAY_prestart_worker_first_driver": "0",
}


class Held(NamedTuple):
    """A Ray that this process keeps up."""

    address: str
    ends: Callable[[], None]
    """Ends it."""
    is_dead: Callable[[], bool]
    """Whether it has ended by itself."""
    lost: str = ""
    """What it lacks."""


def start(folder: str, cpus: int) -> Held:
    """Start Ray; its processes die with this one. Ray opens its own folder to every user; the one around it is closed."""
    settings = {"num_cpus": cpus, "object_store_memory": OBJECT_STORE}
    try:
        node = start_node(temp_dir=f"{folder}/r", **settings)
    except MISSED as missed:
        return _start_publicly(f"{folder}/p", settings, repr(missed))
    return Held(
        node.gcs_address,
        lambda: node.kill_all_processes(check_alive=False, allow_graceful=True),
        lambda: bool(VITAL & {kind for kind, _ in node.dead_processes()}),
    )


def _start_publicly(folder: str, settings: dict[str, int], why: str) -> Held:
    import ray

    context = ray.init(
        include_dashboard=False, log_to_driver=False, logging_level="error", _temp_dir=folder, **settings
    )  # fmt: skip
    lost = (
        "its ports are open to the network, and only its token keeps others out; it starts slower"
    )
    address = context.address_info["gcs_address"]
    # A process that loses the head of its Ray is ended by Ray.
    return Held(address, ray.shutdown, lambda: False, f"{lost} ({why})")


def hold(folder: str, cpus: int) -> None:
    """Start Ray, print its address and what it lacks, and keep it up until standard input closes."""
    os.environ.pop("RAY_ADDRESS", None)
    os.environ.update(ENVIRONMENT)
    held = None
    try:
        held = start(folder, cpus)
        print(json.dumps([held.address, held.lost]), flush=True)
        while not select.select([sys.stdin], [], [], LOOK_S)[0]:
            if held.is_dead():
                break
    finally:
        if held is not None:
            held.ends()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    hold(sys.argv[1], int(sys.argv[2]))
