"""Kernel: the square root of a rate; a rate above 3 is an error."""

import jax
import jax.numpy as jnp
import numpy as np

from ctd.kernel import Params, Traced, Var, one_shot


class Unlucky(Params):
    rate: Traced[float] = 1.0


def root(rate):
    if rate > 3:
        raise ValueError(f"rate: {rate} given, at most 3 expected")
    return np.sqrt(rate)


def square_root(static, shared, traced, key):
    scalar = jax.ShapeDtypeStruct((), jnp.float32)
    return {"root": jax.pure_callback(root, scalar, traced.rate, vmap_method="sequential")}


kernel = one_shot("unlucky", Unlucky, {"root": Var((), "", "of the rate")}, square_root)
