"""The best item of a store: its parameters, its metric, the spread over seeds; what to type next is in jobs.query.next."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ctd.rows import combinations
from ctd.words import brief
from jobs.errors import JobError, count, nearest
from jobs.forms import end_of
from jobs.query.columns import as_text
from jobs.query.next import commands, computes_once
from jobs.query.query import answer
from jobs.query.tables import ask
from jobs.spec.job import JobSpec
from jobs.store.arrays import plain
from jobs.store.roles import SEED, Metric, Mode
from jobs.store.store import Store

if TYPE_CHECKING:
    from jobs.query.collection import StoreCollection


def require_metric(
    store: Store, option: str, by: str | None = None, mode: Mode | None = None
) -> Metric:
    """The metric of a store (`Roles.metric_by`), which must be a stored result of one real number an item.

    option: the option that gives `by`, named in errors. Raises JobError if the metric is not such a result, and lists those
    that are; or if there is no such mode.
    """
    if mode not in (None, "min", "max"):
        raise JobError(f"mode: {mode!r} given; expected 'min' or 'max'")
    dims, stored = store.description.dims, store.names(0)
    real = lambda name: dims[name].axes == () and store.array(0, name).dtype.kind in "iuf"
    usable = [name for name in stored if name != "outcome" and real(name)]
    metric = store.roles.metric_by(by, mode)
    if metric is None:
        message = f"kernel {store.job.spec.kernel} names no metric to judge items by; give one as {option}"
    elif metric.name in usable:
        return metric
    elif metric.name in stored:
        message = f"{option} {metric.name}: is not one real number an item"
    elif metric.name in dims:
        # A near word would be another metric.
        reason = f"this job's data or parameters did not give it, {dims[metric.name].long_name}"
        raise JobError(f"{option} {metric.name}: {reason}{nearest('', usable)}")
    else:
        message = f"{option} {metric.name}: the store has no such result"
    raise JobError(f"{message}{nearest(metric.name if metric else '', usable)}")


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
    def from_values(values: np.ndarray) -> Spread:
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
    basis: Mapping[str, Any]
    """Its values of the fields that change what the metric is measured on, where items differ in them: it is the best of the items
    that have these values."""
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
        spread, worst = self.items, self.items.lowest if self.more_is_better else self.items.highest
        n = spread.n + self.dropped
        shared = f"; {self.equals:,} have this value" if self.equals > 1 else ""
        ended = " that went to the end" * bool(self.dropped)
        basis = f" with {in_words(self.basis)}" if self.basis else ""
        facts = {
            "item": f"{self.item}, the best of {spread.n:,}{ended}{basis} by {self.metric} ({better} is better){shared}",
            self.metric: brief(self.value),
        }
        if self.outcome:
            facts["outcome"] = self.outcome
        for name, value in self.params.items():
            facts[f"last {name}" if name in self.last else name] = brief(value)
        repeats = " and ".join(f"{name}s" for name in self.replicates) or "items"
        if s := self.seeds:
            facts[f"{s.n} {repeats}"] = (
                f"mean {s.mean:.4g}, sd {s.sd:.2g}, {s.lowest:.4g} to {s.highest:.4g}"
            )
        elif self.once and n > 1:
            luckiest = "highest" if self.more_is_better else "lowest"
            selection = (
                f"what a search keeps of {n:,}" if self.dropped else f"the {luckiest} of {n:,}"
            )
            facts["seeds"] = f"one item per setting: {selection} is partly luck, expect worse"
        if self.setting:
            setting, s = self.setting
            facts["best mean"] = f"{s.mean:.4g}, sd {s.sd:.2g}, of {s.n} {repeats} with {in_words(setting)}"  # fmt: skip
        if self.ends:
            at_end = [f"{name} is at the {end} end of its range" for name, end in self.ends.items()]
            facts["range"] = ", ".join(at_end)
        # Metrics of dropped items are of an earlier age: they compare with no others.
        if spread.n > 1:
            label = "items to the end" if self.dropped else "all items"
            facts[label] = f"median {spread.median:.4g}, worst {worst:.4g}"
        if self.dropped:
            facts["dropped"] = (
                f"{count(self.dropped, 'item')} on the way, {spread.n:,} went to the end"
            )
        uncounted = {
            "failed": self.failed,
            f"with a {self.metric} that is not finite": self.without,
        }
        if any(uncounted.values()):
            facts["not counted"] = ", ".join(
                f"{n:,} {reason}" for reason, n in uncounted.items() if n
            )
        return facts

    def __repr__(self) -> str:
        """The lines that `ctd best` shows, without the commands below them."""
        facts = self.facts()
        width = max(map(len, facts)) + 2
        return "\n".join(f"{name.ljust(width)}{text}" for name, text in facts.items())

    def __str__(self) -> str:
        """All that `ctd best` shows."""
        steps = [f"# {step}\n{command}" for step, command in self.next.items()]
        return "\n".join([repr(self), *[""] * bool(steps), *steps])

    def to_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return asdict(self)


def best(store: Store, metric: Metric) -> Best | None:
    """The best item by a metric; None if no done item has a finite value.

    Raises JobError if the job sweeps what the metric is measured on: `bests` then has the best for each value.

    >>> store = Store.open("points.zarr")
    >>> smallest = answer(store, columns="item, q", sort="q", limit=1).columns
    >>> bool(best(store, Metric("q")).value == smallest["q"][0])
    True
    """
    best_items = bests(store, metric)
    if len(best_items) > 1:
        reason = no_best_of_all(metric.name, list(best_items[0].basis))
        raise JobError(f"{store.address}: {reason}; `bests` gives the best for each")
    return best_items[0] if best_items else None


def bests(store: Store, metric: Metric) -> list[Best]:
    """The best item for each value of the swept fields that change what the metric is measured on (`Kernel.measured_on`); without
    such a field, the best of all. Values without a done item of a finite metric have none.

    >>> [best.basis for best in bests(Store.open("points.zarr"), Metric("q"))]
    [{}]
    """
    names = ask(store, lambda tables: tables["items"].names)
    names_read = [
        n for n in ("item", "status", "outcome", metric.name, *store.roles.varied) if n in names
    ]
    return bests_of(store, answer(store, table="items", columns=names_read).columns, metric)


def bests_of(store: Store, columns: Mapping[str, np.ndarray], metric: Metric) -> list[Best]:
    """`bests`, from columns (n,) of the table `items`: item, status, outcome if it is there, the metric, and what was swept."""
    n, basis = len(columns["item"]), store.roles.bases(columns)
    numbers = _settings([columns[name] for name in basis], n)
    each = [np.flatnonzero(numbers == k) for k in range(numbers.max(initial=-1) + 1)]
    of_each = [{name: column[part] for name, column in columns.items()} for part in each]
    candidates = [_best_on(store, part, metric, basis) for part in of_each]
    return [candidate for candidate in candidates if candidate]


def _best_on(
    store: Store, columns: Mapping[str, np.ndarray], metric: Metric, basis: list[str]
) -> Best | None:
    """The best item of rows that have one value of each column of `basis`; None without a done item of a finite metric."""
    roles, status = store.roles, np.asarray(columns["status"])
    values = np.asarray(columns[metric.name], float)
    fine = np.flatnonzero((status == "done") & np.isfinite(values))
    if not len(fine):
        return None
    of_fine = values[fine]
    place = metric.rank(of_fine)[0]
    # The page's columns are those shown by default, which have the fields of a swept mapping, not the mapping.
    names = roles.varied_in(columns)
    of_setting = roles.settings(names)
    settings = _settings([columns[name][fine] for name in of_setting], len(fine))
    n_seeds = np.bincount(settings)
    means = np.where(n_seeds > 1, np.bincount(settings, of_fine) / n_seeds, np.nan)
    alike, most = (settings == k for k in (settings[place], metric.rank(means)[0]))

    called = {f"final_{name}": name for name in roles.searched}

    def params_of(row: int, names: list[str]) -> dict[str, Any]:
        params = {called.get(name, name): plain(columns[name][row]) for name in names}
        return {name: x for name, x in params.items() if x == x and x != ""}

    first = fine[place]
    params = params_of(first, names)
    return Best(
        int(columns["item"][first]),
        metric.name,
        metric.more_is_better,
        float(values[first]),
        params,
        basis=params_of(first, basis),
        seeds=Spread.from_values(of_fine[alike]) if alike.sum() > 1 else None,
        setting=(params_of(fine[most][0], of_setting), Spread.from_values(of_fine[most]))
        if n_seeds.max() > 1 and not most[place]
        else None,
        once=computes_once(store),
        ends=ends(store.job.spec, params, int(columns["item"][first])),
        items=Spread.from_values(of_fine),
        outcome=_outcome(store, columns, first),
        last=tuple(roles.searched) if store.job.spec.has_parents else (),
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


def in_words(values: Mapping[str, Any]) -> str:
    """Names with their values, as `g 0.5, n 20`."""
    return ", ".join(f"{name} {brief(value)}" for name, value in values.items())


def no_best_of_all(metric: str, names: Collection[str]) -> str:
    """The reason why items do not compare that differ in these fields."""
    each = f"each value of {', '.join(names)}"
    return f"no best of all: {metric} is measured on other data, or in another way, for {each}"


def _settings(columns: list[np.ndarray], n: int) -> np.ndarray:
    """(n,) the number of each row's setting; rows of one setting are equal in all columns."""
    # NumPy orders no objects, which are texts. NaN, in a field that a mapping lacks, equals itself.
    comparable = [values.astype(str) if values.dtype.kind == "O" else values for values in columns]
    return combinations(comparable, n)[1]


class Row(NamedTuple):
    """A best item among those of several stores."""

    store: str
    best: Best
    params: Mapping[str, Any]
    """Its values of the fields that any of the stores sweeps, or that differ between stores; None without a value."""
    basis: Mapping[str, str]
    """Those that change what its metric is measured on, as text."""

    def order(self) -> float:
        """A number that is lower the better it is."""
        return -self.best.value if self.best.more_is_better else self.best.value


def rows_of(best_items: Mapping[str, Sequence[Best]], collection: StoreCollection) -> list[Row]:
    """The best items of several stores. Those of one metric and one basis, which compare, stand together, the best first.

    best_items: name of a store -> its best items. collection: these stores, in the same order.
    """
    each = [(k, name, best) for k, (name, some) in enumerate(best_items.items()) for best in some]
    swept = [field for _, _, best in each for field in best.params]
    names = list(dict.fromkeys([*swept, *collection.differing]))
    rows = []
    for k, name, best in each:
        params = {n: best.params.get(n, collection.value(k, n)) for n in names}
        described = collection.stores[k].description
        basis = {n: as_text(value) for n, value in params.items() if described.is_basis(n)}
        rows.append(Row(name, best, params, basis))
    kinds = [(row.best.metric, row.basis) for row in rows]
    return sorted(rows, key=lambda row: (kinds.index((row.best.metric, row.basis)), row.order()))


def table_of(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """Best items of several stores (`rows_of`) as a table: store, item, metric, and their parameters."""
    metrics = list(dict.fromkeys(row.best.metric for row in rows))
    table: dict[str, list[Any]] = {"store": [row.store for row in rows]}
    table["item"] = [row.best.item for row in rows]
    if len(metrics) > 1:
        table["metric"] = [row.best.metric for row in rows]
    table["value" if len(metrics) > 1 else metrics[0]] = [row.best.value for row in rows]
    filled = lambda name: ["" if row.params[name] is None else row.params[name] for row in rows]
    return table | {name: filled(name) for name in rows[0].params}


def differing_bases(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Metric -> the fields in which rows of it differ that change what it is measured on."""
    differing = {}
    for metric in dict.fromkeys(row.best.metric for row in rows):
        bases = [row.basis for row in rows if row.best.metric == metric]
        names = dict.fromkeys(name for basis in bases for name in basis)
        if differ := [name for name in names if len({basis.get(name) for basis in bases}) > 1]:
            differing[metric] = differ
    return differing


def ends(spec: JobSpec, params: Mapping[str, Any], item: int = 0) -> dict[str, str]:
    """The real parameters that lie at an end of what the job gives them (`end_of`) -> "lower" or "upper".

    params: field -> its value. item: the item that has these; each sweep of a list has ranges of its own.

    >>> job = {"kernel": "esn", "sweep": {"random": {"g": {"loguniform": [0.01, 1]}}, "samples": 9}}
    >>> ends(JobSpec.model_validate(job), {"g": 0.0101}), ends(JobSpec.model_validate(job), {"g": 0.02})
    ({'g': 'lower'}, {})
    """
    parts = spec.sweeps()
    sweep = parts[np.searchsorted(np.cumsum([part.count() for part in parts]), item, side="right")]
    # A list may go on where one of its grids ends.
    laws = (sweep.grid if len(parts) == 1 else {}) | sweep.random | dict(spec.ranges)
    real = {name: value for name, value in params.items() if isinstance(value, float)}
    return {k: end for k, x in real.items() if k in laws and (end := end_of(laws[k], x))}
