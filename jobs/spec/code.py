"""Find the code of a module, the modules that it imports, and a digest of all of them, without importing any.

Import statements are read, not executed: what a module imports by a computed name is not seen.
"""

import ast
import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path
from pkgutil import iter_modules
from typing import NamedTuple

from ctd.dotted import INSTALLED

_resolutions: dict[str, str] = {}
"""Folder -> its absolute path when it was last asked for."""


class Code(NamedTuple):
    """The files that an import of a module would execute."""

    file: Path
    """Its file; where there is only a package that it would lie in, that package's."""
    folder: str
    """The entry of the import path at which it is found; "" for a module built into Python."""
    files: tuple[Path, ...]
    """Every file that the import executes: those of its packages, outermost first, and its own."""
    is_whole: bool
    """True if the module itself exists, and not only a package that it would lie in."""


def find(module: str, base: str) -> Code | None:
    """Return the code that importing a module would run, with `base` first on the import path unless it is there already.

    If only the package a of a.b exists, this is the code of a. None: neither exists, or the module is ctd's own.
    """
    if module.partition(".")[0] == "ctd":
        return None
    return locate(module, list(sys.path) if base in sys.path else [resolved(base), *sys.path])


def locate(module: str, path: list[str], installed: bool = True) -> Code | None:
    """Find code as `find` does, on a given path. installed: look for packages installed to be edited, too, which no path leads to."""
    files: list[Path] = []
    folder = ""
    parts = module.split(".")
    for k, name in enumerate(parts, start=1):  # not in full: that would ask for what it lies in
        spec = PathFinder.find_spec(name, path)
        if spec is None and k == 1 and installed:
            spec = _installed(name)
        if spec is None:
            break
        file = _place(spec)
        path = list(spec.submodule_search_locations or [])
        if file is None:  # built into Python
            files.append(Path(f"{spec.origin or 'built-in'} {name}"))
            continue
        folder = folder or resolved(str(file.parents[1 if path else 0]))
        files.append(file)
    is_whole = len(files) == len(parts)
    return Code(files[-1], folder, tuple(files), is_whole) if files else None


def digest(module: str, code: Code, base: str) -> str:
    """Return a digest of the code that importing a module runs: its own, and that of its packages.

    If the module lies in `base`, the digest covers two more kinds of files in `base`: those that this code imports, and those
    that hide others of the same name, which any module may import.
    """
    base_folder = resolved(base)
    files = dict.fromkeys(code.files)
    if code.folder == base_folder:
        files |= dict.fromkeys(_shadows(base_folder))
        waiting, visited = [module], set[str]()
        while waiting:
            name = waiting.pop()
            imported = None if name in visited else locate(name, [base_folder], installed=False)
            visited.add(name)
            for k, file in enumerate(imported.files if imported else ()):
                files[file] = None
                package = ".".join(name.split(".")[: k + 1])
                waiting += imports_of(_content(file), package, file.name == "__init__.py")
    contents = {os.path.realpath(f) if f.is_absolute() else str(f): _content(f) for f in files}
    lines = [
        f"{hashlib.sha256(text).hexdigest()} {name}" for name, text in sorted(contents.items())
    ]
    return hashlib.sha256(os.fsencode("\n".join(lines))).hexdigest()


def _shadows(folder: str) -> Iterator[Path]:
    """Yield the files of a folder that are imported in place of Python's or a package's if it comes first on the path."""
    others = [entry for entry in sys.path if INSTALLED & set(Path(entry).parts)]
    for _, name, _ in iter_modules([folder]):
        hides = name in sys.stdlib_module_names or PathFinder.find_spec(name, others) is not None
        if hides and (code := locate(name, [folder], installed=False)):
            yield from code.files


def _content(file: Path) -> bytes:
    """Return the bytes of a file; b"" for what has none: a package without `__init__.py`, a module built into Python."""
    with suppress(OSError):
        return file.read_bytes()
    return b""


def _installed(top: str) -> ModuleSpec | None:
    """Return the spec of a module that no entry of the path leads to, as in an editable install; None if there is none."""
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


def resolved(folder: str) -> str:
    """Return the absolute path of a folder without links; for a folder that is gone, the last path that it had."""
    with suppress(OSError):  # "." of a Ray job whose folder Ray has replaced
        _resolutions[folder] = os.path.realpath(folder)
    return _resolutions.get(folder, folder)


# --- import statements ----------------------------------------------------------------------------


@lru_cache(1024)
def imports_of(text: bytes, module: str, is_package: bool) -> tuple[str, ...]:
    """Return what the source of a module imports; `from a import b` may mean the module a, or a.b.

    Cached: a plan, a run and its worker ask in turn, and to parse the modules of one kernel takes a tenth of a second.
    """
    package = module if is_package else module.rpartition(".")[0]
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # nobody can import it either
        return ()
    modules: dict[str, None] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                modules |= dict.fromkeys(_with_parents(alias.name))
        elif isinstance(node, ast.ImportFrom):
            start = package.rsplit(".", node.level - 1)[0] if node.level else ""
            source = ".".join(part for part in (start, node.module) if part)
            modules |= dict.fromkeys(_with_parents(source))
            modules |= {f"{source}.{alias.name}": None for alias in node.names}
    return tuple(modules)


def _with_parents(module: str) -> Iterator[str]:
    """Yield a, a.b and a.b.c for a.b.c."""
    return accumulate(module.split("."), "{}.{}".format)
