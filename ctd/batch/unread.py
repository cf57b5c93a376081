"""The traced fields of a kernel that no result depends on, given the static ones, such as settings of another method."""

from __future__ import annotations

from typing import Any

from ctd.batch.program import precision
from ctd.kernel import Kernel, Params, Values, View
from ctd.late import PyTree, jax


def unread(
    kernel: Kernel, static: View[Params], shared: PyTree, traced: Values[Params]
) -> frozenset[str]:
    """Trace the functions of a kernel for one item; return the traced fields that none of them computes with.

    Only a field without any influence counts: inside of a loop or a branch, an input is taken to be used.
    """
    read = set[str]()

    def trace(function: Any, *args: PyTree) -> PyTree:
        run = lambda *args: function(static, *args)
        closed, shape = jax.make_jaxpr(run, return_shape=True)(*args)
        marks = jax.tree.unflatten(jax.tree.structure(args), _needed(closed.jaxpr))[1]
        # A field without numbers, such as an empty tuple, may be read all the same.
        read.update(
            n for n in fields if any(found := jax.tree.leaves(getattr(marks, n))) or not found
        )
        return shape

    fields, key = getattr(traced, "_fields", ()), jax.random.key(0)
    with precision(static):
        state = trace(kernel.init, shared, traced, key)
        trace(kernel.advance, shared, traced, key, state)
        trace(kernel.result, shared, traced, key, state)
    return frozenset(fields) - read


def _needed(jaxpr: Any) -> list[bool]:
    """Whether an output of a traced function depends on each of its inputs."""
    variables = lambda found: (v for v in found if not hasattr(v, "val"))  # literals have a value
    needed = set(variables(jaxpr.outvars))
    for equation in reversed(jaxpr.eqns):
        if equation.effects or not needed.isdisjoint(equation.outvars):
            needed.update(variables(equation.invars))
    return [v in needed for v in jaxpr.invars]
