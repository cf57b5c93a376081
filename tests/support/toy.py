"""A small iterative kernel for tests: a random walk x <- a x + noise, whose items stop at their own times.

Everything that the runner must handle is in it: a traced tuple, a static field that changes shapes, a
data field, an outcome that fails, an axis with coordinates, a reduction.
"""

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ctd.kernel import (
    Batching,
    Coordinate,
    Data,
    Display,
    Kernel,
    Outcome,
    Params,
    Static,
    Tables,
    Traced,
    Var,
)


class Walk(Params):
    n: Static[int] = Field(4, gt=0, le=1000, description="components")
    offset: Data[float] = 0.0
    n_steps: Traced[int] = Field(10, ge=0, description="steps until it stops")
    rate: Traced[float] = Field(0.5, gt=-1, description="a")
    push: Traced[tuple[float, ...]] = Field((0.0, 0.0), description="added to the first components")


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid")
    top: int = Field(3, gt=0)


def load(inputs):
    return np.full(inputs.n, inputs.offset, inputs.dtype)


def init(static, shared, traced, key):
    del key
    x = shared + jnp.zeros(static.n, static.dtype)
    return {"x": x, "step": jnp.int32(0), "n_steps": traced.n_steps}


def advance(static, shared, traced, key, state):
    def step(_, s):
        noise = jax.random.normal(jax.random.fold_in(key, s["step"]), (static.n,), static.dtype)
        push = jnp.pad(traced.push, (0, static.n))[: static.n]
        x = traced.rate * s["x"] + noise + push
        live = s["step"] < s["n_steps"]
        return {**s, "x": jnp.where(live, x, s["x"]), "step": s["step"] + live}

    return jax.lax.fori_loop(0, 3, step, state)


def finished(state):
    return (state["step"] >= state["n_steps"]) | ~jnp.isfinite(state["x"]).all()


def result(static, shared, traced, key, state):
    return {
        "x": state["x"],
        "norm": jnp.sqrt(jnp.sum(state["x"] ** 2)),
        "steps": state["step"],
        "outcome": jnp.where(jnp.isfinite(state["x"]).all(), 0, 1).astype(jnp.int32),
    }


def reduce(inputs, shared, columns, results, options):
    order = np.argsort(results["norm"])[::-1][: options.top]
    return {"best_norm": results["norm"][order], "best_item": columns["item"][order]}


kernel = Kernel(
    "toy",
    Walk,
    {
        "x": Var(("component",), "m", "position"),
        "norm": Var((), "m", "distance"),
        "steps": Var((), "1", "steps"),
        "outcome": Var((), "1", "how it ended"),
    },
    init,
    advance,
    finished,
    result,
    load=load,
    outcomes=(Outcome("stopped", "ran its steps"), Outcome("diverged", "not finite", failed=True)),
    coords=lambda inputs, shared: {
        "component": Coordinate(np.arange(inputs.n) * 0.5, "m", "place")
    },
    tables=Tables(
        reduce=reduce,
        dims={
            "best_norm": Var(("place",), "m", "largest distances"),
            "best_item": Var(("place",), "item", "their items"),
        },
        Options=Options,
    ),
    display=Display(
        summary=("best_norm", "best_item"),
    ),
    batching=Batching(width=8),
)


def walk(item, seed, n, offset, n_steps, rate, push, dtype=np.float64):
    """The same walk in NumPy but for the draws: what an item must come to, whatever it runs beside."""
    key = jax.random.fold_in(jax.random.key(seed), item)
    x = np.full(n, offset, dtype)
    for step in range(n_steps):
        noise = np.asarray(jax.random.normal(jax.random.fold_in(key, step), (n,), dtype))
        x = rate * x + noise + np.pad(push, (0, n))[:n]
    return x
