"""Whether the kernel has killed a worker for memory.

Ray reports such a death like any other, and the worker can report nothing. But the kernel counts the processes that it kills:
a worker sends this count with its signs of life, and the worker that takes its place sends the count again. If it has grown,
the kernel killed the first one.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

NAME = "oom_kill"


PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")


def kernel_kills(proc: Path = PROC, mount: Path = CGROUPS) -> int:
    """How many processes of this process' memory cgroup the kernel has killed because memory ran out.

    If the cgroup has no such count: how many of this machine; 0 if the machine has none either.
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
