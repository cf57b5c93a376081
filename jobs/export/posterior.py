"""Infer all trials with the trained models of an lfads store: make the job of `lfads.posterior`, and write its HDF5 file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jobs.errors import JobError, count, validated
from jobs.inputs.items import item_params
from jobs.inputs.measure import load_group, with_files
from jobs.query.query import rows
from jobs.spec.job import JobSpec, find_kernel, parse_job, set_field
from jobs.storage.addresses import absolute, join
from jobs.store.arrays import plain
from jobs.store.store import Store

if TYPE_CHECKING:
    import numpy as np

    from ctd.lfads.chop import Windows

KERNEL = "lfads.posterior"
WHERE = "ctd posterior"
"""Names the job in errors."""
ALL = ("rates", "factors", "inferred_inputs", "states", "initial_conditions", "decoded_behavior")
"""Results that an HDF5 file has unless the user says otherwise."""


class Posterior(NamedTuple):
    """A job that infers all trials, and what an HDF5 file needs beside its results."""

    spec: JobSpec
    n: list[int]
    """Trials for training and for evaluation, of the last model."""
    windows: Sequence[Windows] | None
    """Their places in chopped recordings; None for data that were not chopped."""
    recorded: np.ndarray
    """The split of each trial of the file, see `ctd.lfads.posterior.Fit`."""
    n_chunk: int
    """Trials of a chunk, which is an item."""

    def facts(self) -> tuple[str, str]:
        """What was inferred, and what an item is, as texts."""
        each = [f"{n:,} {word}" for n, word in zip(self.n, ("train", "valid"), strict=True)]
        if self.windows is None:
            return f"trials {', '.join(each)}", f"an item is up to {self.n_chunk:,} trials"
        words = ["trial" if one.of_trials else "recording" for one in self.windows]
        of = [count(len(one.lengths), word) for one, word in zip(self.windows, words, strict=True)]
        told = [f"{n} of {one}" for n, one in zip(each, of, strict=True)]
        return f"windows {', '.join(told)}", f"an item is up to {self.n_chunk:,} windows"


def choose_models(
    store: Store, where: str | None, sort: str | None, limit: int, tell: Callable[[str], object]
) -> list[int]:
    """The ids of the selected models, the best first, which `tell` is told of. Raises JobError if there is none.

    sort: columns that rank them; by default the criterion of their training.
    """
    from ctd.lfads.summary import RANKED

    asked = sort or RANKED[store.job.spec.params.get("criterion", "loss")]
    names = [name.strip() for name in asked.split(",")]
    falls = lambda name: (metric := store.roles.metric_by(name)) and metric.more_is_better
    ranked = ["-" + name if falls(name) else name for name in names]
    first = ranked[0].removeprefix("-")
    finite = where or "outcome != 'diverged'"
    _, found = rows(store, finite, table="items", sort=",".join(ranked), columns=["item", first])
    n, items = len(found["item"]), [int(item) for item in found["item"][:limit]]
    if not n:
        raise JobError(f"{store.address}: no model with {where or 'a finite loss'}")
    by_metric = names == [first] and first in store.description.dims
    order = f"the best of {n:,}" if by_metric else f"the first of {n:,} by {asked}"
    for item, value in zip(items, map(plain, found[first]), strict=False):
        shown = f"{value:.4g}" if isinstance(value, float) else value
        tell(f"model {item}, {first} {shown}, {order}")
        order = "the next"
    return items


def model_params(store: Store, item: int, data: str | None) -> list[dict[str, Any]]:
    """The parameters of a model's posterior for each of its sessions. data: see `ctd.lfads.trained.by_session`."""
    from ctd.lfads.trained import by_session, posterior_params

    at, base = absolute(store.address), str(store.job.base)
    known = find_kernel(KERNEL, None).Params.model_fields
    trained = {name: v for name, v in item_params(store, item).items() if name in known}
    params = posterior_params(trained, at, item, store.job.spec.seed)
    here = absolute(data) if data else None
    return by_session(params, here, lambda file: join(base, file))


def posterior_job(
    models: Sequence[Mapping[str, Any]], base: str, keep: Sequence[str], overrides: Sequence[str]
) -> Posterior:
    """The job that infers all trials with these models: their common parameters, and a sweep for each model.

    models: from `model_params`. keep: results to keep, by default the kernel's. overrides: as of `ctd run --set`. Raises
    JobError if the data do not fit the models.
    """
    kernel = find_kernel(KERNEL, None)
    given: dict[str, Any] = {"params": {"keep": list(keep)} if keep else {}}
    for override in overrides:
        set_field(given, override)
    params = given.pop("params")
    if not isinstance(params, dict):
        raise JobError(f"--set params={params!r:.60}: expected fields, such as params.samples=5")
    models = [{**model, **params} for model in models]
    common = {k: v for k, v in models[0].items() if all(k in m and m[k] == v for m in models)}
    sweep: list[dict[str, Any]] = []
    for model in models:
        fields = with_files(validated(kernel.Params, model, WHERE), base)
        fit = load_group(kernel, fields, base)
        own = {name: [value] for name, value in model.items() if name not in common}
        sweep.append({"grid": {**own, "chunk": {"range": fit.n_chunks}}})
    content = {"kernel": KERNEL, "name": "posterior", "params": common, "sweep": sweep, **given}
    n_chunk = int(fit.trial_number[0].size)
    n = [int(k) for k in fit.n]
    return Posterior(parse_job(content, WHERE), n, fit.windows, fit.recorded, n_chunk)


def write_posterior(
    store: Store, to: Path, job: Posterior, attributes: Mapping[str, object], *, typed: bool
) -> None:
    """Write the results of a store of the job as one HDF5 file, a chunk at a time. Raises JobError if that fails.

    typed: whether the user gave the file, see `ctd.replacing`.
    """
    from ctd.data import new_hdf5
    from ctd.lfads.torch_file import write

    chunk = lambda row: {name: store.rows(0, name, row, row + 1)[0] for name in store.names(0)}
    chunks = map(chunk, range(store.job.plan.group_sizes[0]))
    try:
        with new_hdf5(to, typed=typed) as file:
            write(file, chunks, job.n, attributes, job.recorded, job.windows)
    except (ValueError, OSError) as error:
        raise JobError(f"--to: {error}") from None
