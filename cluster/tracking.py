"""The submissions of a store: their states, their output, and how to cancel them."""

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from cluster.profiles import RayProfile, load_profile, profile_names
from cluster.ray import jobs as rayjobs
from cluster.record import GIVEN_UP, Submission, submissions
from cluster.slurm import client as slurm
from jobs.errors import JobError, advised
from jobs.spec.trust import is_remembered
from jobs.storage import connect, objects
from jobs.store.look import Look
from jobs.store.store import Store

if TYPE_CHECKING:
    from jobs.query.tree import StoreTree

STRANGE = "it was sent to a Ray cluster that you have no profile of, so that ctd does not ask it (docs/security.md)"

LAST = ("ended", "chained", "cancelled", *GIVEN_UP)
"""First words of what an allocation wrote after which it does nothing."""

RAN = ("FAILED", "COMPLETED", "TIMEOUT", "OUT_OF_MEMORY")
"""Slurm's words for allocations that have run, and write what they do."""

UNSEEN = "nothing that it wrote has arrived here: do the nodes see {}?"


@dataclass(frozen=True)
class State:
    """The state of an allocation or of a job on a Ray."""

    text: str
    is_over: bool
    """It has ended for good."""
    word: str = ""
    """Slurm's word: PENDING, RUNNING ...; "" where Slurm says nothing of it."""
    unasked: str = ""
    """Why Slurm or Ray cannot be asked, if it cannot; `text` is then what the allocation itself wrote last."""

    @property
    def is_going_on(self) -> bool:
        """Return whether it waits or runs, as Slurm or Ray itself says."""
        return not (self.is_over or self.unasked)

    def __str__(self) -> str:
        return f"{self.text} ({self.unasked})" if self.unasked else self.text


def look(
    address: str, records: Sequence[Submission] | None = None, *, patient: bool = False
) -> list[tuple[Submission, dict[str, State]]]:
    """Return each submission of a store with {id: state}, the latest last. Slurm is asked once for all allocations.

    records: the store's submissions, if read before. patient: see `slurm.allocations`.
    """
    store_records = submissions(address) if records is None else records
    allocations, unasked = dict[str, slurm.Allocation](), ""
    try:
        numbers = [n for s in store_records if s.kind == "slurm" for n in s.all_numbers()]
        allocations = slurm.allocations(numbers, patient=patient)
    except JobError as error:
        unasked = str(error)
    states = lambda s: (
        _on_ray(s) if s.kind == "ray" else _on_slurm(s, allocations, unasked, address)
    )
    return [(submission, states(submission)) for submission in store_records]


def _on_ray(submission: Submission) -> dict[str, State]:
    state, profile = State("not known", False, unasked=STRANGE), own_ray(submission)
    if profile is not None:
        try:
            state = State(*rayjobs.state(profile, submission.numbers[0]))
        except JobError as error:
            state = replace(state, unasked=str(error))
    return dict.fromkeys(submission.numbers, state)


def _on_slurm(
    submission: Submission, allocations: dict[str, slurm.Allocation], unasked: str, address: str
) -> dict[str, State]:
    """The states of allocations. allocations: what Slurm says of those that it has not forgotten; unasked: see `State`."""
    words, never = submission.last_words(), "it never started"
    if not unasked and submission.is_cancelled:
        never = "cancelled"
    elif not unasked and submission.folder.is_dir():
        never = f"it never started, or {UNSEEN.format(submission.place())}"
    states = {}
    for number in submission.all_numbers():
        # Tasks of an array that ended some minutes ago are forgotten while others run.
        tasks = [n for n in words | allocations if n.partition("_")[0] == number]
        for n in tasks or [number]:
            word = words.get(n, never)
            # Numbers come again, and a stranger's record may name any: an allocation of this submission prints into its folder.
            if (
                (allocation := allocations.get(n)) is not None
                and submission.is_ours
                and slurm.lies_in(submission.home, allocation.output)
            ):
                text = _in_words(allocation, word, submission, address)
                states[n] = State(text, allocation.is_over, allocation.state)
                continue
            text = _plain(word) + submission.end_text(n, word, address)
            if unasked:
                states[n] = State(text, word.split()[0] in LAST, unasked=unasked)
            else:
                states[n] = State(f"{text} (Slurm has forgotten it)", True)
    return states


def _in_words(allocation: slurm.Allocation, word: str, submission: Submission, address: str) -> str:
    """Describe an allocation by the words of Slurm and by those of the allocation itself."""
    number, text = allocation.number, allocation.text
    # It left its work at a checkpoint.
    if allocation.state == "FAILED" and word.startswith(("cancelled", "chained")):
        return _plain(word)
    if allocation.state in RAN and submission.is_unseen(number):
        return f"{text}; {UNSEEN.format(submission.place())}"
    if allocation.state == "FAILED":
        return text + submission.end_text(number, word, address)
    if allocation.state == "RUNNING" and submission.is_cancelled:
        return text.replace("running", "stopping", 1)
    if allocation.state == "RUNNING":
        return text + submission.now(number, Store.exists(address))
    return text


def _plain(word: str) -> str:
    """The last word of an allocation, for people."""
    event, _, detail = word.partition(" ")
    if event == "chained":
        return f"stopped in order; allocation {detail} goes on"
    return slurm.STATES["CANCELLED"] if event == "cancelled" else word


def own_ray(submission: Submission) -> RayProfile | None:
    """The Ray of a submission, if this user has sent a job there or has a profile of it.

    No other Ray is asked: a stranger's store may name any address, and the file of a token that would be sent there.
    """
    with suppress(ValidationError):
        profile = RayProfile.model_validate(submission.profile)
        if is_remembered(*profile.jobs_api()):
            return profile
        for name in profile_names():
            with suppress(JobError):  # one that is not valid
                own_profile = load_profile(name)
                if (
                    isinstance(own_profile, RayProfile)
                    and own_profile.jobs_api() == profile.jobs_api()
                ):
                    return profile
    return None


def refuse_going_on(address: str) -> None:
    """Raise JobError if an allocation of the store waits or runs."""
    for submission, states in look(address, patient=True):
        for number, state in states.items():
            if state.word and state.is_going_on:
                raise JobError(
                    f"{address}: allocation {number} of submission {submission.id} is {state.text}; "
                    "wait for it, or end it by ctd cancel"
                )


def cancel(address: str) -> list[str]:
    """Cancel a store's submissions; return a line for each allocation or job. The first call lets running drivers write
    checkpoints; a second one ends their allocations at once.
    """
    lines = []
    for submission, states in look(address, patient=True):
        if submission.kind == "ray":
            number, profile = submission.numbers[0], own_ray(submission)
            strange = f"job {number}: not told to stop: {STRANGE}"
            lines += rayjobs.cancel(profile, number) if profile else [strange]
            continue
        home, cancelled = submission.folder, submission.folder / "cancelled"
        first = not os.path.lexists(cancelled)
        if (
            first and home.is_dir()
        ):  # stops the chain of allocations, even if Slurm cannot be asked from here
            # A new file alone: a link of that name would lead to another one.
            os.close(os.open(cancelled, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        # Tasks of an array that wait come first. While there are any, Slurm answers a signal to one that runs with "try again later",
        # and scancel does so, up to 16 times: the driver would take the second signal for an order to stop at once.
        for number, state in sorted(states.items(), key=lambda each: each[1].word == "RUNNING"):
            if state.is_over:
                continue
            if state.word:
                done = _cancel(number, gently=first and state.word == "RUNNING")
            elif home.is_dir():
                started = state.text.startswith("started")
                then = "no other one follows it" if started else "it ends when it starts"
                done = f"Slurm cannot be asked from here; {then}"
            else:
                done = f"neither Slurm nor {submission.home} can be reached from here; cancel it on a login node of the cluster"
            lines.append(f"allocation {number}: {done}")
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
        if (
            state is not None
            and not state.is_over
            and state.state not in ("COMPLETING", "CANCELLING")
        ):
            raise
        return "has ended meanwhile"
    return "cancelled"


SHORTEST = 5
"""Fewest lines of each task of an array that `log_tail` shows."""


def log_tail(address: str, n_lines: int = 40) -> str:
    """Return the last `n_lines` lines of the latest submission's output, of an array those of all its tasks; "" without any."""
    records = submissions(address)
    if not records:
        return ""
    latest = records[-1]
    if latest.kind == "ray":
        profile = own_ray(latest)
        return rayjobs.log(profile, latest.numbers[0], n_lines) if profile else ""
    files = [path for path in latest.folder.glob("slurm-*.out") if path.is_file()]
    files.sort(key=os.path.getmtime)
    if not files:
        return ""
    outputs = [latest.output(task) for task in latest.tasks()] or files[-1:]
    lines = list[str]()
    for file in outputs:
        is_there = file.is_file()
        text = latest.with_own_file(file.read_text(errors="replace")) if is_there else ""
        tail = text.splitlines()[-max(SHORTEST, n_lines // len(outputs)) :]
        lines += [f"--- {file}", *tail] if tail else [f"--- {file}: nothing was printed yet"]
    return "\n".join(lines)


def why_silent(address: str) -> str:
    """Return why the latest submission has printed nothing."""
    _, states = look(address)[-1]
    if not all(state.is_over for state in states.values()):
        waits = advised("ctd", "status", address)
        return f"nothing was printed yet; {waits} says what the job waits for"
    ended = "; ".join(f"allocation {number}: {state}" for number, state in states.items())
    return f"nothing was printed: {ended}"


# --- from Python ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Submitted:
    """A submitted job, from `Job.submit`; another process gets it by `Submitted.of(store)`."""

    store: str
    submission: Submission

    @staticmethod
    def of(store: str | Path) -> "Submitted":
        """Find the latest submission of a store.

        Args:
            store: address of the store.

        Returns:
            The submission.

        Raises:
            JobError: nothing was submitted for the store, or there is none.
        """
        store = os.path.expanduser(store)
        connect.open_objects(store)
        if not (records := submissions(store)):
            raise JobError(f"{store}: nothing was submitted for it; give a store that was")
        return Submitted(store, records[-1])

    def allocations(self) -> dict[str, str]:
        """The state, in words, of each allocation or of the job on a Ray: number -> state."""
        return {number: str(state) for number, state in self._states().items()}

    def status(self) -> dict[str, Any]:
        """The content of `ctd status --json`: counts of items, shards, outcomes, errors; the submissions as by `allocations`."""
        from jobs.report.summary import state

        content: dict[str, Any] = {"store": self.store, "submissions": self.allocations()}
        return content | (state(Look(Store.open(self.store))) if Store.exists(self.store) else {})

    def wait(self, timeout_s: float | None = None, every_s: float = 5.0) -> "StoreTree":
        """Wait until nothing runs or is queued any more, and open the store.

        Where the cluster cannot be asked, the wait ends once all shards are done.

        Args:
            timeout_s: longest wait (s); None: no limit.
            every_s: time between two questions (s).

        Returns:
            The opened store, as `jobs.open_store` returns it.

        Raises:
            TimeoutError: `timeout_s` is over, while the job continues.
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

        if (store := self._complete()) is not None:
            return StoreTree.from_store(store)
        raise JobError(
            f"{self.store}: ended before all shards were done: {self.allocations()}\n{self.logs()}"
        )

    def cancel(self) -> list[str]:
        """Stop the job in order, and return what was done, in lines; `Job.submit` or `ctd resume` continues it."""
        return cancel(self.store)

    def logs(self, n_lines: int = 40) -> str:
        """Return the last lines that the driver printed.

        Args:
            n_lines: number of lines.

        Returns:
            The lines, joined; "" without any.
        """
        return log_tail(self.store, n_lines)

    def _is_over(self) -> bool:
        states = self._states().values()
        if any(state.is_going_on for state in states):
            return False
        if all(state.is_over for state in states):
            return True
        if (store := self._complete()) is None:
            return False
        from jobs.gather.gather import gather_to_look

        # The driver may not have come to it yet.
        with objects.may_fail():
            gather_to_look(store)
        return True

    def _complete(self) -> Store | None:
        """The store, if all its shards are done."""
        if not Store.exists(self.store):
            return None
        store = Store.open(self.store)
        is_whole = len(store.committed.numbers()) == store.job.plan.n_shards
        return store if is_whole else None

    def _states(self) -> dict[str, State]:
        return next(
            states for submission, states in look(self.store) if submission.id == self.submission.id
        )
