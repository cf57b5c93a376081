"""Numbers, durations and near words as text, for whatever a user reads."""

import difflib
from collections.abc import Iterable

MANY = 20
"""Most known words that an error names if a command lists them, too."""


def count(n: int, what: str) -> str:
    """A number of things as text.

    >>> count(1, "item"), count(2000, "item")
    ('1 item', '2,000 items')
    """
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def duration(seconds: float) -> str:
    """A duration (s) as text: 12.3 s, 4 min 5 s, 3 h 20 min, 2 d 3 h.

    >>> duration(12_000)
    '3 h 20 min'
    """
    if seconds < 60:
        return f"{seconds:.3g} s"
    for size, name, below, small in (
        (86_400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if seconds >= size:
            return f"{seconds // size:.0f} {name} {seconds % size // below:.0f} {small}"
    raise AssertionError(seconds)


def meant(word: object, known: Iterable[str]) -> str:
    """Return "; did you mean 'X'?" if a known word is close to `word`, else "".

    >>> meant("ahsa", ["asha", "halving"]), meant(3, ["asha"])
    ("; did you mean 'asha'?", '')
    """
    near = difflib.get_close_matches(str(word), sorted(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def nearest(word: str, known: Iterable[str], command: str = "") -> str:
    """Return `meant` if there is a close word, else "; known: ...".

    command: lists the known words, and is named in their place where they are many.
    """
    words = sorted(known)
    if near := meant(word, words):
        return near
    if command and len(words) > MANY:
        return f"; `{command}` lists all {len(words)}"
    return f"; known: {', '.join(words)}" if words else ""
