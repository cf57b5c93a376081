"""cluster.tracking: a store's record of a submission sends nobody's token to a place that the store names."""

import json
import socket
import threading

import pytest
from stores import make

from cluster.profiles import RayProfile
from cluster.tracking import STRANGE, Submission, cancel, is_own, log_tail, look, submissions
from jobs import keys
from jobs.spec.trust import remember
from jobs.storage import objects


def test_lines_that_are_no_events_are_left_out_of_the_history(tmp_path):
    """Cut short by a full disk, or two in one: the others are read as ever."""
    record = Submission("1", "slurm", ["7"], str(tmp_path), {}, "ctd run", 0.0)
    assert record.history() == []
    lines = [
        "1\t7\tstarted\tn1",
        "",
        "2\t7",
        "2\t7\tended\t2\t7\tended\t75",
        "3\t7\tchained\t8",
        "4\t8",
    ]
    (tmp_path / "allocations.tsv").write_text("\n".join(lines))
    assert [line[2] for line in record.history()] == ["started", "chained"]
    assert record.all_numbers() == ["7", "8"]
    assert record.given_up() == ""


def test_damaged_records_are_left_out(tmp_path):
    record = Submission("9", "slurm", ["7"], "/home", {}, "ctd run", 0.0)
    texts = {"1": "{", "2": "", "3": "null", "4": "{}", "5": "[1]", "9": json.dumps(vars(record))}
    for name, text in texts.items():
        file = tmp_path / keys.submission(name)
        file.parent.mkdir(parents=True)
        file.write_text(text)
    assert submissions(str(tmp_path)) == [record]


@pytest.fixture
def listener():
    """A port that notes whoever connects."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        calls = []

        def listen():
            while True:
                try:
                    calls.append(server.accept()[0])
                except OSError:
                    return

        threading.Thread(target=listen, daemon=True).start()
        yield server.getsockname()[1], calls


def test_a_strangers_ray_is_not_asked(tmp_path, monkeypatch, listener):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    port, calls = listener
    token = tmp_path / "token"
    token.write_text("secret")
    profile = {"kind": "ray", "address": f"127.0.0.1:{port}", "dashboard": f"http://127.0.0.1:{port}",
               "token": str(token)}  # fmt: skip
    store = make(tmp_path / "s.zarr")
    record = {"id": "1", "kind": "ray", "numbers": ["ctd-1"], "home": "", "profile": profile,
              "command": "", "submitted": 0.0}  # fmt: skip
    objects.write(store.objects, keys.submission("1"), json.dumps(record).encode())
    ((submission, states),) = look(store.address)
    assert states == {"ctd-1": STRANGE}
    assert (cancel(store.address), log_tail(store.address)) == ([], "")
    assert calls == []
    # One's own profile, or a job that one has sent there.
    folder = tmp_path / "settings" / "ctd" / "clusters"
    folder.mkdir(parents=True)
    (folder / "lab.yaml").write_text(json.dumps({**profile, "stores": "/data"}))
    assert is_own(submission)
    (folder / "lab.yaml").write_text(json.dumps({**profile, "token": None}))
    assert not is_own(submission)
    remember(*RayProfile.model_validate(profile).jobs_api())
    assert is_own(submission)
