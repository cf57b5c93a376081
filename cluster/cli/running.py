"""The common part of `ctd run` and `ctd resume`: run shards, gather, print the outcome."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import NoReturn

import typer

from cluster.cli.choice import choose_executor, make_executor
from cluster.cli.display import err, live_progress, show_error, told_if_slow, warn
from cluster.cli.options import RunOptions
from cluster.cli.outcome import finish, say_not_repeated, say_warnings, say_what_failed
from cluster.cli.restart import PROGRESS, RestartState, same_command
from cluster.pace import remember_pace
from cluster.ray.reach import NoRay
from jobs.errors import EXIT_STOPPED, JobError, advised
from jobs.run.limits import storage_trouble
from jobs.run.progress import Progress
from jobs.run.stop import Interrupted, Stop, block_signals
from jobs.run.task import Executor, ExecutorLost
from jobs.spec.job import JobSpec
from jobs.spec.trust import allow_edited, own_code, refuse_untrusted, trust
from jobs.storage.lease import held_by, last_seen
from jobs.storage.objects import StorageFailed, is_storage_error, reason
from jobs.store.advice import resume_command
from jobs.store.events import planned_warnings, read_events
from jobs.store.store import Store, refuse_links


@dataclass(frozen=True)
class Request:
    """One store to run, and the settings of its run."""

    store: str
    """Its address."""
    spec: JobSpec
    settings: RunOptions
    parts: tuple[int, int] | None = None
    """(i, n): share the store with other drivers, starting with part i of n; the last driver gathers."""
    more: bool = False
    """The same command runs further stages or files after this store."""

    def make(self) -> Executor:
        """Make the executor of its shards. Raises LeaseHeld, before a Ray starts, if a process of this machine runs the store; other
        machines are noticed by `run_shards`, which may have to wait for a sign of life.
        """
        if Store.exists(self.store):
            lease = last_seen(Store.open(self.store).objects)
            if lease is not None and lease.is_running and self.parts is None:
                raise held_by(self.store, lease)
        name, address, run = str(self.settings.executor), self.settings.address, self.spec.run
        if name == "auto":
            name, reason, run = choose_executor(run, self.store, address)
            if not (self.settings.as_json or address):
                err.print(f"{name}: {reason}")
        if name == "ray" and not self.settings.as_json:
            err.print(f"connecting to the Ray at {address}" if address else "starting Ray")
        return make_executor(name, run, address)

    def again(self) -> str:
        """Return the command, for messages, that goes on with the run."""
        if PROGRESS in os.environ:
            return f"the next allocation or {same_command()}"
        if self.more or not if_it_answers(lambda: Store.exists(self.store), True):
            return same_command()
        return to_resume(self.store)


def run_store(
    open_store: Callable[[Executor], Store],
    request: Request,
    stop: Stop,
    state: RestartState | None = None,
) -> None:
    """Run what is left of a store, gather it, and print the outcome; restart the process if Ray is lost meanwhile.

    Args:
        open_store: makes or opens the store, while the executor starts.
        stop: set by the signals of this command.
        state: passed on by the process before this one; by default it is received here.

    Raises typer.Exit with code 75 if the run was stopped early, 1 if a shard or an item failed; NoRay if there was none to begin on.
    """
    state = state or RestartState.received()
    with told_at_once(stop, request.again):
        try:
            if stop_reason := state.asked_to_stop:
                stop.ask(stop_reason)
            stop.check()
            again = state.store == request.store
            with _executor(request, state, stop, again) as executor:
                store, progress = open_and_compute(open_store, executor, request, stop, again)
            if progress.stopped is not None:
                _leave(request, progress.stopped, progress.share)
            if _is_complete(progress, request):
                with _storage_explained(store):
                    finish(store, request.settings.as_json)
            else:
                err.print(
                    "other drivers run the other parts; the last one to end reduces the results; now "
                    f"{advised('ctd', 'gather', request.store)} reduces what there is"
                )
        except Interrupted as interrupted:
            _leave(request, str(interrupted))
    say_what_failed(store, progress, request.more)
    say_warnings(store)
    if progress.failed or progress.failed_items:
        raise typer.Exit(1)


@contextmanager
def _executor(request: Request, state: RestartState, stop: Stop, again: bool) -> Iterator[Executor]:
    """Wait until a lost Ray may be started again, then make the executor; if it is lost within this block, restart the process."""
    if again and (reason := state.wait(stop)):
        _leave(request, reason)
    executor = request.make()
    try:
        yield executor
    except (ExecutorLost, NoRay) as lost:
        stop.check()
        if isinstance(lost, NoRay) and not again:
            raise
        _go_on(lost, request, state, stop)
    except JobError as fault:
        # A signal may have interrupted a kernel's callback and appear as its fault.
        stop.check()
        # Show the error before closing: a Ray that has begun to start takes seconds to end.
        show_error(str(fault))
        raise typer.Exit(fault.exit_code) from None
    except Exception as fault:
        # A run that was asked to stop ends as stopped, even if its storage failed meanwhile.
        if is_storage_error(fault):
            stop.check()
        raise
    finally:
        executor.close()


def open_and_compute(
    open_store: Callable[[Executor], Store],
    executor: Executor,
    request: Request,
    stop: Stop,
    again: bool = False,
) -> tuple[Store, Progress]:
    """Open a store, run what is left of it and gather; raises ExecutorLost if Ray is lost, Interrupted as `signals` does.

    again: this is a restart; failed shards were reconsidered before it.
    """
    from jobs.gather.gather import gather, take_gather
    from jobs.run.shards import reconsider, run_parts, run_shards, take_settings

    starts = executor.name == "ray" and request.settings.address is None
    planning = "starting Ray, planning" if starts else "planning"
    with told_if_slow(planning, request.settings.as_json):
        store = open_store(executor)
        take_gather(store, request.spec)
    warn(take_settings(store, request.spec.run))
    earlier_warnings = planned_warnings(read_events(store))
    if len(store.committed.numbers()) < store.job.plan.n_shards:
        warn(earlier_warnings)
    if not again:
        reconsider(store, request.settings.failed, request.settings.accept_changes)
        if request.settings.failed:
            say_not_repeated(store)
    with live_progress(quiet=request.settings.as_json) as listener:
        if request.parts is None:
            progress = run_shards(store, executor, listener, stop)
        else:
            progress = run_parts(store, executor, *request.parts, listener, stop)
    warn(text for text in planned_warnings(read_events(store)) if text not in earlier_warnings)
    if progress.stopped is None and _is_complete(progress, request):
        stop.check()  # asked for during the last advance
        with told_if_slow("reducing", request.settings.as_json), _storage_explained(store):
            try:
                gather(store, executor)
            except ExecutorLost:
                gather(store)  # in this process
        if progress.items_done > progress.items_before:
            remember_pace(store.job.spec, store.committed.markers())
    return store, progress


def _is_complete(progress: Progress, request: Request) -> bool:
    """Return whether all shards are done or given up, so that drivers of other parts have nothing left to do."""
    ended = progress.shards_done + len(progress.failed)
    return request.parts is None or ended >= progress.n_shards


def _go_on(
    loss: ExecutorLost | NoRay, request: Request, state: RestartState, stop: Stop
) -> NoReturn:
    """Restart the process, even if it then gives up: threads of the lost Ray could keep this one from ending in order."""
    now, cause = time.monotonic(), str(loss).splitlines()[0]
    digest = if_it_answers(lambda: _progress_digest(request.store), state.progress)
    # In an allocation a lost Ray is not waited for: Slurm starts another allocation sooner.
    wait_s = 0 if PROGRESS in os.environ else request.spec.run.cluster_wait_s
    then = state.after_loss(request.store, cause, digest, now, request.settings.address, wait_s)
    if not then.over(now):
        err.print(then.message(now))
    signal_fd = block_signals()
    stop.check()  # what a handler raises is lost where Python ignores exceptions, as while it collects garbage
    then.begin(signal_fd)


def _progress_digest(address: str) -> str:
    from jobs.run.shards import progress_digest

    return progress_digest(Store.open(address)) if Store.exists(address) else ""


def _leave(request: Request, reason: str, share: float = 0.0) -> NoReturn:
    """Print that the run is stopped and keeps this share of the work, tell the next allocation its progress, and exit with 75."""
    if progress_file := os.environ.get(PROGRESS):
        digest = if_it_answers(lambda: _progress_digest(request.store), None)
        if digest is not None:
            Path(progress_file).write_text(digest)
    position = f" at {share:.0%}" if share >= 0.005 else ""
    err.print(f"stopped ({reason}){position}; {request.again()} continues it")
    raise typer.Exit(EXIT_STOPPED)


@contextmanager
def _storage_explained(store: Store) -> Iterator[None]:
    """Turn a storage error after the run into a JobError that tells what is left to do."""
    try:
        yield
    except Exception as fault:
        if not is_storage_error(fault):
            raise
        trouble = storage_trouble(store.address, reason(fault))
        gather_command = advised("ctd", "gather", store.address)
        raise StorageFailed(
            f"{trouble}; the shards are done, {gather_command} does the rest"
        ) from None


# --- a stop ---------------------------------------------------------------------------------------------

SAY_S = 1.0
"""Longest wait of a signal's handler until its line is printed (s)."""


@contextmanager
def told_at_once(stop: Stop, again: Callable[[], str]) -> Iterator[None]:
    """Print a line as soon as a stop is asked for within this block, before the run has tidied up, and one if a second
    signal ends the block at once. again: returns the command that goes on.
    """
    commands = [again]
    print_stopping = lambda command: err.print(
        f"stopping ({stop.reason}); {command()} continues it"
    )

    def announce() -> None:
        # A thread of its own: what the signal has interrupted may hold the lock of the terminal.
        for command in commands:
            thread = Thread(target=print_stopping, args=[command], daemon=True)
            thread.start()
            thread.join(SAY_S)

    stop.add_callback(announce)
    try:
        yield
    except KeyboardInterrupt:
        err.print(f"stopped at once; {again()} continues it")
        raise
    finally:
        commands.clear()  # `stop` outlives this block


def to_resume(address: str) -> str:
    """Return the command, for messages, that goes on with a store, even if the store cannot be read now."""
    plain = advised("ctd", "resume", address)
    return if_it_answers(lambda: resume_command(Store.open(address)), plain)


def if_it_answers[T](ask: Callable[[], T], default: T) -> T:
    """Return `ask()`, or `default` if the store cannot be read, which must not turn a stop into an error."""
    try:
        return ask()
    except Exception as fault:
        if not isinstance(fault, JobError) and not is_storage_error(fault):
            raise
        return default


# --- code that is not ours ------------------------------------------------------------------------------


def open_to_compute(address: str, trusted: bool, edited: bool = False) -> Store:
    """Open a store to compute for it, and print which code other than ctd's that runs. Raises Untrusted for code that needs
    --trust (`trusted`) or --accept-changes (`edited`), where that was not given.
    """
    store = Store.open(address)
    base, modules = store.job.base, store.job.spec.modules()
    if trusted:
        trust(base)
    if edited:
        allow_edited(base, modules)
    refuse_untrusted(base, modules, address)
    refuse_links(store)
    if user_code := own_code(base, modules):
        err.print(f"{address}: runs the code of {', '.join(map(str, user_code))}")
    return store
