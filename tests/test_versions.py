"""Files that released versions of ctd wrote are opened, asked and gone on with, or refused in a line (docs/versions.md).

tests/data/v0.1.0 has job files, and the stores that 0.1.0 made of them (tests/data/make_v0_1_0.sh).
"""

import json
import zipfile

import pytest
from places import DATA

from cluster import Job
from jobs import open_store

V0_1_0 = DATA / "v0.1.0"


@pytest.fixture
def released(tmp_path):
    """A store of 0.1.0 by its name."""

    def unpack(name):
        with zipfile.ZipFile(V0_1_0 / f"{name}.zip") as archive:
            archive.extractall(tmp_path / f"{name}.zarr")
        return tmp_path / f"{name}.zarr"

    return unpack


STORES = ("finished", "stopped", "failed", "search")


@pytest.mark.parametrize("name", STORES)
def test_job_file_means_the_same(name, released):
    attributes = json.loads((released(name) / "zarr.json").read_text())["attributes"]
    assert Job.read(V0_1_0 / f"{name}.yaml").digest() == attributes["spec_sha256"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("finished", {"items_done": 6, "complete": True, "outcomes.done": 6}),
        ("search", {"items_done": 2, "items_dropped": 6, "complete": True, "outcomes.trained": 2}),
        ("failed", {"items_done": 3, "items_failed": 1, "items_with_errors": 1, "complete": True}),
        ("stopped", {"items_done": 0, "complete": False, "stopped": "SIGTERM"}),
    ],
)
def test_state(name, expected, released, ctd):
    code, out, err = ctd("status", released(name), "--json")
    assert code == 0, err
    state = json.loads(out)
    state |= {f"outcomes.{outcome}": n for outcome, n in state["outcomes"].items()}
    assert {key: state[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("name", "best", "column", "values"),
    [
        ("finished", 3, "replay_nrmse", [0.7387, 1.075, 0.7636, 0.7274, 1.736, 1.412]),
        ("search", 6, "eval_loss", [1.013, 0.4173]),
        ("failed", None, "root", [0.5**0.5, 1, 2**0.5]),
    ],
)
def test_answers(name, best, column, values, released):
    store = open_store(released(name))
    table = store.query("status == 'done'", sort="item")
    # Four digits, as `ctd query` prints them.
    assert table[column].tolist() == pytest.approx(values, rel=1e-3)
    if best is not None:
        assert store.best(by=column).item == best


@pytest.mark.parametrize("name", STORES)
def test_undamaged(name, released, ctd):
    code, _, err = ctd("check", released(name))
    assert code == 0, err
    code, _, err = ctd("report", released(name))
    assert (code, err.count("\n")) == ((2, 1) if name == "stopped" else (0, 0)), err


def test_stopped_goes_on(released, ctd):
    """From its checkpoint; another source of the kernel is refused in a line, and taken where that is asked for."""
    address = released("stopped")
    resume = ("resume", address, "--executor", "serial")
    code, _, err = ctd(*resume)
    if code == 2:
        assert "has changed since the store was made" in err
        assert err.count("\n") == 1
        code, _, err = ctd(*resume, "--accept-changes")
    assert code == 0, err
    assert open_store(address).query()["outcome"].tolist() == ["trained", "trained"]
