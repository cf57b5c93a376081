"""The figures of the papers beside ours: a table of what lies in the stores of this folder's job files.

    uv run ctd run examples/published/*.yaml                # small settings: minutes each
    uv run python examples/published/compare.py             # the table; --page OUT.html with the pictures
    uv run python examples/published/compare.py --write     # keeps the table: results.csv, docs/published.md

The line `# full: FIELD=VALUE ...` of a job file has the sizes of the paper. `compare.py --full ROW` prints the command that runs them;
its stores lie in the folder `full`, and a row that has both has two lines.
"""

from __future__ import annotations

import argparse
import base64
import csv
import html
import re
import shlex
import string
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from figure import Figure, Row, Stores, number  # noqa: E402
from rows import ROWS  # noqa: E402

from ctd.installed import version_of  # noqa: E402
from jobs import open_store  # noqa: E402
from jobs.errors import JobError  # noqa: E402
from jobs.pipeline import read_stages  # noqa: E402
from jobs.store.store import Store  # noqa: E402

RESULTS = HERE / "results.csv"
PAGE = HERE.parents[1] / "docs" / "published.md"
SETTINGS = ("small", "full")
PACKAGES = ("ctd", "jax", "jaxlib", "numpy", "optax")
"""Those whose versions change results."""


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


def overrides(path: Path) -> list[str]:
    """The overrides of the full setting, from the head of a job file."""
    (line,) = re.findall(r"^# full: (.*)$", path.read_text(), re.MULTILINE)
    return shlex.split(line, posix=False)


def head(path: Path) -> str:
    """What the head of a job file says of the paper, the figure and the settings that differ."""
    lines = re.match(r"(# .*\n)+", path.read_text())[0].splitlines()
    return " ".join(line.removeprefix("# ") for line in lines if not line.startswith("# full: "))


def command(row: Row, folder: Path = HERE) -> str:
    """The command that runs a row's full setting."""
    path = folder / f"{row.name}.yaml"
    words = ["ctd", "run", str(path), "--store", str(folder / "full" / f"{row.name}.zarr")]
    return shlex.join([*words, *overrides(path)])


def measure(row: Row, setting: str, folder: Path = HERE) -> list[Measured]:
    """The lines of a row in one setting; where they cannot be, a line that says why."""
    try:
        stores, note = opened(row, setting, folder)
        about = described(stores)
    except Exception as error:  # a damaged store, which leaves the other rows as they are
        return [Measured(row.name, setting, row.figures[0].name, told(error))]
    return [line(row, setting, figure, stores, note, about) for figure in row.figures]


def told(error: Exception) -> str:
    """What is wrong, in one line; of a missing package its name."""
    if isinstance(error, ImportError) and error.name:
        return f"needs the package {error.name}: uv sync --all-extras"
    text = str(error).partition("\n")[0]
    kind = "" if text and isinstance(error, JobError) else type(error).__name__
    return ": ".join(filter(None, (kind, text)))


def line(
    row: Row, setting: str, figure: Figure, stores: Stores, note: str, about: dict[str, object]
) -> Measured:
    """A figure of finished stores."""
    try:
        values = np.asarray(figure.measure(stores), float)
        if not len(values):
            return Measured(row.name, setting, figure.name, "no item has this result")
        values = np.where(np.isnan(values), figure.worst, values)
        bound = figure.bound
        if callable(bound):
            bound = float(np.median(bound(stores)))
    except Exception as error:
        return Measured(row.name, setting, figure.name, f"cannot be measured: {told(error)}")
    middle = np.mean if figure.yes_no else np.median
    spread = (float(f(values)) for f in (middle, np.min, np.max))
    best = np.nan if bound is None else bound
    return Measured(row.name, setting, figure.name, note, *spread, len(values), best, **about)


def opened(row: Row, setting: str, folder: Path) -> tuple[Stores, str]:
    """(stage -> store, what is to be known of them). Raises JobError where one is missing, unfinished or of another job."""
    path = folder / f"{row.name}.yaml"
    stem = None if setting == "small" else str(folder / "full" / f"{row.name}.zarr")
    found: dict[str, str] = {}
    stores, notes = {}, []
    for stage in read_stages(path, overrides(path) if stem else None, stem):
        name = Path(stage.address).name
        if not Store.exists(stage.address):
            raise JobError("not run" if not found else f"unfinished: {name} is missing")
        store = open_store(stage.address)
        n, there = store.store.job.plan.n_items, len(store.table())
        if there < n:
            raise JobError(f"unfinished: {name} has {there:,} of {n:,} items")
        if stage.spec(found).digest() != store.store.job.spec.digest():
            notes.append(f"{name} is of other settings than the file has now")
        notes += [other_versions(store.store.job.provenance.get("versions", {}))]
        found[stage.name], stores[stage.name] = stage.address, store
    return stores, "; ".join(dict.fromkeys(filter(None, notes)))


def other_versions(versions: dict[str, str]) -> str:
    """Which packages were others when a store was made."""
    here = {name: version_of(name) for name in PACKAGES}
    other = [
        f"{name} {versions[name]} (here {here[name]})"
        for name in PACKAGES
        if versions.get(name, here[name]) != here[name]
    ]
    return f"made with {', '.join(other)}" if other else ""


def described(stores: Stores) -> dict[str, object]:
    """When, on what and by what the stores were made."""
    shards = [store.table("shards") for store in stores.values()]
    last = list(stores.values())[-1].store.job.provenance
    return {
        "seconds": float(sum(table["seconds"].sum() for table in shards)),
        "versions": " ".join(f"{name} {last['versions'][name]}" for name in ("ctd", "jax")),
        "made": str(last["created"])[:10],
        "device": str(shards[-1]["device_kind"].iloc[0]),
    }


def measured(folder: Path = HERE) -> Iterator[Measured]:
    """All lines: each row in its small setting, and in its full one where that has been run."""
    for row in ROWS:
        yield from measure(row, "small", folder)
        if list((folder / "full").glob(f"{row.name}.*zarr")):
            yield from measure(row, "full", folder)


# --- the kept table ---------------------------------------------------------------------------------


def read_kept(path: Path = RESULTS) -> list[Measured]:
    """The lines that were kept."""
    kinds = {field.name: field.type for field in fields(Measured)}
    cast = {"float": float, "int": int, "str": str}
    with path.open(newline="") as file:
        return [
            Measured(**{k: cast[kinds[k]](v) for k, v in one.items()})
            for one in csv.DictReader(file)
        ]


def keep(lines: list[Measured], path: Path = RESULTS) -> list[Measured]:
    """Write lines, in the place of those that were kept of the same figure; a line without values replaces none."""
    key = lambda one: (one.row, one.setting, one.figure)
    kept = {key(one): one for one in (read_kept(path) if path.exists() else [])}
    for one in lines:
        if one.n:
            kept[key(one)] = one
        else:
            kept.setdefault(key(one), replace(one, note="not run"))
    figures = {(row.name, figure.name): k for k, (row, figure) in enumerate(all_figures())}
    known = [one for one in kept.values() if (one.row, one.figure) in figures]
    known.sort(key=lambda one: (figures[one.row, one.figure], -SETTINGS.index(one.setting)))
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([field.name for field in fields(Measured)])
        writer.writerows(
            [f"{v:.6g}" if isinstance(v, float) else v for v in asdict(one).values()]
            for one in known
        )
    return read_kept(path)


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
    rows = [HEAD, ["---"] * len(HEAD), *(cells(one, marks) for one in lines)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def about(row: Row) -> str:
    """What a row is, and why its figures have tolerances."""
    text = head(HERE / f"{row.name}.yaml")
    for figure in row.figures:
        if figure.slack:
            text += f" Tolerance of {figure.name}: {figure.why}."
    escaped = lambda text: re.sub(r"([_*<\[])", r"\\\1", text)
    return f"**{escaped(row.name)}.** {escaped(text)}"


def page(lines: list[Measured]) -> str:
    """docs/published.md."""
    rows = "\n\n".join(about(row) for row in ROWS)
    made = sorted({one.made for one in lines if one.n})
    days = " to ".join(dict.fromkeys((made[0], made[-1]))) if made else "never"
    marks = marked(lines)
    devices = marks or {one.device: "" for one in lines if one.device}
    machine = "; ".join(f"{mark} = {one}".removeprefix(" = ") for one, mark in devices.items())
    return f"""# The figures of the papers

What papers report, and what `ctd` gives for the same figure. Each row is a job file of [examples/published](../examples/published/), whose head
has the paper, the settings that differ, and the sizes of the paper:

```bash
uv run ctd run examples/published/*.yaml                         # small settings: minutes a row
uv run python examples/published/compare.py                      # the table, from the stores
uv run python examples/published/compare.py --page figures.html  # the same with the pictures
uv run python examples/published/compare.py --full flipflop      # the command that runs a row in the sizes of its paper
```

The table was made {days}. Published and ours are one figure by one definition, or the row says what differs. A median is over seeds, networks or
segments; a failed run is ranked last. Where each value is yes or no, the table says how many are yes. Small settings are smaller than those of the papers: a
*reached* there says that the figure is within reach, no more.

- *reached if* says what ours must be. Most figures have no tolerance; where one has, *What each row is* gives the reason. Where a paper tells a sign alone,
  it is `> 0` or `< 0`. Cells are empty where the paper shows no number.
- *bound* is the best value that there can be, where it is known.
- *reached*: our median, or our share of yes, is what it must be. *missed*: it is not.
- *missed, at the bound*: ours is within a hundredth of a bound that is no better than the published figure, so that little is left to gain.
- *missed, undecided*: ours is the interval of an effect, and its ends lie on both sides of 0.
- *seconds* are those of workers, from the stores; on an idle machine they equal CPU seconds. Machines: {machine or "none"}.

{markdown(lines)}
## What each row is

{rows}
"""


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
        drawn = sorted(folder.glob(f"{row.name}.png")) + sorted(folder.glob(f"{row.name}.*.png"))
        for file in drawn:
            data = base64.b64encode(file.read_bytes()).decode()
            pictures += (
                f'<h2>{file.stem}</h2><img alt="{file.stem}" src="data:image/png;base64,{data}">'
            )
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>The figures of the papers</title><style>
body {{ font: 15px/1.4 system-ui, sans-serif; margin: 1rem auto; max-width: 1360px; padding: 0 1rem }}
div {{ overflow-x: auto }} table {{ border-collapse: collapse }} td, th {{ padding: .3rem .5rem; text-align: left; vertical-align: top;
border-bottom: 1px solid #ccc }} .missed td:nth-child({at + 1}) {{ color: #b00020; font-weight: bold }} img {{ max-width: 100% }}
@media (max-width: 700px) {{ .head {{ display: none }} table, tbody, tr, td {{ display: block }} td {{ border: 0; padding: .1rem 0 }} td:empty {{ display: none }}
tr {{ border-bottom: 1px solid #ccc; padding: .6rem 0 }} td:first-child {{ font-weight: bold }} td:not(:first-child)::before {{ content: attr(data-name) ": "; color: #555 }} }}
</style><h1>The figures of the papers</h1><div role="region" aria-label="table" tabindex="0"><table>{line("th", HEAD, "head")}{body}</table></div>
{pictures}</html>
"""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--page", type=Path, help="write the table and the pictures as one HTML page"
    )
    text = "keep the table in results.csv, and write docs/published.md"
    parser.add_argument("--write", action="store_true", help=text)
    text = "what the kept table says of the machine, beside the kind of its devices"
    parser.add_argument("--machine", default="", help=text)
    names = [row.name for row in ROWS]
    parser.add_argument("--full", choices=names, help="print the command of a row's full setting")
    options = parser.parse_args(arguments)
    if options.full:
        print(command(next(row for row in ROWS if row.name == options.full)))
        return
    lines = list(measured())
    print(markdown(lines))
    if options.page:
        options.page.write_text(web_page(lines))
    if options.write:
        on = lambda one: ", ".join(filter(None, (one.device, options.machine)))
        PAGE.write_text(page(keep([replace(one, device=on(one)) for one in lines])))


if __name__ == "__main__":
    main()
