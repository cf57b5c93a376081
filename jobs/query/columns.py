"""A column of a table: an array, or texts stored as integer codes and their labels.

A million rows of `outcome` are a million small integers and three words. Comparing, sorting and grouping
work on the words, so no row becomes a Python object before it is shown.

Here and in the other modules of this folder, pandas is imported inside functions: workers never need it, and
importing it takes a second and 70 MB.
"""

import ast
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import TYPE_CHECKING, Any

import numpy as np

from ctd.rows import combinations

if TYPE_CHECKING:
    import pandas as pd


NUMBER = r"(-?[0-9]+(?:[.][0-9]+)?(?:e[-+]?[0-9]+)?)"
"""A number in a list."""


@dataclass(frozen=True, eq=False)
class Text:
    """A column of texts: row i has the text labels[codes[i]].

    >>> as_array(labelled(np.array([0, 1, -1]), ["done", "failed"])).tolist()
    ['done', 'failed', '']
    """

    codes: np.ndarray
    """(row,) integers"""
    labels: np.ndarray
    """(k,) str. The last one is "", so that the code -1 means no text."""
    is_complete: bool = False
    """`labels` lists every text that a row can have, so that a question for another text is a mistake."""

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, rows: Any) -> "Text":
        return Text(self.codes[rows], self.labels, self.is_complete)

    def map(self, function: Callable[[str], object]) -> np.ndarray:
        """function(text) for each row; the function is called once per label."""
        return np.asarray([function(label) for label in self.labels])[self.codes]

    def ranks(self) -> np.ndarray:
        """An integer for each row, in the order of the texts (`in_order`)."""
        return in_order(self.labels)[1][self.codes]


Column = np.ndarray | Text


def labelled(codes: np.ndarray, texts: Sequence[str], is_complete: bool = False) -> Text:
    """Make a text column from codes into `texts`; the code -1 means no text."""
    return Text(codes, np.asarray([*texts, ""], object), is_complete)


def decode(values: np.ndarray, attrs: dict[str, Any]) -> Column:
    """Turn codes into texts if `attrs` has CF flags or our `labels`; return other values unchanged."""
    if "flag_values" not in attrs:
        return values
    texts = attrs["labels"] if "labels" in attrs else str(attrs["flag_meanings"]).split()
    text_of = dict(zip(attrs["flag_values"], texts, strict=False))
    n = max(text_of, default=-1) + 1
    strange = values >= n
    codes = np.where((values < 0) | strange, -1, values)
    labels = [text_of.get(k, "") for k in range(n)]
    if strange.any():  # an index that the kernel's outcomes do not have
        beyond, places = np.unique(values[strange], return_inverse=True)
        codes = codes.astype(np.int64)
        codes[strange] = n + places
        labels += [f"outcome {code}" for code in beyond]
    return labelled(codes, labels, "labels" not in attrs)


def as_column(values: Iterable[object] | Text) -> Column:
    """Make a column of values: booleans; numbers, with NaN for None; anything else as text."""
    if isinstance(values, Text) or (
        isinstance(values, np.ndarray) and values.dtype.kind not in "OUST"
    ):
        return values
    elements = list(values)
    kinds = {type(value) for value in elements}
    if kinds == {bool}:
        return np.asarray(elements)
    if kinds & {int, float} and kinds <= {int, float, NoneType}:
        return np.asarray([np.nan if value is None else value for value in elements])
    return _spelt(elements)


def as_array(column: Column) -> np.ndarray:
    """A column as an array; texts become Python objects."""
    return np.asarray(column.labels[column.codes] if isinstance(column, Text) else column)


def blanked(column: Column, rows: np.ndarray) -> Column:
    """The column without the values of some rows, (row,) bool: NaN, or no text, stands there."""
    if isinstance(column, Text):
        return Text(np.where(rows, -1, column.codes), column.labels, column.is_complete)
    return np.where(rows, np.nan, column)


def categories(column: Column) -> "np.ndarray | pd.Categorical":
    """A column as an array, or of texts as a Categorical, which needs no Python object for each row."""
    import pandas as pd

    if not isinstance(column, Text):
        return column
    labels, place = in_order(column.labels)
    return pd.Categorical.from_codes(place[column.codes], labels)


def in_order(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(The distinct labels in order, the place of each label (k,) in it): alphabetical, and numbers in texts by their values.

    >>> in_order(np.array(["net10", "net9"]))
    (array(['net9', 'net10'], dtype='<U5'), array([1, 0]))
    >>> in_order(np.array(["[0.05]", "[-1e-05, 2]", "[0]"]))[0].tolist()
    ['[-1e-05, 2]', '[0]', '[0.05]']
    """

    def parts(text: str) -> list[str | float]:
        # In a list a point is a decimal point; in a name such as net1.10 it need not be.
        number, read = (NUMBER, float) if text[:1] == "[" else (r"([0-9]+)", int)
        split = re.split(number, text.rstrip("]"))
        return [read(part) if k % 2 else part for k, part in enumerate(split)]

    distinct = sorted({*labels.astype(str).tolist()}, key=lambda text: (parts(text), text))
    place = {label: k for k, label in enumerate(distinct)}
    return np.asarray(distinct), np.asarray([place[str(label)] for label in labels])


def concat(columns: Sequence[Column]) -> Column:
    """Concatenate columns; if one is text, the result is text."""
    arrays = [column for column in columns if not isinstance(column, Text)]
    if len(arrays) == len(columns):
        return np.concatenate(arrays)
    texts = [c if isinstance(c, Text) else _spelt(c) for c in columns]
    union = dict.fromkeys(label for text in texts for label in text.labels if label)
    place = {label: code for code, label in enumerate(union)}
    codes = [np.asarray([place.get(label, -1) for label in t.labels])[t.codes] for t in texts]
    return labelled(np.concatenate(codes), list(union), all(text.is_complete for text in texts))


def _spelt(values: Iterable[object]) -> Text:
    """The texts of values; none for a missing one."""
    codes = {"": -1}
    texts = ("" if value is None or value != value else str(value) for value in values)
    rows = [codes.setdefault(text, len(codes) - 1) for text in texts]
    return labelled(np.asarray(rows, np.int64), list(codes)[1:])


def sort_key(column: Column, falling: bool = False) -> np.ndarray:
    """Numbers that sort like the column, or in reverse; NaN stays NaN and so sorts last either way."""
    values = column.ranks() if isinstance(column, Text) else column
    if not falling:
        return values
    return ~values if values.dtype.kind in "biu" else -values


def argsort(keys: Sequence[np.ndarray], limit: int | None = None) -> np.ndarray:
    """Sort rows by the first key, then the second, and so on, stably: row numbers in ascending order.

    keys: numbers, as `sort_key` makes them. limit: return only this many rows.

    >>> argsort([np.array([2, 1, 2]), np.array([5, 0, 3])]).tolist()
    [1, 2, 0]
    """
    n = len(keys[0])
    limit = n if limit is None else limit
    picked = np.arange(n)
    if 0 < limit < n:
        # Sort only rows up to the limit-th value: finding 20 of a million takes a tenth of the time.
        bound = np.partition(keys[0], limit - 1)[limit - 1]
        # NaN sorts last: if the bound is NaN, all rows are needed.
        if bound == bound:
            picked = np.flatnonzero(keys[0] <= bound)
    return picked[np.lexsort([key[picked] for key in reversed(keys)])][:limit]


def rows_of_items(ids: np.ndarray, items: np.ndarray) -> np.ndarray:
    """The row of each item id, or -1 if it is not among `items`."""
    order = np.argsort(items, kind="stable")
    place = order[np.searchsorted(items, ids, sorter=order).clip(max=len(items) - 1)]
    return np.where(items[place] == ids, place, -1)


def literal(text: str) -> Any:
    """The dict or list that a text spells, or None for any other text.

    >>> literal("[1, -1]"), literal("gru")
    ([1, -1], None)
    """
    if text[:1] not in "{[":
        return None
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return None


def rows_as_text(values: np.ndarray) -> Text:
    """Spell the rows of an (n, k) array as texts such as '[1, -0.5]'."""
    first, codes = combinations(list(values.T), len(values))
    # By way of its own shortest text, a float32 of 0.1 is '0.1', not 0.10000000149011612.
    exact = (lambda element: float(str(element))) if values.dtype.kind == "f" else np.generic.item
    return labelled(codes, [as_text([exact(element) for element in row]) for row in values[first]])


def as_text(value: object) -> str:
    """A parameter as the text that a column of it has.

    >>> as_text([1.0, -0.5]), as_text(["a", "b"]), as_text(None)
    ('[1, -0.5]', 'a, b', 'None')
    """
    if not isinstance(value, list):
        return str(value)
    if any(isinstance(element, str) for element in value):
        return ", ".join(map(str, value))
    # A whole float reads better as an integer.
    short = lambda element: (
        int(element) if isinstance(element, float) and element.is_integer() else element
    )
    return str([short(element) for element in value])


def of_json(value: object) -> Any:
    """The value as strict JSON has it: null for what is missing, not a number or infinite.

    >>> of_json({"loss": [np.float64("nan"), 0.5], "n": np.arange(2)})
    {'loss': [None, 0.5], 'n': [0, 1]}
    """
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {key: of_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [of_json(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    # pandas has these in place of a missing value; it is not imported for them.
    return None if type(value).__name__ in ("NAType", "NaTType") else value
