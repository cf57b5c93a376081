"""Reductions of any job, by name: questions about the scalar results of all items, asked in the job file.

gather:
  reductions:
    - {name: best, by: eval_loss, k: 5}                                   the items with the lowest value
    - {name: seeds, of: eval_loss, quantiles: [0.05, 0.95], bootstrap: 1000}   statistics over the seeds
    - {name: counts, by: [n]}                                             how many items ended how
    - {name: histogram, of: q, bins: 50, log: true}                       how a value is distributed

Each makes a table of the store, reduced/SEARCH_TABLE, called `table` or else by the reduction's name. `best`,
`seeds` and `histogram` are of the items whose status is *done* and whose value is finite.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from ctd.combinations import combinations
from ctd.kernel import Kernel
from jobs.arrays import DONE
from jobs.errors import JobError, explain, nearest
from jobs.search.records import SEARCH_TABLE
from jobs.spec import JobSpec

DRAWN = 1 << 24
"""Numbers that a bootstrap holds at a time."""


class Items(NamedTuple):
    """The item table, as reductions see it."""

    columns: Mapping[str, np.ndarray]
    """Every column, read when it is asked for; texts are codes."""
    labels: Mapping[str, Sequence[str]]
    """Column of codes -> what each of them, from 0 on, means."""
    swept: Sequence[str]
    """The columns that were swept."""

    def pick(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Some rows of a column, codes as their texts."""
        values = self.columns[name][rows]
        return np.asarray(self.labels[name])[values] if name in self.labels else values


class Column(NamedTuple):
    """One column of a reduction."""

    values: np.ndarray
    units: str = "1"
    long_name: str = ""


Table = dict[str, Column]


class _Reduction(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    numbers: ClassVar[tuple[str, ...]] = ()
    """Fields that name a column of numbers."""

    name: str
    table: str | None = Field(
        None, pattern=r"^[A-Za-z]\w*$", description="the table's name; by default the reduction's"
    )

    @property
    def label(self) -> str:
        """The name of the table that it makes."""
        return self.table or self.name

    def named(self) -> list[tuple[str, str]]:
        """(field, column) for every column that it names."""
        return [(field, getattr(self, field)) for field in self.numbers]


class Best(_Reduction):
    """The k items with the lowest value of a column, best first; equal ones by item."""

    numbers: ClassVar[tuple[str, ...]] = ("by",)
    name: Literal["best"]
    by: str = Field(description="the column that is compared")
    k: int = Field(10, gt=0, description="how many")
    largest: bool = Field(False, description="the highest values instead")

    def make(self, items: Items) -> Table:
        """rank, item, the value, what was swept."""
        values, usable = _usable(items, self.by)
        order = np.argsort(-values if self.largest else values, kind="stable")[: self.k]
        rows = usable[order]
        names = ["item", self.by, *items.swept]
        table = {name: Column(items.pick(name, rows)) for name in dict.fromkeys(names)}
        return {"rank": Column(np.arange(len(rows)), "1", "place")} | table


class Seeds(_Reduction):
    """Mean, sd, quantiles and a bootstrap interval of a column over the seeds of every other setting."""

    numbers: ClassVar[tuple[str, ...]] = ("of",)
    name: Literal["seeds"]
    of: str = Field(description="the column")
    over: tuple[str, ...] = Field(
        ("seed",), description="swept columns that tell replicates apart; all others make a setting"
    )
    quantiles: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(
        (0.05, 0.5, 0.95), description="which"
    )
    bootstrap: int = Field(
        0, ge=0, description="resamples for an interval of the mean; 0: no interval"
    )
    confidence: float = Field(0.95, gt=0, lt=1, description="of that interval")

    def named(self) -> list[tuple[str, str]]:
        """Also the columns of the replicates."""
        return [*super().named(), *(("over", name) for name in self.over)]

    def make(self, items: Items) -> Table:
        """One row a setting: its values, count, failed, mean, sd, p5 ..., low, high."""
        settings = [name for name in items.swept if name not in self.over]
        first, setting = combinations([items.columns[name] for name in settings], _n(items))
        values, usable = _usable(items, self.of)
        n, of = len(first), setting[usable]
        count = np.bincount(of, minlength=n)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.bincount(of, values, n) / count
            sd = np.sqrt(np.bincount(of, (values - mean[of]) ** 2, n) / (count - 1))
        sd[count < 2] = np.nan
        table = {name: Column(items.pick(name, first)) for name in settings} | {
            "count": Column(count, "1", "items with a value"),
            "failed": Column(np.bincount(setting, minlength=n) - count, "1", "items without one"),
            "mean": Column(mean, "1", f"mean of {self.of}"),
            "sd": Column(sd, "1", f"standard deviation of {self.of}, with n - 1"),
        }
        at = np.full((n, len(self.quantiles)), np.nan)
        ends = np.full((n, 2), np.nan)
        for some, samples in _by_size(values[np.argsort(of, kind="stable")], count):
            at[some] = np.quantile(samples, self.quantiles, axis=1).T
            if self.bootstrap:
                ends[some] = bootstrap_means(samples, self.bootstrap, self.confidence)
        for q, column in zip(self.quantiles, at.T, strict=True):
            label = f"p{100 * q:g}".replace(".", "_")
            table[label] = Column(column, "1", f"quantile {q:g} of {self.of}")
        if self.bootstrap:
            text = f"end of the {self.confidence:.0%} bootstrap interval of the mean"
            for k, name in enumerate(("low", "high")):
                table[name] = Column(ends[:, k], "1", f"{('lower', 'upper')[k]} {text}")
        return table


class Counts(_Reduction):
    """How many items ended how."""

    name: Literal["counts"]
    by: tuple[str, ...] = Field((), description="columns by whose values items are told apart too")

    def named(self) -> list[tuple[str, str]]:
        """The columns it tells apart by."""
        return [("by", name) for name in self.by]

    def make(self, items: Items) -> Table:
        """One row for each combination that occurs: status, outcome, count, share."""
        names = [*self.by, *(name for name in ("status", "outcome") if name in items.columns)]
        names = list(dict.fromkeys(names))
        first, which = combinations([items.columns[name] for name in names], _n(items))
        count = np.bincount(which, minlength=len(first))
        return {name: Column(items.pick(name, first)) for name in names} | {
            "count": Column(count, "1", "items"),
            "share": Column(count / max(1, len(which)), "1", "their share of all"),
        }


class Histogram(_Reduction):
    """How the values of a column are distributed."""

    numbers: ClassVar[tuple[str, ...]] = ("of",)
    name: Literal["histogram"]
    of: str = Field(description="the column")
    bins: int = Field(50, gt=0, le=100_000, description="how many, of equal width")
    range: tuple[float, float] | None = Field(
        None, description="least and largest value; by default those that occur"
    )
    log: bool = Field(False, description="bins of equal ratio; only positive values are counted")

    @model_validator(mode="after")
    def _rising(self) -> "Histogram":
        if self.range is not None and not self.range[0] < self.range[1]:
            raise ValueError("range: two rising numbers expected")
        if self.range is not None and self.log and self.range[0] <= 0:
            raise ValueError("range: positive numbers expected with log")
        return self

    def make(self, items: Items) -> Table:
        """One row a bin: left, right, count; the last bin includes its right edge."""
        values, _ = _usable(items, self.of)
        if self.log:
            values = values[values > 0]
        low, high = self.range or (
            (values.min(), values.max()) if len(values) else (0.1, 1.0) if self.log else (0.0, 1.0)
        )
        if low == high:  # as NumPy does: a width, so that there are bins
            low, high = (low / 2, high * 2) if self.log else (low - 0.5, high + 0.5)
        space = np.geomspace if self.log else np.linspace
        edges = space(low, high, self.bins + 1)
        edges[0], edges[-1] = low, high
        count, _ = np.histogram(values, edges)
        return {
            "left": Column(edges[:-1], "1", f"{self.of} from here"),
            "right": Column(edges[1:], "1", f"{self.of} to here"),
            "count": Column(count, "1", "items"),
        }


Reduction = Best | Seeds | Counts | Histogram
LIST: TypeAdapter[list[Reduction]] = TypeAdapter(
    list[Annotated[Reduction, Field(discriminator="name")]]
)
_KINDS: dict[str, type[BaseModel]] = {
    "best": Best,
    "seeds": Seeds,
    "counts": Counts,
    "histogram": Histogram,
}


def reductions_of(spec: JobSpec, kernel: Kernel) -> list[Reduction]:
    """The validated reductions of a job; JobError, by field, where one names what there is not."""
    where = "gather: reductions"
    asked = spec.gather.get("reductions") or []
    if not isinstance(asked, list):
        raise JobError(
            f"{where}: a list expected, as in [{{name: best, by: RESULT}}], with the names "
            f"{', '.join(_KINDS)} (given: {asked!r:.80})"
        )
    for k, one in enumerate(asked):
        name = one.get("name") if isinstance(one, dict) else None
        if isinstance(one, dict) and name is None:
            raise JobError(f"{where}.{k}: `name` is missing; one of {', '.join(_KINDS)}")
        if isinstance(name, str) and name not in _KINDS:
            raise JobError(f"{where}.{k}: unknown reduction {name!r}{nearest(name, _KINDS)}")
    try:
        found: list[Reduction] = LIST.validate_python(asked)
    except ValidationError as error:
        known: dict[tuple[str, ...], Iterable[str]] = {
            (str(k), name): model.model_fields
            for k in range(len(asked))
            for name, model in _KINDS.items()
        }
        raise JobError(explain(error, where, known)) from None
    columns, numbers = _column_names(spec, kernel)
    taken = {"items", "shards", *(var.axes[0] for var in kernel.reduced.values() if var.axes)}
    taken |= {SEARCH_TABLE} if spec.search else set()
    for k, one in enumerate(found):
        for field, column in one.named():
            allowed = numbers if field in one.numbers else columns
            if column not in allowed:
                what = (
                    f"{column!r} is not a number"
                    if column in columns
                    else f"unknown column {column!r}"
                )
                raise JobError(f"{where}.{k}.{field}: {what}{nearest(column, allowed)}")
        if one.label in taken:
            raise JobError(
                f"{where}.{k}: there is a table {one.label!r} already; give this one `table: NAME`"
            )
        taken.add(one.label)
    return found


def _column_names(spec: JobSpec, kernel: Kernel) -> tuple[list[str], list[str]]:
    """(all columns of the item table, those with one number an item)."""
    swept = spec.swept()
    scalars = [name for name, var in kernel.dims.items() if var.axes == ()]
    numbers = [name for name in (*scalars, *swept) if name != "outcome"]
    return [*swept, *scalars, "status", "item", "group"], numbers


def _n(items: Items) -> int:
    return len(items.columns["item"])


def _usable(items: Items, name: str) -> tuple[np.ndarray, np.ndarray]:
    """(values, rows) of the items that are done and have a finite value."""
    values = items.columns[name]
    if name in items.labels or values.dtype.kind not in "iufb" or values.ndim != 1:
        raise JobError(f"gather: reductions: {name!r} is not one number an item")
    values = values.astype(float)
    rows = np.flatnonzero((items.columns["status"] == DONE) & np.isfinite(values))
    return values[rows], rows


def _by_size(values: np.ndarray, count: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(which settings, (setting, sample) their values), settings of equally many values at a time.

    values: those of the first setting, then those of the second ...; count: how many each has.
    """
    start = np.cumsum(count) - count
    for size in np.unique(count[count > 0]):
        same = np.flatnonzero(count == size)
        yield same, values[start[same][:, None] + np.arange(size)]


def bootstrap_means(samples: np.ndarray, n_resamples: int, confidence: float) -> np.ndarray:
    """(k, 2) percentile intervals of the means of k samples (Efron & Tibshirani 1993, ch. 13).

    A resample of n values is how often each of them is drawn, a multinomial count: the means of all
    resamples of all samples are one matrix product. The samples share their draws.
    """
    size = samples.shape[1]
    rng = np.random.default_rng(size)
    weights = rng.multinomial(size, np.full(size, 1 / size), n_resamples) / size
    tail, step = (1 - confidence) / 2, max(1, DRAWN // n_resamples)
    ends = [
        np.quantile(samples[k : k + step] @ weights.T, [tail, 1 - tail], axis=1).T
        for k in range(0, len(samples), step)
    ]
    return np.concatenate(ends)
