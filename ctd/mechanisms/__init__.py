"""Kernel: spikes recorded from known mechanisms, or your own spikes, reduced to the factors that models are fitted to.

Which mechanism made a recording: two attractors, a line, ring or plane of fixed points, a limit cycle, chaos, a rotation that decays, or a
hidden input? Models are fitted to recordings of all of them (`reconstruct`), the same numbers are read off each fitted model
(`mechanisms.evidence`), and a classifier that knows them places other recordings.

    kernel: mechanisms
    sweep: {grid: {mechanism: {range: 8}}, seeds: 10}

An item is one recording: a random member of a family of equations, seen by neurons with random readouts.

    families    the equations                       counts      spikes, their factors, files
    features    of maps, true or fitted; of data    fits        parameters of evidence; recordings and their fits
    evidence    kernel: which mechanism that is     classifier  logistic regression, calibrated
    summary     tables of an atlas, and of what     atlas       its table, and which recordings fit it
                is placed by one                    plots       confusion, accuracy by size, the place of recordings
"""

from __future__ import annotations

from typing import NamedTuple, Self

import numpy as np
from pydantic import Field, model_validator

from ctd.kernel import (
    Batching,
    Data,
    Display,
    File,
    Params,
    Static,
    Traced,
    Values,
    Var,
    View,
    one_shot,
)
from ctd.late import Array, Float, Int, jax, jnp
from ctd.mechanisms.atlas import check_settings, check_size, read_atlas
from ctd.mechanisms.counts import MOST_MEAN, factors_of, read_counts, spikes
from ctd.mechanisms.families import NAMES, draw_member, simulate, step
from ctd.mechanisms.features import FEATURES, PLAIN, plain, read
from ctd.mechanisms.plots import recording_plots

__all__ = ["Recording", "kernel"]


class Recording(Params):
    """The parameters of one recording.

    >>> Recording(n_neurons=2)
    Traceback (most recent call last):
        ...
    pydantic_core._pydantic_core.ValidationError: 1 validation error for Recording
      Value error, n_neurons: 2 given, but 3 factors are taken of them; give more neurons or fewer factors ...
    """

    data: File[str | None] = None
    """your own spike counts, (trial, time, unit): HDF5, .npz or .npy; without it a mechanism is recorded"""
    dataset: Data[str] = "train"
    """name of the counts in that file; if the file has `eval` too, its trials are added"""
    atlas: File[str | None] = None
    """table of mechanisms.evidence; a recording of a size that the table lacks is refused"""
    mechanism: Traced[int] = Field(
        0, ge=0, lt=len(NAMES), description="number of the mechanism: " + ", ".join(f"{k} {n}" for k, n in enumerate(NAMES))
    )  # fmt: skip
    n_neurons: Static[int] = Field(50, gt=0)
    """recorded neurons; not used with `data`"""
    n_trials: Static[int] = Field(200, gt=1)
    """trials; not used with `data`"""
    n_bins: Static[int] = Field(50, ge=20)
    """bins of a trial; longer trials of `data` are cut to them"""
    mean_count: Traced[float] = Field(0.5, gt=0, le=MOST_MEAN)
    """approximate mean spike count of a bin; that of a recording differs by about a tenth, because its neurons are drawn at random"""
    gain: Traced[float] = Field(0.8, gt=0)
    """sd of a neuron's log rate"""
    noise: Traced[float] = Field(0.02, ge=0)
    """sd of the noise on the mechanism's state in a bin"""
    smoothing: Traced[float] = Field(2.0, gt=0)
    """sd (bins) of the Gaussian that smooths counts"""
    n_factors: Static[int] = Field(3, ge=3, le=8)
    """principal components of the square roots of smoothed counts: what models are fitted to"""
    seed: Traced[int] = Field(0, ge=0, lt=2**31)
    """member of the family: geometry, time scale, readout, spikes"""

    @model_validator(mode="after")
    def _enough_neurons(self) -> Self:
        if self.n_neurons < self.n_factors:
            raise ValueError(
                f"n_neurons: {self.n_neurons} given, but {self.n_factors} factors are taken of them; give more neurons or fewer "
                "factors"
            )
        return self


class Shared(NamedTuple):
    """A recording of one's own; no trials where a mechanism is recorded."""

    counts: Int[np.ndarray, "trial time unit"]


def load(inputs: View[Recording]) -> Shared:
    """Read and check the user's counts. Raises ValueError, naming file and dataset."""
    if inputs.data is None:
        return Shared(np.zeros((0, 0, 0), np.int32))
    atlas = None if inputs.atlas is None else read_atlas(inputs.atlas)
    if inputs.atlas is not None and atlas is not None:
        # Checked first: otherwise another n_bins than the atlas's would be reported as a fault of the data.
        check_settings(
            inputs.atlas, atlas, {"n_bins": inputs.n_bins, "n_factors": inputs.n_factors}
        )
    counts = read_counts(inputs.data, inputs.dataset, inputs.n_bins)
    if counts.shape[2] < inputs.n_factors:
        raise ValueError(
            f"data: {inputs.data}: has {counts.shape[2]} units, of which {inputs.n_factors} factors cannot be taken"
        )
    if atlas is not None:
        check_size(inputs.data, counts, atlas)
    return Shared(counts)


def make(
    static: View[Recording], shared: Shared, traced: Values[Recording], key: Array
) -> dict[str, Array]:
    """The counts of one recording, and what was made of them."""
    # A shape, known when the program is compiled: a group records mechanisms or holds the user's recording.
    truth: dict[str, Array] = {}
    if len(shared.counts):
        counts, mechanism = jnp.asarray(shared.counts), jnp.asarray(-1)
    else:
        counts, read_off = _recorded(static, traced, key)
        mechanism, truth = traced.mechanism, {"recording.truth": read_off}
    factors, variances = factors_of(counts, traced.smoothing, static.n_factors, static.dtype)
    stored = counts.astype(jnp.uint16)  # `read_counts` refuses 2^16 and more
    n_train = len(stored) - max(1, len(stored) // 5)
    return {
        "train": stored[:n_train],
        "eval": stored[n_train:],
        "recording.factors": factors,
        "recording.plain": plain(factors, variances),
        **truth,
        "recording.mechanism": jnp.asarray(mechanism, jnp.int32),
        "recording.n_neurons": jnp.asarray(counts.shape[2], jnp.int32),
        "recording.n_trials": jnp.asarray(counts.shape[0], jnp.int32),
        "recording.mean_count": counts.astype(static.dtype).mean(),
    }


def _recorded(
    static: View[Recording], traced: Values[Recording], key: Array
) -> tuple[Int[Array, "trial time unit"], Float[Array, "feature"]]:
    """(counts, features of the true system) of a member of the mechanism's family."""
    # The key depends on the member's seed alone: the same member is recorded at every size.
    del key
    seeded = jax.random.fold_in(jax.random.key(traced.seed), traced.mechanism)
    keys = jax.random.split(seeded, 3)  # member, states, spikes
    member = draw_member(keys[0], static.dtype)
    shape = (static.n_trials, static.n_bins)
    noise = jnp.asarray(traced.noise, static.dtype)
    states = simulate(traced.mechanism, member, keys[1], shape, noise)
    level = (jnp.asarray(traced.mean_count, static.dtype), traced.gain)
    counts = spikes(states, member.stretch, keys[2], static.n_neurons, level)
    return counts, read(lambda z: step(traced.mechanism, member, z), states)


def coords(inputs: View[Recording], shared: Shared) -> dict[str, np.ndarray]:
    """The numbers of bins, and the names of features."""
    del shared
    return {
        "time": np.arange(inputs.n_bins),
        "feature": np.asarray([*FEATURES]),
        "plain_feature": np.asarray([*PLAIN]),
    }


kernel = one_shot(
    "mechanisms",
    Recording,
    {
        "train": Var(("train_trial", "time", "unit"), "1", "spike counts of four fifths of the trials; data of `lfads`"),
        "eval": Var(("eval_trial", "time", "unit"), "1", "those of the last fifth"),
        "recording.factors": Var(
            ("trial", "time", "factor"), "1", "principal components of the square roots of smoothed counts, on a common scale; data of `reconstruct`"
        ),
        "recording.plain": Var(("plain_feature",), "1", "features of the recording without any model"),
        "recording.truth": Var(("feature",), "1", "what is read off the true system; missing for your own recordings"),
        "recording.mechanism": Var((), "1", "number of the mechanism; -1: not known"),
        "recording.n_neurons": Var((), "1", "neurons"),
        "recording.n_trials": Var((), "1", "trials"),
        "recording.mean_count": Var((), "1", "mean spike count of a bin"),
    },
    make,
    load=load, coords=coords,
    display=Display(
        plots=recording_plots, png_plots=len(NAMES),
    ),
    batching=Batching(
        width=8,
        # A recording has trials enough for large products, and lax.switch takes one branch only where items are not side by side.
        microbatches=(0,), cpu_microbatches=(1,),
    ),
)  # fmt: skip
