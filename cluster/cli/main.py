"""The command line `ctd`: a table of commands, each of which is imported when it is called.

Bad input prints one screen and exits with 2.
"""

import atexit
import errno
import gc
import logging
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import TyperException

from cluster.cache import use_compilation_cache


class Entry(NamedTuple):
    """One command."""

    module: str
    """Module of cluster.cli with a function of the command's name."""
    help: str
    """The first paragraph of that function's docstring."""


COMMANDS = {
    "run": Entry(
        "run", "Run jobs and their stages; if a store exists already, do only what is left."
    ),
    "plan": Entry(
        "run", "Show what a run would do: items, groups, shards, memory; nothing is written."
    ),
    "status": Entry(
        "recovery", "Say how far a job is, where it was submitted to, and what went wrong."
    ),
    "gather": Entry(
        "run",
        "Reduce what was committed since the last time, or everything if you give settings of the reduction.",
    ),
    "export": Entry(
        "export",
        "Write an item's trained model to a file for other jobs, NumPy or PyTorch (the ending chooses the format), or write all items as runs of a tracker or trials of an Optuna study.",
    ),
    "weights": Entry(
        "kernels", "Show the network that a file holds: its cell, sizes and tensors; or convert it."
    ),
    "schema": Entry(
        "kernels", "Print the JSON Schema of a job file, for an editor to complete and check it."
    ),
    "kernels": Entry(
        "kernels",
        "List the kernels that come with ctd, or say what one of them computes: its fields and results.",
    ),
    "new": Entry("kernels", "Print a commented starter job for a kernel."),
    "query": Entry(
        "query",
        "Answer a question from the tables of a store; of several stores as from one, with a column for the store and for every parameter that differs.",
    ),
    "compare": Entry(
        "query",
        "Show how the jobs of two stores differ, and how far the results of the items that both have lie apart.",
    ),
    "best": Entry(
        "query",
        "Show the best item of a store: its parameters, its metric, the spread over seeds, and the commands to type next.",
    ),
    "ls": Entry(
        "shelf",
        "List stores, newest first: what was swept, how far each is, its best metric, size, time and versions.",
    ),
    "note": Entry(
        "shelf",
        "Keep a note and tags with a store, which ls, status and the page show; without either, print them.",
    ),
    "merge": Entry(
        "shelf",
        "Copy the items of several finished stores of one kernel into one, renumbered, and check it. Where each item comes from is kept.",
    ),
    "archive": Entry(
        "shelf",
        "Write a store as one zip file, which query, report and open_store read as it is, with a description of it by RO-Crate.",
    ),
    "posterior": Entry(
        "posterior",
        "Infer rates, factors and inputs of all trials with the best models of a store of lfads.",
    ),
    "resume": Entry(
        "recovery",
        "Go on with the job of a store; this needs nothing but the store and its kernel's code.",
    ),
    "cancel": Entry(
        "recovery",
        "Stop the run of a store from any machine, and cancel what was submitted for it; `ctd resume` goes on.",
    ),
    "check": Entry(
        "recovery",
        "Compare a store with what it should be, byte for byte, and exit with 1 if anything is wrong. Shards that are not computed yet are counted, but are not wrong.",
    ),
    "logs": Entry(
        "recovery",
        "Show what happened: attempts, reasons, hosts, times, and where in your files it failed.",
    ),
    "report": Entry(
        "report",
        "Write one HTML page that shows what ran, what failed and what the results are; it needs no network.",
    ),
    "watch": Entry(
        "report",
        "Serve the page of `ctd report` to this machine alone while a run goes on, until Ctrl-C; wait if there is no store yet.",
    ),
    "submit": Entry(
        "submit",
        "Send a job file to a cluster, where it goes on over as many allocations as it needs.",
    ),
    "clusters": Entry(
        "submit",
        "List the cluster profiles and check them: reachable, versions, GPUs, shared folder.",
    ),
}


GARBAGE_AFTER = 50_000
"""New objects after which Python looks for rubbish among them; by default 2,000."""


PANELS = {
    "Run": "run plan status resume cancel check logs gather",
    "Ask and show": "query best report watch compare export posterior",
    "Keep stores": "ls note merge archive",
    "Write jobs": "kernels new schema weights",
    "Clusters": "submit clusters",
}
"""The commands in the order and under the headings of `ctd --help`."""


class LateCommand(TyperCommand):
    """A command of which `ctd --help` knows name and help alone; its module is imported when it is called or completed."""

    def make_context(self, *args: Any, **options: Any) -> Any:
        """The context of the whole command."""
        entry = COMMANDS[str(self.name)]
        function: Callable[..., None] = getattr(
            import_module(f"cluster.cli.{entry.module}"), str(self.name)
        )
        alone = typer.Typer(add_completion=False)
        alone.command(self.name)(function)
        # Copy the words: parsing empties the list.
        words = [str(word) for word in args[1]] if len(args) > 1 else []
        try:
            return typer.main.get_command(alone).make_context(*args, **options)
        except TyperException as error:
            if option := getattr(error, "option_name", ""):
                error.message += _in_job_file(option, _value_of(option, words))
            raise


def _value_of(option: str, words: list[str]) -> str:
    """The value of an option on the command line; "VALUE" without one."""
    for k, word in enumerate(words):
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
        if word == option and k + 1 < len(words):
            return words[k + 1]
    return "VALUE"


def _in_job_file(option: str, value: str) -> str:
    """A hint for an unknown option that is a field of the job file; "" for others."""
    from jobs.spec.job import JobSpec, RunSettings

    field = option.lstrip("-").replace("-", "_")
    if field in RunSettings.model_fields:
        return f"; it is a field of the job file: --set run.{field}={value}"
    return (
        f"; it is a field of the job file: --set {field}={value}"
        if field in JobSpec.model_fields
        else ""
    )


class Commands(TyperGroup):
    """All commands, before any is imported."""

    def __init__(self, **options: Any) -> None:
        commands = [
            LateCommand(name, help=COMMANDS[name].help, rich_help_panel=panel)
            for panel, names in PANELS.items()
            for name in names.split()
        ]
        super().__init__(**options | {"commands": commands})


app = typer.Typer(cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False)


def _show_version(asked: bool) -> None:
    if asked:
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
    """The entry point: a JobError becomes one screen of text and exit code 2."""
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
    from jobs.errors import JobError
    from jobs.run.executor import ExecutorLost
    from jobs.run.stop import EXIT_FAULT, EXIT_STOPPED, Interrupted
    from jobs.storage.objects import is_storage_error, reason

    if isinstance(error, JobError):
        show_error(str(error))
        return EXIT_FAULT
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
        return 74  # EX_IOERR of sysexits.h
    from jobs.gather.check import damage

    # A damaged store may be beyond what `damage` can read.
    with suppress(Exception):
        if found := damage(error):
            show_error(found)
            return EXIT_FAULT
    # A fault of ctd, not of the user's input: show all of it.
    traceback.print_exception(error)
    return 1


def command() -> None:
    """`main` as a process of its own, which ends as soon as it has said everything."""
    code = [1]

    def leave() -> None:
        logging.shutdown()
        with suppress(OSError):  # a reader that is gone, as of `ctd query ... | head`
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code[0])

    # Imports and JAX's tracing make a million objects that stay: to look through them for rubbish 500 times took a tenth
    # of `ctd plan`.
    gc.set_threshold(GARBAGE_AFTER)
    # A thread of obstore may still be telling Zarr's loop that a read has ended. Python, as it is torn down, would end that
    # thread in the midst of Rust's frames, which aborts the process: one command of a hundred on a busy machine.
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
