"""Make the executor of a run, and choose it for `--executor auto`: a Ray of its own only if that saves more time than it costs."""

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from cluster.pace import pace_of, remembered_pace
from ctd.late import jax
from jobs.errors import JobError, count, duration
from jobs.run.task import Executor
from jobs.run.worker import SerialExecutor
from jobs.spec.job import JobSpec
from jobs.spec.run import RunSettings
from jobs.store.events import read_events, unended
from jobs.store.store import Store

RAY_S = 10.0
"""Time that a Ray on this machine takes to start and stop, including its workers' imports (s); rounded."""


class Choice(NamedTuple):
    """An executor, and the reason for it."""

    name: str
    why: str


def choose_executor(
    spec: JobSpec, store: str, address: str | None, failed: bool = False, fork: str | None = None
) -> Choice:
    """The executor of `--executor auto` for a job whose store, at `store`, may not exist yet.

    address: of a running Ray, if one was given. failed, fork: as in `Request`.
    """
    if asked := _asks_for_more(spec.run, address):
        return Choice("ray", asked)
    opened = Store.open(store) if Store.exists(store) else None
    n, pace = _left(spec, opened, failed, fork)
    if n == 0:
        return Choice("serial", "all items are computed")
    what = count(n, "item")
    if pace is not None:
        what += f", about {duration(float(f'{max(0.1, pace * n):.2g}'))} of one worker"
    is_short = n == 1 or (pace is not None and pace * n < RAY_S)
    if not is_short and len(os.sched_getaffinity(0)) > 1:
        unknown = "; how long one takes is not known yet" if pace is None else ""
        return Choice("ray", f"{what}{unknown}")
    if opened is not None and _had_failures(opened):
        return Choice("ray", "something failed before, and Ray replaces a worker that dies")
    return Choice(
        "serial", f"{what}, {'less than the start of Ray takes' if is_short else 'one CPU core'}"
    )


def workers_here(spec: JobSpec, executor: str) -> int:
    """How many shards an executor would compute at a time on this machine, as far as is known without a Ray."""
    run = spec.run
    if run.workers or executor == "serial":
        return run.workers or 1
    gpus = len(_gpus())
    return max(1, run.places(len(os.sched_getaffinity(0)), gpus, on_gpus=bool(gpus)))


def _gpus() -> list[Path]:
    """The devices of NVIDIA's GPUs on this machine."""
    return [*Path("/dev").glob("nvidia[0-9]*")]


def _asks_for_more(run: RunSettings, address: str | None) -> str:
    """The reason why only Ray can run the job; "" if there is none."""
    if address:
        return "--address was given"
    if (run.workers or 1) > 1 or run.cpus_per_worker > 1 or run.gpus_per_worker:
        return "the job sets its workers' number, cores or GPUs"
    return "this machine has GPUs" if _gpus() else ""


def _left(
    spec: JobSpec, store: Store | None, failed: bool, fork: str | None
) -> tuple[int, float | None]:
    """The work left: (items to compute, worker seconds per item or None if unknown)."""
    known = store or (Store.open(fork) if fork else None)
    # A store of another job tells nothing of this one; `run` will refuse it, as a `fork` that does not fit.
    other = store is not None and store.job.spec.digest() != spec.digest()
    markers = known.committed.markers() if known and not other else ()
    done = sum(m.n_items for m in markers if not (failed and m.n_failed))
    n = sum(part.count() for part in spec.sweeps())
    return max(0, n - done), pace_of(markers) or remembered_pace(spec)


def _had_failures(store: Store) -> bool:
    """Whether attempts at shards failed or a driver was killed: the kernel may be one that ends its process."""
    events = read_events(store)
    return any(event.kind == "error" for event in events) or bool(unended(events))


# --- making it -----------------------------------------------------------------------------------------


def make_executor(name: str, spec: JobSpec, address: str | None) -> Executor:
    """Make the executor "serial" or "ray". Raises JobError for another name, which Python users may give, or for `serial` with
    an address."""
    if name not in ("serial", "ray"):
        raise JobError(f"executor: {name!r} given; expected 'auto', 'ray' or 'serial'")
    if name == "serial":
        if address:
            raise JobError(f"--address {address}: needs --executor ray; give that, or leave it out")
        take_cores()
        return SerialExecutor(spec.run.memory_gb)
    from cluster.ray.executor import RayExecutor

    return RayExecutor(spec.run, address)


def take_cores() -> None:
    """Let JAX make one CPU device of each core, so that a shard runs on all cores of this process.

    Changes nothing if the user has set the number of devices, or if JAX has made its devices already, as in a notebook
    in which arrays were computed before.
    """
    asked = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if asked or "JAX_NUM_CPU_DEVICES" in os.environ:
        return
    cores = len(os.sched_getaffinity(0))
    if "jax" not in sys.modules:
        os.environ["JAX_NUM_CPU_DEVICES"] = str(cores)
        return
    # JAX makes its devices when somebody first asks for them; later it refuses.
    with suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", cores)
