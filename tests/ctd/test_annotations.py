"""The types of arrays in annotations can be evaluated, and `--shapes` refuses an array of another shape."""

import importlib
import inspect
import pkgutil
import typing

import jax
import jax.numpy as jnp
import pytest
from beartype import beartype
from jaxtyping import jaxtyped
from messages import refused
from small import drawn

from ctd.cells import get_cell, run

PACKAGES = (
    "ctd.cells", "ctd.esn", "ctd.fixed_points", "ctd.lfads", "ctd.similarity", "ctd.tasks", "ctd.train_rnn",
)  # fmt: skip


def functions(package):
    """Every function and class of a package's modules that is defined there."""
    root = importlib.import_module(package)
    for info in pkgutil.walk_packages(root.__path__, f"{package}."):
        module = importlib.import_module(info.name)
        for value in vars(module).values():
            of_code = inspect.isfunction(value) or inspect.isclass(value)
            if of_code and value.__module__ == module.__name__:
                yield value


@pytest.mark.parametrize("package", PACKAGES)
def test_annotations_can_be_evaluated(package):
    """Python does not evaluate them by itself: a wrong one would show with `--shapes` alone."""
    found = [typing.get_type_hints(value) for value in functions(package)]
    assert len(found) > 10


def test_wrong_shape_is_refused():
    cell = get_cell("vanilla")
    weights = jax.tree.map(jnp.asarray, drawn(cell.shapes(4, 2), 4, 1, 0))
    checked = jaxtyped(run, typechecker=beartype)
    states, outputs = checked(cell, weights, jnp.zeros((3, 2)))
    assert (states.shape, outputs.shape) == ((3, 4), (3, 1))
    with refused(TypeError):
        checked(cell, weights, jnp.zeros((5, 3, 2)))
