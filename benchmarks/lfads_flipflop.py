"""The 3-bit flip-flop of CtDBenchmark: a GRU autoencoder and LFADS, a section of lfads_field.py.

Versteeg et al. 2025 (the Computation-through-Dynamics Benchmark), figure 4, one model each. A GRU of 128 units learns
`nbff` (input noise .15, pulses of either sign with probability .01 a step and bit), its states with noise .01. Of each
unit exp((h - m) / (2 s)) is the mean count of a bin, m and s of all neurons together; counts are Poisson's. The encoder
sees 50 neurons, 10 more are held out, and the model is given the network's noisy inputs. Rate R2: no affine fit, units
weighted by variance. State R2: the generator's states by linear regression on true ones. Cycle consistency: factors
recovered from their log rates.

    theirs  trials of 500 steps, 800 for training; the network: about 2,000 steps, batches of 256
            autoencoder: encoder 100, latent 128, dropout .05, learning rate 2e-3, no KL term
            LFADS: encoder, generator, factors 128, no controller, coordinated dropout .3, learning rate 5e-3
            to 1e-5 by plateaus, KL of initial conditions 1e-6 times the mean likelihood of an entry
    ours    cut for two cores: trials of `--bins`, batches of `--flips-batch`, `--network-steps` and `--fit-steps`; learning rates
            in `MODELS`, which fall along a cosine; the network is trained on trials of `LEARNT` steps. Sizes as theirs:
            `--bins 500 --flips-batch 64 --network-steps 2000 --fit-steps 6000`, hours on two cores. States have noise while
            the network is trained, and none when it is spiked. The autoencoder is `lfads` without a KL term, whose posterior
            then becomes narrow; factors are 128 directions of the latents; dropout falls on data and on what factors see of
            states, too.

Without a KL term the initial state learns the noise of its trial: the shorter trials are, the more of the states that is.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

HELD_IN, HELD_OUT, UNITS = 50, 10, 128
LEARNT, LEARNT_BATCH = 100, 32
"""Steps of a trial, at most, and trials of a minibatch, while the network is trained."""
METRICS = {
    "rate_r2_weighted": "rate R2", "state_r2_from_true": "state R2", "co_bps": "co-bps",
    "cycle_consistency": "cycle consistency",
}  # fmt: skip
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


def largest_co_bps(file: str) -> float:
    """Of the true rates: models reach this and, but for chance, no more."""
    from ctd.data import read_hdf5

    found = read_hdf5(file)
    counts, rates = (found[name][..., HELD_IN:].astype(float) for name in ("eval", "eval_rates"))
    mean = counts.mean((0, 1))
    gain = counts * np.log(rates / mean) - rates + mean
    return float(gain.sum() / counts.sum() / np.log(2))


def fitted(name: str, file: str, options: argparse.Namespace, seed: int) -> list[float]:
    """METRICS of a model of the spikes."""
    from ctd.batch import run_items
    from ctd.lfads import Model, kernel

    steps = options.fit_steps
    params = Model(
        data=file,
        held_out_units=tuple(range(HELD_IN, HELD_IN + HELD_OUT)),
        batch_size=options.flips_batch,
        n_batches=steps,
        report_every=max(steps // 20, 1),
        warm_up=min(20, steps // 4),
        kl_ramp=steps // 4,
        **COMMON,
        **MODELS[name],
    )
    made = run_items(kernel, params, seed=seed)
    return [float(made[metric][0]) for metric in METRICS]


def flipflop(options: argparse.Namespace) -> None:
    print(
        f"flipflop: {options.flips} trials of {options.bins} bins, batches of {options.flips_batch}, "
        f"{options.fit_steps} steps, the network {options.network_steps}"
    )
    with tempfile.TemporaryDirectory() as folder:
        network, start = str(Path(folder) / "network.h5"), time.process_time()
        accuracy = train_network(network, options)
        print(f"  network: accuracy {accuracy:.3f} ({time.process_time() - start:.0f} CPU s)")
        found: dict[str, list[list[float]]] = {name: [] for name in options.fits}
        for seed in range(options.seeds):
            file = str(Path(folder) / f"spikes{seed}.h5")
            write_spikes(file, network, options, seed)
            print(f"  seed {seed}: co-bps of the true rates {largest_co_bps(file):.4f}")
            for name in options.fits:
                start = time.process_time()
                found[name].append(fitted(name, file, options, seed))
                told = ", ".join(
                    f"{text} {value:.4f}"
                    for text, value in zip(METRICS.values(), found[name][-1], strict=True)
                )
                seconds = time.process_time() - start
                print(f"  {name} seed {seed}: {told} ({seconds:.0f} CPU s)", flush=True)
    for name, values in found.items():
        told = ", ".join(
            f"{text} {median:.4f} (published {published:.4f})"
            for text, median, published in zip(
                METRICS.values(), np.median(values, axis=0), PUBLISHED[name], strict=True
            )
        )
        print(f"  {name} median: {told}")
