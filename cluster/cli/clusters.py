"""`ctd clusters`: list the cluster profiles and check them: reachable, equal versions, GPUs, shared folder."""

import platform
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Any

import typer

from cluster.cli.display import err, show_json, show_table
from cluster.cli.options import AsJson
from cluster.profiles import (
    LocalProfile,
    Profile,
    RayProfile,
    SlurmProfile,
    load_profile,
    profile_names,
    profiles_folder,
)
from cluster.ray import jobs as rayjobs
from cluster.slurm import client as slurm
from cluster.slurm.script import options
from cluster.slurm.setup import check_folder, check_python, unshared, without_gpu
from cluster.versions import differences, versions
from jobs.errors import JobError, count
from jobs.storage import addresses

type Checks = dict[str, Callable[[], str]]
"""Name -> a check, which returns what it found, or raises JobError."""


def clusters(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="profiles to check; by default all", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the cluster profiles and check them: reachable, versions, GPUs, shared folder."""
    rows: list[dict[str, Any]] = []
    for name in names or profile_names():
        try:
            profile = load_profile(name)
        except JobError as error:
            reason = "; ".join(str(error).splitlines())
            rows.append(
                {"cluster": name, "kind": "", "check": "profile", "ok": False, "found": reason}
            )
            continue
        rows += [{"cluster": name, "kind": profile.kind, **line} for line in check(profile)]
    if as_json:
        show_json(rows)
    else:
        for line in rows:
            line["found"] = "; ".join(line["found"].replace(":\n", ": ").splitlines())
        columns = ("cluster", "kind", "check", "ok", "found")
        show_table({name: [line[name] for line in rows] for name in columns})
        if not names and profile_names() == ["local"]:
            err.print(
                f"profiles are in {profiles_folder()}; docs/clusters.md tells how to write one"
            )
    if not all(line["ok"] for line in rows):
        raise typer.Exit(1)


def check(profile: Profile) -> list[dict[str, Any]]:
    """Run all checks of a profile: for each {"check": name, "ok": bool, "found": text}."""
    if isinstance(profile, LocalProfile):
        checks: Checks = {"GPUs": _local_gpus, "versions": lambda: _plain(versions())}
    else:
        checks = _of_ray(profile) if isinstance(profile, RayProfile) else _of_slurm(profile)
    lines = []
    for name, ask in checks.items():
        try:
            ok, text = True, ask()
        except JobError as error:
            ok, text = False, str(error)
        lines.append({"check": name, "ok": ok, "found": text})
    return lines


def _plain(values: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _local_gpus() -> str:
    with suppress(FileNotFoundError):
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
        return done.stdout.strip() or "none"
    return "none"


def _of_slurm(profile: SlurmProfile) -> Checks:
    with_gpus = lambda: [
        f"{n.name} {n.resources}" for n in slurm.nodes(profile) if "gpu" in n.resources
    ]

    def reachable() -> str:
        names = dict.fromkeys(slurm.command("sinfo", "--noheader", "--format=%R").split())
        return f"partitions {', '.join(names)}"

    def some_nodes() -> list[slurm.Node]:
        if not (partition_nodes := slurm.nodes(profile)):
            slurm.check_partition(profile, "profile")
            raise JobError("no node in the partition")
        return partition_nodes

    def nodes() -> str:
        slurm.check_partition(profile, "profile")
        directives = [f"#SBATCH {option}" for option in options(profile, "ctd", profile.folder())]
        waits = slurm.try_out("\n".join(["#!/bin/bash", *directives, ""]), profile, "profile")
        counts = Counter(node.state for node in some_nodes())
        states = ", ".join(f"{count(n, 'node')} {state}" for state, n in counts.items())
        return "; ".join(filter(None, [states, waits]))

    def same_versions() -> str:
        plugins = check_python(profile, "profile")
        if (refusal := without_gpu(profile, plugins)) and with_gpus():
            raise JobError(refusal)
        return _plain(versions() | {"GPU plugin": ", ".join(plugins)} if plugins else versions())

    def gpus() -> str:
        if not (gpu_names := with_gpus()):
            some_nodes()  # refuses a partition that is not there
        if profile.n_gpus() and not gpu_names:
            raise JobError(f"gpus: {profile.gpus} wanted, but no node of the partition has any")
        return ", ".join(gpu_names[:8]) or "none"

    def folder() -> str:
        check_folder(profile.folder(), "work_dir")
        warning = unshared({"work_dir": profile.folder()})
        return "; ".join(filter(None, [f"{profile.folder()}, from {platform.node()}", warning]))

    return {"reachable": reachable, "nodes": nodes, "versions": same_versions, "GPUs": gpus, "work_dir writable": folder}  # fmt: skip


def _of_ray(profile: RayProfile) -> Checks:
    answers: dict[str, Any] = {}

    def reach() -> str:
        answers.update(_ask(profile))
        return f"{count(len(answers['nodes']), 'node')} at {profile.address}"

    def answer_to(name: str) -> Any:
        if name not in answers:
            raise JobError("not known: the cluster was not reached")
        return answers[name]

    def same_versions() -> str:
        if wrong := differences(versions(), answer_to("versions"), "on the cluster"):
            raise JobError(wrong)
        return _plain(versions())

    def jobs_api() -> str:
        with rayjobs.client(profile) as api:
            return f"version {api.get_version()} at {profile.dashboard_url()}"

    def folder() -> str:
        if answer_to("seen") is False:
            raise JobError(f"{profile.stores}: a file written here is not seen on the cluster")
        return profile.stores or "none given: --store must be a folder that every node sees"

    gpus = lambda: f"{sum(answer_to('nodes')):g}"
    return {"reachable": reach, "jobs API": jobs_api, "versions": same_versions, "GPUs": gpus, "stores writable": folder}  # fmt: skip


def _ask(profile: RayProfile) -> dict[str, Any]:
    """Ask the cluster, by a job, for what `cluster.ray.answers` prints; JobError if it cannot be used.

    By a job, and not as a driver: this machine need not be one of its nodes.
    """
    folder = addresses.local_path(profile.stores) if profile.stores else None
    if folder is None:
        return rayjobs.ask(profile, "cluster.ray.answers")
    check_folder(folder, "stores")
    with tempfile.NamedTemporaryFile(dir=folder, prefix="probe-") as probe:
        return rayjobs.ask(profile, "cluster.ray.answers", probe.name)
