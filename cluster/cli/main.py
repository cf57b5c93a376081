"""The command line `ctd`: a table of commands, each of which is imported when it is called.

Bad input prints one screen and exits with 2.
"""

import ast
import atexit
import errno
import gc
import io
import logging
import os
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib import import_module
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import TyperException

from cluster.cache import use_compilation_cache

PANELS = {
    "Run": "run.run run.plan recovery.status recovery.resume recovery.cancel recovery.check recovery.logs run.gather",
    "Ask and show": "query.query query.best report.report report.watch query.compare export.export posterior.posterior",
    "Keep stores": "listing.ls listing.note listing.archive",
    "Write jobs": "kernels.kernels kernels.new kernels.schema kernels.weights",
    "Clusters": "submit.submit clusters.clusters",
}
"""The commands, MODULE.FUNCTION of cluster.cli, in the order and under the headings of `ctd --help`."""

COMMANDS = {
    name: module
    for panel in PANELS.values()
    for module, name in (word.split(".") for word in panel.split())
}
"""Command -> the module of its function."""

GARBAGE_AFTER = 50_000
"""New objects after which Python collects garbage; its default is 2,000."""


STOPPABLE = ("run", "resume")
"""Commands that stop in order."""


@cache
def _docstrings(module: str) -> dict[str, str]:
    """The docstrings of a module's functions, read from its source, since importing all commands takes seconds."""
    source = Path(__file__).with_name(f"{module}.py").read_text(encoding="utf-8")
    functions = (node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef))
    return {node.name: ast.get_docstring(node) or "" for node in functions}


class LateCommand(TyperCommand):
    """A command whose module is imported when it is called or completed; `ctd --help` needs its name and help alone."""

    @property
    def help(self) -> str:
        """The first paragraph of its function's docstring."""
        name = str(self.name)
        return " ".join(_docstrings(COMMANDS[name])[name].partition("\n\n")[0].split())

    @help.setter
    def help(self, text: object) -> None:
        pass

    def make_context(self, *args: Any, **options: Any) -> Any:
        """The context of the whole command."""
        from cluster.cli.options import ungrouped

        name = str(self.name)
        app = typer.Typer(add_completion=False)
        app.command(name)(ungrouped(getattr(import_module(f"cluster.cli.{COMMANDS[name]}"), name)))
        # Copy the words: parsing empties the list.
        words = [str(word) for word in args[1]] if len(args) > 1 else []
        try:
            return typer.main.get_command(app).make_context(*args, **options)
        except TyperException as error:
            if option := getattr(error, "option_name", ""):
                error.message += _in_job_file(name, option, words)
            error.message = _with_choice(error.message)
            raise


def _with_choice(message: str) -> str:
    """An error about a value, and the choice that was probably meant if the text lists choices."""
    text = message.replace("Value error, ", "")  # pydantic's, of what the type of an option refuses
    if " is not one of " not in text:
        return text
    from ctd.words import did_you_mean

    word, *choices = re.findall(r"'([^']*)'", text)
    return text.rstrip(".") + (did_you_mean(word, choices) or ".")


WITH_SET = ("run", "plan", "submit", "posterior")
"""The commands whose --set overrides fields of a job; that of gather sets its options."""


def _in_job_file(command: str, option: str, words: list[str]) -> str:
    """A hint for an unknown option that is a field of the job file; "" for others. words: the command line."""
    from jobs.spec.job import JobSpec
    from jobs.spec.run import RunSettings

    field = option.lstrip("-").replace("-", "_")
    if field in RunSettings.model_fields:
        field = f"run.{field}"
    elif field not in JobSpec.model_fields:
        return ""
    lead = ":" if command in WITH_SET else "; give it to ctd run:"
    parts = [part for w in words for part in (w.split("=", 1) if w.startswith(option) else [w])]
    value = dict(pairwise(parts)).get(option, "VALUE")
    return f"; it is a field of the job file{lead} --set {field}={value}"


INSTEAD = {
    "stop": "ctd cancel STORE",
    "kill": "ctd cancel STORE",
    "show": "ctd status STORE, or ctd query STORE for its tables",
    "train": "ctd run JOB.yaml",
    "start": "ctd run JOB.yaml",
    "init": "ctd new KERNEL",
    "create": "ctd new KERNEL",
    "rm": "rm -r STORE; a store is a folder",
    "delete": "rm -r STORE; a store is a folder",
    "version": "ctd --version",
    "help": "ctd --help",
}
"""Words that users try as commands -> what to type instead."""


class Commands(TyperGroup):
    """All commands, before any is imported."""

    def __init__(self, **options: Any) -> None:
        commands = [
            LateCommand(word.partition(".")[2], rich_help_panel=panel)
            for panel, words in PANELS.items()
            for word in words.split()
        ]
        super().__init__(**options | {"commands": commands})

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command; the error about an unknown one says what to type instead, where that is known."""
        try:
            return super().resolve_command(ctx, args)
        except TyperException as error:
            if args[0] in INSTEAD:
                error.message = f"No such command {args[0]!r}. Type {INSTEAD[args[0]]}"
            raise


app = typer.Typer(cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False)


def _show_version(requested: bool) -> None:
    if requested:
        typer.echo(f"ctd {version('ctd-jobs')}")
        raise typer.Exit


@app.callback()
def _options(
    show: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="print the version"),
    ] = False,
) -> None:
    """Run sweeps of dynamical-systems computations: one job file, one Zarr store."""


def main() -> None:
    """The entry point: a JobError becomes one screen of text and its exit code."""
    use_compilation_cache()
    try:
        app()
    except SystemExit:
        raise
    except BaseException as error:
        sys.exit(_explain(error))


def _explain(error: BaseException) -> int:
    """Print why a command failed, and return its exit code."""
    # Imported here: `ctd --help` does without them.
    from cluster.cli.display import err, show_error
    from jobs.errors import EXIT_FAULT, EXIT_STOPPED, EXIT_STORAGE, JobError
    from jobs.run.stop import Interrupted
    from jobs.run.task import ExecutorLost
    from jobs.storage.objects import is_storage_error, reason

    if isinstance(error, JobError):
        show_error(str(error))
        return error.exit_code
    if isinstance(error, ExecutorLost):
        show_error(f"Ray is gone: {error}")
        return EXIT_STOPPED
    if isinstance(error, Interrupted):
        err.print(f"stopped ({error}); the same command continues")
        return EXIT_STOPPED
    if isinstance(error, KeyboardInterrupt):
        err.print("stopped; the store keeps what was done")
        return 130
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        show_error(
            f"{error.filename}: the name is too long; file systems take 255 bytes between two /"
        )
        return EXIT_FAULT
    if is_storage_error(error):
        show_error(f"the storage fails: {reason(error)}")
        return EXIT_STORAGE
    from jobs.gather.check import damage

    # A damaged store may be beyond what `damage` can read.
    with suppress(Exception):
        if finding := damage(error):
            show_error(finding)
            return EXIT_FAULT
    # A fault of ctd, not of the user's input: show all of it.
    traceback.print_exception(error)
    return 1


def _for_users(show: Callable[..., str]) -> Callable[..., str]:
    """A `warnings.formatwarning` that shows warnings about a user's data as their text alone, each once; others as `show` does."""
    printed = set[str]()

    def text(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> str:
        if category is UserWarning:
            line = f"warning: {message}\n"
            # Python forgets what it has shown whenever a filter changes.
            new = line not in printed
            printed.add(line)
            return line if new else ""
        return show(message, category, *place, **more)

    return text


def _ready_streams() -> None:
    """Let any text be printed: nowhere if the output is closed, as by `>&-`; as `\\xfc` what its encoding lacks."""
    for name in "stdout", "stderr":
        if (stream := getattr(sys, name)) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def command() -> None:
    """`main` as a process of its own, which ends as soon as it has said everything."""
    code = [1]

    def leave() -> None:
        logging.shutdown()
        with suppress(OSError):  # a reader that is gone, as of `ctd query ... | head`
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code[0])

    if sys.argv[1:2] and sys.argv[1] in STOPPABLE:
        # `jobs.run.stop.signals` hears them; until then the command imports, for a second. (That module's import takes as long.)
        stops = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)
        signal.pthread_sigmask(signal.SIG_BLOCK, stops)
    _ready_streams()
    # Imports and JAX's tracing make a million objects that stay; collecting garbage 500 times took a tenth of `ctd plan`.
    gc.set_threshold(GARBAGE_AFTER)
    warnings.formatwarning = _for_users(warnings.formatwarning)
    # A thread of obstore may still report a finished read to Zarr's loop. Python's shutdown would end it inside of Rust's
    # frames, which aborts the process: one command in a hundred on a busy machine.
    # The handler that is registered first is called last.
    atexit.register(leave)
    try:
        main()
        code[0] = 0
    except SystemExit as stop:
        code[0] = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        raise


if __name__ == "__main__":
    command()
