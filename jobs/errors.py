"""What goes wrong by a user's hand, said in the user's words."""

import difflib
import re
from collections.abc import Callable, Iterable

from pydantic import ValidationError


class JobError(ValueError):
    """Bad input: the text names the file and field, what was expected and what to do.

    The command line prints it without a traceback and exits with 2.
    """


def nearest(word: str, known: Iterable[str]) -> str:
    """', did you mean X?' where a known word is close, else ', one of ...'."""
    words = sorted(known)
    near = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known: {', '.join(words)}" if words else ""


def explain(
    error: ValidationError,
    source: str | Callable[[str], str],
    known: dict[tuple[str, ...], Iterable[str]],
) -> str:
    """One line for each fault of a validated model.

    source: what was read (a file's name), or a function of the top field that tells. known: location
    of a model -> its field names, for the nearest valid name of an unknown field.
    """
    lines = []
    for fault in error.errors(include_url=False):
        # Union branches put the names of their classes into the location; users wrote no such thing.
        place = tuple(str(part) for part in fault["loc"] if not _is_branch(str(part)))
        path = ".".join(place) or "(as a whole)"
        where = source(place[0] if place else "") if callable(source) else source
        if fault["type"] == "extra_forbidden":
            names = known.get(place[:-1], ())
            lines.append(f"{where}: {path}: unknown field{nearest(place[-1], names)}")
        elif fault["type"] == "missing":
            lines.append(f"{where}: {path}: required, but not given")
        else:
            given = repr(fault["input"])
            shown = given if len(given) < 80 else given[:77] + "..."
            text = fault["msg"].removeprefix("Value error, ")
            text = re.sub(r" or instance of \w+$", "", text)  # a class, which no file can hold
            lines.append(f"{where}: {path}: {text} (given: {shown})")
    return "\n".join(dict.fromkeys(lines))


def _is_branch(part: str) -> bool:
    return part[:1].isupper() or "[" in part
