"""Load a user's code by its dotted path: the one place where a text of a job leads to an import.

`module_of` says which module a text names, and `load` imports that one and no other. So a caller that lists
the modules of a job (jobs.spec.trust) lists everything that the job's parameters can import.
"""

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

INSTALLED = {"site-packages", "dist-packages"}
"""Folders of installed packages, on any machine."""


class NoModule(ValueError):
    """Raised where a text is no dotted path, or there is no such module."""


def module_of(text: str) -> str | None:
    """Return the module that a text names; None if it names none.

    It is `a.b` of the dotted path `a.b.attribute`, alone or after a colon, as in `leaky:a.b.attribute`. Each part
    has to be an identifier of Python.
    """
    *module, attribute = text.rpartition(":")[2].split(".")
    is_path = module and all(part.isidentifier() for part in (*module, attribute))
    return ".".join(module) if is_path else None


def modules_in(value: object) -> Iterator[str]:
    """Yield the modules that the texts in a value name: in lists and in the values of mappings, at any depth."""
    if isinstance(value, str):
        if module := module_of(value):
            yield module
    elif isinstance(value, Mapping | list | tuple):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from modules_in(inner)


def load(path: str, source: str) -> Any:
    """Import the module of the dotted path `module.attribute`; return the attribute, or None if it has none.

    Raises NoModule, whose text begins with `source`, if `path` is no dotted path or there is no such module. Exceptions of the module
    itself are passed on, such as one for a module that it misses.
    """
    module = None if ":" in path else module_of(path)
    if module is None:
        raise NoModule(f"{source}: {path!r} is no dotted path; give it as module.attribute")
    try:
        imported = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not (module == error.name or module.startswith(f"{error.name}.")):
            raise
        raise NoModule(f"{source}: there is no module {error.name}") from None
    return getattr(imported, path.rpartition(".")[2], None)
