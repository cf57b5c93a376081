"""The text of a job file, a profile or a value as plain data: YAML, of which JSON is a part, within bounds.

A few bytes of YAML can stand for 10^40 values, for a list that holds itself, or for calls of Python. Here they can hold
only what JSON holds (null, booleans, numbers, texts, lists, mappings), and at most `MOST_VALUES` of them.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from jobs.errors import JobError

MOST_BYTES = 16 << 20
"""A longer file is refused."""
MOST_VALUES = 300_000
"""Values of one text, those under an anchor counted wherever they stand: PyYAML takes 25 us and 1 kB for each."""
MOST_DEEP = 100
"""Levels of lists and mappings: PyYAML, pydantic and json recurse, and Python allows for 1,000 calls."""

RATHER = "sweep by range, linspace or random"
"""The advice for a user who lists too many values."""

KINDS = ("null", "bool", "int", "float", "str", "seq", "map")
"""The types of values; a date is a text, as in YAML 1.2."""

HINTS = {
    "'\\t'": "indent with spaces, not tabs",
    "mapping values are not allowed here": "is this line indented as its neighbours?",
    "expected <block end>": "is this line indented as its neighbours?",
}
"""Part of what PyYAML says -> what the user may do."""


class _Yaml(yaml.SafeLoader):
    """YAML with the numbers of YAML 1.2: PyYAML reads 1e-4 as a string and 4:00:00 as 14400."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (PyYAML copies it before it changes it)
        first: [
            (tag, pattern)
            for tag, pattern in rules
            if tag.rpartition(":")[2] not in ("int", "timestamp", "value")
        ]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    yaml_constructors = {  # noqa: RUF012
        tag: build
        for tag, build in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.rpartition(":")[2] in KINDS
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._values = self._depth = self._deepest = 0
        self._anchored: dict[str, tuple[int, int]] = {}
        """Anchor -> the values below it, and their levels."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose a value; raise ComposerError where there are too many of them, or levels."""
        event = self.peek_event()
        before, outer = self._values, self._deepest
        self._values, self._depth = before + 1, self._depth + 1
        self._deepest = self._depth
        if isinstance(event, yaml.AliasEvent) and event.anchor in self.anchors:
            if event.anchor not in self._anchored:
                raise _fault(f"the value of &{event.anchor} holds itself", event)
            values, levels = self._anchored[event.anchor]
            self._values, self._deepest = before + values, self._depth + levels
        if self._values > MOST_VALUES:
            raise _fault(f"more than {MOST_VALUES:,} values; {RATHER}", event)
        if self._deepest > MOST_DEEP:
            raise _fault(f"more than {MOST_DEEP} lists and mappings inside of each other", event)
        node = super().compose_node(parent, index)
        if anchor := getattr(event, "anchor", None):
            self._anchored[anchor] = self._values - before, self._deepest - self._depth
        self._depth, self._deepest = self._depth - 1, max(outer, self._deepest)
        return node

    def compose_mapping_node(self, anchor: Any) -> Any:
        """Compose a mapping; raise ComposerError for a repeated key, where PyYAML would keep the last."""
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, value in node.value:
            name = key.tag, key.value
            if not isinstance(key, yaml.ScalarNode) or key.tag.endswith(":merge"):
                continue
            is_nothing = value.start_mark.index == value.end_mark.index
            if is_nothing and ":" in key.value and not key.style:  # `{n:8}`: a name without value
                better = key.value.replace(":", ": ", 1)
                raise _fault(f"write `{better}`, with a space after the colon", key)
            if name in lines:
                raise _fault(
                    f"{key.value!r} is given twice, first in line {lines[name]}; keep one of them",
                    key,
                )
            lines[name] = key.start_mark.line + 1
        return node

    def construct_object(self, node: object, deep: bool = False) -> Any:
        """Return a value; raise ConstructorError for a number that is none, or needs more than 64 bits."""
        if not isinstance(node, yaml.ScalarNode):
            return super().construct_object(node, deep)
        try:
            value = super().construct_object(node, deep)
        except (ValueError, LookupError, OverflowError) as error:  # !!int x; 5,000 digits
            kind = node.tag.rpartition(":")[2]
            raise _fault(f"{node.value:.40} is no {kind} that can be read", node) from error
        if isinstance(value, int) and not -(2**63) <= value < 2**64:
            raise _fault(f"{node.value:.40} is a whole number of more than 64 bits", node)
        return value


def _fault(problem: str, at: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=at.start_mark)


_Yaml.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"^[-+]?(0|[1-9][0-9_]*|0x[0-9a-fA-F]+)$"),
    list("-+0123456789"),
)
_Yaml.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def parse_text(text: str, location: str) -> Any:
    """Return the value of a text in YAML or JSON.

    Raises JobError, headed by `location` and the line, where it is not valid or beyond the bounds above.
    """
    try:
        return yaml.load(text, _Yaml)  # noqa: S506  a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "a character that is not text"
        problem += next((f"; {hint}" for part, hint in HINTS.items() if part in problem), "")
        # The fault of an open bracket shows only lines later.
        began: Any = getattr(error, "context_mark", None)
        bracket = began.buffer[began.pointer] if began else ""
        if bracket in ("[", "{"):
            place = f"line {began.line + 1}, column {began.column + 1}"
            problem += f"; {bracket} in {place} may lack its end"
        raise JobError(f"{location}{at}: not valid YAML or JSON: {problem}") from None


def parse_file(path: Path) -> Any:
    """Return the value of a file in YAML or JSON; FileNotFoundError without one.

    Raises JobError, headed by the path, as `parse_text` does, and where the file cannot be read.
    """
    try:
        with path.open(encoding="utf-8") as file:  # whatever the locale of this machine
            text = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise
    except IsADirectoryError:
        raise JobError(f"{path}: is a folder; give a file in YAML or JSON") from None
    except OSError as error:
        raise JobError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise JobError(f"{path}: not text; give a file in YAML or JSON") from None
    if len(text) > MOST_BYTES:
        raise JobError(f"{path}: longer than {MOST_BYTES >> 20} MB; {RATHER}")
    return parse_text(text, str(path))
