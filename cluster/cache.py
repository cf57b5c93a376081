"""Keep compiled programs on disk, so that the next process or run need not compile them again.

JAX reads and writes them, whole files named by what they were compiled from. A file that another process deletes or has
not finished is compiled anew. JAX's own bound on the folder needs a lock at every read, which a shared home folder may
not have; so a run that begins deletes the files that were used longest ago.
"""

import os
import sys
import time
import warnings
from contextlib import suppress
from pathlib import Path

LIMIT = 2**30
"""Bytes that the folder may hold; what is over it goes when a run begins."""
KEPT = 0.75
"""Share of `LIMIT` that is left then, so that the next run need not delete again."""
EVERY_S = 3600.0
"""The folder is looked through at most so often: on a network file system that takes seconds."""


def cache_home() -> Path:
    """$CTD_CACHE, by default ~/.cache/ctd."""
    return Path(os.environ.get("CTD_CACHE", "~/.cache/ctd")).expanduser()


def cache_folder() -> Path:
    """The folder of compiled programs, `xla` in the cache."""
    return cache_home() / "xla"


def use_compilation_cache() -> None:
    """Make JAX keep all its compiled programs in the cache folder; does not import JAX.

    Workers on several nodes share the cache if that folder is on a shared file system.
    """
    settings: dict[str, str | int] = {
        "jax_compilation_cache_dir": str(cache_folder()),
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    for name, value in settings.items():
        os.environ[name.upper()] = str(value)  # which JAX reads when it is imported
        if "jax" in sys.modules:
            sys.modules["jax"].config.update(name, value)
    # Of a folder that cannot be written, or a file that is gone: the program is compiled, and nothing is to be done.
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation")


def prune_compilation_cache(limit: int = LIMIT) -> None:
    """Delete the programs that were used longest ago if all of them are larger than `limit` bytes.

    Several processes may do so at a time. A folder that cannot be read or written is left as it is.
    """
    folder = cache_folder()
    looked = folder / ".looked-through"
    with suppress(OSError):
        if looked.exists() and time.time() - looked.stat().st_mtime < EVERY_S:
            return
        folder.mkdir(parents=True, exist_ok=True)
        looked.touch()
        _delete_oldest(folder, limit)


def _delete_oldest(folder: Path, limit: int) -> None:
    found = []
    for entry in os.scandir(folder):
        with suppress(FileNotFoundError):  # another process deletes too
            about = entry.stat()
            if entry.is_file() and entry.name != ".looked-through":
                found.append((max(about.st_atime, about.st_mtime), about.st_size, entry.path))
    total = sum(size for _, size, _ in found)
    if total <= limit:
        return
    for _, size, path in sorted(found):
        if total <= KEPT * limit:
            return
        Path(path).unlink(missing_ok=True)
        total -= size
