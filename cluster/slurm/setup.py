"""Whether the modules, setup lines and interpreter of a profile lead to the versions of this ctd."""

import json
import subprocess

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
    image = profile.image()
    if not (profile.python or profile.setup or profile.modules or image):
        return gpu_plugins()
    if image is not None and not image.exists():
        raise JobError(f"{where}: container: {image} does not exist; build one: docs/clusters.md")
    lines = ["set -e", *prologue(profile), 'exec "${inside[@]}" python -m cluster.versions']
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
            f"{where}: ctd does not run after its modules and setup lines:\n{done.stderr.strip()[-1000:]}"
        )
    there = json.loads(done.stdout.splitlines()[-1])
    if wrong := differences(versions(), there, "after its modules and setup lines"):
        raise JobError(f"{where}: {wrong}; install the same versions")
    return list(filter(None, there.get(PLUGINS, "").split(", ")))
