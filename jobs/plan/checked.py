"""Check a job and report all faults of its fields at once; no data file is opened."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from ctd.kernel import Kernel
from jobs.errors import Faults, JobError
from jobs.plan.items import Items, expand
from jobs.spec.job import JobSpec, options_of, parse_job
from jobs.spec.reductions import reductions_of


def checked_items(spec: JobSpec, kernel: Kernel, where: str) -> Items:
    """All items of a job. Raises JobError, with a line for each fault of `params`, `sweep` and `gather`."""
    faults = Faults()
    for settings_of in (options_of, reductions_of):
        with faults:
            try:
                settings_of(spec, kernel)
            except JobError as error:
                raise JobError(f"{where}: {error}") from None
    with faults:
        items = expand(spec, kernel, where)
    faults.tell()
    return items


def checked_job(content: Mapping[str, Any], kernel: Kernel, where: str) -> JobSpec:
    """Validate the form of a job. If it is right, `params`, `sweep` and `gather` are left to `checked_items`.

    Raises:
        JobError: the form is not right; the text also lists the faults inside fields whose form is right.
    """
    faults = Faults()
    with faults:
        return parse_job(content, where)
    sound = {name: value for name, value in content.items() if _is_sound(name, value)}
    with faults:
        try:
            checked_items(JobSpec.model_validate({**sound, "kernel": kernel.name}), kernel, where)
        except JobError as error:
            # Leave out faults that only a faulty field may cause: a missing value, or the item as a whole.
            known = [
                line
                for line in str(error).splitlines()
                if "required, but not given" not in line and "(as a whole)" not in line
            ]
            if known:
                raise JobError("\n".join(known)) from None
    faults.tell()
    raise AssertionError("parse_job has raised")


def _is_sound(name: str, value: Any) -> bool:
    """Whether a field of a job is known and its value has the right form."""
    if name not in JobSpec.model_fields:
        return False
    try:
        JobSpec.model_validate({"kernel": "", name: value})
    except ValidationError:
        return False
    return True
