"""Check whether a job can run with a profile: ask Slurm, and compare nodes, versions and folders."""

import json
import platform
import shlex
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from cluster.profiles import SlurmProfile
from cluster.slurm import client as slurm
from cluster.slurm.script import prologue
from cluster.versions import PLUGINS, differences, versions
from ctd.installed import NO_PLUGIN, gpu_plugins
from jobs.errors import JobError
from jobs.spec.run import RunSettings

LONGEST_S = 120.0
"""Longest time (s) that a profile's modules and setup lines may take on this machine."""

NO_PROGRAM = 79
"""Exit status, which neither Bash nor Python gives, where no program runs containers."""


class NoContainers(JobError):
    """This machine cannot run the profile's container, which only the nodes must."""


def check_there(text: str, profile: SlurmProfile, label: str) -> dict[str, str]:
    """Raise JobError if Slurm would refuse a batch script, or as `check_python` does; return, by name, what is only warned of."""
    slurm.check_partition(profile, label)
    risks = {"waits": slurm.try_out(text, profile, label)}
    try:
        risks["no GPU"] = without_gpu(profile, check_python(profile, label))
    except NoContainers as error:
        risks["not checked"] = str(error)
    return {name: warning for name, warning in risks.items() if warning}


def check_run(run: RunSettings, profile: SlurmProfile, label: str) -> None:
    """Raise JobError if no node of the profile has room for one worker, or `run.grace_s` leaves no time of the profile's."""
    if run.grace_s >= profile.grace_s:
        raise JobError(
            f"{label}: run.grace_s: {run.grace_s:g} s must be less than the cluster profile's "
            f"grace_s, {profile.grace_s:g} s, because Ray shuts down in that time too"
        )
    for field, needed, has in (
        ("cpus", run.cpus_per_worker, profile.cpus),
        ("gpus", run.gpus_per_worker or 0, profile.n_gpus()),
    ):
        if needed > has:
            raise JobError(
                f"{label}: run.{field}_per_worker: {needed:g} is more than the cluster profile's {field}, {has}, and a worker "
                f"runs on one node; give at most that, or a larger `{field}`"
            )


def without_gpu(profile: SlurmProfile, plugins: list[str]) -> str:
    """Return a sentence on GPUs that JAX would not use; "" if none are wanted, or it has a plugin."""
    wants = bool(profile.n_gpus()) and not plugins
    return f"gpus: {profile.gpus} wanted, and JAX would compute on the CPU: {NO_PLUGIN}" * wants


def check_python(profile: SlurmProfile, label: str) -> list[str]:
    """Raise JobError if the profile's interpreter and setup lines lead to versions other than ours; return JAX's plugins there.

    Runs them in a login shell on this machine, in the profile's container; if the profile has none, this Python is meant.
    """
    image, interpreter = profile.image(), profile.python
    if not (interpreter or profile.setup or profile.modules or profile.container):
        return gpu_plugins()
    if image is not None and not image.exists():
        raise JobError(f"{label}: container: {image} does not exist; build one: docs/clusters.md")
    if interpreter and "/" in interpreter and not Path(interpreter).exists():
        raise JobError(f"{label}: python: {interpreter} does not exist (on {platform.node()})")
    # Found as the job finds ctd: the setup lines may lead to another one.
    python = shlex.quote(Path(interpreter or "python").name)
    # Outside of an allocation, srun would wait for one.
    needs = (
        '[ -z "${inside[*]}" ] || { [ "${inside[0]}" != srun ] && command -v "${inside[0]}" >/dev/null; } || '
        f"exit {NO_PROGRAM}"
    )
    lines = ["set -e", *prologue(profile), needs, f'exec "${{inside[@]}}" {python} -m cluster.versions']  # fmt: skip
    try:
        done = subprocess.run(
            ["bash", "-l", "-c", "\n".join(lines)], capture_output=True, text=True, check=False,
            cwd="/", timeout=LONGEST_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise JobError(f"{label}: its modules and setup lines take over {LONGEST_S:g} s") from None
    if profile.container and done.returncode == NO_PROGRAM:
        raise NoContainers(
            f"{label}: {profile.launcher[0]} runs no container on {platform.node()}: the versions in container: "
            f"{profile.container} were not compared"
        )
    if done.returncode or not done.stdout:
        printed = done.stderr.strip()[-1000:] or "nothing was printed"
        raise JobError(
            f"{label}: ctd does not run {_place(profile)} (on {platform.node()}), exit status {done.returncode}:\n{printed}"
        )
    profile_versions = json.loads(done.stdout.splitlines()[-1])
    if wrong := differences(versions(), profile_versions, _place(profile)):
        raise JobError(f"{label}: {wrong}; install the same versions")
    return list(filter(None, profile_versions.get(PLUGINS, "").split(", ")))


def _place(profile: SlurmProfile) -> str:
    """Name the place in which a profile runs ctd, by the profile's own fields."""
    lines = "after its modules and setup lines" if profile.modules or profile.setup else ""
    python = f"with python: {profile.python}" if profile.python else ""
    image = f"in container: {profile.container}" if profile.container else ""
    return ", ".join(filter(None, [python or image, lines]))


# --- folders ------------------------------------------------------------------------------------------

SHARED = ("nfs", "lustre", "gpfs", "beegfs", "ceph", "fuse", "wekafs", "pvfs2", "orangefs", "panfs", "afs", "cifs", "9p")  # fmt: skip
"""Prefixes of the types of file systems that several machines see."""


def check_folder(folder: Path, label: str) -> None:
    """Make the folder and try to write to it; JobError, which begins with `label`, if that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise JobError(
            f"{label}: {folder} cannot be written ({error.strerror}); give a folder on the shared file system"
        ) from None


def unshared(folders: Mapping[str, Path]) -> str:
    """Return a sentence that names the folders (name -> path) which nodes may not see; "" if they see all.

    Nodes may not see a folder on a disk of this machine, unless an allocation has written there. None writes to the folder of
    `python`, which counts as seen once one has written to `work_dir`: each allocation tests it.
    """
    types = {name: file_system(path) for name, path in folders.items()}
    local_types = {name: kind for name, kind in types.items() if not kind.startswith(SHARED)}
    written_folders = [folders[name] for name in local_types if _is_written(name, folders)]
    unseen = [
        f"{name} ({kind})"
        for name, kind in local_types.items()
        if not any(folders[name].is_relative_to(folder) for folder in written_folders)
    ]
    note = "nodes may not see what lies on a disk of this machine"
    return f"{', '.join(unseen)}: {note}" if unseen else ""


def _is_written(name: str, folders: Mapping[str, Path]) -> bool:
    """Return whether an allocation has written to a folder: compiled programs to `work_dir`, or notes to a store."""
    if name in ("python", "work_dir"):
        return (folders["work_dir"] / "cache").exists()
    return next(folders[name].glob("*/run/submit/*/allocations.tsv"), None) is not None


def file_system(path: Path) -> str:
    """Return the type of the file system on which a path lies or would lie, such as ext4 or nfs4."""
    types = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        # proc(5): the fifth field is where it is mounted; the type follows the dash that ends the optional fields.
        before, _, after = line.partition(" - ")
        types[before.split()[4].replace("\\040", " ")] = after.split()[0]
    ancestors = [str(folder) for folder in (path.resolve(), *path.resolve().parents)]
    return next(types[folder] for folder in ancestors if folder in types)
