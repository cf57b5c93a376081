"""The commands that messages propose: what goes on with a store's job, and what shows or gathers it."""

from collections.abc import Sequence
from typing import Any

from obstore.store import ObjectStore

from jobs import keys
from jobs.errors import advised
from jobs.spec import trust
from jobs.storage import objects
from jobs.storage.checksums import parsed
from jobs.store.store import Store

SUBMIT_AGAIN = "the same `ctd submit`"
"""The command, for messages, that continues a submission from Python."""


def resume_command(store: Store, *options: str) -> str:
    """Return the command, for messages, that goes on with a store's job; with --trust if its code lies inside of the store."""
    inside = trust.lies_in_store(store.job.base, store.job.spec.modules())
    return advised("ctd", "resume", store.address, *options, *["--trust"] * inside)


def submit_command(words: Sequence[str], *options: str) -> str:
    """Return the command, for messages, that sends a job again. words: those after `ctd submit` that sent it; none from Python."""
    more = [option for option in options if option not in words]
    if not words:
        return " with ".join([SUBMIT_AGAIN, *more])
    return advised("ctd", "submit", *words, *more)


def submission_records(store: ObjectStore) -> list[dict[str, Any]]:
    """The records of a store's submissions, the latest last; those that are no JSON are left out."""
    listed = sorted(k for k in objects.list_keys(store, keys.SUBMIT) if k.endswith("/record.json"))
    read = (parsed(data) for _, data in objects.read_all(store, listed))
    return [record for record in read if record]


def words_sent(store: Store) -> list[str] | None:
    """The words after `ctd submit` of the newest submission that a store records; none from Python. None without a submission."""
    records = submission_records(store.objects)
    words = records[-1].get("words", []) if records else None
    return [str(word) for word in words] if isinstance(words, list) else None


def again_command(store: Store, *options: str) -> str:
    """Return the command, for messages, that goes on where the job was begun: `ctd resume` of a submitted one would compute on
    a login node."""
    words = words_sent(store)
    return resume_command(store, *options) if words is None else submit_command(words, *options)


def going_on(store: Store, hint: str = "") -> str:
    """Say what goes on with a job that no driver runs; whether a submission waits only Slurm or Ray knows, which is not asked.

    hint: what comes before the command of a job that was not submitted.
    """
    words = words_sent(store)
    if words is None:
        return f"{hint}{resume_command(store)} continues it"
    status, again = advised("ctd", "status", store.address), submit_command(words)
    return f"{status} says whether its submission waits or runs; otherwise {again} continues it"


def gather_command(store: Store) -> str:
    """Return the command, for messages, that gathers a store once its code was edited, which has not been run as it is then."""
    modules = trust.own_code(store.job.base, store.job.spec.modules())
    return advised("ctd", "gather", store.address, *["--trust"] * bool(modules))
