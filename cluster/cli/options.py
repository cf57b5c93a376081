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
        help="ray: shards side by side; serial: in this process alone; auto: serial if the job takes less time "
        "than Ray needs to start; ray where the job or --address asks for it, or there are GPUs",
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
        help="host:port of an existing Ray cluster; by default the run starts its own Ray",
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
ColumnNames = Annotated[list[str] | None, typer.Option(help="columns, separated by commas")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON, for programs")]
