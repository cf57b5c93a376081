"""`ctd posterior`: what trained models of `lfads` infer of all trials, as an HDF5 file or a store."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from pydantic import ValidationError

from cluster.cli.anew import Anew, Cluster
from cluster.cli.display import err, out, show_json
from cluster.cli.options import AsJson, GatherExecutor, Overrides, RayAddress, StorePath, Trust
from cluster.cli.query import all_of
from cluster.cli.running import (
    Request,
    make_executor,
    open_and_compute,
    open_to_compute,
    run_store,
)
from jobs.errors import JobError, explain
from jobs.run.executor import Executor
from jobs.run.stop import EXIT_STOPPED
from jobs.spec.job import JobSpec, find_kernel, parse_job, set_field
from jobs.storage.addresses import join, local_path
from jobs.store.store import Store

KERNEL = "lfads.posterior"
ALL = ("rates", "factors", "inferred_inputs", "states", "initial_conditions")
"""What an HDF5 file has, unless --set says otherwise."""


class Ready(NamedTuple):
    """A job of the posterior, ready to run."""

    spec: JobSpec
    base: str
    where: str
    """Names the job in errors."""
    n: list[int]
    """Trials for training and for evaluation, of the last model."""
    windows: Any
    """Where these lie in recordings that were chopped, as `ctd.lfads.chop.Windows`; None if they were not."""


def posterior(
    store: StorePath,
    where: Annotated[
        list[str] | None,
        typer.Option(help="which models, a condition as in ctd query; by default any that trained"),
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option(help="columns that tell the best models; by default the training's criterion"),
    ] = None,
    limit: Annotated[
        int, typer.Option(min=1, help="so many models, the best ones; more than one needs --store")
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
    """Infer rates, factors and inputs of all trials, by the best models of a store of lfads."""
    if results is None:
        to = _target(store, to, limit)
    elif to is not None:
        raise JobError("--to, --store: give one of them")
    trained = open_to_compute(store, trust)
    if trained.job.spec.kernel != "lfads":
        raise JobError(f"{store}: holds {trained.job.spec.kernel}; a store of lfads expected")
    items = _chosen(trained, all_of(where), sort, limit)
    ready = _job(trained, items, data, ALL if to else (), overrides)
    if to is not None and ready.windows is not None and ready.spec.params.get("samples"):
        raise JobError(
            "samples: draws of neighbouring windows are independent and cannot be merged; leave them out, or give "
            "--store OUT.zarr, which has those of each window"
        )
    request = Request(
        results or str(to), partial(make_executor, executor, ready.spec, address),
        Cluster.of(address, ready.spec.run), as_json,
    )  # fmt: skip
    if results is not None:
        run_store(partial(_open, ready, results), request, Anew.taken())
        return
    assert to is not None
    with _computed(ready, request, to) as made:
        _write(made, to, ready, {"store": trained.address, "item": items[0]})
    _tell(to, items[0], ready.n, as_json)


def _tell(to: Path, item: int, n: list[int], as_json: bool) -> None:
    if as_json:
        show_json({"file": str(to), "item": item, "train": n[0], "valid": n[1]})
    else:
        out.print(f"wrote {to}: model {item}, trials {n[0]:,} train, {n[1]:,} valid")


def _target(store: str, to: Path | None, limit: int) -> Path:
    """The HDF5 file to write; refused before anything is computed if it cannot be."""
    if limit > 1:
        raise JobError(f"--limit {limit}: an HDF5 file holds one model; give --store OUT.zarr")
    if to is None:
        path = local_path(store)
        if path is None:
            raise JobError(f"--to: which file to write? {store} is not on this machine")
        return path.parent / f"{path.stem}-posterior.h5"
    if to.suffix not in (".h5", ".hdf5"):
        raise JobError(f"--to {to}: is written as HDF5; give it the ending .h5")
    if not to.parent.is_dir():
        raise JobError(f"--to {to}: no such folder")
    return to


# --- the job --------------------------------------------------------------------------------------


def _chosen(store: Store, where: str | None, sort: str | None, limit: int) -> list[int]:
    """The ids of the chosen models, the best one first."""
    from jobs.query.query import query

    criterion = store.job.spec.params.get("criterion", "loss")
    frame = query(
        store, where or "outcome != 'diverged'", table="items",
        sort=sort or f"eval_{criterion}", limit=limit,
    )  # fmt: skip
    if frame.empty:
        raise JobError(f"{store.address}: no model with {where or 'a finite loss'}")
    return [int(item) for item in frame["item"]]


def _job(
    store: Store, items: list[int], data: str | None, keep: tuple[str, ...], overrides: Overrides
) -> Ready:
    """The job that infers all trials by these models: what all have in common, and a sweep for each."""
    here, where = str(Path.cwd()), "ctd posterior"
    base = str(store.job.base)
    models = [_fields(store, item) for item in items]
    given: dict[str, Any] = {"params": {"keep": list(keep)} if keep else {}}
    if data is not None:
        given["params"]["data"] = join(here, data)
    for override in overrides or []:
        set_field(given, override)
    params = given.pop("params")
    models = [model | params for model in models]
    common = {k: v for k, v in models[0].items() if all(m[k] == v for m in models)}
    sweep, n, windows = [], [0, 0], None
    for model in models:
        n_chunks, n, windows = _count(model, base, where)
        own = {name: [value] for name, value in model.items() if name not in common}
        sweep.append({"grid": {**own, "chunk": {"range": n_chunks}}})
    content = {"kernel": KERNEL, "name": "posterior", "params": common, "sweep": sweep, **given}
    return Ready(parse_job(content, where), base, where, n, windows)


def _fields(store: Store, item: int) -> dict[str, Any]:
    """The parameters of a model's posterior: those that it was trained with, and where it is."""
    from jobs.inputs.items import item_params

    path = local_path(store.address)
    at = store.address if path is None else str(path.absolute())
    known = find_kernel(KERNEL, None).Params.model_fields
    found = {name: v for name, v in item_params(store, item).items() if name in known}
    found |= {"weights": f"{at}::{item}", "model": f"{at}::{item}::model"}
    found |= {"of_seed": store.job.spec.seed, "of_item": item}
    for stored in ("n_saved", "save"):  # of the training store
        found.pop(stored, None)
    return found


def _count(fields: dict[str, Any], base: str, where: str) -> tuple[int, list[int], Any]:
    """(chunks, (trials for training, for evaluation), windows); the data are read, and refused if they do not fit."""
    from ctd.kernel import inputs_of
    from ctd.lfads.posterior import n_chunks
    from jobs.inputs.measure import load_group

    kernel = find_kernel(KERNEL, None)
    try:
        params = kernel.Params.model_validate(fields)
    except ValidationError as error:
        raise JobError(explain(error, where, {(): kernel.Params.model_fields})) from None
    fit = load_group(kernel, params, base)
    return n_chunks(inputs_of(params), fit), [int(k) for k in fit.n], fit.windows


# --- running and writing --------------------------------------------------------------------------


def _open(ready: Ready, address: str, runner: Executor) -> Store:
    from jobs.run.prepare import open_or_create

    return open_or_create(ready.spec, ready.base, ready.where, address, runner)


@contextmanager
def _computed(ready: Ready, request: Request, to: Path) -> Iterator[Store]:
    """A store with the results, beside the file that is to be written; it is deleted at the end."""
    with tempfile.TemporaryDirectory(dir=to.parent, prefix=f".{to.stem}-") as scratch:
        create = partial(_open, ready, f"{scratch}/posterior.zarr")
        made, progress = open_and_compute(create, request)
        if progress.stopped is not None:
            err.print(
                f"stopped ({progress.stopped}), nothing is written; with --store it could go on"
            )
            raise typer.Exit(EXIT_STOPPED)
        for error in (progress.failed | progress.failed_items).values():
            raise JobError(f"{to}: is not written, since a chunk failed: {error}")
        yield made


def _write(made: Store, to: Path, ready: Ready, about: dict[str, Any]) -> None:
    from ctd.lfads import torch_file

    def chunk(row: int) -> dict[str, np.ndarray]:
        return {name: made.rows(0, name, row, row + 1)[0] for name in made.names(0)}

    chunks = map(chunk, range(made.job.plan.group_sizes[0]))
    try:
        torch_file.write(to, chunks, ready.n, about, ready.windows)
    except (ValueError, OSError) as error:
        raise JobError(f"--to: {error}") from None
