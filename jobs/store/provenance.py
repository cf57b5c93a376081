"""Provenance: which host, device and versions computed a result; and exceptions as text."""

from __future__ import annotations

import os
import platform
import re
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from ctd.installed import version_of
from ctd.late import jax
from jobs.errors import JobError
from jobs.redact import redact
from jobs.storage import objects

PACKAGES = ("ctd", "jax", "jaxlib", "numpy", "zarr", "ray", "optax")


MOST_TRACE = 8000
"""Characters kept of a traceback, from its end: the innermost frames and the error."""


def error_text(error: BaseException) -> str:
    """Return an exception as text of at most 2,000 characters without credentials, even if its own `str` fails."""
    return redact(_text(error)[:4000])[:2000]


def traceback_text(error: BaseException) -> str:
    """Return the end of an exception's traceback without credentials.

    Of the text of a storage error it contains only what `error_text` lets through.
    """
    if objects.is_storage_error(error):
        text = "".join(traceback.format_tb(error.__traceback__)) + _text(error)
    else:
        text = "".join(traceback.format_exception(error))
    # Before it is cut: half a name hides nothing.
    return redact(text[-2 * MOST_TRACE :])[-MOST_TRACE:]


def _text(error: BaseException) -> str:
    try:
        # A server's answer may quote the request, including the name of the access key.
        text = objects.reason(error) if objects.is_storage_error(error) else str(error)
    except Exception:
        text = "(no readable text)"
    if "Traceback (most recent call last)" in text:
        # An error in a callback contains its traceback; the last line names the exception.
        ends = [line for line in text.splitlines() if re.match(r"[A-Za-z_][\w.]*: ", line)]
        return ends[-1] if ends else text
    return text if isinstance(error, JobError) else f"{type(error).__name__}: {text}"


def host() -> dict[str, Any]:
    """Return this process's host, pid, platform and device kind."""
    device = jax.local_devices()[0]
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "platform": device.platform,
        "device_kind": device.device_kind,
    }


def provenance() -> dict[str, Any]:
    """Return versions, git commit, host, time and command of this process, which creates a store."""
    source = Path(__file__).parents[2]
    commit = None
    if (source / ".git").exists():  # an installed copy may lie inside somebody else's repository
        commit = subprocess.run(
            ["git", "-C", str(source), "rev-parse", "HEAD"],
            capture_output=True, text=True, check=False,
        ).stdout.strip()  # fmt: skip
    return {
        "versions": {name: version_of(name) for name in PACKAGES}
        | {"python": platform.python_version()},
        "git_commit": commit,
        "host": socket.gethostname(),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": sys.argv,
    }
