"""Bytecode of what is installed, which every process that a test starts would else compile anew."""

import subprocess
import sys
import sysconfig
from importlib.util import cache_from_source, find_spec
from pathlib import Path


def keep_bytecode() -> None:
    """Compile the installed packages where Python may not do so by itself (PYTHONDONTWRITEBYTECODE) and nobody has.

    Importing JAX, Ray and pandas takes 3.2 s of CPU without, 1.3 with it, in each worker; this takes 20 once.
    """
    spec = find_spec("jax")
    if sys.dont_write_bytecode and spec and not Path(cache_from_source(str(spec.origin))).exists():
        folder = sysconfig.get_path("purelib")
        # Packages hold templates and old files that warn or do not compile.
        subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "compileall", "-qq", "-j", "0", folder],
            check=False,
        )
