"""Plots that a store keeps for readers who do not run its kernel. They may be a stranger's: every field is validated."""

import json
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from jobs import keys
from jobs.storage import objects
from jobs.storage.checksums import checksummed, verified
from jobs.store.store import Store

MAX_GROUPS = 16
"""Most groups whose plots are kept."""
MAX_BYTES = 1_000_000
"""Largest size of the plots of one group."""

Number = Annotated[float, Field(allow_inf_nan=False)] | None
Numbers = list[Number]
Rows = list[Numbers]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Marks(_Model):
    """A layer whose lists have one entry per mark; texts may be missing altogether."""

    name: str = ""
    text: list[str] = []
    hue: int | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _equally_long(self) -> Self:
        lengths = {len(value) for name, value in self if isinstance(value, list) and name != "text"}
        if len(lengths | ({len(self.text)} if self.text else set())) > 1:
            raise ValueError("lists of different lengths; expected one length")
        return self


class _Points(_Marks):
    kind: Literal["points"]
    x: Numbers
    y: Numbers
    colour: Numbers | None = None
    size: Numbers | None = None
    key: Numbers | None = None
    marker: Literal["circle", "diamond"] = "circle"
    hollow: bool = False
    item: Numbers | None = None


class _Bars(_Marks):
    kind: Literal["bars"]
    left: Numbers
    right: Numbers
    height: Numbers
    colour: Numbers | None = None
    key: Numbers | None = None


class _Spans(_Marks):
    kind: Literal["spans"]
    left: Numbers
    right: Numbers
    row: Numbers
    colour: Numbers | None = None


class _Band(_Marks):
    kind: Literal["band"]
    x: Numbers
    low: Numbers
    high: Numbers


class _Lines(_Model):
    kind: Literal["lines"]
    x: Numbers | Rows
    y: Rows
    name: str = ""
    colour: Numbers | Rows | None = None
    text: list[str] = []
    strong: bool = False
    faint: bool = False
    dashed: bool = False
    hue: int | None = Field(None, ge=0)
    item: list[int] | None = None

    @model_validator(mode="after")
    def _of_one_shape(self) -> Self:
        lines, n = len(self.y), _width(self.y)
        fits = [
            _shape(self.x) in ((n,), (lines, n)),
            self.colour is None or _shape(self.colour) in ((lines,), (lines, n)),
            len(self.text) in (0, lines),
            self.item is None or len(self.item) == lines,
        ]
        if not all(fits):
            raise ValueError("lines of different lengths; expected one length")
        return self


class _Image(_Model):
    kind: Literal["image"]
    z: Rows = Field(min_length=1)

    @model_validator(mode="after")
    def _of_one_width(self) -> Self:
        if len({len(row) for row in self.z}) > 1:
            raise ValueError("as many numbers in each row expected")
        return self


class _Axis(_Model):
    label: str
    log: bool
    ticks: list[str]


class _Scale(_Model):
    label: str
    diverging: bool
    low: Number = None
    high: Number = None


class _Plot(_Model):
    """A plot in the form of `plot_json`."""

    title: str
    layers: list[
        Annotated[_Lines | _Points | _Bars | _Spans | _Band | _Image, Field(discriminator="kind")]
    ]
    x: _Axis
    y: _Axis
    scale: _Scale
    equal: bool
    note: str
    areas: str = ""
    at_first: int | None = Field(None, ge=1)


_PLOTS = TypeAdapter(list[_Plot])


def _width(rows: Rows) -> int:
    widths = {len(row) for row in rows}
    if len(widths) > 1:
        raise ValueError("as many numbers in each row expected")
    return max(widths, default=0)


def _shape(values: list[Any]) -> tuple[int, ...]:
    if values and isinstance(values[0], list):
        return len(values), _width(values)
    return (len(values),)


def write_pictures(store: Store, group: int, plots: list[dict[str, object]]) -> None:
    """Store the first plots of a group, from `plot_json`, up to MAX_BYTES in total."""
    kept: list[dict[str, Any]] = []
    size = 0
    for plot in plots:
        size += len(json.dumps(plot))
        if size > MAX_BYTES:
            break
        kept.append(plot)
    objects.write(store.objects, keys.pictures(group), checksummed({"plots": kept}))


def read_pictures(store: Store, group: int) -> list[dict[str, Any]]:
    """The plots that a store keeps of a group; [] if any of them is not valid."""
    data = objects.read(store.objects, keys.pictures(group))
    if data is None or len(data) > 2 * MAX_BYTES:
        return []
    try:
        plots = _PLOTS.validate_python((verified(data) or {}).get("plots"))
    except ValidationError:
        return []
    return [plot.model_dump(mode="json", exclude_none=True) for plot in plots]
