"""Infer all trials with the trained items of a store: make the job that their kernel names, and write its HDF5 file."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ctd.catalogue import kernel_names, load_kernel
from ctd.data import new_hdf5
from ctd.kernel import Inference, Kernel, TrainedModels
from jobs.errors import JobError, validated
from jobs.inputs.items import item_params
from jobs.inputs.measure import load_group, with_files
from jobs.query.query import answer
from jobs.spec.job import JobSpec, find_kernel, parse_job, set_field
from jobs.storage.addresses import absolute, join
from jobs.store.arrays import plain
from jobs.store.store import Store

LABEL = "ctd posterior"
"""Names the job in errors."""


class PosteriorJob(NamedTuple):
    """A job that infers all trials."""

    spec: JobSpec
    inference: Inference
    """That of the last model."""


def posterior_of(store: Store) -> tuple[Kernel, TrainedModels]:
    """Return the kernel that infers all trials with items of a store, and the way to do it. Raises JobError if there is none."""
    kernel = store.science.display.posterior and find_kernel(store.science.display.posterior, None)
    if not kernel or kernel.display.trained is None:
        names = [name for name in kernel_names() if load_kernel(name).display.posterior]
        name, expected = store.job.spec.kernel, ", ".join(names)
        raise JobError(f"{store.address}: is a store of {name}; give a store of {expected}")
    return kernel, kernel.display.trained


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
    ranking = sort or posterior_of(store)[1].ranking(store.job.spec.params)
    names = [name.strip() for name in ranking.split(",")]
    falls = lambda name: (metric := store.roles.metric_by(name)) and metric.more_is_better
    ranked = ["-" + name if falls(name) else name for name in names]
    first = ranked[0].removeprefix("-")
    failing = [outcome.name for outcome in store.description.outcomes if outcome.failed]
    condition = conditions or " and ".join(f"outcome != {name!r}" for name in failing) or None
    order = ",".join(ranked)
    columns = answer(store, condition, table="items", sort=order, columns=["item", first]).columns
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
    """The parameters of a model's posterior for each of its sessions. data: another file of trials."""
    kernel, models = posterior_of(store)
    fields, base = kernel.Params.model_fields, str(store.job.base)
    trained = {name: v for name, v in item_params(store, item).items() if name in fields}
    place, data_address = absolute(store.address), absolute(data) if data else None
    at = lambda file: join(base, file)
    return models.params(trained, place, item, store.job.spec.seed, data_address, at)


def posterior_job(
    store: Store, models: Sequence[Mapping[str, Any]], overrides: Sequence[str], *, for_file: bool = False
) -> PosteriorJob:  # fmt: skip
    """The job that infers all trials with these models: their common parameters, and a sweep for each model.

    Args:
        store: of the models.
        models: from `model_params`.
        overrides: as of `ctd run --set`.
        for_file: keep what an HDF5 file has; else what the kernel keeps by default.

    Raises JobError if the data do not fit the models.
    """
    (kernel, trained), base = posterior_of(store), store.job.base
    settings: dict[str, Any] = {"params": {"keep": list(trained.keep)} if for_file else {}}
    for override in overrides:
        set_field(settings, override)
    params = settings.pop("params")
    if not isinstance(params, dict):
        raise JobError(f"--set params={params!r:.60}: expected fields, such as params.samples=5")
    try:
        models = [trained.completed({**model, **params}) for model in models]
    except ValueError as error:
        raise JobError(str(error)) from None
    common = {k: v for k, v in models[0].items() if all(k in m and m[k] == v for m in models)}
    sweep: list[dict[str, Any]] = []
    for model in models:
        fields = with_files(validated(kernel.Params, model, LABEL), base)
        inference = trained.inference(fields, load_group(kernel, fields, base))
        own_values = {name: [value] for name, value in model.items() if name not in common}
        sweep.append({"grid": {**own_values, "chunk": {"range": inference.n_chunks}}})
    content = {"kernel": kernel.name, "name": "posterior", "params": common, "sweep": sweep}
    return PosteriorJob(parse_job(content | settings, LABEL), inference)


def write_posterior(
    store: Store, to: Path, inference: Inference, attributes: Mapping[str, object], *, typed: bool
) -> None:
    """Write the results of a store of the job as one HDF5 file, a chunk at a time. Raises JobError if that fails.

    typed: whether the user gave the file, see `ctd.replacing`.
    """
    chunk = lambda row: {name: store.rows(0, name, row, row + 1)[0] for name in store.names(0)}
    try:
        with new_hdf5(to, typed=typed) as file:
            inference.write(file, map(chunk, range(store.job.plan.group_sizes[0])), attributes)
    except (ValueError, OSError) as error:
        raise JobError(f"--to: {error}") from None
