"""A user's own file that has the name of one of our packages."""

import subprocess
import sys

import pytest
from messages import usage_error


@pytest.mark.parametrize("name", ["jobs", "ctd"])
def test_file_that_hides_a_package_is_named(name, tmp_path):
    (tmp_path / f"{name}.py").write_text("x = 1")
    done = subprocess.run(
        [sys.executable, "-c", "from cluster import Job"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    said = f"ImportError: {tmp_path / name}.py hides the package {name} that ctd consists of; rename it"
    assert done.stderr.splitlines()[-1] == said


@pytest.mark.parametrize("name", ["jobs", "cluster", "jobs.walk"])
def test_kernel_with_the_name_of_a_package_is_refused(name, tmp_path, command_line):
    (tmp_path / "job.yaml").write_text(f"kernel: {name}")
    usage_error(
        command_line("plan", tmp_path / "job.yaml"), f"kernel: {name}: ctd itself has a package"
    )
