"""Connect this process to a Ray, and disconnect it."""

import ctypes
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray.exceptions import RayError

from cluster.ray.private import loopback_kept
from cluster.ray.reach import ANSWER_S, NoRay

SIGACTION_BYTES = 512
"""More than a `struct sigaction` has on any system."""


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
        with loopback_kept(), _sigterm_kept():
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


def disconnect() -> None:
    """Disconnect this process from its Ray."""
    with _sigterm_kept():
        ray.shutdown()


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Keep this process' handler of SIGTERM while Ray connects or disconnects, in whichever thread.

    Connecting, Ray installs a handler of its own in C, which aborts the process 3 s after the signal, in the midst of an
    orderly stop. Disconnecting, it sets the system's default, which ends the process at once. Python changes handlers in
    the main thread alone, hence the C library's own function.
    """
    library, kept = ctypes.CDLL(None), ctypes.create_string_buffer(SIGACTION_BYTES)
    library.sigaction(signal.SIGTERM, None, kept)
    try:
        yield
    finally:
        library.sigaction(signal.SIGTERM, kept, None)
