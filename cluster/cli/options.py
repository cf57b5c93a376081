"""Arguments and options that several commands share, each declared once."""

from typing import Annotated, Literal

import typer

JobWords = Annotated[
    list[str],
    typer.Argument(
        metavar="job",
        help="job file, YAML or JSON; key.path=value overrides a field, as --set does",
        show_default=False,
    ),
]
StorePath = Annotated[str, typer.Argument(help="store of a job", show_default=False)]
ResultsPath = Annotated[
    str | None, typer.Option("--store", help="where results go; by default beside the job file")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="override a field: key.path=value; may be repeated"),
]
ExecutorName = Annotated[
    Literal["auto", "ray", "serial"],
    typer.Option(
        "--executor",
        help="ray: shards side by side; serial: in this process alone; auto: serial if the job takes less "
        "than starting Ray, and ray where the job or --address asks for more",
    ),
]
GatherExecutor = Annotated[
    Literal["ray", "serial"],
    typer.Option(
        "--executor", help="ray: shards or groups side by side; serial: in this process alone"
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--address",
        help="an existing Ray cluster, host:port; by default one is started",
    ),
]
Failed = Annotated[
    bool, typer.Option("--failed", help="compute the shards of items with errors again")
]
AcceptChanges = Annotated[
    bool, typer.Option("--accept-changes", help="go on though the kernel's source has been edited")
]
Trust = Annotated[
    bool, typer.Option("--trust", help="run the code that the store names, wherever it lies")
]
ColumnNames = Annotated[list[str] | None, typer.Option(help="columns, separated by commas")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON, for programs")]
