"""Follow the submissions of a store: their states, their output, and how to cancel them."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cluster.profiles import RayProfile, load_profile, profile_names
from cluster.slurm import client as slurm
from cluster.submission import Submission, submissions
from jobs.errors import JobError
from jobs.spec.trust import is_remembered
from jobs.storage import objects

STRANGE = "not known: it was sent to a Ray that you have no profile of, which is not asked (docs/security.md)"


def objects_exist(address: str) -> bool:
    """Whether `address` may hold a store: an object store, or a folder that exists."""
    path = objects.local_path(address)
    return path is None or path.is_dir()


def look(address: str) -> list[tuple[Submission, dict[str, Any]]]:
    """Return each submission of a store with {id: state}, the latest last. A state is a `slurm.Allocation` or text.

    Slurm is asked once for all allocations. If it has forgotten one, or cannot be asked from here, the state
    is the last line that the allocation wrote to allocations.tsv.
    """
    found = submissions(address)
    numbers = [n for s in found if s.kind == "slurm" for n in s.all_numbers()]
    try:
        known = slurm.allocations(numbers)
        unknown = "Slurm has forgotten it"
    except JobError as error:
        known, unknown = {}, str(error)
    result = []
    states: dict[str, Any]
    for submission in found:
        if submission.kind == "ray":
            states = dict.fromkeys(submission.numbers, STRANGE)
            if is_own(submission):
                from cluster.ray import jobs as rayjobs

                states = rayjobs.states(submission)
            result.append((submission, states))
            continue
        states = {}
        for number in submission.all_numbers():
            tasks = {n: state for n, state in known.items() if n.partition("_")[0] == number}
            states |= tasks
            if not tasks:
                last = {
                    line[1]: line for line in submission.history()
                    if line[1].partition("_")[0] == number
                }  # fmt: skip
                told = {n: f"{line[2]} {line[3]}".strip() for n, line in last.items()}
                for n, text in (told or {number: "it never started"}).items():
                    states[n] = f"{text} ({unknown})"
        result.append((submission, states))
    return result


def is_own(submission: Submission) -> bool:
    """Whether this user has sent a job to the Ray of a submission, or has a profile of it.

    No other Ray is asked: a stranger's store may name any address, and the file of a token that would be sent there.
    """
    try:
        asked = RayProfile.model_validate(submission.profile).jobs_api()
    except ValidationError:
        return False
    return is_remembered(*asked) or any(asked == own.jobs_api() for own in _own_rays())


def _own_rays() -> Iterator[RayProfile]:
    for name in profile_names():
        with suppress(JobError):  # one that is not valid
            if isinstance(profile := load_profile(name), RayProfile):
                yield profile


def said(state: Any) -> str:
    """Return a state from `look` as text."""
    return state.text if isinstance(state, slurm.Allocation) else str(state)


def is_over(state: Any) -> bool:
    """Whether a state from `look` is the last one."""
    if isinstance(state, slurm.Allocation):
        return state.is_over
    word = str(state).partition(":")[0]
    return word in ("succeeded", "failed", "stopped") or "has forgotten" in str(state)


def cancel(address: str) -> list[str]:
    """Cancel a store's submissions; return a line for each allocation or job.

    The first call lets running drivers write checkpoints; a second one ends their allocations at once.
    """
    lines = []
    for submission, states in look(address):
        if submission.kind == "ray":
            if is_own(submission):
                from cluster.ray import jobs as rayjobs

                lines += rayjobs.cancel(submission)
            continue
        home = Path(submission.home)
        first = not (home / "cancelled").exists()
        if home.is_dir():  # stops the chain of allocations, even if Slurm cannot be asked from here
            (home / "cancelled").touch()
        for number, state in states.items():
            if not isinstance(state, slurm.Allocation) or state.is_over:
                continue
            if first and state.state == "RUNNING":
                # Signal the batch shell alone, so that Ray stays up while the driver writes checkpoints.
                slurm.command("scancel", "--batch", "--signal=TERM", number)
                lines.append(
                    f"allocation {number}: told to stop; cancel once more to end it at once"
                )
            else:
                slurm.command("scancel", number)
                lines.append(f"allocation {number}: cancelled")
    return lines


def log_tail(address: str, n_lines: int = 40) -> str:
    """Return the last `n_lines` lines of the latest submission's output; "" if there are none."""
    found = submissions(address)
    if not found:
        return ""
    latest = found[-1]
    if latest.kind == "ray":
        if not is_own(latest):
            return ""
        from cluster.ray import jobs as rayjobs

        return rayjobs.log(latest, n_lines)
    files = sorted(Path(latest.home).glob("slurm-*.out"), key=os.path.getmtime)
    if not files:
        return ""
    tail = files[-1].read_text(errors="replace").splitlines()[-n_lines:]
    return "\n".join([f"--- {files[-1]}", *tail])
