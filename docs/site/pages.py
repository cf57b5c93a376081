"""What the pages of the site print: the commands, the kernels' fields and results, and figures."""

import base64
import io
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import typer.main

from cluster.cli import display
from cluster.cli.kernels import contents
from cluster.cli.main import app
from ctd.catalogue import kernel_names, load_kernel
from ctd.kernel import field_kinds
from jobs.spec.starter import starter

ROOT = Path(__file__).parents[2]
_there = [""]


def begin() -> None:
    """Go to a new folder with the examples' data files, where a tutorial leaves its stores.

    The progress of its runs stays off the page, whose builder shows what they print.
    """
    display.err.quiet = True
    _there[0] = os.getcwd()
    folder = Path(tempfile.mkdtemp(prefix="ctd-docs-"))
    for path in (ROOT / "examples").glob("*.h5"):
        (folder / path.name).symlink_to(path)
    os.chdir(folder)


def end() -> None:
    """Go back, and delete the folder."""
    display.err.quiet = False
    folder = os.getcwd()
    os.chdir(_there[0])
    shutil.rmtree(folder)


def uncovered(markdown: str) -> str:
    """Take code for the site out of the comments that hide it from those who read the Markdown file.

    >>> uncovered("a\\n<!-- site\\nb\\n-->\\nc")
    'a\\nb\\nc'
    """
    return re.sub(r"<!-- site\n(.*?)-->\n", r"\1", markdown, flags=re.DOTALL)


def drawn(figure: object, text: str) -> str:
    """Return the HTML of a matplotlib figure."""
    into = io.BytesIO()
    figure.savefig(into, dpi=110)  # type: ignore[attr-defined]
    return f'<img alt="{text}" src="data:image/png;base64,{base64.b64encode(into.getvalue()).decode()}">'


def commands() -> Iterator[str]:
    """Yield the Markdown of every command: its help, as the terminal shows it."""
    group = typer.main.get_command(app)
    context = group.make_context("ctd", ["--help"], resilient_parsing=True)
    for name in group.list_commands(context):  # type: ignore[attr-defined]
        listed = group.get_command(context, name)  # type: ignore[attr-defined]
        own = listed.make_context(f"ctd {name}", [], resilient_parsing=True)
        command = own.command  # the whole one, imported now
        usage = " ".join(command.get_usage(own).split()).removeprefix("Usage: ")
        yield f"## ctd {name}\n\n{command.help}\n\n    {usage}\n\n| | |\n|---|---|"
        for param in command.params:
            if record := param.get_help_record(own):
                yield f"| `{_cell(record[0])}` | {_cell(record[1])} |"
            elif text := getattr(param, "help", None):
                yield f"| `{_cell(param.human_readable_name)}` | {_cell(text)} |"
        yield ""


def kernels() -> Iterator[str]:
    """Yield the rows of a table of all kernels, each with a link to its page."""
    yield "| kernel | computes |\n|---|---|"
    for name in kernel_names():
        doc = _cell(import_module(load_kernel(name).Params.__module__).__doc__ or "")
        yield f"| [`{name}`](kernels/{name}.md) | {doc.partition('. ')[0].removeprefix('Kernel: ').rstrip('.')} |"


def kernel_page(name: str) -> str:
    """Return the Markdown of a kernel's page: its fields, what its store holds, and a starter."""
    kernel = load_kernel(name)
    lines = [f"# {name}\n\n| field | kind | default | |\n|---|---|---|---|"]
    kinds = field_kinds(kernel.Params)
    for field, info in kernel.Params.model_fields.items():
        default = "" if info.is_required() else info.get_default(call_default_factory=True)
        lines.append(
            f"| `{field}` | {kinds[field].value} | {_cell(str(default))} | {_cell(info.description or '')} |"
        )
    for title, table in contents(kernel).items():
        lines.append(f"\n## {title}\n\n| {' | '.join(table)} |\n|{'---|' * len(table)}")
        for row in zip(*table.values(), strict=True):
            lines.append("| " + " | ".join(_cell(str(value)) for value in row) + " |")
    lines.append(f"\n## A starter: ctd new {name}\n\n```yaml\n{starter(name, kernel)}\n```\n")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
