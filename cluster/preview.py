"""What a submission would send, and what may go wrong with it, as `ctd submit --dry-run` shows it."""

import shutil
from pathlib import Path

from cluster.pace import remembered_pace
from cluster.profiles import SlurmProfile
from cluster.slurm.client import SlurmError
from cluster.slurm.script import interpreter
from cluster.slurm.setup import check_there, unshared
from cluster.submit import Order, check_job, text_of
from jobs.errors import count, duration
from jobs.pipeline import Stage
from jobs.run.prepare import Prepared
from jobs.storage import addresses
from jobs.store.store import Store

SHORT_S = 300
"""Less than this time of an allocation, without its grace, is warned of (s)."""


def preview(order: Order) -> dict[str, str]:
    """Return what would be sent, by name: work, allocations, memory, time if it is known, stores, and what nodes may not see.

    Raises JobError as `ctd submit` would for a job that is not valid, or that Slurm refuses, if it can be asked here.
    """
    planned = {stage.address: ready for stage, ready in check_job(order)}
    found: dict[str, str] = {}
    for stage in order.stages:
        of = _of_stage(stage, order)
        found[f"store{of}"] = stage.address
        if stage.address in planned:
            found[f"work{of}"], found[f"time{of}"] = _of_plan(planned[stage.address], order)
        elif Store.exists(stage.address):
            store = Store.open(stage.address)
            done = store.committed.numbers()
            if order.failed:
                done = done.difference(store.failed.items())
            n = store.job.plan.n_shards
            found[f"work{of}"] = f"{n - len(done):,} of {count(n, 'shard')} left"
        else:
            found[f"work{of}"] = f"known once {', '.join(stage.needs())} has run"
    if isinstance(order.profile, SlurmProfile):
        found |= _of_slurm(order, order.profile)
    return found


def _of_stage(stage: Stage, order: Order) -> str:
    return f" of {stage.name}" if len(order.stages) > 1 else ""


def _of_plan(ready: Prepared, order: Order) -> tuple[str, str]:
    """(The work of a planned stage, the time that it takes.)"""
    plan = ready.plan
    groups, shards = count(len(plan.group_sizes), "group"), count(plan.n_shards, "shard")
    work = f"{count(ready.items.n, 'item')}, {groups}, {shards}"
    workers = order.machines(ready.spec.run).workers
    busy = min(workers, plan.n_shards)
    if busy < workers:
        work += f": {workers - busy:,} of {count(workers, 'worker')} will have nothing to do"
    pace, whose = None, "the cluster's, by an earlier run"
    if isinstance(order.profile, SlurmProfile):
        pace = remembered_pace(ready.spec, order.profile.cache())
    if pace is None:
        pace, whose = remembered_pace(ready.spec), "this machine's"
    if pace is None:
        return work, "known once a shard of this kernel with these params has run there, or on this machine"  # fmt: skip
    took = duration(max(1, pace * ready.items.n / busy))
    return work, f"{took} on {count(busy, 'worker')} as fast as {whose}"


def _of_slurm(order: Order, profile: SlurmProfile) -> dict[str, str]:
    """The lines on allocations, and on folders."""
    n = order.array or 1
    kind, n_gpus = str(profile.gpus).rpartition(":")[0], profile.n_gpus()
    gpus = f", {count(n_gpus, f'{kind} GPU'.strip())}" if n_gpus else ""
    size = f"{', each' * (n > 1)} of {count(profile.nodes, 'node')}"
    most = f"for at most {duration(profile.time_s())}, started at most {count(profile.max_allocations, 'time')}"
    found = {
        "allocations": f"{count(n, 'allocation')}{size}, {most}",
        "a node": f"{count(profile.cpus, 'CPU')}{gpus}, {profile.memory_gb:g} GB",
    }
    if (image := profile.image()) and not image.exists():
        found["not found"] = f"container: {image} does not exist on this machine; the nodes need it"
    return found | risks(order) | _asked(order, profile)


def risks(order: Order) -> dict[str, str]:
    """What Slurm takes and may go wrong: folders that nodes may not see, a time limit that Ray's start nearly fills."""
    profile = order.profile
    if not isinstance(profile, SlurmProfile):
        return {}
    found = {"not shared": why} if (why := unshared(_folders(order))) else {}
    if (left := profile.time_s() - profile.grace_s) < SHORT_S:
        found["short"] = (
            f"time: {profile.time} less grace_s: {profile.grace_s} leaves {duration(left)} of each allocation, and Ray may "
            "take a minute or more of it to start"
        )
    return found


def _asked(order: Order, profile: SlurmProfile) -> dict[str, str]:
    """The lines on what Slurm, and the profile's Python, were asked; JobError as at submission."""
    if shutil.which("sbatch") is None:
        return {"not asked": "Slurm: there is no sbatch on this machine"}
    try:
        why = check_there(text_of(order), profile, order.where)
    except SlurmError as error:
        if not error.unreached:
            raise
        return {"not asked": str(error)}
    return {"no GPU": why} if why else {}


def _folders(order: Order) -> dict[str, Path]:
    """The folders that the nodes of Slurm must see, by name; for a store and a python, the folder in which it lies."""
    assert isinstance(order.profile, SlurmProfile)
    found = {"work_dir": order.profile.folder(), "the job's folder": Path(order.base)}
    if image := order.profile.image():
        found["container"] = image
    if (python := interpreter(order.profile)) and python.is_absolute():
        found["python"] = python.parent  # which may be a link to one that each node has
    for stage in order.stages:
        if (path := addresses.local_path(stage.address)) is not None:
            found[f"the store{_of_stage(stage, order)}"] = path.absolute().parent
    return found
