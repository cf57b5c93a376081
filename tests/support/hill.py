"""A kernel for tests of searches: gradient descent on a quadratic, x <- x - rate h x + noise.

Each advance is one step, so every decision of a search can be followed by hand. Above 2 / max(h) the
descent diverges. Beside reals and counters the state has a random key, which goes from item to item with it.
"""

import jax
import jax.numpy as jnp
from pydantic import Field

from ctd.kernel import Batching, Data, Kernel, Outcome, Params, Static, Traced, Var


class Descent(Params):
    n: Static[int] = Field(3, gt=0, description="components")
    steps: Data[int] = Field(20, gt=0)
    rate: Traced[float] = Field(0.1, gt=0, le=10, description="learning rate")
    noise: Traced[float] = Field(0.0, ge=0, description="standard deviation of the noise")
    limit: Traced[int] = Field(10**6, description="steps after which an item finishes early")
    push: Traced[tuple[float, ...]] = (0.0,)
    seed: Traced[int] = 0


def load(inputs):
    return jnp.int32(inputs.steps)


def init(static, shared, traced, key):
    return {
        "x": 1 + jax.random.uniform(key, (static.n,), static.dtype),
        "step": jnp.int32(0),
        "end": jnp.minimum(shared, traced.limit).astype(jnp.int32),
        "key": key,
    }


def advance(static, shared, traced, key, state):
    slope = jnp.arange(1, static.n + 1) * state["x"]
    noise = traced.noise * jax.random.normal(jax.random.fold_in(key, state["step"]), (static.n,))
    x = state["x"] - traced.rate * slope + noise
    return state | {"x": x, "step": state["step"] + 1, "key": jax.random.fold_in(state["key"], 0)}


def diverged(state):
    return jnp.abs(state["x"]).max() > 100


def result(static, shared, traced, key, state):
    return {
        "x": state["x"],
        "loss": jnp.sum(jnp.arange(1, static.n + 1) * state["x"] ** 2),
        "gain": -jnp.sum(jnp.arange(1, static.n + 1) * state["x"] ** 2),
        "taken": state["step"],
        "drawn": jax.random.uniform(state["key"], dtype=jnp.float32),
        "outcome": jnp.where(diverged(state), 1, 0).astype(jnp.int32),
    }


kernel = Kernel(
    "hill",
    Descent,
    {
        "x": Var(("component",), "1", "position"),
        "loss": Var((), "1", "height"),
        "gain": Var((), "1", "minus the height", True),
        "never": Var((), "1", "a result of other params"),
        "taken": Var((), "1", "steps taken"),
        "drawn": Var((), "1", "a number of the key that the state has"),
        "outcome": Var((), "1", "how it ended"),
    },
    init,
    advance,
    lambda state: (state["step"] >= state["end"]) | diverged(state),
    result,
    load=load,
    outcomes=(Outcome("descended", "made its steps"), Outcome("diverged", "too far", failed=True)),
    batching=Batching(width=8),
)
