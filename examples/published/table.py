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
    "row", "paper", "figure", "published", "reached if", "ours: median (lowest to highest, n)", "bound", "verdict", "seconds", "setting", "made",
)  # fmt: skip


def cells(one: Measured, marks: Mapping[str, str]) -> list[str]:
    """The cells of a line of the table. marks: device -> its mark beside the seconds."""
    row, figure = next(
        (r, f) for r, f in all_figures() if (r.name, f.name) == (one.row, one.figure)
    )
    said = "; ".join(filter(None, (values(one, figure.yes_no), one.note)))
    seconds = "" if np.isnan(one.seconds) else f"{one.seconds:.0f} {marks.get(one.device, '')}"
    return [
        row.name, row.paper, f"{figure.name}: {figure.what}", figure.told(), figure.needed(), said, number(one.bound),
        verdict(figure, one), seconds.strip(), one.setting, " ".join(filter(None, (one.made, one.versions))),
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


def verdict(figure: Figure, one: Measured) -> str:
    """Reached or missed; a miss within a hundredth of a bound that excludes the published figure says so, and an effect whose draws lie on both sides of 0."""
    if not one.n or figure.published is None:
        return ""
    if figure.decided and figure.reached(one.low) != figure.reached(one.high):
        return "missed, undecided"
    if figure.reached(one.median):
        return "reached"
    near = figure.goal == "more" and one.bound <= min(figure.published, one.median / 0.99)
    return "missed, at the bound" if near else "missed"


def markdown(lines: list[Measured]) -> str:
    """The table."""
    marks = marked(lines)
    return as_markdown(HEAD, [cells(one, marks) for one in lines])


def as_markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in [head, ["---"] * len(head), *rows])


def glance(lines: list[Measured]) -> str:
    """Each figure once, in the sizes of its paper where that was run: published, ours and the verdict; before it, how many are reached."""
    best = {(one.row, one.figure): one for one in lines if one.n and one.setting == "small"}
    best |= {(one.row, one.figure): one for one in lines if one.n and one.setting == "full"}
    rows, counts = [], {setting: Counter[str]() for setting in SETTINGS}
    for row, figure in all_figures():
        one = best.get((row.name, figure.name))
        if one is None or figure.published is None:
            continue
        told = verdict(figure, one)
        counts[one.setting][told.partition(",")[0]] += 1
        name = f"[{escaped(row.name)}](#{row.name}): {figure.name}"
        paper = row.paper.partition(" (")[0]
        rows.append((name, paper, figure.told(), values(one, figure.yes_no), told, one.setting))
    of = lambda setting: f"{counts[setting]['reached']} of {counts[setting].total()}"
    return (
        f"In the sizes of their papers we reach {of('full')} figures. The others ran in small sizes alone, where we reach {of('small')}.\n\n"
        + as_markdown(("figure", "paper", "published", "ours", "verdict", "setting"), rows)
    )


def section(row: Row, lines: list[Measured], marks: Mapping[str, str]) -> str:
    """A row: what it is, why its figures have tolerances, and its lines."""
    text = head(HERE / f"{row.name}.yaml")
    for figure in row.figures:
        if figure.slack:
            text += f" Tolerance of {figure.name}: {figure.why}."
    mine = [cells(one, marks)[2:] for one in lines if one.row == row.name]
    return f"### {row.name}\n\n{escaped(text)}\n\n{as_markdown(HEAD[2:], mine)}"


def escaped(text: str) -> str:
    return re.sub(r"([_*<\[])", r"\\\1", text)


def page(lines: list[Measured]) -> str:
    """docs/published.md."""
    made = sorted({one.made for one in lines if one.n})
    days = " to ".join(dict.fromkeys((made[0], made[-1]))) if made else "never"
    marks = marked(lines)
    devices = marks or {one.device: "" for one in lines if one.device}
    machine = "; ".join(f"{mark} = {one}".removeprefix(" = ") for one, mark in devices.items())
    sections = "\n".join(section(row, lines, marks) for row in ROWS)
    return f"""# The figures of the papers

What papers report, and what `ctd` gives for the same figure, by the same definition. Made {days}.

{glance(lines)}
Ours is a median over seeds, networks or segments, with the lowest and the highest; a failed run ranks last. Small settings are smaller than those of the papers: a
*reached* there says that the figure is within reach, no more.

- *reached*: our median, or more than half of what is yes or no, is as good as the published figure; *missed*: it is not. Few figures have a tolerance, and the rows below say why.
- *missed, at the bound*: ours is within a hundredth of the best value that there can be, and that is no better than the published figure.
- *missed, undecided*: ours is the interval of an effect, and its ends lie on both sides of 0.

Each row below is a job file of [examples/published](../examples/published/):

```bash
uv run ctd run examples/published/*.yaml                         # small settings: 14 minutes in all of two idle cores
uv run python examples/published/compare.py                      # the table, from the stores
uv run python examples/published/compare.py --page figures.html  # the same with the pictures
uv run python examples/published/compare.py --full flipflop      # the command that runs a row in the sizes of its paper
```

*reached if* says what ours must be, *bound* is the best value that there can be, where it is known, and *seconds* are those of workers, which equal CPU seconds on an idle machine.
Machines: {machine or "none"}.

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
