"""Fixed points of the decision GRU: lm and adam, beside the tutorials' algorithm, in one run.

    python benchmarks/fixed_points.py [--candidates 1000 10000] [--cap 60] [--devices 2] [--chaotic 200] [--distinct 10000]

Then a GRU of 500 units with random weights near chaos (`--chaotic 0`: none), and how long it takes to tell
`--distinct` points apart.

Tolerances are on the tutorials' loss, the mean over units of (F(h) - h)^2 = 2 q / n. Times are of compiled
programs, wall clock, searches and unique points; lm and adam run on all devices together, batch adam on one.

`batch adam` is the algorithm of the computation-through-dynamics tutorials, written anew: all candidates
are one Adam problem, whose loss is the mean over the batch, in float32; it ends when that mean is
below the tolerance, after 10,000 steps or after --cap seconds, and points are told apart by all
pairwise distances.
"""

import argparse
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
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
from ctd.cells import Scales, get_cell
from ctd.fixed_points.search import unique
from ctd.fixed_points.search.params import FixedPoint
from ctd.kernel import inputs_of
from ctd.tasks import Decision
from ctd.weights import write_weights

WEIGHTS = Path(__file__).parent.parent / "examples" / "decision_gru.h5"
TOLERANCES = (1e-4, 1e-6, 1e-12)
UNIQUE_TOL = 0.025
"""Of the batch algorithm, in units of h."""

HEADER = (
    "method      type     tolerance  candidates  seconds   CPU s  cand./s  converged   fixed    slow"
    "  unique  largest residual"
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
    return (
        f"{name:<11} {dtype:<8} {tol:9.0e} {n:11d} {clock.wall:8.2f} {clock.cpu:7.2f} "
        f"{n / clock.wall:8.0f} "
        f"{found['converged']:9.2%} {found['fixed']:7d} {found['slow']:7d} {found['unique']:7d} "
        f"{found['residual']:17.2e}"
    )


def per_candidate(
    params: FixedPoint, tol: float, n: int, layout: Layout
) -> tuple[Clock, dict[str, Any]]:
    """Every candidate by itself, as the kernel does it."""
    with precision(params):
        shared = fp.kernel.load(inputs_of(params))
    units = shared.states.shape[-1]
    params = params.model_copy(update={"q_tol": tol * units / 2})
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
    leaders = unique.cover(results["point"][ordered], UNIQUE_TOL)
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


def chaotic_gru(folder: Path) -> FixedPoint:
    """A GRU of 500 units with random weights; the spectral radius of dF/dh at 0 is 1.29."""
    path = folder / "chaotic.h5"
    write_weights(path, get_cell("gru").init(jax.random.key(5), 500, 1, 1, Scales(3.5)), "gru")
    return FixedPoint(weights=str(path), task=Decision(n_steps=25), n_trials=8)


def tell_apart(n: int) -> str:
    """The time to tell n points apart that are all distinct, and n that lie at three places."""
    rng = np.random.default_rng(0)
    crowds = rng.standard_normal((3, 100))[rng.integers(3, size=n)]
    clouds = {"distinct": rng.standard_normal((n, 100)), "at 3": crowds}
    took = []
    for name, points in clouds.items():
        clock = Clock()
        basins = unique.Basins(1e-3, points.shape[1])
        basins.add(points, np.zeros(n, int), np.arange(n, dtype=float))
        basins.points()
        clock.stop()
        took.append(f"{name} {clock.wall:.3f} s (CPU {clock.cpu:.3f})")
    return f"{n} points: {', '.join(took)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--candidates", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--tolerances", type=float, nargs="+", default=list(TOLERANCES))
    parser.add_argument("--methods", nargs="+", default=["lm", "adam", "batch"])
    parser.add_argument("--cap", type=float, default=60.0, help="seconds of a batch adam run")
    parser.add_argument("--max-iterations", type=int, default=10_000)
    parser.add_argument("--devices", type=int, default=len(jax.local_devices()))
    parser.add_argument("--chaotic", type=int, default=200, help="candidates of the chaotic GRU")
    parser.add_argument("--distinct", type=int, nargs="+", default=[10_000, 100_000])
    tiny = {"candidates": [20], "tolerances": [1e-4], "max_iterations": 50, "cap": 1.0}
    args = parse(parser, **tiny, chaotic=0, distinct=[1000])
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
            search = params.model_copy(
                update={"method": method, "dtype": dtype, "max_iterations": args.max_iterations}
            )
            out = per_candidate(search, tol, n, layout_for(fp.kernel, n, args.devices))
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
    if args.chaotic:
        with TemporaryDirectory() as folder:
            print("GRU of 500 units near chaos")
            params = chaotic_gru(Path(folder))
            run = one("lm", "float64")
            run(1e-12, args.chaotic)
    for n in args.distinct:
        print(tell_apart(n), flush=True)


if __name__ == "__main__":
    main()
