"""`ctd posterior`: infer rates, factors and inputs of all trials with trained models, as an HDF5 file or a store."""

import glob
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from cluster.cli import options
from cluster.cli.display import err, out, show_json
from cluster.cli.running import Request, open_and_compute, open_to_compute, run_store
from jobs.errors import EXIT_STOPPED, JobError
from jobs.exports.posterior import (
    LABEL,
    choose_models,
    model_params,
    posterior_job,
    write_posterior,
)
from jobs.run.prepare import open_or_create
from jobs.run.stop import Interrupted, Stop, signals
from jobs.run.task import Executor
from jobs.storage.addresses import local_path, path_beside
from jobs.storage.connect import open_objects
from jobs.storage.lease import holder
from jobs.store.store import Store

SortedModels = Annotated[
    str | None,
    typer.Option(
        help="columns that rank the models: a metric, the best first; another column, the smallest first; -column, the largest "
        "first; by default the criterion of their training"
    ),
]
OtherTrials = Annotated[
    str | None,
    typer.Option(
        help="file of other trials of the same units; by default the trials that the models were trained on"
    ),
]
IntoFile = Annotated[
    Path | None,
    typer.Option(help="HDF5 file to write; by default STORE-posterior.h5 beside the store"),
]
IntoStore = Annotated[
    str | None,
    typer.Option("--store", help="write a store instead of an HDF5 file, or continue this one"),
]

OnModels = Annotated[
    list[str] | None,
    typer.Option(
        "--where", help="condition on the models, as in ctd query; by default all trained"
    ),
]
BestModels = Annotated[
    int, typer.Option(min=1, help="number of best models to use; more than one needs --store")
]


@dataclass(frozen=True)
class Models:
    """Options that choose the models, and the trials that they infer."""

    conditions: OnModels = None
    sort: SortedModels = None
    limit: BestModels = 1
    data: OtherTrials = None


def posterior(
    store: options.StorePath,
    selection: Models,
    settings: options.GatherOptions,
    to: IntoFile = None,
    results: IntoStore = None,
    overrides: options.Overrides = None,
    as_json: options.AsJson = False,
) -> None:
    """Infer rates, factors and inputs of all trials, with the best models of a store."""
    if results is not None and to is not None:
        raise JobError(f"--to {to}, --store {results}: both given; give one of them")
    target = _target(store, to, selection.limit) if results is None else None
    trained = open_to_compute(store, settings.trust)
    conditions = options.all_of(selection.conditions)
    items = choose_models(trained, conditions, selection.sort, selection.limit, err.print)
    models = [params for item in items for params in model_params(trained, item, selection.data)]
    run_options = options.RunOptions(settings.executor, settings.address, as_json=as_json)
    if target is None:
        job = posterior_job(trained, models, overrides or ())
        err.print(f"{job.inference.size} of one model")
        request = Request(str(results), job.spec, run_options)
        with signals(stop := Stop()):
            run_store(_opener(trained, request), request, stop)
        return
    jobs = [posterior_job(trained, [model], overrides or (), for_file=True) for model in models]
    if refusals := [job.inference.refusal for job in jobs if job.inference.refusal]:
        raise JobError(refusals[0])
    err.print(jobs[0].inference.size)
    reports = []
    about = {"store": trained.address, "item": items[0]}
    for job, file in zip(jobs, _of_sessions(target, models, to), strict=True):
        with _temporary_store(
            trained, Request(str(file), job.spec, run_options), file
        ) as temporary:
            write_posterior(temporary, file, job.inference, about, typed=to is not None)
        train, valid = job.inference.n
        reports.append({"file": str(file), "item": items[0], "train": train, "valid": valid})
    if as_json:
        show_json(reports[0] if len(reports) == 1 else reports)
    for job, report in zip(jobs, () if as_json else reports, strict=False):
        out.print(f"wrote {report['file']}: model {report['item']}, {job.inference.trials}")


def _target(store: str, to: Path | None, limit: int) -> Path:
    """The HDF5 file to write. Raises JobError before anything is computed if it cannot be written."""
    if limit > 1:
        raise JobError(f"--limit {limit}: an HDF5 file holds one model; give --store OUT.zarr")
    if to is None:
        if local_path(store) is None:
            raise JobError(f"--to: {store} is not on this machine; give the file to write")
        place = path_beside(store)
        return place.with_name(f"{place.name}-posterior.h5")
    if to.suffix not in (".h5", ".hdf5"):
        raise JobError(f"--to {to}: is written as HDF5; give it the ending .h5")
    if not to.parent.is_dir():
        raise JobError(f"--to {to}: there is no folder {to.parent}")
    return to


def _of_sessions(target: Path, models: list[dict[str, Any]], to: Path | None) -> list[Path]:
    """A file for each session, named after its training file, or by its number if those names are alike.

    to: the file that the user names. Raises JobError if there are several to write.
    """
    if len(models) == 1:
        return [target]
    if to is not None:
        raise JobError(
            f"--to {to}: the model has {len(models)} sessions, each of which is a file of its own; leave --to out, name "
            "one session's file by --data, or give --store OUT.zarr"
        )
    names = [Path(model["data"]).stem for model in models]
    if len(set(names)) < len(names):
        names = [str(model["session"]) for model in models]
    return [target.with_name(f"{target.stem}-{name}.h5") for name in names]


def _opener(trained: Store, request: Request) -> Callable[[Executor], Store]:
    return partial(open_or_create, request.spec, trained.job.base, LABEL, request.store)


@contextmanager
def _temporary_store(trained: Store, request: Request, to: Path) -> Iterator[Store]:
    """A temporary store beside the file to write, which is deleted at the end."""
    _remove_left(to)
    with tempfile.TemporaryDirectory(dir=to.parent, prefix=f".{to.stem}-") as scratch:
        # Not the file, which may be there.
        request = replace(request, store=f"{scratch}/posterior.zarr")
        try:
            with signals(stop := Stop()), closing(request.make()) as runner:
                store, progress = open_and_compute(_opener(trained, request), runner, request, stop)
                stop.check()
        except Interrupted as early:
            err.print(f"stopped ({early}), nothing is written; with --store it could go on")
            raise typer.Exit(EXIT_STOPPED) from None
        for error in (progress.failed | progress.failed_items).values():
            raise JobError(f"{to}: is not written, since a chunk failed: {error}")
        yield store


def _remove_left(to: Path) -> None:
    """Remove the stores that killed commands for this file left beside it on this machine."""
    for path in to.parent.glob(f".{glob.escape(to.stem)}-*/posterior.zarr"):
        with suppress(JobError):  # gone meanwhile
            lease = holder(open_objects(str(path)))
            if lease is not None and lease.has_ended:
                shutil.rmtree(path.parent, ignore_errors=True)
