"""What a submission would do, in lines: the summary that `ctd submit --dry-run` prints before the script."""

from pathlib import Path

from cluster.cli.choice import remembered_pace
from cluster.profiles import SlurmProfile
from cluster.submit import Order, check_job, workers_of
from jobs.errors import count, duration
from jobs.run.prepare import Prepared
from jobs.storage import objects
from jobs.store.store import Store

SHARED = ("nfs", "lustre", "gpfs", "beegfs", "ceph", "fuse", "wekafs", "pvfs2", "orangefs", "panfs", "afs", "cifs", "9p")  # fmt: skip
"""How the types of file systems begin that several machines see."""


def preview(order: Order) -> dict[str, str]:
    """Return what would be sent, by name: work, allocations, memory, time if it is known, stores, and what nodes may not see.

    Raises JobError as `ctd submit` would for a job that is not valid.
    """
    request, profile = order.request, order.profile
    workers, memory = workers_of(order)
    planned = {stage.address: ready for stage, ready in check_job(request, workers, memory)}
    found: dict[str, str] = {}
    for stage in request.stages:
        of = f" of {stage.name}" if len(request.stages) > 1 else ""
        found[f"store{of}"] = stage.address
        if stage.address in planned:
            found[f"work{of}"], found[f"time{of}"] = _of_plan(planned[stage.address], workers)
        elif Store.exists(stage.address):
            store = Store.open(stage.address)
            left = store.job.plan.n_shards - len(store.committed.numbers())
            found[f"work{of}"] = f"{left:,} of {count(store.job.plan.n_shards, 'shard')} left"
        else:
            found[f"work{of}"] = f"known once {', '.join(stage.needs())} has run"
    return found | (_of_slurm(order, profile) if isinstance(profile, SlurmProfile) else {})


def _of_plan(ready: Prepared, workers: int) -> tuple[str, str]:
    """(The work of a planned stage, the time that it takes.)"""
    plan, pace = ready.plan, remembered_pace(ready.spec)
    sizes = (ready.items.n, "item"), (len(plan.group_sizes), "group"), (plan.n_shards, "shard")
    work = ", ".join(count(n, what) for n, what in sizes)
    if pace is None:
        return work, "known once a shard of this kernel with these params has run on this machine"
    busy = min(workers, plan.n_shards)
    took = duration(max(1, pace * ready.items.n / busy))
    return work, f"{took} on {count(busy, 'worker')} as fast as this machine's"


def _of_slurm(order: Order, profile: SlurmProfile) -> dict[str, str]:
    """The lines on allocations, and on folders."""
    n, nodes = order.array or 1, 1 if order.array else profile.nodes
    gpus = f", {profile.gpus} GPUs" if profile.n_gpus() else ""
    found = {
        "allocations": f"{n} of {count(nodes, 'node')} for {profile.time}, started at most {profile.max_allocations} times",
        "a node": f"{count(profile.cpus, 'CPU')}{gpus}, {profile.memory_gb:g} GB",
    }
    folders = {"work_dir": profile.folder(), "the job's folder": Path(order.request.base)}
    if image := profile.image():
        folders["container"] = image
    for stage in order.request.stages:
        if (path := objects.local_path(stage.address)) is not None:
            folders["the store"] = path.absolute()
    types = {name: file_system(path) for name, path in folders.items()}
    here = [f"{name} ({kind})" for name, kind in types.items() if not kind.startswith(SHARED)]
    if here:
        found["not shared"] = (
            f"{', '.join(here)}: nodes may not see what lies on a disk of this machine"
        )
    return found


def file_system(path: Path) -> str:
    """Return the type of the file system on which a path lies or would lie, such as ext4 or nfs4."""
    types = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        # proc(5): the fifth field is where it is mounted; the type follows the dash that ends the optional fields.
        before, _, after = line.partition(" - ")
        types[before.split()[4].replace("\\040", " ")] = after.split()[0]
    known = [str(folder) for folder in (path.resolve(), *path.resolve().parents)]
    return next(types[folder] for folder in known if folder in types)
