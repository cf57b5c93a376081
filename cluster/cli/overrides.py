"""Words of a command line that override fields of a job file: `ctd run job.yaml params.n=50`."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from jobs.errors import JobError

OVERRIDE = re.compile(r"[A-Za-z_]\w*(\.\w+)*=")
"""The beginning of such a word."""


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split words into (job files, overrides). Raises JobError without a file. A file may be called a=b.

    >>> split(["job.yaml", "params.n=50"])
    (['job.yaml'], ['params.n=50'])
    """
    # os.path.exists: a long list of values is no valid file name, for which Path.exists raises an error.
    among = [word for word in words if OVERRIDE.match(word) and not os.path.exists(word)]
    files = [word for word in words if word not in among]
    if not files:
        raise JobError(f"{', '.join(words)}: overrides fields of a job file; give the file too")
    return files, among


def one_file(words: Sequence[str], overrides: Sequence[str] | None) -> tuple[Path, list[str]]:
    """Split words into (the job file, `overrides` and those among the words). Raises JobError if there are several files."""
    files, among = split(words)
    if len(files) > 1:
        raise JobError(f"{', '.join(files)}: {len(files)} job files given; give one")
    return Path(files[0]), [*(overrides or ()), *among]
