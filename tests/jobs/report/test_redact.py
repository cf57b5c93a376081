"""Credentials are hidden from what is written for others, and nothing else is."""

import json

import pytest
from page_stores import SECRET

from jobs.report.page.redact import redact, secrets_of

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
