"""Jobs of an existing Ray cluster, through the Ray Jobs API.

What travels: the job file's folder (with the user's own kernel module and small data files) as the working
directory, and this ctd as modules, unless the profile says that it is installed there. The driver runs on
the cluster: `ctd run NAME.yaml --base .`, where "." is the working directory on every node.
"""

import json
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import yaml

import cluster
import ctd
import jobs
from cluster.profiles import RayProfile
from cluster.submission import Request, Submission, store_argument
from cluster.versions import AGREE, versions
from jobs.errors import JobError

EXCLUDED = ["*.zarr", ".git", ".venv", "__pycache__", "*.png"]
"""Never sent along: results and environments."""

START_S = 120.0
"""The versions are compared within this time, or submit stops watching."""


def entrypoint(request: Request, profile: RayProfile) -> str:
    """The shell command that the cluster runs: compare versions, then drive."""
    run = ["run", job_file(request), "--store", store_argument(request), "--base", "."]
    expected = json.dumps(versions())
    # exec: a stop signal goes to the driver and not to a shell around it.
    return (
        f"python -m cluster.versions {shlex.quote(expected)} && "
        f'exec python -m cluster.cli.main {shlex.join(run)} --address "$RAY_ADDRESS"'
    )


def job_file(request: Request) -> str:
    """The name of the job file as it was submitted, overrides applied, in the working directory."""
    return f"{request.path.stem}-{request.id}.yaml"


def environment(profile: RayProfile) -> dict[str, str | None]:
    """The environment variables by which this process authenticates itself; JobError without the file."""
    settings: dict[str, str | None] = {"RAY_ADDRESS": None, "RAY_API_SERVER_ADDRESS": None}
    if profile.token:
        token = Path(profile.token).expanduser()
        if not token.is_file():
            raise JobError(f"token: {token}: there is no such file")
        settings |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    return settings


@contextmanager
def client(profile: RayProfile) -> Iterator[Any]:
    """A client of the Jobs API, authenticated by the profile's token; JobError where nothing answers."""
    from ray.job_submission import JobSubmissionClient

    from cluster.ray.connection import set_environment

    url = profile.dashboard_url()
    before = set_environment(environment(profile))
    try:
        yield JobSubmissionClient(url)
    except (ConnectionError, RuntimeError) as error:
        raise JobError(f"{url}: the Jobs API of Ray: {error}") from None
    finally:
        set_environment(before)


def submit(request: Request, profile: RayProfile, command: str, where: str) -> str:
    """Send the job; its id, once the cluster's versions have been found equal. JobError otherwise."""
    job = Path(request.base) / job_file(request)
    job.write_text(yaml.safe_dump(request.content, sort_keys=False))
    shipped: dict[str, Any] = {
        "working_dir": request.base,
        "excludes": EXCLUDED,
        # A stopped driver has this long to write checkpoints; 3 s by default.
        "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "60"},
    }
    if not profile.installed:
        shipped["py_modules"] = modules()
    try:
        with client(profile) as api:
            number = api.submit_job(
                entrypoint=command, runtime_env=shipped, submission_id=f"ctd-{request.id}"
            )
            _await_versions(api, number, where)
    finally:
        job.unlink()
    return str(number)


def modules() -> list[str]:
    """The folders of this ctd, and of its metadata, which is where its version is looked up."""
    packages = [str(Path(str(package.__file__)).parent) for package in (ctd, jobs, cluster)]
    metadata = distribution("ctd")._path  # type: ignore[attr-defined]
    return [*packages, str(metadata)]


def _await_versions(api: Any, number: str, where: str) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        info = api.get_job_info(number)
        log = api.get_job_logs(number)
        if AGREE in log:
            return
        if info.status.is_terminal():
            text = log.strip()[-1500:] or str(info.message)[-1500:]
            if "versions differ" in text:
                line = next(line for line in text.splitlines() if "versions differ" in line)
                raise JobError(f"{where}: {line.removeprefix('ctd: ')}; install the same versions")
            raise JobError(f"{where}: the job did not start: {text}")
        time.sleep(0.3)


def states(submission: Submission) -> dict[str, Any]:
    """Job -> its state in words."""
    number = submission.numbers[0]
    try:
        with client(RayProfile.model_validate(submission.profile)) as api:
            info = api.get_job_info(number)
    except JobError as error:
        return {number: f"not known: {error}"}
    return {number: f"{info.status.value.lower()}: {info.message}"}


def cancel(submission: Submission) -> list[str]:
    """Stop the job unless it has ended."""
    number = submission.numbers[0]
    with client(RayProfile.model_validate(submission.profile)) as api:
        if api.get_job_info(number).status.is_terminal():
            return []
        api.stop_job(number)
    return [f"job {number}: told to stop"]


def log(submission: Submission, n_lines: int) -> str:
    """The end of the driver's output."""
    with client(RayProfile.model_validate(submission.profile)) as api:
        text = api.get_job_logs(submission.numbers[0])
    return "\n".join(str(text).splitlines()[-n_lines:])
