"""Start Ray's nodes without what serves a dashboard. As a script: `ray` with its arguments, on such nodes.

A dashboard takes three Python processes on a head, beside the two that are needed, and one on every other node. Each takes
seconds of a core to start, and a node gives up if they take too long on a busy machine. ctd does not use them.
"""

import sys
from typing import Any

AGENT = "--dashboard_agent_command="
NOBODY = 'sh -c "exec tail -f --pid=$RAY_RAYLET_PID /dev/null"'
"""What the raylet, which goes down without an agent, has in place of it: a process that ends with the raylet."""

PORTS = (
    "DASHBOARD_AGENT_LISTEN_PORT_NAME", "METRICS_AGENT_PORT_NAME", "METRICS_EXPORT_PORT_NAME",
)  # fmt: skip


def lean() -> bool:
    """Let this process start nodes without a dashboard, its agents, and a server for Ray's clients; return whether it will.

    It replaces private names of Ray. A version of Ray without these names starts as usual, with more processes.
    """
    try:
        import ray._raylet
        from ray._private import node, parameter, services, utils
    except ImportError:
        return False
    raylet: Any = ray._raylet
    asked = [
        (utils, "get_dashboard_dependency_error"),
        (utils, "get_ray_client_dependency_error"),
        (parameter, "get_ray_client_dependency_error"),
        (node.Node, "start_api_server"),
        (services, "start_ray_process"),
        *((raylet, name) for name in ("persist_port", *PORTS)),
    ]
    if not all(hasattr(where, name) for where, name in asked):
        return False
    for where, name in asked[:3]:
        setattr(where, name, lambda: ImportError("left out"))
    node.Node.start_api_server = lambda self, **_: None
    if services.start_ray_process.__module__ != __name__:
        services.start_ray_process = _without_agent(services.start_ray_process, raylet)
    return True


def _without_agent(start: Any, raylet: Any) -> Any:
    """Return Ray's function that starts a process, changed for a raylet: see NOBODY."""

    def start_ray_process(command: list[str], process_type: str, *given: Any, **named: Any) -> Any:
        if process_type == "raylet":
            said = dict(word.split("=", 1) for word in command[1:] if "=" in word)
            session, node_id = said["--session_dir"], said["--node_id"]
            for name in PORTS:  # as the agent of a Ray without dashboard says: it listens nowhere
                raylet.persist_port(session, node_id, getattr(raylet, name), -1)
            command = [AGENT + NOBODY if word.startswith(AGENT) else word for word in command]
        return start(command, process_type, *given, **named)

    return start_ray_process


if __name__ == "__main__":
    if lean():  # without Ray's client server, which then must have no port
        sys.argv = [word for word in sys.argv if not word.startswith("--ray-client-server-port=")]
    from ray.scripts.scripts import main

    main()
