"""Keep compiled programs on disk, so that the next process or run need not compile them again.

JAX reads and writes whole files, named by a digest of the program. If another process has deleted a file or not finished
it, JAX compiles the program again. JAX's own limit on the folder takes a lock at every read, which a shared home folder
may not support; so a run deletes the least recently used files when it begins.
"""

import os
import sys
import time
import warnings
from contextlib import suppress
from pathlib import Path

LIMIT = 2**30
"""Bytes that the folder may hold; a run that begins deletes the excess."""
KEPT_SHARE = 0.75
"""Share of `LIMIT` that is kept then, so that the next run need not delete again."""
EVERY_S = 3600.0
"""Least seconds between two scans of the folder: on a network file system a scan takes seconds."""


def cache_home() -> Path:
    """Return $CTD_CACHE, by default ~/.cache/ctd; its folder `xla` holds the compiled programs."""
    return Path(os.environ.get("CTD_CACHE", "~/.cache/ctd")).expanduser()


def gpus_here() -> list[Path]:
    """Return the devices of NVIDIA's GPUs on this machine."""
    return [*Path("/dev").glob("nvidia[0-9]*")]


def use_compilation_cache() -> None:
    """Make JAX keep all its compiled programs in the cache; does not import JAX.

    Workers on several nodes share the cache if it lies on a shared file system.
    """
    settings: dict[str, str | int] = {
        "jax_compilation_cache_dir": str(cache_home() / "xla"),
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    for name, value in settings.items():
        os.environ[name.upper()] = str(value)  # which JAX reads when it is imported
        if "jax" in sys.modules:
            sys.modules["jax"].config.update(name, value)
    # XLA logs of such programs, and of a slow compilation, as of errors; its errors are exceptions, which no level hides.
    if not gpus_here():  # where a driver does not start, its log is the only word of why
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # JAX warns of a folder that cannot be written, or of a file that is gone; it compiles the program all the same.
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation")


def prune_compilation_cache(limit: int = LIMIT) -> list[str]:
    """Delete the least recently used programs if the folder holds more than `limit` bytes; return why it cannot be used, if so.

    Several processes may do so at once. A folder that cannot be read or written stays as it is.
    """
    folder = cache_home() / "xla"
    looked = folder / ".looked-through"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        reason = "" if os.access(folder, os.W_OK) else "Permission denied"
    except OSError as error:
        reason = error.strerror or str(error)
    if reason:
        return [
            f"CTD_CACHE: {folder} cannot be written ({reason}), so nothing is kept for the next run"
        ]
    with suppress(OSError):
        if not looked.exists() or time.time() - looked.stat().st_mtime >= EVERY_S:
            looked.touch()
            _delete_oldest(folder, limit)
    return []


def _delete_oldest(folder: Path, limit: int) -> None:
    files = []
    for entry in os.scandir(folder):
        with suppress(FileNotFoundError):  # another process deletes too
            about = entry.stat()
            if entry.is_file() and entry.name != ".looked-through":
                files.append((max(about.st_atime, about.st_mtime), about.st_size, entry.path))
    total = sum(size for _, size, _ in files)
    least = KEPT_SHARE * limit if total > limit else total
    for _, size, path in sorted(files):
        if total <= least:
            return
        Path(path).unlink(missing_ok=True)
        total -= size
