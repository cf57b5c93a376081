"""The settings of a store's reductions, which may change after its run."""

from dataclasses import replace

from jobs.spec.job import options_of, set_field
from jobs.spec.reductions import reductions_of
from jobs.store.manifest import write_job
from jobs.store.store import Store


def set_gather(store: Store, overrides: list[str]) -> None:
    """Change settings of a store's reductions, given as `key=value`.

    Raises JobError if they are not valid, and then changes nothing.
    """
    settings = dict(store.job.spec.gather)
    for override in overrides:
        set_field(settings, override)
    spec = store.job.spec.model_copy(update={"gather": settings})
    options_of(spec, store.kernel)
    reductions_of(spec, store.description)
    store.job = replace(store.job, spec=spec)
    write_job(store.objects, store.job)
