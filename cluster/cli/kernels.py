"""The commands schema, kernels and new, which describe job files and kernels."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from cluster.cli.display import out, records, show_json, show_table
from cluster.cli.options import AsJson
from ctd.catalogue import summaries
from ctd.kernel import Kernel
from jobs.report.starter import contents, starter
from jobs.spec.job import find_kernel
from jobs.spec.schema import job_schema


def schema(
    kernel: Annotated[
        str | None,
        typer.Argument(help="the kernel whose params the schema has too; by default none"),
    ] = None,
) -> None:
    """Print the JSON Schema of a job file, for an editor to complete and check it."""
    show_json(job_schema(_kernel(kernel) if kernel else None))


def _kernel(name: str) -> Kernel:
    return find_kernel(name, str(Path.cwd()))


def kernels(
    kernel: Annotated[
        str | None, typer.Argument(help="the kernel whose results to list; by default all kernels")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the kernels that come with ctd, or say what one of them computes."""
    if kernel is None:
        _list_kernels(as_json)
        return

    found = contents(_kernel(kernel))
    if as_json:
        show_json({title: records(table) for title, table in found.items()})
        return
    own = (sys.modules[kernel].__doc__ or "").strip() if kernel in sys.modules else ""
    out.print(summaries().get(kernel, own.removeprefix("Kernel: ")))
    for title, table in found.items():
        show_table(table, title, limit=None)


def _list_kernels(as_json: bool) -> None:
    about = {name: text.splitlines()[0] for name, text in summaries().items()}
    if as_json:
        show_json(about)
        return
    for name, text in about.items():
        out.print(f"{name:26} {text}")


def new(
    kernel: Annotated[str, typer.Argument(help="a kernel of ctd, or a dotted path")],
) -> None:
    """Print a commented starter job for a kernel."""

    sys.stdout.write(starter(kernel, _kernel(kernel)))
