"""Call the user's own command when a run ends: to send a mail or a message, or to start the next step.

    ~/.config/ctd/settings.yaml          on_end: 'curl -d "$CTD_STORE: $CTD_ENDED" https://ntfy.sh/my-topic'

The command is in the user's settings, not in the job file: a job file from somebody else brings no command.
"""

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from cluster.cli.display import err
from cluster.profiles import profiles_folder
from jobs.errors import count, validated
from jobs.run.progress import Progress
from jobs.run.stop import Interrupted
from jobs.spec.text import parse_file
from jobs.storage.addresses import absolute
from jobs.store.events import Events
from jobs.store.store import Store

PATIENCE_S = 60
"""Seconds that the command may take: a run that has ended must not hang at a mail server."""


class Settings(BaseModel):
    """A user's settings for all jobs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    on_end: str | None = Field(None, description="shell command that is called when a run ends")


def settings_file() -> Path:
    """Return the path of this user's settings; there may be no file."""
    return profiles_folder().parent / "settings.yaml"


def read_settings() -> Settings:
    """Return this user's settings; JobError, naming file and field, if they are not valid."""
    path = settings_file()
    try:
        return validated(Settings, parse_file(path) or {}, str(path))
    except FileNotFoundError:
        return Settings()


@dataclass
class Ending:
    """The end of a run. The command gets it as JSON on standard input, and all but `outcomes` as $CTD_STORE, ..."""

    store: str
    """Address of the store; a path is absolute, since the command may work in another folder."""
    ended: Literal["done", "failed", "stopped", "error"] = "error"
    """failed: a shard or an item failed; error: an error ended the run early."""
    told: str = ""
    """One line for people."""
    items: int = 0
    items_done: int = 0
    """Items in the store, however they ended."""
    items_failed: int = 0
    """Items that fail with an error even alone; a failing outcome, such as diverged, does not count here."""
    shards_failed: int = 0
    """Shards given up."""
    outcomes: Mapping[str, int] = field(default_factory=dict)
    """The kernel's word for how items ended -> how many."""


def note_progress(ending: Ending, progress: Progress) -> None:
    """Record the progress of a run for the user's `on_end`."""
    failed = bool(progress.failed or progress.failed_items)
    ending.ended = "stopped" if progress.stopped is not None else "failed" if failed else "done"
    ending.items, ending.items_done = progress.n_items, progress.items_done
    ending.items_failed, ending.shards_failed = len(progress.failed_items), len(progress.failed)
    ending.outcomes = {name: n for name, n in progress.outcomes.items() if n}


@contextmanager
def calls_on_end(address: str) -> Iterator[Ending]:
    """Call the user's `on_end` at the end of a run of the store at `address`, however it ends. If that command fails,
    a line is printed and logged in the store, and nothing else changes."""
    settings, ending = read_settings(), Ending(absolute(address))
    try:
        yield ending
    finally:
        ending.told = f"{address}: {ending.ended}{_counts(ending)}"
        if fault := call_on_end(settings, ending):
            err.print(fault)
            # There may be no store to log it in; the user has seen the line above.
            with suppress(Exception), closing(Events(Store.open(address))) as events:
                events.note("on_end", error=fault)


def _counts(ending: Ending) -> str:
    """How many items were computed and how they ended, after a comma; "" if no item is known."""
    if not ending.items:
        return ""
    ways = [f"{n:,} {name}" for name, n in ending.outcomes.items()]
    ways += [f"{ending.items_failed:,} failed with an error"] * bool(ending.items_failed)
    computed = f", {ending.items_done:,} of {count(ending.items, 'item')} computed"
    return f"{computed}: {', '.join(ways)}" if ways else computed


def call_on_end(settings: Settings, ending: Ending) -> str | None:
    """Call the user's command; return its error, or None. Raises nothing."""
    if (command := settings.on_end) is None:
        return None
    said = ""
    try:
        fault, said = _call(command, ending)
    except subprocess.TimeoutExpired:
        fault = f"took more than {PATIENCE_S} s and was ended"
    except (KeyboardInterrupt, Interrupted):
        fault = "interrupted"
    except (OSError, ValueError) as error:  # no memory for a process; a NUL in the command
        fault = f"cannot be called: {error}"
    return f"on_end: {fault}: {command}{said}" if fault else None


def _call(command: str, ending: Ending) -> tuple[str, str]:
    """(Its exit code in words, "" for 0; the last line of its output after a colon, "" without one)."""
    told = {f"CTD_{k.upper()}": str(v) for k, v in asdict(ending).items() if k != "outcomes"}
    # Files, not pipes: a child that the command leaves behind would hold a pipe open.
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said:
        given.write(json.dumps(asdict(ending)).encode() + b"\n")
        given.seek(0)
        process = subprocess.Popen(  # noqa: S602  the user's own command
            command, shell=True, env=os.environ | told, stdin=given, stdout=said,
            stderr=said, start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(PATIENCE_S)
        finally:
            if process.returncode is None:  # its children too: the shell waits for them
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        said.seek(max(0, said.seek(0, os.SEEK_END) - 2000))
        lines = said.read().decode(errors="replace").strip().splitlines()
        return f"exit code {code}" * bool(code), f": {lines[-1]}" if lines else ""
