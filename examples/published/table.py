"""The table of published figures and ours: its lines, docs/published.md, and one HTML page."""

from __future__ import annotations

import base64
import html
import re
import string
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from figure import Figure, Row, number
from rows import ROWS

HERE = Path(__file__).resolve().parent
SETTINGS = ("small", "full")


@dataclass(frozen=True)
class Measured:
    """A line of the table."""

    row: str
    setting: str
    figure: str
    note: str = ""
    """Why there are no values, or what is to be known of them."""
    median: float = np.nan
    """Of a figure of yes and no, the share of yes."""
    low: float = np.nan
    high: float = np.nan
    n: int = 0
    bound: float = np.nan
    seconds: float = np.nan
    """Of workers, over all stages, from the store."""
    versions: str = ""
    made: str = ""
    device: str = ""


def head(path: Path) -> str:
    """What the head of a job file says of the paper, the figure and the settings that differ."""
    lines = re.match(r"(# .*\n)+", path.read_text())[0].splitlines()
    return " ".join(line.removeprefix("# ") for line in lines if not line.startswith("# full: "))


def all_figures() -> list[tuple[Row, Figure]]:
    return [(row, figure) for row in ROWS for figure in row.figures]


# --- pages ------------------------------------------------------------------------------------------

HEAD = (
    "row", "paper", "figure", "published", "ours: median (lowest to highest, n)", "bound", "verdict", "seconds", "setting", "made",
)  # fmt: skip


def cells(one: Measured, marks: Mapping[str, str]) -> list[str]:
    """The cells of a line of the table. marks: device -> its mark beside the seconds."""
    row, figure = next(
        (r, f) for r, f in all_figures() if (r.name, f.name) == (one.row, one.figure)
    )
    said = "; ".join(filter(None, (values(one, figure.yes_no), one.note)))
    seconds = "" if np.isnan(one.seconds) else f"{one.seconds:.0f} {marks.get(one.device, '')}"
    return [
        row.name, row.paper, f"{figure.name}: {figure.what}", figure.published_text(), said, number(one.bound),
        verdict(row, figure, one), seconds.strip(), setting(row, one), " ".join(filter(None, (one.made, one.versions))),
    ]  # fmt: skip


def marked(lines: list[Measured]) -> dict[str, str]:
    """Device -> a letter, where there are several."""
    devices = sorted({one.device for one in lines if one.device})
    return dict(zip(devices, string.ascii_lowercase, strict=False)) if len(devices) > 1 else {}


def values(one: Measured, yes_no: bool) -> str:
    """The median and, of several values, their range and number; of yes and no, how many are yes."""
    if yes_no and one.n:
        return f"{round(one.median * one.n)} of {one.n}"
    spread = f" ({number(one.low)} to {number(one.high)}, {one.n})" if one.n > 1 else ""
    return number(one.median) + spread


def setting(row: Row, one: Measured) -> str:
    """Small or full, and whether that is the paper's."""
    return f"{one.setting}, the paper's" if one.setting in row.as_published else one.setting


def verdict(row: Row, figure: Figure, one: Measured) -> str:
    """Reached or missed; nothing where the paper's own quantity, data and settings are not those of ours."""
    if not one.n or not row.judges(figure, one.setting):
        return ""
    return "reached" if figure.reached(one.median) else "missed"


def markdown(lines: list[Measured]) -> str:
    """The table."""
    marks = marked(lines)
    return as_markdown(HEAD, [cells(one, marks) for one in lines])


def as_markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in [head, ["---"] * len(head), *rows])


def nearest_setting(row: Row, lines: Iterable[Measured]) -> Measured | None:
    """The line of a figure in the paper's settings if there is one, else in the full ones, else in small ones."""
    rank = lambda line: (line.setting in row.as_published, SETTINGS.index(line.setting))
    return max((line for line in lines if line.n), key=rank, default=None)


def glance(lines: list[Measured]) -> str:
    """Each figure once, published and ours; before it, how many of those with a verdict are reached."""
    rows, verdicts = [], Counter[str]()
    for row, figure in all_figures():
        of_figure = (line for line in lines if (line.row, line.figure) == (row.name, figure.name))
        if (line := nearest_setting(row, of_figure)) is None:
            continue
        judgement = verdict(row, figure, line)
        verdicts[judgement] += 1
        name = f"[{escaped(row.name)}](#{row.name}): {figure.name}"
        ours = values(line, figure.yes_no)
        rows.append((name, figure.published_text(), ours, judgement, setting(row, line), line.made))
    n = verdicts["reached"] + verdicts["missed"]
    return (
        f"{n} figures can be judged: the paper's own quantity, on its own kind of data, at its own settings. Of these {verdicts['reached']} are reached. "
        f"The other {verdicts['']} are shown beside ours, without a verdict.\n\n"
        + as_markdown(("figure", "published", "ours", "verdict", "setting", "made"), rows)
    )


def section(row: Row) -> str:
    """A row: its paper, what its figures are, and what differs."""
    text = head(HERE / f"{row.name}.yaml")
    return f"### {row.name}\n\n{escaped(text)}\n"


def escaped(text: str) -> str:
    return re.sub(r"([_*<\[])", r"\\\1", text)


def page(lines: list[Measured]) -> str:
    """docs/published.md."""
    sections = "\n".join(section(row) for row in ROWS)
    return f"""# The figures of the papers

What papers report, and what `ctd` gives. {glance(lines)}
Ours is a median over seeds, networks or segments, with the lowest, the highest and their number; a failed run ranks last. An interval of an effect has 95 % of its bootstrap draws.

- *reached*: our median is as good as the published number, or behind it by no more than the error or deviation that the paper prints; *missed*: it is not.
- No verdict: something differs, which the paragraph of the row says. That ours is better or worse there says nothing about the method.
- *small* and *full* are our two settings, *the paper's* if they have its data, sizes and training.

Each row is a job file of [examples/published](../examples/published/); `results.csv` there has both settings, seconds and machines.

```bash
uv run ctd run examples/published/*.yaml                         # small settings: 14 minutes in all of two idle cores
uv run python examples/published/compare.py                      # the table, from the stores
uv run python examples/published/compare.py --page figures.html  # the same with the pictures
uv run python examples/published/compare.py --full flipflop      # the command that runs a row in its full setting
```

## The rows

{sections}"""


def web_page(lines: list[Measured], folder: Path = HERE) -> str:
    """The table and the pictures of the stores as one HTML page that needs no other file."""

    def cell(tag: str, name: str, text: str) -> str:
        return f'<{tag} data-name="{html.escape(name)}">{html.escape(text)}</{tag}>'

    def line(tag: str, texts: Sequence[str], kind: str) -> str:
        inner = "".join(cell(tag, name, text) for name, text in zip(HEAD, texts, strict=True))
        return f'<tr class="{kind}">{inner}</tr>'

    at, marks = HEAD.index("verdict"), marked(lines)
    rows = [cells(one, marks) for one in lines]
    body = "".join(line("td", row, row[at].partition(",")[0] or "none") for row in rows)
    pictures = ""
    for row in ROWS:
        # One without stages, then those of stages; the full setting's lie in a folder of their own.
        drawn = [
            p for at in (folder, folder / "full") for p in sorted(at.glob(f"{row.name}[.]*png"))
        ]
        for file in drawn:
            data = base64.b64encode(file.read_bytes()).decode()
            name = f"{file.stem}, full" if file.parent.name == "full" else file.stem
            pictures += f'<h2>{name}</h2><img alt="{name}" src="data:image/png;base64,{data}">'
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>The figures of the papers</title><style>
body {{ font: 15px/1.4 system-ui, sans-serif; margin: 1rem auto; max-width: 1360px; padding: 0 1rem }}
div {{ overflow-x: auto }} table {{ border-collapse: collapse }} td, th {{ padding: .3rem .5rem; text-align: left; vertical-align: top;
border-bottom: 1px solid #ccc }} .missed td:nth-child({at + 1}) {{ color: #b00020; font-weight: bold }} img {{ max-width: 100% }}
h2 {{ overflow-wrap: anywhere }}
@media (max-width: 700px) {{ .head {{ display: none }} table, tbody, tr, td {{ display: block }} td {{ border: 0; padding: .1rem 0 }} td:empty {{ display: none }}
tr {{ border-bottom: 1px solid #ccc; padding: .6rem 0 }} td:first-child {{ font-weight: bold }} td:not(:first-child)::before {{ content: attr(data-name) ": "; color: #555 }} }}
</style><h1>The figures of the papers</h1><div role="region" aria-label="table" tabindex="0"><table>{line("th", HEAD, "head")}{body}</table></div>
{pictures}</html>
"""
