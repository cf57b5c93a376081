"""Fixed points of the decision GRU: lm and adam, beside the tutorials' algorithm, in one run.

    python benchmarks/fixed_points.py [--candidates 1000 10000] [--cap 60] [--devices 2]

Tolerances are on the tutorials' loss, the mean over units of (F(h) - h)^2 = 2 q / n. Times are of compiled
programs, wall clock, searches and unique points; every search runs on all devices together.

`batch adam` is the algorithm of the computation-through-dynamics tutorials, written anew: all candidates
are one Adam problem, whose loss is the mean over the batch, in float32; it ends when that mean is
below the tolerance, after 10,000 steps or after --cap seconds, and points are told apart by all
pairwise distances.
"""

import argparse
import os
import platform
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    # One CPU device a core: a vmapped search is a chain of small products, too short to split.
    cores = len(os.sched_getaffinity(0))
    flag = f"--xla_force_host_platform_device_count={cores}"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()

import jax
import jax.numpy as jnp
import numpy as np
import optax
from options import parse
from scipy.spatial.distance import pdist, squareform

import ctd.fixed_points as fp
from ctd.batch import Layout, layout_for, precision, run_items
from ctd.cells import get_cell
from ctd.fixed_points.kernel import FixedPoint
from ctd.kernel import inputs_of

WEIGHTS = Path(__file__).parent.parent / "examples" / "decision_gru.h5"
TOLERANCES = (1e-4, 1e-6, 1e-12)
UNIQUE_TOL = 0.025
"""Of the batch algorithm, in units of h."""

HEADER = (
    "method      type     tolerance  candidates  seconds   CPU s  cand./s  converged   fixed    slow"
    "  unique  largest residual  peak MB"
)


class Clock:
    """Seconds of wall time and of this process's CPU time since it was made, when stopped."""

    def __init__(self) -> None:
        self.wall, self.cpu = -time.perf_counter(), -time.process_time()

    def stop(self) -> "Clock":
        self.wall += time.perf_counter()
        self.cpu += time.process_time()
        return self


def row(name: str, dtype: str, tol: float, n: int, clock: Clock, found: dict[str, Any]) -> str:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return (
        f"{name:<11} {dtype:<8} {tol:9.0e} {n:11d} {clock.wall:8.2f} {clock.cpu:7.2f} "
        f"{n / clock.wall:8.0f} "
        f"{found['converged']:9.2%} {found['fixed']:7d} {found['slow']:7d} {found['unique']:7d} "
        f"{found['residual']:17.2e} {peak:8.0f}"
    )


def per_candidate(
    method: str, dtype: str, tol: float, n: int, network: Any, layout: Layout, max_iterations: int
) -> tuple[Clock, dict[str, Any]]:
    """Every candidate by itself, as the kernel does it."""
    units = network.states.shape[-1]
    params = FixedPoint(
        weights=str(WEIGHTS),
        method=method,
        dtype=dtype,
        q_tol=tol * units / 2,
        max_iterations=max_iterations,
    )
    with precision(params):
        shared = fp.kernel.load(inputs_of(params))
    columns = lambda k: {"candidate": np.arange(k)}
    noise = 0.0 if n <= len(shared.states.reshape(-1, units)) else 0.01
    params = params.model_copy(update={"noise": noise})
    # The program for this layout is compiled on a few candidates, with one iteration each.
    short = params.model_copy(update={"max_iterations": 1})
    run_items(fp.kernel, short, columns(8), shared=shared, layout=layout)
    clock = Clock()
    results = run_items(fp.kernel, params, columns(n), shared=shared, layout=layout)
    outcome = results["outcome"]
    settled = outcome <= 1
    ordered = np.lexsort((results["q"], outcome))
    ordered = ordered[settled[ordered]]
    leaders = fp.unique.cover(results["point"][ordered], UNIQUE_TOL)
    clock.stop()
    return clock, {
        "converged": settled.mean(),
        "fixed": int((outcome == 0).sum()),
        "slow": int((outcome == 1).sum()),
        "unique": len(np.unique(leaders)),
        "residual": results["residual"][settled].max(initial=0),
    }


def batch_adam(tol: float, states: np.ndarray, weights: Any, cap: float) -> tuple[Clock, Any]:
    """The tutorials' algorithm: one Adam over the whole batch, then all pairwise distances."""
    x = jnp.zeros(get_cell("gru").infer(weights)[1])
    losses = jax.vmap(lambda h: jnp.mean((get_cell("gru").step(weights, h, x) - h) ** 2))
    rate = optax.exponential_decay(0.2, 1, 0.9999)
    adam = optax.adam(rate, b1=0.9, b2=0.999, eps=1e-5)

    @jax.jit
    def hundred(h: jax.Array, state: Any) -> tuple[jax.Array, Any, jax.Array]:
        def body(carry: Any, _: None) -> tuple[Any, None]:
            h, state = carry
            gradient = jax.grad(lambda h: jnp.mean(losses(h)))(h)
            updates, state = adam.update(gradient, state)
            return (optax.apply_updates(h, updates), state), None

        (h, state), _ = jax.lax.scan(body, (h, state), length=100)
        return h, state, losses(h)

    h = jnp.asarray(states, jnp.float32)
    state = adam.init(h)
    jax.block_until_ready(hundred(h, state))
    clock, start = Clock(), time.perf_counter()
    for _ in range(100):
        h, state, loss = hundred(h, state)
        if float(loss.mean()) < tol or time.perf_counter() - start > cap:
            break
    kept = np.asarray(h)[np.asarray(loss) < tol]
    unique = unique_by_pairs(kept) if len(kept) else 0
    clock.stop()
    residual = float(np.sqrt(np.max(np.asarray(loss), where=loss < tol, initial=0) * h.shape[1]))
    return clock, {
        "converged": len(kept) / len(h),
        "fixed": len(kept),
        "slow": 0,
        "unique": unique,
        "residual": residual,
    }


def unique_by_pairs(points: np.ndarray) -> int:
    """How many points are left when every point drops those after it within UNIQUE_TOL."""
    close = squareform(pdist(points)) <= UNIQUE_TOL
    return len(points) - int(np.triu(close, 1).any(axis=0).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--candidates", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--tolerances", type=float, nargs="+", default=list(TOLERANCES))
    parser.add_argument("--methods", nargs="+", default=["lm", "adam", "batch"])
    parser.add_argument("--cap", type=float, default=60.0, help="seconds of a batch adam run")
    parser.add_argument("--max-iterations", type=int, default=10_000)
    parser.add_argument("--devices", type=int, default=len(jax.local_devices()))
    args = parse(parser, candidates=[20], tolerances=[1e-4], cap=1.0, max_iterations=50)
    params = FixedPoint(weights=str(WEIGHTS), dtype="float32")
    network = fp.kernel.load(inputs_of(params))
    states = network.states.reshape(-1, network.states.shape[-1])
    print(
        f"{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores, ",
        end="",
    )
    print(f"{args.devices} devices; Python {platform.python_version()}, jax {jax.__version__}")
    print(
        f"{WEIGHTS.name}: GRU of {states.shape[1]} units, {len(states)} candidate states\n{HEADER}"
    )
    runs: list[Callable[[float, int], None]] = []

    def one(method: str, dtype: str) -> Callable[[float, int], None]:
        def run(tol: float, n: int) -> None:
            layout = layout_for(fp.kernel, n, args.devices)
            out = per_candidate(method, dtype, tol, n, network, layout, args.max_iterations)
            print(row(method, dtype, tol, n, *out), flush=True)

        return run

    def batch(tol: float, n: int) -> None:
        if n <= len(states):
            out = batch_adam(tol, states[:n], network.weights, args.cap)
            print(row("batch adam", "float32", tol, n, *out), flush=True)

    if "lm" in args.methods:
        runs += [one("lm", "float64"), one("lm", "float32")]
    if "adam" in args.methods:
        runs += [one("adam", "float32")]
    if "batch" in args.methods:
        runs += [batch]
    for n in args.candidates:
        for run in runs:
            for tol in args.tolerances:
                run(tol, n)


if __name__ == "__main__":
    main()
