"""Expressions over columns, as in `q < 1e-10 and stable`; parsed, but never evaluated as Python.

comparison    < <= > >= == !=, chained; `x in [a, b]`, `x not in [a, b]`
logic         and, or, not
arithmetic    + - * / ** and unary -
values        numbers, 'text', true/false, nan, inf
columns       q; a field of a mapping task.name; an element of a list push[0]; any name at all column('true')
functions     abs, log, log10, exp, sqrt, isnan
"""

import ast
import operator
import re
import warnings
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any, Literal

import numpy as np

from jobs.errors import JobError, nearest
from jobs.query.columns import Column, Text, as_array, as_column

type Evaluate = Callable[[Mapping[str, Any]], Any]
"""The value of a part of an expression from the columns."""


def _power(a: Any, b: Any) -> Any:
    # NumPy refuses integers to negative powers.
    return np.power(a.astype(float) if isinstance(a, np.ndarray) and a.dtype.kind == "i" else a, b)


_OPERATORS: dict[type, Callable[..., Any]] = {
    ast.UAdd: np.positive,
    ast.USub: np.negative,
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.true_divide,
    ast.Pow: _power,
}
_COMPARE: dict[type, Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    name: getattr(np, name) for name in ("abs", "log", "log10", "exp", "sqrt", "isnan")
}
_CONSTANTS = {"true": True, "false": False, "nan": np.nan, "inf": np.inf}

_HINTS: dict[type, str] = {
    ast.BitAnd: "write `and`, not &",
    ast.BitOr: "write `or`, not |",
    ast.Invert: "write `not`, not ~",
    ast.Is: "write ==, not `is`",
    ast.IsNot: "write !=, not `is not`",
    ast.In: "write `in` with its list in parentheses, as in (a in [1, 2]) == b",
    ast.NotIn: "write `not in` with its list in parentheses, as in (a not in [1, 2]) == b",
}
_WORDS: dict[type, str] = {
    ast.Attribute: "attribute access",
    ast.Lambda: "a lambda",
    ast.Call: "a call of that kind",
}

COLUMN = re.compile(r"[^\W\d]\w*(\.(?!_)\w+|\[\d+\])*")
"""The name of a column. No part but the first begins with an underscore."""

MAX_LENGTH = 20_000
"""Most characters of an expression: enough for a list of some thousand numbers."""

CONTEXT = 70
"""Characters that an error message shows on either side of the error."""


def parse(text: str) -> tuple[str, ast.expr]:
    """Parse an expression: (the text on one line, its syntax tree).

    Raises JobError if it is no expression (the message shows where), too long, or nested too deeply.
    """
    text = " ".join(text.splitlines()).strip()
    if len(text) > MAX_LENGTH:
        raise JobError(
            f"{text[:40]!r}...: {len(text):,} characters; at most {MAX_LENGTH:,} are read"
        )
    try:
        with warnings.catch_warnings():
            # Such as for an unknown escape in a string.
            warnings.simplefilter("ignore", SyntaxWarning)
            return text, ast.parse(text, mode="eval").body
    except SyntaxError as error:
        place = min(error.offset - 1, len(text)) if error.offset else len(text)
        message = "not an expression"
        if text[place : place + 1] == "=":
            message = "write ==, not ="
        elif not error.msg.startswith("invalid syntax"):
            # Such as: '(' was never closed.
            message += f" ({error.msg})"
        raise JobError(message + _pointer(text, place)) from None
    except (RecursionError, MemoryError, ValueError):
        raise JobError(f"{text[:40]!r}...: nested too deeply") from None


def _pointer(text: str, place: int) -> str:
    start = max(0, place - CONTEXT)
    return f" at column {place + 1}\n  {text[start : place + CONTEXT]}\n  {' ' * (place - start)}^"


def fault(text: str, node: ast.AST, message: str) -> JobError:
    """A JobError that points at a node of the text."""
    # col_offset counts UTF-8 bytes; a reader counts characters.
    place = len(text.encode()[: getattr(node, "col_offset", 0)].decode(errors="ignore"))
    return JobError(message + _pointer(text, place))


def _column(node: ast.AST) -> str | None:
    """The column that a node names (q, task.name, push[0]), or None."""
    if not isinstance(node, ast.Name | ast.Attribute | ast.Subscript):
        return None
    text = ast.unparse(node)
    return text if COLUMN.fullmatch(text) else None


class Expression:
    """A parsed expression. Call it with columns to evaluate it.

    >>> test = Expression("q < 1e-3 and cell == 'gru'")
    >>> test.names
    ['cell', 'q']
    >>> test({"q": np.array([1e-4, 1.0]), "cell": np.array(["gru", "gru"])}).tolist()
    [True, False]

    Raises JobError if the text is not an expression of the form above; the message shows where.
    """

    def __init__(self, text: str) -> None:
        self.text, tree = parse(text)
        self._named: set[str] = set()
        try:
            self._value = self._compiled(tree)
        except RecursionError:
            raise JobError(f"{self.text[:40]!r}...: nested too deeply") from None
        self.names = sorted(self._named)
        """The columns that it uses."""

    def __call__(self, columns: Mapping[str, object]) -> Any:
        """Evaluate the expression over columns of equal length.

        Raises JobError for a value of the wrong kind, such as a text where a number is needed.
        """
        # 0 / 0 is NaN, not an error.
        with np.errstate(all="ignore"):
            return self._value(columns)

    def _fault(self, node: ast.AST, message: str) -> JobError:
        return fault(self.text, node, message)

    def _compiled(self, node: ast.expr) -> Evaluate:
        """The function that evaluates a node. Raises JobError for a kind of node that is not allowed."""
        if (column := _column(node)) is not None:
            if (constant := _CONSTANTS.get(column.lower())) is not None:
                return lambda columns: constant
            self._named.add(column)
            return lambda columns: as_column(columns[column])
        match node:
            case ast.Constant(value=int(value)) if abs(value) >= 2**63:
                raise self._fault(node, "an integer beyond 64 bits")
            case ast.Constant(value=bool() | int() | float() | str() as value):
                return lambda columns: value
            case ast.UnaryOp(op=ast.Not(), operand=inner):
                truth = self._checked(inner, "true or false")
                return lambda columns: np.logical_not(truth(columns))
            case ast.UnaryOp(op=op, operand=inner) if type(op) in _OPERATORS:
                return self._applied(_OPERATORS[type(op)], inner)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                return self._applied(_OPERATORS[type(op)], left, right)
            case ast.Call(func=ast.Name(id="column"), args=[ast.Constant(value=str(name))]):
                self._named.add(name)
                return lambda columns: as_column(columns[name])
            case ast.Call(func=ast.Name(id=name), args=[inner], keywords=[]) if name in FUNCTIONS:
                return self._applied(FUNCTIONS[name], inner)
            case ast.BoolOp(op=op, values=parts):
                truths = [self._checked(part, "true or false") for part in parts]
                join = np.logical_and if isinstance(op, ast.And) else np.logical_or
                return lambda columns: reduce(join, (part(columns) for part in truths))
            case ast.Compare(left=left, ops=[ast.In()], comparators=[right]):
                return self._member(left, right)
            case ast.Compare(left=left, ops=[ast.NotIn()], comparators=[right]):
                member = self._member(left, right)
                return lambda columns: np.logical_not(member(columns))
            case ast.Compare():
                return self._chain(node)
            case ast.Call(func=ast.Name(id=name)):
                message = f"unknown function {name!r} of one argument{nearest(name, FUNCTIONS)}"
                raise self._fault(node, message)
        message = f"{_WORDS.get(type(node), type(node).__name__)} is not allowed in an expression"
        raise self._fault(node, _HINTS.get(type(getattr(node, "op", None)), message))

    def _checked(self, node: ast.expr, expected: Literal["a number", "true or false"]) -> Evaluate:
        """Evaluates to no text; integers of a number become int64, since in uint8 0 - 1 is 255."""
        evaluate = self._compiled(node)

        def checked(columns: Mapping[str, object]) -> Any:
            value = evaluate(columns)
            if isinstance(value, str | Text):
                raise self._fault(node, f"text where {expected} is expected")
            if expected == "true or false":
                return value
            if isinstance(value, np.ndarray):
                return value.astype(np.int64) if value.dtype.kind in "biu" else value
            return float(value)

        return checked

    def _applied(self, function: Callable[..., Any], *operands: ast.expr) -> Evaluate:
        numbers = [self._checked(node, "a number") for node in operands]

        def apply(columns: Mapping[str, object]) -> Any:
            value = function(*(number(columns) for number in numbers))
            # NumPy compares a Python number in the column's precision, as in rate == 2 * 0.05.
            return value if isinstance(value, np.ndarray) else value.item()

        return apply

    def _member(self, element: ast.expr, elements: ast.expr) -> Evaluate:
        """Evaluates `a in [b, c]` as a == b or a == c."""
        if not isinstance(elements, ast.List | ast.Tuple):
            raise self._fault(elements, "expected a list after `in`, such as [1, 2]")
        value = self._compiled(element)
        parts = [(part, self._compiled(part)) for part in elements.elts]

        def member(columns: Mapping[str, object]) -> Any:
            a = value(columns)
            equal = (self._pair(ast.Eq, element, part, a, b(columns)) for part, b in parts)
            return reduce(np.logical_or, equal, False)

        return member

    def _chain(self, node: ast.Compare) -> Evaluate:
        """Evaluates a < b < c as (a < b) and (b < c)."""
        for op in node.ops:
            if type(op) not in _COMPARE:
                raise self._fault(node, _HINTS[type(op)])
        first, *rights = [self._compiled(side) for side in (node.left, *node.comparators)]

        def compare(columns: Mapping[str, object]) -> Any:
            result, a, before = True, first(columns), node.left
            for op, side, right in zip(node.ops, node.comparators, rights, strict=True):
                b = right(columns)
                test = self._pair(type(op), before, side, a, b)
                result, a, before = np.logical_and(result, test), b, side
            return result

        return compare

    def _pair(self, op: type, node_a: ast.expr, node_b: ast.expr, a: Any, b: Any) -> Any:
        """Compare a and b, the values of `node_a` and `node_b`; errors point at `node_b`."""
        if isinstance(a, str | Text) != isinstance(b, str | Text):
            text, name = (a, node_a) if isinstance(a, str | Text) else (b, node_b)
            is_list = isinstance(text, Text) and any(label[:1] == "[" for label in text.labels)
            kind = f"a list, whose first number is {ast.unparse(name)}[0]," if is_list else "text"
            number = ast.unparse(node_b if name is node_a else node_a)
            if number.lower() in _CONSTANTS:
                raise self._fault(
                    node_b,
                    f"{kind} compared with {number}; a column of that name is column({number!r})",
                )
            raise self._fault(node_b, f"{kind} compared with a number")
        test = _COMPARE[op]
        for text, value in ((a, b), (b, a)):
            is_closed = isinstance(text, Text) and text.is_complete and isinstance(value, str)
            if is_closed and op in (ast.Eq, ast.NotEq) and value not in text.labels:
                labels = [label for label in text.labels if label]
                # A misspelt status would otherwise match nothing, without a word.
                raise self._fault(node_b, f"no row can have {value!r}{nearest(value, labels)}")
        if isinstance(a, Text) and isinstance(b, Text):
            return test(as_array(a), as_array(b)).astype(bool)
        if isinstance(a, Text):
            return a.map(lambda label: test(label, b))
        if isinstance(b, Text):
            return b.map(lambda label: test(a, label))
        return test(a, b)


def condition(expression: Expression, columns: Mapping[str, Column], n: int) -> np.ndarray:
    """Test n rows: (n,) booleans, True where a row satisfies the expression.

    Raises JobError if the expression is not true or false, or cannot be evaluated.
    """
    keep = np.asarray(expression(columns))
    if keep.dtype.kind != "b":
        raise JobError(f"{expression.text!r}: expected a condition, such as q < 1e-10")
    return np.broadcast_to(keep, n)
