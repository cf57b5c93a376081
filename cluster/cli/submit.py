"""`ctd submit`: send a job file to a cluster, or, with `--dry-run`, say what that would send and what may go wrong with it."""

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from cluster.cli import options
from cluster.cli.display import err, out, show_json, told_if_slow, warn
from cluster.pace import remembered_pace
from cluster.profiles import SlurmProfile
from cluster.slurm.client import SlurmError
from cluster.slurm.script import interpreter
from cluster.slurm.setup import check_there, unshared
from cluster.submit import Order, check_job, read_order, text_of
from cluster.submit import submit as send
from jobs.errors import JobError, advised, count, duration
from jobs.pipeline import Stage
from jobs.run.prepare import Prepared
from jobs.spec.job import parse_job
from jobs.storage import addresses
from jobs.store.look import Look
from jobs.store.store import Store

SHORT_S = 300
"""Less than this time of an allocation, without its grace, is warned of (s)."""


Array = Annotated[
    int | None,
    typer.Option(min=1, help="send this many allocations of one node each, which share the store"),
]

DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="print a summary and what would be submitted, and submit nothing"
    ),
]


def submit(
    words: options.JobWords,
    job: options.JobOptions,
    retry: options.RetryOptions,
    cluster: Annotated[
        str | None,
        typer.Option(help="name or file of a profile; by default the job file's `cluster`"),
    ] = None,
    array: Array = None,
    dry_run: DryRun = False,
    as_json: options.AsJson = False,
) -> None:
    """Send a job file to a cluster, where it runs over as many allocations as it needs."""
    files, changed_fields = options.split_words(words)
    if len(files) > 1:
        raise JobError(f"{', '.join(files)}: {len(files)} job files given; give one")
    path, changes = Path(files[0]), [*(job.overrides or ()), *changed_fields]
    order = read_order(path, cluster, changes, job.store, array, retry.failed, retry.accept_changes)
    if _is_complete(order):
        if as_json:
            show_json({"complete": True})
        else:
            out.print(f"{path}: nothing is left to compute; not submitted")
        return
    if dry_run:
        _show(order, as_json)
        return
    warn(risks(order).values())
    with told_if_slow("planning", as_json):
        submission = send(order, lambda warning: warn([warning]))
    if as_json:
        home, number = submission.home, submission.numbers[0]
        show_json({"id": submission.id, "kind": submission.kind, "number": number, "home": home})
        return
    noun = "allocation" if submission.kind == "slurm" else "job"
    out.print(f"{noun:10} {submission.numbers[0]}")
    for stage in order.stages:
        out.print(f"store      {stage.address}")
    command_for = lambda command: advised("ctd", command, order.stages[0].address)
    out.print(
        f"{command_for('status')} and {command_for('logs')} follow it, {command_for('cancel')} ends it"
    )


def _show(order: Order, as_json: bool) -> None:
    """Print the summary of an order and its script."""
    with told_if_slow("planning what would be sent", as_json):
        facts, text = preview(order), text_of(order)
    if as_json:
        show_json({**facts, "script": text})
        return
    # The preview to standard error, so that a file gets the script alone.
    sys.stdout.write(text.removesuffix("\n") + "\n")
    sys.stdout.flush()
    for name, fact in facts.items():
        err.print(f"{name:16} {fact}")


def _is_complete(order: Order) -> bool:
    """Return whether the job's stores have all of its results, and none is to be computed or reduced again."""
    from jobs.gather.gather import brings_settings

    again = order.failed or order.accept_changes
    if again or not all(Store.exists(stage.address) for stage in order.stages):
        return False
    check_job(order)
    for stage in order.stages:
        store = Store.open(stage.address)
        # Of a stage that refers to another one, this alone is known without asking that one's store.
        content = {"kernel": "", "gather": stage.content.get("gather")}
        if brings_settings(store, parse_job(content, stage.where).gather):
            return False
        if len(store.committed.numbers()) < store.job.plan.n_shards:
            return False
    return True


# --- what would be sent ---------------------------------------------------------------------------------


def preview(order: Order) -> dict[str, str]:
    """Return what would be sent, by name: work, allocations, memory, time if it is known, stores, and what nodes may not see.

    Raises JobError as `ctd submit` would for a job that is not valid, or that Slurm refuses, if it can be asked here.
    """
    planned = {stage.address: ready for stage, ready in check_job(order)}
    facts: dict[str, str] = {}
    for stage in order.stages:
        suffix = _of_stage(stage, order)
        facts[f"store{suffix}"] = stage.address
        if stage.address in planned:
            facts[f"work{suffix}"], facts[f"time{suffix}"] = _work_and_time(
                planned[stage.address], order
            )
        elif Store.exists(stage.address):
            facts[f"work{suffix}"], took = _remaining_work(Store.open(stage.address), order)
            facts |= {f"time{suffix}": took} if took else {}
        else:
            facts[f"work{suffix}"] = f"known once {', '.join(stage.needs())} has run"
    if not isinstance(profile := order.profile, SlurmProfile):
        return facts
    n, n_gpus, kind = order.array or 1, profile.n_gpus(), str(profile.gpus).rpartition(":")[0]
    gpus = f", {count(n_gpus, f'{kind} GPU'.strip())}" if n_gpus else ""
    size = f"{', each' * (n > 1)} of {count(profile.nodes, 'node')}"
    most = f"for at most {duration(profile.time_s())}, started at most {count(profile.max_allocations, 'time')}"
    facts["allocations"] = f"{count(n, 'allocation')}{size}, {most}"
    facts["a node"] = f"{count(profile.cpus, 'CPU')}{gpus}, {profile.memory_gb:g} GB"
    if (image := profile.image()) and not image.exists():
        facts["not found"] = f"container: {image} does not exist on this machine; the nodes need it"
    return facts | risks(order) | _answers(order, profile)


def _remaining_work(store: Store, order: Order) -> tuple[str, str]:
    """Return the shards and items that a store lacks, and the time that they take, in words; "" if it is not known."""
    from jobs.report.planned import done_so_far

    done, n, items = store.committed.numbers(), store.job.plan.n_shards, store.job.plan.n_items
    if order.failed:
        done = done.difference(store.failed.items())
    work, so_far = f"{n - len(done):,} of {count(n, 'shard')} left", done_so_far(Look(store))
    if so_far.work > so_far.ended:
        work += f", {so_far.work / items:.1%} of the work done"
    busy = min(order.machines(store.job.spec.run).workers, n - len(done))
    if order.failed or not (so_far.work and busy):
        return work, ""
    took = duration(max(1, so_far.s_left(items) / busy))
    return work, f"{took} on {count(busy, 'worker')} as fast as before"


def _of_stage(stage: Stage, order: Order) -> str:
    return f" of {stage.name}" if len(order.stages) > 1 else ""


def _work_and_time(ready: Prepared, order: Order) -> tuple[str, str]:
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
    took_s = max(1, pace * ready.items.n / busy)
    took = f"{duration(took_s)} on {count(busy, 'worker')} as fast as {whose}"
    if isinstance(profile := order.profile, SlurmProfile):
        most_s = profile.max_allocations * max(0.0, profile.time_s() - profile.grace_s)
        if took_s > most_s:
            took += f"; its allocations have at most {duration(most_s)}"
    return work, took


def risks(order: Order) -> dict[str, str]:
    """Return warnings of what Slurm accepts but may go wrong, by name: folders that nodes may not see, a time limit that Ray's start nearly fills."""
    profile = order.profile
    if not isinstance(profile, SlurmProfile):
        return {}
    texts = {"not shared": warning} if (warning := unshared(_folders(order))) else {}
    if (seconds := profile.time_s() - profile.grace_s) < SHORT_S:
        texts["short"] = (
            f"time: {profile.time} minus grace_s: {profile.grace_s} leaves {duration(seconds)} of each allocation, and "
            "Ray's start may take a minute or more of it"
        )
    return texts


def _answers(order: Order, profile: SlurmProfile) -> dict[str, str]:
    """Return the objections of Slurm and of the profile's Python; JobError as at submission."""
    if shutil.which("sbatch") is None:
        return {"not asked": "Slurm: there is no sbatch on this machine"}
    try:
        return check_there(text_of(order), profile, order.label)
    except SlurmError as error:
        if not error.unreached:
            raise
        return {"not asked": str(error)}


def _folders(order: Order) -> dict[str, Path]:
    """The folders that the nodes of Slurm must see, by name; for a store and a python, the folder in which it lies."""
    assert isinstance(order.profile, SlurmProfile)
    folders = {"work_dir": order.profile.folder(), "the job's folder": Path(order.base)}
    if image := order.profile.image():
        folders["container"] = image
    if (python := interpreter(order.profile)) and python.is_absolute():
        folders["python"] = python.parent  # which may be a link to one that each node has
    for stage in order.stages:
        if (path := addresses.local_path(stage.address)) is not None:
            folders[f"the store{_of_stage(stage, order)}"] = path.absolute().parent
    return folders
