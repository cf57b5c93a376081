"""The user's own command at the end of a run."""

import pytest

from cluster.ending import PATIENCE_S, Settings, call_on_end, read_settings, settings_file
from jobs.errors import JobError


@pytest.fixture(autouse=True)
def config(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    settings_file().parent.mkdir()


def test_settings_may_be_absent():
    assert read_settings() == Settings()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("on_ends: x", "settings.yaml: on_ends: unknown field; did you mean 'on_end'"),
        ("on_end: [1]", "settings.yaml: on_end: "),
        ("on_end: [", "settings.yaml: cannot be read as YAML"),
        ("x", "settings.yaml"),
    ],
)
def test_settings_that_are_not_valid_are_named(text, said):
    settings_file().write_text(text)
    with pytest.raises(JobError, match=said):
        read_settings()


def test_command_learns_how_the_run_ended(tmp_path):
    settings_file().write_text(
        f"on_end: 'echo \"$CTD_ENDED|$CTD_STORE|$CTD_TOLD\" > {tmp_path}/told'"
    )
    assert call_on_end(read_settings(), "s3://lab/x; rm -rf /", "failed", "2 of 9 `items`") is None
    assert (tmp_path / "told").read_text() == "failed|s3://lab/x; rm -rf /|2 of 9 `items`\n"


def test_command_that_fails_is_told():
    said = call_on_end(Settings(on_end="echo no server >&2; exit 3"), "s", "done", "")
    assert said == "on_end: exit code 3: echo no server >&2; exit 3: no server"
    assert PATIENCE_S <= 60
