"""Send a job file to a cluster, and record the submission in the store.

    STORE/run/submit/ID/record.json          profile, ids, command: read by status, logs and cancel
    STORE/run/submit/ID/NAME.yaml            the job file as submitted; the original may be edited (Slurm)
    STORE/run/submit/ID/allocation.sbatch    the batch script                                      (Slurm)
    STORE/run/submit/ID/allocations.tsv      what the allocations wrote about themselves           (Slurm)
    STORE/run/submit/ID/slurm-N.out          the output of allocation N                            (Slurm)

Each stage's store has the record. The other files are in the store of the first stage or, if that is not a
local folder, in ID/ of the profile's work directory.
"""

import json
import os
import secrets
import shlex
import shutil
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from cluster.profiles import FILES, LocalProfile, Profile, RayProfile, SlurmProfile, parse_profile
from cluster.ray import jobs as rayjobs
from cluster.record import Submission, remember_home
from cluster.slurm import client as slurm
from cluster.slurm.script import script
from cluster.slurm.setup import check_folder, check_run, check_there
from cluster.tracking import refuse_going_on
from jobs import keys
from jobs.errors import JobError
from jobs.pipeline import Stage, read_stages
from jobs.plan.layout import Machines
from jobs.run.prepare import Prepared, create, prepare, reopen
from jobs.run.shards import reconsider
from jobs.run.sources import refuse_changed
from jobs.spec.job import parse_job, read_content
from jobs.spec.run import RunSettings
from jobs.spec.trust import remember
from jobs.storage import addresses, connect, objects
from jobs.store.store import Store


@dataclass(frozen=True)
class Order:
    """A job file and the cluster to send it to. Raises JobError for an array that cannot run there."""

    path: Path
    content: dict[str, Any]
    """The file's content, with overrides applied and without `cluster`."""
    stages: list[Stage]
    profile: SlurmProfile | RayProfile
    label: str
    """Name of the profile in errors."""
    array: int | None = None
    """Number of one-node allocations that share the store; None: one allocation, of all nodes of the profile."""
    failed: bool = False
    accept_changes: bool = False
    """These two say which items of an existing store to compute again: see `jobs.run.shards.reconsider`."""
    words: tuple[str, ...] = ()
    """The words after `ctd submit` that send the job again, from any folder."""
    id: str = field(
        default_factory=lambda: f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    )

    def __post_init__(self) -> None:
        if not self.array:
            return
        profile = self.profile
        if not isinstance(profile, SlurmProfile) or profile.go_on != "requeue":
            raise JobError(
                f"{self.label}: --array needs a profile of kind slurm with go_on: requeue"
            )
        if len(self.stages) > 1:
            raise JobError(f"{self.path}: --array takes one job, but this file has several stages")
        run = self.content.get("run") or {}
        if profile.n_gpus() and "memory_gb" not in run:
            raise JobError(
                f"{self.path}: run.memory_gb: --array plans before any node is there; give the GPU memory (GB) that its items may use"
            )

    @property
    def base(self) -> str:
        """The folder of the job file."""
        return self.stages[0].base

    def home(self) -> Path:
        """Return the folder of a Slurm submission: in the first stage's store, or below the profile's work_dir."""
        assert isinstance(self.profile, SlurmProfile)
        first = addresses.local_path(self.stages[0].address)
        if first is not None:
            return first.absolute() / "run" / "submit" / self.id
        return self.profile.folder() / self.id

    @property
    def file(self) -> Path:
        """The job file that the cluster reads; to a Ray it is shipped with the folder of the user's own."""
        if isinstance(self.profile, SlurmProfile):
            return self.home() / f"{self.path.stem}.yaml"
        return Path(self.base) / f"{self.path.stem}-{self.id}.yaml"

    def run_words(self) -> list[str]:
        """Return the words after `ctd` that run the whole job on the cluster, each time what is left of it."""
        store = self.stages[0].address
        if "stages" in self.content:  # the common part of their stores, before .STAGE.zarr
            store = store.removesuffix(f".{self.stages[0].name}.zarr") + ".zarr"
        shipped = isinstance(self.profile, RayProfile)
        file, base = (self.file.name, ".") if shipped else (str(self.file), self.base)
        return ["run", file, "--store", store, "--base", base]

    def machines(self, run: RunSettings) -> Machines:
        """Return what a job finds there. Memory that is not known here, of a GPU or a Ray, counts as endless."""
        profile, on_gpus, memory = self.profile, True, 2**50
        workers = run.workers or 1
        if isinstance(profile, SlurmProfile):
            gpus = profile.n_gpus()
            room = profile.nodes * run.places(profile.cpus, gpus, on_gpus=bool(gpus))
            # Each allocation of an array has a Ray of its own.
            workers = max(1, min(room, run.workers or room)) * (self.array or 1)
            if not run.gpus(on_gpus=bool(gpus)):
                on_gpus, memory = False, int(profile.memory_gb * 0.8e9 / profile.cpus)
        devices = run.devices(on_gpus)
        return Machines(workers, int((run.memory_gb or 0) * 1e9) // devices or memory, devices)


def read_order(
    path: Path,
    cluster: str | None,
    overrides: list[str] | None = None,
    store: str | None = None,
    array: int | None = None,
    failed: bool = False,
    accept_changes: bool = False,
) -> Order:
    """Read a job file and the profile of its cluster. Raises JobError if either is not valid, or the job cannot run there.

    Args:
        cluster: name or file of a profile; None: the job file's `cluster`.
        overrides: changes to fields of the job file.
        store: where results go; see `read_stages`.
        array, failed, accept_changes: see `Order`.
    """
    content = read_content(path, overrides)
    from_file = content.pop("cluster", None)
    reference = cluster or from_file
    if reference is None:
        raise JobError(
            f"{path}: no cluster is given; name one by --cluster NAME, or in the field `cluster`; `ctd clusters` lists yours"
        )
    label = f"cluster {reference}" if isinstance(reference, str) else f"{path}: cluster"
    profile = read_profile(reference, label, f"ctd run {path}", array)
    store = store or default_store(profile, path.stem)
    store = store and addresses.absolute(os.path.expanduser(store))
    stages = read_stages(path, overrides, store)
    words = [str(path.absolute()), *(overrides or ())]
    if cluster:
        is_file = cluster.endswith(FILES)
        words += ["--cluster", str(Path(cluster).absolute()) if is_file else cluster]
    words += ["--store", store] if store else []
    words += ["--array", str(array)] if array else []
    return Order(
        path, content, stages, profile, label, array, failed, accept_changes, words=tuple(words)
    )


def read_profile(
    reference: object, label: str, command: str, array: int | None
) -> SlurmProfile | RayProfile:
    """Return the profile of a cluster, given by name, file or fields; for an array, with the one node that each allocation has.

    Raises JobError, which begins with `label`, if it is not valid, or is this machine, on which `command` is to be called.
    """
    profile = parse_profile(reference, label)
    if isinstance(profile, LocalProfile):
        raise JobError(f"{label}: is this machine; use {command}")
    alone = array and isinstance(profile, SlurmProfile)
    return profile.model_copy(update={"nodes": 1}) if alone else profile


def default_store(profile: Profile, name: str) -> str | None:
    """Return the address of a job's store in the profile's folder for stores; None if it names none."""
    stores = profile.stores if isinstance(profile, RayProfile) else None
    return f"{stores.rstrip('/')}/{name}.zarr" if stores else None


def text_of(order: Order) -> str:
    """Return the batch script or, for an existing Ray, the driver's command."""
    profile = order.profile
    if isinstance(profile, RayProfile):
        return rayjobs.entrypoint(order.run_words())
    stores = (addresses.local_path(stage.address) for stage in order.stages)
    parents = (path.absolute().parent for path in stores if path)
    folders = [Path(order.base), *parents]
    driver, name = ["ctd", *order.run_words()], f"ctd-{order.path.stem}"
    return script(profile, name, order.home(), driver, order.array, folders)


def submit(order: Order, warn: Callable[[str], object] = warnings.warn) -> Submission:
    """Submit a job. Raises JobError if it cannot run there, or the cluster refuses it. warn: called with warnings."""
    if isinstance(order.profile, SlurmProfile):
        return _submit_to_slurm(order, order.profile, warn)
    return _submit_to_ray(order, order.profile)


def _submit_to_ray(order: Order, profile: RayProfile) -> Submission:
    text = text_of(order)
    check_job(order)
    order.file.write_text(_yaml(order))
    try:
        ready = partial(_change_stores, order)
        number = rayjobs.submit(order.base, profile, text, f"ctd-{order.id}", order.label, ready)
    finally:
        order.file.unlink()
    remember(*profile.jobs_api())
    return _record(order, number, "", text)


def _yaml(order: Order) -> str:
    """The job file to send. One job has its name in it, since the file that is shipped to a Ray has another one."""
    name = {} if "stages" in order.content else {"name": order.path.stem}
    return yaml.safe_dump(name | order.content, sort_keys=False)


def _change_stores(order: Order) -> None:
    """Change existing stores as the order says. Called last, when nothing on this side can refuse the job any more."""
    for stage in order.stages:
        if (order.failed or order.accept_changes) and Store.exists(stage.address):
            reconsider(Store.open(stage.address), order.failed, order.accept_changes)


# --- Slurm ------------------------------------------------------------------------------------------------


def _submit_to_slurm(
    order: Order, profile: SlurmProfile, warn: Callable[[str], object]
) -> Submission:
    label, home, text = order.label, order.home(), text_of(order)
    check_folder(profile.folder(), f"{label}: work_dir")
    for warning in check_there(text, profile, label).values():
        warn(warning)
    ready = check_job(order)
    for stage in order.stages:
        refuse_going_on(stage.address)
    check_folder(home, "store")
    # One plan for all: the allocations of an array start together, and each of them sees one node only.
    for stage, plan in ready if order.array else []:
        create(plan, stage.address)
    (home / "allocation.sbatch").write_text(text)
    order.file.write_text(_yaml(order))
    try:
        _change_stores(order)
        number = slurm.submit(text, profile, label, str(home))
    except JobError:
        shutil.rmtree(home)
        with suppress(OSError):  # folders that existed before are not empty, and stay
            for folder in list(home.parents)[:3]:
                folder.rmdir()
        raise
    return _record(order, number, str(home), shlex.join(["ctd", *order.run_words()]))


# --- all kinds --------------------------------------------------------------------------------------------


def check_job(order: Order) -> list[tuple[Stage, Prepared]]:
    """Plan the stages that refer to no other stage, as the driver will; return those without a store yet.

    Raises JobError if a stage is not valid, the order does not accept that its kernel's source has changed since its store was
    made, its `run.grace_s` leaves no time of the profile's, or a worker has no room on a node.
    """
    ready = []
    for stage in order.stages:
        # Of a stage that refers to another one, `run` alone is known before that has run.
        spec = None if stage.needs() else stage.spec({})
        content = {"kernel": "", "run": stage.content.get("run")}
        run = (spec or parse_job(content, stage.where)).run
        if isinstance(order.profile, SlurmProfile):
            check_run(run, order.profile, stage.where)
        if spec is None:
            continue
        if Store.exists(stage.address):
            store = reopen(spec, stage.address, stage.kernel(), stage.where)
            if not order.accept_changes:
                refuse_changed(store, order.failed)
            continue
        plan = prepare(spec, stage.base, stage.where, partial(order.machines, run))
        ready.append((stage, plan))
    return ready


def _record(order: Order, number: str, home: str, command: str) -> Submission:
    profile = order.profile
    submission = Submission(
        order.id, profile.kind, [number], home,
        profile.model_dump(mode="json", exclude_defaults=True) | {"kind": profile.kind},
        command, time.time(), list(order.words),
    )  # fmt: skip
    record = {k: v for k, v in asdict(submission).items() if k != "is_ours"}
    for stage in order.stages:
        store = connect.open_objects(stage.address, create=True)
        remember_home(submission, stage.address)
        content = json.dumps(record, indent=1)
        objects.write(store, keys.submission(order.id), content.encode())
    return submission
