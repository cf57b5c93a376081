"""Bytecode of what the tests' processes import, which each that a test starts would else compile anew."""

import subprocess
import sys
import sysconfig
from importlib.util import cache_from_source, find_spec
from pathlib import Path

from places import ROOT


def keep_bytecode() -> None:
    """Compile what is installed, once, and our packages, where Python may not by itself (PYTHONDONTWRITEBYTECODE).

    Importing JAX, Ray and pandas takes 3.2 s of CPU without, 1.3 with it, in each worker; this takes 20 once. Our own
    take 0.2 s in each process; a file that was changed is told by its time and compiled again.
    """
    spec = find_spec("jax")
    if not (sys.dont_write_bytecode and spec):
        return
    folders = [str(ROOT / name) for name in ("ctd", "jobs", "cluster")]
    if not Path(cache_from_source(str(spec.origin))).exists():
        folders.append(sysconfig.get_path("purelib"))
    # Packages hold templates and old files that warn or do not compile.
    subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "compileall", "-qq", "-j", "0", *folders],
        check=False,
    )
