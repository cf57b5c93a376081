"""The best item of a store: its parameters, its metric, the spread over seeds; what to type next is in jobs.query.next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ctd.rows import combinations
from jobs.errors import JobError, count, nearest
from jobs.query.columns import brief
from jobs.query.next import commands, computes_once
from jobs.query.query import rows
from jobs.query.tables import SEED, ask, replicates, shown_for, varied
from jobs.spec.job import JobSpec
from jobs.spec.search import Population, end_of
from jobs.store.arrays import plain
from jobs.store.card import searched
from jobs.store.store import Metric, Mode, Store, metric_of

if TYPE_CHECKING:
    from jobs.query.shelf import Shelf


def require_metric(
    store: Store, option: str, by: str | None = None, mode: Mode | None = None
) -> Metric:
    """The metric of a store (`metric_of`), which must be a stored result of one real number an item.

    option: the option that gives `by`, named in errors. Raises JobError if the metric is not such a result, and lists those
    that are; or if there is no such mode.
    """
    if mode not in (None, "min", "max"):
        raise JobError(f"mode: {mode!r} given; expected 'min' or 'max'")
    dims, stored = store.description.dims, store.names(0)
    real = lambda name: dims[name].axes == () and store.array(0, name).dtype.kind in "iuf"
    known = [name for name in stored if name != "outcome" and real(name)]
    found = metric_of(store, by, mode)
    if found is None:
        what = f"kernel {store.job.spec.kernel} names no metric to judge items by; give one as {option}"
    elif found.name in known:
        return found
    elif found.name in stored:
        what = f"{option} {found.name}: is not one real number an item"
    elif found.name in dims:
        # A near word would be another metric.
        why = f"this job's data or parameters did not give it, {dims[found.name].long_name}"
        raise JobError(f"{option} {found.name}: {why}{nearest('', known)}")
    else:
        what = f"{option} {found.name}: the store has no such result"
    raise JobError(f"{what}{nearest(found.name if found else '', known)}")


@dataclass(frozen=True)
class Spread:
    """Values of several items."""

    n: int
    mean: float
    sd: float
    """With n - 1 in the denominator."""
    lowest: float
    median: float
    highest: float

    @staticmethod
    def of(values: np.ndarray) -> Spread:
        """The spread of finite values (n,), at least one."""
        sd = float(values.std(ddof=1)) if len(values) > 1 else 0.0
        numbers = values.mean(), sd, values.min(), np.median(values), values.max()
        return Spread(len(values), *(float(number) for number in numbers))


@dataclass(frozen=True)
class Best:
    """The best item of a store."""

    item: int
    metric: str
    more_is_better: bool
    value: float
    params: Mapping[str, Any]
    """Its values of the swept and searched fields."""
    seeds: Spread | None
    """Over the items that differ from it in `replicates` alone, itself included; None if there is no other."""
    setting: tuple[Mapping[str, Any], Spread] | None
    """The setting with the best mean over its replicates, and the metric there; None if it is this item's, or none has two items."""
    once: bool
    """Whether the job computes each setting once, although seeds would tell how much of a metric is luck."""
    ends: Mapping[str, str]
    """Parameter that lies at an end of the range that the job gives it -> which end."""
    items: Spread
    """Over all done items with a finite metric."""
    outcome: str = ""
    """How it ended, if not in the first outcome of its kernel."""
    dropped: int = 0
    """Items that the search dropped on the way, which it judged by what they had reached."""
    without: int = 0
    """Done items whose metric is NaN or infinite."""
    failed: int = 0
    """Items that failed, by an error or by their outcome."""
    equals: int = 1
    """Items that have its value of the metric, itself included."""
    last: tuple[str, ...] = ()
    """Those of `params` that a population changed on the way, which have their last values."""
    replicates: tuple[str, ...] = (SEED,)
    """The swept fields that only repeat a setting."""
    next: Mapping[str, str] = field(default_factory=dict)
    """Next step -> its command."""

    def facts(self) -> dict[str, str]:
        """Name -> text, as `ctd best` shows them."""
        better = "more" if self.more_is_better else "less"
        of, worst = self.items, self.items.lowest if self.more_is_better else self.items.highest
        n = of.n + self.dropped
        shared = f"; {self.equals:,} have this value" if self.equals > 1 else ""
        ended = " that went to the end" * bool(self.dropped)
        found = {
            "item": f"{self.item}, the best of {of.n:,}{ended} by {self.metric} ({better} is better){shared}",
            self.metric: brief(self.value),
        }
        if self.outcome:
            found["outcome"] = self.outcome
        for name, value in self.params.items():
            found[f"last {name}" if name in self.last else name] = brief(value)
        repeats = " and ".join(f"{name}s" for name in self.replicates) or "items"
        if s := self.seeds:
            found[f"{s.n} {repeats}"] = (
                f"mean {s.mean:.4g}, sd {s.sd:.2g}, {s.lowest:.4g} to {s.highest:.4g}"
            )
        elif self.once and n > 1:
            luckiest = "highest" if self.more_is_better else "lowest"
            chosen = f"what a search keeps of {n:,}" if self.dropped else f"the {luckiest} of {n:,}"
            found["seeds"] = f"one item per setting: {chosen} is partly luck, expect worse"
        if self.setting:
            given, s = self.setting
            which = ", ".join(f"{name} {brief(value)}" for name, value in given.items())
            found["best mean"] = f"{s.mean:.4g}, sd {s.sd:.2g}, of {s.n} {repeats} with {which}"
        if self.ends:
            at_end = [f"{name} is at the {end} end of its range" for name, end in self.ends.items()]
            found["range"] = ", ".join(at_end)
        # Metrics of dropped items are of an earlier age: they compare with no others.
        if of.n > 1:
            which = "items to the end" if self.dropped else "all items"
            found[which] = f"median {of.median:.4g}, worst {worst:.4g}"
        if self.dropped:
            found["dropped"] = f"{count(self.dropped, 'item')} on the way, {of.n:,} went to the end"
        lost = {"failed": self.failed, f"with a {self.metric} that is not finite": self.without}
        if any(lost.values()):
            found["not counted"] = ", ".join(f"{n:,} {how}" for how, n in lost.items() if n)
        return found

    def __str__(self) -> str:
        """The lines that `ctd best` shows."""
        facts = self.facts()
        width = max(map(len, facts)) + 2
        told = [f"{name.ljust(width)}{text}" for name, text in facts.items()]
        steps = [f"# {what}\n{command}" for what, command in self.next.items()]
        return "\n".join([*told, *[""] * bool(steps), *steps])

    def to_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return asdict(self)


def best(store: Store, metric: Metric) -> Best | None:
    """The best item by a metric; None if no done item has a finite value.

    >>> store = Store.open("points.zarr")
    >>> _, smallest = rows(store, columns="item, q", sort="q", limit=1)
    >>> bool(best(store, Metric("q")).value == smallest["q"][0])
    True
    """
    names = ask(store, lambda tables: tables["items"].names)
    wanted = [n for n in ("item", "status", "outcome", metric.name, *varied(store)) if n in names]
    return best_of(store, rows(store, table="items", columns=wanted)[1], metric)


def best_of(store: Store, columns: Mapping[str, np.ndarray], metric: Metric) -> Best | None:
    """`best`, from columns (n,) of the table `items`: item, status, outcome if it is there, the metric, and what was swept."""
    values, status = np.asarray(columns[metric.name], float), np.asarray(columns["status"])
    fine = np.flatnonzero((status == "done") & np.isfinite(values))
    if not len(fine):
        return None
    of_fine = values[fine]
    place = metric.rank(of_fine)[0]
    # The page's columns are those shown by default, which have the fields of a swept mapping, not the mapping.
    names = [column for name in varied(store) for column in shown_for(name, columns)]
    of_setting = [name for name in names if name not in replicates(store)]
    settings = _settings([columns[name][fine] for name in of_setting], len(fine))
    n_seeds = np.bincount(settings)
    means = np.where(n_seeds > 1, np.bincount(settings, of_fine) / n_seeds, np.nan)
    alike, most = (settings == k for k in (settings[place], metric.rank(means)[0]))

    called = {f"final_{name}": name for name in searched(store)}

    def params_of(row: int, names: list[str]) -> dict[str, Any]:
        given = {called.get(name, name): plain(columns[name][row]) for name in names}
        return {name: value for name, value in given.items() if value == value and value != ""}

    first = fine[place]
    params = params_of(first, names)
    return Best(
        int(columns["item"][first]),
        metric.name,
        metric.more_is_better,
        float(values[first]),
        params,
        seeds=Spread.of(of_fine[alike]) if alike.sum() > 1 else None,
        setting=(params_of(fine[most][0], of_setting), Spread.of(of_fine[most]))
        if n_seeds.max() > 1 and not most[place]
        else None,
        once=computes_once(store),
        ends=ends(store.job.spec, params, int(columns["item"][first])),
        items=Spread.of(of_fine),
        outcome=_outcome(store, columns, first),
        last=tuple(searched(store)) if isinstance(store.job.spec.search, Population) else (),
        replicates=tuple(name for name in names if name not in of_setting),
        next=commands(store, int(columns["item"][first]), metric.name),
        dropped=int((status == "dropped").sum()),
        without=int((status == "done").sum()) - len(fine),
        failed=int((status == "failed").sum()),
        equals=int((of_fine == of_fine[place]).sum()),
    )


def _outcome(store: Store, columns: Mapping[str, np.ndarray], row: int) -> str:
    """The name and the meaning of a row's outcome, unless it is the first of its kernel."""
    ended = {end.name: end.reason for end in store.description.outcomes[1:]}
    name = str(columns["outcome"][row]) if "outcome" in columns else ""
    return f"{name}: {ended[name]}" if name in ended else ""


def _settings(columns: list[np.ndarray], n: int) -> np.ndarray:
    """(n,) the number of each row's setting; rows of one setting are equal in all columns."""
    # NumPy orders no objects, which are texts. NaN, in a field that a mapping lacks, equals itself.
    own = [values.astype(str) if values.dtype.kind == "O" else values for values in columns]
    return combinations(own, n)[1]


def table_of(found: Mapping[str, Best], shelf: Shelf) -> dict[str, list[Any]]:
    """The best items of several stores as a table, a row each, the best of each metric first: store, item, metric, what any of
    the stores sweeps, and what differs between them.

    found: name of a store -> its best item. shelf: these stores, in the same order.
    """
    metrics = list(dict.fromkeys(one.metric for one in found.values()))
    rows = [(k, name, one) for k, (name, one) in enumerate(found.items())]
    sign = lambda one: -1 if one.more_is_better else 1
    rows.sort(key=lambda row: (metrics.index(row[2].metric), sign(row[2]) * row[2].value))
    of = lambda field: [getattr(one, field) for _, _, one in rows]
    table = {"store": [name for _, name, _ in rows], "item": of("item")}
    if len(metrics) > 1:
        table["metric"] = of("metric")
    table["value" if len(metrics) > 1 else metrics[0]] = of("value")
    swept = [field for one in found.values() for field in one.params]
    for name in dict.fromkeys([*swept, *shelf.differing]):
        own = [one.params.get(name, shelf.value(k, name)) for k, _, one in rows]
        table[name] = ["" if value is None else value for value in own]
    return table


def ends(spec: JobSpec, params: Mapping[str, Any], item: int = 0) -> dict[str, str]:
    """The real parameters that lie at an end of what the job gives them (`end_of`) -> "lower" or "upper".

    params: field -> its value. item: the item that has these; each sweep of a list has ranges of its own.

    >>> job = {"kernel": "esn", "sweep": {"random": {"g": {"loguniform": [0.01, 1]}}, "samples": 9}}
    >>> ends(JobSpec.model_validate(job), {"g": 0.0101}), ends(JobSpec.model_validate(job), {"g": 0.02})
    ({'g': 'lower'}, {})
    """
    parts = spec.sweeps()
    own = parts[np.searchsorted(np.cumsum([part.count() for part in parts]), item, side="right")]
    # A list may go on where one of its grids ends.
    laws = (own.grid if len(parts) == 1 else {}) | own.random | getattr(spec.search, "params", {})
    real = {name: value for name, value in params.items() if isinstance(value, float)}
    return {k: end for k, x in real.items() if k in laws and (end := end_of(laws[k], x))}
