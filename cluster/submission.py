"""A job file on its way to a cluster, and the record of it in its stores."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs import keys
from jobs.pipeline.pipeline import Stage
from jobs.storage import objects


@dataclass(frozen=True)
class Submission:
    """One `ctd submit`."""

    id: str
    kind: str
    """slurm or ray."""
    numbers: list[str]
    """Allocations of Slurm, or the job of Ray, as submitted; later ones are in allocations.tsv."""
    home: str
    profile: dict[str, Any]
    command: str
    submitted: float

    def history(self) -> list[list[str]]:
        """The lines of allocations.tsv: time, allocation, what happened, detail."""
        try:
            text = (Path(self.home) / "allocations.tsv").read_text()
        except OSError:
            return []
        return [line.split("\t") for line in text.splitlines()]

    def all_numbers(self) -> list[str]:
        """The allocations submitted, and those that they chained."""
        return [*self.numbers, *(line[3] for line in self.history() if line[2] == "chained")]


@dataclass(frozen=True)
class Request:
    """A job file on its way: what is to run, and from where."""

    path: Path
    content: dict[str, Any]
    stages: list[Stage]
    base: str
    id: str

    @property
    def name(self) -> str:
        """As schedulers show it."""
        return f"ctd-{self.path.stem}"


def store_argument(request: Request) -> str:
    """--store for the whole file: of one with stages, the part before .STAGE.zarr."""
    stage = request.stages[0]
    if len(request.stages) == 1 and "stages" not in request.content:
        return stage.address
    return stage.address.removesuffix(f".{stage.name}.zarr") + ".zarr"


def submissions(address: str) -> list[Submission]:
    """All submissions of a store, the latest last."""
    store = objects.open_objects(address)
    found = [key for key in objects.list_keys(store, keys.SUBMIT) if key.endswith("/record.json")]
    records = [json.loads(objects.read(store, key) or b"null") for key in sorted(found)]
    return [Submission(**record) for record in records]
