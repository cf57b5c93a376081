"""Seconds of a worker per item, kept on disk for the next job of the kernel with the same parameters."""

import hashlib
import json
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median

from cluster.cache import cache_home
from cluster.versions import versions
from ctd.replacing import replacing
from jobs.spec.job import JobSpec
from jobs.store.marker import Marker


def remembered_pace(spec: JobSpec, home: Path | None = None) -> float | None:
    """The seconds that a worker needs for an item of a job with this kernel and `params`; None if unknown.

    home: the cache of the machines that remember it; by default this machine's.
    """
    with suppress(OSError, ValueError, TypeError, KeyError):
        return float(json.loads(_file(spec, home or cache_home()).read_text())["seconds_per_item"])
    return None


def remember_pace(spec: JobSpec, markers: Sequence[Marker]) -> None:
    """Remember the seconds per item of shards that this machine computed, if fewer than before.

    The least counts, because other work on the machine only adds to it. A folder that cannot be written is ignored.
    """
    local_markers = [m for m in markers if m.host == socket.gethostname() and not m.copied_from]
    paces = [m.seconds / m.n_items for m in local_markers if m.n_items]
    # Of the median shard, since a worker's first one includes the compilation.
    pace, before = median(paces) if paces else float("inf"), remembered_pace(spec)
    if pace >= (before or float("inf")):
        return
    with suppress(OSError):
        file = _file(spec, cache_home())
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as new:
            new.write_text(json.dumps({"kernel": spec.kernel, "seconds_per_item": pace}))


def _file(spec: JobSpec, home: Path) -> Path:
    """The file for a kernel, its fixed parameters and the versions, on all of which the time depends."""
    about = json.dumps([spec.kernel, spec.params, versions()], sort_keys=True, default=str)
    return home / "pace" / f"{hashlib.sha256(about.encode()).hexdigest()[:32]}.json"
