"""Commands to type next about an item: they write its files, or run a job that its kernel proposes."""

from __future__ import annotations

import json
import shlex
from functools import partial
from typing import Any

import yaml

from ctd.kernel import JobFields, Kind, changed, field_kinds
from ctd.replacing import replacing
from jobs.errors import JobError, nearest
from jobs.inputs.items import WEIGHTS, item_params, place_of
from jobs.spec.trust import modules_of
from jobs.storage import objects
from jobs.storage.addresses import absolute, join, path_beside
from jobs.store.advice import words_sent
from jobs.store.roles import SEED
from jobs.store.store import Store, known_kernel

MAX_ECHO = 200
"""Most characters of a job that a command writes by `echo`; a longer one `ctd export` writes. A command is at most three lines
of 80 characters, but for long paths."""
SEEDS = 10
"""Seeds of the job that repeats the best setting."""


def commands(store: Store, item: int, by: str = "") -> dict[str, str]:
    """Next step for an item -> its command: write its files, or run a job that its kernel proposes.

    by: the metric by which it is the best, which no command then asks for.
    """
    address, stem = shlex.quote(store.address), f"{path_beside(store.address).name}-{item}"
    file = shlex.quote(f"{stem}.h5")
    export = f"ctd export {address} {item} {file}"
    steps = {"its results as a file": f"{export} --results"}
    if any(name.startswith(WEIGHTS) for name in store.names(0)):
        steps = {"its trained model as a file (its other results: --results)": export}
    if store.job.spec.has_parents:
        steps["its generations, each from the state of its parent"] = (
            f"ctd query {address} --table search --where 'item == {item}'"
        )
    for step, content in _proposed(store, item, store.address).items():
        if isinstance(content, str):
            steps |= {} if by and content.endswith(f" --by {by}") else {step: content}
            continue
        # With store and item: another best item in this folder has jobs of its own.
        job = shlex.quote(f"{stem}-{step.removeprefix('its ').replace(' ', '-')}.yaml")
        # JSON is YAML on one line, with quotes that a shell leaves alone.
        text = shlex.quote(json.dumps(content))
        write = f"echo {text} > {job}"
        if len(text) > MAX_ECHO:
            write = f"ctd export {address} {item} {job} --job {shlex.quote(step)}"
        steps[step] = f"{write} && {_computes(store, job)}"
    return steps


def write_job(store: Store, item: int, step: str, path: str) -> None:
    """Write the job file of a next step of an item; its names of files hold in any folder.

    Raises JobError if there is no such step, or the file cannot be written; Untrusted if the kernel, which proposes the step, may not run.
    """
    _ = store.kernel  # raises Untrusted, for which `_proposed` would propose nothing
    proposed = _proposed(store, item, absolute(store.address))
    jobs = {name: content for name, content in proposed.items() if not isinstance(content, str)}
    if step not in jobs:
        raise JobError(f"--job {step}: item {item} has no such next step{nearest(step, jobs)}")
    with objects.writing(path), replacing(path, typed=True) as new:
        # As plain values: a kernel may have named tuples in it.
        new.write_text(yaml.safe_dump(json.loads(json.dumps(jobs[step])), sort_keys=False))


def _computes(store: Store, job: str) -> str:
    """The command that computes another job where the store's own was: on the cluster that its submission named."""
    words = words_sent(store) or []
    if "--cluster" not in words[:-1]:
        return f"ctd run {job}"
    return f"ctd submit {job} --cluster {shlex.quote(words[words.index('--cluster') + 1])}"


def _proposed(store: Store, item: int, address: str) -> dict[str, JobFields | str]:
    """List the next steps that an item's kernel proposes, and its setting with other seeds. address: the store's name in the jobs."""
    spec, kernel, lacks_seeds = store.job.spec, known_kernel(store), computes_once(store)
    if kernel is None or not (kernel.display.next_jobs or lacks_seeds):
        return {}
    fields = item_params(store, item)
    # Validating fields imports the modules that they name, and the arrays may name others than the job, which is trusted.
    if modules_of(spec.kernel, fields) - spec.modules():
        return {}
    for name, kind in field_kinds(kernel.Params).items():
        if kind is Kind.FILE and fields[name]:
            at = partial(join, store.job.base)
            fields[name] = (
                at(fields[name]) if isinstance(fields[name], str) else [*map(at, fields[name])]
            )
    group = place_of(store, item)[0]
    shapes = {name: store.array(group, name).shape[1:] for name in store.names(group)}
    params = kernel.Params.model_validate(fields)
    jobs = dict[str, JobFields | str]()
    if kernel.display.next_jobs:
        jobs |= kernel.display.next_jobs(params, f"{address}::{item}", shapes)
    if spec.has_parents:
        # A job of the same kernel would have the last values from its beginning.
        jobs = {step: job for step, job in jobs.items() if isinstance(job, str) or job["kernel"] != spec.kernel}  # fmt: skip
    if lacks_seeds:
        fixed = {name: value for name, value in changed(params).items() if name != SEED}
        # Draws that no item of the store has drawn.
        seeds: dict[str, Any] = {"seed": (spec.seed + 1) % 2**32, "sweep": {"seeds": SEEDS}}
        if isinstance(seed := fields.get("seed"), int):
            first = max(store.job.plan.n_items, seed + 1)
            seeds = {"sweep": {"grid": {"seed": {"range": [first, first + SEEDS]}}}}
        jobs[f"its setting with {SEEDS} seeds"] = {"kernel": spec.kernel, "params": fixed, **seeds}
    return jobs


def computes_once(store: Store) -> bool:
    """Return whether the kernel has replicates, by a field `seed` or its keys alone, and the job has no seeds.

    >>> computes_once(Store.open("points.zarr"))  # fixed_points
    False
    """
    spec = store.job.spec
    swept = {name for part in spec.sweeps() for name in part.names()}
    # An item whose fields are proposed is a setting of its own, and its seed a number.
    # The parameters of an item that has parents move, so that no setting is its own.
    has_no_seeds = bool(spec.search and spec.search.proposes) or not (
        spec.has_parents or SEED in swept
    )
    described = store.description
    return has_no_seeds and (described.draws or SEED in described.fields)
