"""The user's own command at the end of a run."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from waiting import until

from cluster.cli import on_end
from cluster.cli.on_end import (
    PATIENCE_S,
    Ending,
    Settings,
    call_on_end,
    calls_on_end,
    note_progress,
    read_settings,
    settings_file,
)
from jobs.errors import JobError
from jobs.run.progress import Progress


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
        ("on_end: [", "settings.yaml, line 1, column 10: not valid YAML"),
        ("x", "settings.yaml"),
    ],
)
def test_settings_that_are_not_valid_are_named(text, said):
    settings_file().write_text(text)
    with pytest.raises(JobError, match=said):
        read_settings()


ENDING = Ending("s3://lab/x; rm -rf /", "failed", "7 of 9 `items`", 9, 7, 2, 1, {"diverged": 3})


def test_command_learns_how_the_run_ended(tmp_path):
    said = '"$CTD_ENDED|$CTD_STORE|$CTD_TOLD|$CTD_ITEMS_DONE/$CTD_ITEMS|$CTD_ITEMS_FAILED|$CTD_SHARDS_FAILED"'
    settings_file().write_text(f"on_end: 'echo {said} > {tmp_path}/told; cat > {tmp_path}/json'")
    assert call_on_end(read_settings(), ENDING) is None
    told = "failed|s3://lab/x; rm -rf /|7 of 9 `items`|7/9|2|1\n"
    assert (tmp_path / "told").read_text() == told
    assert json.loads((tmp_path / "json").read_text()) == asdict(ENDING)


@pytest.mark.parametrize(
    ("progress", "told"),
    [
        (Progress(8, 1), "done, 0 of 8 items computed"),
        (Progress(8, 1, items_done=8, outcomes={"trained": 4, "diverged": 4, "settled": 0}), "done, 8 of 8 items computed: 4 trained, 4 diverged"),
        (Progress(8, 2, items_done=4, outcomes={"trained": 3}, failed_items={2: "no"}), "failed, 4 of 8 items computed: 3 trained, 1 failed with an error"),
    ],
)  # fmt: skip
def test_people_are_told_how_items_ended(progress, told):
    with calls_on_end("nets.zarr") as end:
        note_progress(end, progress)
    assert end.told == f"nets.zarr: {told}"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (
            "echo no server >&2; exit 3",
            "on_end: exit code 3: echo no server >&2; exit 3: no server",
        ),
        ("printf '\\377'; exit 1", "on_end: exit code 1: printf '\\377'; exit 1: \ufffd"),
        ("kill -9 $$", "on_end: exit code -9: kill -9 $$"),
        ("exit\0 1", "on_end: cannot be called: embedded null byte: exit\0 1"),
        ("true", None),
    ],
)
def test_command_that_fails_is_told(command, said):
    assert call_on_end(Settings(on_end=command), ENDING) == said
    assert PATIENCE_S <= 60


def test_command_that_hangs_is_ended_with_its_children(tmp_path, monkeypatch):
    monkeypatch.setattr(on_end, "PATIENCE_S", 0.3)
    command = f"(sleep 600 & echo $! > {tmp_path}/pid; wait); true"
    said = call_on_end(Settings(on_end=command), ENDING)
    assert said == f"on_end: took more than 0.3 s and was ended: {command}"
    child = Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}/cmdline")
    until(
        lambda: not child.exists() or not child.read_bytes(), "the child has ended"
    )  # b"": a zombie
