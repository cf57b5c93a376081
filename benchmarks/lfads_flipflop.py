"""The 3-bit flip-flop of CtDBenchmark: a GRU autoencoder and LFADS, a section of lfads_field.py.

Versteeg et al. 2025 (the Computation-through-Dynamics Benchmark), figure 4, one model each. A GRU of 128 units learns
`nbff` (input noise .15, pulses of either sign with probability .01 a step and bit), its states with noise .01. Of each
unit exp((h - m) / (2 s)) is the mean count of a bin, m and s of all neurons together; counts are Poisson's. The encoder
sees 50 neurons, 10 more are held out, and the model is given the network's noisy inputs. Rate R2: no affine fit, units
weighted by variance. State R2: the generator's states by linear regression on true ones. Cycle consistency: these states
recovered from their log rates by the readout. Both in `scores`, by NumPy, of whatever model.

    theirs  trials of 500 steps, 800 for training; the network: about 2,000 steps, batches of 256
            autoencoder: encoder 100, latent 128, dropout .05, learning rate 2e-3, no KL term; batches of 250, 500 epochs
            LFADS: encoder, generator, factors 128, no controller, coordinated dropout .3, learning rate 5e-3
            to 1e-5 by plateaus, KL of initial conditions 1e-8 beside the mean likelihood of an entry; batches of 500
    ours    cut for two cores: trials of `--bins`, batches of `--flips-batch`, `--network-steps` and `--fit-steps`; learning rates
            in `MODELS`, which fall along a cosine; the network is trained on trials of `LEARNT` steps. Sizes as theirs:
            `--bins 500 --flips-batch 250 --network-steps 2000 --fit-steps 2000`, hours on two cores. States have noise while
            the network is trained, and none when it is spiked. The autoencoder is `lfads` without a KL term, whose posterior
            then becomes narrow; factors are 128 directions of the latents; dropout falls on data and on what factors see of
            states, too.

Without a KL term the initial state learns the noise of its trial: the shorter trials are, the more of the states that is.

`--torch PYTHON`, an interpreter with torch and h5py, trains the models of lfads_flipflop_torch.py beside ours: as CtDBenchmark
and lfads-torch build them, on the same spikes, with as many steps, batches as large, and the same learning rates.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

HELD_IN, HELD_OUT, UNITS = 50, 10, 128
LEARNT, LEARNT_BATCH = 100, 32
"""Steps of a trial, at most, and trials of a minibatch, while the network is trained."""
METRICS = ("rate R2", "state R2", "co-bps", "cycle consistency")
PUBLISHED = {"autoencoder": (0.969, 0.962, 0.1358, 0.918), "lfads": (0.930, 0.881, 0.1292, 0.721)}
COMMON = {
    "controller": 0, "generator": 128, "n_factors": 128, "penalties": "entry", "criterion": "nll",
    "kl_start": 0.0, "l2_generator": 0.0, "n_samples": 8, "n_saved": 0,
}  # fmt: skip
MODELS = {
    "autoencoder": {"encoder": 100, "dropout": 0.05, "learning_rate": 4e-3, "kl_ic": 0.0, "variance_floor": 1e-8},
    "lfads": {
        "encoder": 128, "dropout": 0.02, "coordinated_dropout": 0.3, "learning_rate": 5e-3, "kl_ic": 1e-6,
    },
}  # fmt: skip


def train_network(file: str, options: argparse.Namespace) -> float:
    """Train a network on the task and write it; returns the share of trials with every bit right at every step."""
    from ctd.batch import run_items
    from ctd.cells import get_cell
    from ctd.tasks import NBitFlipFlop
    from ctd.train_rnn import Network, kernel
    from ctd.weights import write_weights

    network = Network(
        cell="gru_torch",
        task=NBitFlipFlop(n_steps=min(options.bins, LEARNT)),
        n=UNITS,
        batch_size=LEARNT_BATCH,
        n_batches=options.network_steps,
        report_every=max(options.network_steps // 10, 1),
        n_eval=256,
        learning_rate=5e-3,
        schedule="cosine",
        adam_eps=1e-8,
        l2=0.0,
        weight_decay=1e-8,
        noise=True,
        state_noise=0.01,
    )
    made = run_items(kernel, network)
    weights = {name: made[f"weights.{name}"][0] for name in get_cell(network.cell).axes}
    write_weights(file, weights, network.cell)
    return float(made["accuracy"][0])


def write_spikes(file: str, network: str, options: argparse.Namespace, seed: int) -> None:
    """Spikes of the network's first units, with its inputs, and the truth of the trials for evaluation."""
    from ctd.batch import run_items
    from ctd.data import write_hdf5
    from ctd.spikes import Spikes, kernel
    from ctd.tasks import NBitFlipFlop

    made = run_items(
        kernel,
        Spikes(
            weights=network,
            task=NBitFlipFlop(n_steps=options.bins),
            n_train=options.flips,
            n_eval=max(options.flips // 4, 1),
            n_units=HELD_IN + HELD_OUT,
            rectifier="exp",
            scaling=2.0,
            external=True,
        ),
        seed=seed,
    )
    names = ("train", "eval", "train_external", "eval_external", "eval_rates", "eval_states")
    write_hdf5(file, {name: made[name][0] for name in names})


def co_bps(counts: np.ndarray, rates: np.ndarray) -> float:
    """Bits a spike over what mean counts tell, all units together."""
    mean = counts.mean((0, 1))
    gain = counts * np.log(rates / mean) - rates + mean
    return float(gain.sum() / counts.sum() / np.log(2))


def scores(truth: dict[str, np.ndarray], made: dict[str, np.ndarray]) -> list[float]:
    """METRICS of rates (trial, time, unit), states (trial, time, state) and a readout (unit, state), by NumPy alone.

    Cycle consistency, as the benchmark computes it: states -> log rates -> states by the pseudo-inverse of the readout, of
    whose singular values those are kept that make 99 % of the sum of squares.
    """
    flat = lambda x: x.reshape(-1, x.shape[-1]).astype(float)
    centred = lambda x: flat(x) - flat(x).mean(0)
    r2 = lambda y, found: 1 - ((y - found) ** 2).sum() / ((y - y.mean(0)) ** 2).sum()
    true, states = centred(truth["eval_states"]), centred(made["states"])
    predicted = true @ np.linalg.lstsq(true, states, rcond=1e-3)[0]
    _, values, rows = np.linalg.svd(made["readout"].astype(float), full_matrices=False)
    rows = rows[: np.searchsorted(np.cumsum(values**2) / (values**2).sum(), 0.99) + 1]
    held_out = (truth["eval"][..., HELD_IN:].astype(float), made["rates"][..., HELD_IN:])
    return [
        r2(flat(truth["eval_rates"]), flat(made["rates"])),
        r2(states, predicted),
        co_bps(*held_out),
        r2(states, states @ rows.T @ rows),
    ]


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """How a model is trained, whoever trains it."""
    steps = options.fit_steps
    own = {"batch_size": options.flips_batch, "n_batches": steps}
    return own | {"warm_up": min(20, steps // 4), "kl_ramp": steps // 4}


def ours(name: str, file: str, options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """What `scores` takes of a model of the spikes, and its CPU seconds."""
    from ctd.batch import run_items
    from ctd.lfads import Model, kernel

    start = time.process_time()
    params = Model(
        data=file,
        held_out_units=tuple(range(HELD_IN, HELD_IN + HELD_OUT)),
        report_every=max(options.fit_steps // 20, 1),
        save="eval",
        **settings(options),
        **COMMON,
        **MODELS[name],
    )
    made = {part: value[0] for part, value in run_items(kernel, params, seed=seed).items()}
    readout = made["model.output.w"] @ made["weights.wO"]
    seconds = time.process_time() - start
    kept = {part: made[part] for part in ("rates", "states")}
    return kept | {"readout": readout, "seconds": seconds}


def theirs(name: str, file: str, options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """The same of PyTorch's model, trained by an interpreter that has torch."""
    script = Path(__file__).with_name("lfads_flipflop_torch.py")
    to = f"{file}.{name}.npz"
    asked = json.dumps(settings(options) | {"seed": seed})
    line = [options.torch, str(script), name, file, to, asked]
    done = subprocess.run(line, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"--torch {options.torch}: {done.stderr}")
    return {**np.load(to), **json.loads(done.stdout.splitlines()[-1])}


def told(values: Any) -> str:
    return ", ".join(f"{text} {value:.4f}" for text, value in zip(METRICS, values, strict=True))


def fits(
    file: str, options: argparse.Namespace, seed: int
) -> Iterator[tuple[str, str, list[float]]]:
    """(model, whose it is, METRICS) of each model of the spikes; prints as it goes."""
    from ctd.data import read_hdf5

    truth = read_hdf5(file)
    best = co_bps(*(truth[name][..., HELD_IN:].astype(float) for name in ("eval", "eval_rates")))
    print(f"  seed {seed}: co-bps of the true rates {best:.4f}")
    makers = {"ours": ours} | ({"torch": theirs} if options.torch else {})
    for name in options.fits:
        for who, make in makers.items():
            made = make(name, file, options, seed)
            values = scores(truth, made)
            seconds = float(made["seconds"])
            print(f"  {name} {who} seed {seed}: {told(values)} ({seconds:.0f} CPU s)", flush=True)
            yield name, who, values


def flipflop(options: argparse.Namespace) -> None:
    print(
        f"flipflop: {options.flips} trials of {options.bins} bins, batches of {options.flips_batch}, "
        f"{options.fit_steps} steps, the network {options.network_steps}"
    )
    found: dict[tuple[str, str], list[list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        network, start = str(Path(folder) / "network.h5"), time.process_time()
        accuracy = train_network(network, options)
        print(f"  network: accuracy {accuracy:.3f} ({time.process_time() - start:.0f} CPU s)")
        for seed in range(options.seeds):
            file = str(Path(folder) / f"spikes{seed}.h5")
            write_spikes(file, network, options, seed)
            for name, who, values in fits(file, options, seed):
                found.setdefault((name, who), []).append(values)
    for (name, who), values in found.items():
        print(f"  {name} {who} median: {told(np.median(values, axis=0))}")
    for name in options.fits:
        print(f"  {name} published: {told(PUBLISHED[name])}")
