"""Remember on this machine how long an item took, to know beforehand whether a job takes seconds or hours."""

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


def remembered_pace(spec: JobSpec) -> float | None:
    """Seconds of one worker for one item of a job with this kernel and these `params`; None: not known here."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        return float(json.loads(_file(spec).read_text())["seconds_per_item"])
    return None


def remember_pace(spec: JobSpec, markers: Sequence[Marker]) -> None:
    """Remember how long the items of shards that were computed here took, if less than before: other work on the machine
    only makes it longer. A folder that cannot be written is let be."""
    here = [m for m in markers if m.host == socket.gethostname() and not m.copied_from]
    pace, before = pace_of(here), remembered_pace(spec)
    if pace is None or (before is not None and before <= pace):
        return
    with suppress(OSError):
        file = _file(spec)
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as new:
            new.write_text(json.dumps({"kernel": spec.kernel, "seconds_per_item": pace}))


def pace_of(markers: Sequence[Marker]) -> float | None:
    """Seconds of one worker for one item, the median over these shards: a worker's first one holds its compilation.

    None: there are none.
    """
    paces = [m.seconds / m.shard.n_items for m in markers]
    return median(paces) if paces else None


def _file(spec: JobSpec) -> Path:
    """One file for each kernel, its fixed parameters, and versions: other ones take another time."""
    about = json.dumps([spec.kernel, spec.params, versions()], sort_keys=True, default=str)
    name = hashlib.sha256(about.encode()).hexdigest()[:32]
    return cache_home() / "pace" / f"{name}.json"
