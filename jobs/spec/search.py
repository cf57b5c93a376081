"""The `search:` section of a job file.

search: {method: halving, metric: eval_loss, min_advances: 4}

search:
  method: population
  metric: eval_loss
  every: 5
  generations: 8
  params: {learning_rate: {loguniform: [1e-4, 1e-1], start: 4e-3}}

search: {preset: NAME}         a search that the kernel declares: see jobs.spec.presets
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    FiniteFloat,
    PositiveInt,
    Tag,
    field_validator,
)

from jobs.spec.sweep import Loguniform, Uniform, one_of

SEARCH_TABLE = "search"
"""The name of the table of a search in queries."""


class _Search(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    lap_name: ClassVar[str]
    """The word for a lap: the advances between two comparisons."""

    metric: str = Field(description="the scalar result that items are compared by")
    mode: Literal["min", "max"] = Field(
        "min",
        description="min if a smaller value is better, max if a larger one is, as for an r2",
    )
    size: PositiveInt | None = Field(
        None,
        description="number of neighbouring items of the sweep that are compared with one another; by default "
        "all that share one compiled program",
    )
    spread: bool = Field(
        False,
        description="cut the compared items into several equal shards, which exchange states "
        "at each comparison; by default they are in one shard",
    )

    def together(self, n: int) -> int:
        """The number of a group's n items that are compared with one another."""
        return self.size or n

    @property
    def length_field(self) -> str:
        """The field that sets the length of the first lap."""
        raise NotImplementedError

    @property
    def best(self) -> str:
        """The best value of the metric as a word: "least" or "largest"."""
        return "least" if self.mode == "min" else "largest"


class Halving(_Search):
    """Successive halving (Jamieson & Talwalkar 2016): of every `size` items, the best size / eta^k continue
    after min_advances * eta^(k-1) advances, k = 1, 2, ...; the others keep their results so far.

    >>> search = Halving(method="halving", metric="loss", min_advances=4)
    >>> search.n_rungs(27), [search.lap(rung) for rung in range(3)]
    (3, [4, 8, 24])
    """

    lap_name: ClassVar[str] = "rung"

    method: Literal["halving"]
    eta: int = Field(3, ge=2, description="one item in eta survives a rung")
    min_advances: PositiveInt = Field(description="least number of advances of every item")

    @property
    def length_field(self) -> str:
        """The field that sets the length of the first lap."""
        return "min_advances"

    def describe(self, size: int) -> str:
        """Describe the search over `size` items, on one line."""
        rungs = range(self.n_rungs(size))
        left = ", ".join(str(size // self.eta**k) for k in [*rungs, len(rungs)])
        ends = ", ".join(str(self.min_advances * self.eta**k) for k in rungs)
        return (
            f"halving by {self.best} {self.metric}: {left} items, up to {ends} advances and the end"
        )

    def n_comparisons(self, size: int, advances: int) -> int:
        """The number of comparisons of `size` items that make `advances` advances each."""
        return sum(self.min_advances * self.eta**k < advances for k in range(self.n_rungs(size)))

    def n_rungs(self, size: int) -> int:
        """The number of rungs: how often `size` can be divided by `eta` and stay at least 1."""
        n = 0
        while size >= self.eta ** (n + 1):
            n += 1
        return n

    def n_laps(self, size: int) -> int:
        """The number of laps of `size` items, including the last one, to their end."""
        return self.n_rungs(size) + 1

    def lap(self, rung: int) -> int:
        """The advances from the previous rung (for rung 0: from the start) to this one."""
        before = self.eta ** (rung - 1) if rung else 0
        return self.min_advances * (self.eta**rung - before)


class _Moves(BaseModel):
    """The start and the moves of one parameter of a population, beside its range."""

    start: FiniteFloat | Literal["range"] | None = Field(
        None,
        description="start of all members; `range`: each member draws its own from the range",
    )
    perturb: float | None = Field(
        None, ge=0, le=1, description="replaces the search's `perturb` for this parameter"
    )

    @field_validator("start", mode="before")
    @classmethod
    def _number_or_range(cls, value: Any) -> Any:
        if value is not None and value != "range" and type(value) not in (int, float):
            raise ValueError("expected a number, or `range` to draw from the range")
        return value


class MovedUniform(Uniform, _Moves):
    """`uniform: [low, high]`, with the parameter's start and moves."""


class MovedLoguniform(Loguniform, _Moves):
    """`loguniform: [low, high]`, with the parameter's start and its moves in the logarithm."""


Moved = Annotated[
    Annotated[MovedUniform, Tag("[uniform]")] | Annotated[MovedLoguniform, Tag("[loguniform]")],
    one_of(
        "expected one of {uniform: [low, high]} and {loguniform: [low, high]}",
        "uniform",
        "loguniform",
    ),
]


class Population(_Search):
    """Population-based training (Jaderberg et al. 2017): every `every` advances, members with bad metrics copy the state
    and the parameters of members with good ones, and perturb the parameters."""

    lap_name: ClassVar[str] = "generation"

    method: Literal["population"]
    every: PositiveInt = Field(description="advances of a generation")
    burn_in: PositiveInt | None = Field(
        None, description="advances of the first generation; by default as many as of the others"
    )
    generations: int = Field(
        ge=2,
        description="number of generations; the last one lasts until its members have finished",
    )
    patience: int | None = Field(
        None,
        ge=2,
        description="the search ends once the best metric has improved over this number of generations by no "
        "more than `min_improvement`; by default it never ends early",
    )
    min_improvement: float = Field(
        5e-4,
        ge=0,
        description="least improvement for `patience`, as a share of the mean absolute value of these best metrics",
    )
    params: dict[str, Moved] = Field(
        min_length=1,
        description="the searched traced fields, each with its range; they begin at their `start`, "
        "by default at their value in the sweep or `params`",
    )
    exploit: Literal["tournament", "truncation"] = Field(
        "tournament",
        description="tournament: members are compared in pairs, the worse copies the better; "
        "truncation: the worst `fraction` copy members of the best `fraction`",
    )
    fraction: float = Field(
        0.2,
        gt=0,
        le=0.5,
        description="share of the members that copy, and of those that are copied, with exploit: truncation",
    )
    perturb: float = Field(
        0.1,
        ge=0,
        le=1,
        description="largest move of a copied parameter, as a share of its range (of the range of its "
        "logarithm for loguniform), the same up and down",
    )
    resample: float = Field(
        0.0,
        ge=0,
        le=1,
        description="probability that a copied parameter is drawn from its range instead of moved",
    )

    def describe(self, size: int) -> str:
        """Describe the search over `size` items, on one line."""
        first = f", the first of {self.burn_in}" if self.burn_in else ""
        end = (
            f"; it ends early after {self.patience} that are no better by more than {self.min_improvement:g}"
            if self.patience
            else ""
        )
        return (
            f"population of {size} by {self.best} {self.metric}: {self.generations} generations of {self.every} "
            f"advances{first}{end}, {', '.join(self.params)} searched"
        )

    @property
    def length_field(self) -> str:
        """The field that sets the length of the first lap."""
        return "burn_in" if self.burn_in else "every"

    def n_comparisons(self, size: int, advances: int) -> int:
        """The number of comparisons of members that make `advances` advances each, for any `size`."""
        del size
        after = advances - 1 - self.lap(0)
        return min(self.generations - 1, 1 + after // self.every) if after >= 0 else 0

    def n_laps(self, size: int) -> int:
        """The number of laps, for any `size`."""
        del size
        return self.generations

    def lap(self, generation: int) -> int:
        """The advances of a generation other than the last."""
        return self.burn_in if self.burn_in and generation == 0 else self.every

    @field_validator("params")
    @classmethod
    def _ordered(cls, params: dict[str, Any]) -> dict[str, Any]:
        for name, law in params.items():
            low, high = bounds(law)
            if low >= high:
                raise ValueError(f"{name}: {[low, high]} given; expected low < high")
        return params


def bounds(law: Moved) -> tuple[float, float]:
    """The ends (low, high) of a range."""
    return law.uniform if isinstance(law, Uniform) else law.loguniform


def _method(content: Any) -> str | None:
    name = content.get("method") if isinstance(content, dict) else getattr(content, "method", "")
    return {"halving": "Halving", "population": "Population"}.get(str(name))


Search = Annotated[
    Annotated[Halving, Tag("Halving")] | Annotated[Population, Tag("Population")],
    Discriminator(
        _method,
        custom_error_type="search_method",
        custom_error_message="expected a mapping with `method: halving` or `method: population`",
    ),
]
