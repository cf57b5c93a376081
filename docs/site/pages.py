"""What the pages of the site print: the commands, the kernels' fields and results, and figures."""

import base64
import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer.main

from cluster.cli.kernels import contents, starter
from cluster.cli.main import app
from ctd.catalogue import kernel_names, load_kernel
from ctd.kernel import field_kinds

ROOT = Path(__file__).parents[2]
_there = [""]


def begin() -> None:
    """Go to a new folder with the examples' data files, where a tutorial leaves its stores."""
    _there[0] = os.getcwd()
    folder = Path(tempfile.mkdtemp(prefix="ctd-docs-"))
    for path in (ROOT / "examples").glob("*.h5"):
        (folder / path.name).symlink_to(path)
    os.chdir(folder)


def end() -> None:
    """Go back."""
    os.chdir(_there[0])


def picture(path: str, text: str) -> str:
    """Return the HTML of a PNG, its bytes inside."""
    return f'<img alt="{text}" src="data:image/png;base64,{base64.b64encode(Path(path).read_bytes()).decode()}">'


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
    """Yield the Markdown of every kernel: its fields, and what its store holds."""
    for name in kernel_names():
        kernel = load_kernel(name)
        yield f"## {name}\n\n| field | kind | default | |\n|---|---|---|---|"
        kinds = field_kinds(kernel.Params)
        for field, info in kernel.Params.model_fields.items():
            default = "" if info.is_required() else info.get_default(call_default_factory=True)
            yield f"| `{field}` | {kinds[field].value} | {_cell(str(default))} | {_cell(info.description or '')} |"
        for title, table in contents(kernel).items():
            yield f"\n**{title}**\n\n| {' | '.join(table)} |\n|{'---|' * len(table)}"
            for row in zip(*table.values(), strict=True):
                yield "| " + " | ".join(_cell(str(value)) for value in row) + " |"
        yield f'\n??? note "A starter: ctd new {name}"\n\n    ```yaml'
        yield "\n".join(f"    {line}" for line in starter(name, kernel).splitlines())
        yield "    ```\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the progress of a run off the page, whose builder shows what it prints."""
    from cluster.cli import display

    before, display.err.quiet = display.err.quiet, True
    try:
        yield
    finally:
        display.err.quiet = before
