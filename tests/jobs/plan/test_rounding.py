"""Rounding to fewer bits: against exact fractions, in a run's store, and what is refused."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from messages import refused

from jobs import open_store
from jobs.errors import JobError
from jobs.plan.packing import keep_bits
from jobs.run.prepare import open_or_create
from jobs.run.shards import run_shards
from jobs.run.worker import SerialExecutor
from jobs.spec.job import parse_job


def exactly(value: float, bits: int) -> float:
    """The same by exact fractions: the nearest m 2^e with `bits` bits behind the leading one, ties to even."""
    _, exponent = math.frexp(value)
    unit = Fraction(2) ** (exponent - 1 - bits)
    return float(round(Fraction(value) / unit) * unit)


@given(
    st.floats(1e-30, 1e30).map(lambda x: float(np.float32(x))),
    st.booleans(),
    st.integers(1, 23),
)
def test_nearest_and_ties_to_even_float32(value, negative, bits):
    value = -value if negative else value
    found = keep_bits(np.array([value], np.float32), bits)
    assert found.dtype == np.float32
    assert float(found[0]) == exactly(value, bits)


@given(st.floats(1e-200, 1e200), st.integers(1, 52))
def test_nearest_and_ties_to_even_float64(value, bits):
    found = float(keep_bits(np.array([value]), bits)[0])
    assert found == exactly(value, bits)
    assert abs(found / value - 1) <= 2.0 ** -(bits + 1)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_what_cannot_be_rounded_stays(dtype):
    values = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, np.finfo(dtype).max], dtype)
    assert keep_bits(values, 3).tobytes() == values.tobytes()


JOB = {"kernel": "toy", "params": {"n_steps": 4}, "sweep": {"grid": {"rate": [-0.5, 0.1, 0.3]}}}


def test_results_of_a_run(tmp_path):
    """One result is rounded and says so, the others are the bits of a run without."""
    stores = []
    for name, bits in (("exact", {}), ("rounded", {"x": 6})):
        address, executor = str(tmp_path / f"{name}.zarr"), SerialExecutor(1)
        spec = parse_job(JOB | {"keep_bits": bits}, "job")
        store = open_or_create(spec, str(tmp_path), "job", address, executor)
        assert not run_shards(store, executor).failed
        stores.append(open_store(address)["results/0"])
    exact, rounded = stores
    assert rounded["x"].attrs["keep_bits"] == 6
    assert "keep_bits" not in exact["x"].attrs
    for name in exact.data_vars:
        expected = exact[name].values
        if name == "x":
            assert (rounded[name].values != expected).any()
            expected = keep_bits(expected, 6)
        assert rounded[name].values.tobytes() == expected.tobytes(), name


@pytest.mark.parametrize(
    "bits",
    [
        {"nrm": 6},
        {"x": 0},
        {"steps": 6},
    ],
)
def test_bad_input(tmp_path, bits):
    with refused(JobError):
        open_or_create(
            parse_job(JOB | {"keep_bits": bits}, "job"), str(tmp_path), "job",
            str(tmp_path / "s.zarr"), SerialExecutor(1),
        )  # fmt: skip
    assert not (tmp_path / "s.zarr").exists()
