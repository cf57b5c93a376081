"""The jobs of a file, before they are looked into."""

import pytest
from messages import refused

from jobs.errors import JobError
from jobs.pipeline import read_stages


@pytest.mark.parametrize("field", ["params", "run"])
@pytest.mark.parametrize("given", ["abc", "[1, 2]", "3", "[]"])
@pytest.mark.parametrize("form", ["kernel: toy\n{}", "stages: {{a: {{kernel: toy, {}}}}}"])
def test_fields_that_are_no_mappings_are_refused(job_file, field, given, form):
    with refused(JobError):
        read_stages(job_file(form.format(f"{field}: {given}")))


def test_fields_may_be_left_empty(job_file):
    (stage,) = read_stages(job_file("kernel: toy\nparams:\nrun:"))
    assert stage.needs() == []


@pytest.mark.parametrize(
    "reference",
    [
        "{stage: {a: 1}}",
        "{stage: [a]}",
        "{stage: a, limit: 0}",
        "{stage: a, store: b}",
    ],
)
def test_references_that_are_not_valid_are_refused(job_file, reference):
    """Also before anything looks whether the stage that they name has run."""
    _, stage = read_stages(
        job_file(
            f"stages: {{a: {{kernel: toy}}, b: {{kernel: toy, params: {{file: {reference}}}}}}}"
        )
    )
    with refused(JobError):
        stage.needs()
