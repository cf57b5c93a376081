"""Fixtures that several test files use."""

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

# The toy kernels of the tests, and the user's kernel of the examples, are modules of their own.
sys.path[:0] = [str(HERE), str(HERE.parent / "examples")]


@pytest.fixture
def job_file(tmp_path):
    """Write a job file's text to a fresh folder; returns its path."""

    def write(text: str, name: str = "job.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write
