"""The scripts that made tests/data."""

import importlib.util

from places import DATA


def load_script(name):
    """The module tests/data/NAME.py, afresh; what it makes is made by its functions."""
    spec = importlib.util.spec_from_file_location(name, DATA / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
