"""cluster.record: what of a damaged record can be read."""

import json

from cluster.record import Submission, remember_home, submissions
from jobs import keys


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
    assert record.given_up() == {}


def test_damaged_records_are_left_out(tmp_path):
    home = str(tmp_path / keys.SUBMIT / "9")
    record = Submission("9", "slurm", ["7"], home, {}, "ctd run", 0.0)
    good = vars(record)
    wrong = {"id": "../1", "kind": "local", "numbers": ["--me"], "home": 7, "profile": [], "words": 3, "submitted": "now"}  # fmt: skip
    texts = {"1": "{", "2": "", "3": "null", "4": "{}", "5": "[1]", "9": json.dumps(good)}
    texts |= {f"6{name}": json.dumps(good | {name: value}) for name, value in wrong.items()}
    for name, text in texts.items():
        file = tmp_path / keys.submission(name)
        file.parent.mkdir(parents=True)
        file.write_text(text)
    assert submissions(str(tmp_path)) == [record]


def test_home_of_a_stranger_is_not_looked_at(tmp_path):
    """A folder anywhere else, and one that a link in the store leads to, are none that ctd made."""
    mine, store = tmp_path / "mine", tmp_path / "s.zarr"
    mine.mkdir()
    (mine / "allocations.tsv").write_text("3\t7\tchained\t8\n")
    for name, home in {"1": mine, "2": store / keys.SUBMIT / "2"}.items():
        folder = store / keys.SUBMIT / name
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.symlink_to(mine) if name == "2" else folder.mkdir()
        record = {"id": name, "kind": "slurm", "numbers": ["7"], "home": str(home), "profile": {}, "command": "", "submitted": 0.0}  # fmt: skip
        (folder / "record.json").write_text(json.dumps(record))
        assert submissions(str(store))[-1].history() == []
    mine_too = Submission("1", "slurm", ["7"], str(mine), {}, "", 0.0)
    remember_home(mine_too, str(tmp_path / "other.zarr"))
    assert submissions(str(store))[0].all_numbers() == ["7"], "a copy of another store's record"
    remember_home(mine_too, str(store))
    assert submissions(str(store))[0].all_numbers() == ["7", "8"]


def test_what_a_driver_prints_is_told_until_there_is_a_store(tmp_path):
    record = Submission("1", "slurm", ["7"], str(tmp_path), {}, "ctd run", 0.0)
    record.output("7").write_text("2026-03-01 12:00:00 [7] Ray at n1\n0/4 items\n")
    assert [record.now("7", has_store) for has_store in (False, True)] == [": 0/4 items", ""]


def test_errors_name_the_users_own_job_file(tmp_path):
    record = Submission("1", "slurm", ["7"], str(tmp_path), {}, "ctd run", 0.0, ["/me/walk.yaml"])
    record.output("7").write_text(f"planning\nerror: {tmp_path}/walk.yaml: kernel walk: no\n")
    assert record.end_text("7", "ended 2", "walk.zarr") == ": error: /me/walk.yaml: kernel walk: no"
