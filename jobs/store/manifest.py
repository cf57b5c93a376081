"""run/job.json: what a store is the store of. All else in it can be made again from this."""

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
"""Version of the layout that docs/store-format.md describes; a reader refuses a higher one."""


@dataclass(frozen=True)
class Job:
    """What a worker must know; all of it is in the store."""

    spec: JobSpec
    plan: Plan
    base: str
    """The folder that relative file names of the spec start at."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Versions, host and command of the process that made the store."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """Module -> sha256 of the kernel's source (jobs.run.sources); empty in stores made before they were kept."""

    def to_json(self) -> dict[str, Any]:
        """As written to run/job.json."""
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
        """The inverse of `to_json`; JobError for a newer format."""
        if content.get("format", 0) > FORMAT:
            raise JobError(
                f"{where}: store format {content['format']}, this ctd reads up to {FORMAT}; update ctd"
            )
        layouts = tuple(GroupLayout(**layout) for layout in content["layouts"])
        plan = Plan(tuple(content["group_sizes"]), layouts)
        spec, sources = parse_job(content["spec"], where), content.get("sources", {})
        return Job(spec, plan, content["base"], content["provenance"], sources)


def read_job(store: ObjectStore, address: str) -> Job:
    """The job of a store, from whichever copy is as it was written; JobError where there is none, or it
    is of a newer format."""
    copies = [objects.read(store, key) for key in (keys.JOB, keys.JOB_COPY)]
    if not any(copies) or (copies[0] is None and objects.read(store, keys.CREATING)):
        raise JobError(f"{address}: not a complete ctd store (it has no run/job.json)")
    for data in copies:
        if content := unseal(data) or _newer(data):
            return Job.from_json(content, address)
    raise JobError(f"{address}: run/job.json and its copy are damaged; restore one from a backup")


def write_job(store: ObjectStore, job: Job) -> None:
    """Write both copies, the one that means "complete" last."""
    for key in (keys.JOB_COPY, keys.JOB):
        objects.write(store, key, seal(job.to_json()))


def _newer(data: bytes | None) -> dict[str, Any] | None:
    """The content of a run/job.json whose format this version does not know, sealed or not."""
    try:
        content = json.loads(data or b"null")
    except ValueError:
        return None
    found = content.get("format", 0) if isinstance(content, dict) else 0
    return content if isinstance(found, int) and found > FORMAT else None
