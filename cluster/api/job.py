"""A job as a Python object, with the fields of a job file, to run or submit from a notebook or a script.

job = Job("fixed_points", params={"weights": "decision_gru.h5"}, sweep={"grid": {"candidate": range(10_000)}})
job.plan()                        shows what a run would do
store = job.run("points.zarr")    runs what is left, and returns the opened store
sent = job.submit("lab")          sends it to a cluster; see cluster.tracking
"""

import os
import types
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from cluster.api.fields import module_of, plain
from cluster.cache import prune_compilation_cache, use_compilation_cache
from cluster.cli.display import warn
from cluster.cli.options import RunOptions
from cluster.cli.outcome import keep_pictures, say_warnings, say_what_failed
from cluster.cli.running import Request, open_and_compute
from cluster.submit import Order, default_store, read_profile
from cluster.submit import submit as send
from cluster.tracking import Submitted, refuse_going_on
from ctd.kernel import Kernel
from ctd.replacing import replacing
from ctd.words import suggests
from jobs.errors import JobError, advised
from jobs.pipeline import Stage
from jobs.run.prepare import open_or_create, prepare_here
from jobs.run.stop import Interrupted, Stop, signals
from jobs.run.task import ExecutorLost
from jobs.spec.job import JobSpec, parse_job, read_content
from jobs.storage.addresses import absolute, join

if TYPE_CHECKING:
    import pandas as pd

    from jobs.query.tree import StoreTree


class Stopped(JobError):
    """Raised if a run was stopped before its end; the same call continues it."""


@dataclass(frozen=True)
class Planned:
    """The plan of a run."""

    groups: "pd.DataFrame"
    """One row per group: swept static fields, items, shards, slots, memory."""
    total: dict[str, Any]
    """Numbers of items, groups and shards, memory, and the estimated time."""

    def __repr__(self) -> str:
        lines = [f"{name:16} {value}" for name, value in self.total.items() if value is not None]
        return "\n".join([self.groups.to_string(index=False), *lines])


def kernel_name(kernel: object) -> str:
    """The name of a kernel in a job file, given as its name, its module, or the Kernel. Raises JobError without a module.

    >>> import ctd.esn
    >>> kernel_name(ctd.esn), kernel_name(ctd.esn.kernel)
    ('esn', 'esn')
    """
    if isinstance(kernel, str):
        return kernel
    if isinstance(kernel, types.ModuleType):
        return kernel.__name__.removeprefix("ctd.")
    if not isinstance(kernel, Kernel):
        raise JobError(f"kernel: {kernel!r:.60} given; expected a name, a module or a Kernel")
    return module_of(kernel).removeprefix("ctd.")


class Job:
    """One sweep, with the fields of a job file, as `ctd schema` describes them; arrays and ranges count as lists.

    Args:
        kernel: a kernel's name, as in a job file; its module; or the `Kernel` itself. The kernel, and classes and
            functions in `params` such as a task, are defined in modules.
        base: the folder that relative file names start from.
        name: the job's name; by default the kernel's.
        seed: item i has the key fold_in(key(seed), i); by default 0.
        params: the kernel's fields that all items share.
        sweep: the fields that differ between items: `grid`, `zip`, `random`, `samples`, `seeds`.
        search: the comparison of items on the way: `method`, `metric`, ... (docs/search.md).
        gather: options of the kernel's reduction.
        keep_bits: result -> bits of its mantissa that are stored.
        run: workers, memory, checkpoints: how the job is run.

    Raises:
        JobError: a field is not valid; the text names it.
        ValueError: there is no such field.

    >>> job = Job("esn", params={"n": 50}, sweep={"grid": {"g": [0.5, 1.5]}, "seeds": 2})
    >>> job.plan().total["items"]
    4
    >>> print(job.to_yaml())
    name: esn
    kernel: esn
    params:
      n: 50
    sweep:
      grid:
        g:
        - 0.5
        - 1.5
      seeds: 2
    <BLANKLINE>
    """

    @suggests
    def __init__(
        self, kernel: Any, base: str | Path = ".", *, name: str | None = None, seed: int | None = None,
        params: dict[str, Any] | None = None, sweep: dict[str, Any] | list[dict[str, Any]] | None = None,
        search: dict[str, Any] | None = None, gather: dict[str, Any] | None = None,
        keep_bits: dict[str, int] | None = None, run: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        fields = {
            "name": name, "seed": seed, "params": params, "sweep": sweep, "search": search, "gather": gather,
            "keep_bits": keep_bits, "run": run,
        }  # fmt: skip
        self.base = absolute(os.path.expanduser(base))
        called = kernel_name(kernel)
        self.name = str(name or called.rpartition(".")[2])
        content = {k: plain(v, k) for k, v in fields.items() if v is not None}
        self.content: dict[str, Any] = {"kernel": called, **content}
        """The content of the job file."""
        parse_job(self._unresolved(), f"job {self.name}")

    @classmethod
    def read(cls, path: str | Path) -> "Job":
        """Read the job of a file.

        >>> _ = Path("sweep.yaml").write_text("{kernel: esn, sweep: {seeds: 3}}")
        >>> Job.read("sweep.yaml").name
        'sweep'

        Args:
            path: YAML file of one job.

        Returns:
            The job, whose file names start from the folder of the file.

        Raises:
            JobError: the file is not valid, or holds several jobs.
        """
        content = read_content(path)
        if "stages" in content:
            raise JobError(f"{path}: holds several jobs; {advised('ctd', 'run', path)} runs them")
        content.pop("cluster", None)  # `submit` is told the cluster
        # Refuse unknown fields here: as arguments they could mean something else, such as `base`.
        strange = {name: v for name, v in content.items() if name not in JobSpec.model_fields}
        parse_job({"kernel": "", **strange}, str(path))
        fields = {"name": Path(path).stem, **content}
        return cls(fields.pop("kernel", None), str(Path(path).resolve().parent), **fields)

    def _unresolved(self) -> dict[str, Any]:
        """The content without a search by a preset, whose fields only the kernel knows."""
        search = self.content.get("search")
        is_preset = isinstance(search, dict) and "preset" in search
        return {k: v for k, v in self.content.items() if k != "search" or not is_preset}

    def to_yaml(self) -> str:
        """The text of the job file."""
        return yaml.safe_dump({"name": self.name, **self.content}, sort_keys=False)

    def save(self, path: str | Path) -> None:
        """Write the job file.

        Args:
            path: YAML file to write; an existing one is replaced.
        """
        with replacing(path, typed=True) as new:
            new.write_text(self.to_yaml())

    def digest(self) -> str:
        """The sha256 of the fields that determine the results, equal to that of the same job as a file.

        The kernel's source is no part of it: a store keeps a checksum of each module (`sources` in run/job.json), by which
        `run` refuses to go on with other source.
        """
        return self._stage(self._address(None)).spec({}).digest()

    def plan(self, workers: int = 1) -> Planned:
        """Plan a run; nothing is written.

        Args:
            workers: number of workers.

        Returns:
            `groups`, a frame with a row for each group, and `total`, sums over them.

        Raises:
            JobError: the job is not valid, or `workers` is below 1.
        """
        if workers < 1:
            raise JobError(f"workers: {workers!r} given; expected a whole number of at least 1")
        import pandas as pd

        from jobs.report.planned import plan_rows

        stage = self._stage(self._address(None))
        ready = prepare_here(stage.spec({}), stage.base, stage.where, workers)
        groups, total = plan_rows(ready, stage.address, workers)
        return Planned(pd.DataFrame(groups), total)

    def run(
        self,
        store: str | Path | None = None,
        executor: str = "auto",
        address: str | None = None,
        failed: bool = False,
        accept_changes: bool = False,
    ) -> "StoreTree":
        """Run what is left of the job, gather it, and open the store.

        Args:
            store: address of the store; by default NAME.zarr in `base`. The run continues an existing store.
            executor: "ray", "serial" for this process, or "auto", which chooses and prints the reason.
            address: host:port of an existing Ray cluster; by default "ray" starts one on this machine.
            failed: compute again the items that failed by themselves.
            accept_changes: continue with the kernel's source as it is now, and keep the results so far.

        Returns:
            The opened store, as `jobs.open_store` returns it.

        Raises:
            JobError: the job is not valid, `store` holds another job, or an allocation for it waits or runs.
            Stopped: Ctrl-C (the notebook's stop button), SIGTERM, SIGUSR1, SIGHUP or `ctd cancel` stopped the run; the same call
                continues it.
            KeyboardInterrupt: Ctrl-C came a second time, and cut the workers' time for checkpoints short.
        """
        store_address = self._address(store)
        with signals(stop := Stop()):
            try:
                return self._run(store_address, executor, address, failed, accept_changes, stop)
            except (Interrupted, ExecutorLost) as early:
                reason = f"stopped ({early})" if isinstance(early, Interrupted) else str(early)
            resume = advised("ctd", "resume", store_address)
            raise Stopped(f"{reason}; the same call, or {resume}, continues it")

    def _run(
        self, store_address: str, executor: str, address: str | None, failed: bool, accept_changes: bool, stop: Stop
    ) -> "StoreTree":  # fmt: skip
        from jobs.query.tree import StoreTree

        refuse_going_on(store_address)
        use_compilation_cache()
        warn(prune_compilation_cache())
        stage = self._stage(store_address)
        spec = stage.spec({})
        settings = RunOptions(executor, address, failed=failed, accept_changes=accept_changes)  # type: ignore[arg-type]  # `make` refuses others
        request = Request(store_address, spec, settings)
        create = partial(open_or_create, spec, stage.base, stage.where, store_address)
        with closing(request.make()) as runner:
            store, progress = open_and_compute(create, runner, request, stop)
        # The workers have left checkpoints; tell the caller as of a stop at any other moment.
        if progress.stopped is not None:
            raise Interrupted(progress.stopped)
        warn(filter(None, [keep_pictures(store)]))
        say_what_failed(store, progress)
        say_warnings(store)
        return StoreTree.from_store(store)

    def submit(
        self,
        cluster: str | Mapping[str, object],
        store: str | Path | None = None,
        array: int | None = None,
        failed: bool = False,
        accept_changes: bool = False,
    ) -> Submitted:
        """Send the job to a cluster.

        Args:
            cluster: the name or file of a profile, or a profile's fields (docs/clusters.md).
            store: address of the store; None takes NAME.zarr in the profile's folder of stores, else in `base`. The job continues
                an existing store.
            array: number of one-node allocations that share the store, instead of one allocation.
            failed: compute again the items that failed by themselves.
            accept_changes: continue with the kernel's source as it is now, and keep the results so far.

        Returns:
            The submission, to follow the job with.

        Raises:
            JobError: the job cannot run there, or the cluster refuses it.
        """
        label = f"cluster {cluster}" if isinstance(cluster, str) else f"job {self.name}: cluster"
        fields = cluster if isinstance(cluster, str) else dict(cluster)
        profile = read_profile(fields, label, "Job.run", array)
        store_address = self._address(store or default_store(profile, self.name))
        stage = self._stage(store_address)
        file = Path(stage.base) / f"{stage.name}.yaml"
        order = Order(file, stage.content, [stage], profile, label, array, failed, accept_changes)
        return Submitted(store_address, send(order))

    def _address(self, store: str | Path | None) -> str:
        if store is None:
            return join(self.base, f"{self.name}.zarr")
        return absolute(os.path.expanduser(store))

    def _stage(self, store: str) -> Stage:
        """The job for this store."""
        content = {"name": self.name, **self.content}
        return Stage(self.name, content, f"job {self.name}", self.base, store)
