"""Decide whose code may be imported. A store names modules of whoever made it, and looking at it must not run them.

    code                                                        imported by
    ctd's own, or a module that this process was told of        whoever asks
    run before by this user, from a job file in the same base,  whoever asks
      and still the same (jobs.spec.code.digest)
    the same, edited since                                      what computes, with --accept-changes
    elsewhere on the user's import path                         what computes: resume, gather, a repair
    anywhere else, and whatever lies inside of a store          nobody, before --trust

A base is the folder of a job file, which comes first on the import path. The job file that a user gives, or the driver,
tells a process the job's modules; --trust allows all that a base holds. Only ctd.dotted turns names of modules into
imports; it also says which modules a job names.
"""

import hashlib
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

from ctd.dotted import NoModule, load, module_of, modules_in
from ctd.kernel import Kernel, Kind, field_kinds
from ctd.replacing import replacing
from jobs.errors import JobError
from jobs.spec.code import Code, digest, find, resolved

_allowed: set[tuple[str, str, Path]] = set()
"""(base, module, its file) that this process may import for a job in this base."""
_trusted: set[str] = set()
"""The bases that --trust was given for, in which this process may import everything."""
_added_entries: set[str] = set()
"""Entries that this process itself has added to the import path."""


class Untrusted(JobError):
    """Raised where going on would run code that the user has not said to trust."""


def modules_of(kernel: str, *blocks: Mapping[str, object]) -> set[str]:
    """Return the modules that a job names: its kernel's, and those of texts that name one (`ctd.dotted.module_of`).

    blocks: field of `Params` -> its value, or a mapping or list of values.
    """
    files = _file_fields(kernel)
    fields = [value for block in blocks for name, value in block.items() if name not in files]
    kernel_module = f"ctd.{kernel}" if is_ctds_kernel(kernel) else module_of(f"{kernel}.kernel")
    return {module for module in (kernel_module, *modules_in(fields)) if module}


def allow_and_remember(base: str, modules: Iterable[str]) -> None:
    """Let this process import these modules for a job in this base, and remember their code for later looks.

    Code inside of a store is not remembered, nor anything if the user's folder of settings cannot be written.
    """
    for module, code in allow(base, modules).items():
        # A relative base is the working directory of a cluster's job, which goes with it.
        if os.path.isabs(base) and not _in_store(code.file):
            remember(*_as_run(module, code, base))
            remember(resolved(base), module)


def allow_edited(base: str, modules: Iterable[str]) -> None:
    """`allow_and_remember` those of these modules that this user has run from this base before, edited or not.

    --accept-changes asks for it: the user says that the edit is theirs.
    """
    allow_and_remember(
        base, [module for module in modules if is_remembered(resolved(base), module)]
    )


def allow(base: str, modules: Iterable[str]) -> dict[str, Code]:
    """Let this process import these modules for a job in this base; return the code of those that are not ctd's own."""
    codes = {module: code for module in modules if (code := find(module, base))}
    _allowed.update((resolved(base), module, code.file) for module, code in codes.items())
    return codes


def remember(*names: str) -> None:
    """Note for later processes that this user has named something; do nothing if the settings cannot be written."""
    if is_remembered(*names):
        return
    note = _note(names)
    with suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with replacing(note) as new:
            new.write_bytes(_content(names))


def is_remembered(*names: str) -> bool:
    """Return whether this user has called `remember` with the same names.

    A stranger can compute the name of a note. So a file of that name, such as a page that was written through a link, proves
    nothing; only `remember` writes this content.
    """
    try:
        return _note(names).read_bytes() == _content(names)
    except OSError:
        return False


def _content(names: Sequence[str]) -> bytes:
    """The content of a note: the names themselves, a line each, and nothing else."""
    return "".join(f"{name}\n" for name in names).encode(errors="surrogateescape")


def trust(base: str) -> None:
    """Let this process import whatever a store with this base names, as --trust says."""
    _trusted.add(resolved(base))


def refuse_untrusted(
    base: str, modules: Iterable[str], location: str, only_known: bool = False
) -> None:
    """Raise Untrusted, which begins with `location`, if a command that computes may not import one of these modules.

    only_known: if a command that only looks may not.
    """
    if untrusted := _first_untrusted(base, modules, only_known):
        module, code = untrusted
        if not _in_store(code.file) and is_remembered(resolved(base), module):
            raise Untrusted(
                f"{location}: {code.file}, or a file that it imports, has changed since you ran it; if the change is "
                "yours, --accept-changes of `ctd resume` goes on with it, and --trust of other commands runs it "
                "(docs/security.md)"
            )
        reason = "its job does not name" if only_known else "is not on your import path"
        if _in_store(code.file):
            reason = "lies inside of a store"
        raise Untrusted(
            f"{location}: this would run the code of {code.file}, which {reason}, and you have not run this code, as it is now, from "
            "a job file; --trust runs it, if you trust whoever made the store (docs/security.md)"
        )


def folder_of(base: str, modules: Iterable[str]) -> str | None:
    """Return the folder to put on the import path for these modules: `base`, or None if they need none."""
    base_folder = resolved(base)
    codes = (find(module, base) for module in modules)
    return base if any(code and code.folder == base_folder for code in codes) else None


def is_known(base: str, modules: Iterable[str]) -> bool:
    """Return whether commands that only look may import these modules: all are ctd's own or the user's."""
    return _first_untrusted(base, modules, only_known=True) is None


def is_ctds_kernel(name: str) -> bool:
    """Return whether a job that names this kernel takes one of ctd's own."""
    return _ctds_kernel(name) is not None


def own_code(base: str, modules: Iterable[str]) -> list[Path]:
    """Return the files of these modules that are not ctd's own."""
    codes = [find(module, base) for module in sorted(modules)]
    return [code.file for code in codes if code]


def lies_in_store(base: str, modules: Iterable[str]) -> bool:
    """Return whether one of these modules lies inside of a store: no other process imports it without --trust."""
    return any(map(_in_store, own_code(base, modules)))


def put_on_path(folder: str) -> None:
    """Make a folder the first one that modules are looked for in, unless it is one already."""
    if folder not in sys.path:
        sys.path.insert(0, folder)
        _added_entries.add(folder)


def _first_untrusted(
    base: str, modules: Iterable[str], only_known: bool
) -> tuple[str, Code] | None:
    """Return the first module that may not be imported, and where it lies; None if all may."""
    base_folder = resolved(base)
    if base_folder in _trusted:
        return None
    mine = set() if only_known else _import_path()
    for module in sorted(modules):
        code = find(module, base)
        if code is None or (base_folder, module, code.file) in _allowed:
            continue
        if _in_store(code.file):
            return module, code
        if code.folder not in mine and not is_remembered(*_as_run(module, code, base)):
            return module, code
    return None


def _as_run(module: str, code: Code, base: str) -> tuple[str, str, str]:
    """Return the names by which `remember` notes a module that a job in this base has run; the digest tells it from others."""
    return resolved(base), module, digest(module, code, base)


def _import_path() -> set[str]:
    """Return the user's import path, without the entries that ctd has added and the working directory.

    It includes "", for modules built into Python.
    """
    entries = [entry for entry in sys.path if entry and entry not in _added_entries]
    python_path = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if entries and entries[0] not in python_path and resolved(entries[0]) == resolved("."):
        entries = entries[1:]  # by `python -m`
    return {"", *(resolved(entry) for entry in entries)}


def _in_store(file: Path) -> bool:
    marks = ("zarr.json", "run/job.json", "run/job.copy.json")
    folders = {*file.parents, *file.resolve().parents}
    return any((folder / mark).exists() for folder in folders for mark in marks)


def _note(names: Sequence[str]) -> Path:
    config = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
    name = hashlib.sha256("\0".join(names).encode()).hexdigest()[:32]
    return config / "ctd" / "trusted" / name


def _file_fields(kernel: str) -> set[str]:
    """Return the fields whose values are files, which a kernel of ctd's reads and never imports."""
    ctds_kernel = _ctds_kernel(kernel)
    kinds = field_kinds(ctds_kernel.Params) if ctds_kernel else {}
    return {name for name, kind in kinds.items() if kind is Kind.FILE}


@cache
def _ctds_kernel(name: str) -> Kernel | None:
    try:
        kernel = load(f"ctd.{name}.kernel", "kernel")
    except (NoModule, ModuleNotFoundError):  # or one of ctd's that needs more than is installed
        return None
    return kernel if isinstance(kernel, Kernel) else None
