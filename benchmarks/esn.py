"""Speed of echo-state training beside its neighbours, in one run on one core.

    python benchmarks/esn.py               table; with reservoirpy beside it where that is installed
    python benchmarks/esn.py --units 5000 --steps 60 --rounds 3 --force    FORCE alone

FORCE and ridge steps a second against reservoirpy (NumPy) and against the rank-1 algorithm of the FORCE
notebook of computation-thru-dynamics; one core against two for an ensemble of 64; bytes that a step
moves against the bandwidth of this machine. reservoirpy computes in float64 (its JAX part in float32), ctd in
float32 but for the normal equations of a ridge fit. Networks are drawn and scaled beforehand. Contenders
take turns, and times are CPU times of the one core (a busy machine then costs cache, not time slices);
those on two cores are wall times.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

from options import parse

ENSEMBLE = 64


def pin(cores: list[int]) -> None:
    """Keep this process, and the thread pools that it is about to make, on these cores."""
    os.sched_setaffinity(0, cores)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(len(cores))
    flag = f"--xla_force_host_platform_device_count={len(cores)}"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}"


def take_turns(contenders: dict[str, Callable[[], Any]], rounds: int = 7) -> dict[str, float]:
    """Median CPU seconds of one call of each; every round calls all, after a first to compile."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, call in contenders.items():
            start = time.process_time()
            call()
            if turn:
                seconds[name].append(time.process_time() - start)
    return {name: sorted(values)[rounds // 2] for name, values in seconds.items()}


def ours(**params: Any) -> Callable[[], Any]:
    """One advance of one network: a pass of FORCE, or a ridge fit."""
    import jax
    import jax.numpy as jnp

    from ctd import esn
    from ctd.batch import precision
    from ctd.kernel import inputs_of, static_of, traced_of

    given = esn.EchoState(**params)
    static = static_of(given)
    with precision(static):
        shared = jax.tree.map(jnp.asarray, esn.load(inputs_of(given)))
        shared = jax.tree.map(lambda leaf: leaf.astype(static.dtype), shared)
        values = traced_of(given)
        traced = type(values)(*(jnp.asarray(v, static.dtype) for v in values))
        key = jax.random.key(0)
        state = jax.jit(lambda key: esn.init(static, shared, traced, key))(key)
        step = jax.jit(lambda key, state: esn.advance(static, shared, traced, key, state))
        step(key, state)

    def call() -> None:
        with precision(static):
            jax.block_until_ready(step(key, state))

    return call


def rank_one(n: int, m: int, steps: int, fused: bool) -> Callable[[], Any]:
    """FORCE with P updated at every step, states and outputs kept, in a fori_loop.

    As in the notebook, whose updates of P and of the readout are products of a column and a row; XLA
    makes a matrix of each before it is added. `fused`: the same numbers as outer products, which XLA
    subtracts as it goes: the best that rank-1 updates come to.
    """
    import jax
    import jax.numpy as jnp

    keys = jax.random.split(jax.random.key(0), 4)
    w = 1.5 / n**0.5 * jax.random.normal(keys[0], (n, n))
    feedback = jax.random.normal(keys[1], (n, m))
    readout = jax.random.normal(keys[2], (m, n)) / n**0.5
    a = 0.25 * jax.random.normal(keys[3], (n,))
    f = jnp.sin(jnp.arange(steps)[:, None] / 10 + jnp.arange(m))
    product = jnp.outer if fused else lambda u, v: u[:, None] @ v[None, :]

    def body(t: Any, c: Any) -> Any:
        a, h, z, readout, P, states, outputs = c
        a = a + 0.1 * (w @ h + feedback @ z - a)
        h = jnp.tanh(a)
        z = readout @ h
        k = P @ h
        c = 1 / (1 + h @ k)
        P = P - product(c * k, k)
        readout = readout + product(-c * k, z - f[t]).T
        return a, h, z, readout, P, states.at[t].set(h), outputs.at[t].set(z)

    def run(readout: Any, a: Any) -> Any:
        h = jnp.tanh(a)
        empty = (jnp.zeros((steps, n)), jnp.zeros((steps, m)))
        start = (a, h, readout @ h, readout, jnp.eye(n), *empty)
        return jax.lax.fori_loop(0, steps, body, start)

    compiled = jax.jit(run)
    return lambda: jax.block_until_ready(compiled(readout, a))


def neighbour() -> ModuleType | None:
    """reservoirpy, where it is installed."""
    try:
        import reservoirpy
    except ModuleNotFoundError:
        return None
    return reservoirpy


def neighbour_force(reservoirpy: ModuleType, n: int, m: int, steps: int) -> Callable[[], Any]:
    import numpy as np

    nodes = reservoirpy.nodes
    # A matrix of our own: scaling one to a spectral radius takes minutes at n = 5,000.
    w = 1.5 / n**0.5 * np.random.default_rng(0).standard_normal((n, n))
    reservoir = nodes.Reservoir(n, lr=0.1, W=w, seed=0)
    readout = nodes.RLS(alpha=1.0, fit_bias=False)
    model = reservoirpy.ESN(reservoir=reservoir, readout=readout, feedback=True)
    x = np.zeros((steps, 1))
    y = np.sin(np.arange(steps)[:, None] / 10 + np.arange(m))
    return lambda: model.partial_fit(x, y)


def neighbour_ridge(reservoirpy: ModuleType, n: int, y: Any, washout: int) -> Callable[[], Any]:
    nodes = reservoirpy.nodes
    reservoir = nodes.Reservoir(n, lr=0.75, sr=1.0, rc_connectivity=1.0, seed=0)
    model = reservoir >> nodes.Ridge(ridge=1e-6)
    # Otherwise the first fit of a model draws W and scales it to its spectral radius, a third of its time.
    model.initialize(y[:-1], y[1:])
    return lambda: model.fit(y[:-1], y[1:], warmup=washout)


def force(n: int, m: int, steps: int, rounds: int) -> dict[str, float]:
    """Steps a second of FORCE."""
    contenders = {
        "ctd": ours(n=n, m=m, train=steps, passes=1),
        "rank-1, the notebook's": rank_one(n, m, steps, fused=False),
        "rank-1, fused": rank_one(n, m, steps, fused=True),
    }
    if (other := neighbour()) is not None:
        contenders["reservoirpy"] = neighbour_force(other, n, m, steps)
        of_jax = importlib.import_module("reservoirpy.jax")
        contenders["reservoirpy.jax"] = neighbour_force(of_jax, n, m, steps)
    return {name: steps / s for name, s in take_turns(contenders, rounds).items()}


def ridge(n: int, steps: int) -> dict[str, float]:
    """Steps a second of a ridge readout on a Mackey-Glass series, washout included."""
    from ctd.esn.series import mackey_glass

    washout = 100
    given = {"target": "mackey-glass-17", "m": 1, "dt": 1.0, "n": n, "dynamics": "discrete"}
    given |= {"g": 1.0, "leak": 0.75, "washout": washout, "train": steps - washout}
    contenders = {"ctd": ours(readout="ridge", intercept=True, **given)}
    if (other := neighbour()) is not None:
        contenders["reservoirpy"] = neighbour_ridge(other, n, mackey_glass(steps + 1), washout)
    return {name: steps / s for name, s in take_turns(contenders).items()}


def bandwidth(n: int, m: int, seconds_a_step: float, block: int = 30) -> dict[str, float]:
    """Bytes of a FORCE step, and its share of the rate at which this core reads as large a matrix."""
    import jax
    import jax.numpy as jnp

    moved = {
        "W_R, W_F": n * (n + m),
        "P, without a quarter": 0.75 * n * n,
        "K, twice": 2 * block * n,
        "P of a flush, read and written": 1.5 * n * n / block,
        "readout, read twice and written": 3 * n * m,
    }
    total = 4 * sum(moved.values())
    rows = jax.random.normal(jax.random.key(0), (round(total / 4 / n), n)) / n
    product = jax.jit(
        lambda rows, h: jax.lax.fori_loop(0, 100, lambda i, h: jnp.tanh((rows @ h)[:n]), h)
    )
    call = lambda: jax.block_until_ready(product(rows, jnp.ones(n)))
    rate = total * 100 / take_turns({"read": call})["read"]
    return {"bytes": total, "rate": rate, "share": total / rate / seconds_a_step}


def ensemble(n: int, devices: int) -> tuple[float, float]:
    """Wall and CPU seconds of one pass of FORCE over the ensemble; the best of three."""
    import numpy as np

    from ctd import esn
    from ctd.batch import Layout, Run, program
    from ctd.kernel import inputs_of, static_of, traced_of

    given = esn.EchoState(n=n, passes=5)
    static, values = static_of(given), traced_of(given)
    traced = type(values)(*(np.full(ENSEMBLE, v, np.float32) for v in values))
    prog = program(esn.kernel, static, Layout(ENSEMBLE // devices, 1, devices))
    run = Run(prog, esn.load(inputs_of(given)), 0, np.arange(ENSEMBLE), traced)
    run.advance()
    run.block()
    seconds = []
    for _ in range(3):
        wall, cpu = time.perf_counter(), time.process_time()
        run.advance()
        run.block()
        seconds.append((time.perf_counter() - wall, time.process_time() - cpu))
    return min(seconds)


def on_cores(n: int, cores: list[int]) -> tuple[float, float]:
    """`ensemble` in a process of its own on these cores, a device each."""
    command = [sys.executable, __file__, "--units", str(n), "--ensemble", *map(str, cores)]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    wall, cpu = json.loads(found.stdout)
    return wall, cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--units", type=int, default=500)
    parser.add_argument("--outputs", type=int, default=20)
    parser.add_argument("--steps", type=int, default=300, help="of a pass of FORCE")
    parser.add_argument("--rounds", type=int, default=7, help="of FORCE")
    parser.add_argument("--force", action="store_true", help="FORCE alone")
    parser.add_argument("--core", type=int, default=0, help="the core that single-core parts use")
    parser.add_argument("--ensemble", type=int, nargs="+", help=argparse.SUPPRESS)
    given = parse(parser, units=20, outputs=2)
    cores = sorted(os.sched_getaffinity(0))
    pin(given.ensemble or [given.core])
    n, m = given.units, given.outputs
    if given.ensemble:
        print(json.dumps(ensemble(n, len(given.ensemble))))
        return
    tables = [("FORCE", force(n, m, given.steps, given.rounds))]
    tables += [] if given.force else [("ridge", ridge(n, 3000))]
    for title, speeds in tables:
        for name, speed in speeds.items():
            ratio = f"ctd is {speeds['ctd'] / speed:.2f} times as fast" if name != "ctd" else ""
            print(f"{title:8}{name:24}{speed:10,.0f} steps/s  {ratio}")
        if title == "FORCE":
            moved = bandwidth(n, m, 1 / speeds["ctd"])
            print(
                f"        a step moves {moved['bytes'] / 1e6:.2f} MB; a core reads that much at "
                f"{moved['rate'] / 1e9:.0f} GB/s: {moved['share']:.0%} of a step"
            )
    if len(cores) > 1 and not given.force:
        os.sched_setaffinity(0, cores)
        one, two = on_cores(n, cores[:1]), on_cores(n, cores[:2])
        for name, (wall, cpu) in (("one core", one), ("two cores", two)):
            print(
                f"ensemble of {ENSEMBLE} on {name}: a pass takes {wall:.2f} s, {cpu:.2f} s of CPU"
            )
        print(f"        two cores are {one[0] / two[0]:.2f} times as fast as one")


if __name__ == "__main__":
    main()
