"""Make the executor of a run, and choose it for `--executor auto`: this process, unless the job or the machine asks for Ray."""

import os
import sys
from contextlib import suppress
from typing import NamedTuple

from cluster.cache import gpus_here
from ctd.late import jax
from jobs.errors import JobError
from jobs.run.task import Executor
from jobs.run.worker import SerialExecutor
from jobs.spec.run import RunSettings
from jobs.store.look import Look
from jobs.store.store import Store


class Choice(NamedTuple):
    """An executor, and the reason for which it was chosen."""

    name: str
    """ray or serial."""
    reason: str
    run: RunSettings
    """The settings that it takes."""


def choose_executor(run: RunSettings, store: str, address: str | None) -> Choice:
    """The executor of `--executor auto` for a job whose store, at `store`, may not exist yet."""
    ray = sys.modules.get("ray")
    reasons = {
        "--address was given": address,
        "this process is connected to a Ray": ray and ray.is_initialized(),
        "the job sets the number, the cores or the GPUs of its workers": (
            (run.workers or 1) > 1 or run.cpus_per_worker > 1 or run.gpus_per_worker
        ),
        "this machine has GPUs": gpus_here(),
    }
    if reason := next((text for text, holds in reasons.items() if holds), ""):
        return Choice("ray", reason, run)
    if Store.exists(store) and _may_die(Store.open(store)):
        reason = "a process of this job died before, and Ray replaces a worker that dies; --executor serial starts sooner"
        # One worker of all cores, as before: `asha` and `optuna` decide by the order in which workers report.
        cores = float(len(os.sched_getaffinity(0)))
        return Choice(
            "ray", reason, run.model_copy(update={"workers": 1, "cpus_per_worker": cores})
        )
    # Here, so that `plan` lays shards out for the devices that `run` will have.
    take_cores()
    return Choice("serial", "in this process, as there is no GPU and the job sets no workers", run)


def workers_here(run: RunSettings, executor: str) -> int:
    """How many shards an executor would compute at a time on this machine, as far as is known without a Ray."""
    if run.workers or executor == "serial":
        return run.workers or 1
    gpus = len(gpus_here())
    return max(1, run.places(len(os.sched_getaffinity(0)), gpus, on_gpus=bool(gpus)))


def _may_die(store: Store) -> bool:
    """Return whether the kernel may be one that ends its process: a worker died or a driver was killed, and items are left."""
    look = Look(store)
    # Items that fail even alone are left: `--failed` computes them again.
    if look.tally.is_complete and not any(marker.without for marker in look.markers):
        return False
    deaths = (failure.fault == "death" for failure in look.failures)
    return bool(look.unended) or any(deaths)


# --- making it -----------------------------------------------------------------------------------------


def make_executor(name: str, run: RunSettings, address: str | None) -> Executor:
    """Make the executor "serial" or "ray". Raises JobError for another name, which Python users may give, or for `serial` with
    an address."""
    if name not in ("serial", "ray"):
        raise JobError(f"executor: {name!r} given; expected 'auto', 'ray' or 'serial'")
    if name == "serial":
        if address:
            raise JobError(f"--address {address}: needs --executor ray; give that, or leave it out")
        take_cores()
        return SerialExecutor(run.memory_gb)
    from cluster.ray.executor import RayExecutor

    return RayExecutor(run, address)


def take_cores() -> None:
    """Let JAX make one CPU device of each core, so that a shard runs on all cores of this process.

    Changes nothing if the user has set the number of devices, or if JAX has made its devices already, as in a notebook
    in which arrays were computed before.
    """
    is_set = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if is_set or "JAX_NUM_CPU_DEVICES" in os.environ:
        return
    cores = len(os.sched_getaffinity(0))
    if "jax" not in sys.modules:
        os.environ["JAX_NUM_CPU_DEVICES"] = str(cores)
        return
    # JAX makes its devices when somebody first asks for them; later it refuses.
    with suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", cores)
