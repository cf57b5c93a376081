"""Arguments and options that several commands share, each declared once; how their words are split and joined."""

import inspect
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from jobs.errors import JobError
from jobs.storage.addresses import refuse_empty

JobWords = Annotated[
    list[str],
    typer.Argument(
        metavar="job",
        help="job file, YAML or JSON; key.path=value overrides a field, as --set does",
        show_default=False,
    ),
]
StorePath = Annotated[str, typer.Argument(help="store of a job", show_default=False)]
StorePaths = Annotated[
    list[str],
    typer.Argument(
        help="stores, folders of stores, patterns such as 's3://lab/gru*.zarr'", show_default=False
    ),
]
ResultsPath = Annotated[
    str | None,
    typer.Option(
        "--store",
        help="where results go; by default beside the job file",
        callback=refuse_empty,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="override a field: key.path=value; may be repeated"),
]
ExecutorName = Annotated[
    Literal["auto", "ray", "serial"],
    typer.Option(
        "--executor",
        help="ray: several shards at once; serial: one shard at a time, in this process, on all cores; auto: ray if the job or "
        "--address asks for it, if there are GPUs, or if a process of the job died before; else serial",
    ),
]
GatherExecutor = Annotated[
    Literal["ray", "serial"],
    typer.Option(
        "--executor",
        help="ray: several shards or groups at once; serial: one at a time, in this process",
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--address",
        help="host:port of an existing Ray cluster; by default --executor ray starts one",
    ),
]
Failed = Annotated[
    bool,
    typer.Option("--failed", help="compute again the shards of items that failed with an error"),
]
AcceptChanges = Annotated[
    bool,
    typer.Option("--accept-changes", help="go on although the kernel's source has been edited"),
]
Trust = Annotated[
    bool,
    typer.Option("--trust", help="run the code that the store names, although it is not yours"),
]
Conditions = Annotated[
    list[str] | None,
    typer.Option(
        "--where", help='condition, such as "q < 1e-10 and stable"; if repeated, rows must meet all'
    ),
]
ColumnNames = Annotated[list[str] | None, typer.Option(help="columns, separated by commas")]
SortedBy = Annotated[
    list[str] | None,
    typer.Option(help="column to sort by; -column: largest first; several separated by commas"),
]
Limit = Annotated[int | None, typer.Option(min=0, help="most rows to show or write")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON, for programs")]


# --- groups ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class JobOptions:
    """Options of commands that take job files: where the results go, and changed fields."""

    store: ResultsPath = None
    overrides: Overrides = None


@dataclass(frozen=True)
class ComputeOptions:
    """Options of commands that compute: where, and whether a stranger's code runs."""

    executor: ExecutorName = "auto"
    address: RayAddress = None
    trust: Trust = False


@dataclass(frozen=True)
class GatherOptions(ComputeOptions):
    """Options of commands that compute in this process by default."""

    executor: GatherExecutor = "serial"


@dataclass(frozen=True)
class RetryOptions:
    """Options of commands that go on with a store: which of its shards are computed again; see `jobs.run.shards.reconsider`."""

    failed: Failed = False
    accept_changes: AcceptChanges = False


@dataclass(frozen=True)
class RunOptions(RetryOptions, ComputeOptions):
    """Options of run and resume."""

    as_json: AsJson = False


def ungrouped(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command as typer reads it: a parameter whose type is a group, a dataclass of options, is replaced by these options."""
    signature = inspect.signature(command, eval_str=True)
    groups: dict[str, Any] = {p.name: p.annotation for p in signature.parameters.values() if is_dataclass(p.annotation)}  # fmt: skip
    parameters = []
    for p in signature.parameters.values():
        parts = fields(groups[p.name]) if p.name in groups else ()
        options = [p.replace(name=part.name, default=part.default, annotation=part.type) for part in parts]  # fmt: skip
        parameters += options or [p]

    @wraps(command)
    def call(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{part.name: values.pop(part.name) for part in fields(group)})
        command(**values)

    # By keyword alone: an option may then stand before an argument without a default.
    by_keyword = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
    vars(call)["__signature__"] = signature.replace(parameters=by_keyword)
    return call


OVERRIDE = re.compile(r"[A-Za-z_]\w*(\.\w[\w-]*)*=")
"""The beginning of such a word."""


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split words into (job files, overrides). Raises JobError without a file. A file may be called a=b.

    >>> split_words(["job.yaml", "params.n=50"])
    (['job.yaml'], ['params.n=50'])
    """
    # os.path.exists: a long list of values is no valid file name, for which Path.exists raises an error.
    overrides = [word for word in words if OVERRIDE.match(word) and not os.path.exists(word)]
    files = [word for word in words if word not in overrides]
    if not files:
        raise JobError(f"{', '.join(words)}: overrides fields of a job file; give the file too")
    return files, overrides


def refuse(reason: str, **options: object) -> None:
    """Raise JobError for the first option that is given, which `reason` refuses; None stands for one that is not."""
    for name, value in options.items():
        if value is not None:
            raise JobError(f"--{name.replace('_', '-')}: {reason}")


def check_target(to: Path | None, as_json: bool) -> None:
    """Raise JobError if a table cannot be written to `to`, or is to be printed as well."""
    if to is None:
        return
    refuse(f"not with --to {to}, which is written instead; leave one out", json=as_json or None)
    from jobs.query import files

    files.check_target(to)


def words_of(texts: Sequence[str] | None) -> list[str]:
    """The words of an option that may be repeated, or list several separated by commas.

    >>> words_of(["paper,old", "new"])
    ['paper', 'old', 'new']
    """
    return [word.strip() for text in texts or () for word in text.split(",") if word.strip()]


def all_of(conditions: list[str] | None) -> str | None:
    """Join conditions by `and`. A single condition stays as it is, so that errors point into it.

    >>> all_of(["q < 1", "stable"])
    '(q < 1) and (stable)'
    """
    if not conditions or len(conditions) == 1:
        return conditions[0] if conditions else None
    return " and ".join(f"({condition})" for condition in conditions)
