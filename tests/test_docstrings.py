"""What the examples in docstrings print is what stands below them."""

import doctest
import importlib

import jax.numpy as jnp
import numpy as np
import pytest
from page_stores import finished

import jobs

MODULES = (
    "cluster.api.job",
    "ctd.fixed_points.follow",
    "ctd.fixed_points.notebook",
    "ctd.similarity.notebook",
    "jobs.query.tree",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the store that the examples open."""
    folder = tmp_path_factory.mktemp("docstrings")
    (folder / "points.zarr").symlink_to(finished("fixed_points").address)
    return folder


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_a_module(name, folder, monkeypatch):
    monkeypatch.chdir(folder)
    module = importlib.import_module(name)
    given = {**vars(module), "jnp": jnp, "np": np, "jobs": jobs}
    found = [t for t in doctest.DocTestFinder().find(module, globs=given) if t.examples]
    assert found, "the module has no example any more"
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    said: list[str] = []
    for example in found:
        runner.run(example, out=said.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(said)
