"""What the comparisons with the tutorials' formulas share: HDF5 file -> job -> store -> numbers.

The jobs run in float64, so that tolerances are those of rounding: some 1e-16 a sum, more where it says so.
"""

import pytest
import yaml
from stores import FOUR_SLOTS

from jobs import open_store


@pytest.fixture
def job(command_line, job_file):
    """Run a job of one item, or of `sweep`, in this process; returns its opened store."""

    def run(kernel, params, name="job", **more):
        text = yaml.safe_dump({"kernel": kernel, "params": params, "run": FOUR_SLOTS, **more})
        path = job_file(text, f"{name}.yaml")
        code, out, err = command_line("run", path, "--executor", "serial")
        assert code == 0, err + out
        return open_store(path.with_suffix(".zarr"))

    return run
