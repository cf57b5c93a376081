"""Kernel: recordings of known mechanisms as spikes, or spikes of one's own, reduced to what models are fitted to.

Which mechanism made a recording: two attractors, a line, ring or plane of fixed points, a limit cycle, chaos, a rotation that decays, or a
hidden input? Models are fitted to recordings of all of them (`reconstruct`), the same numbers are read off each fitted model
(`mechanisms.evidence`), and a classifier that knows them places other recordings.

    kernel: mechanisms
    sweep: {grid: {mechanism: {range: 8}}, seeds: 10}

An item is one recording: a random member of a family of equations, seen by neurons with random readouts.

    params    Recording: the parameters of one item    families  the equations
    counts    spikes, their factors, files             reading   what is read off a map, true or fitted
    plain     features without a model                 evidence  kernel: what was read off fits, and which mechanism that is
    classifier  logistic regression, calibrated        summary   the tables of an atlas and of a placed recording
    plots     confusion, accuracy by size, the place of recordings   atlas   the table of an atlas, and what must be alike
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ctd.kernel import Values, Var, View, one_shot
from ctd.late import Array, Float, Int, jax, jnp
from ctd.mechanisms.atlas import check_alike, read_atlas
from ctd.mechanisms.counts import check_size, factors_of, read_counts, spikes
from ctd.mechanisms.families import draw_member, simulate, step
from ctd.mechanisms.params import Recording
from ctd.mechanisms.plain import PLAIN, plain
from ctd.mechanisms.plots import recording_plots
from ctd.mechanisms.reading import FEATURES, read

__all__ = ["Recording", "kernel"]


class Shared(NamedTuple):
    """A recording of one's own; no trials where a mechanism is recorded."""

    counts: Int[np.ndarray, "trial time unit"]


def load(inputs: View[Recording]) -> Shared:
    """Read and check the user's counts. Raises ValueError, naming file and dataset."""
    if inputs.data is None:
        return Shared(np.zeros((0, 0, 0), np.int32))
    counts = read_counts(inputs.data, inputs.dataset, inputs.n_bins)
    if counts.shape[2] < inputs.n_factors:
        raise ValueError(
            f"data: {inputs.data}: has {counts.shape[2]} units, of which {inputs.n_factors} factors cannot be taken"
        )
    if inputs.atlas is not None:
        atlas = read_atlas(inputs.atlas)
        same = {"n_bins": inputs.n_bins, "n_factors": inputs.n_factors}
        check_alike(inputs.atlas, atlas, same)
        check_size(inputs.data, counts, atlas)
    return Shared(counts)


def make(
    static: View[Recording], shared: Shared, traced: Values[Recording], key: Array
) -> dict[str, Array]:
    """The counts of one recording, and what was made of them."""
    # A shape, known when the program is compiled: a group records mechanisms or holds the user's recording.
    known: dict[str, Array] = {}
    if len(shared.counts):
        counts, mechanism = jnp.asarray(shared.counts), jnp.asarray(-1)
    else:
        counts, truth = _recorded(static, traced, key)
        mechanism, known = traced.mechanism, {"recording.truth": truth}
    factors, variances = factors_of(counts, traced.smoothing, static.n_factors, static.dtype)
    return {
        "train": counts.astype(jnp.uint16),  # `read_counts` refuses 2^16 and more
        "recording.factors": factors,
        "recording.plain": plain(factors, variances),
        **known,
        "recording.mechanism": jnp.asarray(mechanism, jnp.int32),
        "recording.n_neurons": jnp.asarray(counts.shape[2], jnp.int32),
        "recording.n_trials": jnp.asarray(counts.shape[0], jnp.int32),
        "recording.mean_count": counts.astype(static.dtype).mean(),
    }


def _recorded(
    static: View[Recording], traced: Values[Recording], key: Array
) -> tuple[Int[Array, "trial time unit"], Float[Array, "feature"]]:
    """(counts, what is read off the true system) of a member of the mechanism's family."""
    # By the member's seed alone: the same member is recorded at every size.
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
        "train": Var(("trial", "time", "unit"), "1", "spike counts; data of `lfads`"),
        "recording.factors": Var(
            ("trial", "time", "factor"), "1", "principal components of smoothed counts, of a common scale; data of `reconstruct`"
        ),
        "recording.plain": Var(("plain_feature",), "1", "features of the recording without any model"),
        "recording.truth": Var(("feature",), "1", "what is read off the true system; not there for a recording of one's own"),
        "recording.mechanism": Var((), "1", "number of the mechanism; -1: not known"),
        "recording.n_neurons": Var((), "1", "neurons"),
        "recording.n_trials": Var((), "1", "trials"),
        "recording.mean_count": Var((), "1", "mean spike count of a bin"),
    },
    make,
    load=load,
    coords=coords,
    plots=recording_plots,
    width=8,
    # A recording has trials enough for large products, and lax.switch takes one branch only where items are not side by side.
    microbatches=(0,),
    cpu_microbatches=(1,),
)  # fmt: skip
