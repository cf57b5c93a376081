"""The descent of `hill.py`, whose height nobody can tell: NaN."""

from dataclasses import replace

import hill
import jax.numpy as jnp


def result(static, shared, traced, key, state):
    found = hill.result(static, shared, traced, key, state)
    return found | {"loss": jnp.full_like(found["loss"], jnp.nan)}


kernel = replace(hill.kernel, name="hill_unknown", result=result)
