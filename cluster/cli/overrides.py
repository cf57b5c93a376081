"""Words on a command line that override fields of a job file: `ctd run job.yaml params.n=50`."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from jobs.errors import JobError

OVERRIDE = re.compile(r"[A-Za-z_]\w*(\.\w+)*=")
"""What such a word begins with."""


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return (job files, overrides) of the words; JobError where there is no file. A file may be called a=b."""
    # os.path: a list of values may be longer than the name of a file can be, of which Path.exists makes an error.
    among = [word for word in words if OVERRIDE.match(word) and not os.path.exists(word)]
    files = [word for word in words if word not in among]
    if not files:
        raise JobError(f"{', '.join(words)}: overrides fields of a job file; give the file, too")
    return files, among


def one_file(words: Sequence[str], overrides: Sequence[str] | None) -> tuple[Path, list[str]]:
    """Return (the one job file among the words, `overrides` and those among them); JobError if there are several."""
    files, among = split(words)
    if len(files) > 1:
        raise JobError(f"one job file expected, got {', '.join(files)}")
    return Path(files[0]), [*(overrides or ()), *among]
