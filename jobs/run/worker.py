"""One shard's work: read the items from the store, run the kernel, write the results, commit."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ctd.batch import Layout, Run, program, traced_columns
from ctd.batch.laps import Laps
from ctd.batch.tune import fastest_microbatch
from ctd.kernel import Params, inputs_of, static_of, traced_type
from ctd.late import jax
from jobs.errors import JobError
from jobs.inputs.measure import load_group
from jobs.reduce.group import reduce_group
from jobs.run.microbatch import advances_of_worker, chosen_microbatch
from jobs.run.nan import nan_counts
from jobs.run.rendezvous import Began, Earlier, Meetings, Waits
from jobs.run.sources import source_here
from jobs.run.task import Fault, Report, Standing, Task
from jobs.search.laps import SearchRun
from jobs.search.rules import HalvingRule, PopulationRule, Rule
from jobs.spec.search import Halving
from jobs.spec.trust import admit
from jobs.storage import objects
from jobs.store.arrays import DONE, DROPPED, FAILED
from jobs.store.checkpoint import Checkpoints, clear
from jobs.store.live import EVERY_S, LiveCurves, clear_live
from jobs.store.marker import Marker
from jobs.store.provenance import host, said, trace_of
from jobs.store.store import Store
from jobs.store.writer import ShardWriter


class Stopped(Exception):
    """Raised if a stop was asked for: before the shard began, or between two advances."""


@dataclass
class Worker:
    """One process at work on the shards of one store; it keeps what it has read and compiled."""

    address: str
    _shared: dict[int, tuple[Params, Any]] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _computing: bool = False

    def __post_init__(self) -> None:
        self.store = Store.open(self.address)
        self.writer = ShardWriter(self.store)
        self.job = self.store.job
        # As whoever hands out the shards does, who would not have begun else.
        admit(self.job.base, self.job.spec.modules())
        self.kernel = self.store.kernel
        self.science = self.store.science
        """The kernel without the results that a search adds: the compiled program is the same with and without one."""
        self.source = source_here(self.store, socket.gethostname())

    def interrupt(self) -> None:
        """Leave the running shard after its present advance, and every later one at once; callable from any thread."""
        self._stop.set()

    def group(self, index: int) -> tuple[Params, Any]:
        """Return (params, shared data) of a group; the last group is kept."""
        if index not in self._shared:
            self._shared.clear()
            params = self.kernel.Params.model_validate(self.store.params(index))
            self._shared[index] = params, load_group(self.kernel, params, self.job.base)
        return self._shared[index]

    def do(self, task: Task, progress: Callable[[Standing], None] = lambda now: None) -> Report:
        """Compute, write and commit one shard (or reduce a group); return the report.

        Never raises: an error is in the report. progress: called after every advance.
        """
        shard, attempt = task.shard, task.attempt
        self._computing = False
        try:
            if task.reduces:
                reduce_group(self.store, shard.group)
                return Report(shard.number, attempt)
            info = self._do(task, Began(), progress)
        except Waits as wait:
            info = {"lap": wait.lap, "stage": wait.stage}
            return Report(shard.number, attempt, str(wait), fault="waits", info=info)
        except Stopped as stop:
            return Report(shard.number, attempt, str(stop), fault="stopped", info=host())
        except Exception as error:
            trace, fault = trace_of(error), fault_of(error)
            if fault == "error" and not self._computing:
                fault = "outside"
            return Report(shard.number, attempt, said(error), trace, fault, host())
        return Report(shard.number, attempt, info=info)

    def _do(self, task: Task, began: Began, progress: Callable[[Standing], None]) -> dict[str, Any]:
        if self._stop.is_set():
            raise Stopped("stopped before it began")
        shard = task.shard
        rows = _rows(task)
        if len(rows):
            values, info = self._compute(task, rows, began, progress)
        else:
            planned = self.job.plan.layouts[shard.group]
            layout = Layout(planned.slots, planned.microbatch, jax.local_device_count())
            values, info = {}, {"layout": layout, "rounds": 0}
        if task.probe:
            return info
        before = info.pop("before", Earlier())
        values["status"] = self._status(values, len(rows))
        info |= {
            "attempt": task.attempt,
            "without": task.without,
            "narrowed_to": task.slots,
            "started": min(began.at, before.started),
            "seconds": before.seconds + began.seconds(),
            "outcomes": self._counts(values),
            "source": self.source,
            "n_failed": int((values["status"] == FAILED).sum()) + len(task.without),
            "nan": nan_counts(values) or None,
            **host(),
        }
        self.writer.write(Marker(shard=shard, **info), values, rows)
        if task.resume or info.get("checkpoints"):
            clear(self.store, shard)
        again = task.attempt > 1 or task.resume or task.meeting or task.second
        if self.kernel.curves and (again or info["seconds"] >= EVERY_S):
            clear_live(self.store, shard)
        return info

    def _compute(
        self, task: Task, rows: np.ndarray, began: Began, progress: Callable[[Standing], None]
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return (results of these rows of the shard's group, how they came about)."""
        shard = task.shard
        params, shared = self.group(shard.group)
        static = static_of(params)
        kind = type(params)
        read = lambda name: self.store.rows(shard.group, name, shard.start, shard.stop)[
            rows - shard.start
        ]
        ids = read("item")
        stored = str(self.store.results(shard.group).attrs["coordinates"]).split()
        columns = {}
        for name in traced_type(kind)._fields:
            fixed = np.asarray(getattr(params, name))
            columns[name] = (
                read(name) if name in stored else np.repeat(fixed[None], len(ids), axis=0)
            )
        traced = traced_columns(kind, columns, static.dtype)
        self._computing = True
        layout = self._layout(task, params, shared, ids, traced, progress)
        prog, seed = program(self.science, static, layout), self.job.spec.seed
        run: Run | SearchRun
        if self.job.spec.search is None or task.probe:
            # An item that fails by itself fails without a search too.
            run = Run(prog, shared, seed, ids, traced)
        else:
            run = self._search(Laps(prog, shared, seed, ids, traced), task, rows, ids, columns)
        of_item, at_once = self.science.advances, layout.slots * layout.devices
        most = of_item(inputs_of(params)) * -(-len(ids) // at_once) if of_item else 0
        told = lambda now: progress(now._replace(most=most))
        info = self._advance(run, task, ids, layout, began, told)
        self._computing = False
        values = dict(run.results)
        if isinstance(run, SearchRun):
            info["advances"] = int(run.laps.ages.sum())
        return values, {"layout": layout, **info}

    def _search(
        self, laps: Laps, task: Task, rows: np.ndarray, ids: np.ndarray, columns: Any
    ) -> SearchRun:
        """Return the job's search over the items of a shard, at its start."""
        search, plan = self.job.spec.search, self.job.plan
        assert search is not None
        size = search.together(plan.group_sizes[task.shard.group])
        meets = task.meeting is not None
        rule: Rule
        if isinstance(search, Halving):
            rule = HalvingRule(search, laps.n)
        else:
            starts = {name: columns[name].astype(float) for name in search.params}
            rule = PopulationRule(search, self.job.spec.seed, ids, starts)
        return SearchRun(laps, search, rule, rows, size, meets)

    def _advance(
        self,
        run: Run | SearchRun,
        task: Task,
        ids: np.ndarray,
        layout: Layout,
        began: Began,
        progress: Callable[[Standing], None],
    ) -> dict[str, Any]:
        """Advance to the end, from where an earlier attempt stood, and keep checkpoints on the way.

        Raises Stopped if a stop was asked for, Waits at the end of a lap if other shards must come first.
        """
        longest, kept = 0.0, 0
        info: dict[str, Any] = {}
        saved = None if task.probe else self._checkpoints(task, ids, layout)
        meetings = None
        if task.meeting:
            meetings = Meetings(self.store, task.shard, task.meeting, ids)
        if saved and task.resume and _go_on(run, saved, meetings):
            info["resumed_at"] = run.rounds
        if task.second:  # what it would keep lies where the first attempt keeps its own
            saved = None
        live = None
        if saved:
            live = LiveCurves(self.store, task.shard, _rows(task), self.kernel.curves)
        if not run.rounds:
            progress(Standing())  # that it has begun: the first advance is compiled first
        while not run.finished:
            if self._stop.is_set():
                if saved:
                    saved.keep(run)
                raise Stopped(f"stopped after {run.rounds} advances")
            before = time.monotonic()
            run.advance()
            longest = max(longest, time.monotonic() - before)
            stage = run.stage if isinstance(run, SearchRun) else ""
            progress(Standing(run.n_finished, run.rounds, stage=stage))
            if meetings and isinstance(run, SearchRun) and run.arrived:
                meetings.arrive(run, began, longest)
                raise Waits(run.lap, run.stage)
            if saved and saved.is_due and not run.finished:
                saved.keep(run)
                kept += 1
            if live and not run.finished:
                live.show(run)
        if task.meeting and meetings:
            longest = max(longest, meetings.before.longest_s)
            info |= {"meeting": task.meeting.folder, "before": meetings.before}
        return info | {"rounds": run.rounds, "longest_s": longest, "checkpoints": kept}

    def _checkpoints(self, task: Task, ids: np.ndarray, layout: Layout) -> Checkpoints:
        meets = task.meeting.folder if task.meeting else None
        return Checkpoints(self.store, task.shard, ids, layout, meets)

    def _layout(
        self,
        task: Task,
        params: Params,
        shared: Any,
        ids: np.ndarray,
        traced: Any,
        progress: Callable[[Standing], None],
    ) -> Layout:
        """Return the planned layout; an open microbatch is chosen once per group and kind of device."""
        group, plan = task.shard.group, self.job.plan
        planned = plan.layouts[group]
        devices = jax.local_device_count()
        slots = planned.of_device(devices, task.slots)

        def start(layout: Layout, n: int) -> Run:
            progress(Standing(tuning=True))
            some = jax.tree.map(lambda leaf: leaf[:n], traced)
            of_layout = program(self.science, static_of(params), layout)
            return Run(of_layout, shared, self.job.spec.seed, ids[:n], some)

        def measured() -> tuple[int, dict[int, float]]:
            advances = advances_of_worker(self.science, params, plan, group, task.workers)
            found = fastest_microbatch(self.science, start, len(ids), slots, devices, advances)
            progress(Standing())
            return found

        m = planned.microbatch or chosen_microbatch(self.store.objects, group, measured)
        m = min(m, task.slots or planned.slots)  # memory may not hold even one microbatch
        return Layout.of(slots, m, devices)

    def _status(self, values: dict[str, np.ndarray], n: int) -> np.ndarray:
        status = np.full(n, DONE, np.int8)
        failing = [k for k, outcome in enumerate(self.kernel.outcomes) if outcome.failed]
        if failing and n:
            status[np.isin(values["outcome"], failing)] = FAILED
        if n and "search_dropped" in values:
            status[values["search_dropped"]] = DROPPED
        return status

    def _counts(self, values: dict[str, np.ndarray]) -> dict[str, int]:
        if not self.kernel.outcomes or "outcome" not in values:
            return {}
        return {
            outcome.name: int((values["outcome"] == k).sum())
            for k, outcome in enumerate(self.kernel.outcomes)
        }


def _rows(task: Task) -> np.ndarray:
    """Return the rows of the group that the attempt computes."""
    return np.setdiff1d(np.arange(task.shard.start, task.shard.stop), task.without)


def _go_on(run: Run | SearchRun, saved: Checkpoints, meetings: Meetings | None) -> bool:
    """Restore the run to where an earlier attempt stood; return whether there was one.

    Raises Waits if that is a meeting to which others have not come.
    """
    before, left = saved.latest(), meetings and meetings.latest()
    if left and not (before and before.arrays["search.lap"] > left.arrays["search.lap"]):
        assert meetings is not None
        assert isinstance(run, SearchRun)
        run.restore(left)
        meetings.meet(run)
    elif before:
        run.restore(before)
    return bool(left or before)


def fault_of(error: Exception) -> Fault:
    """Return the kind of an exception; only MemoryError and XLA's RESOURCE_EXHAUSTED mean memory."""
    if isinstance(error, JobError):
        return "input"
    if isinstance(error, MemoryError) or (
        isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)
    ):
        return "memory"
    return "storage" if objects.is_storage_error(error) else "error"
