"""Errors that a user can fix, explained in the terms of the job file."""

import difflib
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ValidationError

from ctd.words import count as count
from ctd.words import did_you_mean as did_you_mean
from ctd.words import duration as duration
from ctd.words import left_out as left_out
from ctd.words import nearest as nearest
from ctd.words import plainly

EXIT_FAULT = 2
"""Exit code of a command with bad input, or that cannot go on; it has printed the reason."""
EXIT_STORAGE = 74
"""EX_IOERR of sysexits.h: the storage fails, and another attempt may succeed."""
EXIT_STOPPED = 75
"""EX_TEMPFAIL of sysexits.h: the run was stopped in order, and `ctd resume` goes on."""


def _readable(value: object) -> object:
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value


Text = Annotated[str, BeforeValidator(_readable)]
"""A text that may quote anything, such as the name of a file: what is no character is escaped."""


class JobError(ValueError):
    """Bad input: the text names the file and field, what was expected and what to do.

    The command line prints it without a traceback and exits with `exit_code`; a notebook shows the text alone.
    """

    exit_code = EXIT_FAULT

    def __init__(self, text: str = "", secondary: Iterable[str] = ()) -> None:
        super().__init__(text)
        self.secondary = frozenset(secondary)
        """The lines that the fault of another field may have caused: a value is missing, or several do not fit together."""

    def _render_traceback_(self) -> list[str]:
        """Return the lines that IPython shows in place of a traceback."""
        return [f"{type(self).__name__}: {self}"]


def near_file(path: str | Path, endings: Sequence[str] = ()) -> str:
    """Return "; did you mean PATH?" if the folder has a file of a similar name with one of the endings; else "".

    >>> _ = Path("job.yaml").write_text("")
    >>> near_file("jop", [".yaml"]), near_file("a_network.h5", [".yaml"])
    ('; did you mean job.yaml?', '')
    """
    path, siblings = Path(path), list[Path]()
    with suppress(OSError):
        siblings = [file for file in path.parent.iterdir() if not file.is_dir()]
    of_stem = {
        file.stem: file for file in sorted(siblings) if not endings or file.suffix in endings
    }
    near = difflib.get_close_matches(path.stem, of_stem, n=1, cutoff=0.65)
    return f"; did you mean {of_stem[near[0]]}?" if near else ""


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Raise JobError, which names `path`, in place of an OSError."""
    try:
        yield
    except OSError as error:
        raise JobError(f"{path}: cannot be written: {error.strerror or error}") from None


def advised(*words: object) -> str:
    """Return a command for the user to type, in backticks, with its words quoted for the shell.

    >>> print(advised("ctd", "resume", "a b/x.zarr"))
    `ctd resume 'a b/x.zarr'`
    """
    return f"`{shlex.join(map(str, words))}`"


class Faults:
    """Collects the JobErrors of each `with faults:`, so that a user reads all faults of a job at once.

    location: put before each line, such as the file's name.
    """

    def __init__(self, location: str = "") -> None:
        self._head = f"{location}: " if location else ""
        self._lines: dict[str, None] = {}
        self._secondary: set[str] = set()

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        """Keep the text of a JobError raised inside; pass on its subclasses, which mean more."""
        if type(error) is not JobError:
            return False
        self._lines |= {f"{self._head}{line}": None for line in str(error).splitlines()}
        self._secondary |= {f"{self._head}{line}" for line in error.secondary}
        return True

    def raise_all(self) -> None:
        """Raise JobError with all lines, each once, if there are any."""
        if self._lines:
            raise JobError("\n".join(_a_screen(list(self._lines))), self._secondary)


MOST = 20
"""Most lines of faults that are shown: one screen."""


def _a_screen(lines: list[str]) -> list[str]:
    if len(lines) <= MOST:
        return lines
    return [*lines[: MOST - 1], f"... and {len(lines) - MOST + 1} further faults"]


def explain(
    error: ValidationError,
    source: str | Callable[[str], str],
    fields: dict[tuple[str, ...], Iterable[str]],
    instead: Mapping[str, str] | None = None,
    command: str = "",
) -> JobError:
    """Return pydantic's errors as a JobError, one line for each of the first `MOST`.

    Args:
        source: what was read, such as a file's name and the section; or a function that gives it for a top-level field, and for
            "" where the fault is of several fields together.
        fields: location of a model -> its fields, to suggest one for an unknown field.
        instead: unknown top-level field -> what to write instead of it.
        command: of `nearest`.
    """
    lines: dict[str, None] = {}
    secondary = set()
    last = "", "", ""
    for fault in error.errors(include_url=False):
        if fault["type"] == "default_factory_not_called":  # it follows from another field's
            continue
        place = _place(fault)
        path = ".".join(place)
        location = source(place[0] if place else "") if callable(source) else source
        at = f"{location}: {path}" if path else location
        if fault["type"] == "extra_forbidden":
            better = (instead or {}).get(path)
            near = nearest(place[-1], fields.get(place[:-1], ()), command)
            line = f"{at}: unknown field{f'; write {better}' if better else near}"
        elif unknown := _unknown_kind(fault):
            line = f"{at}.{unknown}"
        elif fault["type"] == "missing":
            line = f"{at}: required, but not given"
        else:
            # The input of a fault of several fields together is the file itself.
            input_note = f" (given: {_cut(repr(fault['input']))})" if place else ""
            text = plainly(fault["msg"].removeprefix("Value error, ").removeprefix(f"{path}: "))
            if fault["type"] == "tuple_type":
                text = "expected a list; in a sweep, each value is one, as in [[0, 0], [0.5, 0]]"
            # The field may have several types, and the value is of none of them.
            if last[0] == at and text.startswith("must be "):
                lines.pop(last[2], None)
                text = f"{last[1]} or {text.removeprefix('must be ')}"
            line = f"{at}: {text}{input_note}{_swept(fault, location) or _misspelt(fault)}"
            last = at, text, line
        lines[line] = None
        if fault["type"] == "missing" or not place:
            secondary.add(line)
    return JobError("\n".join(_a_screen(list(lines))), secondary)


def _cut(text: str) -> str:
    return text if len(text) < 80 else text[:77] + "..."


def validated[M: BaseModel](
    model: type[M], content: object, location: str, instead: Mapping[str, str] | None = None
) -> M:
    """Validate content by a model. Raises JobError, with `location` before each line. instead: as in `explain`."""
    try:
        parsed = model.model_validate(content)
    except ValidationError as error:
        raise explain(error, location, {(): model.model_fields}, instead) from None
    refuse_booleans(content, parsed, f"{location}: ")
    return parsed


def refuse_booleans(content: object, read: object, location: str) -> None:
    """Raise JobError if a boolean was read as a number, which pydantic does: `n: true` is a slip, and would mean n = 1.

    read: `content` as a model read it. location: begins the message.
    """
    if isinstance(content, bool) and isinstance(read, int | float) and not isinstance(read, bool):
        raise JobError(f"{location}: must be a number (given: {str(content).lower()})")
    at = f"{location}." if location and not location.endswith(": ") else location
    if isinstance(content, Mapping):
        field_of = (
            read.get if isinstance(read, Mapping) else lambda name: getattr(read, str(name), None)
        )
        for name, value in content.items():
            refuse_booleans(value, field_of(name), f"{at}{name}")
    elif isinstance(content, list | tuple) and isinstance(read, list | tuple):
        for k, (value, read_value) in enumerate(zip(content, read, strict=False)):
            refuse_booleans(value, read_value, f"{at}{k}")


@contextmanager
def within(location: str) -> Iterator[None]:
    """Put `location` before the text of a JobError that is raised inside; its class, which decides the exit code, stays."""
    try:
        yield
    except JobError as error:
        error.args = (f"{location}: {error}",)
        raise


def _unknown_kind(fault: Mapping[str, Any]) -> str:
    """`KEY: ...` for a mapping whose key names no known kind; "" for any other fault.

    Our discriminators pass the key as `key`, and the known words as `known`, in the context of their error (jobs.forms).
    """
    content, about = fault["input"], fault.get("ctx", {})
    key = about.get("key")
    if key is None or not isinstance(content, Mapping) or key not in content:
        return ""
    return f"{key}: {content[key]!r:.60} given{nearest(str(content[key]), about['known'].split())}"


ONE_VALUE = ("float_type", "int_type", "string_type", "bool_type", "literal_error", "enum")
"""Pydantic's faults of a field that takes one value, where a list may be given."""


def _swept(fault: Mapping[str, Any], location: str) -> str:
    """Suggest the sweep that a list may be meant as, in place of one value of a parameter. location: ends in the section of the job."""
    content, place = fault["input"], _place(fault)
    is_list = isinstance(content, list) and fault["type"] in ONE_VALUE
    if not is_list or location.rpartition(": ")[2] not in ("params", "sweep"):
        return ""
    name = ".".join(takewhile(lambda part: not part.isdigit(), place))
    values = "..." if place[-1].isdigit() else ", ".join(map(str, content))
    return f"; `sweep: {{grid: {{{name}: [{_cut(values)}]}}}}` compares several"


def _misspelt(fault: Mapping[str, Any]) -> str:
    """Suggest what the user may have meant: a word of a list, or a key that names a kind of mapping.

    Our discriminators pass the known keys as `known` in the context of their error (jobs.forms.one_of).
    """
    content, about = fault["input"], fault.get("ctx", {})
    if fault["type"] in ("literal_error", "enum"):
        return did_you_mean(content, re.findall(r"'([^']*)'", about["expected"]))
    if "known" not in about or not isinstance(content, Mapping):
        return ""
    if "logspace" in content:  # of NumPy; it resembles linspace
        return "; did you mean 'geomspace', whose ends are values and not exponents?"
    words = about["known"].split()
    return next(
        filter(None, (did_you_mean(word, words) for word in content if word not in words)), ""
    )


def _place(fault: Mapping[str, Any]) -> tuple[str, ...]:
    """The path of a fault, without the names of union branches, which pydantic adds and the user did not write.

    The first part is always a field, and so is the last one of an unknown field.
    """
    parts = tuple(map(str, fault["loc"]))
    field_index = len(parts) - 1 if fault["type"] == "extra_forbidden" else 0
    if (
        len(parts) > 1
        and not field_index
        and re.fullmatch(r"(constrained-)?(str|int|float|bool)", parts[-1])
    ):
        parts = parts[:-1]
    is_branch = lambda part: part[:1].isupper() or "[" in part
    return tuple(
        part for k, part in enumerate(parts) if k in (0, field_index) or not is_branch(part)
    )


def home_of(
    name: str, value: object, params: Mapping[str, object], model: type[BaseModel]
) -> str | None:
    """The field, given as a name or a mapping with `name`, that accepts a parameter `name` of this value; None if none does.

    An unknown field `n_bits` of a job belongs to `task: {name: flipflop, n_bits: 2}`.
    """
    if name in model.model_fields:
        return None
    for field, field_value in params.items():
        inner = {"name": field_value} if isinstance(field_value, str) else field_value
        if field not in model.model_fields or not isinstance(inner, dict) or "name" not in inner:
            continue
        # A field that accepts any parameter, such as a misspelt one, tells nothing.
        takes = [_takes(model, field, inner | {key: value}) for key in (name, f"{name}_")]
        if takes == [True, False]:
            return field
    return None


def _takes(model: type[BaseModel], field: str, value: object) -> bool:
    """Return whether a value is valid for a field, whatever is wrong with other fields."""
    try:
        model.model_validate({field: value})
    except ValidationError as error:
        return not any(fault["loc"][:1] == (field,) for fault in error.errors())
    return True
