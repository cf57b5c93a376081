"""The submissions of a store: their states, their output, and how to cancel them."""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from cluster.profiles import RayProfile, load_profile, profile_names
from cluster.record import GIVEN_UP, Submission, submissions
from cluster.slurm import client as slurm
from jobs.errors import JobError, advised
from jobs.spec.trust import is_remembered
from jobs.storage import connect, objects
from jobs.store.store import Store

if TYPE_CHECKING:
    from jobs.query.tree import StoreTree

STRANGE = "not known: it was sent to a Ray that you have no profile of, which is not asked (docs/security.md)"

LAST = ("ended", "chained", "cancelled", *GIVEN_UP, "succeeded", "failed", "stopped")
"""First words of a state, of an allocation or of a job on a Ray, after which nothing comes."""

FORGOTTEN = "Slurm has forgotten it"

RAN = ("FAILED", "COMPLETED", "TIMEOUT", "OUT_OF_MEMORY")
"""Slurm's words for allocations that have run, and write what they do."""

UNSEEN = "nothing that it wrote has arrived here: do the nodes see {}?"


@dataclass(frozen=True)
class Noted:
    """The state of an allocation of which Slurm says nothing."""

    text: str
    """What the allocation itself wrote last."""
    why: str
    """FORGOTTEN, or why Slurm cannot be asked."""


def look(address: str) -> list[tuple[Submission, dict[str, Any]]]:
    """Return each submission of a store with {id: state}, the latest last. A state is a `slurm.Allocation`, `Noted` or,
    of a job on a Ray, text.

    Slurm is asked once for all allocations.
    """
    found = submissions(address)
    numbers = [n for s in found if s.kind == "slurm" for n in s.all_numbers()]
    try:
        known = slurm.allocations(numbers)
        unknown = FORGOTTEN
    except JobError as error:
        known, unknown = {}, str(error)
    result = []
    states: dict[str, Any]
    for submission in found:
        if submission.kind == "ray":
            states = dict.fromkeys(submission.numbers, STRANGE)
            if is_own(submission):
                from cluster.ray import jobs as rayjobs

                states = rayjobs.states(*_on_ray(submission))
            result.append((submission, states))
            continue
        # Tasks of an array that ended some minutes ago are forgotten while others run.
        states, words = {}, submission.last_words()
        never = "it never started"
        if unknown == FORGOTTEN and submission.is_cancelled:
            never = "cancelled"
        elif unknown == FORGOTTEN and Path(submission.home).is_dir():
            never = f"it never started, or {UNSEEN.format(submission.place())}"
        for number in submission.all_numbers():
            tasks = [n for n in words | known if n.partition("_")[0] == number]
            for n in tasks or [number]:
                word = words.get(n, never)
                if n in known:
                    states[n] = _state(known[n], word, submission, address)
                else:
                    states[n] = Noted(_plain(word) + submission.why(n, word, address), unknown)
        result.append((submission, states))
    return result


def _state(
    known: slurm.Allocation, word: str, submission: Submission, address: str
) -> slurm.Allocation:
    """A state as Slurm says it, with what the allocation itself says. Of one that left its work at a checkpoint for
    `ctd cancel`, Slurm says that it failed.
    """
    text = known.text
    if known.state == "FAILED" and word == "cancelled":
        text = _plain(word)
    elif known.state in RAN and submission.is_unseen(known.number):
        text += f"; {UNSEEN.format(submission.place())}"
    elif known.state == "RUNNING" and submission.is_cancelled:
        text = text.replace("running", "stopping", 1)
    elif known.state == "RUNNING":
        text += submission.now(known.number, Store.exists(address))
    elif known.state == "FAILED":
        text += submission.why(known.number, word, address)
    return replace(known, text=text)


def _plain(word: str) -> str:
    """The last word of an allocation, for people."""
    return slurm.STATES["CANCELLED"] if word == "cancelled" else word


def is_own(submission: Submission) -> bool:
    """Whether this user has sent a job to the Ray of a submission, or has a profile of it.

    No other Ray is asked: a stranger's store may name any address, and the file of a token that would be sent there.
    """
    try:
        asked = RayProfile.model_validate(submission.profile).jobs_api()
    except ValidationError:
        return False
    return is_remembered(*asked) or any(asked == own.jobs_api() for own in _own_rays())


def _on_ray(submission: Submission) -> tuple[RayProfile, str]:
    """The Ray that a job was sent to, and its id there."""
    return RayProfile.model_validate(submission.profile), submission.numbers[0]


def _own_rays() -> Iterator[RayProfile]:
    for name in profile_names():
        with suppress(JobError):  # one that is not valid
            if isinstance(profile := load_profile(name), RayProfile):
                yield profile


def said(state: object) -> str:
    """Return a state from `look` as text."""
    if isinstance(state, Noted):
        return f"{state.text} ({state.why})"
    return state.text if isinstance(state, slurm.Allocation) else str(state)


def is_over(state: object) -> bool:
    """Whether a state from `look` is the last one."""
    if isinstance(state, slurm.Allocation):
        return state.is_over
    return said(state).split()[0].rstrip(":;") in LAST or (
        isinstance(state, Noted) and state.why == FORGOTTEN
    )


def is_going_on(state: object) -> bool:
    """Whether a state from `look` is that of something that waits or runs, as Slurm or Ray itself says."""
    if isinstance(state, slurm.Allocation):
        return not state.is_over
    return said(state).partition(":")[0] in ("pending", "running")


def cancel(address: str) -> list[str]:
    """Cancel a store's submissions; return a line for each allocation or job.

    The first call lets running drivers write checkpoints; a second one ends their allocations at once.
    """
    lines = []
    for submission, states in look(address):
        if submission.kind == "ray":
            if is_own(submission):
                from cluster.ray import jobs as rayjobs

                lines += rayjobs.cancel(*_on_ray(submission))
            continue
        home = Path(submission.home)
        first = not (home / "cancelled").exists()
        if home.is_dir():  # stops the chain of allocations, even if Slurm cannot be asked from here
            (home / "cancelled").touch()
        for number, state in states.items():
            if is_over(state):
                continue
            if isinstance(state, slurm.Allocation):
                word = _cancel(number, gently=first and state.state == "RUNNING")
            else:
                word = _unasked(said(state), home)
            lines.append(f"allocation {number}: {word}")
    return lines


def _cancel(number: str, gently: bool) -> str:
    """Cancel an allocation, or let its driver write checkpoints; return what was done."""
    try:
        if gently:
            # Signal the batch shell alone, so that Ray stays up while the driver writes checkpoints.
            slurm.command("scancel", "--batch", "--signal=TERM", number)
            return "told to stop; cancel once more to end it at once"
        slurm.command("scancel", number)
    except slurm.SlurmError:
        # scancel complains in several ways, or in no words, of an allocation that has just ended.
        state = slurm.allocations([number]).get(number)
        if state is not None and not state.is_over and state.state != "COMPLETING":
            raise
        return "has ended meanwhile"
    return "cancelled"


def _unasked(state: str, home: Path) -> str:
    """What becomes of a cancelled allocation where Slurm cannot be asked."""
    if not home.is_dir():
        return f"neither Slurm nor {home} can be reached from here; cancel it on a login node of the cluster"
    then = "no other one follows it" if state.startswith("started") else "it ends when it starts"
    return f"Slurm cannot be asked from here; {then}"


SHORTEST = 5
"""Lines of each task of an array that `log_tail` shows at least."""


def log_tail(address: str, n_lines: int = 40) -> str:
    """Return the last `n_lines` lines of the latest submission's output, of an array those of all its tasks; "" if there
    are none.
    """
    found = submissions(address)
    if not found:
        return ""
    latest = found[-1]
    if latest.kind == "ray":
        if not is_own(latest):
            return ""
        from cluster.ray import jobs as rayjobs

        return rayjobs.log(*_on_ray(latest), n_lines)
    files = sorted(Path(latest.home).glob("slurm-*.out"), key=os.path.getmtime)
    if not files:
        return ""
    shown = [latest.output(task) for task in latest.tasks()] or files[-1:]
    lines = list[str]()
    for file in shown:
        text = file.read_text(errors="replace") if file.exists() else ""
        tail = text.splitlines()[-max(SHORTEST, n_lines // len(shown)) :]
        lines += [f"--- {file}", *tail] if tail else [f"--- {file}: nothing was printed yet"]
    return "\n".join(lines)


def why_silent(address: str) -> str:
    """Return why the latest submission has printed nothing."""
    _, states = look(address)[-1]
    if not all(map(is_over, states.values())):
        waits = advised("ctd", "status", address)
        return f"nothing was printed yet; {waits} says what the job waits for"
    ended = "; ".join(f"allocation {number}: {said(state)}" for number, state in states.items())
    return f"nothing was printed: {ended}"


# --- from Python ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Submitted:
    """A submitted job, from `Job.submit`; another process gets it by `Submitted.of(store)`."""

    store: str
    submission: Submission

    @staticmethod
    def of(store: str) -> "Submitted":
        """The latest submission of a store. Raises JobError if there is none, or no store."""
        connect.open_objects(store)
        if not (found := look(store)):
            raise JobError(f"{store}: nothing was submitted for it; give a store that was")
        return Submitted(store, found[-1][0])

    def allocations(self) -> dict[str, str]:
        """The state, in words, of each allocation or of the job on a Ray: number -> state."""
        return {number: said(state) for number, state in self._states().items()}

    def status(self) -> dict[str, Any]:
        """The content of `ctd status --json`: submissions, and counts of items, shards, outcomes and errors."""
        from jobs.report.summary import state

        found: dict[str, Any] = {"store": self.store, "submissions": self.allocations()}
        return found | (state(Store.open(self.store)) if Store.exists(self.store) else {})

    def wait(self, timeout_s: float | None = None, every_s: float = 5.0) -> "StoreTree":
        """Wait until nothing runs or is queued any more, and return the opened store. Where that cannot be asked, it is
        over once all shards are done.

        Args:
            timeout_s: longest wait (s); by default no limit.
            every_s: poll interval (s).

        Raises:
            TimeoutError: after `timeout_s`; the job continues.
            JobError: the job ended before all shards were done; the text has the last lines that it printed.
        """
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._is_over():
            if end is not None and time.monotonic() > end:
                raise TimeoutError(
                    f"{self.store}: not done after {timeout_s:g} s; {self.allocations()}"
                )
            time.sleep(every_s)
        from jobs.query.tree import StoreTree

        if (opened := self._complete()) is not None:
            return StoreTree.of(opened)
        raise JobError(
            f"{self.store}: ended before all shards were done: {self.allocations()}\n{self.logs()}"
        )

    def cancel(self) -> list[str]:
        """Stop the job in order, and return what was done, in lines; `Job.submit` or `ctd resume` continues it."""
        return cancel(self.store)

    def logs(self, n_lines: int = 40) -> str:
        """The last lines that the driver printed."""
        return log_tail(self.store, n_lines)

    def _is_over(self) -> bool:
        states = self._states().values()
        if any(map(is_going_on, states)):
            return False
        if all(map(is_over, states)):
            return True
        if (opened := self._complete()) is None:
            return False
        from jobs.gather.gather import gather_to_look

        # The driver may not have come to it yet.
        with objects.may_fail():
            gather_to_look(opened)
        return True

    def _complete(self) -> Store | None:
        """The store, if all its shards are done."""
        if not Store.exists(self.store):
            return None
        opened = Store.open(self.store)
        is_whole = len(opened.committed.numbers()) == opened.job.plan.n_shards
        return opened if is_whole else None

    def _states(self) -> dict[str, Any]:
        return next(states for sent, states in look(self.store) if sent.id == self.submission.id)
