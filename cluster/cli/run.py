"""The commands run, plan and gather; `resume` is in `recovery`."""

import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Annotated

import typer
import yaml

from cluster.cache import prune_compilation_cache
from cluster.cli import options
from cluster.cli.choice import choose_executor, make_executor, workers_here
from cluster.cli.display import err, out, records, show_json, show_table, told_if_slow, warn
from cluster.cli.outcome import draw, show_summary
from cluster.cli.restart import PROGRESS, RestartState
from cluster.cli.running import Request, open_to_compute, run_store
from cluster.tracking import refuse_going_on
from jobs.errors import JobError, count
from jobs.pipeline import Stage, read_stages
from jobs.plan.items import checked_items
from jobs.run.stop import Stop, signals
from jobs.run.task import Executor
from jobs.spec.job import JobSpec
from jobs.spec.presets import meaning
from jobs.spec.trust import trust as trust_base
from jobs.storage.addresses import local_path
from jobs.store.store import Store

JobFiles = Annotated[
    list[str],
    typer.Argument(
        help="job files, run in order; key.path=value overrides a field, as --set does",
        show_default=False,
    ),
]

BaseFolder = Annotated[
    str | None,
    typer.Option(
        help="folder that relative file names in the job start from; by default the job file's"
    ),
]
Fork = Annotated[
    str | None,
    typer.Option(help="an older store of this job, before its sweep grew: copy its items"),
]
Parts = Annotated[
    str | None,
    typer.Option(help="I/N, such as 0/8: share the store with others, from part I of N on"),
]


def run(
    job_files: JobFiles,
    job: options.JobOptions,
    settings: options.RunOptions,
    base: BaseFolder = None,
    fork: Fork = None,
    parts: Parts = None,
) -> None:
    """Run jobs and their stages; if a store exists already, do only what is left."""
    warn(prune_compilation_cache())
    with signals(stop := Stop()):
        state = RestartState.received()
        stages = state.stages or tuple(_stages(job_files, job, base))
        # The stage whose Ray was lost.
        first = next((k for k, stage in enumerate(stages) if stage.address == state.store), 0)
        _check_stages(stages, first, {"parts": parts, "fork": fork})
        shared, before = _parts(parts), Store.open(fork) if fork else None
        for k, stage in enumerate(stages[first:], first):
            if len(stages) > 1 and not settings.as_json:
                err.print(f"stage {stage.name}")
            spec = stage.spec({done.name: done.address for done in stages[:k]})
            _check(stage, spec)
            request = Request(stage.address, spec, settings, shared, more=k + 1 < len(stages))
            open_stage = partial(_open, stage, spec, before, settings)
            run_store(open_stage, request, stop, replace(state, stages=stages))


def _check_stages(stages: Sequence[Stage], first: int, single: Mapping[str, str | None]) -> None:
    """Raise JobError for what can be refused before a first stage runs a night.

    first: number of the first stage to run. single: options that take one stage alone.
    """
    for option, value in single.items():
        if value and len(stages) > 1:
            raise JobError(f"--{option} {value}: {len(stages)} jobs given; give one")
    # An allocation would end at the store's lease, and lose its place in the queue; the driver of one runs here, too.
    for stage in [] if single["parts"] or PROGRESS in os.environ else stages:
        refuse_going_on(stage.address)
    for later in stages[first + 1 :]:
        if later.is_alone():
            _check(later, later.spec({}))


FEW = 20_000
"""Most items of a job that is expanded before Ray starts, to find its faults early; the plan expands it again."""


def _check(stage: Stage, spec: JobSpec) -> None:
    """Raise JobError, before the executor starts, if the job's fields are not valid, or its store holds another job."""
    from jobs.run.prepare import reopen

    if Store.exists(stage.address):
        reopen(spec, stage.address, stage.kernel(), stage.where)
    elif sum(part.count() for part in spec.sweeps()) <= FEW:
        checked_items(spec, stage.kernel(), stage.where)


def _stages(words: list[str], job: options.JobOptions, base: str | None = None) -> list[Stage]:
    """The jobs of the files among `words`; the other words are overrides too."""
    files, changes = options.split_words(words)
    store, overrides = job.store, [*(job.overrides or ()), *changes]
    if store and len(files) > 1:
        raise JobError(
            f"--store {store}: {len(files)} job files given; give one, or leave --store out"
        )
    if base is not None and (folder := local_path(base)) is not None:
        if not folder.is_dir():
            raise JobError(f"--base {base}: there is no such folder")
        base = str(folder.absolute())  # the store keeps it
    return [stage for path in files for stage in read_stages(path, overrides, store, base)]


def _parts(text: str | None) -> tuple[int, int] | None:
    if not text:
        return None
    part, _, n = text.partition("/")
    if not (part.isdecimal() and n.isdecimal() and int(part) < int(n)):
        raise JobError(f"--parts {text}: expected I/N with I below N, such as 0/8")
    return int(part), int(n)


def _open(
    stage: Stage,
    spec: JobSpec,
    before: Store | None,
    settings: options.RunOptions,
    executor: Executor,
) -> Store:
    """Make or open a stage's store, planned for the executor. before: the store whose items it begins with."""
    from jobs.run.fork import fork
    from jobs.run.prepare import open_or_create

    def say_data(data: Sequence[str]) -> None:  # exchanged axes are to be seen before the fit
        if data and not settings.as_json:
            err.print(f"data  {'; '.join(data)}")

    stage_args = (spec, stage.base, stage.where, stage.address)
    if before:
        if settings.trust:
            trust_base(before.job.base)
        store = fork(*stage_args, before, executor)
    else:
        store = open_or_create(*stage_args, executor, say_data)
    if settings.trust:
        trust_base(store.job.base)
    return store


def plan(
    job_files: JobFiles,
    store: Annotated[
        str | None,
        typer.Option(
            help="the job's store, as for `ctd run`; its finished shards tell how long the rest takes"
        ),
    ] = None,
    overrides: options.Overrides = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, help="how many shards run at a time; by default as many as in a run here"
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Show what a run would do: items, groups, shards, memory; nothing is written."""
    from jobs.report.planned import plan_rows
    from jobs.run.prepare import prepare_here

    for stage in (stages := _stages(job_files, options.JobOptions(store, overrides))):
        before = {s.name: s.address for s in stages[: stages.index(stage)]}
        waits = [name for name in stage.needs() if not Store.exists(before.get(name, ""))]
        if waits and set(waits) <= before.keys():
            err.print(f"stage {stage.name}: can be planned once {', '.join(waits)} has run")
            continue
        spec = stage.spec(before)
        with told_if_slow("planning", as_json or not err.is_terminal):
            name, run = "ray", spec.run
            if not workers:
                name, _, run = choose_executor(run, stage.address, None)
            n = workers or workers_here(run, name)
            ready = prepare_here(spec, stage.base, stage.where, n)
        rows, total = plan_rows(ready, stage.address, n)
        total["planned_for"] = f"{name}, {count(n, 'worker')}"
        preset = meaning(stage.content, ready.kernel, stage.where)
        if as_json:
            extra = {"preset": preset} if preset else {}
            show_json({"stage": stage.name, **total, **extra, "by_group": records(rows)})
            continue
        show_table(rows, title=f"{spec.name}: kernel {spec.kernel}")
        for name, value in total.items():
            out.print(f"{name:16} {value if value is not None else 'known once one shard has run'}")
        if preset:
            name = stage.content["search"]["preset"]
            out.print(f"preset {name}: {ready.kernel.display.presets[name].reason}")
            text = yaml.safe_dump(preset, sort_keys=False, default_flow_style=None, width=100)
            out.print("".join(f"    {line}" for line in text.splitlines(keepends=True)).rstrip())


def gather(
    store: options.StorePath, settings: options.GatherOptions, overrides: options.Overrides = None
) -> None:
    """Make the tables of a store from what was committed since the last time; with --set, from everything."""
    from jobs.gather.gather import gather as reduce_store
    from jobs.gather.gather import set_gather

    opened_store = open_to_compute(store, settings.trust)
    if overrides:
        set_gather(opened_store, overrides)
    warn(prune_compilation_cache())
    runner = make_executor(settings.executor, opened_store.job.spec.run, settings.address)
    with closing(runner), told_if_slow("reducing"):
        n = reduce_store(opened_store, runner)
    draw(opened_store)
    show_summary(opened_store)
    out.print(f"gathered {count(n, 'item')}")
