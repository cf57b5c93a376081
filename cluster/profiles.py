"""Cluster profiles: descriptions of the places that a job can be sent to.

A profile is a YAML file ~/.config/ctd/clusters/NAME.yaml, or the field `cluster` of a job file.

    kind: local                                  this machine
    kind: ray    address: head:6379 ...          a Ray cluster that exists
    kind: slurm  partition: gpu  nodes: 2 ...    allocations of a Slurm cluster
"""

import os
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    Field,
    NonNegativeInt,
    PositiveInt,
    field_validator,
    model_validator,
)

from jobs.errors import JobError, did_you_mean, nearest, validated
from jobs.forms import SECTION
from jobs.spec.job import read_content


class _Profile(BaseModel):
    model_config = SECTION


class LocalProfile(_Profile):
    """This machine, for which `ctd run` needs no profile."""

    kind: Literal["local"]


class RayProfile(_Profile):
    """An existing Ray cluster."""

    kind: Literal["ray"]
    address: str
    """host:port of its head, for ctd run --address"""
    dashboard: str | None = None
    """http://host:port of the cluster's dashboard, which accepts jobs; by default port 8265 of the head"""
    token: str | None = None
    """file with the cluster's authentication token; its mode must be 0600"""
    stores: str | None = None
    """folder or object store for stores, which every node must see; by default the job file's folder"""
    installed: bool = False
    """use the ctd installed on the cluster instead of shipping this one"""

    @field_validator("address")
    @classmethod
    def _host_and_port(cls, value: str) -> str:
        if not re.fullmatch(r"[\w.-]+:\d+", value):
            raise ValueError("host:port expected, for example head.cluster:6379")
        return value

    def dashboard_url(self) -> str:
        """Return the URL of the Jobs API."""
        return self.dashboard or f"http://{self.address.rpartition(':')[0]}:8265"

    def jobs_api(self) -> tuple[str, str, str]:
        """Return ("ray", URL, token file) of the Jobs API that this profile calls; profiles that call the same are trusted alike."""
        return "ray", self.dashboard_url(), self.token or ""


def _gpu_count(gpus: int | str) -> int:
    return int(str(gpus).rpartition(":")[2])


LAUNCHER = (
    'for example [apptainer, exec, --nv, "--bind={bind}", "{image}"]; docs/clusters.md has more'
)
"""The words to propose for `launcher` in errors."""

IMAGE_FILES = (".sif", ".sqsh", ".img")
"""Endings of files that hold an image."""


class SlurmProfile(_Profile):
    """Allocations of a Slurm cluster; CPUs, GPUs and memory are per node."""

    kind: Literal["slurm"]
    partition: str | None = None
    """by default the cluster's default partition"""
    account: str | None = None
    """account to charge"""
    qos: str | None = None
    """quality of service"""
    constraint: str | None = None
    """features that nodes must have, as in sbatch"""
    nodes: PositiveInt = 1
    """nodes of an allocation"""
    gpus: NonNegativeInt | str = 0
    """GPUs of each node: a number, or type:number, such as a100:2, if there are several types"""
    # A worker has a core and a GPU: with one core three of four GPUs would have no work.
    cpus: PositiveInt = Field(
        default_factory=lambda fields: max(1, _gpu_count(fields.get("gpus", 0)))
    )
    """CPU cores of each node; by default one for each GPU, at least one"""
    memory_gb: float = Field(gt=0)
    """memory of each node (GB)"""
    time: str | int
    """time limit: D-HH:MM:SS, HH:MM:SS, or minutes"""
    grace_s: PositiveInt = 120
    """seconds before the time limit at which the run is checkpointed"""
    max_allocations: PositiveInt = 20
    """most allocations that a job gets; after the last one it is left unfinished"""
    go_on: Literal["requeue", "chain"] = "requeue"
    """what follows the time limit. requeue: the same allocation again; chain: a new one, for clusters that forbid requeueing"""
    sbatch: list[str] = []
    """further #SBATCH options, such as --exclude=n13"""
    modules: list[str] = []
    """environment modules to load"""
    setup: list[str] = []
    """shell lines to run before anything else starts"""
    environment: dict[str, str] = {}
    """environment variables of all processes"""
    python: str | None = None
    """Python interpreter with ctd on the nodes; by default the one that submits"""
    container: str | None = None
    """image in which Ray and the driver run: a file, or a name that `launcher` takes; its Python must have the versions of ctd, ray
    and jax of the one that submits"""
    launcher: list[str] = []
    """words before a command that runs in `container`: {image} is the image; a word with {bind} is repeated for each folder that it
    sees, FOLDER:FOLDER; {binds} is all of these with commas"""
    bind: list[str] = []
    """further folders that the container sees, as FOLDER or FOLDER:WHERE_IN_IT"""
    work_dir: str = "~/.cache/ctd/slurm"
    """folder on the shared file system: tokens, logs, compiled programs"""

    @field_validator("gpus")
    @classmethod
    def _count(cls, value: int | str) -> int | str:
        if isinstance(value, str) and not re.fullmatch(r"[\w.-]+:\d+", value):
            raise ValueError("a number, or type:number such as a100:2, expected")
        return value

    @field_validator("sbatch", "modules", "setup", "bind", mode="before")
    @classmethod
    def _as_list(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @field_validator("sbatch")
    @classmethod
    def _options(cls, value: list[str]) -> list[str]:
        for line in value:
            if not line.startswith("-") or "\n" in line:
                raise ValueError(f"{line!r}: an option of sbatch such as --exclude=n13 expected")
        return value

    @field_validator("launcher")
    @classmethod
    def _places(cls, value: list[str]) -> list[str]:
        text = " ".join(value)
        if value and not ("{image}" in text and ("{bind}" in text or "{binds}" in text)):
            raise ValueError(f"places for {{image}} and {{bind}} expected, {LAUNCHER}")
        return value

    @field_validator("python")
    @classmethod
    def _interpreter(cls, value: str | None) -> str | None:
        if value is not None and len(value.split()) != 1:
            raise ValueError(
                "the path of an interpreter expected; in a container: give its image in `container`"
            )
        return str(Path(value).expanduser()) if value else value

    @field_validator("environment")
    @classmethod
    def _names(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if not re.fullmatch(r"[A-Za-z_]\w*", name):
                raise ValueError(f"{name!r} is not the name of an environment variable")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> "SlurmProfile":
        if self.grace_s >= self.time_s():
            raise ValueError(
                f"grace_s: {self.grace_s} s is not below the time limit, {self.time_s()} s"
            )
        if self.container is None and (self.bind or self.launcher):
            raise ValueError("bind, launcher: are for a container; give its image in `container`")
        if self.container is not None and not self.launcher:
            raise ValueError(
                f"launcher: none given; give the words that run the container, {LAUNCHER}"
            )
        if self.container is not None and self.python is not None:
            raise ValueError("python: the container has its own; leave it out")
        return self

    def time_s(self) -> int:
        """Return the time limit in seconds."""
        return slurm_seconds(self.time)

    def n_gpus(self) -> int:
        """Return the number of GPUs per node."""
        return _gpu_count(self.gpus)

    def image(self) -> Path | None:
        """Return `container` as an absolute path; None if it is the name of an image, such as docker.io/lab/ctd:1, or there is none."""
        name = self.container or ""
        is_file = name.startswith(("/", "~", ".")) or name.endswith(IMAGE_FILES)
        return Path(name).expanduser().absolute() if is_file else None

    def folder(self) -> Path:
        """Return `work_dir` as an absolute path."""
        return Path(self.work_dir).expanduser().absolute()

    def cache(self) -> Path:
        """Return the folder that allocations share: compiled programs, and how long items took."""
        return self.folder() / "cache"


Profile = LocalProfile | RayProfile | SlurmProfile

KINDS: dict[str, type[Profile]] = {"local": LocalProfile, "ray": RayProfile, "slurm": SlurmProfile}

MAIL = "sbatch: [--mail-user=YOU@LAB, --mail-type=END,FAIL] for mail from Slurm"
"""The fields to propose in place of an address for mail."""

SECRET = re.compile(
    r"\b(\w*(?:SECRET|PASSWORD|TOKEN|ACCESS_KEY|ACCOUNT_KEY|SAS_KEY)\w*(?<!_PATH)(?<!_FILE))=(?![\"']?\$)"
)
"""Matches an assignment of a literal value to a variable with such a name; not $VARIABLE or $(command)."""


def _refuse_secrets(content: dict[str, Any], label: str) -> None:
    """Raise JobError if a profile holds credentials, since it is written into batch scripts and stores."""
    for field in ("environment", "setup", "sbatch"):
        entries = content.get(field)  # not validated yet: an error would repeat it
        if isinstance(entries, dict):
            entries = [f"{name}={value}" for name, value in entries.items()]
        for text in entries if isinstance(entries, list) else [entries]:
            if match := SECRET.search(str(text)):
                raise JobError(
                    f"{label}: {field}: {match[1]}: a profile is written into batch scripts and stores, where "
                    "others read it; keep credentials in ~/.aws/credentials, or write a line that reads them from a file"
                )


def slurm_seconds(text: str | int) -> int:
    """Return a Slurm time limit in seconds: "D-H[:M[:S]]", "H:M:S", "M:S", or "M" minutes; else raise ValueError."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", str(text))
    if match is None:
        raise ValueError(f"time: D-HH:MM:SS, HH:MM:SS or minutes expected, got {text!r}")
    # As in sbatch(1): after days the first number is hours; without days, two numbers are minutes and seconds.
    days, *fields = (None if part is None else int(part) for part in match.groups())
    numbers = [part for part in fields if part is not None]
    if days is not None or len(numbers) == 3:
        hours, minutes, seconds = [*numbers, 0, 0][:3]
    else:
        hours, (minutes, seconds) = 0, [*numbers, 0][:2]
    return (((days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


FILES = (".yaml", ".yml")
"""A name with one of these endings is that of a profile's file, not of a profile."""


def profiles_folder() -> Path:
    """Return the folder of this user's profiles."""
    config = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(config).expanduser() / "ctd" / "clusters"


def profile_names() -> list[str]:
    """Return the names of this user's profiles, and `local`, which needs no file."""
    return sorted({"local", *(path.stem for path in profiles_folder().glob("*.yaml"))})


def load_profile(name: str) -> Profile:
    """Return the profile of that name, or in that file if the name ends in .yaml or .yml. JobError if there is none, or it is
    not valid.
    """
    path = Path(name) if name.endswith(FILES) else profiles_folder() / f"{name}.yaml"
    if path.is_file():
        return parse_profile(read_content(path), str(path))
    if name == "local":
        return LocalProfile(kind="local")
    if path.parent != profiles_folder():
        raise JobError(f"--cluster {name}: there is no such file")
    local_files = [file for file in (f"{name}.yaml", f"{name}.yml") if Path(file).is_file()]
    hint = (
        f"; for the file here give {local_files[0]}"
        if local_files
        else nearest(name, profile_names())
    )
    raise JobError(
        f"cluster {name!r}: {path} does not exist{hint}\ndocs/clusters.md shows how to write a profile"
    )


def parse_profile(content: Any, label: str) -> Profile:
    """Return the validated profile; JobError, which names `label` and the field, if it is not valid.

    content: its fields, or the name of a profile to load.
    """
    if isinstance(content, str):
        return load_profile(content)
    fields = content if isinstance(content, dict) else {}
    kind, kinds = fields.get("kind"), [*KINDS]  # a list: the value may be one, too
    if kind not in kinds:
        misnamed = (
            f"; write kind: {v} in place of {name}: {v}" for name, v in fields.items() if v in kinds
        )
        better = next(misnamed, did_you_mean(kind, KINDS))
        raise JobError(f"{label}: kind: local, ray or slurm expected, got {kind!r}{better}")
    _refuse_secrets(fields, label)
    instead = dict.fromkeys(("email", "mail", "mail_user"), MAIL)
    return validated(KINDS[kind], fields, label, instead)
