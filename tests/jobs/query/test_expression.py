"""jobs.query.expression: the language against Python's own, and what it refuses, with the place."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from messages import refused

from jobs.errors import JobError
from jobs.query.columns import labelled
from jobs.query.expression import Expression, condition

COLUMNS = {
    "a": np.array([0.0, -2.0, 3.0, np.nan]),
    "small": np.array([0, 1, 2, 255], np.uint8),
    "rate": np.array([0.1, 0.2, 0.3, 0.4], np.float32),
    "ok": np.array([True, False, True, False]),
    "cell": labelled(np.array([1, 0, 1, -1]), ["gru", "lstm"]),
    "kind": np.array(["gru", "gru", "é", ""], object),
    "task.n_steps": np.array([5, 6, 7, 8]),
    "push": labelled(np.array([0, 0, 1, 1]), ["[1, -1]", "[0.5, 1]"]),
    "true": labelled(np.array([1, 0, 1, 0]), ["gru", "lstm"]),
    "push[1]": np.array([-1.0, 0.0, 1.0, 2.0]),
}
TERMS = st.sampled_from(["a", "b", "2", "a + b * 2", "-a", "abs(b)", "a ** 2", "(a - b) / 4"])
COMPARES = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])


@given(TERMS, COMPARES, TERMS, st.sampled_from(["and", "or"]), TERMS)
def test_expression_equals_python(left, op, right, join, last):
    """On Python's own floats the language means what Python means."""
    text = f"{left} {op} {right} {join} not {last} < 0.5"
    expression = Expression(text)
    for a, b in ((0.0, 1.0), (-2.0, 0.5), (3.0, 3.0)):
        found = expression({"a": np.array([a]), "b": np.array([b])})
        assert bool(np.all(found)) == eval(text, {"a": a, "b": b, "abs": abs})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a > -1", [1, 0, 1, 0]),
        ("not isnan(a) and ok == true", [1, 0, 1, 0]),
        ("-1 < a < 2", [1, 0, 0, 0]),
        ("log10(a * a) < nan", [0, 0, 0, 0]),  # the logarithm of 0 is no error
        ("a / 0 == inf", [0, 0, 1, 0]),
        ("small - 1 < 0", [1, 0, 0, 0]),  # uint8 would make 255 of it
        ("small * 2 == 510", [0, 0, 0, 1]),
        ("small ** -1 == 0.5", [0, 0, 1, 0]),
        ("rate == 0.1 or rate == 2 * 0.15", [1, 0, 1, 0]),  # 0.1 as float32 has it
        ("rate in [0.2, 0.4]", [0, 1, 0, 1]),
        ("rate not in (0.2, 0.4)", [1, 0, 1, 0]),
        ("rate in []", [0, 0, 0, 0]),
        ("cell == 'lstm'", [1, 0, 1, 0]),
        ("'gru' == cell", [0, 1, 0, 0]),
        ("cell != 'lstm'", [0, 1, 0, 1]),
        ("cell in ['gru', '']", [0, 1, 0, 1]),
        ("cell > 'h'", [1, 0, 1, 0]),
        ("column('true') == 'gru' and true", [0, 1, 0, 1]),
        ("cell == column('kind')", [0, 1, 0, 1]),
        ("cell == kind", [0, 1, 0, 1]),
        ("kind == 'é' and ok", [0, 0, 1, 0]),
        ("task.n_steps >= 7", [0, 0, 1, 1]),
        ("push[1] > 0 and\n task.n_steps < 8", [0, 0, 1, 0]),
        ("true", [1, 1, 1, 1]),
        ("9 ** 9 ** 9 ** 9 > a", [1, 1, 1, 0]),  # no integer of a billion digits is made
    ],
)
def test_expression_means(text, expected):
    assert condition(Expression(text), COLUMNS, 4).tolist() == [bool(x) for x in expected]


@pytest.mark.parametrize(
    ("text", "said", "column"),
    [
        ("a ><b", "not an expression", 4),
        ("a >", "not an expression", 4),
        ("a > (1", "not an expression ('(' was never closed)", 5),
        ("", "not an expression", 1),
        ("a = 1", "write ==, not =", 3),
        ("a + foo(b)", "unknown function 'foo' of one argument", 5),
        ("a + lgo(a)", "did you mean 'log'", 5),
        ("a > 1 & ok", "write `and`, not &", 5),
        ("~ok", "write `not`, not ~", 1),
        ("a is 1", "write ==, not `is`", 1),
        ("a in [1] == ok", "write `in` with its list in parentheses", 1),
        ("a in b", "expected a list after `in`", 6),
        ("a == [1, 2]", "List is not allowed", 6),
        ("a + 1j", "Constant is not allowed", 5),
        ("a + 99999999999999999999", "beyond 64 bits", 5),
        ("a.__class__ == 1", "attribute access is not allowed", 1),
        ("ok and a.real.__init__", "attribute access is not allowed", 8),
        ("__import__('os').system('x')", "a call of that kind is not allowed", 1),
        ("a + open('x')", "function 'open'", 5),
        ("(lambda: 1)() == 1", "a call of that kind is not allowed", 1),
        ("lambda: 1", "a lambda is not allowed", 1),
        ("[x for x in a]", "ListComp is not allowed", 1),
        ("(a := 1)", "NamedExpr is not allowed", 2),
        ("f'{a}' == 'x'", "JoinedStr is not allowed", 1),
        ("a if ok else 1", "IfExp is not allowed", 1),
        ("a[ok]", "Subscript is not allowed", 1),
        ("import os", "not an expression", 1),
        ("a; b", "not an expression", 2),
    ],
)
def test_expression_refuses_when_read(text, said, column):
    with pytest.raises(JobError) as caught:
        Expression(text)
    shows(caught.value, text, said, column)


@pytest.mark.parametrize(
    ("text", "said", "column"),
    [
        ("a > 'x'", "text compared with a number", 5),
        ("cell > 1", "text compared with a number", 8),
        ("true == 'gru'", "text compared with true; a column of that name is column('true')", 9),
        ("cell == nan", "text compared with nan; a column of that name is column('nan')", 9),
        ("0.05 == push", "a list, whose first number is push[0], compared with a number", 9),
        ("cell in ['gru', 1]", "text compared with a number", 17),
        ("a < 1 and cell", "text where true or false is expected", 11),
        ("'é' == kind and cell + 1 == 2", "text where a number is expected", 17),
        ("-cell == 1", "text where a number is expected", 2),
        ("abs(cell) > 1", "text where a number is expected", 5),
    ],
)
def test_expression_refuses_types(text, said, column):
    with pytest.raises(JobError) as caught:
        Expression(text)(COLUMNS)
    shows(caught.value, text, said, column)


def shows(error, text, said, column):
    """The message says it, and a caret stands under the column."""
    first, shown, caret = str(error).splitlines()
    assert said in first
    assert f"at column {column}" in first
    assert shown == f"  {text}"
    assert caret.index("^") - 2 == column - 1


def test_expression_too_long_or_deep_is_one_screen():
    for text in ("a + " * 10_000 + "a", "- " * 5_000 + "a", "(" * 3_000 + "a" + ")" * 3_000):
        with pytest.raises(JobError) as caught:
            Expression(text)
        assert len(str(caught.value)) < 400


@pytest.mark.parametrize("text", ["a", "a + 1", "'x'", "1"])
def test_condition_is_true_or_false(text):
    with refused(JobError):
        condition(Expression(text), COLUMNS, 4)
