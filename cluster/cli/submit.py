"""The commands submit and clusters."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cluster.cli.display import err, out, show_json, show_table, told_if_slow, warn
from cluster.cli.options import (
    AcceptChanges,
    AsJson,
    Failed,
    JobWords,
    Overrides,
    ResultsPath,
    split_words,
)
from cluster.profiles import load_profile, profile_names, profiles_folder
from jobs.errors import JobError, advised
from jobs.store.store import Store

if TYPE_CHECKING:
    from cluster.submit import Order


def submit(
    job: JobWords,
    cluster: Annotated[
        str | None,
        typer.Option(help="name or file of a profile; by default the job file's `cluster`"),
    ] = None,
    store: ResultsPath = None,
    overrides: Overrides = None,
    array: Annotated[
        int | None,
        typer.Option(
            min=1, help="send this many allocations of one node each, which share the store"
        ),
    ] = None,
    failed: Failed = False,
    accept_changes: AcceptChanges = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="print a summary and what would be submitted, and submit nothing"
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Send a job file to a cluster, where it goes on over as many allocations as it needs."""
    from cluster.preview import risks
    from cluster.submit import read_order
    from cluster.submit import submit as send

    files, among = split_words(job)
    if len(files) > 1:
        raise JobError(f"{', '.join(files)}: {len(files)} job files given; give one")
    path, changes = Path(files[0]), [*(overrides or ()), *among]
    order = read_order(path, cluster, changes, store, array, failed, accept_changes)
    if _is_complete(order):
        if as_json:
            show_json({"complete": True})
        else:
            out.print(f"{path}: nothing is left to compute; not submitted")
        return
    if dry_run:
        _show(order)
        return
    warn(risks(order).values())
    with told_if_slow("planning", as_json or not err.is_terminal):
        submission = send(order, lambda why: warn([why]))
    if as_json:
        home, number = submission.home, submission.numbers[0]
        show_json({"id": submission.id, "kind": submission.kind, "number": number, "home": home})
        return
    what = "allocation" if submission.kind == "slurm" else "job"
    out.print(f"{what:10} {submission.numbers[0]}")
    for stage in order.stages:
        out.print(f"store      {stage.address}")
    of = lambda command: advised("ctd", command, order.stages[0].address)
    out.print(f"{of('status')} and {of('logs')} follow it, {of('cancel')} ends it")


def _is_complete(order: "Order") -> bool:
    """Whether the job's stores have all of its results, and none is to be computed again."""
    from cluster.submit import check_job

    again = order.failed or order.accept_changes
    if again or not all(Store.exists(stage.address) for stage in order.stages):
        return False
    check_job(order)
    stores = [Store.open(stage.address) for stage in order.stages]
    return all(len(s.committed.numbers()) == s.job.plan.n_shards for s in stores)


def _show(order: "Order") -> None:
    """Print what would be submitted, and below it the preview: to standard error, so that a file gets the script alone."""
    from cluster.preview import preview
    from cluster.submit import text_of

    with told_if_slow("planning", not err.is_terminal):
        found, text = preview(order), text_of(order)
    sys.stdout.write(text.removesuffix("\n") + "\n")
    sys.stdout.flush()
    for name, said in found.items():
        err.print(f"{name:16} {said}")


# --- profiles ---------------------------------------------------------------------------------------


def clusters(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="profiles to check; by default all", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the cluster profiles and check them: reachable, versions, GPUs, shared folder."""
    from cluster.checks import check

    found: list[dict[str, Any]] = []
    for name in names or profile_names():
        try:
            profile = load_profile(name)
        except JobError as error:
            why = "; ".join(str(error).splitlines())
            found.append(
                {"cluster": name, "kind": "", "check": "profile", "ok": False, "found": why}
            )
            continue
        found += [{"cluster": name, "kind": profile.kind, **line} for line in check(profile)]
    if as_json:
        show_json(found)
    else:
        for line in found:
            line["found"] = "; ".join(line["found"].splitlines())
        columns = ("cluster", "kind", "check", "ok", "found")
        show_table({name: [line[name] for line in found] for name in columns})
        if not names and profile_names() == ["local"]:
            err.print(
                f"profiles are in {profiles_folder()}; docs/clusters.md shows how to write one"
            )
    if not all(line["ok"] for line in found):
        raise typer.Exit(1)
