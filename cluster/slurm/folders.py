"""The folders of a Slurm job: whether they can be written here, and whether nodes see them."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

from jobs.errors import JobError

SHARED = ("nfs", "lustre", "gpfs", "beegfs", "ceph", "fuse", "wekafs", "pvfs2", "orangefs", "panfs", "afs", "cifs", "9p")  # fmt: skip
"""How the types of file systems begin that several machines see."""


def check_folder(folder: Path, where: str) -> None:
    """Make the folder and try to write to it; JobError, which begins with `where`, if that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise JobError(
            f"{where}: {folder} cannot be written ({error.strerror}); give a folder on the shared file system"
        ) from None


def unshared(folders: Mapping[str, Path]) -> str:
    """Return a sentence on those of the folders (name -> path) that nodes may not see, "" if there are none.

    They lie on a disk of this machine, and no allocation has written there. No allocation writes where `python` is: it counts
    as seen where `work_dir` is written to, and an allocation tests it.
    """
    types = {name: file_system(path) for name, path in folders.items()}
    here = {name: kind for name, kind in types.items() if not kind.startswith(SHARED)}
    seen = [folders[name] for name in here if _is_written(name, folders)]
    unseen = [
        f"{name} ({kind})"
        for name, kind in here.items()
        if not any(folders[name].is_relative_to(folder) for folder in seen)
    ]
    why = "nodes may not see what lies on a disk of this machine"
    return f"{', '.join(unseen)}: {why}" if unseen else ""


def _is_written(name: str, folders: Mapping[str, Path]) -> bool:
    """Whether an allocation has written there: compiled programs to `work_dir`, or notes to a store."""
    if name in ("python", "work_dir"):
        return (folders["work_dir"] / "cache").exists()
    return next(folders[name].glob("*/run/submit/*/allocations.tsv"), None) is not None


def file_system(path: Path) -> str:
    """Return the type of the file system on which a path lies or would lie, such as ext4 or nfs4."""
    types = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        # proc(5): the fifth field is where it is mounted; the type follows the dash that ends the optional fields.
        before, _, after = line.partition(" - ")
        types[before.split()[4].replace("\\040", " ")] = after.split()[0]
    known = [str(folder) for folder in (path.resolve(), *path.resolve().parents)]
    return next(types[folder] for folder in known if folder in types)
