"""Replacing a file as a whole: whoever is killed, or has no space left, leaves the one that was there."""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield an empty file beside `path`, with its suffix, which takes its place at the end of the block.

    After an error the new file is gone, and `path` is as it was. The new file has the permissions of the old one. A
    link goes on naming the same place; a pipe or a device cannot be replaced, and is yielded itself.

    Raises:
        OSError: no file can be made beside `path`, or `path` may not be written.

    >>> with replacing("report.txt") as new:
    ...     _ = new.write_text("all of it")
    >>> Path("report.txt").read_text()
    'all of it'
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        yield path
        return
    if path.exists() and not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    new = path.with_name(f".{path.stem[:40]}-{secrets.token_hex(4)}{path.suffix}")
    new.touch(exist_ok=False)
    try:
        mode = (path if path.exists() else new).stat().st_mode
        yield new
        os.chmod(new, mode & 0o777)
        # Have the content on the disk before the name is there: else a loss of power can leave an empty file.
        with new.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(new, path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
