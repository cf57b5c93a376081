"""Connect this process to a Ray, and hand Ray the environment that it reads."""

import os
import signal
import socket
import threading
from collections.abc import Mapping

import ray
from ray.exceptions import RayError

from jobs.errors import JobError

ANSWER_S = 5.0
"""A Ray at a given address answers within this time."""


def connect(address: str) -> None:
    """Connect to the Ray at host:port; JobError where there is none, or one that cannot be used."""
    host, _, port = address.rpartition(":")
    try:
        if port.isdigit() and "/" not in host:
            socket.create_connection(
                (host, int(port)), ANSWER_S
            ).close()  # Ray itself tries for a minute
        ray.init(address=address, log_to_driver=False, logging_level="error")
    except (OSError, ValueError) as error:
        raise JobError(
            f"--address {address}: no Ray answers there ({error}); start one with `ray start --head`, or "
            "leave --address out to have one started on this machine"
        ) from None
    except (RuntimeError, RayError) as error:  # other versions, a token that is missing or wrong
        raise JobError(
            f"--address {address}: the Ray there cannot be used: {error}\nPython and ray must be equal to "
            "the last digit; a token is given by RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH=file"
        ) from None


def take_back_sigterm() -> None:
    """Put Python's handler of SIGTERM in its place again: connecting to Ray sets one below it, which
    aborts the process 3 s after the signal, in the middle of an orderly stop."""
    handler = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is threading.main_thread() and handler is not None:
        signal.signal(signal.SIGTERM, handler)


def set_environment(values: Mapping[str, str | None]) -> dict[str, str | None]:
    """Set (or with None, remove) environment variables that Ray reads; returns what was there."""
    before = {name: os.environ.get(name) for name in values}
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    # Ray reads them when it is imported, which was earlier.
    ray._raylet.Config.initialize("")
    ray._raylet.AuthenticationTokenLoader.instance().reset_cache()
    return before
