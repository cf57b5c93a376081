"""The source code behind a job's results: its kernel, and the modules of the user and of ctd that the kernel imports.

A store keeps their checksums, and those of its input files. If a module was edited or a file replaced since, a run is refused.

Nothing is executed: import statements are read and followed.

    from    the kernel's module, the modules that the job names as dotted paths (a task, a map), ctd.batch
    into    the kernel's own package, ctd, the folders of the job and the kernel

All other modules count as versions, not source.
"""

import hashlib
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path

from ctd.catalogue import find_module
from ctd.dotted import INSTALLED
from ctd.kernel import Kernel
from jobs import keys
from jobs.errors import JobError
from jobs.inputs.versions import changed_files
from jobs.spec.code import imports_of, locate
from jobs.spec.job import JobSpec, find_kernel
from jobs.storage import objects
from jobs.store.advice import gather_command, resume_command
from jobs.store.finding import shortened
from jobs.store.store import Store, change_job

_imported: dict[str, tuple[ModuleSpec, str]] = {}
"""Module -> (its import, checksum of its file when this process first looked at it)."""


class SourceDiffers(JobError):
    """Raised if the source on a worker differs from the store's."""


def sources_of(spec: JobSpec, base: str, kernel: Kernel | None = None) -> dict[str, str]:
    """Return module -> sha256 of its file, for all source code of a job.

    kernel: the job's, if it has been imported. Raises JobError for an unknown kernel, or a file that was edited after
    this process imported it.
    """
    if kernel is None:
        find_kernel(spec.kernel, base)  # which puts `base` on the path
    root = find_module(spec.kernel)
    packages = {"ctd", root.partition(".")[0]}
    folders = _import_folder(root)
    with suppress(OSError):  # "." of a Ray job whose folder Ray has replaced
        folders.add(Path(base).resolve())
    waiting = [root, "ctd.batch", *spec.modules()]
    is_source = cache(lambda top: top in packages or bool(folders & _import_folder(top)))
    checksums: dict[str, str] = {}
    visited: set[str] = set()
    while waiting:
        module = waiting.pop()
        if module in visited:  # modules may import each other in a ring
            continue
        visited.add(module)
        if is_source(module.partition(".")[0]) and (path := _file(module)):
            text = path.read_bytes()
            checksums[module] = hashlib.sha256(text).hexdigest()
            _refuse_stale(module, path, checksums[module])
            waiting += imports_of(text, module, path.name == "__init__.py")
    return dict(sorted(checksums.items()))


def combined(sources: Mapping[str, str]) -> str:
    """Return one short digest of all sources, for commit markers."""
    text = "".join(f"{module} {sha256}\n" for module, sha256 in sources.items())
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def changed(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return the modules on both sides whose checksums differ."""
    # One that a single side has is installed on the other, or lies elsewhere. A new import shows in the module that imports it.
    return sorted(name for name in before.keys() & now.keys() if before[name] != now[name])


def edited(store: Store) -> list[str]:
    """Return the modules of a job that differ from those that its store was made with."""
    return changed(store.job.sources, sources_of(store.job.spec, store.job.base, store.science))


def refuse_changed(store: Store, failed: bool = False) -> None:
    """Raise JobError if the source of a job, or an input file, has changed since its store was made.

    failed: whether the shards of failed items are to be computed again.
    """
    job, more = store.job, ""
    if different := edited(store):
        subject, new = f"the source of kernel {job.spec.kernel}", "source"
        if len(store.committed.numbers()) == job.plan.n_shards:
            more = f"; if only `reduce` or a picture has changed, {gather_command(store)} makes them anew"
            more += ", and no item is left to run" * (not store.failed.items())
    elif different := [*changed_files(job.inputs, job.base)]:
        subject, new = "an input file", "files"
    else:
        return
    # Else the command would compute nothing where items have failed, which the new source may mend.
    failed = failed or bool(store.failed.items())
    kept_shards = "the shards without failed items" if failed else "what is done"
    again = resume_command(store, *["--failed"] * failed, "--accept-changes")
    these = "these options" if failed else "this option"
    raise JobError(
        f"{store.address}: {subject} has changed since the store was made: {shortened(different)}. For results of the new {new} give "
        f"another path as --store (store= in Python); {again} (or run or submit with {these}) "
        f"keeps {kept_shards} and goes on with the new {new}{more}"
    )


def source_here(store: Store, host: str) -> str:
    """Return the digest of the source with which a worker on `host` computes; raise SourceDiffers if it is not the store's."""
    job = store.job
    sources = sources_of(job.spec, job.base, store.science)
    if other := changed(job.sources, sources):
        raise SourceDiffers(
            f"{host} has other source code than the driver for {shortened(other)}: it was edited since the run began, "
            "or another version is installed there"
        )
    return combined(job.sources or sources)


def accept_changes(store: Store) -> list[str]:
    """Make the present source and input files the store's; return the modules and files that have changed.

    The caller must hold the store's lease. Committed shards stay, those under way begin anew.
    """
    job = store.job
    now = sources_of(job.spec, job.base, store.science)
    files = changed_files(job.inputs, job.base)
    different = [*changed(job.sources, now), *files]
    if different:
        # States of the old source must not go on under the new one. First these: a kill in between loses only work. The
        # checksums of decisions before them, as in `rounds.forget_search`.
        for folder in (f"{keys.SUMS}/decisions", keys.CHECKPOINTS, keys.DECISIONS, keys.ROUNDS):
            objects.delete_all(store.objects, folder)
    # A kill between its two copies leaves run/job.json with the old sources: the changes have to be accepted again.
    if different or not job.sources:
        inputs = {**job.inputs, **files}
        update = {"sources": now, "inputs": inputs}
        change_job(store, lambda job: job.model_copy(update=update))
    return different


def _refuse_stale(module: str, path: Path, sha256: str) -> None:
    """Raise JobError if a file was edited after this process imported it."""
    spec = getattr(sys.modules.get(module), "__spec__", None)
    if spec is None:  # not imported here yet
        return
    imported, before = _imported.get(module, (None, ""))
    if imported is not spec:  # a reload makes a new one
        _imported[module] = spec, sha256
    elif before != sha256:
        problem = "was edited after this process imported it"
        raise JobError(f"{path}: {problem}; start the process again")


def _import_folder(module: str) -> set[Path]:
    """Return the folder that holds the module's top; none if it is installed or part of Python."""
    code = locate(module.partition(".")[0], sys.path)
    if code is None or not code.folder or INSTALLED & set(Path(code.folder).parts):
        return set()
    return {Path(code.folder)}


def _file(module: str) -> Path | None:
    """Return the file of a module; None if it has no Python source."""
    code = locate(module, sys.path)
    if code is None or not code.is_whole or code.file.suffix != ".py":
        return None
    return code.file.resolve() if code.file.is_file() else None
