"""Write a table to a file: .csv, .json (a list of rows), .parquet, or .nc (NetCDF, along the rows' axis)."""

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from ctd.installed import how_to_install, why_not
from ctd.replacing import replacing
from jobs.errors import JobError, writing
from jobs.query.columns import of_json


def save_frame(
    frame: pd.DataFrame, path: Path, described: Mapping[str, Mapping[str, str]] | None = None
) -> None:
    """Write a table in the format that the file's suffix names; JobError if that fails, and then the file is as before.

    described: column -> its `units` and `long_name`, as the CF conventions have them, for a format that keeps such.
    """
    check_target(path)
    plain = without_complex(frame)
    plain.attrs["described"] = described or {}
    with writing(path), replacing(path, typed=True) as new:
        WRITERS[path.suffix](plain, new)


def check_target(path: Path) -> None:
    """Raise JobError if `save_frame` could not write to `path`; call it before computing the table."""
    if path.suffix not in WRITERS:
        raise JobError(f"{path}: a name that ends in {', '.join(WRITERS)} expected")
    if path.suffix == ".parquet" and (reason := why_not("pyarrow")) is not None:
        do = how_to_install("parquet", again=bool(reason))
        raise JobError(f"{path}: needs pyarrow{reason}; {do}, or write .csv")
    if path.is_dir() or not path.parent.is_dir():
        problem = "is a folder" if path.is_dir() else f"there is no folder {path.parent}"
        raise JobError(f"{path}: cannot be written: {problem}")


FORMULA = r"^([=+\-@\t\r])"
"""First characters that make a spreadsheet read a cell as a formula, which could run a program."""


def _csv(frame: pd.DataFrame, path: Path) -> None:
    """Texts and names that begin like a formula get a `'` in front, as spreadsheets themselves write it."""
    texts = frame.select_dtypes(["object", "string", "category"]).columns
    quoted = lambda texts: texts.astype(str).str.replace(FORMULA, r"'\1", regex=True)
    frame = frame.assign(**{name: quoted(frame[name]) for name in texts})
    frame.columns = quoted(frame.columns)
    frame.to_csv(path, index=False)


def _json(frame: pd.DataFrame, path: Path) -> None:
    # Not by pandas, which rounds to 15 decimals: that leaves one digit of 1e-15.
    rows = of_json(frame.to_dict("records"))
    path.write_text(json.dumps(rows, indent=1, ensure_ascii=False), encoding="utf-8")


def _parquet(frame: pd.DataFrame, path: Path) -> None:
    # pyarrow would remove `path` after an error, and that may be the user's device or pipe.
    path.write_bytes(frame.to_parquet(engine="pyarrow", index=False))


def _netcdf(frame: pd.DataFrame, path: Path) -> None:
    """The first column names the axis and is its coordinate if it numbers the rows, as `item` does."""
    import xarray as xr

    first = str(frame.columns[0]) if len(frame.columns) else "row"
    numbers = len(frame) > 0 and frame[first].dtype.kind in "iu" and frame[first].is_unique
    # A variable named like its axis would be its coordinate: `row` of several stores is not unique.
    axis = first if numbers else next(n for n in ("row", "index", "line") if n not in frame)
    described = frame.attrs.get("described", {})
    about = lambda name: dict(described.get(name.removesuffix(".real").removesuffix(".imag"), {}))
    columns = {
        str(name): (axis, _nc3(frame[name].to_numpy()), about(str(name))) for name in frame.columns
    }
    with warnings.catch_warnings():
        # scipy is the only NetCDF engine that ctd depends on.
        warnings.filterwarnings("ignore", category=RuntimeWarning)
        xr.Dataset(columns).to_netcdf(path, engine="scipy")


def _nc3(values: np.ndarray) -> np.ndarray:
    """Values that NetCDF 3 can hold: integers beyond 32 bits become floats, floats have at least 32 bits."""
    if values.dtype.kind in "iu" and len(values):
        wide = max(abs(int(values.min())), abs(int(values.max()))) >= 2**31
        return values.astype(np.float64 if wide else np.int32)
    if values.dtype == np.float16:
        return values.astype(np.float32)
    return values.astype(object) if values.dtype.kind not in "biuf" else values


def without_complex(frame: pd.DataFrame) -> pd.DataFrame:
    """Split each complex column into two real ones, which every format can hold."""
    columns = {}
    for name in frame.columns:
        if frame[name].dtype.kind == "c":
            columns[f"{name}.real"] = frame[name].to_numpy().real
            columns[f"{name}.imag"] = frame[name].to_numpy().imag
        else:
            columns[name] = frame[name]
    return pd.DataFrame(columns)


WRITERS: dict[str, Callable[[pd.DataFrame, Path], None]] = {
    ".csv": _csv, ".json": _json,
    ".parquet": _parquet,
    ".nc": _netcdf,
}  # fmt: skip
