"""What a run knows of its shards: which are committed, wait, have failed or are given up."""

from collections.abc import Callable, Mapping, Sequence

from jobs import keys
from jobs.plan.layout import Shard
from jobs.run.coordinator import Barrier
from jobs.run.limits import Patience, Pause, TimeLimits, storage_trouble
from jobs.run.partition import Part, open_shards
from jobs.run.progress import progress_of
from jobs.run.queue import Queue
from jobs.run.retry import Failures, Hopeless
from jobs.run.task import Report, Task
from jobs.storage import objects
from jobs.store.events import Event, Events
from jobs.store.folding import fold, uncommit
from jobs.store.marker import Marker
from jobs.store.provenance import said
from jobs.store.store import Store

FOLD = 64
"""Records between two times that they are put into segments; until then a reader reads each by itself."""


class Ledger:
    """What a run knows of its shards. The driver, its decisions and its populations share one.

    markers: of the shards that are committed before the run.
    """

    def __init__(self, store: Store, failures: Failures, markers: Sequence[Marker]) -> None:
        self.store, self.failures = store, failures
        self.shards = list(store.job.plan.shards())
        self.queue, self.barrier = Queue(), Barrier(store, failures)
        self.unmet: set[int] = set()
        """Shards whose population must be looked at again."""
        self.undecided: list[tuple[Task, Report]] = []
        """Reports whose decision a storage failure postponed."""
        self.done = {marker.shard.number: marker.meeting for marker in markers}
        """Committed shard -> the folder of the meetings it took part in."""
        self.progress = progress_of(store, markers, failures.failed)
        self._unfolded = 0
        """Shards committed since markers were last put into segments."""
        self.events, self.storage = Events(store), Pause()
        run = store.job.spec.run
        self.limits, self.patience = TimeLimits(run.time_limit_s), Patience(run.straggler_factor)
        self.hopeless = Hopeless()
        for marker in markers:
            self.limits.note(marker.shard.group, marker.longest_s)
            self.patience.note(marker.shard.group, marker.seconds)
            self.hopeless.done(marker.shard.group, marker.shard.n_items - len(marker.without))

    @property
    def is_open(self) -> bool:
        """Whether there is anything to hand out or to decide."""
        return bool(self.queue or self.unmet or self.undecided)

    def commit(self, report: Report) -> None:
        """Book a shard that was committed."""
        shard, info = self.shards[report.shard], report.info
        self.done[shard.number] = info.get("meeting")
        self.progress.add(shard, info["outcomes"])
        n_blamed = len(self.failures.failing_rows(shard.number))
        self.hopeless.done(shard.group, shard.n_items - n_blamed)
        self.limits.note(shard.group, info.get("longest_s"))
        self.patience.note(shard.group, info["seconds"])
        done = Event(
            kind="done", shard=shard.number, attempt=report.attempt, host=info["host"],
            pid=info["pid"], seconds=info["seconds"], n_failed=info["n_failed"],
        )  # fmt: skip
        self.events.note(done)
        self._unfolded += 1
        self.fold_many()

    def uncommit(self, taken: Mapping[Shard, Mapping[str, int]]) -> None:
        """Take back committed shards, which are to be computed again. taken: shard -> its outcomes."""
        uncommit(self.store.committed, taken)
        for shard, outcomes in taken.items():
            del self.done[shard.number]
            self.progress.add(shard, outcomes, -1)

    def fold_many(self) -> None:
        """Put the last records into segments if there are many."""
        self.fold(FOLD)

    def fold(self, least: int = 1) -> None:
        """Put the last markers, and the last records of failing items, into segments if there are at least so many."""
        with objects.may_fail():  # they are folded with the next ones
            if self._unfolded >= least:
                fold(self.store.committed)
                self._unfolded = 0
            if self.failures.unfolded >= least:
                fold(self.store.failed)
                self.failures.unfolded = 0

    def abandon(self, which: Callable[[Shard], bool], text: str) -> int:
        """Give up those of the shards that `which` selects that are not running; return how many there were."""
        undecided = [task for task, _ in self.undecided if which(task.shard)]
        self.undecided = [pair for pair in self.undecided if not which(pair[0].shard)]
        dropped = [*self.queue.drop(which), *self.barrier.drop(which), *undecided]
        self.progress.failed |= {task.shard.number: text for task in dropped}
        return len(dropped)

    def wait_for_storage(self, error: Exception) -> None:
        """Pause if the storage has failed; raise any other error."""
        if not objects.is_storage_error(error):
            raise error
        self.storage.begin(storage_trouble(self.store.address, said(error)))


def open_ledger(store: Store, part: Part | None = None) -> Ledger:
    """Read from the store what a run must know, and queue the shards of a part (None: all) to compute."""
    ledger = Ledger(store, Failures(store), store.committed.markers())
    kept = {int(key.split("/")[-2]) for key in objects.list_keys(store.objects, keys.CHECKPOINTS)}
    kept |= ledger.barrier.left()
    mine = open_shards(store, ledger.done.keys(), part)
    ledger.unmet |= {first for k in mine for first in ledger.barrier.population(k)[:1]}
    for shard in ledger.shards:
        if shard.number in mine:
            ledger.queue.push(ledger.failures.task(shard, 1, shard.number in kept))
    return ledger
