"""ctd.installed: hints that an installer of this Python understands, and that name no other project."""

import shlex
import subprocess
import sys
from importlib.metadata import version

import pytest
from places import PROJECT

from ctd.installed import DISTRIBUTION, how_to_install, version_of


def test_distribution_is_that_of_the_project():
    assert PROJECT["name"] == DISTRIBUTION
    assert version_of("ctd") == version(DISTRIBUTION) == PROJECT["version"]
    assert version_of("numpy") == version("numpy")


@pytest.mark.parametrize("extra", sorted(PROJECT["optional-dependencies"]))
def test_hint_names_the_packages_of_an_extra_for_this_python(extra):
    words = shlex.split(how_to_install(extra))
    assert sys.executable in words
    packages = {name.lower() for name in PROJECT["optional-dependencies"][extra]}
    assert {word.lower() for word in words[-len(packages) :]} == packages
    assert not any("ctd" in word for word in words if word != sys.executable)


def test_hint_is_taken_by_the_installer():
    """The tests have these packages: nothing is fetched."""
    done = subprocess.run(
        [*shlex.split(how_to_install("parquet")), "--dry-run", "--offline"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
