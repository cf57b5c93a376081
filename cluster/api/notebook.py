"""Turn what a notebook or a script gives a Job into what workers read: a module of its definitions, and fields of a job file.

Workers cannot import objects of `__main__`. `slice` cuts out their source, which is written to one module with the store:
in STORE/run/code, or in $CTD_CACHE/code for a store that is not a folder.
"""

import dis
import functools
import importlib
import linecache
import re
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any

import numpy as np

from cluster.api.slice import module_text, names_at_call
from cluster.cache import cache_home
from ctd.kernel import Kernel
from ctd.late import jax
from ctd.replacing import replacing
from jobs import keys
from jobs.errors import JobError
from jobs.storage import addresses
from jobs.storage.checksums import digest
from jobs.store.store import Store

AT_TOP = (
    "give values at the top level, by `x = ...` or `x.update(...)`, before the Job is made (a generator of random "
    "numbers anew, for each array), or write the kernel into a module of its own"
)
ALONE = f"{keys.TYPED}alone"
"""Name of the module in which the code that was cut out is tried."""
MOST = 40
"""Most characters of a value's text in an error."""
_folders: set[str] = set()
"""The folders in which this process has written modules."""


def is_typed(thing: object) -> bool:
    """Whether a kernel, class or function was defined in this notebook or script, not in a module."""
    if isinstance(thing, Kernel):
        return home_of(thing) is None and any(
            value is thing for value in vars(sys.modules["__main__"]).values()
        )
    return getattr(thing, "__module__", None) == "__main__"


def home_of(kernel: Kernel) -> str | None:
    """The module that has a kernel as `kernel`; None if it was typed."""
    home = kernel.Params.__module__
    # `Params` stands in the kernel's module, or in a module of its package.
    names = [name for name in (home, home.rpartition(".")[0]) if name != "__main__"]
    return next((n for n in names if getattr(sys.modules.get(n), "kernel", None) is kernel), None)


def name_of(thing: object) -> str:
    """The name of an object in this notebook or script. Raises JobError if it has none."""
    names = [name for name, value in vars(sys.modules["__main__"]).items() if value is thing]
    # IPython binds results to _1, _ and the like.
    names.sort(key=lambda name: name.startswith("_"))
    if not names:
        raise JobError(f"{thing!r:.60}: its source is found by its name; give it one, `x = ...`")
    return names[0]


def text_of(kernel: str | None, names: Sequence[str]) -> str:
    """The source of a module with these names of the notebook. kernel: the name that becomes the module's `kernel`.

    Raises JobError if there is no source, or a name that functions read has another value in the module than in the notebook.
    """
    wanted = [*names, *([kernel] if kernel else [])]
    frame = _frame_now()
    text = module_text(wanted, _cells(frame), frame and frame.f_lineno)
    _refuse_other_values(text, wanted)
    named = f"\n\nkernel = {kernel}\n" if kernel and kernel != "kernel" else ""
    head = f"Cut out of a notebook or script: what defines {', '.join(wanted)}."
    return f'"""{head}"""\n\n{text}{named}'


def _frame_now() -> types.FrameType | None:
    """The frame that executes a cell, or the script; None in another thread."""
    space = vars(sys.modules["__main__"])
    frame: types.FrameType | None = sys._getframe()
    # It has the names of `__main__` as its locals.
    while frame is not None and frame.f_locals is not space:
        frame = frame.f_back
    return frame


def _cells(frame: types.FrameType | None) -> list[str]:
    """The source that was executed so far: the cells of a notebook, or the text of a script. The last one is being executed.

    Raises JobError if Python keeps no source, as in its own prompt.
    """
    main = sys.modules["__main__"]
    if shell := getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)():
        history = [str(cell) for cell in shell.history_manager.input_hist_parsed]
        return _cells_of_ipython(history, frame)
    if path := getattr(main, "__file__", None):
        return [Path(path).read_text()]
    raise JobError(
        "what is typed at Python's prompt has no source to keep; write the kernel or task into a module, a script or a notebook"
    )


def _cells_of_ipython(history: list[str], frame: types.FrameType | None) -> list[str]:
    """The cells, and the files that IPython has executed, which its history leaves out: by `%run` or on its command line."""
    here = vars(sys.modules["__main__"]).values()
    functions = [value for value in here if isinstance(value, types.FunctionType)]
    # `%run` takes the name away from the globals of its functions.
    codes = [f.__code__ for f in functions if f.__globals__.get("__name__", "__main__") == "__main__"]  # fmt: skip
    text_of_file = lambda code: "".join(linecache.getlines(code.co_filename)).rstrip("\n")
    files = dict.fromkeys(map(text_of_file, codes))
    now = text_of_file(frame.f_code) if frame else ""
    if now and history[-1:] != [now]:
        history = [*history, now]
    return [*(text for text in files if text not in history), *history]


def _refuse_other_values(text: str, names: Sequence[str]) -> None:
    """Raise JobError if a module's functions would compute with other values than those of the notebook do now."""
    wanted = " and ".join(names)
    module = types.ModuleType(ALONE)
    # Classes look up the names in their annotations in their module.
    sys.modules[ALONE] = module
    try:
        exec(compile(text, ALONE, "exec"), vars(module))  # noqa: S102  what the user has executed
    except Exception as error:
        raise JobError(
            f"{wanted}: its source, executed without the rest of this notebook or script, raises {type(error).__name__}: {error}; "
            f"{AT_TOP}"
        ) from None
    finally:
        del sys.modules[ALONE]
    here, there = vars(sys.modules["__main__"]), vars(module)
    # In the order of definition: the first that differs makes later ones differ.
    others = [name for name in there if name in here and not _same(here[name], there[name])]
    if refused := sorted((names_at_call(text) | set(names)) & set(others)):
        causes = [name for name in others if name in refused or not name.startswith("__")]
        # A value says more than code.
        name = next((n for n in [*refused, *causes] if not _is_code(here[n])), causes[0])
        reads = "" if name in names else f"{wanted} reads it; "
        raise JobError(
            f"{name}: {reads}{_difference(here[name], there[name])}, which executes only the statements that define it; {AT_TOP}"
        )


def _is_code(value: object) -> bool:
    """Whether the text of a value does not tell what it computes."""
    return callable(value) or isinstance(value, Kernel)


def _difference(here: object, there: object) -> str:
    """How a value differs, as the beginning of a sentence."""
    # The text of an object without one of its own is its address.
    texts = [re.sub(" at 0x[0-9a-f]+", "", repr(value)) for value in (here, there)]
    if _is_code(here) or texts[0] == texts[1]:
        return f"another {type(here).__name__} of this name is here than on a worker"
    short = [text if len(text) <= MOST else text[: MOST - 3] + "..." for text in texts]
    return f"it is {short[0]} here, but {short[1]} on a worker"


def _same(a: Any, b: Any, seen: dict[tuple[int, int], Any] | None = None) -> bool:
    """Whether two values compute the same, as far as it can be seen; of what is opaque, only the type is compared."""
    seen = {} if seen is None else seen
    # Kept, so that no other object gets their ids meanwhile; things may refer to themselves.
    if a is b or (id(a), id(b)) in seen:
        return True
    seen[id(a), id(b)] = a, b
    same = lambda x, y: _same(x, y, seen)
    # A class of the notebook is defined twice, here and in the module.
    ours = type(a).__module__ == "__main__" and type(a).__qualname__ == type(b).__qualname__
    if type(a) is not type(b) and not ours:
        return False
    if isinstance(a, Mapping):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, bool | int | float | complex | str | bytes | set | frozenset):
        return bool(a == b or (a != a and b != b))
    # Not arrays of objects, nor JAX's random keys, of which `_parts` takes the numbers.
    arrays = np.ndarray | np.generic | jax.Array
    if isinstance(a, arrays) and getattr(a.dtype, "kind", "O") != "O":
        equal = np.array_equal(np.asarray(a), np.asarray(b), equal_nan=a.dtype.kind in "fc")
        return a.dtype == b.dtype and equal
    if isinstance(a, types.ModuleType):
        return True
    return same(_parts(a), _parts(b))


def _steps(code: types.CodeType) -> list[tuple[str, object]]:
    """The instructions of a function with their arguments.

    Left out is what depends on the text around it: Python compiles the call in `jnp.log(x)` in another way if the same text
    imports `jnp`, as a script does and a cell of a notebook does not.
    """
    left_out = ("PUSH_NULL", "EXTENDED_ARG", "NOP")
    steps = [step for step in dis.get_instructions(code) if step.opname not in left_out]

    def argument(step: dis.Instruction) -> object:
        if step.opcode in dis.hasjrel:  # the offset of its target, which may be left out
            return sum(other.offset < step.argval for other in steps)
        return step.argval if step.opname == "LOAD_ATTR" else step.arg

    return [(step.opname, argument(step)) for step in steps]


def _parts(thing: Any) -> Any:
    """What a function, a class or an object computes with."""
    if isinstance(thing, types.CodeType):
        return _steps(thing), thing.co_names, thing.co_varnames, thing.co_freevars, thing.co_consts
    if isinstance(thing, types.FunctionType):
        cells = [cell.cell_contents for cell in thing.__closure__ or ()]
        return thing.__code__, thing.__defaults__, thing.__kwdefaults__, cells
    if isinstance(thing, jax.Array) and jax.numpy.issubdtype(thing.dtype, jax.dtypes.prng_key):
        return jax.random.key_data(thing)
    if isinstance(thing, types.MethodType):
        return thing.__func__, thing.__self__
    if isinstance(thing, functools.partial):
        return thing.func, thing.args, thing.keywords
    if isinstance(thing, type):
        if not is_typed(thing) and thing.__module__ != ALONE:
            return None
        used = (types.FunctionType, bool, int, float, str, tuple)
        apart = ("__module__", "__firstlineno__")
        own = {k: v for k, v in vars(thing).items() if isinstance(v, used) and k not in apart}
        fields = {k: f.default for k, f in getattr(thing, "model_fields", {}).items()}
        return own, fields
    if hasattr(thing, "__wrapped__"):  # by jax.jit
        return thing.__wrapped__
    return getattr(thing, "__dict__", None)


def module_name(title: str) -> str:
    """The name of the module of a job with this title.

    >>> module_name("my sweep")
    'notebook_my_sweep'
    """
    return keys.TYPED + re.sub(r"\W", "_", title)


def code_folder(store: str, text: str) -> Path:
    """The folder of a store's module with this text."""
    if (path := addresses.local_path(store)) is not None:
        return path.expanduser().absolute() / keys.CODE
    return cache_home() / "code" / digest(text.encode())[:16]


def write_module(folder: Path, name: str, text: str) -> None:
    """Write a module, unless it is there already, and let this process import it again from there."""
    path = folder / f"{name}.py"
    if not path.exists() or path.read_text() != text:
        folder.mkdir(parents=True, exist_ok=True)
        # Python would use the old compiled file as long as size and modification second agree.
        Path(cache_from_source(str(path))).unlink(missing_ok=True)
        with replacing(path) as new:
            new.write_text(text)
    _folders.add(str(folder))
    # Folders of earlier jobs come off the path; this job puts its own there.
    sys.path[:] = [entry for entry in sys.path if entry not in _folders]
    sys.modules.pop(name, None)
    importlib.invalidate_caches()


@contextmanager
def module_kept(store: str, name: str, source: str) -> Iterator[None]:
    """Put a store's old module back if it did not accept the new source, since another driver runs it or it holds another job."""
    folder = code_folder(store, source)
    path = folder / f"{name}.py"
    before = path.read_text() if source and path.exists() else source
    try:
        yield
    finally:
        if before != source and Store.exists(store):
            known = Store.open(store).job.sources.get(name)
            if known == digest(before.encode()):
                write_module(folder, name, before)


# --- fields of a job --------------------------------------------------------------------------------


def plain(value: object, where: str, module: str, typed: set[str]) -> Any:
    """Convert a value for YAML: arrays and ranges to lists, paths to texts, a class or function to `module.name`.

    Args:
        where: the field, for errors.
        module: the name of the notebook's module.
        typed: gets the names of the classes and functions in the value that were defined in the notebook.

    Raises JobError if a job file cannot hold such a value.

    >>> plain({"candidate": range(3), "g": np.float32(1.5)}, "sweep", "", set())
    {'candidate': [0, 1, 2], 'g': 1.5}
    """
    # First, since np.float64 is a float and np.str_ a str.
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(k): plain(v, f"{where}.{k}", module, typed) for k, v in value.items()}
    if isinstance(value, list | tuple | range):
        return [plain(inner, where, module, typed) for inner in value]
    if isinstance(value, type | types.FunctionType):
        if not is_typed(value):
            return f"{_home(value)}.{value.__qualname__}"
        typed.add(name := name_of(value))
        return f"{module}.{name}"
    if hasattr(value, "__array__") and not isinstance(value, np.generic):  # of JAX, pandas, xarray
        return plain(np.asarray(value), where, module, typed)
    raise JobError(
        f"{where}: {value!r:.60} given; expected numbers, texts, lists, arrays, mappings, classes or functions"
    )


def _home(value: Any) -> str:
    """The module that a class or function is imported from: the outermost package that exports it, else its own module."""
    parts = value.__module__.split(".")
    for k in range(1, len(parts)):
        package = ".".join(parts[:k])
        if getattr(sys.modules[package], value.__qualname__, None) is value:
            return package
    return str(value.__module__)
