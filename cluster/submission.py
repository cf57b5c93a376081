"""A request to submit a job file, and the record of the submission in its stores."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs import keys
from jobs.pipeline import Stage
from jobs.storage import connect, objects

GIVEN_UP = {
    "limit": "it has had max_allocations allocations: `ctd submit` goes on",
    "stuck": "two allocations in a row have come no further: a longer `time` or a shorter `grace_s` in the "
    "profile, then `ctd submit` goes on",
}
"""The last word in allocations.tsv -> what it means."""


@dataclass(frozen=True)
class Submission:
    """A submission: one call of `ctd submit`, as the stores of its stages record it."""

    id: str
    kind: str
    """slurm or ray."""
    numbers: list[str]
    """The id of the Slurm allocation or Ray job that was submitted; later allocations are in
    allocations.tsv."""
    home: str
    """Folder of the submission; "" for Ray."""
    profile: dict[str, Any]
    command: str
    """The driver's command."""
    submitted: float
    """When it was sent (time.time)."""

    def history(self) -> list[list[str]]:
        """Return the lines of allocations.tsv: [time, allocation, what happened, detail]; empty if there is none."""
        try:
            text = (Path(self.home) / "allocations.tsv").read_text()
        except OSError:
            return []
        return [line.split("\t") for line in text.splitlines()]

    def given_up(self) -> str:
        """Return why no further allocation follows although the job is not done; "" if one may follow."""
        history = self.history()
        return GIVEN_UP.get(history[-1][2], "") if history else ""

    def all_numbers(self) -> list[str]:
        """Return the submitted ids, and those of the allocations that they chained."""
        return [*self.numbers, *(line[3] for line in self.history() if line[2] == "chained")]


@dataclass(frozen=True)
class Request:
    """A job file to submit."""

    path: Path
    content: dict[str, Any]
    """The file's content, with overrides applied and without `cluster`."""
    stages: list[Stage]
    base: str
    """The folder of the job file."""
    id: str

    @property
    def name(self) -> str:
        """The job's name in the scheduler."""
        return f"ctd-{self.path.stem}"


def store_argument(request: Request) -> str:
    """Return the value of --store for the whole file; with stages, the stores' common part before .STAGE.zarr."""
    stage = request.stages[0]
    if len(request.stages) == 1 and "stages" not in request.content:
        return stage.address
    return stage.address.removesuffix(f".{stage.name}.zarr") + ".zarr"


def submissions(address: str) -> list[Submission]:
    """Return all submissions that a store records, the latest last."""
    store = connect.open_objects(address)
    found = [key for key in objects.list_keys(store, keys.SUBMIT) if key.endswith("/record.json")]
    records = [json.loads(objects.read(store, key) or b"null") for key in sorted(found)]
    return [Submission(**record) for record in records]
