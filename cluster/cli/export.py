"""`ctd export`: write one item as a file, or all items as runs of an experiment tracker."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cluster.cli.display import err, out
from cluster.cli.options import StorePath
from cluster.cli.query import all_of, say_how_much
from jobs.errors import JobError
from jobs.storage.addresses import local_path
from jobs.store.store import Store


def export(
    store: StorePath,
    item: Annotated[
        int | None, typer.Argument(help="item id; not with --to", show_default=False)
    ] = None,
    path: Annotated[
        str | None,
        typer.Argument(
            help="file to write, here or on an object store: .h5, .npz, .pt, .safetensors",
            show_default=False,
        ),
    ] = None,
    results: Annotated[
        bool, typer.Option("--results", help="everything but the trained model")
    ] = False,
    to: Annotated[
        Literal["mlflow", "tensorboard", "wandb"] | None,
        typer.Option(
            help="tracker to write runs for, one for each item: parameters, curves, metrics, its file; nothing is sent"
        ),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="where runs go; by default STORE-TRACKER beside the store")
    ] = None,
    where: Annotated[
        list[str] | None, typer.Option(help="which items become runs, as in ctd query")
    ] = None,
    sort: Annotated[
        str | None, typer.Option(help="with --limit: the first items by these columns")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="at most so many runs")] = None,
) -> None:
    """Write an item's trained model to a file for other jobs, NumPy or PyTorch (the ending chooses the
    format), or write all items as runs of a tracker."""
    if to is None:
        _one(store, item, path, results, folder=folder, where=where, sort=sort, limit=limit)
        return
    if item is not None:
        raise JobError(f"--to {to}: takes all items; --where 'item == {item}' chooses one")
    _runs(store, to, folder or _beside(store, to), results, where, sort=sort, limit=limit)


def _runs(
    store: str, to: str, folder: Path, results: bool, where: list[str] | None, **first: Any
) -> None:
    """first: `sort` and `limit`."""
    from jobs.export.runs import read_runs
    from jobs.export.trackers import require, write_runs
    from jobs.report.figures import saved_figures

    require(to)
    opened = Store.open(store)
    n, runs = read_runs(opened, all_of(where), results, **first)
    say_how_much(opened)
    err.print(f"writing {n:,} runs to {folder}")
    pictures, name = saved_figures(store), opened.job.spec.name or opened.job.spec.kernel
    look = write_runs(to, folder, name, runs, pictures)
    told = f" and {len(pictures)} pictures" if pictures else ""
    out.print(f"wrote {n:,} runs{told}; {look}")


def _one(
    store: str, item: int | None, path: str | None, results: bool, **of_trackers: object
) -> None:
    if given := [name for name, value in of_trackers.items() if value is not None]:
        raise JobError(f"--{given[0]}: needs --to, the tracker to write runs for; give it too")
    if item is None or path is None:
        raise JobError("give an item and a file, or --to mlflow, tensorboard or wandb")
    from jobs.inputs.items import export as write

    write(Store.open(store), item, path, "results" if results else "weights")
    out.print(f"wrote {path}")


def _beside(store: str, to: str) -> Path:
    """The folder for runs beside the store; for a store elsewhere, in the working directory."""
    local = local_path(store)
    if local is not None:
        return local.with_name(f"{local.stem}-{to}")
    return Path(f"{Path(store).stem}-{to}")
