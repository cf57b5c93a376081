"""Credentials are hidden from what is written for others, and nothing else is."""

import json

import pytest
from page_stores import SECRET
from stores import files, run

from jobs.redact import redact, secrets_of
from jobs.run.attempt import Attempt

SECRETS = [
    "s3://AKIAABCDEFGHIJKLMNOP:" + SECRET + "@bucket/x.zarr",
    f"https://host/x?X-Amz-Signature={SECRET}&b=1",
    f"https://host/x?sig={SECRET}",
    f"ctd run job.yaml --set params.token={SECRET}",
    f"ctd run job.yaml --api-key {SECRET}",
    f'{{"aws_secret_access_key": "{SECRET}"}}',
    f"AWS_SECRET_ACCESS_KEY='{SECRET}'",
    f"Authorization: Bearer {SECRET}",
    f"password: {SECRET}",
    f"-----BEGIN RSA PRIVATE KEY-----\n{SECRET}\n-----END RSA PRIVATE KEY-----",
    f"the value {SECRET} of the environment alone",
]


@pytest.mark.parametrize("text", SECRETS)
def test_redact_hides_credentials(text):
    hidden = redact({"a": [text], text: 1}, [SECRET] if "environment" in text else [])
    assert SECRET not in json.dumps(hidden)
    assert "AKIAABCDEFGHIJKLMNOP" not in json.dumps(hidden)


@pytest.mark.parametrize(
    "text",
    [
        "group 0: monkey = 3, keyboard=4",
        "key = jax.random.fold_in(key, 1)",
        "s3://bucket/folder/x.zarr",
        "File /home/user/a.py, line 3: tokens are counted",
        "https://host/x?page=2",
    ],
)
def test_redact_leaves_what_is_no_credential(text):
    assert redact(text, []) == text


def test_secrets_are_the_environments_values_by_name():
    environment = {
        "AWS_SECRET_ACCESS_KEY": SECRET, "GITHUB_TOKEN": "ghp_0123456789", "HOME": "/home/someone",
        "AWS_SHARED_CREDENTIALS_FILE": "/home/someone/.aws/credentials", "SHORT_KEY": "abc",
    }  # fmt: skip
    assert secrets_of(environment) == [SECRET, "ghp_0123456789"]


def test_failing_item_keeps_no_credential(tmp_path, monkeypatch, ctd):
    """In no object of the store: its error, its traceback, and the source line in that."""
    compute = Attempt.compute

    def fail(self):
        self.computing = True
        if 3 in self.rows:
            password = "s3cr3t-Value-of-a-key"
            raise ValueError(f"no access with password={password}, nor with {SECRET[::-1]}")
        return compute(self)

    monkeypatch.setattr(Attempt, "compute", fail)
    monkeypatch.setenv("SOME_TOKEN", SECRET[::-1])
    path = tmp_path / "failing.zarr"
    _, progress = run(path)
    assert list(progress.failed_items) == [3, 25]
    found = [name for name, data in files(path).items() if SECRET.encode() in data]
    found += [name for name, data in files(path).items() if SECRET[::-1].encode() in data]
    assert found == []
    for words in (["status"], ["logs"], ["logs", "--item", "3"]):
        _, out, _ = ctd(words[0], path, *words[1:])
        assert "no access with password=***, nor with ***" in out
        assert SECRET not in out
