"""The commands status, resume, cancel, check and logs, which look after a store."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Annotated, NamedTuple

import typer

from cluster.cache import prune_compilation_cache
from cluster.cli import options
from cluster.cli.display import cell, err, out, show_facts, show_json, warn
from cluster.cli.running import Request, open_to_compute, run_store, to_resume
from cluster.record import Submission, submissions
from cluster.tracking import cancel as cancel_submissions
from cluster.tracking import log_tail, look, why_silent
from jobs import keys
from jobs.errors import JobError, advised, count
from jobs.gather.gather import reduction_error
from jobs.report.summary import facts, state
from jobs.run.stop import Stop, signals
from jobs.storage import connect, objects
from jobs.storage.addresses import is_zip, local_path
from jobs.storage.lease import cancel as ask_to_stop
from jobs.storage.lease import describe
from jobs.store.advice import again_command
from jobs.store.look import Look
from jobs.store.store import Store, refuse_links

STYLES = {"warnings": "yellow", "stopped": "yellow", "running": "blue", "progress": "blue"}
"""Names of facts -> the style of their text on a terminal."""

QUEUE_FACTS = ("submitted", "running", "stopped", "next")
"""Names of facts that depend on what Slurm or Ray answers."""


def status(store: options.StorePath, as_json: options.AsJson = False) -> None:
    """Say how far a job is, where it was submitted to, and what went wrong."""
    if not Store.exists(store) and (submission := submitted(store)).lines:
        _show_waiting(store, submission, as_json)
        return
    opened_store = Store.open(store)
    at_first = Look(opened_store)
    summary, tally = state(at_first), at_first.tally
    records = submissions(store)
    before = facts(tally, summary) if records and not as_json else {}
    failed = summary["items_failed"] or summary["errors"]
    styles = STYLES | {"state": "red" if failed else "green" if summary["complete"] else "yellow"}
    width = max((len(name) for name, text in before.items() if text), default=0)
    # At once: Slurm or Ray may not answer.
    show_facts(
        {name: text for name, text in before.items() if name not in QUEUE_FACTS}, styles, width
    )
    submission = submitted(store, records)
    lines = submission.lines + ([] if summary["complete"] else submission.given_up)
    summary |= {"submissions": lines} if lines else {}
    if as_json:
        show_json(summary)
        return
    idle = not (summary["complete"] or summary["running"] or submission.goes_on)
    if submission.goes_on and (signal_name := summary["stopped"]):
        cause = "by its time limit or a preemption" if signal_name == "SIGUSR1" else signal_name
        waits = {"stopped": f"{cause}; goes on once an allocation begins"}
        summary |= (
            waits if submission.waits else {"running": _starting(signal_name), "stopped": None}
        )
    resumes = f"{again_command(opened_store)} continues it" if idle else ""
    failing = [line["item"] for line in summary["errors"] if "item" in line]
    if failing and summary["complete"]:
        logs = advised("ctd", "logs", opened_store.address, "--item", failing[0])
        resumes = (
            f"{logs} says why an item failed, {again_command(opened_store, '--failed')} tries again"
        )
    after = facts(tally, summary, "; ".join(together(lines)), resumes)
    late_facts = {name: text for name, text in after.items() if name in QUEUE_FACTS or not before}
    show_facts(late_facts, styles, width)
    for line in summary["errors"]:
        name = next(iter(line))
        subject = "a round of group" if name == "group" else name
        out.print(
            f"{subject} {line[name]}, attempt {line['attempt']}: {line['error']}", style="red"
        )
    if (more := summary["items_with_errors"] - len(failing)) > 0:
        out.print(f"and {more:,} more", style="red")
    if error := reduction_error(opened_store):
        out.print(error, style="red")


def _show_waiting(store: str, submission: "NewestSubmission", as_json: bool) -> None:
    """Say how far the submission of a job is that has not run yet."""
    lines = submission.lines + submission.given_up
    if as_json:
        show_json({"store": store, "submissions": lines})
        return
    for line in together(lines):
        out.print(f"{'submitted':15} {line}")
    if submission.given_up:
        out.print(f"{'next':15} {submissions(store)[-1].again()} continues it")


def _starting(stopped: str) -> str:
    """Say how a submission begins that has no driver yet. stopped: the reason for which the last driver ended."""
    if stopped == "SIGUSR1":
        return "starts again, after its time limit or a preemption"
    return f"starts again; before, it was stopped: {stopped}"


class NewestSubmission(NamedTuple):
    """The state of the newest submission of a store."""

    lines: list[str]
    """The state of each of its allocations; also of older ones that wait or run."""
    given_up: list[str]
    """Why no other allocation follows."""
    goes_on: bool
    """One of them waits or runs, and is not to stop."""
    waits: bool
    """All that do so wait in Slurm's queue."""


def submitted(store: str, records: Sequence[Submission] | None = None) -> NewestSubmission:
    """Return the state of the newest submission of a store; Slurm or Ray is asked. records: see `look`."""
    nouns = {"slurm": "allocation", "ray": "job"}
    looks = look(store, records)
    if not looks:
        return NewestSubmission([], [], goes_on=False, waits=False)
    newest, last = looks[-1]
    texts = [
        (f"{nouns[submission.kind]} {number}: {now.text}", now.unasked)
        for submission, states in looks
        for number, now in states.items()
        if submission is newest or now.is_going_on
    ]
    # All allocations have the same one.
    silent = dict.fromkeys(unasked for _, unasked in texts if unasked)
    reasons = newest.given_up()
    is_left = all(number in reasons or now.is_over for number, now in last.items())
    given_up = [f"given up: {text}" for text in dict.fromkeys(reasons.values())] if is_left else []
    goes_on = lambda now: now.is_going_on and now.word != "CANCELLING" and not newest.is_cancelled
    going_on = [now for now in last.values() if goes_on(now)]
    waits = bool(going_on) and all(now.word == "PENDING" for now in going_on)
    return NewestSubmission(
        [*(line for line, _ in texts), *silent], given_up, bool(going_on), waits
    )


MANY = 4
"""Tasks of an array, alike but for their nodes, that a terminal shows on one line."""


def together(lines: Iterable[str]) -> list[str]:
    """Return the lines on allocations, one for all tasks of an array that are alike.

    >>> together(f"allocation 7_{k}: running on n{k}" for k in range(20))
    ['20 allocations like allocation 7_0: running on n0']
    """
    alike = defaultdict[str, list[str]](list)
    for line in lines:
        alike[re.sub(r"(_|\bon |\bstarted )\S+", "", line)].append(line)
    merged = []
    for group in alike.values():
        merged += [f"{len(group)} allocations like {group[0]}"] if len(group) >= MANY else group
    return merged


def resume(store: options.StorePath, settings: options.RunOptions) -> None:
    """Continue the job of a store. This needs only the store and its kernel's code."""
    warn(prune_compilation_cache())
    with signals(stop := Stop()):
        if not Store.exists(store) and (past := submissions(store)):
            raise JobError(
                f"{store}: its submission has made no store; {past[-1].again()} continues it"
            )
        opened_store = open_to_compute(store, settings.trust, settings.accept_changes)
        if (submission := submitted(store)).goes_on:
            lines, submit = "; ".join(together(submission.lines)), again_command(opened_store)
            warn([f"{lines}; this computes here, {submit} computes on the cluster"])
        request = Request(store, opened_store.job.spec, settings)
        run_store(lambda runner: opened_store, request, stop)


def cancel(store: options.StorePath) -> None:
    """Stop the run of a store from any machine, and cancel what was submitted for it; `ctd submit` or `ctd resume`
    continues it."""
    cancelled = cancel_submissions(store)
    for line in cancelled:
        out.print(line)
    is_there = Store.exists(store)
    if cancelled and not is_there:
        return
    place = connect.open_objects(store)
    if is_there:
        refuse_links(Store.open(store))  # a request to stop is written
    try:
        stopped = ask_to_stop(place)
    except TimeoutError:
        err.print("asked the run to stop; it has not yet, as an advance may have to end first")
        raise typer.Exit(1) from None
    if stopped is None and not cancelled:
        if not submissions(store):
            Store.open(store)  # refuses what is no store
        out.print(f"{store}: nothing runs")
    elif stopped is None:
        return
    elif objects.read(place, keys.JOB) is None:
        out.print(f"stopped {describe(stopped)}; its command begins again")
    else:
        again = submissions(store)[-1].again() if cancelled else to_resume(store)
        out.print(f"stopped {describe(stopped)}; {again} continues it")


def check(
    store: options.StorePath,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair", help="repair what can be repaired, and mark the rest for `ctd resume`"
        ),
    ] = False,
    trust: options.Trust = False,
    as_json: options.AsJson = False,
) -> None:
    """Compare a store with what it should be, byte for byte, and exit with 1 if anything is wrong. Shards
    that are not computed yet are counted, but are not wrong."""
    from jobs.gather.check import MARKER_LOST, OTHERS
    from jobs.gather.check import check as inspect

    if repair:
        open_to_compute(store, trust)
    findings = inspect(store, repair)
    wrong = [finding for finding in findings if finding.cure]
    if as_json:
        show_json([finding._asdict() for finding in findings])
    else:
        for finding in wrong:
            cure = f" -> {finding.cure}" if repair else ""
            out.print(f"{finding.key}: {finding.what}{cure}")
        if wrong:
            out.print(f"{len(wrong)} {'repaired' if repair else 'found'}")
        if wrong and not (repair or is_zip(local_path(store))):
            out.print(f"{advised('ctd', 'check', store, '--repair')} repairs it")
        others = [finding.key for finding in findings if finding.what == OTHERS]
        if others:
            more = ", ..." if others[1:] else ""
            out.print(
                f"{count(len(others), 'object')} not of ctd's own, left alone: {others[0]}{more}"
            )
        missing = len(findings) - len(wrong) - len(others)
        if repair:  # which may have taken markers away
            opened_store = Store.open(store)
            missing = opened_store.job.plan.n_shards - len(opened_store.committed.numbers())
        if missing:
            out.print(f"{count(missing, 'shard')} not computed; {to_resume(store)} continues")
        if lost_keys := [finding.key for finding in findings if finding.what == MARKER_LOST]:
            out.print(f"{len(lost_keys)} of them have results but no marker: {lost_keys[0]}")
        if not findings:
            out.print(reduction_error(Store.open(store)) or "the store is complete and undamaged")
    if wrong and not repair:
        raise typer.Exit(1)


def logs(
    store: options.StorePath,
    shard: Annotated[int | None, typer.Option(min=0, help="only what concerns this shard")] = None,
    item: Annotated[int | None, typer.Option(min=0, help="only what concerns this item")] = None,
    full: Annotated[
        bool, typer.Option("--full", help="whole tracebacks, not only the frames of your own files")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Show what happened: attempts, reasons, hosts, times, and where in your files it failed."""
    from jobs.report.history import dropped_at, history, history_lines, params_of
    from jobs.store.events import Failure

    if shard is not None and item is not None:
        raise JobError(f"--shard {shard}: not with --item {item}; leave one out")
    is_whole_store = not as_json and shard is None and item is None
    printed = log_tail(store) if is_whole_store else ""
    if not Store.exists(store) and submissions(store):
        if not is_whole_store:
            raise JobError(
                f"{store}: its submission has made no store; {advised('ctd', 'logs', store)} has what it printed"
            )
        out.print(printed or why_silent(store))
        return
    opened_store = Store.open(store)
    events = history(opened_store, shard, item)
    if as_json:
        show_json([event.to_json() for event in events])
        return
    if item is not None:
        params = {name: cell(value) for name, value in params_of(opened_store, item).items()}
        show_facts({"item": str(item)} | params | {"dropped": dropped_at(opened_store, item)})
    for line in [*history_lines(events, full=full), *printed.splitlines()]:
        out.print(line)
    if not full and any(isinstance(event, Failure) and event.trace for event in events):
        err.print("--full shows the whole tracebacks")
