"""The messages that users meet: `refused` and `warned` compare them with tests/messages.json, an entry a test.

`pytest --write-snapshots` writes the entries of the tests that run anew; read the difference before it is committed.
"""

import json
import re
import socket
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from places import ROOT
from pydantic import ValidationError

PATH = ROOT / "tests" / "messages.json"
PARTS = (
    (r"(?:/[^\s'\"`(]*?)?/pytest-of-[^/]+/pytest-\d+(?:/popen-gw\d+)?/[^/\s'\"`:,;)]+", "TMP"),
    (rf"{re.escape(tempfile.gettempdir())}/[\w-]+-[a-z0-9_]{{8}}\b", "TMP"),
    (re.escape(sys.prefix), "VENV"),
    (re.escape(str(ROOT)), "ROOT"),
    (re.escape(str(Path(json.__file__).parents[1])), "LIB"),
    (rf"\b{re.escape(socket.gethostname())}\b", "HOST"),
    (r"\bprocess \d+( of \S+)?", "process PID"),
    (r"-?\d+ s(?= ago|, last sign)", "N s"),
    (r"\b(is|Python:|Ray:) \d+(\.\d+)+", r"\1 VERSION"),
    (r"\b0x[0-9a-f]+", "ADDRESS"),
    (r"(127\.0\.0\.1|localhost):\d+", r"\1:PORT"),
    (r"\b(?=\d*[a-f])(?=[a-f]*\d)[0-9a-f]{8,}\b", "HASH"),
    (r"\bline \d+(, in .*)?", "line N"),
    (r"(?s)\nTraceback \(most recent call last\).*", "\n..."),
    (r"(?s)(The actor is dead|Version mismatch:).*", r"\1 ..."),  # in Ray's words
    (r"(?<=this machine has )[\d.]+", "N"),
    # Computed in floats, which another processor rounds otherwise.
    (r"\d+ fixed points of \d+", "N fixed points of N"),
    (r"up to \d+ of \d+ exponents of", "up to N of N exponents of"),
    (r"the best d_stsp is [^;]*", "the best d_stsp is N"),
    (r"\d+\.\d{5,}(e-?\d+)?", lambda number: f"{float(number[0]):.4g}"),
)
"""What differs between machines and runs, and the word in its place."""


def normal(text, parts=PARTS):
    for pattern, word in parts:
        text = re.sub(pattern, word, text)
    return text


def text_of(error):
    """An error's text; of a pydantic one the fields, and what our own validators say."""
    if not isinstance(error, ValidationError):
        return str(error)
    own = ("value_error", "assertion_error")
    lines = [
        (".".join(map(str, e["loc"])), e["msg"] if e["type"] in own else e["type"])
        for e in error.errors()
    ]
    return "\n".join(": ".join(line) for line in lines)


class Messages:
    """A plugin of pytest: the messages on file and those of this run, a list for each test's id."""

    active = None

    def __init__(self, config):
        Messages.active, self.config = self, config
        self.parts = PARTS
        if config.option.basetemp:  # the processes of pytest-xdist have one each
            base = re.escape(str(config.option.basetemp))
            self.parts = ((rf"{base}/[^/\s'\"`:,;)]+", "TMP"), *PARTS)
        self.write = config.getoption("write_snapshots")
        self.on_file = {
            f"{file}::{test}": [texts] if isinstance(texts, str) else texts
            for file, tests in json.loads(PATH.read_text()).items()
            for test, texts in tests.items()
        }
        self.met, self.ran, self.collected = {}, [], []
        self.node = None

    def add(self, text):
        texts = self.met.setdefault(self.node, [])
        texts.append(normal(text, self.parts))
        on_file = self.on_file.get(self.node, [])[len(texts) - 1 : len(texts)]
        assert self.write or on_file == texts[-1:], (
            f"{texts[-1]!r}, but on file {on_file}; pytest --write-snapshots writes it"
        )

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items):
        self.collected = [item.nodeid for item in items]

    def pytest_runtest_setup(self, item):
        self.node = item.nodeid
        self.ran.append(item.nodeid)

    def pytest_testnodedown(self, node):
        met, ran, self.collected = node.workeroutput["messages"]
        self.met |= met
        self.ran += ran

    def pytest_sessionfinish(self):
        if hasattr(self.config, "workeroutput"):
            self.config.workeroutput["messages"] = (self.met, self.ran, self.collected)
        elif self.write:
            self.save()

    def save(self):
        """Entries of tests that ran are written anew; those of tests that are no more are left out."""
        selected = any("::" in argument for argument in self.config.args)
        files = set() if selected else {node.partition("::")[0] for node in self.collected}
        gone = {node for node in self.on_file if node.partition("::")[0] in files}
        gone = (gone - {*self.collected}) | {*self.ran}
        entries = {node: t for node, t in self.on_file.items() if node not in gone} | self.met
        content = {}
        for node, texts in sorted(entries.items()):
            file, _, test = node.partition("::")
            if (ROOT / file).exists():
                content.setdefault(file, {})[test] = texts if len(texts) > 1 else texts[0]
        PATH.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


@contextmanager
def refused(*kinds):
    """The body raises one of `kinds`, with the message on file."""
    with pytest.raises(kinds) as error:
        yield error
    Messages.active.add(text_of(error.value))


@contextmanager
def warned(kind=UserWarning):
    """The body warns, with the messages on file."""
    with pytest.warns(kind) as warnings:
        yield warnings
    for text in dict.fromkeys(str(w.message) for w in warnings if issubclass(w.category, kind)):
        Messages.active.add(text)


def usage_error(answer, *said):
    """Exit code 2 and one screen of text, no traceback: with these words, or without any the error on file.

    Of a box that Typer draws, as wide as the terminal is, what stands in it.
    """
    code, _, err = answer
    assert code == 2, err
    assert "Traceback" not in err
    assert len(err.splitlines()) <= 24, err
    for words in said:
        assert words in err, err
    if not said:
        box = [line.strip("│ \n") for line in err.splitlines() if line.startswith("│")]
        Messages.active.add(" ".join(box) if box else err[err.index("error: ") :].strip())
