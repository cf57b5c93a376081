"""Whether the modules, setup lines and interpreter of a profile lead to the versions of this ctd."""

import json
import platform
import shlex
import subprocess
from pathlib import Path

from cluster.profiles import SlurmProfile
from cluster.slurm.script import prologue
from cluster.versions import PLUGINS, differences, versions
from ctd.installed import gpu_plugins
from jobs.errors import JobError

LONGEST_S = 120.0
"""Longest time that they may take here."""


def check_python(profile: SlurmProfile, where: str) -> list[str]:
    """Raise JobError if the profile's interpreter and setup lines lead to versions other than ours; return JAX's plugins there.

    Runs them in a login shell on this machine, in the profile's container; if the profile has none, this Python is meant.
    """
    image, given = profile.image(), profile.python
    if not (given or profile.setup or profile.modules or image):
        return gpu_plugins()
    if image is not None and not image.exists():
        raise JobError(f"{where}: container: {image} does not exist; build one: docs/clusters.md")
    if given and "/" in given and not Path(given).exists():
        raise JobError(f"{where}: python: {given} does not exist (on {platform.node()})")
    # Found as the job finds ctd: the setup lines may lead to another one.
    python = shlex.quote(Path(given or "python").name)
    lines = ["set -e", *prologue(profile), f'exec "${{inside[@]}}" {python} -m cluster.versions']
    try:
        done = subprocess.run(
            ["bash", "-l", "-c", "\n".join(lines)], capture_output=True, text=True, check=False,
            cwd="/", timeout=LONGEST_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise JobError(
            f"{where}: its modules and setup lines take more than {LONGEST_S:g} s"
        ) from None
    if done.returncode or not done.stdout:
        raise JobError(
            f"{where}: ctd does not run {_place(profile)} (on {platform.node()}):\n{done.stderr.strip()[-1000:]}"
        )
    there = json.loads(done.stdout.splitlines()[-1])
    if wrong := differences(versions(), there, _place(profile)):
        raise JobError(f"{where}: {wrong}; install the same versions")
    return list(filter(None, there.get(PLUGINS, "").split(", ")))


def _place(profile: SlurmProfile) -> str:
    """Where a profile's ctd runs, in its own words."""
    lines = "after its modules and setup lines" if profile.modules or profile.setup else ""
    python = f"with python: {profile.python}" if profile.python else ""
    image = f"in container: {profile.container}" if profile.container else ""
    return ", ".join(filter(None, [python or image, lines]))
