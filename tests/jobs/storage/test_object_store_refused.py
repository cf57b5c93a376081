"""What is said when a bucket cannot be reached, read or written: one line, soon, without a secret."""

import json
import time

import pytest
import s3 as lab
from stores import TOY

REFUSED = {
    "no credentials": (
        {"AWS_ACCESS_KEY_ID": None}, "s3://lab/a.zarr",
        "s3://lab/a.zarr: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or",
    ),
    "nor of the machine": (
        {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None, "AWS_ENDPOINT_URL": None,
         "AWS_EC2_METADATA_DISABLED": None, "AWS_METADATA_ENDPOINT": "http://127.0.0.1:1"},
        "s3://lab/a.zarr", "s3://lab/a.zarr: no credentials; docs/object-stores.md says where they",
    ),
    "half of them": (
        {"AWS_SECRET_ACCESS_KEY": None}, "s3://lab/a.zarr", "Missing SecretAccessKey",
    ),
    "unknown key": (
        {"AWS_ACCESS_KEY_ID": "AKIDNOBODY"}, "s3://lab/a.zarr",
        "s3://lab/a.zarr: the credentials are wrong: the server does not know the access key",
    ),
    "wrong secret": (
        {"AWS_SECRET_ACCESS_KEY": "hush"}, "s3://lab/a.zarr",
        "the credentials are wrong: the secret does not belong to the access key",
    ),
    "no bucket": (
        {}, "s3://nolab/a.zarr",
        "s3://nolab/a.zarr: the bucket does not exist; make it, or correct its name (NoSuchBucket)",
    ),
    "no server": (
        {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "s3://lab/a.zarr",
        "no server answers: Connection refused (the server is http://127.0.0.1:1, from AWS_ENDPOINT",
    ),
    "endpoint without a scheme": (
        {"AWS_ENDPOINT_URL": "127.0.0.1:9000"}, "s3://lab/a.zarr",
        "s3://lab/a.zarr: the endpoint '127.0.0.1:9000' of AWS_ENDPOINT_URL or ~/.aws/config is no address; expected http://",
    ),
    "no host": (
        {"AWS_ENDPOINT_URL": "http://nohost.invalid:80"}, "s3://lab/a.zarr", "no server answers",
    ),
    "no key": ({}, "s3://lab", "s3://lab: s3://BUCKET/KEY expected"),
    "no scheme": ({}, "s33://lab/a.zarr", "unknown scheme s33://; did you mean 's3'?"),
    "nothing there": ({}, "s3://lab/none.zarr", "s3://lab/none.zarr: not a complete ctd store"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_store_is_refused_in_a_line_and_soon(s3, ctd, monkeypatch, name):
    environment, address, said = REFUSED[name]
    for variable, value in environment.items():
        if value is None:
            monkeypatch.delenv(variable)
        else:
            monkeypatch.setenv(variable, value)
    began = time.monotonic()
    code, out, err = ctd("status", address)
    assert time.monotonic() - began < 100  # its requests are not repeated, which would take minutes
    assert (code, out) == (74 if name in ("no server", "no host") else 2, ""), err
    assert said in " ".join(err.split())
    assert "hush" not in err
    assert lab.hides_secrets(err.encode())


def test_job_is_refused_before_anything_is_planned(s3, ctd, job_file, monkeypatch):
    path = job_file(TOY)
    run_it = ["run", path, "--executor", "serial", "--store"]
    code, _, err = ctd(*run_it, "s3://nolab/a.zarr")
    assert (code, "the bucket does not exist" in err) == (2, True), err
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", lab.READER)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", lab.READER_SECRET)
    code, _, err = ctd(*run_it, "s3://lab/reader.zarr")
    assert code == 2, err
    assert "cannot be written: the credentials do not allow it (AccessDenied)" in " ".join(
        err.split()
    )
    assert s3.objects("reader.zarr") == {}


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("s3://nolab/d.h5", "params: path: s3://nolab/d.h5: the bucket does not exist"),
        ("s3://lab/none.h5", "params: path: s3://lab/none.h5: there is no such file, nor a Zarr"),
        ("s3://lab", "params: path: s3://lab: s3://BUCKET/KEY expected"),
        ("s3://k:hush@lab/d.h5", "params: path: s3://lab/d.h5: holds credentials"),
    ],
)
def test_data_is_refused_with_its_field(s3, ctd, job_file, path, said):
    job = {"kernel": "esn", "params": {"target": "file", "m": 2, "path": path}}
    code, _, err = ctd("plan", job_file(json.dumps(job)))
    assert code == 2
    assert said in " ".join(err.split())
    assert "hush" not in err
