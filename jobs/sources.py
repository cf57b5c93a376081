"""The source code that a job's results come from: its kernel, and what that imports of the user's own and
of ctd. A store is made by one state of it; where it has been edited since, a run is refused.

Followed are the `import` statements of the kernel's module and of modules whose dotted path is a value of
the job (a task, a map). Installed packages other than the kernel's own and ctd are not source but versions.
"""

import ast
import hashlib
import importlib.util
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from jobs import objects
from jobs.errors import JobError
from jobs.job import write_job
from jobs.spec import JobSpec, find_kernel
from jobs.store import Store

STANDARD = [Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")]
INSTALLED = {"site-packages", "dist-packages"}


def sources_of(spec: JobSpec, base: str) -> dict[str, str]:
    """Module -> sha256 of its file, for all source code of a job. JobError for an unknown kernel."""
    find_kernel(spec.kernel, base)  # which puts `base` on the path
    roots = [_kernel_module(spec.kernel), "ctd.batch", *_named(spec.model_dump(mode="json"))]
    packages = {root.partition(".")[0] for root in roots}
    found: dict[str, str] = {}
    waiting = roots
    while waiting:
        module = waiting.pop()
        if module in found or not _is_own(module, packages) or (path := _file(module)) is None:
            continue
        text = path.read_bytes()
        found[module] = hashlib.sha256(text).hexdigest()
        waiting += _imports(text, module, path.name == "__init__.py")
    return dict(sorted(found.items()))


def combined(sources: Mapping[str, str]) -> str:
    """One short digest for all of them, as commit markers have it."""
    return hashlib.sha256("".join(f"{k} {v}\n" for k, v in sources.items()).encode()).hexdigest()[
        :12
    ]


def changed(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The modules that were edited, added or removed."""
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def refuse_changed(store: Store) -> None:
    """JobError where the source of a job is not what its store was made with."""
    job = store.job
    if not job.sources:  # made before sources were kept
        return
    if edited := changed(job.sources, sources_of(job.spec, job.base)):
        raise JobError(
            f"{store.address}: the source of kernel {job.spec.kernel} has changed since the store was made: "
            f"{_shortened(edited)}. For results of the new source give --store another path, or delete the store; "
            f"`ctd resume {store.address} --accept-changes` keeps what is done and goes on with the new source"
        )


def accept_changes(store: Store) -> list[str]:
    """Make the source as it is now the store's, for a caller who has its lease; returns the modules that
    have changed. Committed shards stay, those under way begin anew."""
    job = store.job
    now = sources_of(job.spec, job.base)
    edited = changed(job.sources, now)
    if edited:
        objects.delete_all(store.objects, "run/checkpoints")
        store.job = replace(job, sources=now)
        write_job(store.objects, store.job)
    return edited


def _shortened(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _kernel_module(name: str) -> str:
    return f"ctd.{name}" if _file(f"ctd.{name}") else name


def _named(value: Any) -> Iterator[str]:
    """The modules that the texts of a job name as `module.attribute`."""
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from _named(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _named(inner)
    elif isinstance(value, str) and all(part.isidentifier() for part in value.split(".")):
        module = value.rpartition(".")[0]
        if module and not module.startswith("ctd.") and _file(module):
            yield module


def _is_own(module: str, packages: set[str]) -> bool:
    """Whether a module belongs to the packages of a job, or lies where nothing is installed."""
    top = module.partition(".")[0]
    if top in packages:
        return True
    path = _place(top)  # of the package alone: to look for a module inside it would import it
    if path is None or any(path.is_relative_to(folder) for folder in STANDARD):
        return False
    return not INSTALLED & set(path.parts)


def _file(module: str) -> Path | None:
    """The file of a module of Python source, if there is one."""
    path = _place(module)
    return path if path and path.suffix == ".py" else None


def _place(module: str) -> Path | None:
    """The file of a module, or a folder of a package that has none."""
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    if found is None or found.origin in ("built-in", "frozen"):
        return None
    folders = list(found.submodule_search_locations or [])
    place = found.origin or (folders[0] if folders else None)
    return Path(place).resolve() if place else None


def _imports(text: bytes, module: str, is_package: bool) -> Iterator[str]:
    """What a module imports: `from a import b` may mean the module a, or a.b."""
    package = module if is_package else module.rpartition(".")[0]
    try:
        nodes = ast.walk(ast.parse(text))
    except SyntaxError:  # of a module that nobody has imported yet
        return
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _with_parents(alias.name)
        elif isinstance(node, ast.ImportFrom):
            start = package.rsplit(".", node.level - 1)[0] if node.level else ""
            source = ".".join(part for part in (start, node.module) if part)
            yield from _with_parents(source)
            for alias in node.names:
                yield f"{source}.{alias.name}"


def _with_parents(module: str) -> Iterator[str]:
    parts = module.split(".")
    for k in range(1, len(parts) + 1):
        yield ".".join(parts[:k])
