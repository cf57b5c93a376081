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
"""The name, in a query, of the table that shows what a search did."""


class _Search(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    lap_name: ClassVar[str]
    """What a lap is called."""

    metric: str = Field(description="the scalar result that items are compared by")
    mode: Literal["min", "max"] = Field(
        "min",
        description="whether a smaller or a larger value is better; give max where larger is better, as for an r2",
    )
    size: PositiveInt | None = Field(
        None,
        description="how many neighbouring items of the sweep are compared with one another; by default "
        "all that share one compiled program",
    )
    spread: bool = Field(
        False,
        description="cut the items that are compared into several equal shards, which exchange states "
        "at each comparison; by default they are in one shard",
    )

    def together(self, n: int) -> int:
        """Return how many of a group's n items are compared with one another."""
        return self.size or n

    @property
    def length_field(self) -> str:
        """The field that says how long the first lap is."""
        raise NotImplementedError

    @property
    def best(self) -> str:
        """Which value of the metric is best, as a word: "least" or "largest"."""
        return "least" if self.mode == "min" else "largest"


class Halving(_Search):
    """Successive halving (Jamieson & Talwalkar 2016): of every `size` items, the best size / eta^k continue
    after min_advances * eta^(k-1) advances, k = 1, 2, ...; the others keep their results so far."""

    lap_name: ClassVar[str] = "rung"

    method: Literal["halving"]
    eta: int = Field(3, ge=2, description="one item in eta survives a rung")
    min_advances: PositiveInt = Field(description="advances that every item makes at least")

    @property
    def length_field(self) -> str:
        """The field that says how long the first lap is."""
        return "min_advances"

    def describe(self, size: int) -> str:
        """What it does with `size` items, on one line."""
        rungs = range(self.n_rungs(size))
        left = ", ".join(str(size // self.eta**k) for k in [*rungs, len(rungs)])
        ends = ", ".join(str(self.min_advances * self.eta**k) for k in rungs)
        return (
            f"halving by {self.best} {self.metric}: {left} items, up to {ends} advances and the end"
        )

    def n_comparisons(self, size: int, advances: int) -> int:
        """Return how often `size` items are compared if each makes `advances` advances."""
        return sum(self.min_advances * self.eta**k < advances for k in range(self.n_rungs(size)))

    def n_rungs(self, size: int) -> int:
        """Return the number of rungs: how often `size` can be divided by `eta` and stay at least 1."""
        n = 0
        while size >= self.eta ** (n + 1):
            n += 1
        return n

    def n_laps(self, size: int) -> int:
        """Return the number of laps of `size` items, the one to their end included."""
        return self.n_rungs(size) + 1

    def lap(self, rung: int) -> int:
        """Return the advances between the previous rung (for rung 0: the start) and this one."""
        before = self.eta ** (rung - 1) if rung else 0
        return self.min_advances * (self.eta**rung - before)


class _Moves(BaseModel):
    """How one parameter of a population starts and moves, beside its range."""

    start: FiniteFloat | Literal["range"] | None = Field(
        None,
        description="value at which all members start; `range`: each member draws one from the range",
    )
    perturb: float | None = Field(
        None, ge=0, le=1, description="replaces the search's `perturb` for this parameter"
    )

    @field_validator("start", mode="before")
    @classmethod
    def _number_or_range(cls, value: Any) -> Any:
        if value is not None and value != "range" and type(value) not in (int, float):
            raise ValueError("a number, or `range` (drawn from its range), expected")
        return value


class MovedUniform(Uniform, _Moves):
    """`uniform: [low, high]`, and how the parameter starts and moves in it."""


class MovedLoguniform(Loguniform, _Moves):
    """`loguniform: [low, high]`, and how the logarithm of the parameter starts and moves in it."""


Moved = Annotated[
    Annotated[MovedUniform, Tag("[uniform]")] | Annotated[MovedLoguniform, Tag("[loguniform]")],
    one_of(
        "one of {uniform: [low, high]} and {loguniform: [low, high]} expected",
        "uniform",
        "loguniform",
    ),
]


class Population(_Search):
    """Population-based training (Jaderberg et al. 2017): every `every` advances, members that do badly
    copy the state and the parameters of members that do well, and perturb the parameters."""

    lap_name: ClassVar[str] = "generation"

    method: Literal["population"]
    every: PositiveInt = Field(description="advances of a generation")
    burn_in: PositiveInt | None = Field(
        None, description="advances of the first generation; by default as many as of the others"
    )
    generations: int = Field(
        ge=2, description="how many generations; the last one lasts until its members have finished"
    )
    patience: int | None = Field(
        None,
        ge=2,
        description="the search ends once the best metric of so many generations in a row has got better by no "
        "more than `min_improvement`; by default it never ends early",
    )
    min_improvement: float = Field(
        5e-4,
        ge=0,
        description="least improvement that `patience` asks for, as a share of the mean size of these best metrics",
    )
    params: dict[str, Moved] = Field(
        min_length=1,
        description="the traced fields that are searched, each with its range; they begin at their `start`, "
        "by default where the sweep or `params` puts them",
    )
    exploit: Literal["tournament", "truncation"] = Field(
        "tournament",
        description="tournament: every member meets one other, the worse copies the better; "
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
        """What it does with `size` items, on one line."""
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
        """The field that says how long the first lap is."""
        return "burn_in" if self.burn_in else "every"

    def n_comparisons(self, size: int, advances: int) -> int:
        """Return how often the members are compared if each makes `advances` advances, for any `size`."""
        del size
        after = advances - 1 - self.lap(0)
        return min(self.generations - 1, 1 + after // self.every) if after >= 0 else 0

    def n_laps(self, size: int) -> int:
        """Return the number of laps, for any `size`."""
        del size
        return self.generations

    def lap(self, generation: int) -> int:
        """Return the advances of a generation that is not the last."""
        return self.burn_in if self.burn_in and generation == 0 else self.every

    @field_validator("params")
    @classmethod
    def _ordered(cls, params: dict[str, Any]) -> dict[str, Any]:
        for name, law in params.items():
            low, high = bounds(law)
            if low >= high:
                raise ValueError(f"{name}: low < high expected, got {[low, high]}")
        return params


def bounds(law: Moved) -> tuple[float, float]:
    """Return the ends (low, high) of a range."""
    return law.uniform if isinstance(law, Uniform) else law.loguniform


def _method(content: Any) -> str | None:
    name = content.get("method") if isinstance(content, dict) else getattr(content, "method", "")
    return {"halving": "Halving", "population": "Population"}.get(str(name))


Search = Annotated[
    Annotated[Halving, Tag("Halving")] | Annotated[Population, Tag("Population")],
    Discriminator(
        _method,
        custom_error_type="search_method",
        custom_error_message="a mapping with `method: halving` or `method: population` expected",
    ),
]
