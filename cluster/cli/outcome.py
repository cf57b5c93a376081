"""Print, at the end of a run and beside answers, a store's warnings, failures and results in short, and draw its pictures."""

import os
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cluster.cli.display import err, out, show_json, show_table, told_if_slow, warn
from jobs.errors import JobError, advised, count
from jobs.gather.gather import reduction_error
from jobs.query.query import answer
from jobs.query.readers import ITEM
from jobs.report.warnings import is_warned_of, warnings_of
from jobs.run.progress import Progress
from jobs.spec.trust import own_code
from jobs.storage.addresses import local_path, path_beside
from jobs.store.advice import resume_command
from jobs.store.look import Look
from jobs.store.store import Store

MOST_ITEMS = 10
"""Items that are shown of a search by another metric than the kernel's."""


def say_warnings(store: Store, name: str = "") -> None:
    """Print the warnings of a store, such as results that are NaN. name: of one of several stores."""
    prefix = f"{name}: " if name else ""
    warn(f"{prefix}{text}" for text in warnings_of(Look(store)))


def say_not_repeated(store: Store) -> None:
    """Print how many items ended with a failing outcome: `ctd status` calls them failed, and `--failed` leaves them as they are."""
    outcomes = outcomes_of(store)
    failing = [
        outcome.name
        for outcome in store.description.outcomes
        if outcome.failed and outcomes[outcome.name]
    ]
    if failing:
        counts = ", ".join(f"{outcomes[name]:,} {name}" for name in failing)
        err.print(f"{counts}: that is an outcome; --failed repeats only items that raised an error")


def say_what_failed(store: Store, progress: Progress, more: bool = False) -> None:
    """Print the first errors of shards and of items, and what the user can do. more: see `Request`."""
    from cluster.cli.restart import PROGRESS, same_command
    from jobs.report.history import own_frames

    failing = store.failed.items().values() if progress.failed_items else ()
    traces = {failed_item.item: failed_item.trace for items in failing for failed_item in items}
    for noun, errors in (("shard", progress.failed), ("item", progress.failed_items)):
        for number, error in list(errors.items())[:5]:
            err.print(f"{noun} {number} failed: {error}", style="red")
            # The frames in the user's own files.
            for line in own_frames(traces.get(number, "")) if noun == "item" else []:
                err.print(f"    {line}")
        if errors:
            options = ["--failed"] * (noun == "item")
            same = " with ".join([same_command(), *options])
            again = same if more or PROGRESS in os.environ else resume_command(store, *options)
            shows = advised("ctd", "logs", store.address, f"--{noun}", next(iter(errors)))
            err.print(f"{count(len(errors), noun)} failed; {shows} shows more, {again} tries again")


def finish(store: Store, as_json: bool) -> None:
    """Save the figures; print the kernel's summary and the paths of store and figures, or the state as JSON."""
    from jobs.report.summary import state

    paths = draw(store, as_json)
    if as_json:
        show_json(state(Look(store)) | {"figures": [str(path) for path in paths]})
        return
    show_results(store)
    for line in other_outcomes(store):
        out.print(line)
    out.print(f"store   {store.address}")
    for path in paths:
        out.print(f"figure  {path}")


def draw(store: Store, as_json: bool = False) -> list[Path]:
    """Save the pictures of a store; return the paths of those beside it. Warn if the kernel's own `plots` raises."""
    from jobs.report.figures import save_figures

    paths: list[Path] = []
    faults: list[str] = []
    with told_if_slow("drawing", as_json):
        try:
            if local_path(store.address) is not None:
                paths = save_figures(store, path_beside(store.address))
                if not paths and not as_json:
                    err.print(no_picture(store))
        except JobError as error:
            faults.append(f"no picture: {error}")
        faults.append(keep_pictures(store))
    # The PNG and the page call one function: both would say the same.
    warn([fault for fault in faults if fault][:1])
    return paths


def no_picture(store: Store) -> str:
    """Say why `save_figures` left no PNG of a store, and what shows its results."""
    metric = store.roles.metric
    over = f", and {metric.name} is not drawn over what was swept" if metric else ""
    shows = advised("ctd", "report", store.address)
    return f"no picture: the kernel's plots have nothing to show{over}; {shows} shows the results"


def keep_pictures(store: Store) -> str:
    """Store the figures of a user's own kernel, for readers who do not run its code; return why it has none, or ""."""
    if not own_code(store.job.base, store.job.spec.modules()):
        return ""
    # Imported here, since pandas takes a second to import.
    from jobs.report.page.groups import keep

    return keep(store)


# --- its results in short ---------------------------------------------------------------------------


def show_results(store: Store) -> None:
    """Print the kernel's summary and, of a search, the best item; a search by a metric of its own shows its best items instead."""
    search, metric = store.job.spec.search, store.roles.metric
    if search is None or metric is None or not store.committed.numbers():
        show_summary(store)
        return
    name, sign = metric.name, "-" * metric.more_is_better
    columns = ", ".join(["item", *store.roles.varied, name])
    done = "status == 'done'"
    best = answer(
        store, done, table="items", columns=columns, sort=sign + name, limit=MOST_ITEMS
    ).columns
    if name == store.description.metric:
        show_summary(store)
    else:
        show_table(best, title=f"items, the best by {name} first")
    if store.roles.swept_bases:
        out.print(f"next    ctd best {shlex.quote(store.address)}")
    elif len(best["item"]) and np.isfinite(best[name][0]):
        out.print(f"best    item {best['item'][0]}, {name} {best[name][0]:.4g}")
        out.print(f"next    ctd best {shlex.quote(store.address)}")


def show_summary(store: Store) -> None:
    """Print the results that the kernel names in its `summary`: of its tables the first that tells something, or of items."""
    reduced, summaries = store.description.reduced, store.description.summaries()
    if store.description.summary and not reduced:
        frame = answer(store, table="items").columns
        columns = [name for name in frame if name in ("item", *store.swept)]
        columns += [name for name in store.description.summary if name in frame]
        hint = f"{advised('ctd', 'query', store.address)} shows them"
        show_table({name: frame[name] for name in columns}, hint=hint)
    if not summaries:
        return
    frames = {table: answer(store, table=table).columns for table in summaries}
    axis = store.description.first_shown(frames) or next(iter(frames))
    frame, summary_names, swept = frames[axis], summaries[axis], store.swept
    labels = [name for name in frame if name not in reduced or name in swept]
    if len(store.job.plan.group_sizes) == 1:
        labels = [name for name in labels if name != "group"]
    ids = next((n for n in frame if n in reduced and reduced[n].units == ITEM), "")
    # Fields of an item say nothing without it: rows may be about groups.
    if ids and ids not in summary_names:
        names = list(frame)
        before = names[: names.index(ids)]  # behind it stand the fields of its item
        labels = [n for n in labels if n in before or n.partition("[")[0] in reduced]
    says = [n for n in summary_names if n in frame and not (frame[n] == reduced[n].usual).all()]
    # The row's key first: further tables, of columns that do not fit, begin with it, too.
    keys = [name for name in ("group", axis) if name in labels]
    columns = list(dict.fromkeys([*keys, *labels, *says]))
    if columns and not len(frame[columns[0]]):
        out.print(no_rows(axis, store))
    elif columns:  # there are none if nothing was gathered
        hint = f"{advised('ctd', 'query', store.address, '--table', axis)} shows them"
        first = reduced[summary_names[0]]
        title = f"{first.long_name} (table {axis})" if first.units == ITEM else axis
        if first.units == ITEM and (n := store.job.plan.n_items) > len(frame[columns[0]]):
            title = f"{len(frame[columns[0]]):,} of {count(n, 'item')}: {title}"
        show_table({n: frame[n] for n in columns}, title=title, hint=hint, keys=len(keys) or 1)
        if empty := sorted({*range(len(store.job.plan.group_sizes))} - {*frame["group"]}):
            out.print(no_rows(axis, store, empty))


def other_outcomes(store: Store) -> list[str]:
    """Lines on unusual outcomes: not the commonest one, nor the first that the kernel names (items should end so), nor failures of
    which a warning tells. Of a kernel that gives no reasons: one line with all outcomes, if there are several."""
    tally, outcomes = Look(store).tally, store.description.outcomes
    counts = tally.outcomes
    if not any(outcome.reason for outcome in outcomes):  # all may be the answer
        names = dict.fromkeys([*(outcome.name for outcome in outcomes), *counts])
        texts = [f"{counts[name]:,} {name}" for name in names if counts[name]]
        return [", ".join(texts)] * (len(texts) > 1)
    others = {name for name, _ in counts.most_common()[1:]}
    return [
        f"{counts[outcome.name]:,} {outcome.name}: {outcome.reason}"
        for outcome in outcomes[1:]
        if outcome.name in others
        and counts[outcome.name]
        and outcome.reason
        and not is_warned_of(outcome, tally)
    ]


def no_rows(table: str, store: Store, groups: Sequence[int] = ()) -> str:
    """Why a table of a store is empty, or has no rows of some groups, though no condition was given."""
    if table in store.description.reduced and (error := reduction_error(store)):
        return f"table {table} was not made: {error}"
    reasons = {
        outcome.name: f" ({outcome.reason})"
        for outcome in store.description.outcomes
        if outcome.reason
    }
    endings = [
        f"{count(n, 'item')} ended as {name}{reasons.get(name, '')}"
        for name, n in outcomes_of(store, groups).most_common()
        if n
    ]
    explanation = (
        f": {'; '.join(endings) or 'no item has a result'}" if store.description.outcomes else ""
    )
    group_names = [*map(str, groups[:MOST_ITEMS]), *["..."] * (len(groups) > MOST_ITEMS)]
    of_groups = f" of group{'s' * (len(groups) > 1)} {', '.join(group_names)}" if groups else ""
    # The column that a table is named after says what has a row.
    row = store.description.reduced.get(table)
    meaning = f" ({row.long_name})" if row else ""
    return f"table {table}{meaning} has no rows{of_groups}{explanation}"


def outcomes_of(store: Store, groups: Sequence[int] = ()) -> Counter[str]:
    """The kernel's word for how items ended, of all groups or of some -> how many of the committed ones did."""
    look = Look(store)
    markers = [marker for marker in look.markers if not groups or marker.shard.group in groups]
    return look.count(markers).outcomes
