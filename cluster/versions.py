"""The versions that must be equal wherever a job runs. Run as a script: says whether they are.

python -m cluster.versions                  prints them as JSON
python -m cluster.versions '{"jax": ...}'   exits with 2 and says what differs
"""

import json
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("ray", "jax", "jaxlib", "ctd")


def versions() -> dict[str, str]:
    """python, ray, jax, jaxlib and ctd of this process; "absent" for what is not installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def differences(here: Mapping[str, str], there: Mapping[str, str], place: str) -> str:
    """One sentence on what differs, or "".

    Ray compares Python to the last digit, since it sends pickled code between processes.
    """
    words = [
        f"{name} is {there.get(name, 'absent')} {place} and {value} here"
        for name, value in here.items()
        if there.get(name, "absent") != value
    ]
    return "; ".join(words)


AGREE = "ctd: versions agree"


def main(arguments: list[str]) -> int:
    """Print or compare; the exit code."""
    if not arguments:
        print(json.dumps(versions()))
        return 0
    wrong = differences(json.loads(arguments[0]), versions(), "there")
    if wrong:
        print(f"ctd: versions differ: {wrong}", flush=True)
        return 2
    print(AGREE, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
