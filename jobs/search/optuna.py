"""Optuna proposes the searched fields of items, and learns their results.

Without `prune` an item makes one lap, to its end. With `prune` it goes on from a rung if it is among the best
max(1, floor(m / eta)) of the m items that have reached the rung so far; otherwise it is dropped at once. This is the
stopping variant of asynchronous halving, the rule of `optuna.pruners.SuccessiveHalvingPruner(min_advances, eta)`. Items of
one round reach their rung at the same time.

Optuna gets one of these reports on an item:

    complete    it finished; its metric
    pruned      it left at a rung, or its metric is NaN or its outcome a failure of the kernel; the metrics at its rungs.
                (Optuna's samplers learn nothing from failed trials. TPE takes a pruned trial without a metric for the
                worst, and so avoids parameters with which items diverge.)
    failed      it failed with an error; tried again, it is a new trial with the same values

Searched fields that depend on one another (define-by-run) cannot be expressed.

search:
  method: optuna
  sampler: tpe
  trials: 200
  together: 16
  metric: eval_loss
  params: {learning_rate: {loguniform: [1e-4, 1e-1]}}
  prune: {min_advances: 4}
"""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, PositiveInt, field_validator, model_validator

from ctd.installed import how_to_install, install, why_not
from ctd.kernel import Params
from jobs.errors import JobError, count
from jobs.forms import Choice, Distribution, Integers, Loguniform, dtype_of, extremes
from jobs.search.comparison import Rung, Rungs, in_words
from jobs.search.method import Method
from jobs.search.searcher import Round, RoundReport, SearchedItems, Searcher

if TYPE_CHECKING:
    import optuna

NEEDED = {"optuna": "Optuna", "cmaes": "the package cmaes", "torch": "PyTorch"}
"""Package -> its name in the error that says that it is missing."""


class Optuna(Method):
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

    proposes: ClassVar[bool] = True
    takes: ClassVar[str] = "Optuna proposes"

    @property
    def ranges(self) -> dict[str, Distribution]:
        """Searched field -> its range or choices."""
        return self.params

    @property
    def block(self) -> int:
        """The number of neighbouring items of the sweep that are compared: the trials of a study."""
        return self.trials

    @property
    def least(self) -> int:
        """One: a trial is compared with earlier ones."""
        return 1

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
        if prune := self.prune:
            ends = in_words(self.ends(size, advances))
            text += f"; the best 1 / {prune.eta} of those that have come to {ends} advances go on"
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
    def _enough(self) -> Optuna:
        if self.trials < self.together:
            raise ValueError(
                f"together: {self.together} given, but there are {self.trials} trials; lower it, or give more trials"
            )
        return self

    def starts(self, model: type[Params], seed: int, n: int) -> dict[str, Any]:
        """All searched fields: Optuna proposes a value in place of the default.

        A field without a default begins at an end of its range, so that the item is valid.
        """
        fields = model.model_fields
        needs = lambda name: name in fields and fields[name].is_required()
        return {
            name: extremes(law)[0] if needs(name) else None for name, law in self.params.items()
        }

    def check_installed(self, location: str) -> None:
        """Raise JobError, which begins with `location`, if a package that the sampler needs cannot be imported."""
        further = {"gp": ["torch"], "cmaes": ["cmaes"]}.get(self.sampler, [])
        for package in ["optuna", *further]:
            if (reason := why_not(package)) is not None:
                torch = f"{install('torch', again=bool(reason))}, or take another sampler"
                do = torch if package == "torch" else how_to_install("optuna", again=bool(reason))
                needs = f"{self.sampler} needs {NEEDED[package]}{reason}; {do}"
                raise JobError(f"{location}: search.sampler: {needs}")

    def searcher(self, items: SearchedItems) -> OptunaSearcher:
        """Return the search of these items at its start."""
        return OptunaSearcher(self, items)


class OptunaSearcher(Searcher):
    """Every `trials` neighbours are a study of Optuna's; its sampler has the job's seed.

    A study by itself makes the proposals that Optuna makes by ask and tell in the same order. What Optuna proposes for the
    compiled-in fields (`SearchedItems.variants`) decides the group of an item.
    """

    search: Optuna

    def __init__(self, search: Optuna, items: SearchedItems) -> None:
        search.check_installed("search")
        super().__init__(search, items)
        self._laws = {name: distribution(law) for name, law in search.params.items()}
        self._studies = [study_of(search, items.seed) for _ in range(self.n // search.trials)]
        self._rungs = [[Rung() for _ in self._lengths[1:]] for _ in self._studies]
        self._trials: dict[int, optuna.Trial] = {}
        """Row -> its trial, until Optuna has the report of its end."""
        self._variants, self.group = items.variants, np.full(self.n, -1)
        self._proposals: dict[int, dict[str, object]] = {}
        """Row -> its proposed values, in Optuna's own types: NumPy would turn numbers beside texts into texts."""
        laws = {name: law for name, law in search.params.items() if name not in items.variants[0]}
        self._values = {name: np.zeros(self.n, dtype_of(law)) for name, law in laws.items()}
        """Other searched field -> its proposed values, (n,), in the order of the job."""

    def choose(self, most: int) -> np.ndarray:
        """Return items that have their values, of the highest rung at which there are any, else new ones.

        At most `together` items of a study are new; studies with fewer items that have begun come first.
        """
        rows = np.flatnonzero(self.ready)
        if len(begun := rows[self.group[rows] >= 0]):
            first = begun[self.lap[begun].argmax()]
            same = (self.lap[begun] == self.lap[first]) & (self.group[begun] == self.group[first])
            return begun[same][:most]
        trials = self.search.trials
        # `trials - waiting` items of each study have begun; a round takes at most the next `together`.
        waiting = np.bincount(rows // trials, minlength=len(self._studies))
        rows = rows[rows % trials < trials - waiting[rows // trials] + self.search.together]
        first = np.argsort(-waiting[rows // trials], kind="stable")[:most]
        return np.sort(rows[first])

    def ask(self, most: int) -> Round | None:
        """Have Optuna propose the values of new items, and return the next round; see Searcher."""
        # Not in `choose`, which is also called to see whether there is a task: asking changes the study.
        for row in self.choose(most).tolist():
            if self.group[row] < 0:
                self._ask(row)
        return super().ask(most)

    def retry(self, rows: np.ndarray) -> None:
        """Have rows that failed go on with the values that they had, each as a new trial; see Searcher."""
        super().retry(rows)
        for row in rows.tolist():
            # The study's next `ask` returns the trial that is queued.
            self._studies[row // self.search.trials].enqueue_trial(self._proposals[row])
            self._ask(row)

    def _ask(self, row: int) -> None:
        trial = self._trials[row] = self._studies[row // self.search.trials].ask(self._laws)
        self._proposals[row] = trial.params
        for name, values in self._values.items():
            values[row] = trial.params[name]
        fits = lambda fields: all(trial.params[name] == value for name, value in fields.items())
        self.group[row] = [fits(fields) for fields in self._variants].index(True)

    def values(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return the proposals of fields that are not compiled in."""
        return {name: values[rows] for name, values in self._values.items()}

    def tell(self, number: int, report: RoundReport) -> None:
        """Note the report of a round, and tell Optuna of the items that end with it."""
        super().tell(number, report)
        for row in report.failed:
            self._end(row, "FAIL")
        if not len(rows := report.rows):
            return
        lap, good = int(self.lap[rows[0]]), ~np.isnan(self.loss[rows])
        is_last = lap == len(self._lengths) - 1
        over = self.done[rows] | is_last
        goes = good & ~over
        if not is_last:
            goes &= self._best(rows, lap)
        for k, row in enumerate(rows.tolist()):
            value = float(report.metric[k])
            if good[k] and not over[k]:
                self._trials[row].report(value, int(self.ages[row]))
            if good[k] and over[k]:
                self._end(row, "COMPLETE", value)
            elif not goes[k]:
                # Without a value: Optuna takes the last one that was reported.
                self._end(row, "PRUNED")
        self.lap[rows[goes]] += 1
        self.ready[rows[goes]] = True
        self.ended[rows[~goes]] = True
        self.dropped[rows[~goes & ~over]] = True

    def decide(self) -> None:
        """Do nothing: `tell` judges each report as it comes."""

    def records(self) -> dict[str, np.ndarray]:
        """Return the proposals, and the metric at every rung."""
        proposed = self.values(np.arange(self.n))
        finals = {f"final_{name}": values for name, values in proposed.items()}
        return {**finals, **super().records()} if self.search.prune else finals

    @property
    def stage(self) -> str:
        return f"{int(self.ended.sum())} of {count(self.n, 'trial')}"

    @property
    def best(self) -> str:
        """The best metric of a trial that was not pruned, as text; "" if there is none."""
        losses = self.loss[self.done & ~np.isnan(self.loss)]
        return f"best {self.search.metric} {self._sign * losses.min():.4g}" if len(losses) else ""

    def _best(self, rows: np.ndarray, rung: int) -> np.ndarray:
        """Note that rows have come to a rung; return which are among the best of their study, (n,) bool."""
        assert self.search.prune is not None
        best, studies = np.zeros(len(rows), bool), rows // self.search.trials
        for study in np.unique(studies):
            in_study = studies == study
            reached, loss = self._rungs[study][rung], self.loss[rows[in_study]]
            reached.add(rows[in_study], loss)
            quota = max(1, len(reached.rows) // self.search.prune.eta)
            # Items with equal losses all pass; NaN never does. If fewer losses than the quota are numbers, the limit is NaN: they pass.
            best[in_study] = ~(loss > reached.loss[quota - 1]) & ~np.isnan(loss)
        return best

    def _end(self, row: int, state: str, value: float | None = None) -> None:
        from optuna.trial import TrialState

        study = self._studies[row // self.search.trials]
        study.tell(self._trials.pop(row), value, TrialState[state])


def distribution(law: Distribution) -> optuna.distributions.BaseDistribution:
    """Return a range or a choice as Optuna's distribution."""
    from optuna import distributions

    if isinstance(law, Choice):
        return distributions.CategoricalDistribution(law.choice)
    if isinstance(law, Integers):
        return distributions.IntDistribution(*extremes(law))
    low, high = extremes(law)
    return distributions.FloatDistribution(low, high, log=isinstance(law, Loguniform))


def study_of(search: Optuna, seed: int) -> optuna.Study:
    """Return a study in memory, without trials."""
    import optuna

    verbosity = optuna.logging.get_verbosity()
    # Without the message that it was made in memory.
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.create_study(
            sampler=sampler_of(search, seed),
            direction="minimize" if search.mode == "min" else "maximize",
        )
    finally:
        optuna.logging.set_verbosity(verbosity)


def sampler_of(search: Optuna, seed: int) -> optuna.samplers.BaseSampler:
    """Return Optuna's sampler of a search, with its defaults but for the seed and what asking for several at once needs."""
    from optuna import samplers

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that some of them are experimental
        match search.sampler:
            case "tpe":
                return samplers.TPESampler(seed=seed, constant_liar=search.together > 1)
            case "gp":
                return samplers.GPSampler(seed=seed)
            case "cmaes":
                return samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
            case "random":
                return samplers.RandomSampler(seed=seed)
            case "qmc":
                return samplers.QMCSampler(
                    seed=seed, scramble=True, warn_independent_sampling=False
                )
