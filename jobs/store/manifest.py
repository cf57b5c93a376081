"""run/job.json: the job that a store belongs to. Everything else in the store can be made again from it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from obstore.store import ObjectStore

from jobs import keys
from jobs.errors import JobError
from jobs.plan.layout import GroupLayout, Plan
from jobs.spec.job import JobSpec, parse_job
from jobs.storage import objects
from jobs.storage.checksums import seal, unseal

FORMAT = 1
"""Version of the store format in docs/store-format.md. Readers refuse a higher one."""


@dataclass(frozen=True)
class Job:
    """Everything a worker must know of the job; all of it is in the store."""

    spec: JobSpec
    plan: Plan
    base: str
    """The folder that relative file names in the spec start from."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Versions, git commit, host and command of the process that created the store."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """Module -> sha256 of its source, for the kernel's modules (jobs.run.sources); empty in older stores."""

    def to_json(self) -> dict[str, Any]:
        """Return the content of run/job.json."""
        return {
            "format": FORMAT,
            "spec": self.spec.model_dump(mode="json", exclude_defaults=True),
            "digest": self.spec.digest(),
            "base": self.base,
            "group_sizes": list(self.plan.group_sizes),
            "layouts": [layout._asdict() for layout in self.plan.layouts],
            "provenance": dict(self.provenance),
            "sources": dict(self.sources),
        }

    @staticmethod
    def from_json(content: Mapping[str, Any], where: str) -> "Job":
        """Return the job that `to_json` described.

        Raises:
            JobError: the format is newer than this ctd, or the spec is not valid; `where` starts the text.
        """
        if content.get("format", 0) > FORMAT:
            raise JobError(
                f"{where}: store format {content['format']}, this ctd reads up to {FORMAT}; update ctd"
            )
        layouts = tuple(GroupLayout(**layout) for layout in content["layouts"])
        plan = Plan(tuple(content["group_sizes"]), layouts)
        spec, sources = parse_job(content["spec"], where), content.get("sources", {})
        return Job(spec, plan, content["base"], content["provenance"], sources)


def read_job(store: ObjectStore, address: str) -> Job:
    """Return the job of the store at `address`, from the first undamaged copy.

    Raises:
        JobError: there is no complete store, both copies are damaged, or the format is newer.
    """
    copies = [objects.read(store, key) for key in (keys.JOB, keys.JOB_COPY)]
    if not any(copies) or (copies[0] is None and objects.read(store, keys.CREATING)):
        raise JobError(f"{address}: not a complete ctd store (it has no run/job.json)")
    for data in copies:
        if content := unseal(data) or _newer(data):
            return Job.from_json(content, address)
    raise JobError(f"{address}: run/job.json and its copy are damaged; restore one from a backup")


def write_job(store: ObjectStore, job: Job) -> None:
    """Write both copies; run/job.json, which means that the store is complete, comes last."""
    for key in (keys.JOB_COPY, keys.JOB):
        objects.write(store, key, seal(job.to_json()))


def _newer(data: bytes | None) -> dict[str, Any] | None:
    """Return the content of a run/job.json of a newer format, sealed or not; None for anything else."""
    try:
        content = json.loads(data or b"null")
    except ValueError:
        return None
    found = content.get("format", 0) if isinstance(content, dict) else 0
    return content if isinstance(found, int) and found > FORMAT else None
