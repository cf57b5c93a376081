"""A kernel of many advances: the largest Lyapunov exponent of a random network x <- tanh(W x), sd(W) = g / sqrt(n).

Is it chaotic? Large networks are from g = 1 on (Sompolinsky, Crisanti & Sommers 1988, Phys Rev Lett 61:259). Every
network stops by itself, once its exponent is known to `tol`. Explained in docs/own-kernel.md; run it with
`ctd run examples/lyapunov.yaml`.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from pydantic import Field

from ctd.kernel import Display, Kernel, Outcome, Params, Static, Tables, Traced, Var
from ctd.tangent import mean_error, swing

STEPS = 1000
"""Steps of an advance, whose mean growth is one sample."""


class Network(Params):
    n: Static[int] = Field(100, gt=0, description="units")
    g: Traced[float] = Field(1.5, gt=0, description="gain")
    tol: Traced[float] = Field(2e-3, gt=0, description="standard error at which it stops")
    max_advances: Static[int] = Field(50, gt=4, description="advances after which it is given up")


def init(static, shared, traced, key):
    x, v = jax.random.normal(jax.random.fold_in(key, 1), (2, static.n), static.dtype)
    zero = jnp.zeros((), static.dtype)
    return {"x": x, "v": v, "advances": jnp.int32(0), "means": jnp.zeros(static.max_advances, static.dtype),
            "swings": zero, "error": zero + jnp.inf, "done": jnp.zeros((), bool)}  # fmt: skip


def advance(static, shared, traced, key, state):
    # Drawn again each time: kept in the state, W would be in every checkpoint.
    w = traced.g / static.n**0.5 * jax.random.normal(key, (static.n, static.n), static.dtype)

    def step(carry, _):
        x, v = carry
        x = jnp.tanh(w @ x)
        v = (1 - x**2) * (w @ v)  # how a small disturbance of x grows
        growth = jnp.linalg.norm(v)
        return (x, v / growth), jnp.log(growth)

    (x, v), logs = lax.scan(step, (state["x"], state["v"]), length=STEPS)
    n = state["advances"]  # samples so far: the first advance leads to the attractor, and is none
    # The first advance writes to the last place, which nothing reads.
    means = state["means"].at[n - 1].set(logs.mean())
    swings = jnp.where(n > 0, state["swings"] + swing(logs[:, None])[0], 0)
    # Neighbouring samples depend on each other, so that sd / sqrt(n) would be wrong.
    error = mean_error(means[:, None], n, swings[None] / jnp.maximum(n, 1) / STEPS**2)[0]
    done = (error < traced.tol) | (n + 1 >= static.max_advances)
    return {"x": x, "v": v, "advances": n + 1, "means": means, "swings": swings, "error": error, "done": done}  # fmt: skip


def result(static, shared, traced, key, state):
    n = state["advances"] - 1
    exponent = jnp.where(jnp.arange(static.max_advances) < n, state["means"], 0).sum() / n
    known = state["error"] < traced.tol
    return {"exponent": exponent, "error": state["error"], "outcome": jnp.where(known, 0, 1)}


def reduce(inputs, shared, columns, results, options):
    """Host side, in NumPy: the share of chaotic networks at each gain."""
    gains, which = np.unique(columns["g"], return_inverse=True)
    chaotic = np.asarray(results["exponent"]) > 0
    return {"gain": gains, "chaotic": np.bincount(which, chaotic) / np.bincount(which)}


kernel = Kernel(
    name="lyapunov",
    Params=Network,
    dims={
        "exponent": Var((), "1/step", "largest Lyapunov exponent"),
        "error": Var((), "1/step", "its standard error"),
        "outcome": Var((), "1", "how the measurement ended"),
    },
    init=init,
    advance=advance,
    finished=lambda state: state["done"],
    result=result,
    outcomes=(
        Outcome("known", "the standard error is below tol"),
        Outcome("limit", "max_advances reached"),
    ),
    tables=Tables(
        reduce=reduce,
        dims={
            "gain": Var(("gain_index",), "1", "gain g"),
            "chaotic": Var(("gain_index",), "1", "share of networks with a positive exponent"),
        },
    ),
    display=Display(
        summary=("gain", "chaotic"),
    ),
)
