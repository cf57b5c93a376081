"""Connect this process to a Ray cluster, and set the environment variables that Ray reads."""

import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import ray
from ray._private import ray_constants
from ray.exceptions import RayError

from cluster.ray.reach import ANSWER_S, NoRay


def connect(address: str) -> None:
    """Connect to the Ray at host:port.

    Raises:
        NoRay: nothing answers there, or that Ray cannot be used (other versions, wrong token).
    """
    host, _, port = address.rpartition(":")
    try:
        if port.isdigit() and "/" not in host:
            socket.create_connection(
                (host, int(port)), ANSWER_S
            ).close()  # Ray itself would keep trying for a minute
        with _loopback_kept():
            ray.init(address=address, log_to_driver=False, logging_level="error")
    except (OSError, ValueError) as error:
        raise NoRay(
            f"--address {address}: no Ray answers there ({error}); start one with `ray start --head`, or "
            "leave --address out to have one started on this machine"
        ) from None
    except (RuntimeError, RayError) as error:  # other versions, a token that is missing or wrong
        raise NoRay(
            f"--address {address}: the Ray there cannot be used: {error}\nPython and ray must be equal to "
            "the last digit; a token is given by RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH=file"
        ) from None


@contextmanager
def _loopback_kept() -> Iterator[None]:
    """Let Ray connect to 127.0.0.1 where that is the address.

    It would take this machine's own address instead, as a cluster's nodes need it; a local Ray does not listen there.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def take_back_sigterm() -> None:
    """Reinstall Python's SIGTERM handler; call it after connecting to Ray.

    Connecting to Ray installs a C-level handler that aborts the process 3 s after the signal, in the
    middle of an orderly stop. Outside the main thread this does nothing.
    """
    handler = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is threading.main_thread() and handler is not None:
        signal.signal(signal.SIGTERM, handler)


def set_environment(values: Mapping[str, str | None]) -> dict[str, str | None]:
    """Set environment variables that Ray reads (None removes one); return their previous values."""
    before = {name: os.environ.get(name) for name in values}
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    # Ray read them when it was imported; make it read them again.
    ray._raylet.Config.initialize("")
    ray._raylet.AuthenticationTokenLoader.instance().reset_cache()
    return before
