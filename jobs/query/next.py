"""What to type next about an item: commands that write its files, or run a job that its kernel proposes."""

from __future__ import annotations

import json
import shlex
from typing import Any

from ctd.kernel import JobFields, Kind, changed, field_kinds
from jobs.inputs.items import WEIGHTS, item_params, place_of
from jobs.query.tables import SEED
from jobs.spec.search import Optuna, Population
from jobs.spec.trust import modules_of
from jobs.storage.addresses import beside, join
from jobs.store.store import Store, known_kernel, words_sent

SEEDS = 10
"""Seeds of the job that repeats the best setting."""


def commands(store: Store, item: int, by: str = "") -> dict[str, str]:
    """Next step for an item -> its command: write its files, or run a job that its kernel proposes.

    by: the metric by which it is the best, which no command then asks for.
    """
    where, own = shlex.quote(store.address), f"{beside(store.address).name}-{item}"
    file = shlex.quote(f"{own}.h5")
    export = f"ctd export {where} {item} {file}"
    found = {"its results as a file": f"{export} --results"}
    if any(name.startswith(WEIGHTS) for name in store.names(0)):
        found = {"its trained model as a file (its other results: --results)": export}
    if isinstance(store.job.spec.search, Population):
        found["its generations, each from the state of its parent"] = (
            f"ctd query {where} --table search --where 'item == {item}'"
        )
    for what, content in _proposed(store, item).items():
        if isinstance(content, str):
            found |= {} if by and content.endswith(f" --by {by}") else {what: content}
            continue
        # With store and item: another best item in this folder has jobs of its own.
        job = shlex.quote(f"{own}-{what.removeprefix('its ').replace(' ', '-')}.yaml")
        # JSON is YAML on one line, with quotes that a shell leaves alone.
        text = json.dumps(content)
        found[what] = f"echo {shlex.quote(text)} > {job} && {_computes(store, job)}"
    return found


def _computes(store: Store, job: str) -> str:
    """The command that computes another job where the store's own was: on the cluster that its submission named."""
    words = words_sent(store) or []
    if "--cluster" not in words[:-1]:
        return f"ctd run {job}"
    return f"ctd submit {job} --cluster {shlex.quote(words[words.index('--cluster') + 1])}"


def _proposed(store: Store, item: int) -> dict[str, JobFields | str]:
    """What an item's kernel proposes to do with it, and its setting with other seeds."""
    spec, kernel, once = store.job.spec, known_kernel(store), computes_once(store)
    if kernel is None or not (kernel.next_jobs or once):
        return {}
    given = item_params(store, item)
    # Validating fields imports the modules that they name, and the arrays may name others than the job, which is trusted.
    if modules_of(spec.kernel, given) - spec.modules():
        return {}
    for name, kind in field_kinds(kernel.Params).items():
        if kind is Kind.FILE and isinstance(given[name], str):
            given[name] = join(store.job.base, given[name])
    group = place_of(store, item)[0]
    shapes = {name: store.array(group, name).shape[1:] for name in store.names(group)}
    params = kernel.Params.model_validate(given)
    jobs = dict[str, JobFields | str]()
    if kernel.next_jobs:
        jobs |= kernel.next_jobs(params, f"{store.address}::{item}", shapes)
    if isinstance(spec.search, Population):
        # A job of the same kernel would have the last values from its beginning.
        jobs = {what: job for what, job in jobs.items() if isinstance(job, str) or job["kernel"] != spec.kernel}  # fmt: skip
    if once:
        fixed = {name: value for name, value in changed(params).items() if name != SEED}
        # Draws that no item of the store has drawn.
        seeds: dict[str, Any] = {"seed": (spec.seed + 1) % 2**32, "sweep": {"seeds": SEEDS}}
        if isinstance(own := given.get("seed"), int):
            first = max(store.job.plan.n_items, own + 1)
            seeds = {"sweep": {"grid": {"seed": {"range": [first, first + SEEDS]}}}}
        jobs[f"its setting with {SEEDS} seeds"] = {"kernel": spec.kernel, "params": fixed, **seeds}
    return jobs


def computes_once(store: Store) -> bool:
    """Whether the kernel has replicates, by a field `seed` or its keys alone, and the job has no seeds.

    >>> computes_once(Store.open("points.zarr"))  # fixed_points
    False
    """
    spec = store.job.spec
    swept = {name for part in spec.sweeps() for name in part.names()}
    # A trial of Optuna is a setting of its own, and its seed the number of the trial.
    # The parameters of a population's member move, so that no setting is its own.
    once = isinstance(spec.search, Optuna) or not (
        isinstance(spec.search, Population) or SEED in swept
    )
    described = store.description
    return once and (described.draws or SEED in described.fields)
