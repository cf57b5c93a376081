"""Find kernels by name: those of ctd, and users' own modules."""

from __future__ import annotations

import ast
import pkgutil
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from ctd.dotted import NoModule, load
from ctd.kernel import Kernel
from ctd.words import did_you_mean

BOUND = r"^kernel = "
BOUND_OR_IMPORTED = rf"{BOUND}|^from \S+ import .*\bkernel\b"
"""Patterns of a module that defines its kernel. A folder of ctd may import the kernel of a module in it; parts import kernels for other ends."""


def kernel_names() -> tuple[str, ...]:
    """The names of ctd's kernels: every module `ctd.NAME` or `ctd.NAME.PART` that defines `kernel`.

    >>> "lfads.posterior" in kernel_names()
    True
    """
    return tuple(summaries())


@cache
def summaries() -> dict[str, str]:
    """Kernel of ctd -> the docstring of its module, read from the source: no kernel is imported."""
    by_name = {}
    for name, path in _modules(Path(__file__).parent, ""):
        text = path.read_text(encoding="utf-8")
        if re.search(BOUND if "." in name else BOUND_OR_IMPORTED, text, re.MULTILINE):
            sentence = (ast.get_docstring(ast.parse(text)) or "").removeprefix("Kernel: ")
            # The first letter after "Kernel: " begins a sentence in a list.
            by_name[name] = sentence[:1].upper() + sentence[1:]
    return dict(sorted(by_name.items()))


def _modules(folder: Path, prefix: str) -> Iterator[tuple[str, Path]]:
    """(dotted name, source) of every module below a folder that may hold a kernel."""
    for module in pkgutil.iter_modules([str(folder)]):
        name, path = prefix + module.name, folder / module.name
        if module.ispkg:
            yield name, path / "__init__.py"
            yield from _modules(path, f"{name}.")
        elif module.name != "kernel":  # of a folder: its __init__ shows it; ctd.kernel: this file
            yield name, path.with_suffix(".py")


class UnknownKernel(ValueError):
    """No module of this name, or none that defines a kernel."""


def load_kernel(name: str, folder: str | None = None) -> Kernel:
    """The kernel called `name`: a module of ctd, or the dotted path of a user's own module, perhaps in the job's folder.

    Raises UnknownKernel, naming the nearest kernel, where there is none. Exceptions of the user's module on
    import are passed on.
    """
    kernel: Kernel = load(f"{find_module(name, folder)}.kernel", "kernel")
    return kernel


def find_module(name: str, folder: str | None = None) -> str:
    """The dotted path of the module that holds the kernel called `name`; raises as `load_kernel`."""
    if name.endswith(".py") or "/" in name:
        stem = Path(name).name.removesuffix(".py")
        _refuse_file(name, stem)
        raise UnknownKernel(
            f"kernel: {name!r}: the dotted path of a module expected, such as {stem!r} for a file beside the job"
        )
    for path in (f"ctd.{name}", name):
        try:
            if isinstance(load(f"{path}.kernel", "kernel"), Kernel):
                return path
        except NoModule:
            continue
    if (module := sys.modules.get(name)) is not None:
        raise UnknownKernel(
            f"kernel: {name!r}: {getattr(module, '__file__', None) or 'that module'} defines no `kernel`; end it "
            "with `kernel = Kernel(...)` or `kernel = one_shot(...)` of ctd.kernel"
        )
    names = kernel_names()
    stems = [path.stem for path in Path(folder).glob("*.py")] if folder else []
    for stem in stems:
        if _importable(stem) == _importable(name):
            _refuse_file(name, stem)
    listed = (
        f"; ctd has {', '.join(names)}. A kernel of your own is named by the dotted path of its module, which defines `kernel` and "
        "lies beside the job file or is installed"
    )
    raise UnknownKernel(
        f"kernel: {name!r} is unknown{did_you_mean(name, {*names, *stems}) or listed}"
    )


def _importable(name: str) -> str:
    """The name with underscores where a module's may not have what stands there."""
    return re.sub(r"\W|^(?=\d)", "_", name)


def _refuse_file(name: str, stem: str) -> None:
    """Raise UnknownKernel if Python imports no file of this name."""
    if not stem.isidentifier():
        raise UnknownKernel(
            f"kernel: {name!r}: Python cannot import {stem}.py; rename the file to {_importable(stem)}.py, and give "
            f"`kernel: {_importable(stem)}`"
        )
