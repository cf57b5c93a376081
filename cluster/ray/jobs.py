"""Send jobs to an existing Ray cluster through the Ray Jobs API.

ctd sends two things: the job file's folder, as the working directory, with the user's own kernel module and small data
files; and the running ctd, as modules, unless the profile says that it is installed there. The driver runs on the
cluster as `ctd run NAME.yaml --base .`, where "." is the working directory on every node.
"""

import json
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import distribution
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cluster
import ctd
import jobs
from cluster.profiles import RayProfile
from cluster.ray.private import set_environment
from cluster.ray.reach import knock
from cluster.versions import AGREE, versions
from ctd.installed import DISTRIBUTION
from jobs.errors import JobError

EXCLUDED = ["*.zarr", ".git", ".venv", "__pycache__", "*.png"]
"""Results and environments, which are never shipped."""

NO_ANSWER = (OSError, RuntimeError)
"""Errors of the client of the Jobs API. Those of `requests`, where the dashboard ends in mid-answer, are OSErrors alone."""
START_S = 120.0
"""Longest wait (s) for the cluster to compare its versions with ours; the job is sent all the same."""


def entrypoint(run: Sequence[str]) -> str:
    """Return the shell command that the cluster runs: compare versions, then run the driver. run: its words after `ctd`."""
    expected = json.dumps(versions())
    # exec, so that a stop signal reaches the driver and not a shell around it.
    return (
        f"python -m cluster.versions {shlex.quote(expected)} && "
        f'exec python -m cluster.cli.main {shlex.join(run)} --address "$RAY_ADDRESS"'
    )


@contextmanager
def reached(profile: RayProfile) -> Iterator[None]:
    """Set the environment variables by which Ray finds the cluster and its token. JobError if there is no such token file."""
    # Unset: in the client of Ray's jobs either of them would win over the address that it is given.
    settings: dict[str, str | None] = {"RAY_ADDRESS": None, "RAY_API_SERVER_ADDRESS": None}
    if profile.token:
        token = Path(profile.token).expanduser()
        if not token.is_file():
            raise JobError(f"token: {token}: there is no such file")
        settings |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    before = set_environment(settings)
    try:
        yield
    finally:
        set_environment(before)


@contextmanager
def client(profile: RayProfile) -> Iterator[Any]:
    """Yield a client of the Jobs API. JobError if nothing answers, or a call inside the `with` block fails."""
    from ray.job_submission import JobSubmissionClient

    url = profile.dashboard_url()
    with reached(profile):
        try:
            knock(
                urlsplit(url).netloc
            )  # the client would wait for minutes for a machine that is gone
            yield JobSubmissionClient(url)
        except NO_ANSWER as error:
            raise JobError(f"{url}: the Jobs API of Ray: {error}") from None


def submit(
    folder: str, profile: RayProfile, command: str, number: str, label: str, ready: Callable[[], None]
) -> str:  # fmt: skip
    """Send a job with its folder, wait at most `START_S` until the cluster has compared versions, and return the job's id.

    ready: called once the cluster answers, before the job is sent.

    Raises JobError, which begins with `label`, if the versions differ, or the job ended before it compared them.
    """
    shipped: dict[str, Any] = {
        "working_dir": folder,
        "excludes": EXCLUDED,
        # Time for a stopped driver to write checkpoints; Ray's default is 3 s.
        "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "60"},
        **_ctd(profile),
    }
    with client(profile):
        pass  # it answers
    ready()  # outside: an error of its store is not one of the Jobs API
    with client(profile) as api:
        job_id = str(api.submit_job(entrypoint=command, runtime_env=shipped, submission_id=number))
        try:
            _await_versions(api, job_id, label)
        except KeyboardInterrupt:
            api.stop_job(job_id)  # no store records it yet, by which `ctd cancel` would find it
            raise
    return job_id


def ask(profile: RayProfile, module: str, *arguments: str) -> dict[str, Any]:
    """Run `python -m module` as a job of the cluster, and return the JSON that it prints last.

    Raises JobError if nothing answers, or the job fails or takes longer than `START_S`.
    """
    command, url = shlex.join(["python", "-m", module, *arguments]), profile.dashboard_url()
    with client(profile) as api:
        number = api.submit_job(entrypoint=command, runtime_env=_ctd(profile))
        end = time.monotonic() + START_S
        try:
            while not (info := api.get_job_info(number)).status.is_terminal():
                if time.monotonic() > end:
                    raise JobError(f"{url}: job {number}, which asks, takes over {START_S:g} s")
                time.sleep(0.3)
            log = str(api.get_job_logs(number)).strip()
        finally:
            api.stop_job(number)
    if info.status.value != "SUCCEEDED":
        raise JobError(f"{url}: {module} does not run there: {log[-1000:] or info.message}")
    answer: dict[str, Any] = json.loads(log.splitlines()[-1])
    return answer


def _ctd(profile: RayProfile) -> dict[str, Any]:
    """Return what makes ctd importable in a job, for its runtime environment."""
    return {} if profile.installed else {"py_modules": modules()}


def modules() -> list[str]:
    """Return the folders to ship: our three packages, and the metadata in which `versions` finds ctd's version."""
    packages = [str(Path(str(package.__file__)).parent) for package in (ctd, jobs, cluster)]
    metadata = distribution(DISTRIBUTION)._path  # type: ignore[attr-defined]
    return [*packages, str(metadata)]


def _await_versions(api: Any, number: str, label: str) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        try:
            info, log = api.get_job_info(number), api.get_job_logs(number)
        except NO_ANSWER:  # the job is sent: it is asked again
            time.sleep(1)
            continue
        if AGREE in log:
            return
        if info.status.is_terminal():
            text = log.strip()[-1500:] or str(info.message)[-1500:]
            for line in text.splitlines():
                if "versions differ" in line:
                    raise JobError(
                        f"{label}: {line.removeprefix('ctd: ')}; install the same versions"
                    )
            raise JobError(f"{label}: the job did not start: {text}")
        time.sleep(0.3)


def state(profile: RayProfile, number: str) -> tuple[str, bool]:
    """Return the state of a job in words, and whether it has ended; raise JobError as `client` does."""
    with client(profile) as api:
        info = api.get_job_info(number)
    # Behind what it says of a job that failed, Ray repeats up to 20,000 characters of the output.
    headline, *output = str(info.message).splitlines() or [""]
    errors = [line for line in output if line.startswith("error: ")][-1:]
    text = ": ".join(
        [info.status.value.lower(), headline.partition(", last available logs")[0], *errors]
    )
    return text, info.status.is_terminal()


def cancel(profile: RayProfile, number: str) -> list[str]:
    """Stop the job; return a line on that, none if the job has ended already."""
    try:
        with client(profile) as api:
            if api.get_job_info(number).status.is_terminal():
                return []
            api.stop_job(number)
    except JobError as error:  # of a Ray that is gone; the store's other submissions are to be cancelled all the same
        return [f"job {number}: not told to stop: {error}"]
    return [f"job {number}: told to stop"]


def log(profile: RayProfile, number: str, n_lines: int) -> str:
    """Return the last `n_lines` lines of the driver's output."""
    try:
        with client(profile) as api:
            text = api.get_job_logs(number)
    except JobError as error:
        text = f"the output of job {number} is not known: {error}"
    return "\n".join(str(text).splitlines()[-n_lines:])
