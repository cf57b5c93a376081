"""jobs.spec.presets: what a preset stands for, and what a job says instead."""

from dataclasses import replace

import hill
import pytest
from messages import refused

from ctd.kernel import Display, Preset
from jobs.errors import JobError
from jobs.spec.job import parse_job
from jobs.spec.presets import expand_preset, meaning

LAW = {"loguniform": [1e-3, 0.9], "perturb": 0.2, "start": 0.1}
SEARCH = {
    "method": "population",
    "metric": "loss",
    "every": 2,
    "generations": 5,
    "patience": 3,
    "params": {"rate": LAW, "noise": {"uniform": [0, 1], "start": "range"}},
}
KERNEL = replace(
    hill.kernel,
    display=Display(
        presets={"climb": Preset("uphill", SEARCH, {"steps": 30, "limit": 25}, {"seeds": 6})}
    ),
)


def expanded(search, **more):
    content = {"kernel": "hill", "search": {"preset": "climb", **search}, **more}
    found = expand_preset(content, KERNEL, "job.yaml")
    parse_job(found, "job.yaml")
    return found


def test_a_preset_alone_is_all_of_its_fields():
    found = expanded({})
    assert found["search"] == SEARCH
    assert found["params"] == {"steps": 30, "limit": 25}
    assert found["sweep"] == {"seeds": 6}
    content = {"kernel": "hill", "search": {"preset": "climb"}, "params": {"steps": 9}}
    told = meaning(content, KERNEL, "job.yaml")
    assert told == {"params": {"limit": 25}, "sweep": {"seeds": 6}, "search": SEARCH}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"every": 7}, {"every": 7}),
        ({"patience": None}, {"patience": None}),
        ({"params": {"rate": {"start": 0.5}}}, {"params": {"rate": LAW | {"start": 0.5}}}),
        ({"params": {"rate": {"uniform": [0, 1]}}}, {"params": {"rate": {"uniform": [0, 1]}}}),
        ({"params": {"noise": None}}, {"params": {"noise": None}}),
    ],
)
def test_each_field_can_be_given(given, expected):
    found = expanded(given)["search"]
    whole = SEARCH | expected | {"params": SEARCH["params"] | expected.get("params", {})}
    whole["params"] = {name: law for name, law in whole["params"].items() if law is not None}
    assert found == {name: value for name, value in whole.items() if value is not None}


def test_params_and_sweep_of_the_job_count():
    found = expanded({}, params={"rate": 0.3, "steps": 10}, sweep={"grid": {"limit": [10, 20]}})
    assert found["params"] == {"rate": 0.3, "steps": 10}
    assert found["sweep"] == {"seeds": 6, "grid": {"limit": [10, 20]}}
    assert "start" not in found["search"]["params"]["rate"]
    assert expanded({}, sweep={"seeds": 3})["sweep"] == {"seeds": 3}


def test_a_job_without_a_preset_is_left_alone():
    content = {"kernel": "hill", "search": SEARCH}
    assert expand_preset(content, KERNEL, "job.yaml") is content
    assert meaning(content, KERNEL, "job.yaml") == {}


@pytest.mark.parametrize("kernel", [KERNEL, hill.kernel], ids=["another", "none"])
def test_an_unknown_preset_is_told_in_one_line(kernel):
    content = {"kernel": "hill", "search": {"preset": "climp"}}
    with pytest.raises(JobError) as error:
        expand_preset(content, kernel, "job.yaml")
    hint = "; did you mean 'climb'?" if kernel is KERNEL else ", it has none"
    assert str(error.value) == f"job.yaml: search.preset: kernel hill has no preset 'climp'{hint}"


def test_what_fits_no_form_is_refused_as_in_any_search():
    with refused(JobError):
        expanded({"params": {"rate": 3}})
