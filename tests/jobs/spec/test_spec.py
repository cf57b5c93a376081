"""jobs.spec.job: reading job files, overrides, digests, schema."""

import json

import pytest
from messages import refused

from ctd.catalogue import load_kernel
from jobs.errors import JobError
from jobs.spec.job import parse_job, read_content, read_job
from jobs.spec.presets import job_schema


def test_read_job_yaml_and_json_agree(job_file):
    content = {"kernel": "toy", "params": {"rate": 1e-4}, "sweep": {"seeds": 2}}
    yaml = job_file("kernel: toy\nparams: {rate: 1e-4}\nsweep: {seeds: 2}\n")
    other = job_file(json.dumps(content), "job.json")
    assert read_job(yaml) == read_job(other)
    # PyYAML alone reads 1e-4 as a string.
    assert read_job(yaml).params["rate"] == 1e-4
    assert read_job(yaml).name == "job"


@pytest.mark.parametrize(
    ("override", "where", "expected"),
    [
        ("seed=5", lambda s: s.seed, 5),
        ("params.rate=0.25", lambda s: s.params["rate"], 0.25),
        ("params.new.inner=[1, 2]", lambda s: s.params["new"], {"inner": [1, 2]}),
        ("sweep.grid={n: [1]}", lambda s: s.sweep.grid, {"n": [1]}),
        ("name=1e3", lambda s: s.name, None),
    ],
)
def test_read_job_overrides(job_file, override, where, expected):
    path = job_file("kernel: toy\n")
    if expected is None:
        with refused(JobError):
            read_job(path, [override])
    else:
        assert where(read_job(path, [override])) == expected


@pytest.mark.parametrize(
    ("text", "override", "said"),
    [
        ("kernel: [", None, "line 1, column 10: not valid YAML"),
        ("- 1", None, "a mapping"),
        (
            "kernel: toy\nseed: 1\nseed: 2",
            None,
            "line 3, column 1: not valid YAML or JSON: 'seed' is given twice, first in line 2",
        ),
        (
            "kernel: toy\nparams: {n: 1, n: 2}",
            None,
            "line 2, column 16: not valid YAML or JSON: 'n' is given twice",
        ),
        ("kernel: toy\nname: \0", None, "not valid YAML"),
        ("kernel: toy", "seed=[1", "--set seed=[1, line 1, column 3: not valid YAML"),
        ("kernel: toy\nsweeep: {}", None, "sweeep: unknown field; did you mean 'sweep'?"),
        ("kernel: toy\nrun: {retry: 1}", None, "run.retry: unknown field; did you mean 'retries'?"),
        ("kernel: toy\nsweep: {gird: {}}", None, "sweep.gird: unknown field; did you mean 'grid'?"),
        (
            "kernel: toy\nsweep: {rate: [1]}",
            None,
            "sweep.rate: unknown field; write sweep.grid.rate to sweep a parameter",
        ),
        (
            "kernel: toy\nsweep: {repeats: 3}",
            None,
            "sweep.repeats: unknown field; write sweep.seeds for repeats of every point",
        ),
        (
            "kernel: toy\nn_steps: 3",
            None,
            "n_steps: unknown field; write params.n_steps if it is a parameter of the kernel",
        ),
        ("params: {}", None, "kernel: required, but not given"),
        ("kernel: toy\nseed: -1", None, "seed: must be greater than or equal to 0"),
        ("kernel: toy\nrun: {retries: yes}", None, "run.retries: must be a number (given: true)"),
        ("kernel: toy\nsweep: {grid: {a: {rnge: 3}}}", None, "sweep.grid.a"),
        ("kernel: toy", "seed", "expected key.path=value"),
        ("kernel: toy", "kernel.a=1", "'kernel' is 'toy', not a mapping"),
    ],
)
def test_read_job_refuses(job_file, text, override, said):
    path = job_file(text)
    with pytest.raises(JobError) as caught:
        read_job(path, [override] if override else None)
    assert said in str(caught.value)
    if override is None:
        assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) < 25


@pytest.mark.parametrize(
    "name",
    [
        "binary.yaml",
        "s.zarr",
        "",
    ],
)
def test_read_job_of_what_is_no_job_file(tmp_path, name):
    (tmp_path / "binary.yaml").write_bytes(b"\x89HDF\r\n")
    (tmp_path / "s.zarr").mkdir()
    (tmp_path / "s.zarr" / "zarr.json").write_text("{}")
    with refused(JobError):
        read_job(tmp_path / name)


def test_read_job_takes_two_merges_and_keys_of_two_types(job_file):
    text = "kernel: toy\nparams: {<<: {n: 1}, <<: {rate: 0.5}}\ngather: {1: a, '1': b}"
    spec = read_content(job_file(text))
    assert spec["params"] == {"n": 1, "rate": 0.5}
    assert spec["gather"] == {1: "a", "1": "b"}


def test_read_job_merges_and_overrides_by_anchors(job_file):
    path = job_file("kernel: toy\nparams: {<<: &a {n: 1, rate: 0.5}, n: 2}\ngather: {<<: *a}")
    assert read_job(path).params == {"n": 2, "rate": 0.5}


def test_read_job_missing_file(tmp_path):
    with refused(JobError):
        read_job(tmp_path / "none.yaml")


def test_digest_is_of_the_science():
    base = parse_job({"kernel": "toy", "params": {"rate": 0.1}}, "job")
    same = parse_job({"kernel": "toy", "params": {"rate": 0.1}, "name": "x", "run": {"retries": 5},
                      "gather": {"top": 2}, "seed": 0}, "job")  # fmt: skip
    other = parse_job({"kernel": "toy", "params": {"rate": 0.2}}, "job")
    assert base.digest() == same.digest() != other.digest()


@pytest.mark.parametrize("block", ["grid", "params"])
def test_digest_tells_the_order_in_which_fields_are_swept_or_searched(block):
    """It decides which item is which, and what is proposed."""
    law = {"uniform": [0, 1]} if block == "params" else [0, 1]
    fields = {"g": law, "h": law}

    def digest(fields):
        search = {"method": "optuna", "metric": "y", "trials": 9, "params": fields}
        job = {"search": search} if block == "params" else {"sweep": {"grid": fields}}
        return parse_job({"kernel": "toy", **job}, "job").digest()

    assert digest(fields) != digest(dict(reversed(fields.items())))


@pytest.mark.parametrize("name", ["toy", "train_rnn", "esn"])
def test_schema_has_the_kernels_fields(name):
    kernel = load_kernel(name)
    schema = job_schema(kernel)
    assert set(schema["properties"]["params"]["properties"]) == set(kernel.Params.model_fields)
    assert schema["$schema"].startswith("https://json-schema.org/")
    json.dumps(schema)
