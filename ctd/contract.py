"""Check that a kernel keeps the contract of `ctd.kernel`.

`evaluate` traces each function by itself for one item, with shapes and dtypes alone, so that an error names the
function and the line in it, before anything is compiled or computed.
"""

from __future__ import annotations

import inspect
import linecache
import re
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ctd.dotted import INSTALLED
from ctd.kernel import Kernel, Kind, Params, Values, Var, View, field_kinds, traced_type
from ctd.late import PyTree, jax
from ctd.words import nearest

ARGUMENTS = {
    "init": ("static", "shared", "traced", "key"),
    "advance": ("static", "shared", "traced", "key", "state"),
    "finished": ("state",),
    "result": ("static", "shared", "traced", "key", "state"),
}
"""Function of a kernel -> the arguments that it is called with."""
LINES = 4
"""Lines of the kernel's own source that an error shows, the innermost last."""
DIFFERENCES = 5
"""Lines of JAX's message that an error shows beside the first, where these name what differs."""

RUNNER = (
    "ctd/batch", "ctd/catalogue.py", "ctd/contract.py", "ctd/dotted.py", "ctd/kernel.py", "ctd/plots/__init__.py", "jobs",
)  # fmt: skip
"""The code that finds, calls and checks kernels: an error leaves its lines out, since they do not help a kernel's author."""


class ContractError(ValueError):
    """A function of a kernel raises, or returns something that does not fit the other functions."""


class Evaluation(NamedTuple):
    """The state and results of one item, as shapes and dtypes."""

    state: PyTree
    results: dict[str, jax.ShapeDtypeStruct]
    unread: frozenset[str]
    """The traced fields that no result depends on, given the static ones, such as settings of another method. Inside of a loop
    or a branch, an input is taken to be used."""
    started: frozenset[str]
    """The traced fields that `init` depends on and `advance` does not."""
    advanced: int
    """Bytes of all values that an advance computes on its way, each loop and branch once."""


class _Trace(NamedTuple):
    """A traced function: the traced fields that it depends on, and the bytes of all values that it computes."""

    read: frozenset[str]
    nbytes: int


def evaluate(
    kernel: Kernel, static: View[Params], shared: PyTree, traced: Values[Params]
) -> Evaluation:
    """Evaluate a kernel for one item; nothing is computed.

    Call it inside `ctd.batch.precision`. Raises ContractError where a function raises, `advance` changes the names,
    shapes or dtypes of the state, `finished` is not one boolean, or `result` and `dims` disagree.
    """
    key, prefix = jax.random.key(0), f"kernel {kernel.name}"
    traces: dict[str, _Trace] = {}
    run = partial(_run, kernel, traces)
    state = run("init", static, shared, traced, key)
    # A weak type is lost when a state is stored: `advance` must not get one here that it would not get after a restart.
    state = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state)
    for leaf in jax.tree.leaves(state):
        if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key) and leaf.dtype != key.dtype:
            raise ContractError(
                f"{prefix}: init: the state has a {leaf.dtype}; expected a {key.dtype}, as `key` is"
            )
    after = run("advance", static, shared, traced, key, state)
    for fault in _differences(state, after):
        raise ContractError(
            f"{prefix}: advance: {fault}; a state must keep its names, shapes and dtypes from init on"
        )
    done = run("finished", state)
    if not (hasattr(done, "dtype") and done.dtype == bool and done.shape == ()):
        raise ContractError(f"{prefix}: finished: one boolean expected, got {_short(done)}")
    values = run("result", static, shared, traced, key, state)
    if not isinstance(values, dict):
        raise ContractError(
            f"{prefix}: {_authored(kernel, 'result')[0]}: a dict of name -> array expected, got {_short(values)}"
        )
    _check_dims(kernel, values)
    unread = frozenset(getattr(traced, "_fields", ())).difference(
        *(t.read for t in traces.values())
    )
    init, advance = traces["init"], traces["advance"]
    return Evaluation(state, values, unread, init.read - advance.read, advance.nbytes)


def located(error: BaseException) -> str:
    """The first line of an exception's text, then the lines of the user's source that led to it, innermost last.

    Between them stands what differs, if that is what the first line says.
    """
    text = str(error).strip().splitlines() or [""]
    hint = ""
    if isinstance(error, jax.errors.ConcretizationTypeError):
        hint = " (a traced value is not known yet: jnp.where or lax.cond decide by it)"
    lines = [f"{type(error).__name__}: {text[0]}{hint}"]
    if re.search("they differ[:.]$", text[0]):  # JAX: carries of a loop, or outputs of branches
        differences = [f"  {line.strip()}" for line in text[1:] if line.strip()]
        lines += [line for line in differences if not line.startswith("  Revise ")][:DIFFERENCES]
    # JAX's frames are a hundred; the author needs those of the kernel.
    own_frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if _is_own(frame.filename)
    ]
    lines += [
        f"  {Path(frame.filename).name}, line {frame.lineno}, in {frame.name}: {frame.line}"
        for frame in own_frames[-LINES:]
    ]
    return "\n".join(lines)


def is_worded(error: BaseException, function: Callable[..., object]) -> bool:
    """True if a `raise` of the package or folder of a kernel's function, or of ctd, made this exception, so that its text is for the user."""
    ((frame, line),) = [*traceback.walk_tb(error.__traceback__)][-1:]
    source = linecache.getline(frame.f_code.co_filename, line).strip()
    packages = {"ctd", str(function.__module__).partition(".")[0]}
    package = str(frame.f_globals.get("__name__")).partition(".")[0]
    ours = package in packages or _is_own(frame.f_code.co_filename)
    return ours and (not source or source.startswith("raise "))


def _is_own(filename: str) -> bool:
    """True if a file is the kernel author's: not Python's, not an installed package's, not the runner's."""
    path, root = Path(filename), Path(__file__).parents[1]
    runner = any(path.is_relative_to(root / part) for part in RUNNER)
    standard = path.is_relative_to(sysconfig.get_path("stdlib")) or filename.startswith("<")
    return not (runner or standard or INSTALLED & set(path.parts))


def _run(kernel: Kernel, traces: dict[str, _Trace], role: str, *args: PyTree) -> PyTree:
    """The shapes that a function returns; notes its trace in `traces`."""
    function, fields = getattr(kernel, role), kernel.Params.model_fields
    # `finished` takes the state alone; the others take the static fields first.
    static = args[: role != "finished"]
    run = lambda *args: function(*static, *args)
    try:
        closed, shapes = jax.make_jaxpr(run, return_shape=True)(*args[len(static) :])
        if static:
            marks = jax.tree.unflatten(jax.tree.structure(args[1:]), _needed(closed.jaxpr))[1]
            # A field without numbers, such as an empty tuple, may be read all the same.
            read = frozenset(
                name
                for name in getattr(marks, "_fields", ())
                if any(leaves := jax.tree.leaves(getattr(marks, name))) or not leaves
            )
            traces[role] = _Trace(read, _nbytes(closed))
        return shapes
    except Exception as error:
        # An error that begins with a field's name is about the user's parameters: no line of the kernel would help.
        if isinstance(error, ValueError) and str(error).partition(":")[0] in fields:
            raise ContractError(f"params: {error}") from error
        first, *lines = located(error).split("\n")
        first = _elsewhere(kernel, static, error) or first + _how_called(kernel, role)
        text = "\n".join([first, *lines])
        raise ContractError(
            f"kernel {kernel.name}: {_authored(kernel, role)[0]}: {text}"
        ) from error


def _elsewhere(kernel: Kernel, static: Sequence[PyTree], error: Exception) -> str:
    """Say where the kernel finds a field that it read from `static` or `traced`, which lack it; "" for another error."""
    views = {traced_type(kernel.Params): "traced"} | {type(view): "static" for view in static}
    view_name, name = views.get(type(getattr(error, "obj", None))), getattr(error, "name", "")
    if view_name is None:
        return ""
    if (kind := field_kinds(kernel.Params).get(name)) is None:
        return f"{view_name} has no field {name!r}{nearest(name, kernel.Params.model_fields)}"
    if kind in (Kind.STATIC, Kind.TRACED):
        return f"{name} is {kind.value}: write {kind.value}.{name}"
    return (
        f"{name} is for `load` alone: return what is needed of it from there, as part of `shared`"
    )


def _needed(jaxpr: Any) -> list[bool]:
    """For each input of a traced function, True if an output depends on it."""
    # Literals have a value.
    variables = lambda candidates: (v for v in candidates if not hasattr(v, "val"))
    needed = set(variables(jaxpr.outvars))
    for equation in reversed(jaxpr.eqns):
        if equation.effects or not needed.isdisjoint(equation.outvars):
            needed.update(variables(equation.invars))
    return [v in needed for v in jaxpr.invars]


def _nbytes(jaxpr: Any) -> int:
    """The bytes of all values that a traced function computes, each loop and branch once."""
    outputs = (v.aval for equation in jaxpr.eqns for v in equation.outvars)
    params = [[*equation.params.values()] for equation in jaxpr.eqns]
    inner = jax.tree.leaves(params, is_leaf=_is_jaxpr)
    nbytes = sum(aval.size * aval.dtype.itemsize for aval in outputs if hasattr(aval, "dtype"))
    return nbytes + sum(map(_nbytes, filter(_is_jaxpr, inner)))


def _is_jaxpr(value: object) -> bool:
    return hasattr(value, "eqns")


def _authored(kernel: Kernel, role: str) -> tuple[str, Callable[..., PyTree], tuple[str, ...]]:
    """(name, function, arguments) of the function that the kernel's author wrote for a role."""
    # `one_shot` makes both of one function.
    run = getattr(kernel.init, "__wrapped__", None)
    if run is getattr(kernel.advance, "__wrapped__", None) and callable(run):
        return getattr(run, "__name__", role), run, ARGUMENTS["init"]
    return role, getattr(kernel, role), ARGUMENTS[role]


def _how_called(kernel: Kernel, role: str) -> str:
    """The end of a sentence that says how a function is called; "" if it takes these arguments."""
    name, function, arguments = _authored(kernel, role)
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        return f"; it is called as {name}({', '.join(arguments)})"
    except ValueError:  # it has no signature
        pass
    return ""


def _differences(before: PyTree, after: PyTree) -> Iterator[str]:
    """The changes between a state and the state after an advance, a sentence each."""
    leaves_by_name = lambda tree: {
        jax.tree_util.keystr(path, simple=True, separator=".") or "it": leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
    old, new = leaves_by_name(before), leaves_by_name(after)
    # Names of the old state in its order, then new ones: the first fault is reported.
    for name in [*old, *(name for name in new if name not in old)]:
        if name not in new:
            yield f"{name} of the state is not returned"
        elif name not in old:
            yield f"{name} is not part of the state that init returns"
        elif _short(old[name]) != _short(new[name]):
            yield f"{name} is {_short(old[name])} in the state and {_short(new[name])} after it"
    # Leaves may agree in name while the containers differ: a list in place of a tuple.
    was: object = jax.tree.structure(before)
    now: object = jax.tree.structure(after)
    if was != now:
        yield f"the state is {was} and {now} after it"


def check_axes(prefix: str, field: str, dims: Mapping[str, Var], values: Mapping[str, Any]) -> None:
    """Raise ContractError if a returned value is not in the `dims` of a kernel or of its tables, or has other axes there.

    prefix: begins the message. field: the kernel's field that holds `dims`. values: name -> the returned array, with shape and dtype.
    """
    # A value without axes could be stored, but its dimensions would have no meaning.
    if unknown := sorted(set(values) - set(dims)):
        raise ContractError(
            f"{prefix}{', '.join(unknown)} is returned, which `{field}` does not describe; it has {sorted(dims)}"
        )
    for name, value in values.items():
        axes, shape = dims[name].axes, getattr(value, "shape", None)
        if shape is None or len(shape) != len(axes):
            names = str(tuple(f"axis{k}" for k in range(len(shape or ())))).replace("'", '"')
            suggestion = f"Var({names}, ...)" + ", with a name for each axis," * bool(shape)
            expected = f"an array with the axes {axes}" if axes else "a scalar"
            raise ContractError(
                f"{prefix}{name} is {_short(value)}, `{field}` gives it the axes {axes}; write {suggestion} or return {expected}"
            )


def _check_dims(kernel: Kernel, values: dict[str, jax.ShapeDtypeStruct]) -> None:
    prefix = f"kernel {kernel.name}: {_authored(kernel, 'result')[0]}"
    check_axes(f"{prefix}: ", "dims", kernel.dims, values)
    # NumPy knows keys of JAX not at all, and bfloat16 and the like as bytes.
    for name, value in values.items():
        if getattr(value.dtype, "kind", "V") == "V":
            raise ContractError(
                f"{prefix}: {name} is {_short(value)}, which no store holds; return integers, reals, complex numbers or booleans, "
                "of a key its jax.random.key_data"
            )
    if kernel.outcomes and "outcome" not in values:
        raise ContractError(
            f"{prefix}: outcome is not returned; return the index of how the item ended, 0 for "
            f"{kernel.outcomes[0].name!r}, or leave `outcomes` out"
        )
    ended = values.get("outcome")
    if ended is not None and (ended.shape or ended.dtype.kind not in "bi"):
        raise ContractError(
            f"{prefix}: outcome is {_short(ended)}, expected one int32, the index of how the item ended; another result needs another name"
        )
    for field, name in (("metric", kernel.display.metric), ("chosen_by", kernel.display.chosen_by)):
        judged = values.get(name)
        if judged is not None and (judged.shape or judged.dtype.kind == "c"):
            raise ContractError(
                f"kernel {kernel.name}: {field}: {name} is {_short(judged)}, expected one real number an item, by which items "
                "are compared"
            )
    for name in kernel.display.curves:
        curve = values.get(name)
        if curve is not None and (len(curve.shape) != 1 or curve.dtype.kind == "c"):
            raise ContractError(
                f"kernel {kernel.name}: curves: {name} is {_short(curve)}, expected real numbers along one axis"
            )


def _short(value: jax.ShapeDtypeStruct) -> str:
    """An array as dtype[shape], anything else by its type."""
    if hasattr(value, "dtype"):
        return f"{value.dtype}{list(value.shape)}"
    return type(value).__name__
