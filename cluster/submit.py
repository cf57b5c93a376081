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
import math
import secrets
import shlex
import shutil
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from cluster.profiles import LocalProfile, Profile, RayProfile, SlurmProfile, parse_profile
from cluster.slurm import client as slurm
from cluster.slurm.script import prologue, script
from cluster.submission import Request, Submission, store_argument
from cluster.tracking import look, objects_exist
from cluster.versions import differences, versions
from jobs import keys
from jobs.errors import JobError
from jobs.pipeline import Stage, read_stages
from jobs.plan.layout import Machines
from jobs.run.prepare import Prepared, create, prepare, reopen
from jobs.run.shards import reconsider
from jobs.run.sources import refuse_changed
from jobs.spec.job import read_content
from jobs.spec.trust import remember
from jobs.storage import connect, objects
from jobs.store.store import Store


@dataclass(frozen=True)
class Again:
    """The parts of an existing store to compute again; see `jobs.run.shards.reconsider`."""

    failed: bool = False
    accept_changes: bool = False


@dataclass(frozen=True)
class Order:
    """A valid job file and the cluster to send it to."""

    request: Request
    profile: SlurmProfile | RayProfile
    where: str
    """Name of the profile in errors."""
    array: int
    """Number of one-node allocations that share the store; 0: one allocation."""


def read_order(
    path: Path,
    cluster: str | None,
    overrides: list[str] | None = None,
    store: str | None = None,
    array: int | None = None,
) -> Order:
    """Read a job file and the profile of its cluster.

    Args:
        cluster: name or file of a profile; None: the job file's `cluster`.
        overrides: changes to fields of the job file.
        store: where results go; see `read_stages`.
        array: number of one-node allocations that share the store, instead of one allocation.

    Raises:
        JobError: the job or the profile is not valid, or the job cannot run there.
    """
    content = read_content(path, overrides)
    given = cluster or content.pop("cluster", None)
    if given is None:
        raise JobError(
            f"{path}: no cluster is given; name one by --cluster NAME, or in the field `cluster`; "
            "`ctd clusters` lists yours"
        )
    where = f"cluster {given}" if isinstance(given, str) else f"{path}: cluster"
    profile = read_profile(given, where, f"ctd run {path}")
    content.pop("cluster", None)
    store = store or default_store(profile, path.stem)
    if store is not None and (folder := objects.local_path(store)) is not None:
        store = str(folder.expanduser().absolute())
    stages = read_stages(path, overrides, store)
    request = Request(path, content, stages, str(path.resolve().parent), _new_id())
    return _order(request, profile, where, array or 0)


def order_of(stage: Stage, profile: SlurmProfile | RayProfile, where: str, array: int = 0) -> Order:
    """Return the order of one job that is in no file; the arguments and errors are those of `read_order`."""
    path = Path(stage.base) / f"{stage.name}.yaml"
    request = Request(path, stage.content, [stage], stage.base, _new_id())
    return _order(request, profile, where, array)


def read_profile(given: Any, where: str, here: str) -> SlurmProfile | RayProfile:
    """Return the profile of a cluster, given by name, file or fields; `here`: the command that runs the job on this machine.

    Raises:
        JobError: it is not valid, or is this machine; `where` begins the text.
    """
    profile = parse_profile(given, where)
    if isinstance(profile, LocalProfile):
        raise JobError(f"{where}: is this machine; use {here}")
    return profile


def default_store(profile: Profile, name: str) -> str | None:
    """Return the address of the job's store in the profile's folder for stores; None if the profile names none."""
    stores = profile.stores if isinstance(profile, RayProfile) else None
    return f"{stores.rstrip('/')}/{name}.zarr" if stores else None


def _new_id() -> str:
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def _order(request: Request, profile: SlurmProfile | RayProfile, where: str, array: int) -> Order:
    if array:
        _check_array(request, profile, where)
    return Order(request, profile, where, array)


def text_of(order: Order) -> str:
    """Return the batch script or, for an existing Ray, the driver's command."""
    request, profile = order.request, order.profile
    if isinstance(profile, RayProfile):
        from cluster.ray import jobs as rayjobs

        return rayjobs.entrypoint(request, profile)
    home = home_of(request, profile)
    stores = [
        path.absolute().parent for s in request.stages if (path := objects.local_path(s.address))
    ]
    folders = [Path(request.base), *stores]
    return script(profile, request.name, home, driver_command(request, home), order.array, folders)


def submit(order: Order, again: Again = Again()) -> Submission:
    """Submit a job.

    Raises:
        JobError: the job cannot run there, or the cluster refuses it.
    """
    request, profile, text = order.request, order.profile, text_of(order)
    for stage in request.stages if again != Again() else ():
        if Store.exists(stage.address):
            reconsider(Store.open(stage.address), again.failed, again.accept_changes)
    if isinstance(profile, SlurmProfile):
        return _submit_to_slurm(order, profile, text)
    from cluster.ray import jobs as rayjobs

    check_job(request, *workers_of(order))
    number = rayjobs.submit(request, profile, text, order.where)
    return _record(request, profile, number, "", text)


# --- Slurm ------------------------------------------------------------------------------------------------


def home_of(request: Request, profile: SlurmProfile) -> Path:
    """Return the folder of the submission: in the first stage's store, or below the profile's work_dir."""
    first = objects.local_path(request.stages[0].address)
    if first is not None:
        return first.absolute() / "run" / "submit" / request.id
    return profile.folder() / request.id


def driver_command(request: Request, home: Path) -> list[str]:
    """Return the driver's command. Each later allocation runs it again, and computes what is left."""
    return [
        "ctd", "run", str(home / f"{request.path.stem}.yaml"),
        "--store", store_argument(request), "--base", request.base,
    ]  # fmt: skip


def _submit_to_slurm(order: Order, profile: SlurmProfile, text: str) -> Submission:
    request, where, array = order.request, order.where, order.array
    home = home_of(request, profile)
    check_folder(profile.folder(), f"{where}: work_dir")
    slurm.check_partition(profile, where)
    check_python(profile, where)
    ready = check_job(request, *workers_of(order), profile.grace_s)
    _refuse_second(request)
    check_folder(home, "store")
    # One plan for all: the allocations of an array start together, and each of them sees one node only.
    for stage, plan in ready if array else []:
        create(plan, stage.address)
    (home / "allocation.sbatch").write_text(text)
    content = yaml.safe_dump(request.content, sort_keys=False)
    (home / f"{request.path.stem}.yaml").write_text(content)
    try:
        number = slurm.submit(text, profile, where)
    except JobError:
        shutil.rmtree(home)
        with suppress(OSError):  # folders that existed before are not empty, and stay
            for folder in list(home.parents)[:3]:
                folder.rmdir()
        raise
    command = shlex.join(driver_command(request, home))
    return _record(request, profile, number, str(home), command)


def workers_of(order: Order) -> tuple[int, int | None]:
    """Return (workers with one GPU or one CPU core each, bytes per CPU core or None if only the node knows, as for GPUs)."""
    profile = order.profile
    if isinstance(profile, RayProfile):
        return 1, None
    workers = (order.array or profile.nodes) * (profile.n_gpus() or profile.cpus)
    return workers, None if profile.n_gpus() else int(profile.memory_gb * 0.8e9 / profile.cpus)


def check_folder(folder: Path, where: str) -> None:
    """Make the folder and try to write to it; JobError, which begins with `where`, if that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise JobError(
            f"{where}: {folder} cannot be written ({error.strerror}); give a folder on the shared file system"
        ) from None


def check_python(profile: SlurmProfile, where: str) -> None:
    """Raise JobError if the profile's interpreter and setup lines lead to versions other than ours.

    Runs them in a login shell on this machine, in the profile's container; does nothing if the profile has none.
    """
    image = profile.image()
    if not (profile.python or profile.setup or profile.modules or image):
        return
    if image is not None and not image.exists():
        raise JobError(f"{where}: container: {image} does not exist; build one: docs/clusters.md")
    lines = ["set -e", *prologue(profile), 'exec "${inside[@]}" python -m cluster.versions']
    done = subprocess.run(
        ["bash", "-l", "-c", "\n".join(lines)], capture_output=True, text=True, check=False,
        cwd="/", timeout=120,
    )  # fmt: skip
    if done.returncode:
        raise JobError(
            f"{where}: ctd does not run after its modules and setup lines:\n{done.stderr.strip()[-1000:]}"
        )
    there = json.loads(done.stdout.splitlines()[-1])
    if wrong := differences(versions(), there, "after its modules and setup lines"):
        raise JobError(f"{where}: {wrong}; install the same versions")


def _refuse_second(request: Request) -> None:
    """Raise JobError if one of the request's stores has a Slurm submission that waits or runs."""
    for stage in request.stages:
        if not objects_exist(stage.address):
            continue
        for submission, states in look(stage.address):
            for number, state in states.items():
                if isinstance(state, slurm.Allocation) and not state.is_over:
                    raise JobError(
                        f"{stage.address}: allocation {number} of submission {submission.id} is {state.text}; "
                        "wait for it, or end it by ctd cancel"
                    )


# --- all kinds --------------------------------------------------------------------------------------------


def check_job(
    request: Request, workers: int, memory: int | None, grace_s: float = math.inf
) -> list[tuple[Stage, Prepared]]:
    """Plan the stages that refer to no other stage, as the driver will; return those without a store yet.

    Args:
        workers: number of workers with one GPU or one CPU core each.
        memory: bytes per CPU core; None if only the node knows, as for GPUs.
        grace_s: the cluster's time for stopping the driver and Ray.

    Raises:
        JobError: a stage is not valid, its kernel's source has changed since its store was made, or its
            `run.grace_s` is too long.
    """
    ready = []
    for stage in request.stages:
        if stage.needs():
            continue
        spec = stage.spec({})
        if spec.run.grace_s >= grace_s:
            raise JobError(
                f"{stage.where}: run.grace_s: {spec.run.grace_s:g} s must be less than the cluster profile's "
                f"grace_s, {grace_s:g} s, because Ray shuts down in that time too"
            )
        if Store.exists(stage.address):
            refuse_changed(reopen(spec, stage.address, stage.kernel()))
            continue
        given = spec.run.memory_gb
        devices = spec.run.devices(on_gpus=memory is None)
        available = int(given * 1e9) // devices if given else memory or 2**50
        machines = partial(Machines, max(1, workers // devices), available, devices)
        plan = prepare(spec, stage.base, stage.where, machines)
        ready.append((stage, plan))
    return ready


def _check_array(request: Request, profile: Profile, where: str) -> None:
    if not isinstance(profile, SlurmProfile) or profile.go_on != "requeue":
        raise JobError(f"{where}: --array goes with kind slurm and go_on: requeue")
    if len(request.stages) > 1:
        raise JobError(f"{request.path}: --array goes with one job; this file has several stages")
    run = request.content.get("run") or {}
    if profile.n_gpus() and "memory_gb" not in run:
        raise JobError(
            f"{request.path}: run.memory_gb: --array plans before there is a node: say how much memory of a "
            "GPU its items may use"
        )


def _record(request: Request, profile: Profile, number: str, home: str, command: str) -> Submission:
    submission = Submission(
        request.id, profile.kind, [number], home,
        profile.model_dump(mode="json", exclude_defaults=True) | {"kind": profile.kind},
        command, time.time(),
    )  # fmt: skip
    if isinstance(profile, RayProfile):
        remember(*profile.jobs_api())
    for stage in request.stages:
        store = connect.open_objects(stage.address, create=True)
        content = json.dumps(asdict(submission), indent=1)
        objects.write(store, keys.submission(request.id), content.encode())
    return submission
