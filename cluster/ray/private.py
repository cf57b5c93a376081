"""All private names of Ray that ctd uses. A release of Ray may change them, so only this file imports them, and ctd runs without.

| of `ray`                                                              | for                            | without it |
|---|---|---|
| `_raylet.Config.initialize`, `AuthenticationTokenLoader.reset_cache`  | a token given after `import ray`  | only the first Ray of a process is connected to, if `ray` was not imported before |
| `_private.worker.print_to_stdstream`                                  | no advice of Ray's between the lines of a run | it is printed, in colours |
| `_private.services.get_node_to_connect_for_driver`                    | a refusal on a machine that is no node of a Ray | Ray aborts the process |
| `_private.node.Node`, `parameter.RayParams`, `ray_constants.ENABLE_RAY_CLUSTER` | a Ray that listens on 127.0.0.1 alone | `ray.init`: it listens on all interfaces |
| `_private.utils`, `parameter`: `get_..._dependency_error`, `node.Node.start_api_server`, `services.start_ray_process`, `_raylet.persist_port` | no dashboard, no agents | `ray.init`: three more processes, seconds more |

The last two go together: if one of their names is missing or has changed, a Ray of our own is started by `ray.init`.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from cluster.ray.reach import NoRay

AGENT = "--dashboard_agent_command="
NOBODY = 'sh -c "exec tail -f --pid=$RAY_RAYLET_PID /dev/null"'
"""The raylet's agent, replaced: a raylet goes down without one, so it gets a process that does nothing and ends with it."""

PORTS = (
    "DASHBOARD_AGENT_LISTEN_PORT_NAME", "METRICS_AGENT_PORT_NAME", "METRICS_EXPORT_PORT_NAME",
)  # fmt: skip

LOOPBACK = ("ray._private.ray_constants", "ENABLE_RAY_CLUSTER")

CHOICE = "get_node_to_connect_for_driver"

MISSED = (ImportError, AttributeError, TypeError, KeyError)
"""The errors that a missing or changed name raises."""


def find(module: str, name: str) -> Any:
    """Return a name of a module of Ray's; one of `MISSED` is raised where there is none."""
    member: Any = import_module(module)
    for part in name.split("."):
        member = getattr(member, part)
    return member


def set_environment(values: Mapping[str, str | None]) -> dict[str, str | None]:
    """Set environment variables that Ray reads (None removes one); return their previous values.

    Raises NoRay where Ray was imported before, and cannot be made to read them again.
    """
    before = {name: os.environ.get(name) for name in values}
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    if "ray._raylet" in sys.modules:
        try:
            find("ray._raylet", "Config.initialize")("")
            find("ray._raylet", "AuthenticationTokenLoader.instance")().reset_cache()
        except MISSED as missed:
            raise NoRay(
                f"this version of Ray reads its token as it is imported ({missed}): use one Ray a process, and import ray "
                "after ctd has started it"
            ) from None
    return before


@contextmanager
def loopback_kept() -> Iterator[None]:
    """Let Ray connect to 127.0.0.1 where that is the address.

    It would take this machine's own address instead, as a cluster's nodes need it; a local Ray does not listen there.
    """
    try:
        before = find(*LOOPBACK)
    except MISSED:
        yield
        return
    constants: Any = import_module(LOOPBACK[0])
    constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def nodes_alone(address: str) -> Iterator[None]:
    """Raise NoRay where Ray would connect from a machine that is none of its nodes: it aborts the process in C++ there."""
    try:
        choose = find("ray._private.services", CHOICE)
    except MISSED:
        yield
        return

    def choose_here(*args: Any, **kwargs: Any) -> Any:
        node = choose(*args, **kwargs)
        socket = getattr(node, "raylet_socket_name", "")
        if socket and not Path(socket).exists():
            raise NoRay(
                f"--address {address}: this machine is no node of that Ray; `ctd submit JOB --cluster NAME` computes there, "
                "with a profile of kind ray (docs/clusters.md)"
            )
        return node

    services: Any = import_module("ray._private.services")
    setattr(services, CHOICE, choose_here)
    try:
        yield
    finally:
        setattr(services, CHOICE, choose)


def silence() -> None:
    """Keep Ray from printing what its raylets tell, such as that a node is lost, which ctd says itself."""
    with suppress(*MISSED):
        find("ray._private.worker", "print_to_stdstream")
        import_module("ray._private.worker").print_to_stdstream = lambda *_, **__: None  # type: ignore[attr-defined]


def start_node(**settings: object) -> Any:
    """Start a Ray on 127.0.0.1 alone, without dashboard and agents; its processes die with this one.

    Returns an object with `gcs_address`, `dead_processes()` and `kill_all_processes(...)`. Raises one of `MISSED` where names
    are missing, before anything is started.
    """
    find(*LOOPBACK)  # else nobody could connect
    node, parameters = (
        find("ray._private.node", "Node"), find("ray._private.parameter", "RayParams")
    )  # fmt: skip
    node_params = parameters(
        node_ip_address="127.0.0.1", include_dashboard=False, include_log_monitor=False, no_monitor=True,
        dashboard_agent_listen_port=0, **settings,
    )  # fmt: skip
    lean()
    return node(node_params, head=True, shutdown_at_exit=False, spawn_reaper=True)


def lean() -> None:
    """Let this process start nodes without a dashboard, its agents, and a server for Ray's clients.

    Those are three Python processes on a head, beside the two that are needed, and one on every other node. Each takes seconds
    of a core to start, and a node gives up if they take too long on a busy machine. Raises one of `MISSED`, and changes
    nothing, where a name is missing.
    """
    names = [
        ("ray._private.utils", "get_dashboard_dependency_error"),
        ("ray._private.utils", "get_ray_client_dependency_error"),
        ("ray._private.parameter", "get_ray_client_dependency_error"),
        ("ray._private.node", "Node.start_api_server"),
        *(("ray._raylet", name) for name in ("persist_port", *PORTS)),
    ]
    start = find("ray._private.services", "start_ray_process")
    # All are looked up before the first is replaced, so that a missing name leaves Ray as it is.
    for module, name in names:
        find(module, name)
    for module, name in names[:3]:
        setattr(import_module(module), name, lambda: ImportError("left out"))
    find("ray._private.node", "Node").start_api_server = lambda self, **_: None
    if start.__module__ != __name__:  # else it would be wrapped twice
        import_module("ray._private.services").start_ray_process = _without_agent(start)  # type: ignore[attr-defined]


def _without_agent(start: Any) -> Any:
    """Return Ray's function that starts a process, changed for a raylet: see NOBODY."""
    raylet = import_module("ray._raylet")

    def start_ray_process(command: list[str], process_type: str, *args: Any, **kwargs: Any) -> Any:
        if process_type == "raylet":
            options = dict(word.split("=", 1) for word in command[1:] if "=" in word)
            session, node_id = options["--session_dir"], options["--node_id"]
            for name in PORTS:  # as the agent of a Ray without dashboard says: it listens nowhere
                raylet.persist_port(session, node_id, getattr(raylet, name), -1)
            command = [AGENT + NOBODY if word.startswith(AGENT) else word for word in command]
        return start(command, process_type, *args, **kwargs)

    return start_ray_process
