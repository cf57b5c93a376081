"""jobs.storage.addresses and jobs.storage.connect: what an address means, and what never gets into one."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from messages import refused
from s3 import clear_environment

from jobs.errors import JobError
from jobs.storage import connect
from jobs.storage.addresses import join, local_path, path_beside, plain, refuse_zip
from jobs.storage.connect import open_objects, remote
from jobs.store.finding import find_stores


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("runs/a.zarr", "runs/a.zarr"),
        ("/data/a.zarr", "/data/a.zarr"),
        ("12:30/a.zarr", "12:30/a.zarr"),
        ("file:///data/a%20b.zarr", "/data/a b.zarr"),
        ("file://localhost/data/a.zarr", "/data/a.zarr"),
        ("s3://lab/a.zarr", None),
        ("gs://lab/deep/a.zarr", None),
        ("az://lab/a.zarr/", None),
        ("https://host:8080/a.h5", None),
    ],
)
def test_local_path(address, path):
    assert local_path(address) == (None if path is None else Path(path))


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("s33://lab/a.zarr", "s33://lab/a.zarr: unknown scheme s33://; did you mean 's3'?"),
        ("sftp://host/a", "unknown scheme sftp://"),
        ("s3://lab", "s3://lab: s3://BUCKET/KEY expected"),
        ("s3://lab/", "s3://BUCKET/KEY expected"),
        ("s3:///a.zarr", "s3://BUCKET/KEY expected"),
        ("s3:/lab/a.zarr", "s3://BUCKET/KEY expected"),
        ("s3:lab/a.zarr", "s3://BUCKET/KEY expected"),
        ("az://lab", "az://CONTAINER/KEY expected"),
        ("file://data/a.zarr", "file:///ABSOLUTE/PATH expected"),
        ("s3://AKID:hush@lab/a.zarr", "s3://lab/a.zarr: holds credentials"),
        ("https://host/a.h5?X-Amz-Signature=hush", "https://host/a.h5: holds credentials"),
        (
            "https://host/a.zarr",
            "can hold data, but no store; give a path, or an address of s3, gs or az",
        ),
    ],
)
def test_bad_address_is_refused_without_repeating_a_secret(address, said):
    with pytest.raises(JobError) as error:
        open_objects(address)
    assert said in str(error.value)
    assert "hush" not in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("base", "name", "joined"),
    [
        ("/job", "a.h5", "/job/a.h5"),
        ("/job", "/data/a.h5", "/data/a.h5"),
        ("/job", "s3://lab/a.h5", "s3://lab/a.h5"),
        ("/job", "file:///data/a.h5", "/data/a.h5"),
        ("s3://lab/job/", "data/a.h5", "s3://lab/job/data/a.h5"),
        ("s3://lab/job", "/data/a.h5", "/data/a.h5"),
    ],
)
def test_join(base, name, joined):
    assert join(base, name) == joined


def test_plain():
    assert plain("file:///data/a.zarr/") == "/data/a.zarr"
    assert plain("s3://lab/a.zarr/") == "s3://lab/a.zarr"
    assert plain("a.zarr") == "a.zarr"


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("runs/a.zarr", "runs/a"),
        ("runs/a.zip", "runs/a"),
        ("s0.1", "s0.1"),
        ("s0.2.zarr", "s0.2"),
        (".", "{here}"),
        ("deep/..", "{here}"),
        ("file:///data/a%20b.zarr", "/data/a b"),
        ("s3://lab/deep/v0.1/", "v0.1"),
    ],
)
def test_beside(tmp_path, monkeypatch, address, path):
    """What is made of two stores has two names, and of the working folder that of the folder."""
    here = tmp_path / "run0.5.zarr" / "deep"
    here.mkdir(parents=True)
    monkeypatch.chdir(here.parent)
    assert path_beside(address) == Path(path.format(here=tmp_path / "run0.5"))


def test_command_of_an_archive_is_quoted(tmp_path):
    (path := tmp_path / "a b.zip").touch()
    with pytest.raises(JobError) as error:
        refuse_zip(path)
    command = str(error.value).split("`")[1]
    assert shlex.split(command) == ["unzip", str(path), "-d", str(tmp_path / "a b.zarr")]


def test_an_empty_address_and_a_link_to_nothing_are_refused(tmp_path):
    for meant in (open_objects, lambda address: find_stores([address])):
        with refused(JobError):
            meant("")
    link = tmp_path / "a.zarr"
    link.symlink_to("gone")
    for create in (False, True):
        with refused(JobError):
            open_objects(str(link), create=create)
    with refused(JobError):
        open_objects(f"{link}/b.zarr", create=True)


def test_a_folder_of_an_older_encoding_is_refused(tmp_path):
    """The client library would panic."""
    with refused(JobError):
        open_objects(os.fsdecode(bytes(tmp_path) + b"/caf\xe9/a.zarr"), create=True)


def test_utf8_in_other_locale(tmp_path):
    """Python reads nothing but ASCII there."""
    (folder := tmp_path / "caf\xe9").mkdir()
    code = "import os; from jobs.storage.addresses import refuse_undecoded as f; f(os.getcwd())"
    env = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0"}
    command = [sys.executable, "-c", code]
    ran = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert "JobError: " in ran.stderr
    assert ran.stderr.endswith("; export PYTHONUTF8=1\n")


# --- credentials ----------------------------------------------------------------------------------


@pytest.fixture
def aws(monkeypatch, tmp_path):
    """Write ~/.aws; nothing of the environment is left."""
    clear_environment(monkeypatch, tmp_path)

    def write(config="", keys=""):
        (tmp_path / "config").write_text(config)
        (tmp_path / "credentials").write_text(keys)

    return write


def test_environment_goes_before_profile(aws, monkeypatch):
    aws("[default]\nregion = eu-north-1\nendpoint_url = http://a:1\n",
        "[default]\naws_access_key_id = k\naws_secret_access_key = s\n")  # fmt: skip
    found = connect.settings("s3")
    assert (found["region"], found["endpoint"]) == ("eu-north-1", "http://a:1")
    assert found["client_options"] == {"allow_http": True}
    keys = found["credential_provider"]()
    assert (keys["access_key_id"], keys["secret_access_key"], keys["token"]) == ("k", "s", None)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://b")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "K")
    monkeypatch.setenv("AWS_REGION", "us-west-2")
    assert connect.settings("s3") == {
        "endpoint": "https://b", "client_options": {"allow_http": False}
    }  # fmt: skip


def test_named_profile_and_renewed_keys(aws, monkeypatch):
    keys = "[lab]\naws_access_key_id = {}\naws_secret_access_key = s%s\naws_session_token = t\n"
    aws("[profile lab]\nregion = eu-west-1\n", keys.format("one"))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    found = connect.settings("s3")
    assert found["region"] == "eu-west-1"
    assert found["credential_provider"]()["secret_access_key"] == "s%s"
    aws("", keys.format("two"))
    assert found["credential_provider"]()["access_key_id"] == "two"


@pytest.mark.parametrize(
    ("environment", "files", "said"),
    [
        ({}, ("", ""), "no credentials; set AWS_ACCESS_KEY_ID"),
        ({"AWS_PROFILE": "nope"}, ("", ""), "~/.aws has no profile 'nope'"),
        ({}, ("", "aws_secret_access_key = hush"), "credentials: is not a file of AWS profiles"),
        ({"AWS_EC2_METADATA_DISABLED": "", "AWS_ENDPOINT_URL": "http://a"}, ("", ""), "no creden"),
    ],
)
def test_missing_credentials_are_said_without_a_request(aws, monkeypatch, environment, files, said):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    aws(*files)
    with pytest.raises(JobError) as error:
        connect.settings("s3")
    assert said in str(error.value)
    assert "hush" not in str(error.value)


def test_azure_needs_an_account(monkeypatch):
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with refused(JobError):
        open_objects("az://lab/a.zarr")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "lab")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "aHVzaA==")
    # The library panics where it prints a store that has its account from the environment.
    shown = str(remote("az://points/deep/a.zarr"))
    assert shown == 'AzureStore(container_name="points", account_name="lab", prefix="deep/a.zarr")'


@pytest.mark.parametrize(
    ("scheme", "environment", "allowed"),
    [
        ("http", {}, True),
        ("https", {}, False),
        ("gs", {"GOOGLE_BASE_URL": "http://127.0.0.1:4443"}, True),
        ("gs", {"GOOGLE_BASE_URL": ""}, False),
        ("az", {"AZURE_STORAGE_USE_EMULATOR": "true"}, True),
        ("az", {"AZURE_STORAGE_ACCOUNT_NAME": "lab"}, False),
    ],
)
def test_http_only_where_the_endpoint_says_so(monkeypatch, scheme, environment, allowed):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert connect.settings(scheme)["client_options"] == {"allow_http": allowed}
