"""Errors in the words of the job file: one line a fault, with the section, the field and what to write."""

import pytest
import toy
from messages import refused

from ctd.esn import kernel as esn
from ctd.train_rnn import kernel
from jobs.errors import JobError
from jobs.plan.items import checked_items, checked_job, expand
from jobs.spec.job import JobSpec, parse_job


@pytest.mark.parametrize(
    ("params", "sweep"),
    [
        ({"task": "flipflop", "n_bits": 2}, {}),
        ({"task": {"name": "rdm"}, "stimulus": 900.0}, {}),
        ({"N_batches": 9}, {}),
        ({"task": "flipflop"}, {"n_bits": [1, 2]}),
        ({"task": "decision", "n_bits": 2}, {}),
        ({"units": 9}, {}),
        ({}, {"training_steps": [9]}),
        ({"batch": 9}, {}),
        ({"penalty": 1}, {}),
        ({"zzz": 1}, {}),
        ({}, {"zzz": [1]}),
        ({"task": "flipflop", "n_bits": "two"}, {}),
    ],
)  # fmt: skip
def test_a_parameter_of_an_inner_field(params, sweep):
    spec = JobSpec.model_validate(
        {"kernel": "train_rnn", "params": params, "sweep": {"grid": sweep}}
    )
    with refused(JobError):
        expand(spec, kernel, "job.yaml")


def test_a_sweep_over_lists_has_a_list_for_each_value():
    spec = JobSpec.model_validate({"kernel": "esn", "sweep": {"grid": {"record": ["readout"]}}})
    with refused(JobError):
        expand(spec, esn, "job.yaml")


def test_many_faults_fill_a_screen_at_most():
    with pytest.raises(JobError) as raised:
        parse_job({"kernel": "esn", **{f"field{k}": k for k in range(30)}}, "job.yaml")
    lines = str(raised.value).splitlines()
    assert len(lines) == 20
    assert lines[0].startswith("job.yaml: field0: unknown field")
    assert lines[-1] == "... and 11 further faults"


UNEVEN = {"n": 100, "layers": 3}


@pytest.mark.parametrize("content", [{"Kernel": "esn"}, {"kernel": "esn", "run": {"Workers": 2}}])
def test_an_unknown_field_may_begin_with_a_capital_letter(content):
    with refused(JobError):
        parse_job(content, "job.yaml")


def test_a_rule_on_several_fields_is_told_by_its_section_alone():
    with pytest.raises(JobError) as raised:
        expand(JobSpec.model_validate({"kernel": "esn", "params": UNEVEN}), esn, "job.yaml")
    assert str(raised.value).startswith("job.yaml: params: layers: n = 100 units cannot be cut")


def test_what_another_fault_may_have_caused_is_left_out():
    """A field that is not valid is left out while the others are checked, so that a rule on several may fail for that alone."""
    content = {"kernel": "esn", "params": UNEVEN, "gather": {"zzz": 1}, "search": {"method": "no"}}
    with pytest.raises(JobError) as raised:
        checked_job(content, esn, "job.yaml")
    told = [line.split(" (")[0].split(";")[0] for line in str(raised.value).splitlines()]
    assert told == [
        "job.yaml: search.method: 'no' given",
        "job.yaml: gather: zzz: unknown field",
    ]


@pytest.mark.parametrize(
    "content",
    [
        {"search": {"method": "ahsa"}},
        {"search": {"method": "optuna", "sampler": "tep", "trials": 4, "metric": "q", "params": {"g": {"uniform": [0, 1]}}}},
        {"search": {"method": "optuna", "trials": 4, "metric": "q", "params": {"g": {"unifrm": [0, 1]}}}},
        {"sweep": {"grid": {"n": {"linspce": [1, 2, 3]}}}},
        {"sweep": {"grid": {"g": {"logspace": [-2, 0, 5]}}}},
        {"params": {"topology": "rnig"}},
        {"gather": {"reductions": [{"name": "bst"}]}},
    ],
)  # fmt: skip
def test_a_near_miss_of_a_word_is_told(content):
    with refused(JobError):
        checked_items(checked_job({"kernel": "esn", **content}, esn, "job.yaml"), esn, "job.yaml")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"cluster": 3}, "cluster: must be text or a mapping (given: 3)"),
        ({"run": {"grace_s": float("inf")}}, "run.grace_s: must be a finite number (given: inf)"),
        ({"sweep": {"grid": {"g": []}}}, "sweep.grid.g: must have at least 1 item (given: [])"),
    ],
)
def test_a_fault_is_told_once_whatever_types_a_field_may_have(content, said):
    with pytest.raises(JobError) as raised:
        parse_job({"kernel": "esn", **content}, "x")
    assert str(raised.value) == f"x: {said}"


def test_a_form_that_is_given_with_another_one_is_not_meant():
    grid = {"g": {"range": 3, "linspace": [1, 2, 3]}}
    with refused(JobError):
        checked_job({"kernel": "esn", "sweep": {"grid": grid}}, esn, "job.yaml")


def test_a_null_key_names_no_kind():
    with refused(JobError):
        checked_job({"kernel": "esn", "sweep": {"grid": {"g": {None: 3}}}}, esn, "job.yaml")


def test_a_word_like_none_of_a_list_is_told_with_the_list_alone():
    with refused(JobError):
        expand(JobSpec(kernel="esn", params={"topology": "torus"}), esn)


def test_several_values_of_a_field_are_sent_to_the_sweep():
    with refused(JobError):
        expand(JobSpec(kernel="toy", params={"push": [[0, 0], [1, 0]]}), toy.kernel)
    params = {
        "cell": ["gru", "vanilla"],
        "optimizer": ["adam", "sgd"],
        "n": [9, 16],
        "task": ["rdm"],
    }
    with pytest.raises(JobError) as raised:
        expand(JobSpec(kernel="train_rnn", params=params), kernel)
    for said in ("cell: [gru, vanilla]", "optimizer: [adam, sgd]", "n: [9, 16]", "task: [...]"):
        assert f"; `sweep: {{grid: {{{said}}}}}` compares several" in str(raised.value)
    with pytest.raises(JobError) as raised:
        parse_job({"kernel": ["esn", "train_rnn"]}, "job.yaml")
    assert "sweep" not in str(raised.value)


def test_a_rule_that_names_its_field_does_not_name_it_twice():
    with refused(JobError):
        expand(JobSpec(kernel="train_rnn", params={"cell": "gruu"}), kernel)
