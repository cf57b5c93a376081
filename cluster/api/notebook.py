"""What a user typed into a notebook or a script, as a module that workers can import.

Objects of `__main__` cannot be imported elsewhere. Their source is cut out (`slice`) and written to one module,
which lies with the store: STORE/run/code, or $CTD_CACHE/code for a store that is not a folder.
"""

import hashlib
import importlib
import re
import sys
from collections.abc import Sequence
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any

from cluster.api.slice import module_text
from cluster.cache import cache_home
from ctd.kernel import Kernel
from jobs import keys
from jobs.errors import JobError
from jobs.storage import objects

_folders: set[str] = set()
"""Where this process has written modules."""


def is_typed(thing: Any) -> bool:
    """Whether a kernel, class or function was defined in this notebook or script, and in no module."""
    if isinstance(thing, Kernel):
        return any(value is thing for value in vars(sys.modules["__main__"]).values())
    return getattr(thing, "__module__", None) == "__main__"


def name_of(thing: Any) -> str:
    """Return the name that a thing has in this notebook or script; JobError if it has none."""
    names = [name for name, value in vars(sys.modules["__main__"]).items() if value is thing]
    names = [name for name in names if not name.startswith("_")] or names  # IPython's _1, _
    if not names:
        raise JobError(
            f"{thing!r:.60}: give it a name first, `x = ...`, so that its source can be found"
        )
    return names[0]


def cells() -> list[str]:
    """Return what was executed so far: the cells of a notebook, or the text of a script.

    Raises JobError where Python keeps no source, as in its own prompt.
    """
    main = sys.modules["__main__"]
    if shell := getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)():
        return [str(cell) for cell in shell.history_manager.input_hist_parsed]
    if path := getattr(main, "__file__", None):
        return [Path(path).read_text()]
    raise JobError(
        "a kernel or task typed at Python's prompt has no source that could be kept; write it into a module, "
        "a script or a notebook"
    )


def text_of(kernel: str | None, names: Sequence[str]) -> str:
    """Return the source of a module with these names of the notebook; kernel: the name of the one that is its kernel."""
    wanted = [*names, *([kernel] if kernel else [])]
    text = module_text(wanted, cells())
    named = f"\n\nkernel = {kernel}\n" if kernel and kernel != "kernel" else ""
    return (
        f'"""Cut out of a notebook or script: what defines {", ".join(wanted)}."""\n\n{text}{named}'
    )


def module_name(title: str) -> str:
    """Return what the module of a job with this title is called."""
    return "notebook_" + re.sub(r"\W", "_", title)


def code_folder(store: str, text: str) -> Path:
    """Return where the module of a store lies."""
    if (path := objects.local_path(store)) is not None:
        return path.expanduser().absolute() / keys.CODE
    return cache_home() / "code" / hashlib.sha256(text.encode()).hexdigest()[:16]


def write_module(folder: Path, name: str, text: str) -> None:
    """Write the module where it is not there yet, and have this process import it anew, from there."""
    path = folder / f"{name}.py"
    if not path.exists() or path.read_text() != text:
        folder.mkdir(parents=True, exist_ok=True)
        # Python takes a compiled file for the module's as long as size and second of change agree.
        Path(cache_from_source(str(path))).unlink(missing_ok=True)
        path.write_text(text)
    _folders.add(str(folder))
    sys.path[:] = [
        entry for entry in sys.path if entry not in _folders
    ]  # the job puts its own there
    sys.modules.pop(name, None)
    importlib.invalidate_caches()
