"""Start Ray's nodes without what serves a dashboard. As a script: `ray` with its arguments, on such nodes.

On a head that is three processes of Python beside the two that are needed, on another node one. They take seconds
of a core each, and a node gives itself up when they take too long on a busy machine; nobody asks them anything here.
"""

from typing import Any

AGENT = "--dashboard_agent_command="
NOBODY = 'sh -c "exec tail -f --pid=$RAY_RAYLET_PID /dev/null"'
"""What the raylet, which goes down without an agent, has in place of it: a process that ends with the raylet."""


def lean() -> None:
    """Let this process start nodes without a dashboard, its agents, and a server for Ray's clients."""
    from ray._private import node, parameter, services, utils

    absent = lambda: ImportError("left out")
    utils.get_dashboard_dependency_error = utils.get_ray_client_dependency_error = absent
    parameter.get_ray_client_dependency_error = absent
    node.Node.start_api_server = lambda self, **_: None
    if services.start_ray_process.__module__ != __name__:
        services.start_ray_process = _without_agent(services.start_ray_process)


def _without_agent(start: Any) -> Any:
    """Return Ray's function that starts a process, changed for a raylet: see NOBODY."""
    import ray._raylet

    raylet: Any = ray._raylet
    ports = (
        "DASHBOARD_AGENT_LISTEN_PORT_NAME",
        "METRICS_AGENT_PORT_NAME",
        "METRICS_EXPORT_PORT_NAME",
    )

    def start_ray_process(command: list[str], process_type: str, *given: Any, **named: Any) -> Any:
        if process_type == "raylet":
            said = dict(word.split("=", 1) for word in command[1:] if "=" in word)
            for name in (
                ports
            ):  # as the agent of a Ray installed without dashboard says: it listens nowhere
                raylet.persist_port(
                    said["--session_dir"], said["--node_id"], getattr(raylet, name), -1
                )
            command = [AGENT + NOBODY if word.startswith(AGENT) else word for word in command]
        return start(command, process_type, *given, **named)

    return start_ray_process


if __name__ == "__main__":
    lean()
    from ray.scripts.scripts import main

    main()
