"""run/job.json: the job that a store belongs to. Everything else in the store can be made again from it.

run/kernel.json describes the job's kernel for readers. If it is missing, the arrays give most of it.
"""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from obstore.store import ObjectStore
from pydantic import Field, PlainSerializer, PositiveInt, ValidationError

from ctd.installed import version_of
from ctd.kernel import Outcome, Var
from ctd.late import jax
from jobs import keys
from jobs.errors import JobError, count, explain
from jobs.late import zarr
from jobs.plan.layout import GroupLayout, Plan
from jobs.spec.description import Description
from jobs.spec.job import JobSpec, parse_job
from jobs.storage import objects
from jobs.storage.addresses import local_path
from jobs.storage.checksums import Sealed, parsed, verified
from jobs.store.arrays import attributes
from jobs.store.finding import stores_in

FORMAT = 1
"""Version of the store format in docs/store-format.md. Readers refuse a higher one."""


StoredSpec = Annotated[
    JobSpec, PlainSerializer(lambda spec: spec.model_dump(mode="json", exclude_defaults=True))
]


class Job(Sealed):
    """The content of run/job.json: everything that a worker must know of the job. It is checked, because a stranger may have
    written it."""

    format: int = FORMAT
    spec: StoredSpec
    base: str = Field(pattern=r"^[^\x00]*$")
    """Relative file names in the spec start from this folder."""
    group_sizes: tuple[PositiveInt, ...]
    layouts: tuple[GroupLayout, ...]
    provenance: Mapping[str, Any]
    """Versions, git commit, host and command of the process that created the store."""
    sources: Mapping[str, str] = {}
    """Module -> sha256 of its source, for the kernel's modules (jobs.run.sources); empty in older stores."""
    inputs: Mapping[str, str] = {}
    """Input file -> a text that changes with its content (jobs.inputs.versions); empty in older stores."""

    @cached_property
    def plan(self) -> Plan:
        """The shards of the job."""
        # Not stored: groups that are searched together each have a row for every item (Plan.n_variants).
        n_variants = sum(self.group_sizes) // max(1, self.n_items)
        n_variants = max(1, n_variants) if self.spec.search and self.spec.search.proposes else 1
        return Plan(self.group_sizes, self.layouts, n_variants)

    @property
    def n_items(self) -> int:
        """The number of items that the spec has."""
        return sum(part.count() for part in self.spec.sweeps())

    def to_json(self) -> dict[str, Any]:
        """Return the content of run/job.json, with the spec's digest for readers of other stores."""
        content = super().to_json() | {"format": FORMAT}
        return {"format": FORMAT, "spec": content["spec"], "digest": self.spec.digest()} | content

    @classmethod
    def from_json(cls, content: Any, place: str = "") -> Job:
        """Return the job that `to_json` described.

        Raises ValidationError if `content` describes none; JobError, which begins with `place`, if the format is newer than this
        ctd, or the spec is not valid.
        """
        if is_newer(content := content or {}):
            raise JobError(
                f"{place}: store format {content['format']}, this ctd reads up to {FORMAT}; update ctd"
            )
        spec = content.get("spec")
        spec = parse_job(spec, place) if isinstance(spec, dict) else spec
        job = cls.model_validate({**content, "spec": spec})
        # The checksum holds for a text that a stranger wrote, too: check what later code relies on.
        sizes, n, n_groups = job.group_sizes, job.n_items, len(job.layouts)
        step = job.plan.n_variants
        alike = all(len(set(sizes[k : k + step])) == 1 for k in range(0, len(sizes), step))
        if n * step != sum(sizes) or n_groups != len(sizes) or len(sizes) % step or not alike:
            raise JobError(
                f"{place}: run/job.json is damaged: its sweep has {count(n, 'item')} in {count(n_groups, 'group')}, its plan "
                f"{sum(sizes)} in {len(sizes)}; restore it from a backup"
            )
        return job


def read_job(store: ObjectStore, address: str) -> Job:
    """Return the job of the store at `address`, from the first undamaged copy.

    Raises JobError if there is no complete store, both copies are damaged, or the format is newer.
    """
    copies = [objects.read(store, key) for key in (keys.JOB, keys.JOB_COPY)]
    # While a store is created the copy comes first: with run/creating.json there, the copy alone is not enough.
    if not any(copies) or (copies[0] is None and objects.read(store, keys.CREATING)):
        inside = stores_in(address)
        if not inside and _is_of_other_files(address):
            raise JobError(
                f"{address}: is a folder of other files; give a store, or for a new one a path that does not exist, "
                f"such as {address.rstrip('/')}/new.zarr"
            )
        hint = f"; it is a folder of stores, give one: {', '.join(inside)}" if inside else ""
        if objects.read(store, "results/0/zarr.json") is not None:
            hint = ": without the job its results have no meaning; run the job again with another --store"
        raise JobError(f"{address}: not a complete ctd store (it has no run/job.json){hint}")
    trouble = damaged = f"{address}: run/job.json and its copy are damaged"
    for data in copies:
        content = parsed(data) or {}
        # A newer format may have another checksum: it is refused by its number, not called damaged.
        if is_newer(content) or verified(data):
            try:
                return Job.from_json(content, address)
            except ValidationError as error:
                trouble = str(explain(error, damaged, {}))
    raise JobError(f"{trouble.splitlines()[0]}; restore one from a backup")


def _is_of_other_files(address: str) -> bool:
    """Return whether an address is a local folder with files, none of which a new store would have."""
    path = local_path(address)
    names = {file.name for file in path.iterdir()} if path is not None and path.is_dir() else set()
    return bool(names) and not names & {"run", "zarr.json"}


def write_job(store: ObjectStore, job: Job) -> None:
    """Write both copies; run/job.json, which means that the store is complete, comes last."""
    for key in (keys.JOB_COPY, keys.JOB):
        job.write(store, key)


def is_newer(content: Mapping[str, object]) -> bool:
    """Return whether the content of a run/job.json has a newer format than this ctd reads."""
    version = content.get("format", 0)
    return isinstance(version, int) and version > FORMAT


# --- provenance -----------------------------------------------------------------------------------

PACKAGES = ("ctd", "jax", "jaxlib", "numpy", "zarr", "ray", "optax")


def host() -> dict[str, Any]:
    """Return this process's host, pid, platform and device kind."""
    device = jax.local_devices()[0]
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "platform": device.platform,
        "device_kind": device.device_kind,
    }


GPUS = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")
"""The variables by which Slurm and Ray assign GPUs to a process."""


def idle_gpus() -> int:
    """Return how many GPUs this process was given, if JAX sees only the CPU; 0 if it sees GPUs, or was told to use the CPU.

    JAX without its plugin for GPUs falls back to the CPU, and says nothing.
    """
    if jax.default_backend() != "cpu" or jax.config.jax_platforms == "cpu":
        return 0
    lists = (os.environ.get(name, "").split(",") for name in GPUS)
    none = ("", "-1", "none", "NoDevFiles")  # what stands there in place of a GPU
    return max(len([gpu for gpu in gpus if gpu not in none]) for gpus in lists)


def provenance() -> dict[str, Any]:
    """Return versions, git commit, host, time and command of this process, which creates a store."""
    source, commit = Path(__file__).parents[2], ""
    if (source / ".git").exists():  # an installed copy may lie inside somebody else's repository
        ask = ["git", "-C", str(source), "rev-parse", "HEAD"]
        with suppress(OSError):  # there is no git, as in many containers
            commit = subprocess.run(ask, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "versions": {name: version_of(name) for name in PACKAGES}
        | {"python": platform.python_version()},
        "git_commit": commit or None,
        "host": socket.gethostname(),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": sys.argv,
    }


def origin(job: Job, address: str) -> dict[str, Any]:
    """Return the entry of a store at `address` in the provenance of another one that has its items."""
    fields = {"spec_sha256": job.spec.digest(), "base": job.base}
    return {"store": address, **fields, "provenance": dict(job.provenance)}


# --- the kernel -----------------------------------------------------------------------------------


def described_by_arrays(root: zarr.Group, plan: Plan) -> Description:
    """Return the description that the arrays give: results, reduced results and outcomes; no summary and no fields."""
    dims: dict[str, Var] = {}
    reduced: dict[str, Var] = {}
    outcomes: tuple[Outcome, ...] = ()
    for group in range(len(plan.group_sizes)):
        for name, axes, attrs in _results(root[f"results/{group}"]):
            dims.setdefault(name, _var(axes, attrs))
            if name == "outcome":
                words = str(attrs.get("flag_meanings", "")).split()
                outcomes = tuple(Outcome(word, "") for word in words)
        gathered: Any = root.get(f"gathered/{group}")
        for name, array in () if gathered is None else gathered.arrays():
            reduced.setdefault(name, _var(_axes(array), attributes(array)))
    reduced = {name: var for name, var in reduced.items() if var.axes != (name,)}  # coordinates
    # Arrays do not say whether the kernel has a `reduce`; whoever gathers imports the kernel and finds out.
    return Description(dims=dims, reduced=reduced, outcomes=outcomes, reduces=True)


def _results(group: Any) -> Iterator[tuple[str, tuple[str, ...], dict[str, Any]]]:
    """Yield (name, axes of an item, attributes) of every result of a group; a packed one has those of an array of its own."""
    about, packed = attributes(group), dict[str, dict[str, Any]]()
    for names in about.get("packed", {}).values():
        packed |= names
    for name in about["results"]:
        if attrs := packed.get(name):
            yield name, tuple(attrs["axes"]), attrs
        else:
            yield name, _axes(group[name])[1:], attributes(group[name])


def _axes(array: Any) -> tuple[str, ...]:
    return tuple(str(name) for name in array.metadata.dimension_names or ())


def _var(axes: tuple[str, ...], attrs: dict[str, object]) -> Var:
    return Var(axes, str(attrs.get("units", "1")), str(attrs.get("long_name", "")))
