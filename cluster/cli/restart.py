"""Go on after the Ray of a run is lost: the command restarts, a few times.

What Ray leaves in a process that has lost it would end that process after a minute. So the process becomes a fresh one
(`exec`): its id, its terminal and its command line stay, the store holds what was computed, and `RestartState` the rest.

    a Ray of our own     is started again after WAITS_S seconds, each time longer
    an existing cluster  is waited for, `run.cluster_wait_s` seconds at most

Once shards are committed or checkpoints are left, the count of losses begins again.
"""

import json
import os
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import NoReturn

from cluster.ray.reach import accepts
from jobs.pipeline.pipeline import Stage
from jobs.run.stop import held_back
from jobs.spec.job import RunSettings

WAITS_S = (5.0, 20.0, 60.0)
"""Seconds before each start of a Ray of our own."""

HANDED = "CTD_RESTART"
"""Variable that names the open file with what is handed to the fresh process."""

PROGRESS = "CTD_PROGRESS"
"""Variable that names the file to which a stopped run writes how far its store came; an allocation compares it."""

ENVIRONMENT = dict(os.environ)
"""What this process was started with; later a Ray adds its own."""
ENVIRONMENT.pop(HANDED, None)


@dataclass(frozen=True)
class Cluster:
    """The Ray that a command computes on."""

    address: str | None
    """host:port; None: it is started by the command."""
    wait_s: float
    """How long it is waited for."""

    @classmethod
    def of(cls, address: str | None, settings: RunSettings) -> "Cluster":
        """Return the Ray of a job; that of an allocation is not waited for: Slurm begins another allocation sooner."""
        in_allocation = PROGRESS in os.environ
        return cls(address, 0 if in_allocation else settings.cluster_wait_s)

    def __str__(self) -> str:
        return f"the Ray at {self.address}" if self.address else "Ray"


@dataclass(frozen=True)
class RestartState:
    """State that is passed to the restarted process; by default that of a first start. Times are those of time.monotonic, which every
    process of this machine shares."""

    store: str = ""
    """Address of the store that was being run."""
    why: str = ""
    """How its Ray was lost."""
    progress: str = ""
    """How far the store was, `jobs.run.shards.progress_digest`."""
    tries: int = 0
    """How many starts in a row came no further, this one included."""
    lost_at: float = 0.0
    """When the Ray before the first of them was lost."""
    begin_at: float = 0.0
    """When to start the Ray."""
    stages: tuple[Stage, ...] = ()
    """What the job files said; empty of `ctd resume`."""
    finished: int = 0
    """How many of the stages were finished."""
    asked_to_stop: str | None = None
    """The signal that came while the process restarted."""

    @classmethod
    def received(cls) -> "RestartState":
        """Return the state that the process before this one has passed on."""
        handed = os.environ.pop(HANDED, None)
        if handed is None:
            return cls()
        with open(int(handed)) as file:
            come, content = json.load(file)
        content["stages"] = tuple(Stage(**stage) for stage in content["stages"])
        return cls(**content, asked_to_stop=held_back(come))

    def after_loss(self, store: str, why: str, progress: str, now: float) -> "RestartState":
        """Return what the next start is to know, once the Ray of the run of `store` is lost."""
        first = progress != self.progress or store != self.store
        tries = 1 if first else self.tries + 1
        wait_s = WAITS_S[min(tries, len(WAITS_S)) - 1]
        return replace(
            self, store=store, why=why, progress=progress, tries=tries,
            lost_at=now if first else self.lost_at, begin_at=now + wait_s,
        )  # fmt: skip

    def over(self, cluster: Cluster, now: float) -> str | None:
        """Return why to give up; None: another start is worth it."""
        gone = f"{cluster} is gone ({self.why})"
        if cluster.address is None and self.tries > len(WAITS_S):
            return f"{gone}; it was started again {len(WAITS_S)} times"
        if cluster.address is not None and now - self.lost_at >= cluster.wait_s:
            return f"{gone}; it was waited for {cluster.wait_s:g} s (run.cluster_wait_s)"
        return None

    def said(self, cluster: Cluster, now: float) -> str:
        """Return what happened and what is done about it, in one line."""
        gone = f"{cluster} is gone ({self.why})"
        if cluster.address is None:
            in_s = self.begin_at - now
            return f"{gone}; starting it again in {in_s:.3g} s ({self.tries} of {len(WAITS_S)})"
        left_s = cluster.wait_s - (now - self.lost_at)
        return f"{gone}; waiting for it, {left_s:.3g} s at most (run.cluster_wait_s)"

    def wait(self, cluster: Cluster) -> str | None:
        """Wait until the Ray may be started, or answers; return why to give up, None: go on."""
        while True:
            now = time.monotonic()
            if why := self.over(cluster, now):
                return why
            if now >= self.begin_at and (cluster.address is None or accepts(cluster.address)):
                return None
            time.sleep(0.2)

    def begin(self, come: int) -> NoReturn:
        """Become a fresh process with the same command line, which knows this. come: what `hold_back` returned."""
        sys.stdout.flush()
        sys.stderr.flush()
        with tempfile.TemporaryFile("w+") as file:
            content = asdict(self)
            del content["asked_to_stop"]
            json.dump((come, content), file, default=str)
            file.flush()
            file.seek(0)
            # Ray must see this process go: its connections would stay.
            for handle in map(int, os.listdir("/proc/self/fd")):
                with suppress(OSError):
                    os.set_inheritable(handle, handle <= 2 or handle in (file.fileno(), come))
            os.execve(  # noqa: S606  this very command
                sys.executable,
                [sys.executable, *sys.orig_argv[1:]],
                {**ENVIRONMENT, HANDED: str(file.fileno())},
            )
