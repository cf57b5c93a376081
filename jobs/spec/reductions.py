"""Reductions that a job file lists by name: tables over the scalar results of all items.

gather:
  reductions:
    - {name: best, by: eval_loss, k: 5}                                   the items with the lowest value
    - {name: seeds, of: eval_loss, quantiles: [0.05, 0.95]}   statistics over the seeds
    - {name: counts, by: [n]}                                             number of items by outcome
    - {name: histogram, of: q, bins: 50, log: true}                       the distribution of a value

Each makes one table of the store, reduced/TABLE, where TABLE is `table`, by default the reduction's name.
`best`, `seeds` and `histogram` use the items whose status is *done* and whose value is finite.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, Field, Tag, ValidationError, model_validator

from ctd.kernel import Kernel, Var
from jobs.errors import JobError, explain, nearest, validated
from jobs.forms import SECTION, kind_by
from jobs.search import SEARCH_TABLE
from jobs.spec.job import JobSpec


class _Reduction(BaseModel):
    model_config = SECTION

    numbers: ClassVar[tuple[str, ...]] = ()
    """The fields of the reduction that name numeric columns."""
    columns: ClassVar[tuple[str, ...]] = ()
    """The fields that list columns of any kind."""

    name: str
    table: str | None = Field(None, pattern=r"^[A-Za-z]\w*$")
    """the table's name; by default the reduction's"""

    @property
    def label(self) -> str:
        """The name of the reduction's table."""
        return self.table or self.name

    def named_columns(self) -> list[tuple[str, str]]:
        """The columns that the reduction names, as (field, column)."""
        lists = [(field, column) for field in self.columns for column in getattr(self, field)]
        return [(field, getattr(self, field)) for field in self.numbers] + lists


class Best(_Reduction):
    """The k items with the lowest value of a column, best first; ties in order of item."""

    numbers: ClassVar[tuple[str, ...]] = ("by",)
    name: Literal["best"]
    by: str
    """the column that items are ranked by"""
    k: int = Field(10, gt=0)
    """number of items"""
    largest: bool = False
    """true: the highest values, not the lowest"""


class Seeds(_Reduction):
    """Mean with a 95 % t interval from `low` to `high`, sd and quantiles of a column over the seeds of every other setting."""

    numbers: ClassVar[tuple[str, ...]] = ("of",)
    columns: ClassVar[tuple[str, ...]] = ("over",)
    name: Literal["seeds"]
    of: str
    """the column"""
    over: tuple[str, ...] = ("seed",)
    """swept columns that tell replicates of one setting apart; all other swept columns make the setting"""
    quantiles: tuple[Annotated[float, Field(ge=0, le=1)], ...] = (0.05, 0.5, 0.95)
    """probabilities of the quantiles"""


class Counts(_Reduction):
    """The number of items by status and outcome."""

    columns: ClassVar[tuple[str, ...]] = ("by",)
    name: Literal["counts"]
    by: tuple[str, ...] = ()
    """further columns whose values separate items"""


class Histogram(_Reduction):
    """The histogram of a column."""

    numbers: ClassVar[tuple[str, ...]] = ("of",)
    name: Literal["histogram"]
    of: str
    """the column"""
    bins: int = Field(50, gt=0, le=100_000)
    """number of bins, of equal width"""
    range: tuple[float, float] | None = None
    """least and largest value; by default those of the column"""
    log: bool = False
    """bins of equal ratio; only positive values are counted"""

    @model_validator(mode="after")
    def _rising(self) -> "Histogram":
        if self.range is not None and not self.range[0] < self.range[1]:
            raise ValueError(f"range: {list(self.range)} given; expected two rising numbers")
        if self.range is not None and self.log and self.range[0] <= 0:
            raise ValueError(f"range: {list(self.range)} given; expected positive numbers with log")
        return self


KINDS: dict[str, type[_Reduction]] = {
    "best": Best,
    "seeds": Seeds,
    "counts": Counts,
    "histogram": Histogram,
}
Reduction = Annotated[
    Annotated[Best, Tag("[best]")]
    | Annotated[Seeds, Tag("[seeds]")]
    | Annotated[Counts, Tag("[counts]")]
    | Annotated[Histogram, Tag("[histogram]")],
    kind_by("name", KINDS),
]
ALWAYS = ("status", "item", "group")
"""The columns that every item table has."""


class Listed(BaseModel):
    """The section `gather` without the settings of the kernel's own reduction."""

    reductions: list[Reduction] = []


def reductions_of(
    spec: JobSpec, dims: Mapping[str, Var], reduced: Mapping[str, Var]
) -> list[Reduction]:
    """The validated reductions of a job, whose kernel has these results and these values of its tables.

    Raises:
        JobError: a reduction or a field is unknown or not valid, a column does not exist or is not
            numeric, or two tables have one name. The text names the field.
    """
    entries = spec.gather.get("reductions") or []
    if not isinstance(entries, list):
        raise JobError(
            f"gather: reductions: {entries!r:.80} given; expected a list such as [{{name: best, by: RESULT}}], with the "
            f"names {', '.join(KINDS)}"
        )
    try:
        reductions = Listed.model_validate({"reductions": entries}).reductions
    except ValidationError as error:
        fields: dict[tuple[str, ...], Iterable[str]] = {
            ("reductions", str(k)): KINDS[entry["name"]].model_fields
            for k, entry in enumerate(entries)
            if isinstance(entry, dict) and str(entry.get("name")) in KINDS
        }
        raise explain(error, "gather", fields) from None
    scalars = [name for name, var in dims.items() if var.axes == ()]
    columns = {name: name != "outcome" for name in (*spec.swept(), *scalars)}
    check_reductions(reductions, columns)
    tables = {"items", "shards", *(var.axes[0] for var in reduced.values() if var.axes)}
    tables |= {SEARCH_TABLE} if spec.search else set()
    for k, reduction in enumerate(reductions):
        if reduction.label in tables:
            problem = f"there is a table {reduction.label!r} already"
            raise JobError(f"gather: reductions.{k}: {problem}; give this one `table: NAME`")
        tables.add(reduction.label)
    return reductions


def check_reductions(reductions: Sequence[Reduction], columns: Mapping[str, bool]) -> None:
    """Raise JobError if a reduction names a column that the items will not have, or needs numbers from a column of something else.

    A kernel may leave out results that it declares, so that this is known only with the shapes of its results.

    columns: result or swept field -> True if it holds one number an item.
    """
    for k, reduction in enumerate(reductions):
        for field, column in reduction.named_columns():
            allowed = [name for name, is_number in columns.items() if is_number]
            if field not in reduction.numbers:
                allowed = [*columns, *ALWAYS]
            if column not in allowed:
                problem = f"unknown column {column!r}"
                if column in columns:
                    problem = f"{column!r} does not hold one number an item"
                hint = nearest(column, allowed)
                raise JobError(f"gather: reductions.{k}.{field}: {problem}{hint}")


def options_of(spec: JobSpec, kernel: Kernel) -> BaseModel:
    """The validated settings of the kernel's own reduction: `gather` without `reductions`.

    Raises JobError if a setting is unknown or not valid.
    """
    settings = {k: v for k, v in spec.gather.items() if k != "reductions"}
    return validated(kernel.tables.Options, settings, "gather")
