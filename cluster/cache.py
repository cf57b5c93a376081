"""Where compiled programs are kept, so that the next process, or the next run, need not compile."""

import os
from pathlib import Path

import jax


def use_compilation_cache() -> None:
    """Keep XLA's programs below $CTD_CACHE (by default ~/.cache/ctd), for every process of this user.

    Workers on several nodes share it where that folder is on a shared file system.
    """
    folder = Path(os.environ.get("CTD_CACHE", "~/.cache/ctd")).expanduser() / "xla"
    jax.config.update("jax_compilation_cache_dir", str(folder))
