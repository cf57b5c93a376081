"""The versions that must be equal wherever a job runs. As a script, it prints or compares them.

python -m cluster.versions                  prints them, and JAX's plugins for GPUs, as JSON
python -m cluster.versions '{"jax": ...}'   exits with 2 and says what differs
"""

import json
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError

from ctd.installed import gpu_plugins, version_of

PACKAGES = ("ray", "jax", "jaxlib", "ctd")

PLUGINS = "GPU plugins"
"""Beside the versions that are printed: the names of JAX's plugins. They may differ: a login node needs none."""


def versions() -> dict[str, str]:
    """Return the versions of python, ray, jax, jaxlib and ctd in this process; "absent" if not installed."""
    by_name = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            by_name[name] = version_of(name)
        except PackageNotFoundError:
            by_name[name] = "absent"
    return by_name


def differences(ours: Mapping[str, str], theirs: Mapping[str, str], place: str) -> str:
    """Return a sentence on how versions differ, or "". place: names the location of `theirs`, such as "on the cluster".

    Python must agree to the last digit, because Ray sends pickled code between processes.
    """
    words = [
        f"{name} is {theirs.get(name, 'absent')} {place} and {value} here"
        for name, value in ours.items()
        if theirs.get(name, "absent") != value
    ]
    return "; ".join(words)


AGREE = "ctd: versions agree"


def main(arguments: list[str]) -> int:
    """Print or compare versions; return the exit code."""
    if not arguments:
        print(json.dumps(versions() | {PLUGINS: ", ".join(gpu_plugins())}))
        return 0
    wrong = differences(json.loads(arguments[0]), versions(), "there")
    if wrong:
        print(f"ctd: versions differ: {wrong}", flush=True)
        return 2
    print(AGREE, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
