"""The command line `ctd`: validate, plan, run, look. Bad input prints one screen and exits with 2."""

import re
import sys
import traceback
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from cluster.cache import use_compilation_cache
from cluster.cli.display import err, out, show_error, show_json, show_table
from cluster.cli.options import (
    AcceptChanges,
    AsJson,
    ExecutorName,
    Failed,
    GatherExecutor,
    JobFile,
    Overrides,
    RayAddress,
    ResultsPath,
    StorePath,
    Trust,
)
from cluster.cli.query import add as add_query_command
from cluster.cli.recovery import add as add_recovery_commands
from cluster.cli.report import add as add_report_commands
from cluster.cli.running import (
    executor_for,
    keep_pictures,
    make_executor,
    open_to_compute,
    run_store,
    summary,
)
from cluster.cli.submit import add as add_cluster_commands
from cluster.cli.submit import submission_lines
from ctd.kernel import Kernel, kernel_names
from jobs.errors import JobError
from jobs.pipeline.pipeline import Stage, read_stages
from jobs.run.executor import Executor, SerialExecutor
from jobs.spec.job import JobSpec, find_kernel
from jobs.spec.schema import job_schema
from jobs.spec.trust import trust as trust_base
from jobs.storage.objects import is_storage_error, local_path, reason
from jobs.store.store import Store

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _show_version(asked: bool) -> None:
    if asked:
        out.print(f"ctd {version('ctd')}")
        raise typer.Exit


@app.callback()
def _options(
    show: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="print the version"),
    ] = False,
) -> None:
    """Run sweeps of dynamical-systems computations: one job file, one Zarr store."""


@app.command()
def run(
    job_files: Annotated[
        list[Path], typer.Argument(help="job files, run in order", show_default=False)
    ],
    store: ResultsPath = None,
    overrides: Overrides = None,
    address: RayAddress = None,
    base: Annotated[
        str | None,
        typer.Option(help="folder that file names in the job start at; by default the job file's"),
    ] = None,
    executor: ExecutorName = "auto",
    fork: Annotated[
        str | None,
        typer.Option(help="a store of this job before its sweep grew: its items are copied"),
    ] = None,
    parts: Annotated[
        str | None,
        typer.Option(help="I/N: beside other drivers of the store, beginning with part I of N"),
    ] = None,
    failed: Failed = False,
    accept_changes: AcceptChanges = False,
    trust: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Run jobs and their stages; of a store that is there already, do what is left."""
    if store and len(job_files) > 1:
        raise JobError("--store: goes with one job file; several write beside their files")
    if base is not None and local_path(base) is not None and not Path(base).is_dir():
        raise JobError(f"--base {base}: no such folder")
    use_compilation_cache()
    stages = [stage for path in job_files for stage in read_stages(path, overrides, store, base)]
    shared = _parts(parts, len(stages)) if parts else None
    if fork and len(stages) > 1:
        raise JobError("--fork: goes with one job; this is several")
    before = Store.open(fork) if fork else None
    for address in [stage.address for stage in stages] if trust else []:
        if Store.exists(address):
            trust_base(Store.open(address).job.base)
    if trust and before:
        trust_base(before.job.base)
    finished: dict[str, str] = {}
    for stage in stages:
        if len(stages) > 1 and not as_json:
            err.print(f"stage {stage.name}")
        spec = stage.spec(finished)
        runner = executor_for(executor, spec, stage.address, address, failed, quiet=as_json)
        opener = _opener(stage, spec, before)
        run_store(opener, runner, as_json, shared, failed, accept_changes)
        finished[stage.name] = stage.address


def _parts(text: str, n_stages: int) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or int(match[1]) >= int(match[2]):
        raise JobError(f"--parts {text}: I/N expected, with I below N, for example 0/8")
    if n_stages > 1:
        raise JobError("--parts: goes with one job; this is several")
    return int(match[1]), int(match[2])


def _opener(stage: Stage, spec: JobSpec, before: Store | None) -> Callable[[Executor], Store]:
    """What makes or opens the stage's store, once there is an executor to plan for."""
    from jobs.run.fork import fork
    from jobs.run.prepare import open_or_create

    where = (spec, stage.base, stage.where, stage.address)
    if before is None:
        return lambda runner: open_or_create(*where, runner)
    return lambda runner: fork(*where, before, runner)


@app.command()
def plan(
    job: JobFile,
    store: Annotated[str | None, typer.Option(help="a store to take measured times from")] = None,
    overrides: Overrides = None,
    workers: Annotated[int, typer.Option(min=1, help="how many shards can run at a time")] = 1,
    as_json: AsJson = False,
) -> None:
    """Show what a run would do: items, groups, shards, memory; nothing is written."""
    from jobs.plan.layout import Machines
    from jobs.report.summary import plan_rows
    from jobs.run.prepare import prepare

    for stage in (stages := read_stages(job, overrides, store)):
        before = {s.name: s.address for s in stages[: stages.index(stage)]}
        waits = [name for name in stage.needs() if not Store.exists(before.get(name, ""))]
        if waits and set(waits) <= before.keys():
            err.print(f"stage {stage.name}: can be planned once {', '.join(waits)} has run")
            continue
        spec = stage.spec(before)
        devices = spec.run.devices(on_gpus=bool(spec.run.gpus_per_worker))
        memory = SerialExecutor(spec.run.memory_gb).memory() // devices
        machines = partial(Machines, workers, memory, devices)
        ready = prepare(spec, stage.base, stage.where, machines)
        rows, total = plan_rows(ready, stage.address, workers)
        if as_json:
            show_json({"stage": stage.name, **total, "by_group": rows.to_dict("records")})
            continue
        show_table(rows, title=f"{spec.name}: kernel {spec.kernel}")
        for name, value in total.items():
            out.print(f"{name:16} {value if value is not None else 'known once one shard has run'}")


def _state(store: Store) -> dict[str, Any]:
    from jobs.report.summary import state

    return state(store)


@app.command()
def status(store: StorePath, as_json: AsJson = False) -> None:
    """Say how far a job is, where it was submitted to, and what went wrong."""
    sent = submission_lines(store)
    if sent and not Store.exists(store):  # submitted, and nothing has run yet
        if as_json:
            show_json({"store": store, "submissions": sent})
        for line in [] if as_json else sent:
            out.print(f"{'submitted':15} {line}")
        return
    found = _state(Store.open(store)) | ({"submissions": sent} if sent else {})
    if as_json:
        show_json(found)
        return
    for line in found.pop("submissions", []):
        out.print(f"{'submitted':15} {line}")
    errors = found.pop("errors")
    for name, value in found.items():
        if value is None or value in ([], {}):
            continue
        if isinstance(value, list):
            value = ", ".join(map(str, value))
        if isinstance(value, dict):
            value = ", ".join(f"{n:,} {key}" for key, n in value.items())
        out.print(f"{name:15} {value}")
    for line in errors:
        which = f"shard {line['shard']}" if "shard" in line else f"item {line['item']}"
        text = f"{which}, attempt {line['attempt']}: {line['error']}"
        out.print(text, style="red")


@app.command()
def gather(
    store: StorePath,
    overrides: Overrides = None,
    address: RayAddress = None,
    executor: GatherExecutor = "serial",
    trust: Trust = False,
) -> None:
    """Reduce what was committed since the last time; all, where settings of the reduction are given."""
    from jobs.gather.gather import gather as reduce_store
    from jobs.gather.settings import set_gather
    from jobs.report.figures import save_figures

    opened = open_to_compute(store, trust)
    if overrides:
        set_gather(opened, overrides)
    use_compilation_cache()
    runner = make_executor(executor, opened.job.spec, address)
    try:
        n = reduce_store(opened, runner)
    finally:
        runner.close()
    if local_path(store) is not None:
        save_figures(opened, Path(opened.address).with_suffix(""))
    keep_pictures(opened)
    summary(opened)
    out.print(f"gathered {n:,} items")


@app.command()
def export(
    store: StorePath,
    item: Annotated[int, typer.Argument(help="item id")],
    path: Annotated[str, typer.Argument(help="HDF5 file to write, here or on an object store")],
    results: Annotated[
        bool, typer.Option("--results", help="everything but the trained model")
    ] = False,
) -> None:
    """Write an item's trained model to an HDF5 file that other jobs, and the tutorials, read."""
    from jobs.inputs.items import export as write

    write(Store.open(store), item, path, "results" if results else "weights")
    out.print(f"wrote {path}")


@app.command()
def schema(
    kernel: Annotated[
        str | None, typer.Argument(help="with its params; by default without")
    ] = None,
) -> None:
    """Print the JSON Schema of a job file, for an editor to complete and check it."""
    show_json(job_schema(_kernel(kernel) if kernel else None))


def _kernel(name: str) -> Kernel:
    return find_kernel(name, str(Path.cwd()))


@app.command()
def kernels(
    kernel: Annotated[
        str | None, typer.Argument(help="its results, one by one; by default a list of kernels")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the kernels that come with ctd, or say what one of them computes."""
    if kernel is None:
        _list_kernels(as_json)
        return
    from jobs.report.starter import contents

    found = contents(_kernel(kernel))
    if as_json:
        show_json({title: frame.to_dict("records") for title, frame in found.items()})
        return
    out.print(_about(f"ctd.{kernel}" if kernel in kernel_names() else kernel))
    for title, frame in found.items():
        show_table(frame, title, limit=len(frame))


def _list_kernels(as_json: bool) -> None:
    about = {name: _about(f"ctd.{name}").splitlines()[0] for name in kernel_names()}
    if as_json:
        show_json(about)
        return
    for name, text in about.items():
        out.print(f"{name:16} {text}")


def _about(module: str) -> str:
    return (sys.modules[module].__doc__ or "").strip().removeprefix("Kernel: ")


@app.command()
def new(
    kernel: Annotated[str, typer.Argument(help="a kernel of ctd, or a dotted path")],
) -> None:
    """Print a commented starter job for a kernel."""
    from jobs.report.starter import starter

    sys.stdout.write(starter(kernel, _kernel(kernel)))


add_query_command(app)
add_recovery_commands(app)
add_report_commands(app)
add_cluster_commands(app)


def main() -> None:
    """Entry point: JobErrors become one screen of text and exit code 2."""
    try:
        app()
    except JobError as error:
        show_error(str(error))
        sys.exit(2)
    except KeyboardInterrupt:
        err.print("stopped; the store keeps what was done")
        sys.exit(130)
    except Exception as error:
        if is_storage_error(error):
            show_error(f"the storage fails: {reason(error)}")
            sys.exit(74)  # EX_IOERR of sysexits.h
        # A fault of ours, not of the user's input: show it whole.
        traceback.print_exc()
        sys.exit(1)


if __name__ == "__main__":
    main()
