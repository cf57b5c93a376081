"""Expressions over columns, as in `q < 1e-10 and stable`: parsed, never evaluated as Python.

comparison    < <= > >= == !=, chained; `x in [a, b]`, `x not in [a, b]`
logic         and, or, not
arithmetic    + - * / ** and unary -
values        numbers, 'text', true/false, column names
functions     abs, log, log10, exp, sqrt, isnan
"""

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jobs.errors import JobError, nearest

_BINARY: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_COMPARE: dict[type, Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.In: lambda a, b: np.isin(a, b),
    ast.NotIn: lambda a, b: ~np.isin(a, b),
}
FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "abs": np.abs,
    "log": np.log,
    "log10": np.log10,
    "exp": np.exp,
    "sqrt": np.sqrt,
    "isnan": np.isnan,
}
_CONSTANTS = {"true": True, "false": False, "nan": np.nan, "inf": np.inf}


class Expression:
    """A parsed expression. JobError, with the position, where it is not of the form above."""

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            self._tree = ast.parse(text.strip(), mode="eval").body
        except SyntaxError as error:
            place = (error.offset or 1) - 1
            raise JobError(
                f"{text!r}: not an expression at column {place + 1}\n  {text}\n  {' ' * place}^"
            ) from None
        self.names = sorted(self._names(self._tree))

    def _fault(self, node: ast.AST, what: str) -> JobError:
        place = getattr(node, "col_offset", 0)
        return JobError(f"{what} at column {place + 1}\n  {self.text}\n  {' ' * place}^")

    def _names(self, node: ast.AST) -> set[str]:
        """Check every node's kind on the way."""
        match node:
            case ast.Name(id=name):
                return set() if name.lower() in _CONSTANTS else {name}
            case ast.Constant(value=bool() | int() | float() | str()):
                return set()
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                return self._names(left) | self._names(right)
            case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.UAdd(), operand=inner):
                return self._names(inner)
            case ast.BoolOp(values=parts) | ast.List(elts=parts) | ast.Tuple(elts=parts):
                return set().union(*(self._names(part) for part in parts))
            case ast.Compare(left=left, comparators=rest):
                return set().union(*(self._names(part) for part in [left, *rest]))
            case ast.Call(func=ast.Name(id=name), args=[inner], keywords=[]) if name in FUNCTIONS:
                return self._names(inner)
            case ast.Call(func=ast.Name(id=name)):
                raise self._fault(
                    node, f"function {name!r} of one argument unknown{nearest(name, FUNCTIONS)}"
                )
        raise self._fault(node, f"{type(node).__name__} is not allowed in an expression")

    def __call__(self, columns: Mapping[str, Any]) -> Any:
        """The value over columns of equal length; JobError for an unknown column or a wrong type."""
        for name in self.names:
            if name not in columns:
                raise JobError(f"{self.text!r}: unknown column {name!r}{nearest(name, columns)}")
        try:
            return self._value(self._tree, columns)
        except TypeError as error:
            raise JobError(f"{self.text!r}: types do not go together: {error}") from None

    def _value(self, node: Any, columns: Mapping[str, Any]) -> Any:
        match node:
            case ast.Name(id=name):
                return columns[name] if name in columns else _CONSTANTS[name.lower()]
            case ast.Constant(value=value):
                return value
            case ast.List(elts=parts) | ast.Tuple(elts=parts):
                return [self._value(part, columns) for part in parts]
            case ast.UnaryOp(op=ast.Not(), operand=inner):
                return np.logical_not(self._value(inner, columns))
            case ast.UnaryOp(op=op, operand=inner):
                value = self._value(inner, columns)
                return -value if isinstance(op, ast.USub) else value
            case ast.BinOp(left=left, op=op, right=right):
                return _BINARY[type(op)](self._value(left, columns), self._value(right, columns))
            case ast.BoolOp(op=op, values=parts):
                join = np.logical_and if isinstance(op, ast.And) else np.logical_or
                value = self._value(parts[0], columns)
                for part in parts[1:]:
                    value = join(value, self._value(part, columns))
                return value
            case ast.Compare(left=left, ops=ops, comparators=rest):
                return self._compare(left, ops, rest, columns)
            case ast.Call(func=ast.Name(id=name), args=[inner]):
                return FUNCTIONS[name](self._value(inner, columns))
        raise AssertionError(f"unchecked node {ast.dump(node)}")

    def _compare(
        self, left: Any, ops: list[Any], rest: list[Any], columns: Mapping[str, Any]
    ) -> Any:
        result: Any = True
        a = self._value(left, columns)
        for op, right in zip(ops, rest, strict=True):
            b = self._value(right, columns)
            text = _is_text(a), _is_text(b)
            if not isinstance(b, list) and text[0] != text[1]:
                raise TypeError("text compared with a number")
            result = np.logical_and(result, _COMPARE[type(op)](a, b))
            a = b
        return result


def _is_text(value: Any) -> bool:
    return isinstance(value, str) or getattr(getattr(value, "dtype", None), "kind", "?") in "OUST"
