"""Damaged inputs: one line of error, exit 2, at most 10 s and a gigabyte, nothing written elsewhere.

A kind of input is a `Table`: support/fuzzing.py and fuzz_files.py draw inputs of it from a seed.
"""

import pytest
from fuzz_files import spikes_file, weights_file
from fuzzing import FAULT_LINES, Fork, Table, broken, damaged_store, job_file

TABLES = {
    "job files": Table(job_file, FAULT_LINES),
    # `check` exits with 1; a link to itself, with 74, as other storage that fails. The job in a store may have many faults.
    "stores": Table(damaged_store, FAULT_LINES, (0, 1, 2, 74)),
    "weights": Table(weights_file),
    "spikes": Table(spikes_file),
}
CASES = {
    "job files": range(46, 54), "stores": range(3, 9), "weights": range(20, 30), "spikes": range(1, 9),
}  # fmt: skip
"""Seeds of the inputs of each kind in the suite, cheap ones: a plan for spikes that are sound compiles for 4 s, and no other
command reads them to their end."""
OTHERS = range(300)
"""In the endurance tests."""
UNREAD = {-1: "no input was read to its end"}


@pytest.fixture(scope="module")
def fork(tmp_path_factory):
    process = Fork(tmp_path_factory.mktemp("fork"))
    yield process
    process.close()


@pytest.mark.slow
@pytest.mark.parametrize("others", [False, pytest.param(True, marks=pytest.mark.endurance)])
@pytest.mark.parametrize("name", TABLES)
def test_damaged_inputs_are_refused(fork, tmp_path, name, others):
    found = broken(fork, TABLES[name], tmp_path, OTHERS if others else CASES[name])
    assert found == (UNREAD if name == "spikes" and not others else {})
