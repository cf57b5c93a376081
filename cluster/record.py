"""The record of a submission in the stores of its stages, and what its allocations wrote about themselves."""

import os
import re
import time
from contextlib import suppress
from dataclasses import field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from jobs import keys
from jobs.errors import EXIT_STOPPED, advised
from jobs.spec.trust import is_remembered, remember
from jobs.storage import addresses, connect
from jobs.store.advice import submission_records, submit_command

NUMBER = re.compile(r"\d+(_\d+)?")
"""The id of a Slurm allocation, or of a task of an array."""

NOWHERE = Path(os.devnull, "home")

GIVEN_UP = {
    "limit": "it has used all of its max_allocations allocations; with a longer `time` it needs fewer",
    "stuck": "two allocations in a row made no progress; give the profile a longer `time` or a shorter `grace_s`",
    "unqueued": "Slurm did not queue the next allocation",
}
"""The last word of an allocation in allocations.tsv -> what it means."""

SCRIPT_LINE = re.compile(r"[\d-]{10} [\d:]{8} \[\S+\] (.*)")
"""A line that an allocation's script prints, beside those of the driver."""

HAND_OVER_S = 120
"""Longest time (s) for which an allocation tries to queue the next one."""


@dataclass(frozen=True)
class Submission:
    """A submission: one call of `ctd submit`, as the stores of its stages record it."""

    id: Annotated[str, Field(pattern=r"^[\w-]+$")]
    kind: Literal["slurm", "ray"]
    numbers: Annotated[list[Annotated[str, Field(pattern=r"^[\w-]+$")]], Field(min_length=1)]
    """The id of the Slurm allocation or Ray job that was submitted; later allocations are in allocations.tsv."""
    home: str
    """Folder of the submission; "" for Ray."""
    profile: dict[str, Any]
    command: str
    """The driver's command, for people who read the record."""
    submitted: float
    """When it was sent (time.time)."""
    words: list[str] = field(default_factory=list)
    """The words after `ctd submit` that sent it; none from Python."""
    is_ours: bool = True
    """ctd made `home`: a stranger's record may name any folder. `submissions` finds out."""

    @property
    def folder(self) -> Path:
        """`home`, if ctd made it; else a path at which there never is anything."""
        return Path(self.home) if self.home and self.is_ours else NOWHERE

    def again(self) -> str:
        """Return the command, for messages, that continues it."""
        return submit_command(self.words)

    @property
    def is_cancelled(self) -> bool:
        """Return whether `ctd cancel` was called for it."""
        return (self.folder / "cancelled").exists()

    def history(self) -> list[list[str]]:
        """Return the lines of allocations.tsv: [time, allocation, what happened, detail]; none without the file.

        A line of other fields is left out: a full disk cut it short, or two nodes wrote into each other's.
        """
        lines = [line.split("\t") for line in _text(self.folder / "allocations.tsv").splitlines()]
        return [line for line in lines if len(line) == 4 and NUMBER.fullmatch(line[1])]

    def last_words(self) -> dict[str, str]:
        """Return {allocation: what it wrote last, and the detail}.

        An allocation that was stopped in order writes as its next line how the job goes on, unless it was cancelled or cannot.
        """
        words = {}
        for written_at, number, word, detail in self.history():
            words[number] = f"{word} {detail}".strip()
            if words[number] == f"ended {EXIT_STOPPED}":
                if self.is_cancelled:
                    words[number] = "cancelled"
                elif written_at.isdecimal() and time.time() - int(written_at) < HAND_OVER_S:
                    words[number] = "handing over"
        return words

    def place(self) -> str:
        """Return the store or work directory in which the folder of the submission lies."""
        before, below, _ = self.home.rpartition(f"/{keys.SUBMIT}")
        return before if below else str(Path(self.home).parent)

    def tasks(self) -> list[str]:
        """Return the ids of the tasks of an array; none of another submission."""
        text = _text(self.folder / "allocation.sbatch")
        last = re.search(r"^#SBATCH --array=0-(\d{1,6})$", text, re.MULTILINE)
        return [f"{self.numbers[0]}_{task}" for task in range(int(last[1]) + 1)] if last else []

    def output(self, number: str) -> Path:
        """Return the file of what an allocation prints."""
        return self.folder / f"slurm-{number}.out"

    def with_own_file(self, text: str) -> str:
        """Return what a driver printed with the user's job file in place of its copy in `home`."""
        job_file = str(self.words[0]) if self.words else ""
        return (
            text.replace(f"{self.home}/{Path(job_file).stem}.yaml", job_file)
            if job_file and self.home
            else text
        )

    def last_lines(self, number: str) -> list[str]:
        """Return the lines in the last 4 kB of what an allocation has printed; none if nothing has arrived here."""
        return self.with_own_file(_text(self.output(number), 4096)).splitlines()

    def now(self, number: str, has_store: bool) -> str:
        """Return the last line of an allocation's script or, until there is a store, of its driver, to append to its state."""
        last = (self.last_lines(number) or [""])[-1]
        text = _script_text(last) or ("" if has_store else last)
        return f": {text}" if text else ""

    def end_text(self, number: str, word: str, address: str) -> str:
        """Return why an allocation ended with a fault, to append to its state; "" if it did not. word: its last one."""
        if not word.startswith("ended ") or word in ("ended 0", f"ended {EXIT_STOPPED}"):
            return ""
        lines = self.last_lines(number) or [""]
        errors = [line for line in lines if line.startswith("error: ")]
        script_text = (
            "" if _script_text(lines[-1]).startswith("ended with ") else _script_text(lines[-1])
        )
        text = errors[-1] if errors else script_text or f"see {advised('ctd', 'logs', address)}"
        return f": {text}"

    def is_unseen(self, number: str) -> bool:
        """Return whether nothing that an allocation wrote has arrived in the folder of the submission."""
        has_note = any(line[1] == number for line in self.history())
        return self.folder.is_dir() and not has_note and not self.output(number).exists()

    def given_up(self) -> dict[str, str]:
        """Return {allocation: why it queued no further one although the job was not done}, for those that gave up."""
        words = {number: text.partition(" ")[0] for number, text in self.last_words().items()}
        return {number: GIVEN_UP[word] for number, word in words.items() if word in GIVEN_UP}

    def all_numbers(self) -> list[str]:
        """Return the submitted ids, and those of the allocations that they chained."""
        chained = [line[3] for line in self.history() if line[2] == "chained"]
        return [*self.numbers, *filter(NUMBER.fullmatch, chained)]


def _text(path: Path, most: int = 1 << 24) -> str:
    """Return the last `most` bytes of a regular file as text; "" for anything else, such as a pipe, at which a reader waits."""
    if not path.is_file():
        return ""
    try:
        with path.open("rb") as file:
            file.seek(-min(most, file.seek(0, os.SEEK_END)), os.SEEK_END)
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def _script_text(line: str) -> str:
    """Return the text that an allocation's script printed in a line; "" for a line of its driver."""
    match = SCRIPT_LINE.fullmatch(line)
    return match[1] if match else ""


RECORD = TypeAdapter(Submission)


def submissions(address: str) -> list[Submission]:
    """Return all submissions that a store records, the latest last; damaged records are left out."""
    path = addresses.local_path(address)
    if path is not None and not path.is_dir():
        return []
    submitted = []
    for record in submission_records(connect.open_objects(address)):
        with suppress(ValidationError):
            submission = RECORD.validate_python(record)
            if submission.kind == "ray" or all(map(NUMBER.fullmatch, submission.numbers)):
                submitted.append(replace(submission, is_ours=_is_ours(submission, address)))
    return submitted


def _is_ours(submission: Submission, address: str) -> bool:
    """Return whether ctd made `home`: it lies in the store, without links on the way, or this user has submitted for this store."""
    path = addresses.local_path(address)
    if path is not None:
        inside = Path(os.path.realpath(path), keys.submission(submission.id)).parent
        if os.path.realpath(submission.home or os.devnull) == str(inside):
            return True
    return is_remembered(*_note(submission, address))


def remember_home(submission: Submission, address: str) -> None:
    """Note that this user has made a submission for the store at an address: its folder may lie outside of it."""
    remember(*_note(submission, address))


def _note(submission: Submission, address: str) -> tuple[str, ...]:
    # With the store, since a stranger may copy a record into one of theirs.
    path = addresses.local_path(address)
    place = addresses.plain(address) if path is None else os.path.realpath(path)
    return "submission", submission.id, submission.home, place
