"""Whose code may be imported: a store names modules of whoever made it, and looking at it must not run them.

    code                                                        imported by
    ctd's own, or with a base that this process was told of     whoever asks
    run before by this user, from a job file in the same base   whoever asks
    elsewhere on the user's import path                         what computes: resume, gather, a repair
    anywhere else, and whatever lies inside of a store          nobody, before --trust

A base is the folder of a job file, which comes first on the import path. A process is told of one by the job
file that a user gives, by --trust, or by the driver that it works for.
"""

import hashlib
import importlib
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from ctd.kernel import Kernel, Kind, field_kinds
from jobs.errors import JobError

_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
"""A module, or something in one."""

_told: set[str] = set()
"""The bases that this process was told of."""
_added: set[str] = set()
"""What this process has put on the import path itself."""


_resolutions: dict[str, str] = {}
"""Folder -> its absolute path when it was last asked for."""


class Untrusted(JobError):
    """Raised where going on would run code that the user has not said to trust."""


class Code(NamedTuple):
    """Where a module would be imported from."""

    file: Path
    folder: str
    """The entry of the import path that it is found by."""


def modules_of(kernel: str, *blocks: Mapping[str, Any]) -> set[str]:
    """Return the modules that a job names: its kernel, and those in texts such as `module.attribute` or `what:module.attribute`.

    blocks: field of `Params` -> its value, or whatever else holds values.
    """
    files = _file_fields(kernel)
    fields = [value for block in blocks for name, value in block.items() if name not in files]
    paths = [text.rpartition(":")[2] for text in _texts(fields)]
    found = {path.rpartition(".")[0] for path in paths if _DOTTED.fullmatch(path)}
    return (found - {""}) | {f"ctd.{kernel}" if is_ctds_kernel(kernel) else kernel}


def tell(base: str, modules: Iterable[str]) -> None:
    """Let this process import whatever a job in this base names, and remember these modules for later looks.

    Code inside of a store is not remembered, nor anything if the user's folder of settings cannot be written.
    """
    here = _resolved(base)
    _told.add(here)
    if not os.path.isabs(base):  # the working directory of a cluster's job, which goes with it
        return
    for module in modules:
        code = find(module, base)
        if code and not _in_store(code.file):
            remember(here, module)


def remember(*what: str) -> None:
    """Note for later that this user has named something; without a word if the settings cannot be written."""
    note = _note(what)
    with suppress(OSError):
        if not note.exists():
            note.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            note.write_text("\n".join(what) + "\n")


def is_remembered(*what: str) -> bool:
    """Whether `remember` was called with the same by this user."""
    return _note(what).exists()


def trust(base: str) -> None:
    """Let this process import whatever a store with this base names, as --trust says."""
    _told.add(_resolved(base))


def refuse_strange(base: str, modules: Iterable[str], where: str, only_known: bool = False) -> None:
    """Raise Untrusted, which `where` begins, if what computes may not import one of these modules.

    only_known: what looking may import, and no more.
    """
    if code := _strange(base, modules, only_known):
        why = "is not on your import path"
        if only_known:
            why = "its job does not name"
        if _in_store(code.file):
            why = "lies inside of a store"
        raise Untrusted(
            f"{where}: this would run the code of {code.file}, which {why}, and which you have not run from a "
            "job file; --trust runs it, if you trust whoever made the store (docs/security.md)"
        )


def folder_of(base: str, modules: Iterable[str]) -> str | None:
    """Return what has to be put on the import path to import these modules: `base`, or None."""
    here = _resolved(base)
    found = (find(module, base) for module in modules)
    return base if any(code and code.folder == here for code in found) else None


def is_known(base: str, modules: Iterable[str]) -> bool:
    """Whether all these modules are ctd's own or the user's, so that looking may import them."""
    return _strange(base, modules, only_known=True) is None


def is_ctds_kernel(name: str) -> bool:
    """Whether a job that names this kernel takes one of ctd's own."""
    return _ctds_kernel(name) is not None


def own_code(base: str, modules: Iterable[str]) -> list[Path]:
    """Return the files of these modules that are not ctd's own."""
    found = [find(module, base) for module in sorted(modules)]
    return [code.file for code in found if code]


def put_on_path(folder: str) -> None:
    """Make a folder the first one that modules are looked for in, unless it is one already."""
    if folder not in sys.path:
        sys.path.insert(0, folder)
        _added.add(folder)


def find(module: str, base: str) -> Code | None:
    """Return where a module would come from, with `base` first on the import path; imports nothing.

    If there is only a package that it would lie in, that is imported on the way, and returned. None: neither,
    or a module of ctd.
    """
    if module.partition(".")[0] == "ctd":
        return None
    found: Code | None = None
    path: list[str] | None = [_resolved(base), *sys.path]
    parts = module.split(".")
    for k, name in enumerate(parts, start=1):  # not in full: that would ask for what it lies in
        spec = PathFinder.find_spec(name, path) or (_installed(name) if k == 1 else None)
        place = _place(spec) if spec else None
        if spec is None or place is None:
            break
        path = list(spec.submodule_search_locations or [])
        folder = place.parents[k if path else k - 1]
        found = Code(place, _resolved(str(folder)))
    return found


def _strange(base: str, modules: Iterable[str], only_known: bool) -> Code | None:
    """Return where the first module lies that may not be imported; None if all may."""
    here = _resolved(base)
    if here in _told:
        return None
    mine = set() if only_known else _import_path()
    for module in sorted(modules):
        code = find(module, base)
        if code is None or code.folder in _told:
            continue
        fine = code.folder in mine or is_remembered(here, module)
        if not fine or _in_store(code.file):
            return code
    return None


def _import_path() -> set[str]:
    """Return the user's own import path: not what we have added, nor the folder that a process happens to be in."""
    own = [entry for entry in sys.path if entry and entry not in _added]
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if own and own[0] not in given and _resolved(own[0]) == _resolved("."):
        own = own[1:]  # by `python -m`
    return {_resolved(entry) for entry in own}


def _in_store(file: Path) -> bool:
    marks = ("zarr.json", "run/job.json", "run/job.copy.json")
    folders = {*file.parents, *file.resolve().parents}
    return any((folder / mark).exists() for folder in folders for mark in marks)


def _note(what: Sequence[str]) -> Path:
    config = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
    digest = hashlib.sha256("\0".join(what).encode()).hexdigest()
    return config / "ctd" / "trusted" / digest[:32]


def _file_fields(kernel: str) -> set[str]:
    """Return the fields whose values are files, which a kernel of ctd's reads and never imports."""
    found = _ctds_kernel(kernel)
    kinds = field_kinds(found.Params) if found else {}
    return {name for name, kind in kinds.items() if kind is Kind.FILE}


@cache
def _ctds_kernel(name: str) -> Kernel | None:
    if not _DOTTED.fullmatch(name):
        return None
    try:
        found = getattr(importlib.import_module(f"ctd.{name}"), "kernel", None)
    except ModuleNotFoundError:
        return None
    return found if isinstance(found, Kernel) else None


def _installed(top: str) -> ModuleSpec | None:
    """Return the spec of a module that is not found by path, as of packages that are installed to be edited."""
    try:
        return find_spec(top)
    except (ImportError, ValueError):
        return None


def _place(spec: ModuleSpec) -> Path | None:
    """Return the file of a module; for a package without one, the `__init__.py` that it would have."""
    if spec.has_location and spec.origin:
        return Path(spec.origin).absolute()
    folders = list(spec.submodule_search_locations or [])
    return Path(folders[0]).absolute() / "__init__.py" if folders else None


def _resolved(folder: str) -> str:
    with suppress(OSError):  # "." of a Ray job whose folder Ray has replaced
        _resolutions[folder] = os.path.realpath(folder)
    return _resolutions.get(folder, folder)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(inner)
