"""The commands submit and clusters."""

import sys
from typing import Annotated

import typer

from cluster.cli.display import err, out, show_json, show_table
from cluster.cli.options import (
    AcceptChanges,
    AsJson,
    Failed,
    JobWords,
    Overrides,
    ResultsPath,
    one_file,
)
from cluster.profiles import load_profile, profile_names, profiles_folder
from jobs.errors import JobError


def submission_lines(store: str) -> list[str]:
    """The submissions of a store and their states, one line per allocation."""
    from cluster.tracking import look, objects_exist, said

    if not objects_exist(store):
        return []
    what = {"slurm": "allocation", "ray": "job"}
    lines = []
    for submission, states in look(store):
        lines += [
            f"{what[submission.kind]} {number}: {said(state)}" for number, state in states.items()
        ]
        if why := submission.given_up():
            lines.append(f"given up: {why}")
    return lines


def cancel_submissions(store: str) -> list[str]:
    """Cancel the submissions of a store; print and return what was done."""
    from cluster.tracking import cancel, objects_exist

    lines = cancel(store) if objects_exist(store) else []
    for line in lines:
        out.print(line)
    return lines


def submission_log(store: str) -> str:
    """The last lines that the latest submission of a store printed, or ""."""
    from cluster.tracking import log_tail, objects_exist

    return log_tail(store) if objects_exist(store) else ""


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
    from cluster.submit import Again, read_order, text_of
    from cluster.submit import submit as send

    path, changes = one_file(job, overrides)
    order = read_order(path, cluster, changes, store, array)
    if dry_run:
        from cluster.cli.preview import preview

        # To standard error: what is redirected to a file is the script alone.
        for name, said in preview(order).items():
            err.print(f"{name:16} {said}")
        text = text_of(order)
        sys.stdout.write(text if text.endswith("\n") else text + "\n")
        return
    submission = send(order, Again(failed, accept_changes))
    if as_json:
        show_json({"id": submission.id, "kind": submission.kind, "number": submission.numbers[0],
                   "home": submission.home})  # fmt: skip
        return
    what = "allocation" if submission.kind == "slurm" else "job"
    out.print(f"{what:10} {submission.numbers[0]}")
    for stage in order.request.stages:
        out.print(f"store      {stage.address}")
    out.print("follow it with ctd status STORE and ctd logs STORE; end it with ctd cancel STORE")


def clusters(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="profiles to check; by default all", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the cluster profiles and check them: reachable, versions, GPUs, shared folder."""
    from cluster.checks import check

    found = []
    for name in names or profile_names():
        try:
            profile = load_profile(name)
        except JobError as error:
            found.append(
                {"cluster": name, "kind": "", "check": "profile", "ok": False, "found": str(error)}
            )
            continue
        found += [{"cluster": name, "kind": profile.kind, **line} for line in check(profile)]
    if as_json:
        show_json(found)
    else:
        show_table({key: [line[key] for line in found] for key in (found[0] if found else ())})
        err.print(f"profiles are in {profiles_folder()}; docs/clusters.md shows how to write one")
    if not all(line["ok"] for line in found):
        raise typer.Exit(1)
