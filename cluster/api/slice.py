"""Cut the part of a notebook or script that defines some names, as the text of a module.

A worker cannot import definitions of a notebook. The statements that a name needs are those that bind it, and in turn
those that bind the names that these refer to: a backward slice (Weiser 1981) over top-level statements. Statements that
only plot, print or run are left out.
"""

import ast
import builtins
import symtable
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from jobs.errors import JobError

NOWHERE = (
    "is not defined at the top level of this notebook or script (`from x import *` does not tell what it defines, and "
    "the block in which a Job is made is left out); define it in a cell, or in a module of its own"
)


BLOCKS = ast.If | ast.For | ast.While | ast.Try | ast.With | ast.Match
"""Statements that may leave a name as it was: `if debug: gain = 1.0`."""


class References(NamedTuple):
    """The global names that a statement reads."""

    now: frozenset[str]
    """Names read while the statement is executed."""
    later: frozenset[str]
    """Names read when a function that it defines is called."""
    maybe: frozenset[str] = frozenset()
    """Names that a block may leave as they were."""


@dataclass(frozen=True)
class Statement:
    """A top-level statement."""

    text: str
    binds: frozenset[str]
    """Names that it binds."""
    changes: frozenset[str]
    """Names whose values it changes: `d` in `d["a"] = 1` and in `d += 1`."""
    calls: frozenset[str]
    """Names whose methods it calls as a statement: `d` in `d.update(a=1)`. That changes `d`, unless it is a module."""
    imports: bool
    reads: References


def statements(cells: Sequence[str], line: int | None = None) -> list[Statement]:
    """The top-level statements of cells in the order of execution; cells that are not Python are skipped.

    line: the line of the last cell that is being executed; statements that end there or later are left out. None if the
    whole cell was executed.
    """
    found = []
    for number, cell in enumerate(cells, start=1):
        try:
            body = ast.parse(cell).body
        except SyntaxError:
            # IPython's magic, or a cell that failed.
            continue
        if line is not None and number == len(cells):
            body = [node for node in body if (node.end_lineno or 0) < line]
        found += [_statement(node, cell) for node in body]
    return found


def module_text(names: Sequence[str], cells: Sequence[str], line: int | None = None) -> str:
    """The source of a module that defines `names` as the cells did, executed in this order up to `line` of the last.

    Raises:
        JobError: nothing in the cells defines one of the names.

    >>> print(module_text(["f"], ["import math", "a = 2", "print(a)", "def f(): return math.pi * a"]))
    import math
    <BLANKLINE>
    a = 2
    <BLANKLINE>
    def f(): return math.pi * a
    <BLANKLINE>
    """
    found = statements(cells, line)
    missing = next((name for name in names if not _sources(found, name, len(found))), None)
    if missing is not None:
        raise JobError(f"{missing}: {NOWHERE}")
    kept: set[int] = set()
    waiting = [k for name in names for k in _sources(found, name, len(found))]
    while waiting:
        k = waiting.pop()
        if k in kept:
            continue
        kept.add(k)
        # Names that it reads at once were bound before it; those that its functions read may be bound later.
        reads = found[k].reads
        waiting += [j for name in reads.now | reads.maybe for j in _sources(found, name, k)]
        waiting += [j for name in reads.later for j in _sources(found, name, len(found))]
    _refuse_unknown([found[k] for k in kept])
    return "\n\n".join(found[k].text for k in sorted(kept)) + "\n"


def names_at_call(text: str) -> frozenset[str]:
    """The global names that functions of a module read when they are called."""
    return _reads(text, set(), set()).later


def _refuse_unknown(kept: Sequence[Statement]) -> None:
    """Raise JobError for a name that a statement reads and no statement defines."""
    known = {"__file__", *dir(builtins)}.union(*(statement.binds for statement in kept))
    for statement in kept:
        if unknown := sorted((statement.reads.now | statement.reads.later) - known):
            line = statement.text.partition("\n")[0]
            raise JobError(f"{unknown[0]}: is used by `{line:.60}`, and {NOWHERE}")


def _sources(found: Sequence[Statement], name: str, before: int) -> Iterator[int] | list[int]:
    """The last statement before number `before` that binds `name`, and the later ones that change its value."""
    bound = [k for k in range(before) if name in found[k].binds]
    if not bound:
        return []
    later = range(bound[-1] + 1, before)
    changed = [k for k in later if name in found[k].changes]
    if not found[bound[-1]].imports:
        changed += [k for k in later if name in found[k].calls]
    return [bound[-1], *changed]


def _statement(node: ast.stmt, cell: str) -> Statement:
    first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
    lines = cell.splitlines()[first - 1 : node.end_lineno]
    # ast's segment tells `a = 1; b = 2` apart, but leaves decorators out.
    if not getattr(node, "decorator_list", []):
        text = ast.get_source_segment(cell, node) or ""
    else:
        text = "\n".join(lines)
    binds, changes, calls = set(), set(), set()
    for part in _at_top(node):
        if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            binds.add(part.name)
        elif isinstance(part, ast.Import | ast.ImportFrom):
            binds |= {alias.asname or alias.name.partition(".")[0] for alias in part.names}
        elif isinstance(part, ast.AugAssign):
            changes.add(_root(part.target))
        elif isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
            binds.add(part.id)
        elif isinstance(part, ast.Subscript | ast.Attribute) and isinstance(part.ctx, ast.Store):
            changes.add(_root(part))
        elif isinstance(part, ast.Expr):
            called = part.value.func if isinstance(part.value, ast.Call) else None
            calls |= {_root(called)} if isinstance(called, ast.Attribute) else set()
    # `x += 1` stores x as well, but needs the statement that bound it before.
    binds -= changes
    changes -= {""}
    imports = isinstance(node, ast.Import | ast.ImportFrom)
    reads = _reads(text, changes, binds)
    if isinstance(node, BLOCKS):
        reads = reads._replace(maybe=frozenset(binds))
    return Statement(text, frozenset(binds), frozenset(changes), frozenset(calls), imports, reads)


def _at_top(node: ast.AST) -> Iterator[ast.AST]:
    """The parts of a statement that are executed in the module's own scope."""
    yield node
    scopes = (
        ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda,
        ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp,
    )  # fmt: skip
    # Names that are bound inside of these are their own.
    if not isinstance(node, scopes):
        for child in ast.iter_child_nodes(node):
            yield from _at_top(child)


def _root(node: ast.AST) -> str:
    """The name `d` of `d.a["b"]`; "" if it begins with no name."""
    while isinstance(node, ast.Subscript | ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _reads(text: str, changes: set[str], binds: set[str]) -> References:
    now: set[str] = set(changes)
    later: set[str] = set()

    def look(table: symtable.SymbolTable, called: bool) -> None:
        # Annotations and type parameters have tables of their own, which are read at once.
        called = called or table.get_type() == "function"
        for symbol in table.get_symbols():
            at_top = table.get_type() == "module"
            used = symbol.is_referenced() or symbol.is_declared_global()
            # Of a comprehension, whose names are its own, or of `except ... as e`.
            if at_top and symbol.is_assigned() and symbol.get_name() not in binds | changes:
                continue
            if used and (at_top or symbol.is_global()):
                (later if called else now).add(symbol.get_name())
        for child in table.get_children():
            look(child, called)

    look(symtable.symtable(text, "<cell>", "exec"), called=False)
    return References(frozenset(now), frozenset(later))
