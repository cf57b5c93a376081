"""`ctd export`: write one item as a file, or all items as runs of an experiment tracker or trials of an Optuna study."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cluster.cli.display import err, out, warn
from cluster.cli.options import Conditions, StorePath, Trust, all_of, refuse
from cluster.cli.query import say_how_much
from cluster.cli.running import open_to_compute
from jobs.errors import JobError, advised, count
from jobs.redact import redact
from jobs.storage.addresses import path_beside
from jobs.storage.connect import refuse_taken
from jobs.store.store import Store

ItemOrStorage = Annotated[
    str | None,
    typer.Argument(
        help="item id; with --to optuna the study's storage: sqlite:///study.db, or the path of a journal",
        show_default=False,
    ),
]
File = Annotated[
    str | None,
    typer.Argument(
        help="file to write, here or on an object store: .h5, .npz, .pt, .safetensors",
        show_default=False,
    ),
]
To = Annotated[
    Literal["mlflow", "tensorboard", "wandb", "optuna"] | None,
    typer.Option(
        help="mlflow, tensorboard, wandb: write each item as a run, with its parameters, curves, metrics and model; nothing is "
        "sent. optuna: write each item as a trial of a study"
    ),
]
Metric = Annotated[
    str | None,
    typer.Option(
        help="with --to optuna: the result that the study optimises; by default the metric of the search or the kernel"
    ),
]
Mode = Annotated[
    Literal["min", "max"] | None,
    typer.Option(help="with --to optuna: max if larger values of the metric are better"),
]
Results = Annotated[
    bool, typer.Option("--results", help="write all results except the trained model")
]
NextJob = Annotated[
    str | None,
    typer.Option(help="write the job file of a next step, by the name that `ctd best` gives it"),
]
Folder = Annotated[
    Path | None, typer.Option(help="where runs go; by default STORE-TRACKER beside the store")
]
SortedItems = Annotated[
    str | None, typer.Option(help="with --limit: columns that decide which items come first")
]
MostItems = Annotated[int | None, typer.Option(min=1, help="most runs or trials to write")]


@dataclass(frozen=True)
class Study:
    """Options of a study of Optuna."""

    metric: Metric = None
    mode: Mode = None


@dataclass(frozen=True)
class Selection:
    """Options that choose items."""

    conditions: Conditions = None
    sort: SortedItems = None
    limit: MostItems = None

    def read(self, store: Store, arrays: Literal["none", "model", "all"]) -> tuple[int, Any]:
        """Return the number of the runs, and an iterator over them; print how much there is to write."""
        from jobs.exports.runs import read_runs

        runs = read_runs(store, all_of(self.conditions), arrays, sort=self.sort, limit=self.limit)
        say_how_much([store])
        return runs


def export(
    store: StorePath,
    selection: Selection,
    study: Study,
    item: ItemOrStorage = None,
    path: File = None,
    results: Results = False,
    job: NextJob = None,
    to: To = None,
    folder: Folder = None,
    trust: Trust = False,
) -> None:
    """Write an item's trained model to a file for other jobs, NumPy or PyTorch; the file's ending chooses
    the format. With --to, write all items as runs of a tracker or trials of an Optuna study."""
    if job is None:
        refuse("only with --job", trust=trust or None)
    if to is None:
        needs = "needs --to, which says what to write items for"
        refuse(needs, folder=folder, where=selection.conditions)
        refuse(needs, sort=selection.sort, limit=selection.limit, **vars(study))
        _write_item(store, item, path, results, job, trust)
    elif to == "optuna":
        refuse("not with --to optuna", folder=folder, results=results or None, job=job)
        if item is None or path is not None:
            raise JobError(
                "--to optuna: give one storage after it: sqlite:///study.db, or the path of a journal"
            )
        _study(store, item, study, selection)
    elif item is not None:
        raise JobError(f"--to {to}: takes all items; --where 'item == {item}' chooses one")
    else:
        refuse(f"not with --to {to}, only with --to optuna", **vars(study))
        refuse(f"not with --to {to}", job=job)
        if folder is None:
            place = path_beside(store)
            folder = place.with_name(f"{place.name}-{to}")
            _refuse_links(folder)
        _runs(store, to, folder, "all" if results else "model", selection)


def _refuse_links(folder: Path) -> None:
    """Raise JobError if a tracker would write through a link in a folder that the user did not type. Names below these are new ones."""
    for path in (folder, *folder.glob("*"), *folder.glob("artifacts/*")):
        if path.is_symlink():
            raise JobError(
                f"{path}: is a link to {os.path.realpath(path)}; remove it, or type the folder after --folder"
            )


def _study(store: str, storage: str, study: Study, selection: Selection) -> None:
    from jobs.exports.trackers import require

    require("optuna")
    from jobs.exports.studies import direction, write_study
    from jobs.query.best import require_metric

    opened_store, name = Store.open(store), path_beside(store).name
    goal = require_metric(opened_store, "--metric", study.metric, study.mode)
    n, runs = selection.read(opened_store, "none")
    err.print(f"writing {count(n, 'trial')} to study {name}: {direction(goal)} {goal.name}")
    new, n_existing = write_study(storage, name, opened_store, runs, goal)
    note = f" ({n_existing:,} were there already)" if n_existing else ""
    out.print(f"wrote {count(new, 'trial')}{note}; optuna-dashboard {redact(storage)}")


def _runs(store: str, to: str, folder: Path, arrays: Any, selection: Selection) -> None:
    from jobs.exports.trackers import require, write_runs
    from jobs.report.figures import saved_figures

    require(to)
    opened_store = Store.open(store)
    n, runs = selection.read(opened_store, arrays)
    err.print(f"writing {count(n, 'run')} to {folder}")
    pictures = saved_figures(store, len(opened_store.job.plan.group_sizes))
    name = opened_store.job.spec.name or opened_store.job.spec.kernel
    look = write_runs(to, folder, name, runs, pictures)
    note = f" and {count(len(pictures), 'picture')}" if pictures else ""
    out.print(f"wrote {count(n, 'run')}{note}; {look}")


def _write_item(
    store: str,
    item: str | None,
    path: str | None,
    results: bool,
    job: str | None,
    trust: bool,
) -> None:
    if item is None or path is None:
        raise JobError("give an item and a file, or --to mlflow, tensorboard, wandb or optuna")
    if not item.isdecimal():
        raise JobError(f"{item}: expected an item id; {advised('ctd', 'query', store)} lists them")
    from jobs.inputs.items import export as write
    from jobs.inputs.items import how_failed

    refuse_taken(path)
    if job is not None:
        refuse("not with --job; leave one out", results=results or None)
        from jobs.query.next import write_job

        write_job(open_to_compute(store, trust), int(item), job, path)
        out.print(f"wrote {path}")
        return
    opened_store = Store.open(store)
    warning = write(opened_store, int(item), path, "results" if results else "weights")
    warn(filter(None, [warning]))
    warn(
        f"item {item} failed ({outcome})"
        for outcome in how_failed(opened_store, [int(item)]).values()
    )
    out.print(f"wrote {path}")
