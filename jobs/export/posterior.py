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
LABEL = "ctd posterior"
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
        """Return, as texts, the trials or windows that were inferred, and the size of an item."""
        each = [f"{n:,} {word}" for n, word in zip(self.n, ("train", "valid"), strict=True)]
        if self.windows is None:
            return f"trials {', '.join(each)}", f"an item is up to {self.n_chunk:,} trials"
        words = ["trial" if window.of_trials else "recording" for window in self.windows]
        sources = [
            count(len(window.lengths), word)
            for window, word in zip(self.windows, words, strict=True)
        ]
        lines = [f"{n} of {source}" for n, source in zip(each, sources, strict=True)]
        return f"windows {', '.join(lines)}", f"an item is up to {self.n_chunk:,} windows"


def choose_models(
    store: Store,
    conditions: str | None,
    sort: str | None,
    limit: int,
    print_line: Callable[[str], object],
) -> list[int]:
    """The ids of the selected models, the best first; `print_line` gets a line on each. Raises JobError if there is none.

    sort: columns that rank them; by default the criterion of their training.
    """
    from ctd.lfads.summary import RANKED

    ranking = sort or RANKED[store.job.spec.params.get("criterion", "loss")]
    names = [name.strip() for name in ranking.split(",")]
    falls = lambda name: (metric := store.roles.metric_by(name)) and metric.more_is_better
    ranked = ["-" + name if falls(name) else name for name in names]
    first = ranked[0].removeprefix("-")
    finite = conditions or "outcome != 'diverged'"
    _, columns = rows(store, finite, table="items", sort=",".join(ranked), columns=["item", first])
    n, items = len(columns["item"]), [int(item) for item in columns["item"][:limit]]
    if not n:
        raise JobError(f"{store.address}: no model with {conditions or 'a finite loss'}")
    by_metric = names == [first] and first in store.description.dims
    order = f"the best of {n:,}" if by_metric else f"the first of {n:,} by {ranking}"
    for item, value in zip(items, map(plain, columns[first]), strict=False):
        text = f"{value:.4g}" if isinstance(value, float) else value
        print_line(f"model {item}, {first} {text}, {order}")
        order = "the next"
    return items


def model_params(store: Store, item: int, data: str | None) -> list[dict[str, Any]]:
    """The parameters of a model's posterior for each of its sessions. data: see `ctd.lfads.trained.by_session`."""
    from ctd.lfads.trained import by_session, posterior_params

    at, base = absolute(store.address), str(store.job.base)
    fields = find_kernel(KERNEL, None).Params.model_fields
    trained = {name: v for name, v in item_params(store, item).items() if name in fields}
    params = posterior_params(trained, at, item, store.job.spec.seed)
    data_address = absolute(data) if data else None
    return by_session(params, data_address, lambda file: join(base, file))


def posterior_job(
    models: Sequence[Mapping[str, Any]], base: str, keep: Sequence[str], overrides: Sequence[str]
) -> Posterior:
    """The job that infers all trials with these models: their common parameters, and a sweep for each model.

    models: from `model_params`. keep: results to keep, by default the kernel's. overrides: as of `ctd run --set`. Raises
    JobError if the data do not fit the models.
    """
    from ctd.lfads.trained import held_out_of_session

    kernel = find_kernel(KERNEL, None)
    settings: dict[str, Any] = {"params": {"keep": list(keep)} if keep else {}}
    for override in overrides:
        set_field(settings, override)
    params = settings.pop("params")
    if not isinstance(params, dict):
        raise JobError(f"--set params={params!r:.60}: expected fields, such as params.samples=5")
    try:
        models = [held_out_of_session({**model, **params}) for model in models]
    except ValueError as error:
        raise JobError(str(error)) from None
    common = {k: v for k, v in models[0].items() if all(k in m and m[k] == v for m in models)}
    sweep: list[dict[str, Any]] = []
    for model in models:
        fields = with_files(validated(kernel.Params, model, LABEL), base)
        fit = load_group(kernel, fields, base)
        own_values = {name: [value] for name, value in model.items() if name not in common}
        sweep.append({"grid": {**own_values, "chunk": {"range": fit.n_chunks}}})
    content = {"kernel": KERNEL, "name": "posterior", "params": common, "sweep": sweep, **settings}
    n_chunk = int(fit.trial_number[0].size)
    n = [int(k) for k in fit.n]
    return Posterior(parse_job(content, LABEL), n, fit.windows, fit.recorded, n_chunk)


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
