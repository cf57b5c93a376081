"""Cut the part of a notebook or script that defines some names, as the text of a module.

A worker cannot import definitions of a notebook. The slice of a name has the statements that bind it, then those that
bind the names in these, and so on: a backward slice (Weiser 1981) over top-level statements. Statements that only
plot, print or run are left out.
"""

import ast
import builtins
import symtable
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from jobs.errors import JobError

NOWHERE = (
    "is not defined at the top level of this notebook or script (`from x import *` does not tell what it defines, and "
    "the block in which a Job is made is left out); define it in a cell, or in a module of its own"
)

BLOCKS = ast.If | ast.For | ast.While | ast.Try | ast.With | ast.Match
"""Statements that may leave a name as it was: `if debug: gain = 1.0`."""

SCOPES = (
    ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda
    | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
)  # fmt: skip
"""Nodes with a scope of their own: the names that they bind inside are no names of the module."""


class Statement(NamedTuple):
    """A top-level statement."""

    text: str
    is_import: bool
    binds: set[str]
    """Names that it binds."""
    changes: set[str]
    """Names whose values it changes: `d` in `d["a"] = 1` and in `d += 1`."""
    calls: set[str]
    """Names whose methods it calls as a statement: `d` in `d.update(a=1)`. That changes `d`, unless it is a module."""
    now: set[str]
    """Names that must be bound before it."""
    later: set[str]
    """Names read when a function that it defines is called."""


def module_text(names: Sequence[str], cells: Sequence[str], line: int | None = None) -> str:
    """The source of a module that defines `names` as the cells did, executed in this order.

    line: the line of the last cell that is being executed; statements that end there or later are left out. None if the
    whole cell was executed.

    Raises JobError if nothing in the cells defines one of the names, or a name that they need.

    >>> print(module_text(["f"], ["import math", "a = 2", "print(a)", "def f(): return math.pi * a"]))
    import math
    <BLANKLINE>
    a = 2
    <BLANKLINE>
    def f(): return math.pi * a
    <BLANKLINE>
    """
    found = _statements(cells, line)
    kept: set[int] = set()
    waiting: list[int] = []
    for name in names:
        if not (sources := _sources(found, name, len(found))):
            raise JobError(f"{name}: {NOWHERE}")
        waiting += sources
    while waiting:
        k = waiting.pop()
        if k in kept:
            continue
        kept.add(k)
        waiting += [j for name in found[k].now for j in _sources(found, name, k)]
        # Names that its functions read may be bound after it.
        waiting += [j for name in found[k].later for j in _sources(found, name, len(found))]
    cut = [found[k] for k in sorted(kept)]
    known = {"__file__", *dir(builtins)}.union(*(statement.binds for statement in cut))
    for statement in cut:
        if unknown := sorted((statement.now | statement.later) - known):
            first = statement.text.partition("\n")[0]
            raise JobError(f"{unknown[0]}: is used by `{first:.60}`, and {NOWHERE}")
    return "\n\n".join(statement.text for statement in cut) + "\n"


def names_at_call(text: str) -> set[str]:
    """The global names that functions of a module read when they are called."""
    return _reads(text, set())[1]


def _sources(found: Sequence[Statement], name: str, before: int) -> list[int]:
    """The last statement before number `before` that binds `name`, and the later ones that change its value."""
    bound = [k for k in range(before) if name in found[k].binds]
    if not bound:
        return []
    last, is_module = bound[-1], found[bound[-1]].is_import
    changing = lambda one: name in one.changes or (name in one.calls and not is_module)
    return [last, *(k for k in range(last + 1, before) if changing(found[k]))]


def _statements(cells: Sequence[str], line: int | None) -> list[Statement]:
    """The statements of all cells in the order of execution; cells that are not Python are skipped. line: see `module_text`."""
    found = []
    for number, cell in enumerate(cells, start=1):
        try:
            body = ast.parse(cell).body
            # Some faults are found only now: such a cell was not executed.
            compile(cell, "<cell>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        except SyntaxError:
            # IPython's magic, or a cell that failed.
            continue
        if line is not None and number == len(cells):
            body = [node for node in body if (node.end_lineno or 0) < line]
        found += [_statement(node, cell) for node in body]
    return found


def _statement(node: ast.stmt, cell: str) -> Statement:
    # ast's segment tells `a = 1; b = 2` apart, but leaves decorators out.
    text = ast.get_source_segment(cell, node) or ""
    if decorators := getattr(node, "decorator_list", []):
        # `splitlines` would also split at a form feed, which ends no line of Python.
        text = "\n".join(cell.split("\n")[decorators[0].lineno - 1 : node.end_lineno])
    binds, changes, calls = set[str](), set[str](), set[str]()
    for part in _at_top(node):
        match part:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                binds.add(part.name)
            case ast.Import() | ast.ImportFrom():
                binds |= {alias.asname or alias.name.partition(".")[0] for alias in part.names}
            case ast.AugAssign():
                changes.add(_root(part.target))
            case ast.Name(ctx=ast.Store()):
                binds.add(part.id)
            case ast.Subscript(ctx=ast.Store()) | ast.Attribute(ctx=ast.Store()):
                changes.add(_root(part))
            case ast.Expr(value=ast.Call(func=ast.Attribute() as called)):
                calls.add(_root(called))
    # `x += 1` stores x as well, but needs the statement that bound it before.
    binds -= changes
    changes.discard("")
    now, later = _reads(text, binds | changes)
    now |= changes | (binds if isinstance(node, BLOCKS) else set())
    is_import = isinstance(node, ast.Import | ast.ImportFrom)
    return Statement(text, is_import, binds, changes, calls, now, later)


def _at_top(node: ast.AST) -> Iterator[ast.AST]:
    """The parts of a statement that are executed in the module's own scope."""
    yield node
    if not isinstance(node, SCOPES):
        for child in ast.iter_child_nodes(node):
            yield from _at_top(child)


def _root(node: ast.AST) -> str:
    """The name `d` of `d.a["b"]`; "" if it begins with no name."""
    while isinstance(node, ast.Subscript | ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _reads(text: str, own: set[str]) -> tuple[set[str], set[str]]:
    """The global names that a text reads: (while it is executed, when functions that it defines are called). own: those it binds."""
    now, later = set[str](), set[str]()

    def look(table: symtable.SymbolTable, called: bool) -> None:
        # Annotations and type parameters have tables of their own, which are read at once.
        called = called or table.get_type() == "function"
        at_top = table.get_type() == "module"
        for symbol in table.get_symbols():
            used = symbol.is_referenced() or symbol.is_declared_global()
            # A name of a comprehension, or of `except ... as e`: none of the module's.
            if at_top and symbol.is_assigned() and symbol.get_name() not in own:
                continue
            if used and (at_top or symbol.is_global()):
                (later if called else now).add(symbol.get_name())
        for child in table.get_children():
            look(child, called)

    look(symtable.symtable(text, "<cell>", "exec"), called=False)
    return now, later
