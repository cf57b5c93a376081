"""One attempt at a shard: read its rows, advance the kernel, keep checkpoints on the way, return the results."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ctd.batch import Layout, Run, program, traced_columns
from ctd.batch.round import RoundRun
from ctd.batch.slots import SavedStates
from ctd.batch.tune import fastest_microbatch
from ctd.kernel import Params, inputs_of, static_of, traced_type
from ctd.late import jax
from jobs import keys
from jobs.errors import count
from jobs.run.task import Pulse, ShardProgress, Task, rows_of
from jobs.search.searcher import Round
from jobs.store.checkpoint import Checkpoints
from jobs.store.layouts import Microbatch
from jobs.store.live import LiveCurves
from jobs.store.rounds import Damaged, read_round, round_digest
from jobs.store.store import Store, names_of_columns

COMPILING = "compiling for the first advance"
"""The step that an attempt waits for longest before its first advance has ended."""
MANY = 100
"""Advances assumed of an item whose kernel does not say how many it makes."""


class Stopped(Exception):
    """Raised if a stop was asked for before the shard began, or between two advances."""


@dataclass(frozen=True)
class GroupData:
    """The fixed fields and data that all items of a group share."""

    params: Params
    shared: Any
    """The data that `Kernel.load` read."""
    columns: dict[str, tuple[int, np.ndarray]] = field(default_factory=dict)
    """Stored column -> the number of its first row that is in memory, and the rows from that on."""

    @property
    def static(self) -> Any:
        """The fields that are compiled in."""
        return static_of(self.params)


@dataclass(frozen=True)
class AttemptResults:
    """The results of an attempt and how they were computed; see `jobs.store.marker.Marker`."""

    layout: Layout
    values: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Result -> (rows, ...)."""
    rounds: int = 0
    longest_s: float = 0.0
    checkpoints: int | None = None
    resumed_at: int | None = None
    before_s: float = 0.0
    """Seconds that the attempts before it took up to the checkpoint that it went on from."""
    run: RoundRun | None = None
    """The round, if the attempt was one."""


@dataclass
class Attempt:
    """One attempt at a shard; at least one of its items must not be left out."""

    store: Store
    group: GroupData
    task: Task
    workers: int
    """Shards that can run at a time. The fewer, the more advances a measured microbatch serves here."""
    stop: threading.Event
    """Set it to leave the shard at a checkpoint."""
    on_progress: Callable[[ShardProgress], None]
    """Called after every advance."""
    pulse: Pulse
    """Told of the beginning and end of every advance."""
    computing: bool = False
    """True while the kernel's functions run: an exception is then the fault of the items."""

    def __post_init__(self) -> None:
        # Without the results that a search adds, so that it compiles the same program.
        self.job, self.kernel = self.store.job, self.store.science
        self.rows = rows_of(self.task)

    def compute(self) -> AttemptResults:
        """Return the results of the rows.

        Raises Stopped if a stop was asked for, Damaged if the state of an item is lost, and whatever the kernel raises.
        """
        group, seed, step = self.group, self.job.spec.seed, self.task.step
        ids, columns = self._read()
        states = self._states(step.round) if step else None
        traced = traced_columns(type(group.params), columns, group.static.dtype)
        self.computing = True
        self.on_progress(ShardProgress(waiting=COMPILING))
        layout = self._layout(ids, traced)
        run: Run | RoundRun
        with self.pulse.advance():  # the first states may take as long as an advance
            prog = program(self.kernel, group.static, layout)
            if step is None:
                run = Run(prog, group.shared, seed, ids, traced)
            else:
                run = RoundRun(prog, group.shared, seed, ids, traced, step.round.length, states)
        results = self._advance(run, ids, layout)
        if isinstance(run, RoundRun):
            results = replace(results, run=run, values=self._last_results(run))
        else:
            results = replace(results, values=dict(run.results))
        self.computing = False
        return results

    def _read(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return (ids of the items, traced field -> its value for each item); swept values come from the store."""
        shard, params, step = self.task.shard, self.group.params, self.task.step
        columns, stored = {}, names_of_columns(self.store, shard.group)
        for name in traced_type(type(params))._fields:
            same = np.asarray(getattr(params, name))
            if step and name in step.round.values:
                values = step.round.values[name][np.searchsorted(step.round.rows, self.rows)]
                # In the type of its field: a list of whole numbers may be proposed for a real one.
                columns[name] = values.astype(same.dtype)
            elif name in stored:
                columns[name] = self._column(name)
            else:
                columns[name] = np.repeat(same[None], len(self.rows), axis=0)
        return self._column("item"), columns

    def _column(self, name: str) -> np.ndarray:
        shard, cached = self.task.shard, self.group.columns
        first, last = int(self.rows[0]), int(self.rows[-1]) + 1
        start, values = cached.get(name, (0, np.zeros(0)))
        if not start <= first < last <= start + len(values):
            # Whole chunks, megabytes each, which neighbouring shards share: each is decoded once.
            chunk = self.store.array(shard.group, name).chunks[0]
            start, stop = first // chunk * chunk, math.ceil(last / chunk) * chunk
            values = self.store.rows(shard.group, name, start, stop)
            cached[name] = start, values
        return values[self.rows - start]

    def _states(self, round_: Round) -> SavedStates | None:
        """Return the states that the rows of a round go on from; None if all start. Raises Damaged."""
        at = np.searchsorted(round_.rows, self.rows)
        numbers, parents = round_.rounds[at], round_.parents[at]
        group = self.job.plan.together(self.task.shard.group)[0]
        pieces: list[tuple[np.ndarray, np.ndarray, list[np.ndarray]]] = []
        for number in np.unique(numbers[numbers >= 0]).tolist():
            members = np.flatnonzero(numbers == number)
            # A member may be copied many times: each state is read once.
            unique_parents, again = np.unique(parents[members], return_inverse=True)
            stored = read_round(self.store, group, number)
            if stored is None:
                raise Damaged(number)
            leaves = [leaf[again] for leaf in stored.states(self.store, unique_parents)]
            done = stored.report.done[np.searchsorted(stored.report.rows, unique_parents)]
            pieces.append((members, done[again], leaves))
        if not pieces:
            return None
        rows, dones, states = zip(*pieces, strict=True)
        leaves = [np.concatenate(parts) for parts in zip(*states, strict=True)]
        return SavedStates(np.concatenate(rows), leaves, np.concatenate(dones))

    def _last_results(self, run: RoundRun) -> dict[str, np.ndarray]:
        """Return the results of items that have ended, with what the search adds to them; none if they go on."""
        step, shard = self.task.step, self.task.shard
        if step is None or step.search_results is None:
            return {}
        search_results = {
            name: values[self.rows - shard.start] for name, values in step.search_results.items()
        }
        with self.pulse.advance():
            results = run.results
        if self.kernel.outcomes:
            # At a rung, or with their population.
            is_dropped = search_results["search_dropped"] | ~run.done
            results["outcome"][is_dropped] = len(self.kernel.outcomes)  # see jobs.plan.search
        return {**results, **search_results}

    def _advance(self, run: Run | RoundRun, ids: np.ndarray, layout: Layout) -> AttemptResults:
        """Advance to the end, from where an earlier attempt stood; return how, without the results."""
        saved, resumed, before_s = self._resume(run, ids, layout)
        curves = self.store.kernel.display.curves
        live = LiveCurves(self.store, self.task.shard, self.rows, curves) if saved else None
        # Of the devices, rounded up: the last items fill their slots only in part. 0 if the kernel does not say.
        turns = math.ceil(len(ids) / (layout.slots * layout.devices))
        item_advances = most = self._of_item()
        if step := self.task.step:  # a round is a part of an item's work
            most = min(most or step.round.length, step.round.length)

        def keep() -> None:
            if saved:
                done = now()
                saved.keep(run, (done.finished, done.work))

        def now(waiting: str = "") -> ShardProgress:
            # The items of a round go on later.
            finished = 0 if self.task.step else run.n_finished
            done = len(ids) * run.rounds / (item_advances * turns) if item_advances else 0.0
            work = min(len(ids), max(finished, done))
            value = live.value if live else None
            failed = live.failed if live and not self.task.step else {}
            return ShardProgress(
                finished, run.rounds, most * turns, waiting, work=work, value=value, failed=failed
            )

        # Where it stands at first, from a checkpoint or not: compiling its first advance takes long.
        self.on_progress(now(COMPILING))
        longest, n_checkpoints = 0.0, 0
        while not run.finished:
            # Between advances alone, where the state of every item is whole.
            if self.stop.is_set():
                keep()
                raise Stopped(f"stopped after {count(run.rounds, 'advance')}")
            before = time.monotonic()  # no correction of the clock may change a duration
            with self.pulse.advance():
                run.advance()
            longest = max(longest, time.monotonic() - before)
            self.on_progress(now())
            # Not after the last advance, when the results themselves are written.
            if saved and saved.is_due and not run.finished:
                keep()
                n_checkpoints += 1
            if live and not run.finished:
                live.show(run)
        return AttemptResults(layout, {}, run.rounds, longest, n_checkpoints, resumed, before_s)

    def _resume(
        self, run: Run | RoundRun, ids: np.ndarray, layout: Layout
    ) -> tuple[Checkpoints | None, int | None, float]:
        """Go on from the checkpoint of an earlier attempt, if there may be one.

        Returns (checkpoints, if this attempt keeps any; advances already made, if it goes on; the seconds that they took).
        """
        task = self.task
        if task.probe:
            return None, None, 0.0
        round_sha256 = round_digest(task.step.round) if task.step else ""
        saved = Checkpoints(self.store, task.shard, ids, layout.microbatch, round_sha256)
        resumed = None
        if task.begin != "fresh":
            self.on_progress(ShardProgress(waiting="reading the checkpoint"))
            if before := saved.latest():
                run.restore(before)
                resumed = run.rounds
        # Both attempts share one checkpoint folder, in which the first one goes on writing.
        return None if task.begin == "beside" else saved, resumed, saved.before_s

    def _of_item(self) -> int:
        """Return the most advances of an item; 0 if the kernel does not say."""
        return self.kernel.advances(inputs_of(self.group.params)) if self.kernel.advances else 0

    # --- how the items lie on the devices -------------------------------------------------------------

    def _layout(self, ids: np.ndarray, traced: object) -> Layout:
        """Return the planned layout. If the plan leaves the microbatch open, it is measured once per group and kind of device."""
        task = self.task
        planned = self.job.plan.layouts[task.shard.group]
        slots, devices = planned.of_devices(jax.local_device_count(), task.slots)
        m = planned.microbatch or self._microbatch(ids, traced, slots, devices)
        m = min(m, task.slots or planned.slots)  # memory may not hold even one microbatch
        return Layout.rounded_up(slots, m, devices)

    def _microbatch(self, ids: np.ndarray, traced: object, slots: int, devices: int) -> int:
        """Return the microbatch that the store keeps for this process's kind of device; the first worker to ask measures it."""
        key = keys.layout(self.task.shard.group, jax.local_devices()[0].device_kind)
        note = Microbatch.read(self.store.objects, key)
        if note is None:
            fastest, seconds = self._measure(ids, traced, slots, devices)
            measured = Microbatch(microbatch=fastest, seconds_per_item=seconds)
            # Workers may measure at the same time and differ; the microbatch decides the rounding, so all take the first.
            return measured.agree(self.store.objects, key).microbatch
        return note.microbatch

    def _measure(
        self, ids: np.ndarray, traced: object, slots: int, devices: int
    ) -> tuple[int, dict[int, float]]:
        """Return (the fastest microbatch, microbatch -> seconds of one advance of one item)."""
        group, plan, number = self.group, self.job.plan, self.task.shard.group

        def start(layout: Layout, n: int) -> Run:
            # Each run that is measured makes one advance.
            self.pulse.beat(advancing=True)
            self.on_progress(ShardProgress(waiting="tuning"))
            some = jax.tree.map(lambda leaf: leaf[:n], traced)
            of_layout = program(self.kernel, group.static, layout)
            return Run(of_layout, group.shared, self.job.spec.seed, ids[:n], some)

        # The item advances that one worker makes in the group bound what measuring may cost.
        items = plan.group_sizes[number] / min(self.workers, plan.counts[number])
        advances = (self._of_item() or MANY) * items
        with self.pulse.advance():
            measured = fastest_microbatch(self.kernel, start, len(ids), slots, devices, advances)
        self.on_progress(ShardProgress(waiting=COMPILING))
        return measured
