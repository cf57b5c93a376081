"""The `search:` section of a job file.

search: {method: halving, metric: eval_loss, min_advances: 4}

search:
  method: population
  metric: eval_loss
  every: 5
  generations: 8
  params: {learning_rate: {loguniform: [1e-4, 1e-1], start: 4e-3}}

search: {method: asha, metric: eval_loss, min_advances: 4}

search:
  method: optuna
  sampler: tpe
  trials: 200
  together: 16
  metric: eval_loss
  params: {learning_rate: {loguniform: [1e-4, 1e-1]}}
  prune: {min_advances: 4}

search: {preset: NAME}         a search that the kernel declares: see jobs.spec.presets
"""

import math
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    Tag,
    field_validator,
    model_validator,
)

from jobs.errors import count
from jobs.forms import Choice, Distribution, Loguniform, Uniform, kind_by, one_of
from jobs.spec.halving import Asha as Asha
from jobs.spec.halving import Compared, Sized, in_words
from jobs.spec.halving import Halving as Halving
from jobs.spec.halving import Rungs as Rungs

SEARCH_TABLE = "search"
"""The name of the table of a search in queries."""


class _Moves(BaseModel):
    """The start and the moves of one parameter of a population, beside its range."""

    model_config = ConfigDict(allow_inf_nan=False, use_attribute_docstrings=True)

    start: float | Literal["range"] | None = None
    """start of all members; `range`: each member draws its own from the range"""
    perturb: float | None = Field(None, ge=0, le=1)
    """replaces the search's `perturb` for this parameter"""

    @field_validator("start", mode="before")
    @classmethod
    def _number_or_range(cls, value: object) -> Any:
        if value is not None and value != "range" and type(value) not in (int, float):
            raise ValueError("expected a number, or `range` to draw from the range")
        return value


class MovedUniform(Uniform, _Moves):
    """`uniform: [low, high]`, with the parameter's start and moves."""


class MovedLoguniform(Loguniform, _Moves):
    """`loguniform: [low, high]`, with the parameter's start and its moves in the logarithm."""


Moved = Annotated[
    Annotated[MovedUniform, Tag("[uniform]")] | Annotated[MovedLoguniform, Tag("[loguniform]")],
    one_of(MovedUniform, MovedLoguniform),
]


class Population(Sized):
    """Population-based training (Jaderberg et al. 2017): every `every` advances, members with bad metrics copy the state
    and the parameters of members with good ones, and perturb the parameters."""

    lap_name: ClassVar[str] = "generation"

    method: Literal["population"]
    every: PositiveInt
    """advances of a generation"""
    burn_in: PositiveInt | None = None
    """advances of the first generation; by default as many as of the others"""
    generations: int = Field(ge=2, le=1_000_000)
    """number of generations; the last one lasts until its members have finished"""
    patience: int | None = Field(None, ge=2)
    """the search ends once the best metric has hardly improved in so many generations; by default never"""
    params: dict[str, Moved] = Field(min_length=1)
    """the searched traced fields, each with its range; they begin at their `start`, by default at their value in the sweep or `params`"""
    exploit: Literal["tournament", "truncation"] = "tournament"
    """tournament: of two members the worse copies the better; truncation: the worst fifth copy members of the best fifth"""
    perturb: float = Field(0.1, ge=0, le=1)
    """largest move of a copied parameter, as a share of its range (of the range of its logarithm for loguniform), the same up and down"""

    def describe(self, size: int, advances: int = 0) -> str:
        """Describe the search over `size` items, on one line; `advances` says no more of it."""
        del advances
        text = f"population of {size} by {self.best} {self.metric}: {self.generations} generations of {self.every} advances"
        if self.burn_in:
            text += f", the first of {self.burn_in}"
        if self.patience:
            text += f"; it ends early after {self.patience} that are hardly better"
        return f"{text}, {', '.join(self.params)} searched"

    @property
    def length_field(self) -> str:
        """The field that sets the length of the first lap."""
        return "burn_in" if self.burn_in else "every"

    def _all_ends(self, size: int) -> list[int]:
        del size
        first = self.burn_in or self.every
        return [first + self.every * k for k in range(self.generations - 1)]


class Optuna(Compared):
    """Trials whose searched fields Optuna proposes (Akiba et al. 2019), `together` at a time, from the metrics so far.

    A point of the sweep, if there is one, is a study of its own, with `trials` items.
    """

    method: Literal["optuna"]
    sampler: Literal["tpe", "gp", "cmaes", "random", "qmc"] = "tpe"
    """tpe: tree-structured Parzen estimators; gp: Gaussian processes (needs PyTorch); cmaes: CMA-ES; random; qmc: scrambled Sobol points"""
    trials: PositiveInt
    """items of a study"""
    together: PositiveInt = 1
    """most trials that are proposed at once, so that they fill a device"""
    params: dict[str, Distribution] = Field(min_length=1)
    """the searched fields, each with its range or choices; compiled-in fields take choices only"""
    prune: Rungs | None = None
    """stop a trial that is not among the best 1 / eta of those that have come to its rung"""

    @property
    def size(self) -> int:
        """The number of neighbouring items of the sweep that are compared: the trials of a study."""
        return self.trials

    @property
    def length_field(self) -> str:
        """The field that sets the length of the first lap."""
        return "prune.min_advances"

    @property
    def rungs(self) -> Rungs | None:
        """The rungs at which trials leave."""
        return self.prune

    def in_round(self, share: int) -> int:
        """A quarter of a worker's share, so that users see results early, but at least `together`."""
        return max(self.together, -(-share // 4))

    def describe(self, size: int, advances: int = 0) -> str:
        """Describe a study of `size` trials, on one line. advances: as for `ends`."""
        text = f"{count(size, 'trial')} of Optuna's {self.sampler} by {self.best} {self.metric}, {self.together} together, "
        text += f"{', '.join(self.params)} searched"
        if self.prune:
            ends = in_words(self.ends(size, advances))
            text += (
                f"; the best 1 / {self.prune.eta} of those that have come to {ends} advances go on"
            )
        return text

    @field_validator("params")
    @classmethod
    def _proposable(cls, params: dict[str, object]) -> dict[str, Any]:
        fine = lambda v: isinstance(v, str) or (isinstance(v, int | float) and math.isfinite(v))
        for name, law in params.items():
            if isinstance(law, Choice) and not all(map(fine, law.choice)):
                raise ValueError(f"{name}: {law.choice} given; expected numbers or texts")
        return params

    @model_validator(mode="after")
    def _enough(self) -> "Optuna":
        if self.trials < self.together:
            raise ValueError(
                f"together: {self.together} given, but there are {self.trials} trials; lower it, or give more trials"
            )
        return self


METHODS: dict[str, type[BaseModel]] = {
    "halving": Halving,
    "asha": Asha,
    "population": Population,
    "optuna": Optuna,
}


Search = Annotated[
    Annotated[Halving, Tag("[halving]")]
    | Annotated[Asha, Tag("[asha]")]
    | Annotated[Population, Tag("[population]")]
    | Annotated[Optuna, Tag("[optuna]")],
    kind_by("method", METHODS),
]
