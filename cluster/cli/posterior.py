"""`ctd posterior`: infer rates, factors and inputs of all trials with trained lfads models, as an HDF5 file or a store."""

import glob
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer

from cluster.cli.display import err, out, show_json
from cluster.cli.options import (
    AsJson,
    GatherExecutor,
    Overrides,
    RayAddress,
    StorePath,
    Trust,
    all_of,
)
from cluster.cli.running import Request, open_and_compute, open_to_compute, run_store
from jobs.errors import EXIT_STOPPED, JobError, validated
from jobs.run.stop import Interrupted, Stop, signals
from jobs.run.task import Executor
from jobs.spec.job import JobSpec, find_kernel, parse_job, set_field
from jobs.storage.addresses import beside, join, local_path
from jobs.storage.connect import open_objects
from jobs.storage.lease import holder
from jobs.store.store import Store

KERNEL = "lfads.posterior"
ALL = (
    "rates", "factors", "inferred_inputs", "states", "initial_conditions", "decoded_behavior",
)  # fmt: skip
"""Results that an HDF5 file has unless --set says otherwise."""


class Ready(NamedTuple):
    """A posterior job, ready to run."""

    spec: JobSpec
    base: str
    where: str
    """Names the job in errors."""
    n: list[int]
    """Trials for training and for evaluation, of the last model."""
    windows: Any
    """Their places in chopped recordings, `ctd.lfads.chop.Windows`; None for data that were not chopped."""
    splits: dict[str, int]
    """`eval_every`, if every so many-th trial of the file was for evaluation."""


Ranking = Annotated[
    str | None,
    typer.Option(
        help="columns that rank the models, of a metric its best first, -column for falling order; by default their "
        "training's criterion"
    ),
]


def posterior(
    store: StorePath,
    where: Annotated[
        list[str] | None,
        typer.Option(help="condition on the models, as in ctd query; by default all trained ones"),
    ] = None,
    sort: Ranking = None,
    limit: Annotated[
        int, typer.Option(min=1, help="how many of the best models; more than one needs --store")
    ] = 1,
    data: Annotated[
        str | None, typer.Option(help="other trials of the same units; by default the training's")
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(help="HDF5 file to write; by default STORE-posterior.h5 beside the store"),
    ] = None,
    results: Annotated[
        str | None, typer.Option("--store", help="a store to write, or to go on with, instead")
    ] = None,
    overrides: Overrides = None,
    executor: GatherExecutor = "serial",
    address: RayAddress = None,
    trust: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Infer rates, factors and inputs of all trials with the best models of a store of lfads."""
    if results is not None and to is not None:
        raise JobError(f"--to {to}, --store {results}: both given; give one of them")
    target = _target(store, to, limit) if results is None else None
    trained = _trained(store, trust)
    items = _chosen(trained, all_of(where), sort, limit)
    models = [model for item in items for model in _fields(trained, item, data)]
    compute = lambda ready, at: Request(at, ready.spec, executor, address, as_json)
    if results is not None:
        ready = _job(models, trained.job.base, (), overrides)
        with signals(stop := Stop()):
            run_store(partial(_open, ready, results), compute(ready, results), stop)
        return
    assert target is not None
    files = _of_sessions(target, models, to)
    readies = [_job([model], trained.job.base, ALL, overrides) for model in models]
    _refuse_samples(readies)
    for ready, file in zip(readies, files, strict=True):
        with _computed(ready, compute(ready, str(file)), file) as made:
            _write(made, file, ready, {"store": trained.address, "item": items[0], **ready.splits})
    _tell(files, items[0], [ready.n for ready in readies], as_json)


def _trained(store: str, trust: bool) -> Store:
    """Open the store, whose kernel must be lfads."""
    trained = open_to_compute(store, trust)
    if trained.job.spec.kernel != "lfads":
        raise JobError(f"{store}: is a store of {trained.job.spec.kernel}; give a store of lfads")
    return trained


def _tell(files: list[Path], item: int, n: list[list[int]], as_json: bool) -> None:
    told = [
        {"file": str(file), "item": item, "train": train, "valid": valid}
        for file, (train, valid) in zip(files, n, strict=True)
    ]
    if as_json:
        show_json(told[0] if len(told) == 1 else told)
        return
    for one in told:
        out.print(
            f"wrote {one['file']}: model {item}, trials {one['train']:,} train, {one['valid']:,} valid"
        )


def _refuse_samples(readies: list[Ready]) -> None:
    for ready in readies:
        if ready.windows is not None and ready.spec.params.get("samples"):
            raise JobError(
                "samples: draws of neighbouring windows are independent and cannot be merged; leave them out, or give "
                "--store OUT.zarr, which has those of each window"
            )


def _of_sessions(target: Path, models: list[dict[str, Any]], to: Path | None) -> list[Path]:
    """The files to write, named by those that the sessions were trained on, or by their numbers if these are alike.

    to: the one file that the user names. Raises JobError if there are several to write.
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


def _target(store: str, to: Path | None, limit: int) -> Path:
    """The HDF5 file to write. Raises JobError before anything is computed if it cannot be written."""
    if limit > 1:
        raise JobError(f"--limit {limit}: an HDF5 file holds one model; give --store OUT.zarr")
    if to is None:
        if local_path(store) is None:
            raise JobError(
                f"--to: missing, but {store} is not on this machine; give the file to write"
            )
        place = beside(store)
        return place.with_name(f"{place.name}-posterior.h5")
    if to.suffix not in (".h5", ".hdf5"):
        raise JobError(f"--to {to}: is written as HDF5; give it the ending .h5")
    if not to.parent.is_dir():
        raise JobError(f"--to {to}: there is no folder {to.parent}")
    return to


# --- the job --------------------------------------------------------------------------------------


def _chosen(store: Store, where: str | None, sort: str | None, limit: int) -> list[int]:
    """The ids of the selected models, the best first."""
    from ctd.lfads.summary import RANKED
    from jobs.query.query import rows
    from jobs.store.arrays import plain
    from jobs.store.store import metric_of

    asked = sort or RANKED[store.job.spec.params.get("criterion", "loss")]
    names = [name.strip() for name in asked.split(",")]
    falls = lambda name: (metric := metric_of(store, name)) and metric.more_is_better
    ranked = ["-" + name if falls(name) else name for name in names]
    first = ranked[0].removeprefix("-")
    _, found = rows(
        store, where or "outcome != 'diverged'", table="items",
        sort=",".join(ranked), columns=["item", first],
    )  # fmt: skip
    n, items = len(found["item"]), [int(item) for item in found["item"][:limit]]
    if not n:
        raise JobError(f"{store.address}: no model with {where or 'a finite loss'}")
    by_metric = names == [first] and first in store.description.dims
    order = f"the best of {n:,}" if by_metric else f"the first of {n:,} by {asked}"
    for item, value in zip(items, map(plain, found[first]), strict=False):
        shown = f"{value:.4g}" if isinstance(value, float) else value
        err.print(f"model {item}, {first} {shown}, {order}")
        order = "the next"
    return items


def _job(
    models: list[dict[str, object]], base: str, keep: tuple[str, ...], overrides: Overrides
) -> Ready:
    """The job that infers all trials with these models: their common parameters, and a sweep for each model."""
    where = "ctd posterior"
    given: dict[str, Any] = {"params": {"keep": list(keep)} if keep else {}}
    for override in overrides or []:
        set_field(given, override)
    params = given.pop("params")
    if not isinstance(params, dict):
        raise JobError(f"--set params={params!r:.60}: expected fields, such as params.samples=5")
    models = [model | params for model in models]
    common = {k: v for k, v in models[0].items() if all(k in m and m[k] == v for m in models)}
    sweep: list[dict[str, Any]] = []
    for model in models:
        n_chunks, n, windows, splits = _count(model, base, where)
        own = {name: [value] for name, value in model.items() if name not in common}
        sweep.append({"grid": {**own, "chunk": {"range": n_chunks}}})
    content = {"kernel": KERNEL, "name": "posterior", "params": common, "sweep": sweep, **given}
    return Ready(parse_job(content, where), base, where, n, windows, splits)


def _fields(store: Store, item: int, data: str | None) -> list[dict[str, Any]]:
    """The parameters of a model's posterior for each of its sessions. data: see `ctd.lfads.trained.by_session`."""
    from ctd.lfads.trained import by_session, posterior_params
    from jobs.inputs.items import item_params

    path, base = local_path(store.address), str(store.job.base)
    at = store.address if path is None else str(path.absolute())
    known = find_kernel(KERNEL, None).Params.model_fields
    trained = {name: v for name, v in item_params(store, item).items() if name in known}
    params = posterior_params(trained, at, item, store.job.spec.seed)
    here = join(str(Path.cwd()), data) if data else None
    return by_session(params, here, lambda file: join(base, file))


def _count(
    fields: dict[str, object], base: str, where: str
) -> tuple[int, list[int], Any, dict[str, int]]:
    """Read the data: (chunks, then the last three fields of `Ready`). Raises JobError if they do not fit."""
    from ctd.kernel import inputs_of
    from ctd.lfads.numpy_file import splits_by_number
    from ctd.lfads.posterior import n_chunks
    from jobs.inputs.measure import load_group, with_files

    kernel = find_kernel(KERNEL, None)
    params = with_files(validated(kernel.Params, fields, where), base)
    fit = load_group(kernel, params, base)
    inputs = inputs_of(params)
    splits = {"eval_every": inputs.eval_every} if splits_by_number(inputs.data) else {}
    return n_chunks(inputs, fit), [int(k) for k in fit.n], fit.windows, splits


# --- running and writing --------------------------------------------------------------------------


def _open(ready: Ready, address: str, runner: Executor) -> Store:
    from jobs.run.prepare import open_or_create

    return open_or_create(ready.spec, ready.base, ready.where, address, runner)


@contextmanager
def _computed(ready: Ready, request: Request, to: Path) -> Iterator[Store]:
    """A temporary store beside the file to write, which is deleted at the end."""
    _remove_left(to)
    with tempfile.TemporaryDirectory(dir=to.parent, prefix=f".{to.stem}-") as scratch:
        create = partial(_open, ready, f"{scratch}/posterior.zarr")
        try:
            with signals(stop := Stop()), closing(request.make()) as runner:
                made, progress = open_and_compute(create, runner, request, stop)
                stop.check()
        except Interrupted as early:
            err.print(f"stopped ({early}), nothing is written; with --store it could go on")
            raise typer.Exit(EXIT_STOPPED) from None
        for error in (progress.failed | progress.failed_items).values():
            raise JobError(f"{to}: is not written, since a chunk failed: {error}")
        yield made


def _remove_left(to: Path) -> None:
    """Remove the stores that commands for this file left beside it as they were killed, on this machine."""
    for left in to.parent.glob(f".{glob.escape(to.stem)}-*/posterior.zarr"):
        with suppress(JobError):  # gone meanwhile
            held = holder(open_objects(str(left)))
            if held is not None and held.has_ended:
                shutil.rmtree(left.parent, ignore_errors=True)


def _write(made: Store, to: Path, ready: Ready, about: dict[str, object]) -> None:
    from ctd.lfads.torch_file import write

    def chunk(row: int) -> dict[str, np.ndarray]:
        return {name: made.rows(0, name, row, row + 1)[0] for name in made.names(0)}

    chunks = map(chunk, range(made.job.plan.group_sizes[0]))
    try:
        write(to, chunks, ready.n, about, ready.windows)
    except (ValueError, OSError) as error:
        raise JobError(f"--to: {error}") from None
