"""A column of a table: an array, or texts kept as codes and their labels.

A million rows of `outcome` are a million small integers and three words: comparing, sorting and grouping
work on the words, so that no row becomes a Python object before it is shown.

pandas is imported where it is used, here and in the modules around: workers never need it, and it takes a
second and 70 MB.
"""

import ast
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Text:
    """Row i has the text labels[codes[i]]."""

    codes: np.ndarray
    labels: np.ndarray
    """(k,) of str; the last is "", which the code -1 means."""
    is_complete: bool = False
    """Whether there are no other texts that a row could have had."""

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, rows: Any) -> "Text":
        return Text(self.codes[rows], self.labels, self.is_complete)

    def array(self) -> np.ndarray:
        """The texts."""
        return np.asarray(self.labels[self.codes])

    def map(self, function: Callable[[str], Any]) -> np.ndarray:
        """function(text) at each row, called once a label."""
        return np.asarray([function(label) for label in self.labels])[self.codes]

    def ranks(self) -> np.ndarray:
        """Integers in the alphabetical order of the texts."""
        return np.unique(self.labels.astype(str), return_inverse=True)[1][self.codes]


Column = np.ndarray | Text


def labelled(codes: np.ndarray, texts: Sequence[str], is_complete: bool = False) -> Text:
    """Codes into `texts`; a code below 0 means no text."""
    return Text(codes, np.asarray([*texts, ""], object), is_complete)


def decode(values: np.ndarray, attrs: dict[str, Any]) -> Column:
    """Codes with CF flags, or our labels, as texts; other values as they are."""
    if "flag_values" not in attrs:
        return values
    texts = attrs["labels"] if "labels" in attrs else str(attrs["flag_meanings"]).split()
    known = dict(zip(attrs["flag_values"], texts, strict=True))
    n = max(known, default=-1) + 1
    codes = np.where((values < 0) | (values >= n), -1, values)
    return labelled(codes, [known.get(code, "") for code in range(n)], "labels" not in attrs)


def as_column(values: Any) -> Column:
    """An array as a column."""
    if isinstance(values, Text):
        return values
    values = np.asarray(values)
    if values.dtype.kind not in "OUST":
        return values
    return _spelt(values.astype(object))


def as_array(column: Column) -> np.ndarray:
    """A column as an array; texts as objects."""
    return column.array() if isinstance(column, Text) else column


def joined(columns: Sequence[Column]) -> Column:
    """Columns end to end; where one is text, all are."""
    arrays = [column for column in columns if not isinstance(column, Text)]
    if len(arrays) == len(columns):
        return np.concatenate(arrays)
    texts = [c if isinstance(c, Text) else _spelt(c) for c in columns]
    union = dict.fromkeys(label for text in texts for label in text.labels if label)
    place = {label: code for code, label in enumerate(union)}
    codes = [np.asarray([place.get(label, -1) for label in t.labels])[t.codes] for t in texts]
    return labelled(np.concatenate(codes), list(union))


def _spelt(values: np.ndarray) -> Text:
    import pandas as pd

    codes, found = pd.factorize(values)
    return labelled(codes, [str(value) for value in found])


def rank(column: Column, falling: bool) -> np.ndarray:
    """Numbers in the order of the column, or the reverse; a NaN stays one, and so comes last."""
    values = column.ranks() if isinstance(column, Text) else column
    if not falling:
        return values
    return ~values if values.dtype.kind in "biu" else -values


def order(keys: Sequence[np.ndarray], limit: int | None = None) -> np.ndarray:
    """Where the rows go in rising order, the first key first; equal rows stay as they are.

    keys: numbers, as `rank` makes them. limit: only the first so many rows.
    """
    n = len(keys[0])
    limit = n if limit is None else limit
    picked = np.arange(n)
    if 0 < limit < n:
        # Only rows that reach the limit-th value are sorted at all: 20 of a million in a tenth of the time.
        bound = np.partition(keys[0], limit - 1)[limit - 1]
        if bound == bound:
            picked = np.flatnonzero(keys[0] <= bound)
    return picked[np.lexsort([key[picked] for key in reversed(keys)])][:limit]


def combined(keys: Iterable[np.ndarray], n: int, *, rising: bool = False) -> np.ndarray:
    """(n,) numbers from 0 on, equal where the rows agree in all keys; `rising`: in the order of the keys,
    otherwise in that of the rows."""
    import pandas as pd

    number = np.zeros(n, np.int64)
    for key in keys:
        codes, found = pd.factorize(key, sort=rising, use_na_sentinel=False)
        # Small again after each key: never overflows.
        number = pd.factorize(number * max(1, len(found)) + codes, sort=rising)[0]
    return number


def literal(text: str) -> Any:
    """The dict or list that a text spells out; None where it is another text."""
    if text[:1] not in "{[":
        return None
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return None


def rows_as_text(values: np.ndarray) -> Text:
    """The rows of a (n, k) array as texts, '[1, -0.5]'."""
    codes = combined(values.T, len(values))
    first = np.unique(codes, return_index=True)[1]
    return labelled(codes, [str([short(v) for v in row]) for row in values[first].tolist()])


def short(value: Any) -> Any:
    """A whole float as an integer, which reads better and is equal."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def from_values(values: Sequence[Any]) -> Column:
    """Plain values as a column: numbers with NaN for None, anything else as text."""
    present = [value for value in values if value is not None]
    if present and all(isinstance(value, bool) for value in values):
        return np.asarray(values)
    if present and all(isinstance(v, int | float) and not isinstance(v, bool) for v in present):
        return np.asarray([np.nan if value is None else value for value in values])
    texts = ["" if value is None else str(value) for value in values]
    return as_column(np.asarray(texts, object))
