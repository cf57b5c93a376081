"""What a step of LFADS costs: K models in one shard, beside the seed's formulation and lfads-torch's.

    python benchmarks/lfads.py [--models 1 4 16] [--steps 4] [--rounds 3] [--long 100]
    python benchmarks/lfads.py --torch PYTHON      an interpreter that has torch, if this one has not

All on one core and in one run; a whole machine runs one such process a core. The shapes are those of the
integrator data: minibatch 128, 25 bins, 100 units; encoder, controller and generator 128, 32 factors, one
inferred input. Contenders:

    map, vmap     K models of ctd one by one, or side by side; marked: what the runner picks (ctd.batch.tune)
    seed          one model in the formulation of the tutorial of computation through dynamics: functions
                  of one trial under vmap, [h, x] in one product a step, KL of a draw, unrolled over time
    torch         one model as lfads-torch builds it: two bidirectional encoders and a decoder of GRU cells
                  written out, states clipped, looped over time in Python; 1.45 times the products

Times are CPU seconds of the one core, the least of the rounds: a busy machine costs cache, not time slices.
Compile times are CPU seconds of the first advance less those of a later one, at 25 bins and at `--long`.
Memory is the compiler's own count of temporaries, a model.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from options import parse

BATCH, BINS, UNITS, HIDDEN, FACTORS = 128, 25, 100, 128, 32


def pin() -> None:
    """Keep this process and its thread pools on one core."""
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, [core])
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NPROC"):
        os.environ[name] = "1"


def timed(call: Callable[[], Any], rounds: int) -> tuple[float, float]:
    """(CPU seconds of the first call, the least of later ones)."""
    seconds = []
    for _ in range(rounds + 1):
        start = time.process_time()
        call()
        seconds.append(time.process_time() - start)
    return seconds[0], min(seconds[1:])


def counts(n_bins: int) -> Any:
    import numpy as np

    return np.random.default_rng(0).poisson(1.6, (1024, n_bins, UNITS)).astype(np.uint8)


# --- ctd ------------------------------------------------------------------------------------------


class Ours:
    """Models of ctd through the runner's own program."""

    def __init__(self, steps: int, n_bins: int = BINS) -> None:
        from ctd.kernel import static_of
        from ctd.lfads import Model
        from ctd.lfads.data import make_dataset

        # So many batches that no advance is the last one, and one trial to evaluate.
        self.model = Model(report_every=steps, n_batches=10_000 * steps, batch_size=BATCH)
        data = counts(n_bins)
        self.static = static_of(self.model)
        self.shared = make_dataset({"train": data, "eval": data[:1]}, self.model)

    def traced(self, n: int) -> Any:
        import numpy as np

        from ctd.batch import traced_columns
        from ctd.kernel import traced_of

        columns = {k: np.repeat(v, n) for k, v in traced_of(self.model)._asdict().items()}
        return traced_columns(type(self.model), columns, self.static.dtype)

    def run(self, n: int, microbatch: int) -> Any:
        import numpy as np

        from ctd.batch import Layout, Run, program
        from ctd.lfads import kernel

        prog = program(kernel, self.static, Layout(n, microbatch))
        made = Run(prog, self.shared, 0, np.arange(n), self.traced(n))
        made.block()
        return made

    def row(self, n: int, microbatch: int, rounds: int) -> tuple[float, float, float]:
        """(model-steps a CPU second, CPU seconds to compile, MB of temporaries a model)."""
        run = self.run(n, microbatch)

        def advance() -> None:
            run.advance()
            run.block()

        first, least = timed(advance, rounds)
        memory = run.temporaries() / n / 1e6
        return n * self.static.report_every / least, first - least, memory

    def choice(self, n: int) -> int:
        from ctd.batch.tune import fastest_microbatch
        from ctd.lfads import kernel

        return fastest_microbatch(
            kernel, lambda at, k: self.run(k, at.microbatch), n, n, 1, math.inf
        )[0]


# --- the seed's formulation -----------------------------------------------------------------------


def seed_step(steps: int, n_bins: int) -> Callable[[], Any]:
    """A block of steps as in the tutorial's LFADS, with a key of its own for every step."""
    import jax
    import jax.numpy as jnp
    import optax

    from ctd.cells import gru

    keys = iter(jax.random.split(jax.random.key(0), 100))
    cell = lambda n, n_in: gru.init(next(keys), n, n_in, 1)
    affine = lambda n_out, n_in: {
        "w": jax.random.normal(next(keys), (n_out, n_in)) / n_in**0.5,
        "b": jnp.zeros(n_out),
    }
    weights = {
        "forward": cell(HIDDEN, UNITS),
        "backward": cell(HIDDEN, UNITS),
        "ic": affine(2 * HIDDEN, 2 * HIDDEN),
        "controller": cell(HIDDEN, 2 * HIDDEN + FACTORS),
        "inputs": affine(2, HIDDEN),
        "generator": cell(HIDDEN, 1),
        "factors": jax.random.normal(next(keys), (FACTORS, HIDDEN)) / HIDDEN**0.5,
        "rates": affine(UNITS, FACTORS),
        "ic_prior": {"mean": jnp.zeros(HIDDEN), "logvar": jnp.full(HIDDEN, jnp.log(0.1))},
        "ar1": {"mean": jnp.zeros(1), "logvar": jnp.full(1, jnp.log(0.1)), "log_tau": jnp.zeros(1)},
    }
    apply = lambda layer, x: layer["w"] @ x + layer["b"]

    def dropout(key: Any, x: Any) -> Any:
        return jnp.where(jax.random.bernoulli(key, 0.98, x.shape), x / 0.98, 0)

    def log_density(z: Any, mean: Any, logvar: Any) -> Any:
        return -0.5 * (jnp.log(2 * jnp.pi) + logvar + (z - mean) ** 2 / jnp.exp(logvar))

    def encode(w: Any, x: Any, key: Any) -> Any:
        key_x, key_h, key_ends = jax.random.split(key, 3)
        x = dropout(key_x, x)

        def scan(cell: Any, x: Any) -> Any:
            step = lambda h, x: (gru.step(cell, h, x),) * 2
            return jax.lax.scan(step, cell["h0"], x)[1]

        forward, backward = scan(w["forward"], x), scan(w["backward"], x[::-1])[::-1]
        both = dropout(key_h, jnp.concatenate([forward, backward], axis=1))
        ends = dropout(key_ends, jnp.concatenate([forward[-1], backward[0]]))
        return both, *jnp.split(apply(w["ic"], ends), 2)

    def trial(w: Any, x: Any, key: Any) -> Any:
        """Loss of one trial."""
        key_encode, key_ic, key_inputs, key_drop = jax.random.split(key, 4)
        both, ic_mean, ic_logvar = encode(w, x, key_encode)
        g = ic_mean + jnp.exp(0.5 * ic_logvar) * jax.random.normal(key_ic, (HIDDEN,))

        def step(carry: Any, now: Any) -> Any:
            c, g, f = carry
            encoded, key_input, key_state = now
            c = gru.step(w["controller"], c, jnp.concatenate([encoded, f]))
            mean, logvar = jnp.split(apply(w["inputs"], c), 2)
            u = mean + jnp.exp(0.5 * logvar) * jax.random.normal(key_input, (1,))
            g = dropout(key_state, gru.step(w["generator"], g, u))
            unit = w["factors"] / jnp.linalg.norm(w["factors"], axis=1, keepdims=True)
            f = unit @ g
            return (c, g, f), (u, mean, logvar, apply(w["rates"], f))

        drives = both, jax.random.split(key_inputs, n_bins), jax.random.split(key_drop, n_bins)
        start = w["controller"]["h0"], g, jnp.zeros(FACTORS)
        _, (u, mean, logvar, log_rates) = jax.lax.scan(step, start, drives)
        prior = w["ic_prior"]
        difference = (ic_mean - prior["mean"]) ** 2
        kl = 0.5 * jnp.sum(
            prior["logvar"]
            - ic_logvar
            - 1
            + (jnp.exp(ic_logvar) + difference) / jnp.exp(prior["logvar"])
        )
        ar1 = w["ar1"]
        phi = jnp.exp(-jnp.exp(-ar1["log_tau"]))
        noise = ar1["logvar"] + jnp.log1p(-(phi**2))
        kl += jnp.sum(
            log_density(u[0], mean[0], logvar[0]) - log_density(u[0], ar1["mean"], ar1["logvar"])
        )
        for t in range(1, n_bins):
            log_p = log_density(u[t], ar1["mean"] + phi * u[t - 1], noise)
            kl += jnp.sum(log_density(u[t], mean[t], logvar[t]) - log_p)
        return kl - jnp.sum(x * log_rates - jnp.exp(log_rates))

    def loss(w: Any, x: Any, key: Any) -> Any:
        each = jax.vmap(trial, (None, 0, 0))(w, x, jax.random.split(key, BATCH)).mean()
        return each + 2e-5 * sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(w))

    optimizer = optax.chain(
        optax.clip_by_global_norm(10.0),
        optax.adam(optax.exponential_decay(0.05, 1, 0.9999), eps=0.1),
    )
    data = jnp.asarray(counts(n_bins))

    @jax.jit
    def block(w: Any, state: Any, data: Any, key: Any) -> Any:
        def body(k: Any, carry: Any) -> Any:
            w, state = carry
            key_rows, key_noise = jax.random.split(jax.random.fold_in(key, k))
            rows = jax.random.randint(key_rows, (BATCH,), 0, len(data))
            gradient = jax.grad(loss)(w, data[rows].astype(jnp.float32), key_noise)
            updates, state = optimizer.update(gradient, state, w)
            return optax.apply_updates(w, updates), state

        return jax.lax.fori_loop(0, steps, body, (w, state))

    state = optimizer.init(weights)
    return lambda: jax.block_until_ready(block(weights, state, data, jax.random.key(1)))


# --- lfads-torch's formulation --------------------------------------------------------------------


def torch_step(steps: int, device: str) -> Callable[[], Any]:
    """Steps of a model with the modules and sizes of lfads-torch (Sedler & Pandarinath 2023), on a device."""
    import torch
    from lfads_torch_modules import Bidirectional, Cell
    from torch import nn
    from torch.nn import functional

    torch.set_num_threads(1)
    torch.manual_seed(0)

    class Lfads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ic_encoder, self.ci_encoder = (Bidirectional(UNITS, HIDDEN) for _ in range(2))
            self.ic = nn.Linear(2 * HIDDEN, 2 * HIDDEN)
            self.to_generator = nn.Linear(HIDDEN, HIDDEN)
            self.controller = Cell(2 * HIDDEN + FACTORS, HIDDEN)
            self.generator = Cell(1, HIDDEN)
            self.inputs = nn.Linear(HIDDEN, 2)
            self.factors = nn.Linear(HIDDEN, FACTORS, bias=False)
            self.rates = nn.Linear(FACTORS, UNITS)
            self.dropout = nn.Dropout(0.05)
            zero = lambda *shape: nn.Parameter(torch.zeros(*shape))
            self.c0, self.ic_mean, self.ic_logvar = zero(HIDDEN), zero(HIDDEN), zero(HIDDEN)
            self.ar_mean, self.ar_logvar, self.ar_log_tau = zero(1), zero(1), zero(1)

        def forward(self, x: Any) -> Any:
            dropped = self.dropout(x)
            _, ends = self.ic_encoder(dropped)
            encoded, _ = self.ci_encoder(dropped)
            mean, logvar = self.ic(self.dropout(ends)).chunk(2, 1)
            variance = logvar.exp() + 1e-4
            draw = mean + variance.sqrt() * torch.randn_like(mean)
            g = self.to_generator(draw)
            c = self.c0.expand(len(x), HIDDEN)
            f = self.read(self.dropout(g))
            draws, means, logvars, factors = [], [], [], []
            for t in range(x.shape[1]):
                c = self.controller(self.dropout(torch.cat([encoded[:, t], f], 1)), c)
                m, l = self.inputs(c).chunk(2, 1)
                u = torch.distributions.Normal(m, (0.5 * l).exp()).rsample()
                g = self.generator(u, g)
                f = self.read(self.dropout(g))
                for values, value in zip(
                    (draws, means, logvars, factors), (u, m, l, f), strict=True
                ):
                    values.append(value)
            u, m, l = (torch.stack(values, 1) for values in (draws, means, logvars))
            log_rates = self.rates(torch.stack(factors, 1))
            nll = functional.poisson_nll_loss(log_rates, x, full=True, reduction="none").sum((1, 2))
            p = self.ic_logvar.exp()
            kl = 0.5 * (
                self.ic_logvar - variance.log() - 1 + (variance + (mean - self.ic_mean) ** 2) / p
            ).sum(1)
            return (nll + kl + self.kl_inputs(u, m, l)).mean()

        def read(self, g: Any) -> Any:
            return functional.linear(g, functional.normalize(self.factors.weight, dim=1))

        def kl_inputs(self, u: Any, m: Any, l: Any) -> Any:
            """Of the draw: log q - log p under the AR(1) prior."""
            phi = (-1 / self.ar_log_tau.exp()).exp()
            noise = self.ar_logvar + torch.log1p(-(phi**2))
            past = torch.cat([torch.zeros_like(u[:, :1]), u[:, :-1]], 1)
            first = torch.zeros(u.shape[1], 1, device=u.device)
            first[0] = 1
            prior_mean = self.ar_mean + (1 - first) * phi * (past - self.ar_mean)
            prior_logvar = first * self.ar_logvar + (1 - first) * noise
            log_q = -0.5 * (l + (u - m) ** 2 / l.exp())
            log_p = -0.5 * (prior_logvar + (u - prior_mean) ** 2 / prior_logvar.exp())
            return (log_q - log_p).sum((1, 2))

    model = Lfads().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    data = torch.from_numpy(counts(BINS)).float().to(device)

    def block() -> None:
        for _ in range(steps):
            rows = torch.randint(0, len(data), (BATCH,), device=device)
            loss = model(data[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 200.0)
            optimizer.step()
        if device != "cpu":
            torch.cuda.synchronize()

    return block


# --- the table ------------------------------------------------------------------------------------


def torch_row(python: str | None, steps: int, rounds: int) -> tuple[float, str] | None:
    """(steps a CPU second, version of torch) by this interpreter or that one; None where neither has it."""
    interpreter = python or sys.executable
    asked = [interpreter, str(Path(__file__).resolve()), "--only-torch", f"--steps={steps}"]
    answer = subprocess.run([*asked, f"--rounds={rounds}"], capture_output=True, text=True)
    if answer.returncode != 0:
        if python:
            print(answer.stderr, file=sys.stderr)
        return None
    found = json.loads(answer.stdout.splitlines()[-1])
    return steps / found["seconds"], found["version"]


def only_torch(steps: int, rounds: int, device: str) -> None:
    """Print the least CPU and wall seconds of a block of torch's steps, as JSON."""
    import torch

    block = torch_step(steps, device)
    _, least = timed(block, rounds)
    began = time.perf_counter()
    block()
    wall = time.perf_counter() - began
    print(json.dumps({"seconds": least, "wall": wall, "version": torch.__version__}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--steps", type=int, default=4, help="training steps of one advance")
    parser.add_argument("--rounds", type=int, default=3, help="timed advances of each contender")
    parser.add_argument("--long", type=int, default=100, help="bins of the second compile time")
    parser.add_argument("--torch", help="an interpreter that has torch")
    parser.add_argument("--only-torch", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument(
        "--device", default="cpu", help="of torch alone, with --only-torch: cpu, cuda"
    )
    options = parse(parser, models=[1, 2], steps=1, rounds=1, long=4)
    if options.device == "cpu":
        pin()
    if options.only_torch:
        only_torch(options.steps, options.rounds, options.device)
        return
    import jax

    print(
        f"{jax.devices()[0].device_kind}, one core; jax {jax.__version__}; {options.steps} steps an advance"
    )
    print("| contender | K | model-steps / CPU s | compile s | temporaries MB a model | picked |")
    print("|---|---|---|---|---|---|")
    ours = Ours(options.steps)
    for n in options.models:
        ways = {"map": 1, "vmap": n} if n > 1 else {"one": 1}
        rows = {how: ours.row(n, m, options.rounds) for how, m in ways.items()}
        # Last, since it would compile what the rows time.
        picked = ours.choice(n) if n > 1 else 1
        for how, (speed, compiled, memory) in rows.items():
            mark = "*" if ways[how] == picked else ""
            print(
                f"| {how} | {n} | {speed:.2f} | {compiled:.1f} | {memory:.1f} | {mark} |",
                flush=True,
            )
    for n_bins in (BINS, options.long):
        first, least = timed(seed_step(options.steps, n_bins), options.rounds)
        print(
            f"| seed, {n_bins} bins | 1 | {options.steps / least:.2f} | {first - least:.1f} | | |",
            flush=True,
        )
    speed, compiled, memory = Ours(options.steps, options.long).row(1, 1, 1)
    print(
        f"| one, {options.long} bins | 1 | {speed:.2f} | {compiled:.1f} | {memory:.1f} | |",
        flush=True,
    )
    torch = torch_row(options.torch, options.steps, options.rounds)
    if torch is None:
        print(
            "torch is not installed here: no row for it (--torch names an interpreter that has it)"
        )
    else:
        print(f"| torch {torch[1]} | 1 | {torch[0]:.2f} | | | |")


if __name__ == "__main__":
    main()
