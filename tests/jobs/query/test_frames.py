"""jobs.query.files: a table written in each format is read back by another reader as it was."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from messages import refused
from processes import full_disk

from jobs.errors import JobError
from jobs.query.files import save_frame

FRAME = pd.DataFrame(
    {
        "item": np.array([7, 3, 5], np.uint32),
        "q": [1.5e-21, np.nan, np.inf],
        "error": [1.2345678901234567e-14, 0.1 + 0.2, 3e300],
        "norm": np.array([1, 2, 3], np.float32) / 7,
        "half": np.array([0.5, 1, np.inf], np.float16),
        "stable": [True, False, True],
        "outcome": ["trained", 'é, "x"', ""],
        "seed": np.array([2**31 - 1, 0, 2**31], np.int64),
        "median(q)": [1, 2, 3],
    }
)


def read_nc(path):
    with xr.open_dataset(path, engine="scipy") as found:
        return found.load().to_dataframe().reset_index()


READERS = {
    "csv": lambda path: pd.read_csv(path, keep_default_na=False, na_values={"q": [""]}),
    "json": lambda path: pd.DataFrame(json.loads(path.read_text())),
    "parquet": pd.read_parquet,
    "nc": read_nc,
}


@pytest.mark.parametrize("ending", READERS)
def test_save_and_read_again(tmp_path, ending):
    path = tmp_path / f"out.{ending}"
    save_frame(FRAME, path)
    found = READERS[ending](path)
    assert set(found.columns) == set(FRAME.columns)
    for name in FRAME.columns:
        expected = FRAME[name].to_numpy()
        if ending == "json" and name == "q":
            expected = np.array([1.5e-21, np.nan, np.nan])  # JSON has no infinity
        if ending == "json" and name == "half":
            expected = np.array([0.5, 1, np.nan])
        if name == "outcome":
            assert found[name].tolist() == expected.tolist()
        else:
            # Text has 15 digits, and of float32 as many as it takes to tell its numbers apart.
            digits = 1e-7 if name == "norm" else 1e-14
            np.testing.assert_allclose(
                found[name].to_numpy(float), expected.astype(float), rtol=digits
            )


def test_netcdf_has_the_rows_axis(tmp_path):
    save_frame(FRAME, tmp_path / "a.nc")
    grouped = pd.DataFrame({"n": [3, 3], "median(q)": [0.1, 0.2]})
    save_frame(grouped, tmp_path / "b.nc")
    with xr.open_dataset(tmp_path / "a.nc") as a, xr.open_dataset(tmp_path / "b.nc") as b:
        assert a.q.dims == ("item",)
        assert float(a.q.sel(item=7)) == 1.5e-21
        assert b.n.dims == ("row",), "3 stands twice: it is no coordinate"
        assert a.q.attrs == {}


@pytest.mark.parametrize("ending", READERS)
def test_save_of_no_rows(tmp_path, ending):
    path = tmp_path / f"none.{ending}"
    save_frame(FRAME.head(0), path)
    assert path.exists()


def test_save_splits_complex_columns(tmp_path):
    save_frame(pd.DataFrame({"z": [1 + 2j, 3 - 4j]}), tmp_path / "z.csv")
    assert (tmp_path / "z.csv").read_text().splitlines() == ["z.real,z.imag", "1.0,2.0", "3.0,-4.0"]


@pytest.mark.parametrize(
    "name",
    [
        "out.xlsx",
        "out",
        "none/out.csv",
        "folder.csv",
    ],
)
def test_save_refuses(tmp_path, name):
    (tmp_path / "folder.csv").mkdir()
    with refused(JobError):
        save_frame(FRAME, tmp_path / name)


@pytest.mark.parametrize("ending", READERS)
def test_save_to_a_full_disk(ending, tmp_path):
    path = tmp_path / f"full.{ending}"
    path.symlink_to("/dev/full")
    with refused(JobError):
        save_frame(FRAME, path)
    assert Path("/dev/full").is_char_device()


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with refused(JobError):
        save_frame(FRAME, tmp_path / "out.parquet")


def test_csv_holds_no_formulas(tmp_path):
    """A spreadsheet would compute a cell that begins so; numbers stay numbers."""
    texts = ["=cmd|' /C calc'!A0", "@SUM(1)", "+1", "-1", "\tx", "plain", "1-2"]
    frame = pd.DataFrame({"=name": texts, "x": [-1.0, 2, 3, 4, 5, 6, 7]})
    save_frame(frame, tmp_path / "f.csv")
    found = pd.read_csv(tmp_path / "f.csv")
    assert list(found.columns) == ["'=name", "x"]
    assert list(found["'=name"]) == [f"'{text}" for text in texts[:5]] + texts[5:]
    assert list(found["x"]) == list(frame["x"])


@pytest.mark.parametrize("ending", READERS)
def test_full_disk_leaves_the_old_file(tmp_path, ending):
    path = tmp_path / f"out.{ending}"
    path.write_text("old")
    with (
        full_disk(),
        refused(JobError),
    ):
        save_frame(FRAME, path)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {path.name: "old"}


def test_a_column_of_rows_that_repeat_is_no_coordinate(tmp_path):
    """Those of several stores, whose first column is `store`."""
    frame = pd.DataFrame({"store": ["a", "b", "b"], "item": [0, 0, 1], "row": [0, 0, 1]})
    save_frame(frame, tmp_path / "t.nc")
    with xr.open_dataset(tmp_path / "t.nc", engine="scipy") as found:
        assert (found.row.dims, found.row.values.tolist()) == (("index",), [0, 0, 1])
        assert not found.indexes
