"""The commands submit, with the preview that --dry-run prints, and clusters."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.cli.choice import remembered_pace
from cluster.cli.display import err, out, show_json, show_table
from cluster.cli.options import (
    AcceptChanges,
    AsJson,
    Failed,
    JobWords,
    Overrides,
    ResultsPath,
    one_file,
)
from cluster.profiles import SlurmProfile, load_profile, profile_names, profiles_folder
from jobs.errors import JobError, count, duration
from jobs.storage import addresses
from jobs.store.store import Store

if TYPE_CHECKING:
    from cluster.submit import Order
    from jobs.pipeline import Stage
    from jobs.run.prepare import Prepared


def submit(
    job: JobWords,
    cluster: Annotated[
        str | None,
        typer.Option(help="name or file of a profile; by default the job file's `cluster`"),
    ] = None,
    store: ResultsPath = None,
    overrides: Overrides = None,
    array: Annotated[
        int | None,
        typer.Option(
            min=1, help="send this many allocations of one node each, which share the store"
        ),
    ] = None,
    failed: Failed = False,
    accept_changes: AcceptChanges = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="print a summary and what would be submitted, and submit nothing"
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Send a job file to a cluster, where it goes on over as many allocations as it needs."""
    from cluster.submit import read_order, text_of
    from cluster.submit import submit as send

    path, changes = one_file(job, overrides)
    order = read_order(path, cluster, changes, store, array, failed, accept_changes)
    if dry_run:
        # To standard error: what is redirected to a file is the script alone.
        for name, said in preview(order).items():
            err.print(f"{name:16} {said}")
        text = text_of(order)
        sys.stdout.write(text if text.endswith("\n") else text + "\n")
        return
    submission = send(order)
    if as_json:
        show_json({"id": submission.id, "kind": submission.kind, "number": submission.numbers[0],
                   "home": submission.home})  # fmt: skip
        return
    what = "allocation" if submission.kind == "slurm" else "job"
    out.print(f"{what:10} {submission.numbers[0]}")
    for stage in order.stages:
        out.print(f"store      {stage.address}")
    out.print("follow it with ctd status STORE and ctd logs STORE; end it with ctd cancel STORE")


# --- the preview ------------------------------------------------------------------------------------


SHARED = ("nfs", "lustre", "gpfs", "beegfs", "ceph", "fuse", "wekafs", "pvfs2", "orangefs", "panfs", "afs", "cifs", "9p")  # fmt: skip
"""How the types of file systems begin that several machines see."""


def preview(order: "Order") -> dict[str, str]:
    """Return what would be sent, by name: work, allocations, memory, time if it is known, stores, and what nodes may not see.

    Raises JobError as `ctd submit` would for a job that is not valid.
    """
    from cluster.submit import check_job

    planned = {stage.address: ready for stage, ready in check_job(order)}
    found: dict[str, str] = {}
    for stage in order.stages:
        of = _of(stage, order)
        found[f"store{of}"] = stage.address
        if stage.address in planned:
            found[f"work{of}"], found[f"time{of}"] = _of_plan(planned[stage.address], order)
        elif Store.exists(stage.address):
            store = Store.open(stage.address)
            done = store.committed.numbers()
            if order.failed:
                done = done.difference(store.failed.items())
            left = store.job.plan.n_shards - len(done)
            found[f"work{of}"] = f"{left:,} of {count(store.job.plan.n_shards, 'shard')} left"
        else:
            found[f"work{of}"] = f"known once {', '.join(stage.needs())} has run"
    if isinstance(order.profile, SlurmProfile):
        found |= _of_slurm(order, order.profile)
    return found


def _of(stage: "Stage", order: "Order") -> str:
    """Which stage, where a file has several."""
    return f" of {stage.name}" if len(order.stages) > 1 else ""


def _of_plan(ready: "Prepared", order: "Order") -> tuple[str, str]:
    """(The work of a planned stage, the time that it takes.)"""
    plan, pace = ready.plan, remembered_pace(ready.spec)
    sizes = (ready.items.n, "item"), (len(plan.group_sizes), "group"), (plan.n_shards, "shard")
    work = ", ".join(count(n, what) for n, what in sizes)
    if pace is None:
        return work, "known once a shard of this kernel with these params has run on this machine"
    busy = min(order.machines(ready.spec.run).workers, plan.n_shards)
    took = duration(max(1, pace * ready.items.n / busy))
    return work, f"{took} on {count(busy, 'worker')} as fast as this machine's"


def _of_slurm(order: "Order", profile: SlurmProfile) -> dict[str, str]:
    """The lines on allocations, and on folders."""
    n, nodes = order.array or 1, order.nodes
    kind, n_gpus = str(profile.gpus).rpartition(":")[0], profile.n_gpus()
    gpus = f", {count(n_gpus, f'{kind} GPU'.strip())}" if n_gpus else ""
    found = {
        "allocations": f"{n} of {count(nodes, 'node')} for {duration(profile.time_s())}, started at most {count(profile.max_allocations, 'time')}",
        "a node": f"{count(profile.cpus, 'CPU')}{gpus}, {profile.memory_gb:g} GB",
    }
    folders = {"work_dir": profile.folder(), "the job's folder": Path(order.base)}
    if image := profile.image():
        folders["container"] = image
        if not image.exists():
            found["not found"] = (
                f"container: {image} does not exist on this machine; the nodes need it"
            )
    for stage in order.stages:
        if (path := addresses.local_path(stage.address)) is not None:
            folders[f"the store{_of(stage, order)}"] = path.absolute()
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


# --- profiles ---------------------------------------------------------------------------------------


def clusters(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="profiles to check; by default all", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the cluster profiles and check them: reachable, versions, GPUs, shared folder."""
    from cluster.checks import check

    found = []
    for name in names or profile_names():
        try:
            profile = load_profile(name)
        except JobError as error:
            why = "; ".join(str(error).splitlines())
            found.append(
                {"cluster": name, "kind": "", "check": "profile", "ok": False, "found": why}
            )
            continue
        found += [{"cluster": name, "kind": profile.kind, **line} for line in check(profile)]
    if as_json:
        show_json(found)
    else:
        one_line = lambda value: "; ".join(value.splitlines()) if isinstance(value, str) else value
        rows = [{key: one_line(value) for key, value in line.items()} for line in found]
        show_table({key: [row[key] for row in rows] for key in (rows[0] if rows else ())})
        err.print(f"profiles are in {profiles_folder()}; docs/clusters.md shows how to write one")
    if not all(line["ok"] for line in found):
        raise typer.Exit(1)
