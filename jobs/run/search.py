"""The driver's side of a search: ask the group's searcher, write its decision down, hand the round out, tell the report.

    a round ends       its report is told; the searcher decides
    a worker is free   the next round is asked for; report and round are written (jobs.store.rounds), then handed out
    items have ended   once this holds for all items of a planned shard, its last step writes their results

A new driver repeats the decisions that are written. jobs.run.rounds computes missing states again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from ctd.kernel import Params, inputs_of
from jobs import keys
from jobs.errors import JobError
from jobs.plan.layout import Shard
from jobs.run.progress import Progress
from jobs.run.retry import Failures
from jobs.run.rounds import Rounds, SearchedShards
from jobs.run.task import Step, Task
from jobs.search.searcher import Round, RoundReport, SearchedItems, Searcher
from jobs.storage import objects
from jobs.storage.checksums import write_sums
from jobs.store.events import WARNING, Events, Remark
from jobs.store.groups import given_params
from jobs.store.marker import Cost
from jobs.store.rounds import Decision, read_decisions, round_digest, write_decision
from jobs.store.store import Store, names_of_columns


class GroupSearch:
    """The search of one group in one run, or of several that are searched together.

    group: the first of them. done: the numbers of the committed shards; the caller keeps it up to date.
    """

    def __init__(self, store: Store, group: int, failures: Failures, done: Set[int]) -> None:
        self._store, self._group, self._failures = store, group, failures
        plan, groups = store.job.plan, store.job.plan.together(group)
        self._n = plan.group_sizes[group]
        self._most = min(plan.layouts[g].shard_items for g in groups)
        params = given_params(store, group)
        self.searcher = _searcher(store, group, self._n, params)
        self.shards = SearchedShards(plan, groups, done, self.searcher.group)
        self.rounds = Rounds(store, group, failures, self._n)
        self._news: list[tuple[int, RoundReport, Cost]] = []
        """Reports since the last decision."""
        self._unwritten: Decision | None = None
        """The last decision, while the storage has not taken it."""
        self._n_decisions = 0
        self._writing: set[int] = set()
        """Shards whose last step has been handed out."""
        self._is_changed = True
        advances = store.science.advances
        self._whole = advances(inputs_of(params)) if advances else 0
        """The most advances of an item; 0 if the kernel does not say."""
        search = self.searcher.search
        self.searcher.most_laps = len(search.ends(search.n_compared(self._n), self._whole)) + 1

    # --- a driver begins ------------------------------------------------------------------------------

    def open(self) -> None:
        """Repeat what is written, and take up what was handed out. Raises JobError if the search decides otherwise now."""
        decisions = list(read_decisions(self._store, self._group))
        # Asking and telling as it was written brings the searcher, Optuna's samplers included, to the state that it had.
        for decision in decisions:
            self._repeat(decision)
        # Written anew if they follow a gap: nothing that is known rests on them.
        for key in list(objects.list_keys(self._store.objects, f"{keys.DECISIONS}/{self._group}")):
            if keys.number_of(key) >= self._n_decisions:
                objects.delete(self._store.objects, key)
        is_there = np.flatnonzero(~self.shards.open_rows().any(axis=0))
        skipped = [] if decisions else self.searcher.skip(is_there).tolist()
        again = self._taken_back()
        if skipped or again:
            self.searcher.retry(np.array(again, np.int64))
            self._decide(None, skipped, again)
        for number in sorted(self.rounds.running):
            if report := self.rounds.resume(number):
                self.end_round(number, *report)

    def _taken_back(self) -> list[int]:
        """Return the rows that failed and are no longer recorded as failing: `resume --failed` has taken them back."""
        if self.searcher.search.in_step:
            return []
        groups = [Shard(-1, group, 0, self._n) for group in self.shards.groups]
        recorded = [entry.row for group in groups for entry in self._failures.failing(group)]
        failed_rows = np.flatnonzero(self.searcher.failed & self.shards.open_items())
        return np.setdiff1d(failed_rows, recorded).tolist()

    def _repeat(self, decision: Decision) -> None:
        self._n_decisions += 1
        self.searcher.skip(np.array(decision.skipped, np.int64))
        self.searcher.retry(np.array(decision.again, np.int64))
        for number, report, cost in decision.told:
            self._note(number, report, cost)
        if decision.asked is None:
            return
        round_ = self.searcher.ask(self._most)
        if round_ is None or round_digest(round_) != round_digest(decision.asked):
            raise JobError(
                f"{self._store.address}: group {self._group}: the search decided differently when round "
                f"{len(self.rounds.proposed)} was written (another version of Optuna?); go on with that version, or begin a new store"
            )
        self.rounds.add(round_)

    # --- reports --------------------------------------------------------------------------------------

    def end_round(self, number: int, report: RoundReport, cost: Cost) -> None:
        """Note the end of a round, and decide what follows. Raises JobError if the search cannot go on."""
        self.rounds.stored.add(number)
        self.rounds.repeated.discard(number)
        if number not in self.rounds.reports:  # otherwise its states were needed again
            self._news.append((number, report, cost))
            self._note(number, report, cost)

    def _note(self, number: int, report: RoundReport, cost: Cost) -> None:
        self.searcher.tell(number, report)
        self.rounds.add_report(number, report, cost)
        self._is_changed = True
        self.searcher.decide()  # after each report, so that a repetition decides the same

    # --- tasks ----------------------------------------------------------------------------------------

    def next_task(self) -> Task | None:
        """Return the next task; None if there is none now. Raises the errors of the storage; then nothing is lost."""
        self._write()
        if task := self.rounds.next_task():
            return task
        if shard := self._complete():
            # Reports are written down before the results that rest on them. Otherwise the next driver would find shards
            # committed whose items, by the decisions, have not ended (`orphaned`).
            if self._news:
                self._decide(None)
            self._writing.add(shard.number)
            self.rounds.waiting.append(self._last_step(shard))
        elif round_ := self.searcher.ask(self._most):
            self._decide(round_)
        return self.rounds.next_task()

    def _complete(self) -> Shard | None:
        """Return a planned shard whose items have all ended, and whose last step has not been handed out."""
        if not self._is_changed:
            return None
        over = lambda shard: self.searcher.ended[shard.start : shard.stop].all()
        waiting = (s for s in self.shards.open if s.number not in self._writing and over(s))
        shard = next(waiting, None)
        self._is_changed = shard is not None
        return shard

    def _last_step(self, shard: Shard) -> Task:
        searcher, rows = self.searcher, self.shards.rows(shard)
        records = searcher.records() | {"search_advances": searcher.ages.astype(np.int32)}
        records["search_dropped"] = searcher.dropped
        rounds = np.where(searcher.failed[rows], -1, searcher.state_rounds[rows])
        last = Round(rows, rounds, rows, 0, searcher.values(rows))
        of_shard = {name: values[shard.start : shard.stop] for name, values in records.items()}
        task = self._failures.task(shard, 1, "fresh")
        failed = {*task.without, *rows[searcher.failed[rows]].tolist()}
        step = Step(-1, last, of_shard, self.rounds.cost(rows))
        return task._replace(step=step, without=tuple(sorted(failed)))

    def _decide(
        self, next_round: Round | None, skipped: Sequence[int] = (), again: Sequence[int] = ()
    ) -> None:
        """Write down what was told since the last decision, and the round that follows."""
        reports, self._news = tuple(self._news), []
        self._unwritten = Decision(told=reports, asked=next_round, skipped=skipped, again=again)
        self._write()

    def _write(self) -> None:
        """Write the last decision; from then on the round that follows is handed out."""
        if self._unwritten is None:
            return
        # Killed before this write, the driver leaves the reports in run/rounds: the next one decides anew, and nobody has computed
        # what would have followed. Killed after it, the next one repeats the decision (`open`).
        write_decision(self._store, self._group, self._n_decisions, self._unwritten)
        next_round, self._unwritten = self._unwritten.asked, None
        self._n_decisions += 1
        if next_round is not None:
            self.rounds.push(self.rounds.add(next_round), "fresh")
            self.rounds.forget(self._needed())

    def _needed(self) -> set[int]:
        """Return the rounds whose states open shards still need, or, out of step, shards that `resume --failed` may take back."""
        searcher, rows = self.searcher, self.shards.open_items()
        if searcher.search.in_step:
            rows &= ~searcher.failed
        elif searcher.failed.any():
            for shard in self.shards.all:
                mine = self.shards.rows(shard)
                rows[mine] |= searcher.failed[mine].any()
        return {*searcher.state_rounds[rows].tolist()} - {-1}

    def seal(self) -> None:
        """Once all shards are committed: seal the decisions; delete the states that nobody needs and what killed workers left."""
        name, needed = f"decisions/{self._group}", self._needed()
        # The results are committed: if this fails or is killed, `ctd check` finds what was left over.
        store = self._store.objects
        with objects.may_fail():
            write_sums(store, name, objects.list_keys(store, f"run/{name}"))
            self.rounds.forget(needed)
            for folder in (keys.CHECKPOINTS, keys.LIVE, *(() if needed else (keys.ROUNDS,))):
                for group in self.shards.groups:
                    objects.delete_all(store, f"{folder}/{group}")

    # --- progress -------------------------------------------------------------------------------------

    @property
    def has_task(self) -> bool:
        """True if a task could be handed out now."""
        waiting = self.rounds.waiting or self._unwritten or self._is_changed
        return bool(waiting) or len(self.searcher.choose(1)) > 0

    @property
    def progress(self) -> tuple[int, float]:
        """(items that have ended, work of past rounds in items), over the items whose shards are not committed."""
        searcher, rows = self.searcher, self.shards.open_items()
        part, over = np.zeros(self._n), searcher.over
        if self._whole:
            part = np.minimum(1.0, searcher.ages / self._whole)
        return int((over & rows).sum()), float(np.where(over, 1.0, part)[rows].sum())


def orphaned(search: GroupSearch) -> list[Shard]:
    """Committed shards of several groups, if the decisions do not say that all of their items have ended.

    The decisions were lost or begin anew, and may have the items in other groups now.
    """
    shards, searcher = search.shards, search.searcher
    if len(shards.groups) == 1:
        return []
    first = shards.groups[0]
    may_be = lambda shard: np.isin(searcher.group, (-1, shard.group - first)) & ~searcher.ended
    committed = [shard for shard in shards.all if shard.number in shards.done]
    return [shard for shard in committed if may_be(shard)[shard.start : shard.stop].any()]


def _searcher(store: Store, group: int, n: int, params: Params) -> Searcher:
    search, columns = store.job.spec.search, names_of_columns(store, group)
    assert search is not None
    read = lambda name: store.rows(group, name, 0, n)
    starts = lambda name: read(name) if name in columns else np.full(n, getattr(params, name))
    variants = search.variants(store.science)
    return search.searcher(SearchedItems(read("item"), store.job.spec.seed, starts, variants))


@dataclass
class Searches:
    """The searches that go on. done: the numbers of the committed shards; the caller keeps it up to date."""

    _store: Store
    _failures: Failures
    _done: Set[int]
    _progress: Progress
    _events: Events
    _by_group: dict[int, GroupSearch] = field(default_factory=dict)
    """The first of the groups that are searched together -> their search."""

    def __len__(self) -> int:
        return len(self._by_group)

    def __contains__(self, group: int) -> bool:
        return self._search_of(group) is not None

    def _search_of(self, group: int) -> GroupSearch | None:
        return self._by_group.get(self._store.job.plan.together(group)[0])

    @property
    def has_task(self) -> bool:
        """True if a task could be handed out now."""
        return any(search.has_task for search in self._by_group.values())

    @property
    def n_open(self) -> int:
        """The number of their shards that are not committed."""
        return sum(len(search.shards.open) for search in self._by_group.values())

    @property
    def progress(self) -> tuple[int, float]:
        """The items that have ended and the work of past rounds, as `GroupSearch.progress`, over all searches."""
        per_search = [search.progress for search in self._by_group.values()]
        return sum(n for n, _ in per_search), sum(work for _, work in per_search)

    def begin(self, group: int) -> list[Shard]:
        """Begin the search of a group, or go on with it; return committed shards that must be taken back first."""
        search = self._by_group[group] = GroupSearch(self._store, group, self._failures, self._done)
        with self._may_end(group, search):
            search.open()
        # Of a search that cannot go on, the decisions behind the one that differs were not repeated: they say nothing.
        return orphaned(search) if group in self._by_group else []

    def next_task(self) -> Task | None:
        """Return the next task of any search; None if there is none now. Raises the errors of the storage."""
        # A generator: a search that is asked writes a decision, so the next one is asked only if this one has no task.
        tasks = (search.next_task() for search in self._by_group.values())
        return next((task for task in tasks if task is not None), None)

    def end_round(self, task: Task, report: RoundReport, cost: Cost) -> None:
        """Note the end of a round; warn of the first comparison in which all items were equal."""
        group = task.shard.group
        if (search := self._search_of(group)) and task.step:
            before = search.searcher.tied
            with self._may_end(group, search):
                search.end_round(task.step.number, report, cost)
            if (text := search.searcher.tied) and not before:
                self._events.note(Remark(kind=WARNING, group=group, text=text))

    def lose_states(self, task: Task, number: int) -> None:
        """Note that a task needs the states of a round that are missing or damaged."""
        group = task.shard.group
        if search := self._search_of(group):
            text = f"the states of round {number} of group {group} are damaged; they are computed again"
            self._events.note(Remark(shard=task.shard.number, text=text))
            with self._may_end(group, search):
                search.rounds.lose_states(number, task)

    def committed(self, shard: Shard) -> None:
        """Note a committed shard: the search of its group is over once it was the last one."""
        if (search := self._search_of(shard.group)) and not search.shards.open:
            del self._by_group[self._store.job.plan.together(shard.group)[0]]
            search.seal()

    def end(self, group: int, text: str) -> None:
        """Give up the shards of a group whose search cannot go on. text: why."""
        if search := self._by_group.pop(self._store.job.plan.together(group)[0], None):
            self._progress.give_up(search.shards.open, text)
            self._events.note(Remark(group=group, text=f"its search ends: {text}"))

    @contextmanager
    def _may_end(self, group: int, search: GroupSearch) -> Iterator[None]:
        """End the search of a group if it cannot go on; tell how far it has come."""
        try:
            yield
        except JobError as error:
            self.end(group, str(error))
        self._progress.stage, self._progress.best = search.searcher.stage, search.searcher.best
