"""Keep compiled programs on disk, so that the next process or run need not compile them again."""

import os
from pathlib import Path

import jax


def use_compilation_cache() -> None:
    """Make JAX keep its compiled programs in $CTD_CACHE/xla (by default ~/.cache/ctd/xla).

    Workers on several nodes share the cache if that folder is on a shared file system.
    """
    folder = Path(os.environ.get("CTD_CACHE", "~/.cache/ctd")).expanduser() / "xla"
    jax.config.update("jax_compilation_cache_dir", str(folder))
