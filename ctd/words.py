"""Numbers, durations, near words and pydantic's messages as text, for whatever a user reads."""

import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps

import numpy as np
from pydantic import ValidationError

MANY = 20
"""Most known words that an error lists where a command lists them, too."""


def count(n: int, noun: str) -> str:
    """A number of things as text.

    >>> count(1, "item"), count(2000, "item"), count(2, "gain index")
    ('1 item', '2,000 items', '2 gain indices')
    """
    if n == 1:
        return f"{n} {noun}"
    return f"{n:,} {noun[:-2]}ices" if noun.endswith("index") else f"{n:,} {noun}s"


def some(numbers: Sequence[int]) -> str:
    """The first ten of some numbers.

    >>> some([3, 5]), some(range(12))
    ('3, 5', '0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ...')
    """
    return ", ".join(map(str, numbers[:10])) + ", ..." * (len(numbers) > 10)


def number(value: float, digits: int = 4) -> str:
    """A real number as a short text; with 6 digits where fewer would make it 1, so that stable differs from marginal, and a share from all.

    digits: 4 in tables; 3 in pictures, whose ticks and legends have less room.

    >>> number(0.123456), number(-0.99998), number(1.00003), number(1.0), number(-0.0)
    ('0.1235', '-0.99998', '1.00003', '1', '0')
    >>> number(3.1623, 3), number(999.6, 3), number(2.5e-7), number(1e5), number(100_500, 3)
    ('3.16', '1000', '2.5e-7', '1e5', '100500')
    """
    size = abs(value)
    # Few digits would write 1234 as 1.23e3, and tell no 1,000,400 from a million.
    is_whole = size < 1e9 and size == round(size) != float(f"{size:.{digits}g}")
    if is_whole or 10**digits - 0.5 <= size < 1e5:
        return f"{value:.0f}"
    text = f"{value + 0.0:.{digits}g}"  # -0.0 + 0.0 is 0.0
    if text in ("1", "-1"):
        text = f"{value:.6g}"
    return text.replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")


def brief(value: object) -> str:
    """A value as people read it in a table: real numbers have 4 digits.

    >>> brief(0.123456), brief(True), brief(1 - 2j), brief(np.array([0.5, 1.0])), brief("gru")
    ('0.1235', 'yes', '1-2i', '[0.5, 1]', 'gru')
    """
    if isinstance(value, np.ndarray):
        return f"[{', '.join(map(brief, value))}]"
    if isinstance(value, float | np.floating):
        return number(float(value))
    if isinstance(value, complex | np.complexfloating):
        real, imaginary = number(float(value.real)), number(float(value.imag))
        return f"{real}{'' if imaginary[0] == '-' else '+'}{imaginary}i"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    return str(value)


def left_out(n_failed: int, n_not_finite: int = 0, noun: str = "item") -> str:
    """A sentence about the items that a picture leaves out; "" if it leaves out none.

    >>> left_out(2), left_out(0, 1), left_out(0)
    ('2 failed items left out.', '1 item without a finite value left out.', '')
    >>> left_out(2, 4)
    '2 failed items and 4 without a finite value left out.'
    """
    failed = [count(n_failed, f"failed {noun}")] * (n_failed > 0)
    others = f"{n_not_finite:,}" if n_failed else count(n_not_finite, noun)
    phrases = failed + [f"{others} without a finite value"] * (n_not_finite > 0)
    return f"{' and '.join(phrases)} left out." if phrases else ""


def duration(seconds: float) -> str:
    """A duration (s) as text: 12.3 s, 4 min 5 s, 3 h 20 min, 2 d 3 h.

    >>> duration(12_000), duration(59.96)
    ('3 h 20 min', '1 min 0 s')
    """
    if seconds < 60:  # as it is said: 59.96 would be 60 s
        seconds = float(f"{seconds:.3g}")
    for size, name, below, small in (
        (86_400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if seconds >= size:
            return f"{seconds // size:.0f} {name} {seconds % size // below:.0f} {small}"
    return f"{seconds:.3g} s"


KINDS = {"string": "text", "integer": "a whole number", "dictionary": "a mapping", "boolean": "true or false"}  # fmt: skip
"""Pydantic's word for a kind of value -> ours."""


def plainly(message: str) -> str:
    """A message of pydantic's in our words: what was expected, and not how the value was read.

    >>> plainly("Input should be a valid integer, unable to parse string as an integer")
    'must be a whole number'
    >>> plainly("Input should be greater than 0")
    'must be greater than 0'
    >>> plainly("List should have at least 1 item after validation, not 0")
    'must have at least 1 item'
    """
    text = message.replace("Input should be ", "must be ", 1)
    text = re.sub(r"^\w+ should have (.*) after validation, not \d+$", r"must have \1", text)
    if kind := re.match(r"must be a valid (\w+)", text):
        return f"must be {KINDS.get(kind[1], f'a {kind[1]}')}"
    return text


def faults(error: ValidationError, known: Iterable[str]) -> str:
    """Pydantic's errors in one line, for parameters that have these names."""
    texts = []
    for fault in error.errors(include_url=False):
        place = ".".join(map(str, fault["loc"]))
        if fault["type"] == "extra_forbidden":
            texts.append(f"unknown parameter {place}{_instead(place, known)}")
        elif fault["type"] == "value_error":
            # A model's own validator raised this. One over several fields has no place, and names them itself.
            text = str(fault["ctx"]["error"])
            texts.append(f"{place}: {text}" if place else text)
        else:
            texts.append(f"{place}: {plainly(fault['msg'])} (given: {fault['input']!r:.60})")
    return "; ".join(texts)


def suggests[**P, R](function: Callable[P, R]) -> Callable[P, R]:
    """Make a function raise ValueError for a keyword that it lacks, with the nearest one; Python 3.12 names none.

    >>> suggests(lambda a, size=1: a)(0, siez=2)
    Traceback (most recent call last):
    ValueError: unknown parameter siez; did you mean 'size'?
    """
    parameters = inspect.signature(function).parameters

    @wraps(function)
    def call(*args: P.args, **keywords: P.kwargs) -> R:
        for name in keywords.keys() - parameters.keys():
            raise ValueError(f"unknown parameter {name}{_instead(name, parameters)}")
        return function(*args, **keywords)

    return call


def _instead(name: str, parameters: Iterable[str]) -> str:
    return did_you_mean(name, parameters) or f"; its parameters are {', '.join(parameters)}"


def did_you_mean(word: object, vocabulary: Iterable[str]) -> str:
    """Return "; did you mean 'X'?" if a word of the vocabulary is close to `word`, else "". Of words that are equally close, it names up to three;
    one of the same letters is closer than others.

    >>> did_you_mean("ahsa", ["asha", "halving"]), did_you_mean(3, ["asha"])
    ("; did you mean 'asha'?", '')
    >>> did_you_mean("run", ["run1", "run2"])
    "; did you mean 'run1' or 'run2'?"
    >>> did_you_mean("candidatse", ["candidate", "candidates"])
    "; did you mean 'candidates'?"
    """
    near = difflib.get_close_matches(str(word), sorted(vocabulary), n=3, cutoff=0.65)
    near = [other for other in near if sorted(other) == sorted(str(word))] or near
    ratio = lambda other: difflib.SequenceMatcher(None, other, str(word)).ratio()
    suggestions = " or ".join(
        repr(other) for other in sorted(near) if ratio(other) == ratio(near[0])
    )
    return f"; did you mean {suggestions}?" if near else ""


def nearest(word: str, vocabulary: Iterable[str], command: str = "") -> str:
    """Return "; did you mean 'X'?" of words that begin with this one, have it as initials, are close to it, or whose
    descriptions have it; else "; known: ...".

    Args:
        vocabulary: the words; as a mapping such as pydantic's `model_fields`, each may have a `description`.
        command: lists the words; where they are many, the text names it in their place.

    >>> from ctd.catalogue import load_kernel
    >>> nearest("time_constant", load_kernel("esn").Params.model_fields)
    "; did you mean 'tau' (time constant, in the units of dt)?"
    >>> nearest("eval", ["train_loss", "eval_loss"]), nearest("N", ["n", "topology"])
    ("; did you mean 'eval_loss'?", "; did you mean 'n'?")
    >>> nearest("lr", ["learning_rate", "decay"])
    "; did you mean 'learning_rate'?"
    """
    words = sorted(vocabulary)
    about = vocabulary.items() if isinstance(vocabulary, Mapping) else ()
    texts = {name: getattr(value, "description", None) or "" for name, value in about}
    spoken = re.escape(word.replace("_", " ")) + r"\b"
    same = [name for name in words if name.lower() == word.lower()]
    begun = [name for name in list(texts) or words if name.startswith(f"{word}_")]
    initials = [n for n in words if "_" in n and word == "".join(p[:1] for p in n.split("_"))]
    # A text that is the word says more than a name that begins with it, abbreviates to it or looks like it, and these more than a
    # text that has it.
    near = (
        _any_of(same, texts)
        or _any_described(f"{spoken}$", texts)
        or _any_of(begun, texts)
        or _any_of(initials, texts)
        or did_you_mean(word, words)
    )
    if near := near or _any_described(spoken, texts) or _any_described(rf".*\b{spoken}", texts):
        return near
    if command and len(words) > MANY:
        return f"; `{command}` lists all {len(words)}"
    return f"; known: {', '.join(words)}" if words else ""


def _any_described(pattern: str, texts: Mapping[str, str]) -> str:
    """`_any_of` the names whose texts begin with a pattern."""
    names = [name for name, text in texts.items() if re.match(pattern, text, re.IGNORECASE)]
    return _any_of(names, texts)


def _any_of(names: list[str], texts: Mapping[str, str]) -> str:
    """The names with their texts, in a suggestion as `did_you_mean` writes it; "" if there are none, or too many to choose."""
    if not 0 < len(names) <= 3:
        return ""
    cut = lambda text: text if len(text) < 60 else text[:57] + "..."
    suggestions = [
        f"{name!r} ({cut(texts[name])})" if texts.get(name) else repr(name) for name in names
    ]
    return f"; did you mean {' or '.join(suggestions)}?"
