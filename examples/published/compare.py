"""The figures of the papers beside ours: a table of what lies in the stores of this folder's job files.

    uv run ctd run examples/published/*.yaml                # small settings: minutes each
    uv run python examples/published/compare.py             # the table; --page OUT.html with the pictures
    uv run python examples/published/compare.py --write     # keeps the table: results.csv, docs/published.md

The line `# full: FIELD=VALUE ...` of a job file has a larger setting, mostly of the paper's sizes. `compare.py --full ROW` prints the command
that runs it; its stores lie in the folder `full`, and a row that has both has two lines.
"""

from __future__ import annotations

import argparse
import csv
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from figure import Figure, Row, Stores  # noqa: E402
from rows import ROWS  # noqa: E402
from table import SETTINGS, Measured, all_figures, markdown, page, web_page  # noqa: E402

from ctd.installed import version_of  # noqa: E402
from jobs import open_store  # noqa: E402
from jobs.errors import JobError  # noqa: E402
from jobs.pipeline import read_stages  # noqa: E402
from jobs.store.store import Store  # noqa: E402

RESULTS = HERE / "results.csv"
PAGE = HERE.parents[1] / "docs" / "published.md"
PACKAGES = ("ctd", "jax", "jaxlib", "numpy", "optax")
"""Those whose versions change results."""


def overrides(path: Path) -> list[str]:
    """The overrides of the full setting, from the head of a job file."""
    (line,) = re.findall(r"^# full: (.*)$", path.read_text(), re.MULTILINE)
    return shlex.split(line, posix=False)


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
