"""Write the items of a store as trials of an Optuna study, which `optuna.load_study` and optuna-dashboard open.

Importing this module imports Optuna, of the extra `optuna`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from jobs.errors import JobError, count
from jobs.exports.runs import ABOUT, SEARCH_METRIC, Plain, Run, flat
from jobs.forms import Choice, Geomspace, Integers, Linspace, Loguniform, Range, Uniform, extremes
from jobs.inputs.items import row_params
from jobs.redact import redact
from jobs.search.optuna import distribution
from jobs.store.roles import Metric
from jobs.store.store import Store


def direction(metric: Metric) -> Literal["minimize", "maximize"]:
    """Return the direction in which a study optimises a metric."""
    return "maximize" if metric.more_is_better else "minimize"


def write_study(
    storage: str, name: str, store: Store, runs: Iterable[Run], goal: Metric
) -> tuple[int, int]:
    """Write runs as trials of the study `name`; return how many were written, and how many were there already.

    An item that had failed and is computed now becomes one more trial: Optuna changes no trial that has ended.

    storage: as Optuna takes it, such as sqlite:///study.db; without a scheme, the path of a journal.

    Raises:
        JobError: none of the items is done, the storage cannot be opened or written, or its study has other trials.
    """
    trials, fixed = _trials(store, runs, goal)
    job = {"job": store.job.spec.digest(), "metric": goal.name}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with _explained(redact(storage)):
        study = optuna.create_study(
            study_name=name,
            storage=storage if "://" in storage else _journal(Path(storage)),
            direction=direction(goal),
            load_if_exists=True,
        )
        new = _new(study, trials, job, goal)
        about: dict[str, Any] = {**job, "kernel": store.job.spec.kernel, "params": fixed}
        for key, value in about.items():
            study.set_user_attr(key, value)
        study.add_trials(new)
    return len(new), len(trials) - len(new)


def _journal(path: Path) -> JournalStorage:
    # Optuna appends to whatever file it is given, also to a database.
    if path.exists():
        with path.open("rb") as file:
            if file.read(1) not in (b"", b"{"):
                raise JobError(f"is no journal of Optuna; for a database give sqlite:///{path}")
    return JournalStorage(JournalFileBackend(str(path)))


@contextmanager
def _explained(storage: str) -> Iterator[None]:
    try:
        yield
    except JobError as error:
        raise JobError(f"{storage}: {error}") from None
    except (SQLAlchemyError, OSError, ImportError, ValueError) as error:
        reason = redact(str(error).partition("\n")[0])
        raise JobError(f"{storage}: Optuna cannot write a study there: {reason}") from None


def _new(
    study: optuna.Study, trials: Sequence[FrozenTrial], job: Mapping[str, str], goal: Metric
) -> list[FrozenTrial]:
    """The trials that the study lacks. Raises JobError if it has others than these."""
    existing = {t.user_attrs.get("item"): t for t in study.get_trials(deepcopy=False)}
    has = {"direction": study.direction.name.lower(), **study.user_attrs}
    expected = {"direction": direction(goal), **(job if existing else {})}
    other = [f"its {k} is {has.get(k)}, not {v}" for k, v in expected.items() if has.get(k) != v]
    if None in existing:
        other.append(f"its trial {existing[None].number} is no item of a store")
    new = []
    for trial in trials:
        item = trial.user_attrs["item"]
        old = existing.get(item)
        same = old and (old.state, old.value) == (trial.state, trial.value)
        if old is None or (old.state == TrialState.FAIL and not same):
            new.append(trial)
        elif not same:
            other.append(f"its trial {old.number} has another result of item {item}")
    if other:
        raise JobError(
            f"has a study {study.study_name!r}, and {other[0]}; give another storage, or delete the study"
        )
    return new


def _trials(
    store: Store, runs: Iterable[Run], goal: Metric
) -> tuple[list[FrozenTrial], dict[str, Plain]]:
    """The trials, by item, and the parameters that all items share. Raises JobError if no item is done."""
    space, search = _space(store), store.job.spec.search
    compared = search is not None and search.metric == goal.name
    rungs = search.rungs if search else None
    # By advances, or by generation.
    age = lambda step: rungs.min_advances * rungs.eta**step if rungs else step
    trials: dict[int, FrozenTrial] = {}
    fixed: dict[str, Plain] = {}
    for run in runs:
        points = run.curves.get(SEARCH_METRIC, []) if compared else []
        trials[run.item] = _trial(run, space, goal.name, {age(step): v for step, v in points})
        fixed |= {k: v for k, v in run.params.items() if k not in space and k not in run.about}
    if not any(trial.state == TrialState.COMPLETE for trial in trials.values()):
        raise JobError(
            f"{store.address}: none of {count(len(trials), 'item')} is done and has a {goal.name}; `ctd status` says why"
        )
    return [trials[item] for item in sorted(trials)], fixed


def _trial(
    run: Run, space: Mapping[str, BaseDistribution], metric: str, steps: dict[int, float]
) -> FrozenTrial:
    value, state = run.metrics.get(metric), TrialState.COMPLETE
    if run.about["status"] == "dropped":
        state = TrialState.PRUNED
    elif run.failed or value is None:  # Optuna, too, lets a trial fail whose value is NaN
        value, state = None, TrialState.FAIL
    # A field that a search changes is NaN for an item without results, and NaN is in no range.
    params = {name: param for name in space if (param := run.params.get(name)) == param}
    about: dict[str, Any] = {name: run.about[name] for name in ABOUT if name in run.about}
    about |= {name: int(about[name]) for name in ("group", "seed") if name in about}
    return optuna.create_trial(
        state=state,
        value=value,
        params=params,
        distributions={name: space[name] for name in params},
        intermediate_values=steps,
        user_attrs={"item": run.item, **about},
    )


def _space(store: Store) -> dict[str, BaseDistribution]:
    """Swept or searched parameter -> its distribution, over all items of the job, computed or not.

    A field of a swept mapping is a parameter by its path. A parameter of a single value is left out.
    """
    spec = store.job.spec
    laws: dict[str, list[Any]] = defaultdict(list)
    for part in spec.sweeps():
        for name, law in {**part.grid, **part.zip, **part.random}.items():
            laws[name].append(law)
    proposed: dict[str, BaseDistribution] = {}
    if spec.search and spec.search.proposes:
        proposed = {name: distribution(law) for name, law in spec.ranges.items()}
    else:
        # A population changes the values of the sweep, within its own range.
        laws |= {name: [law] for name, law in spec.ranges.items()}
    swept = lambda path: any(f"{path}.".startswith(f"{name}.") for name in laws)
    rows = [
        {path: value for path, value in flat(params).items() if swept(path)}
        for group, n in enumerate(store.job.plan.group_sizes)
        for params in row_params(store, group, 0, n)
    ]
    paths = dict.fromkeys(path for row in rows for path in row)
    # A field that a search changes is NaN where nothing is computed, and NaN equals nothing.
    values = {
        path: list(dict.fromkeys(v for row in rows if (v := row.get(path)) == v)) for path in paths
    }
    distributions = {
        path: _distribution(laws.get(path, ()), values[path]) for path in paths
    } | proposed
    return {path: law for path, law in distributions.items() if not law.single()}


def _distribution(laws: Sequence[object], values: Sequence[Plain | None]) -> BaseDistribution:
    """A range if a law draws or spaces values in one, else categories.

    laws: how the sweeps give the field. values: those of all items; None where an item has no such field.
    """
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    ranges = [law for law in laws if isinstance(law, Uniform | Loguniform | Integers)]
    # The ends of other forms are values of items.
    ends = numbers + [end for law in ranges for end in extremes(law)]
    is_a = lambda *forms: any(isinstance(law, forms) for law in laws)
    if len(numbers) == len(values):
        low, high = min(ends), max(ends)
        if is_a(Uniform, Linspace):
            return FloatDistribution(low, high)
        if is_a(Loguniform, Geomspace):
            return FloatDistribution(low, high, log=low > 0)
        if is_a(Integers, Range) and all(isinstance(end, int) for end in ends):
            return IntDistribution(int(low), int(high))
    choices = [value for law in laws if isinstance(law, Choice) for value in law.choice]
    # Lists are among `values` as texts, mappings by their fields.
    listed = [value for value in choices if not isinstance(value, list | tuple | Mapping)]
    return CategoricalDistribution(list(dict.fromkeys([*listed, *values])))
