"""Identify a process among those of all machines; tell whether one of this machine has ended."""

import getpass
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from pydantic import BaseModel

HIDDEN = "hidden"
"""The start time of a process that there is, and of which /proc tells nothing."""


class Process(BaseModel, frozen=True):
    """A process, told from all others by `machine`, id and start (`born`), with its user and command. Defaults mean: not known."""

    host: str = "?"
    machine: str = ""
    pid: int = 0
    born: str = ""
    user: str = "?"
    command: Sequence[str] = ()

    @classmethod
    def from_json(cls, content: object) -> Self:
        """Return the process that `model_dump` described; fields that a later ctd has added are ignored.

        Raises ValueError if `content` describes none.
        """
        if not isinstance(content, Mapping) or content.keys().isdisjoint(cls.model_fields):
            raise ValueError("describes no process")
        return cls.model_validate(content)

    @property
    def is_running(self) -> bool:
        """Return whether it is a process of this machine that is seen to run."""
        return self.machine == machine() and born(self.pid) == self.born

    @property
    def has_ended(self) -> bool:
        """Return whether it was a process of this machine that has ended."""
        return self.machine == machine() and born(self.pid) not in (self.born, HIDDEN)


def this_process() -> Process:
    """Return the process that calls."""
    return Process(
        host=socket.gethostname(), machine=machine(), pid=os.getpid(), born=born(os.getpid()),
        user=_user(), command=sys.argv,
    )  # fmt: skip


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user id without a name, as in containers
        return str(os.getuid())


def machine() -> str:
    """Return the scope of process ids, equal for one boot of one kernel and one pid namespace."""
    try:
        # After a reboot, and in each container, the process ids start over.
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def born(pid: int) -> str:
    """Return the start time of a process, which tells it from a later one with its id; "" if it has ended."""
    try:
        # After the last bracket: the command may contain spaces and brackets. stat_fields[18] is field 22, the start in clock
        # ticks since the boot. A zombie (Z) has ended, though its parent has not asked for its exit code yet.
        state, *stat_fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if state == "Z" else stat_fields[18]
    except OSError:
        return HIDDEN if _is_hidden(pid) else ""


def _is_hidden(pid: int) -> bool:
    """Return whether /proc hides a process: with `hidepid`, those of other users. A signal finds it all the same."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        pass
    return False  # /proc shows ours: it has ended
