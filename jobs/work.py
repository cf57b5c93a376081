"""One shard's work: read the items from the store, run the kernel, write the results, commit."""

import os
import platform
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ctd.batch import Layout, Run, precision, program, traced_columns
from ctd.kernel import (
    Kernel,
    Kind,
    Params,
    field_kinds,
    inputs_of,
    static_of,
    traced_of,
    traced_type,
)
from ctd.tune import fastest_microbatch
from jobs.errors import JobError
from jobs.export import materialise, parse_item
from jobs.plan import Shard, Sizes
from jobs.store import Store, attributes

PACKAGES = ("ctd", "jax", "jaxlib", "numpy", "zarr", "ray", "optax")


class Report(NamedTuple):
    """What the driver learns of one attempt at a shard: a few hundred bytes."""

    shard: int
    attempt: int
    error: str | None = None
    """None: committed. Otherwise the last line of what went wrong."""
    trace: str = ""
    hopeless: bool = False
    """The input is at fault: trying again would end the same way."""
    info: dict[str, Any] = {}  # noqa: RUF012 (never changed)


def with_files(params: Params, base: str) -> Params:
    """The parameters with files made present: relative names start at the folder `base`, and a
    reference to an item of another store becomes a file of its arrays."""
    kinds = field_kinds(type(params))
    found = {}
    for name, kind in kinds.items():
        value = getattr(params, name)
        if kind is not Kind.FILE or value is None:
            continue
        item = parse_item(value, base)
        if item is not None:
            found[name] = materialise(item)
        elif "://" not in value:
            found[name] = str(Path(base) / value)
    return params.model_copy(update=found)


def load_group(kernel: Kernel, params: Params, base: str) -> Any:
    """The group's shared data; JobError, naming the fields, where they cannot be read."""
    params = with_files(params, base)
    for name, kind in field_kinds(type(params)).items():
        value = getattr(params, name)
        if (
            kind is Kind.FILE
            and value is not None
            and "://" not in value
            and not Path(value).exists()
        ):
            raise JobError(f"params: {name}: {value}: no such file")
    try:
        with precision(static_of(params)):
            return kernel.load(inputs_of(params))
    except JobError:
        raise
    except (ValueError, OSError, KeyError) as error:
        raise JobError(f"params: {error}") from None


@dataclass
class Measured:
    """What planning needs to know of one group."""

    sizes: Sizes
    shapes: dict[str, jax.ShapeDtypeStruct]
    coords: dict[str, np.ndarray]


def measure(kernel: Kernel, params: Params, base: str, compiled: dict[Any, int]) -> Measured:
    """Shapes and sizes of one group, by abstract evaluation and by the compiler's own account.

    compiled: bytes of temporaries an item, by program; filled here so that groups which share a
    program compile once. JobError where the data or the kernel's own declarations do not fit.
    """
    shared = load_group(kernel, params, base)
    static = static_of(params)
    columns = {name: np.asarray(value)[None] for name, value in traced_of(params)._asdict().items()}
    traced = traced_columns(type(params), columns, static.dtype)
    layout = Layout(4, 4)
    prog = program(kernel, static, layout)
    first = jax.tree.map(lambda leaf: leaf[0], traced)
    try:
        state, shapes = prog.abstract(shared, first)
    except (ValueError, TypeError) as error:
        raise JobError(f"kernel {kernel.name}: {type(error).__name__}: {error}") from error
    if not set(shapes) <= set(kernel.dims):
        raise JobError(
            f"kernel {kernel.name}: `result` returns {sorted(set(shapes) - set(kernel.dims))}, which "
            f"`dims` does not describe; it has {sorted(kernel.dims)}"
        )
    for name, shape in shapes.items():
        if len(shape.shape) != len(kernel.dims[name].axes):
            raise JobError(
                f"kernel {kernel.name}: result {name!r} has shape {shape.shape}, "
                f"dims gives it the axes {kernel.dims[name].axes}"
            )
    nbytes = lambda tree: sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
    key = (id(prog), str(jax.tree.map(lambda leaf: np.shape(leaf), shared)))
    if key not in compiled:
        run = Run(prog, shared, 0, np.zeros(1, int), traced)
        compiled[key] = run.temporaries() // layout.slots
    sizes = Sizes(
        state=nbytes(state), work=compiled[key], result=nbytes(shapes), shared=_nbytes(shared)
    )
    with precision(static):
        coords = kernel.coords(inputs_of(with_files(params, base)), shared) if kernel.coords else {}
    return Measured(sizes, shapes, coords)


def _nbytes(shared: Any) -> int:
    return sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(shared))


@dataclass
class Worker:
    """One process at work on the shards of one store; it keeps what it has read and compiled."""

    address: str
    _shared: dict[int, tuple[Params, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store = Store.open(self.address)
        self.job = self.store.job
        self.kernel = self.store.kernel

    def group(self, index: int) -> tuple[Params, Any]:
        """(params, shared data) of a group; the last one is kept."""
        if index not in self._shared:
            self._shared.clear()
            content = attributes(self.store.results(index))["params"]
            params = self.kernel.Params.model_validate(content)
            self._shared[index] = params, load_group(self.kernel, params, self.job.base)
        return self._shared[index]

    def do(
        self, shard: Shard, attempt: int, progress: Callable[[int], None] = lambda n: None
    ) -> Report:
        """Compute, write and commit one shard. Never raises: an error is in the report."""
        started = time.time()
        try:
            info = self._do(shard, attempt, started, progress)
        except Exception as error:
            trace = traceback.format_exc()[-8000:]
            hopeless = isinstance(error, JobError)
            return Report(shard.number, attempt, said(error), trace, hopeless, host())
        return Report(shard.number, attempt, info=info)

    def _do(
        self, shard: Shard, attempt: int, started: float, progress: Callable[[int], None]
    ) -> dict[str, Any]:
        params, shared = self.group(shard.group)
        static = static_of(params)
        kind = type(params)
        read = lambda name: self.store.rows(shard.group, name, shard.start, shard.stop)
        ids = read("item")
        stored = str(self.store.results(shard.group).attrs["coordinates"]).split()
        columns = {}
        for name in traced_type(kind)._fields:
            fixed = np.asarray(getattr(params, name))
            columns[name] = (
                read(name) if name in stored else np.repeat(fixed[None], len(ids), axis=0)
            )
        traced = traced_columns(kind, columns, static.dtype)
        layout = self._layout(shard.group, static, shared, ids, traced)
        run = Run(program(self.kernel, static, layout), shared, self.job.spec.seed, ids, traced)
        while not run.finished:
            run.advance()
            progress(run.n_finished)
        values = dict(run.results)
        values["status"] = self._status(values)
        info = {
            "attempt": attempt,
            "started": started,
            "seconds": time.time() - started,
            "rounds": run.rounds,
            "layout": layout._asdict(),
            "outcomes": self._counts(values),
            "n_failed": int((values["status"] == 2).sum()),
            **host(),
        }
        self.store.write_shard(shard, values, info)
        return info

    def _layout(self, group: int, static: Any, shared: Any, ids: np.ndarray, traced: Any) -> Layout:
        """The planned layout; the microbatch, where it is open, is measured once a kind of device."""
        planned = self.job.plan.layouts[group]
        devices = jax.local_device_count()
        m = planned.microbatch
        if m == 0:
            name = f"layout/{group}-{jax.local_devices()[0].device_kind}".replace(" ", "_")
            chosen = self.store.recall(name)
            if chosen is None:
                best, seconds = fastest_microbatch(
                    self.kernel, static, shared, self.job.spec.seed, ids, traced,
                    planned.slots, devices,
                )  # fmt: skip
                measured = {str(k): v for k, v in seconds.items()}
                chosen = self.store.agree(name, {"microbatch": best, "seconds_per_item": measured})
            m = int(chosen["microbatch"])
        return Layout(-(-planned.slots // m) * m, m, devices)

    def _status(self, values: dict[str, np.ndarray]) -> np.ndarray:
        failing = [k for k, outcome in enumerate(self.kernel.outcomes) if outcome.failed]
        n = len(next(iter(values.values())))
        if not failing:
            return np.ones(n, np.int8)
        return np.where(np.isin(values["outcome"], failing), 2, 1).astype(np.int8)

    def _counts(self, values: dict[str, np.ndarray]) -> dict[str, int]:
        if not self.kernel.outcomes:
            return {}
        return {
            outcome.name: int((values["outcome"] == k).sum())
            for k, outcome in enumerate(self.kernel.outcomes)
        }


def said(error: BaseException) -> str:
    """What an exception says, in at most 2,000 characters; it may be one that cannot be printed."""
    try:
        text = str(error)
    except Exception:
        text = "(no readable text)"
    return (text if isinstance(error, JobError) else f"{type(error).__name__}: {text}")[:2000]


def host() -> dict[str, Any]:
    """Where this process runs."""
    device = jax.local_devices()[0]
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "platform": device.platform,
        "device_kind": device.device_kind,
    }


def provenance() -> dict[str, Any]:
    """Versions, git commit and host of the process that makes a store."""
    source = Path(__file__).parent.parent
    commit = None
    if (source / ".git").exists():  # not an installed copy inside somebody else's repository
        commit = subprocess.run(
            ["git", "-C", str(source), "rev-parse", "HEAD"],
            capture_output=True, text=True, check=False,
        ).stdout.strip()  # fmt: skip
    return {
        "versions": {name: version(name) for name in PACKAGES}
        | {"python": platform.python_version()},
        "git_commit": commit,
        "host": socket.gethostname(),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": sys.argv,
    }
