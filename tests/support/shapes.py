"""The checker of types that `pytest --shapes` wraps functions with."""

from beartype import BeartypeConf, beartype

# As for mypy, a whole number passes for a float.
checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
