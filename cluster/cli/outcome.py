"""What a run prints and draws at its end: warnings, what failed, the summary, pictures."""

import os
from pathlib import Path

from cluster.cli.display import err, out, show_json, told_if_slow, warn
from cluster.cli.restart import PROGRESS, same_command
from cluster.cli.summary import other_outcomes, outcomes_of, show_results
from jobs.errors import JobError, advised, count
from jobs.run.progress import Progress
from jobs.spec.trust import own_code
from jobs.storage.addresses import beside, local_path
from jobs.store.store import Store, resume_command

MOST_TRACES = 100
"""Most failing items whose tracebacks are looked at for the last words of a run."""


def say_warnings(store: Store, name: str = "") -> None:
    """Print the warnings of a store, such as results that are NaN. name: of one of several stores."""
    from jobs.report.warnings import warnings_of

    of = f"{name}: " if name else ""
    warn(f"{of}{text}" for text in warnings_of(store, store.committed.markers()))


def say_not_repeated(store: Store) -> None:
    """Print how many items ended with a failing outcome: `ctd status` calls them failed, and `--failed` leaves them as they are."""
    ended = outcomes_of(store)
    failing = [one.name for one in store.description.outcomes if one.failed and ended[one.name]]
    if failing:
        told = ", ".join(f"{ended[name]:,} {name}" for name in failing)
        err.print(f"{told}: that is an outcome; --failed repeats only items that raised an error")


def say_what_failed(store: Store, progress: Progress, more: bool = False) -> None:
    """Print the first errors of shards and of items, and what the user can do. more: see `Request`."""
    traces = _traces(store) if progress.failed_items else {}
    for what, found in (("shard", progress.failed), ("item", progress.failed_items)):
        for number, error in list(found.items())[:5]:
            err.print(f"{what} {number} failed: {error}", style="red")
            for line in traces.get(number, []) if what == "item" else []:
                err.print(f"    {line}")
        if found:
            options = ["--failed"] * (what == "item")
            same = " with ".join([same_command(), *options])
            again = same if more or PROGRESS in os.environ else resume_command(store, *options)
            shows = advised("ctd", "logs", store.address, f"--{what}", next(iter(found)))
            err.print(f"{count(len(found), what)} failed; {shows} shows more, {again} tries again")


def _traces(store: Store) -> dict[int, list[str]]:
    """Item that fails by itself -> the frames of its traceback in the user's own files."""
    from jobs.report.history import own_frames

    failing = [item for items in store.failed.items().values() for item in items]
    return {item.item: own_frames(item.trace) for item in failing[:MOST_TRACES]}


def finish(store: Store, as_json: bool) -> None:
    """Save the figures; print the kernel's summary and the paths of store and figures, or the state as JSON."""
    from jobs.report.summary import state

    paths = draw(store, as_json)
    if as_json:
        show_json(state(store) | {"figures": [str(path) for path in paths]})
        return
    show_results(store)
    for line in other_outcomes(store):
        out.print(line)
    out.print(f"store   {store.address}")
    for path in paths:
        out.print(f"figure  {path}")


def draw(store: Store, as_json: bool = False) -> list[Path]:
    """Save the pictures of a store; return the paths of those beside it. Warn if the kernel's own `figure` or `plots` raises."""
    from jobs.report.figures import save_figures

    paths: list[Path] = []
    faults: list[str] = []
    with told_if_slow("drawing", as_json):
        try:
            if local_path(store.address) is not None:
                paths = save_figures(store, beside(store.address))
        except JobError as error:
            faults.append(f"no picture: {error}")
        faults.append(keep_pictures(store))
    # `figure` and `plots` are mostly one function: both would say the same.
    warn([fault for fault in faults if fault][:1])
    return paths


def keep_pictures(store: Store) -> str:
    """Store the figures of a user's own kernel, for readers who do not run its code; return why it has none, or ""."""
    if not own_code(store.job.base, store.job.spec.modules()):
        return ""
    # Imported here, since pandas takes a second to import.
    from jobs.report.page.groups import keep

    return keep(store)
