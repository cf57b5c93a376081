"""Show the examples of docstrings as code: Markdown would take `>>>` for quotations."""

import re
from typing import Any

import griffe


class Examples(griffe.Extension):
    """Puts each doctest of a docstring, up to its blank line, into a block of code."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for each object that is loaded."""
        block = lambda found: f"```pycon\n{found[1].removesuffix('<BLANKLINE>\n').rstrip()}\n```\n"
        if obj.docstring:
            # Docstrings end without a newline.
            text = f"{obj.docstring.value}\n"
            obj.docstring.value = re.sub(r"(?m)^(>>> (?:.+\n)+)", block, text).rstrip()
