"""One attempt at a shard: read its rows, advance the kernel, keep checkpoints on the way, return the results."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ctd.batch import Layout, Run, program, traced_columns
from ctd.batch.laps import Laps
from ctd.batch.tune import fastest_microbatch
from ctd.kernel import Kernel, Params, inputs_of, static_of, traced_type
from ctd.late import jax
from jobs import keys
from jobs.run.rendezvous import Began, Earlier, Meetings, Waits
from jobs.run.task import ShardProgress, Task
from jobs.search.laps import SearchRun
from jobs.search.rules import HalvingRule, PopulationRule, Rule
from jobs.spec.search import Halving
from jobs.storage.checksums import agree, read_verified
from jobs.store.checkpoint import Checkpoints
from jobs.store.live import LiveCurves
from jobs.store.store import Store

MANY = 100
"""Advances assumed of an item whose kernel does not say how many it makes."""


class Stopped(Exception):
    """Raised if a stop was asked for before the shard began, or between two advances."""


@dataclass(frozen=True)
class Group:
    """The kernel, fixed fields and data that all items of a group share.

    kernel: with the results that a search adds. science: without them, so that a search compiles the same program.
    """

    kernel: Kernel
    science: Kernel
    params: Params
    shared: Any
    """The data that `Kernel.load` read."""

    @property
    def static(self) -> Any:
        """The fields that are compiled in."""
        return static_of(self.params)


@dataclass(frozen=True)
class Computed:
    """The results of an attempt and how they were computed; see `jobs.store.marker.Marker`."""

    layout: Layout
    values: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Result -> (rows, ...)."""
    rounds: int = 0
    longest_s: float | None = None
    checkpoints: int | None = None
    resumed_at: int | None = None
    advances: int | None = None
    meeting: str | None = None
    before: Earlier = field(default_factory=Earlier)


class Attempt:
    """One attempt at a shard; at least one of its items must not be left out.

    Args:
        workers: shards that can run at a time. The fewer, the more advances a measured microbatch serves here.
        stop: set it to leave the shard at a checkpoint.
        on_progress: called after every advance.
    """

    def __init__(
        self,
        store: Store,
        group: Group,
        task: Task,
        workers: int,
        stop: threading.Event,
        on_progress: Callable[[ShardProgress], None],
    ) -> None:
        self._store, self._group, self._task = store, group, task
        self._workers, self._stop, self._on_progress = workers, stop, on_progress
        self._job = store.job
        self.rows = rows_of(task)
        self.computing = False
        """Whether the kernel's functions run: an exception is then the fault of the items."""

    def compute(self, began: Began) -> Computed:
        """Return the results of the rows.

        Raises Stopped if a stop was asked for, Waits at the end of a lap if other shards must come first, and whatever
        the kernel raises.
        """
        group, seed = self._group, self._job.spec.seed
        ids, columns = self._read()
        traced = traced_columns(type(group.params), columns, group.static.dtype)
        self.computing = True
        layout = self._layout(ids, traced)
        prog = program(group.science, group.static, layout)
        run: Run | SearchRun
        if self._job.spec.search is None or self._task.probe:
            # A probe needs no search: an item that fails by itself fails without one.
            run = Run(prog, group.shared, seed, ids, traced)
        else:
            run = self._search(Laps(prog, group.shared, seed, ids, traced), ids, columns)
        found = self._advance(run, ids, layout, began)
        self.computing = False
        advances = int(run.laps.ages.sum()) if isinstance(run, SearchRun) else None
        return Computed(layout, dict(run.results), advances=advances, **found)

    def _read(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return (ids of the items, traced field -> its value for each item); swept values come from the store."""
        shard, params = self._task.shard, self._group.params
        read = lambda name: self._store.rows(shard.group, name, shard.start, shard.stop)[
            self.rows - shard.start
        ]
        ids = read("item")
        stored = str(self._store.results(shard.group).attrs["coordinates"]).split()
        same = lambda name: np.repeat(np.asarray(getattr(params, name))[None], len(ids), axis=0)
        names = traced_type(type(params))._fields
        return ids, {name: read(name) if name in stored else same(name) for name in names}

    def _search(self, laps: Laps, ids: np.ndarray, columns: Mapping[str, np.ndarray]) -> SearchRun:
        """Return the job's search over the items, at its start."""
        search, plan = self._job.spec.search, self._job.plan
        assert search is not None
        size = search.together(plan.group_sizes[self._task.shard.group])
        rule: Rule
        if isinstance(search, Halving):
            rule = HalvingRule(search, laps.n)
        else:
            starts = {name: columns[name].astype(float) for name in search.params}
            rule = PopulationRule(search, self._job.spec.seed, ids, starts)
        return SearchRun(laps, search, rule, self.rows, size, self._task.meeting is not None)

    def _advance(
        self, run: Run | SearchRun, ids: np.ndarray, layout: Layout, began: Began
    ) -> dict[str, Any]:
        """Advance to the end, from where an earlier attempt stood; return fields of `Computed`."""
        task, meetings = self._task, None
        if task.meeting:
            meetings = Meetings(self._store, task.shard, task.meeting, ids)
        saved, resumed = self._resume(run, ids, layout, meetings)
        live = None
        if saved:
            live = LiveCurves(self._store, task.shard, self.rows, self._group.kernel.curves)
        most = self._most(len(ids), layout)
        if not run.rounds:
            # Report that the shard has begun: compiling its first advance takes long.
            self._on_progress(ShardProgress(most=most))
        longest, kept = 0.0, 0
        while not run.finished:
            if self._stop.is_set():
                if saved:
                    saved.keep(run)
                raise Stopped(f"stopped after {run.rounds} advances")
            before = time.monotonic()  # no correction of the clock may change a duration
            run.advance()
            longest = max(longest, time.monotonic() - before)
            stage = run.stage if isinstance(run, SearchRun) else ""
            self._on_progress(ShardProgress(run.n_finished, run.rounds, most, stage))
            if meetings and isinstance(run, SearchRun) and run.arrived:
                meetings.arrive(run, began, longest)
                raise Waits(run.lap, run.stage)
            # Not after the last advance, when the results themselves are written.
            if saved and saved.is_due and not run.finished:
                saved.keep(run)
                kept += 1
            if live and not run.finished:
                live.show(run)
        found = {"rounds": run.rounds, "checkpoints": kept, "resumed_at": resumed}
        if not meetings or not task.meeting:
            return found | {"longest_s": longest}
        met = {"meeting": task.meeting.folder, "before": meetings.before}
        return found | met | {"longest_s": max(longest, meetings.before.longest_s)}

    def _resume(
        self, run: Run | SearchRun, ids: np.ndarray, layout: Layout, meetings: Meetings | None
    ) -> tuple[Checkpoints | None, int | None]:
        """Restore the run if the attempt may go on from an earlier one.

        Returns (its checkpoints, or None if it keeps none; advances already made, or None if it starts from the beginning).
        """
        task = self._task
        if task.probe:
            return None, None
        meets = task.meeting.folder if task.meeting else None
        saved = Checkpoints(self._store, task.shard, ids, layout, meets)
        goes_on = task.begin != "fresh" and _go_on(run, saved, meetings)
        # Both attempts share one checkpoint folder, in which the first one goes on writing.
        keeps = None if task.begin == "beside" else saved
        return keeps, run.rounds if goes_on else None

    def _most(self, n: int, layout: Layout) -> int:
        """Return the most advances that the devices may make; 0 if the kernel does not say."""
        of_item, at_once = self._group.science.advances, layout.slots * layout.devices
        # -(-n // k) rounds up: the last items fill their slots only in part.
        return of_item(inputs_of(self._group.params)) * -(-n // at_once) if of_item else 0

    # --- how the items lie on the devices -------------------------------------------------------------

    def _layout(self, ids: np.ndarray, traced: Any) -> Layout:
        """Return the planned layout. If the plan leaves the microbatch open, it is measured once per group and kind of device."""
        task, devices = self._task, jax.local_device_count()
        planned = self._job.plan.layouts[task.shard.group]
        slots = planned.of_device(devices, task.slots)
        measured = lambda: self._measure(ids, traced, slots, devices)
        m = planned.microbatch or chosen_microbatch(self._store, task.shard.group, measured)
        m = min(m, task.slots or planned.slots)  # memory may not hold even one microbatch
        return Layout.of(slots, m, devices)

    def _measure(
        self, ids: np.ndarray, traced: Any, slots: int, devices: int
    ) -> tuple[int, dict[int, float]]:
        """Return (the fastest microbatch, microbatch -> seconds of one advance of one item)."""
        group = self._group

        def start(layout: Layout, n: int) -> Run:
            self._on_progress(ShardProgress(tuning=True))
            some = jax.tree.map(lambda leaf: leaf[:n], traced)
            of_layout = program(group.science, group.static, layout)
            return Run(of_layout, group.shared, self._job.spec.seed, ids[:n], some)

        advances = self._advances_to_come()
        found = fastest_microbatch(group.science, start, len(ids), slots, devices, advances)
        self._on_progress(ShardProgress())
        return found

    def _advances_to_come(self) -> float:
        """Return how many item advances one worker makes in the group, which bounds what measuring may cost."""
        plan, kernel, group = self._job.plan, self._group.science, self._task.shard.group
        of_item = kernel.advances(inputs_of(self._group.params)) if kernel.advances else MANY
        return of_item * plan.group_sizes[group] / min(self._workers, plan.counts[group])


def rows_of(task: Task) -> np.ndarray:
    """Return the rows of the group that the attempt computes."""
    return np.setdiff1d(np.arange(task.shard.start, task.shard.stop), task.without)


def chosen_microbatch(
    store: Store, group: int, measured: Callable[[], tuple[int, dict[int, float]]]
) -> int:
    """Return the microbatch that the store keeps for this process's kind of device; the first worker to ask measures it.

    measured: returns (the fastest, microbatch -> seconds of one advance of one item).
    """
    key = keys.layout(group, jax.local_devices()[0].device_kind)
    chosen: Any = read_verified(store.objects, key)
    if chosen is None:
        best, seconds = measured()
        timed = {str(m): s for m, s in seconds.items()}
        # Workers may measure at the same time and differ; the microbatch decides the rounding, so all take the first.
        chosen = agree(store.objects, key, {"microbatch": best, "seconds_per_item": timed})
    return int(chosen["microbatch"])


def _go_on(run: Run | SearchRun, saved: Checkpoints, meetings: Meetings | None) -> bool:
    """Restore the run to where an earlier attempt stood; return whether there was one.

    Raises Waits if that is a meeting to which others have not come.
    """
    before, left = saved.latest(), meetings and meetings.latest()
    # The later state wins: a checkpoint of a later lap is ahead of what the shard left at the meeting before.
    if left and not (before and before.arrays["search.lap"] > left.arrays["search.lap"]):
        assert meetings is not None
        assert isinstance(run, SearchRun)
        run.restore(left)
        meetings.meet(run)
    elif before:
        run.restore(before)
    return bool(left or before)
