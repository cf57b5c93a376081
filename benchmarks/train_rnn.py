"""What a network costs in an ensemble: K in one shard against K runs of one network each.

    python benchmarks/train_rnn.py [--networks 1 8 32] [--steps 20] [--rounds 3]

All in one process and one run. For each K the table has the rows

    separate    K runs, one after the other, each of one network (they share one compiled program)
    map         one shard, the networks one by one in a loop on the device (microbatch 1)
    vmap        one shard, the networks side by side (microbatch K)

and the columns

    steps/s     item-steps a second: networks x training steps / seconds of the best round
    CPU         the same by the process's CPU seconds, which other load on the machine disturbs less
    compile     seconds of the first advance less those of a later one; K processes would pay it K times
    memory      bytes beyond the networks themselves, as the compiler counts them

and marks the layout that the runner chooses (`ctd.batch.tune`), which should be the better one within 10 %.

A second table has what noise and constraints cost: the CPU seconds of a step of K = 8 leaky networks of rectified units,
one by one, with noise on states and inputs, with Dale's law, with a mask, of rank 2, over those of a plain one. Noise and Dale should
cost at most 15 %. All are run in turn, round after round; each is the best of its rounds.

A third table has K = 8 networks of cell gru_torch, in the layout that the runner chooses, beside the loops that one writes
without ctd (`loops.py`), and how many times as fast ctd is; aimed at are 2.5 (PyTorch loop), 1.8 (torch.func), 1.4
(JAX loop) and 1.0 (JAX vmap). The loops of PyTorch, 5 GB, need

    uv run --group frameworks python benchmarks/train_rnn.py

Threads of PyTorch that wait for each other stand still on a busy machine: give all of it one core there, by taskset -c 0.
"""

import argparse
import platform
import time
from importlib.metadata import version
from typing import NamedTuple

import jax
import numpy as np
from loops import loops
from options import parse

from ctd.batch import Layout, Run, program, traced_columns
from ctd.batch.tune import fastest_microbatch
from ctd.kernel import inputs_of, static_of, traced_of
from ctd.train_rnn import Network, kernel


class Row(NamedTuple):
    networks: int
    how: str
    wall: float
    """Seconds of one advance of all networks."""
    cpu: float
    compile: float
    memory: int


class Bench:
    def __init__(self, network: Network, rounds: int) -> None:
        self.network, self.rounds = network, rounds
        self.static = static_of(network)
        self.shared = kernel.load(inputs_of(network))
        self.compiled: dict[Layout, float] = {}

    def traced(self, n: int):
        columns = {k: np.repeat(v, n) for k, v in traced_of(self.network)._asdict().items()}
        return traced_columns(Network, columns, self.static.dtype)

    def run(self, n: int, layout: Layout) -> Run:
        prog = program(kernel, self.static, layout)
        run = Run(prog, self.shared, 0, np.arange(n), self.traced(n))
        run.block()
        return run

    def rows(self, n: int) -> list[Row]:
        """The ways, each compiled first, then timed in turn, round after round."""
        ways = {"separate": Layout(1, 1), "map": Layout(n, 1), "vmap": Layout(n, n)}
        if n == 1:
            del ways["map"], ways["vmap"]  # the same program
        runs = {
            how: [self.run(1 if how == "separate" else n, layout)] for how, layout in ways.items()
        }
        # A program is compiled once: its first advance here may find it made by an earlier K.
        first = {how: advance(runs[how])[0] for how in ways}
        memory = {how: runs[how][0].temporaries() for how in ways}
        runs["separate"] *= n
        walls = {how: [] for how in ways}
        cpus = {how: [] for how in ways}
        for _ in range(self.rounds):
            for how in ways:
                wall, cpu = advance(runs[how])
                walls[how].append(wall)
                cpus[how].append(cpu)
        rows = []
        for how, layout in ways.items():
            wall, cpu = min(walls[how]), min(cpus[how])
            self.compiled.setdefault(layout, first[how] - wall / len(runs[how]))
            rows.append(Row(n, how, wall, cpu, self.compiled[layout], memory[how]))
        return rows

    def choice(self, n: int) -> str:
        start = lambda layout, k: self.run(k, layout)
        m, _ = fastest_microbatch(kernel, start, n, n, 1, n_advances=10_000 * n)
        return "map" if m == 1 else "vmap"


EXTRAS = {
    "plain": {},
    "noise": {"noise": True, "state_noise": 0.05, "input_noise": 0.01},
    "Dale": {"dale": True},
    "noise and Dale": {"noise": True, "state_noise": 0.05, "input_noise": 0.01, "dale": True},
    "mask": {"mask": "random", "self_connections": False},
    "rank 2": {"rank": 2},
}


def extras(network: Network, rounds: int, n: int = 8) -> None:
    """Print what each of `EXTRAS` costs."""
    runs = {}
    for name, fields in EXTRAS.items():
        given = network.model_dump() | {"cell": "leaky:relu", "learning_rate": 1e-3} | fields
        runs[name] = [Bench(Network.model_validate(given), rounds).run(n, Layout(n, 1))]
        advance(runs[name])  # compiles
    cpu = dict.fromkeys(runs, float("inf"))
    for _ in range(rounds):
        for name, run in runs.items():
            cpu[name] = min(cpu[name], advance(run)[1])
    steps = n * network.report_every
    print(f"\n| leaky:relu, K = {n}, one by one | CPU ms a step | over plain |\n|---|---|---|")
    for name, seconds in cpu.items():
        print(f"| {name} | {1e3 * seconds / steps:.2f} | {seconds / cpu['plain']:.2f} |")


def beside(network: Network, rounds: int, n: int = 8) -> None:
    """Print how fast this is beside the loops of others."""
    network = Network.model_validate(network.model_dump() | {"cell": "gru_torch"})
    steps, bench = network.report_every, Bench(network, rounds)
    layout = Layout(n, 1 if bench.choice(n) == "map" else n)
    run = bench.run(n, layout)
    ways = {"ctd": lambda _: advance([run])} | loops(network, n)
    for way in ways.values():
        way(steps)  # compiles
    walls = {name: [] for name in ways}
    cpus = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start, cpu = time.perf_counter(), time.process_time()
            way(steps)
            walls[name].append(time.perf_counter() - start)
            cpus[name].append(time.process_time() - cpu)
    print(f"\n| gru_torch, K = {n} | steps/s | CPU steps/s | ctd is faster by | by CPU |")
    print("|---|---|---|---|---|")
    for name in ways:
        wall, cpu = min(walls[name]), min(cpus[name])
        ratios = f"{wall / min(walls['ctd']):.2f} | {cpu / min(cpus['ctd']):.2f}"
        print(f"| {name} | {n * steps / wall:.1f} | {n * steps / cpu:.1f} | {ratios} |")


def advance(runs: list[Run]) -> tuple[float, float]:
    """(wall, CPU) seconds of one advance of each run."""
    start, cpu = time.perf_counter(), time.process_time()
    for run in runs:
        run.advance()
        run.block()
    return time.perf_counter() - start, time.process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--networks", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--steps", type=int, default=20, help="training steps of one advance")
    parser.add_argument("--rounds", type=int, default=3, help="timed advances of each way")
    options = parse(parser, networks=[1, 2], steps=1, rounds=1)
    # So many batches that no advance is the last one: results are not part of the timing.
    network = Network(report_every=options.steps, n_batches=options.steps * 10_000)
    bench = Bench(network, options.rounds)
    device = jax.devices()[0].device_kind
    print(
        f"{platform.platform()}, {device}, {len(jax.devices())} device(s); Python "
        f"{platform.python_version()}, jax {jax.__version__}, optax {version('optax')}"
    )
    print(
        f"cell {network.cell}, n = {network.n}, minibatch {network.batch_size} x "
        f"{network.task.n_steps} steps, {network.dtype}; {options.steps} training steps an advance, "
        f"best of {options.rounds}\n"
    )
    print("| K | how | steps/s | CPU steps/s | compile s | memory MB | chosen |")
    print("|---|---|---|---|---|---|---|")
    for n in options.networks:
        rows, choice = bench.rows(n), bench.choice(n)
        for row in rows:
            done = n * options.steps
            mark = "*" if row.how == choice and n > 1 else ""
            print(
                f"| {row.networks} | {row.how} | {done / row.wall:.1f} | {done / row.cpu:.1f} | "
                f"{row.compile:.1f} | {row.memory / 1e6:.1f} | {mark} |",
                flush=True,
            )
    extras(network, options.rounds, min(8, options.networks[-1]))
    beside(network, options.rounds, min(8, options.networks[-1]))


if __name__ == "__main__":
    main()
