"""Replace a file as a whole: a process that is killed, or has no space left, leaves the old file."""

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | Path, *, typed: bool = False) -> Iterator[Path]:
    """Yield an empty file beside `path`, with its suffix, which takes its place at the end of the block.

    After an error the new file is gone, and `path` is as it was. The new file has the permissions of the old one.

    typed: whether the user gave this very path. Then a link goes on naming the same place, and a pipe or a device, which
    cannot be replaced, is yielded itself. At any other path somebody else may have laid a link to the user's files: the
    new file takes the place of a link, a pipe or a device.

    Raises:
        OSError: no file can be made beside `path`, or `path` may not be written.

    >>> with replacing("report.txt") as new:
    ...     _ = new.write_text("all of it")
    >>> Path("report.txt").read_text()
    'all of it'
    """
    path, suffix = Path(path), Path(path).suffix
    if typed:
        path = Path(os.path.realpath(path))
        if path.exists() and not path.is_file():
            yield path
            return
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        mode = 0
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    replaces = stat.S_ISREG(mode)
    if replaces and not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    new = path.with_name(f".{path.stem[:40]}-{secrets.token_hex(4)}{suffix}")
    new.touch(exist_ok=False)
    try:
        mode = (mode if replaces else new.stat().st_mode) & 0o777
        yield new
        os.chmod(new, mode)
        # Have the content on the disk before the name is there: else a loss of power can leave an empty file.
        with new.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(new, path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
