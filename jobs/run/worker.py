"""A worker: read a shard's items, compute, write the results, commit; and the executor that has one, in this process."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property
from itertools import accumulate

import numpy as np

from ctd.batch import FEW_MAPS, Layout, make_room
from ctd.batch.round import RoundRun
from ctd.kernel import Kernel, static_of
from ctd.late import jax
from jobs.errors import JobError
from jobs.inputs.measure import load_group
from jobs.plan.layout import Machines
from jobs.run.attempt import Attempt, AttemptResults, GroupData, Stopped
from jobs.run.sources import source_here
from jobs.run.stop import Stop
from jobs.run.task import (
    Fault,
    Heartbeat,
    Key,
    OnTick,
    Pulse,
    Report,
    ShardProgress,
    Step,
    Task,
    Ticker,
    Work,
    error_text,
    rows_of,
    traceback_text,
)
from jobs.search.method import Method
from jobs.search.searcher import RoundReport
from jobs.spec.trust import allow
from jobs.storage import objects
from jobs.store.arrays import DONE, DROPPED, FAILED
from jobs.store.checkpoint import clear
from jobs.store.groups import given_params
from jobs.store.live import EVERY_S, clear_live
from jobs.store.manifest import host, idle_gpus
from jobs.store.marker import Cost, Marker
from jobs.store.rounds import Damaged, write_round
from jobs.store.store import Store
from jobs.store.writer import write_shard


class Worker:
    """Computes shards of one store in this process; it caches the data of a group and the compiled programs.

    workers: number of shards that can run at a time, here and elsewhere.
    """

    def __init__(self, address: str, workers: int = 1) -> None:
        self.store = Store.open(address)
        self.job = self.store.job
        # The driver has checked that the user trusts this code, or it would not have begun.
        allow(self.job.base, self.job.spec.modules())
        self.kernel = self.store.kernel
        self._workers = workers
        self._source = source_here(self.store, socket.gethostname())
        self._groups: dict[int, GroupData] = {}
        self._stop = threading.Event()
        self.pulse = Pulse()
        """Tells whether an advance of the running shard lasts, and since when."""
        # JAX logs the traceback of a callback that raises, between lines of progress; the item's error has it, too.
        logging.getLogger("jax._src.callback").setLevel(logging.CRITICAL)

    def interrupt(self) -> None:
        """Leave the running shard after its current advance, and every later shard at once; callable from any thread."""
        self._stop.set()

    def do(
        self, work: Work, on_progress: Callable[[ShardProgress], None] = lambda now: None
    ) -> Report:
        """Compute, write and commit one shard, or do other work on the store; return the report.

        Never raises: an error is in the report. on_progress: called after every advance.
        """
        attempt: Attempt | None = None
        self.pulse.beat()
        try:
            if not isinstance(work, Task):
                work.do(self.store)
                return Report(*work.key)
            if self._stop.is_set():
                raise Stopped("stopped before it began")
            began = time.monotonic()
            if len(rows_of(work)):
                on_progress(ShardProgress(waiting="reading the data"))
                group = self._group(work.shard.group)
                attempt = Attempt(
                    self.store, group, work, self._workers, self._stop, on_progress, self.pulse
                )
                results = attempt.compute()
            else:  # every item fails by itself
                planned = self.job.plan.layouts[work.shard.group]
                _, devices = planned.of_devices(jax.local_device_count())
                results = AttemptResults(Layout(planned.slots, planned.microbatch, devices))
            if work.probe:
                return Report(*work.key)
            if work.step and work.step.search_results is None:
                return Report(*work.key, round_end=self._keep(work, began, results))
            return Report(*work.key, self._commit(work, began, results))
        except Damaged as damage:
            return Report(*work.key, lost_round=damage.number)
        except Stopped as stop:
            return Report(*work.key, None, str(stop), fault="stopped", about=host())
        except Exception as error:
            fault = fault_of(error)
            # JAX would tell of a callback that raised once more, as the process ends.
            with suppress(Exception):
                jax.effects_barrier()
            # Outside of the kernel's functions no item is to blame: the shard is not searched for one.
            if fault == "error" and not (attempt and attempt.computing):
                fault = "outside"
            # The text of a JobError says all, with the lines of the user's own files.
            trace = "" if isinstance(error, JobError) else traceback_text(error)
            return Report(*work.key, None, error_text(error), trace, fault, host())

    def _group(self, index: int) -> GroupData:
        """Return a group with its data; only groups that are searched together with the last one are cached."""
        if index not in self._groups:
            # Before the next one is read: its data may fill the memory.
            for other in self._groups.keys() - {*self.job.plan.together(index)}:
                del self._groups[other]
            if not self._groups and index and self._needed_until[index - 1] < index:
                make_room(FEW_MAPS)
            params = given_params(self.store, index)
            self._groups[index] = GroupData(params, load_group(self.kernel, params, self.job.base))
        return self._groups[index]

    @cached_property
    def _needed_until(self) -> list[int]:
        """For each group, the last one that needs a program which it or an earlier one compiled."""
        n_groups = len(self.job.plan.group_sizes)
        statics = [static_of(given_params(self.store, group)) for group in range(n_groups)]
        last = {static: group for group, static in enumerate(statics)}
        return [*accumulate((last[static] for static in statics), max)]

    def _keep(self, task: Task, began: float, results: AttemptResults) -> tuple[RoundReport, Cost]:
        """Write the end of a round; return its report and its cost."""
        step, search, cost = task.step, self.job.spec.search, _cost(began, results)
        assert step is not None
        assert search is not None
        if results.run is None:
            # No item has a state to write. If the driver dies before it notes the report, the next one hands the round out again.
            none, nobody, failed = np.zeros(0, int), np.zeros(0, bool), step.round.rows.tolist()
            return RoundReport(none, np.zeros(0), none, nobody, nobody, tuple(failed)), cost
        report = round_report(results.run, self.store.science, search, rows_of(task), step)
        # The states first, then the checkpoint goes: a kill in between leaves a checkpoint too many, never neither.
        group, states = self.job.plan.together(task.shard.group)[0], results.run.states()
        write_round(self.store, group, step.number, step.round, (report, cost), states)
        self._tidy(task, results.checkpoints or 0, cost.seconds)
        return report, cost

    def _tidy(self, task: Task, checkpoints: int, seconds: float) -> None:
        """Remove the checkpoints and curves of a shard or a round that has been written."""
        if task.begin != "fresh" or checkpoints:
            clear(self.store, task.shard)
        # Short first attempts have written no curves: that saves a request for each shard.
        again = task.attempt > 1 or task.begin != "fresh"
        if self.kernel.display.curves and (again or seconds >= EVERY_S / 2):
            clear_live(self.store, task.shard)

    def _commit(self, task: Task, began: float, results: AttemptResults) -> Marker:
        """Write the results, then the marker; return it without its checksums."""
        rows, cost = rows_of(task), _cost(began, results)
        before, unused = Cost(), np.zeros(0, int)
        if task.step:
            every = np.arange(task.shard.start, task.shard.stop)
            before, unused = task.step.before, np.setdiff1d(every, task.step.round.rows)
        ages = results.values.get("search_advances")
        values = {**results.values, "status": self._status(results.values, len(rows))}
        marker = Marker(
            shard=task.shard, attempt=task.attempt, without=task.without, unused=tuple(unused.tolist()),
            outcomes=outcome_counts(self.kernel, values), nan=nan_counts(values) or None,
            n_failed=int((values["status"] == FAILED).sum()) + len(task.without),
            layout=results.layout, rounds=cost.rounds + before.rounds, narrowed_to=task.slots,
            longest_s=max(cost.longest_s, before.longest_s) or None,
            checkpoints=results.checkpoints, resumed_at=results.resumed_at,
            advances=None if ages is None else int(ages.sum()), source=self._source,
            started=min(cost.started, before.started), end=time.time(),
            seconds=cost.seconds + before.seconds, idle_gpus=idle_gpus() or None, **host(),
        )  # fmt: skip
        # Checkpoints and curves go after the marker: a kill before it needs them, and after it they harm nothing.
        write_shard(self.store, marker, values, rows)
        self._tidy(task, marker.checkpoints or 0, marker.seconds)
        return marker

    def _status(self, values: Mapping[str, np.ndarray], n: int) -> np.ndarray:
        status = np.full(n, DONE, np.int8)
        if self.kernel.failing and n:
            status[np.isin(values["outcome"], self.kernel.failing)] = FAILED
        if n and "search_dropped" in values:
            status[values["search_dropped"]] = DROPPED
        return status


def _cost(began: float, results: AttemptResults) -> Cost:
    """Return what an attempt that began at this time.monotonic has cost so far, with those before it up to its checkpoint."""
    # The clock tells when, for display; no correction of it may change a duration.
    seconds = time.monotonic() - began
    return Cost(
        results.before_s + seconds, time.time() - seconds, results.longest_s, results.rounds
    )


def round_report(
    run: RoundRun, kernel: Kernel, search: Method, rows: np.ndarray, step: Step
) -> RoundReport:
    """Return the report of a round that is over. rows: those that were computed."""
    names = [search.metric, *["outcome"] * bool(kernel.outcomes)]
    values = run.values(np.arange(run.n), names)
    broken = np.zeros(run.n, bool)
    if kernel.outcomes:
        broken = run.done & np.isin(values["outcome"], kernel.failing)
    failed = tuple(np.setdiff1d(step.round.rows, rows).tolist())
    metric = np.asarray(values[search.metric], np.float64)
    return RoundReport(rows, metric, run.advances, run.done, broken, failed)


def outcome_counts(kernel: Kernel, values: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Return, for the marker, outcome -> number of items that ended with it; without outcomes, those that a search dropped."""
    if "outcome" not in values:
        # A search drops items of any kernel.
        dropped = int((values["status"] == DROPPED).sum())
        return {"dropped": dropped} if dropped else {}
    names = dict(enumerate(outcome.name for outcome in kernel.outcomes))
    outcomes = np.asarray(values["outcome"])
    # An item that failed with an error has none, -1.
    counts = Counter(outcomes[(outcomes >= 0) | (values["status"] == DONE)].tolist())
    # An index beyond them is counted by its number, and warned of.
    return {names.get(code, f"outcome {code}"): counts[code] for code in names | counts}


def nan_counts(values: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Return result -> number of done items whose values are all NaN or infinite, if there are any. values: with `status`.

    The marker keeps the counts, so that readers need not read the results.
    """
    done, counts = values["status"] == DONE, {}
    for name, of_result in values.items():
        # Those that a search adds are NaN where it did not come to.
        if of_result.dtype.kind in "fc" and of_result[0:1].size and not name.startswith("search_"):
            is_finite = np.isfinite(of_result[done]).any(axis=tuple(range(1, of_result.ndim)))
            if not is_finite.all():
                counts[name] = int((~is_finite).sum())
    return counts


def fault_of(error: Exception) -> Fault:
    """Return the kind of an exception; only MemoryError and XLA's RESOURCE_EXHAUSTED mean memory."""
    if isinstance(error, objects.StorageFailed):
        return "storage"
    if isinstance(error, JobError):
        return "input"
    of_jax = isinstance(error, jax.errors.JaxRuntimeError)
    if isinstance(error, MemoryError) or (of_jax and "RESOURCE_EXHAUSTED" in str(error)):
        return "memory"
    return "storage" if objects.is_storage_error(error) else "error"


IDLE_S = 0.05
"""Longest sleep (s) of a `wait` with nothing to run, while retries wait for their time or the storage fails."""


class SerialExecutor:
    """Runs shards one after another in this process.

    memory_gb: memory for the items, in GB; by default what is free now.
    """

    name = "serial"

    def __init__(self, memory_gb: float | None = None) -> None:
        self._memory = usable_memory(memory_gb)
        self._waiting: list[Work] = []
        self._worker: Worker | None = None
        self._running: dict[Key, Heartbeat] = {}
        self._has_advanced = False
        self._ticker = Ticker(None)

    def machines(self) -> Machines:
        """Return one worker; its CPU devices share the given memory, by default what was free when this executor was made."""
        devices = jax.local_device_count() if jax.default_backend() == "cpu" else 1
        return Machines(1, self._memory // devices, devices)

    def start(self, address: str, stop: Stop | None = None, on_tick: OnTick | None = None) -> None:
        self._worker, self._ticker = Worker(address), Ticker(on_tick)
        if stop is not None:
            # Safe in a signal handler, which may run in the middle of an advance: it only sets an event.
            stop.add_callback(self._interrupt)

    def _interrupt(self) -> None:
        # Not the worker's own method: `stop` outlives the worker, and would keep the data of its group in memory.
        if self._worker is not None:
            self._worker.interrupt()

    def capacity(self) -> int:
        """Return 1 if no work waits, else 0: one shard runs at a time."""
        return 1 - len(self._waiting)

    def submit(self, work: Work) -> None:
        self._waiting.append(work)

    def try_elsewhere(self, task: Task) -> bool:
        return False

    def end(self, attempt: Key, cause: str | None = None) -> None:
        """Do nothing: no attempt here hangs, by its heartbeats, or has a second one."""

    def wait(self, timeout: float) -> list[Report]:
        """Run the waiting shard, however long it takes."""
        assert self._worker is not None
        self._ticker.tick(self.heartbeats)
        if not self._waiting:
            time.sleep(min(timeout, IDLE_S))
        reports = []
        # Blocks until the shard ends; the kernel's advances call `_note`, which ticks on the way.
        while self._waiting:
            work = self._waiting.pop(0)
            note = lambda now, attempt=work.key: self._note(attempt, now)
            reports.append(self._worker.do(work, note))
            self._running.pop(work.key, None)
        return reports

    def _note(self, attempt: Key, now: ShardProgress) -> None:
        # Never silent, since nobody could end a shard of this process as hung; nothing else ticks while a first advance compiles.
        self._running[attempt] = Heartbeat(now, 0.0)
        self._has_advanced |= not now.waiting
        self._ticker.tick(self.heartbeats, at_once=not self._has_advanced)

    def heartbeats(self) -> Mapping[Key, Heartbeat]:
        """Return how far the running shard has come."""
        return dict(self._running)

    def close(self) -> None:
        self._worker = None


def usable_memory(memory_gb: float | None) -> int:
    """Return the given memory in bytes; without one, the memory that is free on this host."""
    return int((memory_gb or 0) * 1e9) or os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
