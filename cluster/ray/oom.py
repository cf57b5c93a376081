"""Whether the kernel has killed a worker for memory.

Of such a death Ray says no more than of any other, and the worker says nothing. But the kernel counts whom it kills: the
worker tells the count with its signs of life, and the one that takes its place tells how it has grown.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

NAME = "oom_kill"


PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")


def kernel_kills(proc: Path = PROC, mount: Path = CGROUPS) -> int:
    """How many processes of this process' memory cgroup the kernel has killed because memory ran out.

    Where that is not told: how many of this machine; 0 where that is not told either.
    """
    for file in _counters(proc, mount):
        with suppress(OSError, ValueError):
            counts = dict(line.split() for line in file.read_text().splitlines())
            if NAME in counts:
                return int(counts[NAME])
    return 0


def _counters(proc: Path, mount: Path) -> Iterator[Path]:
    """The files that may have the count, the best first."""
    lines: list[str] = []
    with suppress(OSError):
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    for _, controllers, path in (line.split(":", 2) for line in lines):
        below = path.lstrip("/")
        if "memory" in controllers.split(","):
            # A container may see its own cgroup as the root, and the path to it from outside.
            yield mount / "memory" / below / "memory.oom_control"
            yield mount / "memory" / "memory.oom_control"
        elif not controllers:
            yield mount / below / "memory.events"
            yield mount / "memory.events"
    yield proc / "vmstat"
