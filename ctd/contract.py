"""Check that a kernel keeps the contract of `ctd.kernel`.

Each function is evaluated by itself for one item, as shapes and dtypes alone, so that an error names the
function and the line in it.
"""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ctd.kernel import Kernel
from ctd.late import jax

INSTALLED = {"site-packages", "dist-packages"}
"""Folders of installed packages, on any machine."""

LINES = 4
"""How many lines of the kernel's own source an error shows, the innermost last."""


class ContractError(ValueError):
    """A function of a kernel raises, or what it returns does not fit the other functions."""


def evaluate(
    kernel: Kernel, static: Any, shared: Any, traced: Any
) -> tuple[Any, dict[str, jax.ShapeDtypeStruct]]:
    """(state, results) of one item as shapes and dtypes; nothing is computed.

    Call it under the item's precision. Raises ContractError where a function raises, `advance` changes the
    names, shapes or dtypes of the state, `finished` is not one boolean, or `result` and `dims` disagree.
    """
    key = jax.random.key(0)
    told, run = f"kernel {kernel.name}", partial(_run, getattr(traced, "_fields", ()))
    state = run(f"{told}: init", kernel.init, static, shared, traced, key)
    # A stored state has no weak types, so later advances do not see those that init leaves.
    state = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state)
    after = run(f"{told}: advance", kernel.advance, static, shared, traced, key, state)
    for fault in _differences(state, after):
        raise ContractError(
            f"{told}: advance: {fault}; a state must keep its names, shapes and dtypes from init on"
        )
    done = run(f"{told}: finished", lambda _, state: kernel.finished(state), None, state)
    if not (hasattr(done, "dtype") and done.dtype == bool and done.shape == ()):
        raise ContractError(f"{told}: finished: one boolean expected, got {_short(done)}")
    values = run(f"{told}: result", kernel.result, static, shared, traced, key, state)
    if not isinstance(values, dict):
        raise ContractError(
            f"{told}: result: a dict of name -> array expected, got {_short(values)}"
        )
    _check_dims(kernel, values)
    return state, values


def located(error: BaseException) -> str:
    """The first line of an exception's text, and below it the lines of the user's source that led to it."""
    text = str(error).strip().splitlines() or [""]
    hint = ""
    if isinstance(error, jax.errors.ConcretizationTypeError):
        hint = " (a traced value is not known yet: jnp.where or lax.cond decide by it)"
    lines = [f"{type(error).__name__}: {text[0]}{hint}"]
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_own(frame.filename)]
    lines += [
        f"  {Path(frame.filename).name}, line {frame.lineno}, in {frame.name}: {frame.line}"
        for frame in own[-LINES:]
    ]
    return "\n".join(lines)


def _is_own(filename: str) -> bool:
    """Whether a file is the kernel author's: not Python's, not an installed package's, not what runs kernels."""
    path = Path(filename)
    here = Path(__file__).parent
    runs_kernels = path.is_relative_to(here / "batch") or path in (
        here / "contract.py",
        here / "kernel.py",
    )
    others = runs_kernels or path.is_relative_to(here.parent / "jobs")
    installed = INSTALLED & set(path.parts)
    standard = path.is_relative_to(sysconfig.get_path("stdlib")) or filename.startswith("<")
    return not (others or installed or standard)


def _run(
    fields: tuple[str, ...], what: str, function: Callable[..., Any], static: Any, *args: Any
) -> Any:
    try:
        return jax.eval_shape(lambda *args: function(static, *args), *args)
    except Exception as error:
        # What was given is at fault, and no line of the kernel.
        if isinstance(error, ValueError) and str(error).partition(":")[0] in fields:
            raise ContractError(f"params: {error}") from error
        raise ContractError(f"{what}: {located(error)}") from error


def _differences(before: Any, after: Any) -> Iterator[str]:
    named = lambda tree: {
        jax.tree_util.keystr(path, simple=True, separator=".") or "it": leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
    old, new = named(before), named(after)
    for name in [*old, *(name for name in new if name not in old)]:
        if name not in new:
            yield f"{name} of the state is not returned"
        elif name not in old:
            yield f"{name} is not part of the state that init returns"
        elif _short(old[name]) != _short(new[name]):
            yield f"{name} is {_short(old[name])} in the state and {_short(new[name])} after it"
    was: Any = jax.tree.structure(before)
    now: Any = jax.tree.structure(after)
    if was != now:
        yield f"the state is {was} and {now} after it"


def _check_dims(kernel: Kernel, values: dict[str, jax.ShapeDtypeStruct]) -> None:
    if unknown := sorted(set(values) - set(kernel.dims)):
        raise ContractError(
            f"kernel {kernel.name}: result: {', '.join(unknown)} is returned, which `dims` does not "
            f"describe; it has {sorted(kernel.dims)}"
        )
    for name, value in values.items():
        axes = kernel.dims[name].axes
        if not hasattr(value, "shape") or len(value.shape) != len(axes):
            raise ContractError(
                f"kernel {kernel.name}: result: {name} is {_short(value)}, `dims` gives it the axes {axes}"
            )


def _short(value: Any) -> str:
    if hasattr(value, "dtype"):
        return f"{value.dtype}{list(value.shape)}"
    return type(value).__name__
