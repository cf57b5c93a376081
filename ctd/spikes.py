"""Kernel: spikes of neurons that follow a trained network, with true rates, inputs and states; data for `lfads`.

    h_t = F(h_{t-1}, x_t) + state_noise xi_t    the network on trials of its task, xi ~ N(0, 1)
    rate_t = max_rate (r(h_t) + 1) / 2          r(h) in [-1, 1], the vector that the network's readout sees
    count_t ~ Poisson(rate_t step_s)            one bin for each step; negative binomial with `dispersion` above 1

`rectifier: exp` is that of the Computation-through-Dynamics Benchmark (Versteeg et al. 2025): rate_t step_s =
exp((r(h_t) - m) / (scaling s)), with m and s the mean and the standard deviation over all recorded units and trials.

An item is a set of trials drawn with its own key. The results have the names that `lfads` reads, so that
`data: {stage: spikes, part: results}` passes them on. With `initial: line` they are the data of the LFADS tutorial
(google-research, computation-thru-dynamics), in which every trial starts at its own state on the network's line attractor.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from pydantic import Field, model_validator

from ctd import tasks
from ctd.cells import (
    CELL_NAMES,
    Cell,
    CellName,
    Weights,
    as_weights,
    get_cell,
    initial_state,
    run,
    sizes,
)
from ctd.kernel import (
    Batching,
    Coordinate,
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
from ctd.late import Array, Float, jax, jnp
from ctd.plots import Group, Plot, of_group
from ctd.plots.curves import unit_images
from ctd.tasks.noise import first_state, noisy, seeded
from ctd.weights import read_weights

LARGEST = 65_535
"""Counts are stored in 16 bits."""
LARGEST_MEAN = 60_000
"""Largest mean count: Poisson counts with this mean stay below `LARGEST` by more than 20 standard deviations."""
DISPERSION = 1
"""Folded into the key of the counts to make the key of their random rates."""
NOISE, NOISE_AGAIN = 1, 2
"""Folded into the key of the first states to make the keys of the noise on states, of the spiked run and of a rerun."""
LEAD = 7
"""Steps of input that spread the states along a line attractor, the number of the tutorial."""


class Spikes(Params):
    """The parameters of one set of trials."""

    cell: Static[CellName | None] = Field(
        None, description=f"{CELL_NAMES}; by default the cell that the weights belong to"
    )
    weights: File[str | None] = None
    """file of the network's weights: PyTorch's, Flax', Equinox', Keras', safetensors, .npz, HDF5"""
    task: Static[tasks.AnyTask] = Field(
        tasks.Integrator(), description=f"what drives the network: {tasks.NAMES}"
    )
    initial: Static[Literal["h0", "line"]] = Field(
        "h0",
        description="where a trial starts. h0: at the network's h0; line: spread along a line attractor, at the "
        f"state after {LEAD} steps of another trial's input and one without input",
    )
    state_noise: Static[float] = Field(0.0, ge=0)
    """sd of Gaussian noise on each state, each step"""
    initial_noise: Static[float] = Field(0.0, ge=0)
    """the same on the state before the first step of each trial"""
    true_states: Static[Literal["spiked", "rerun"]] = Field(
        "spiked",
        description="with noise, which states `eval_states` has as the true ones. spiked: those that the rates follow; rerun: those of "
        "another run of the same trials with fresh noise, as in CtDBenchmark",
    )
    n_train: Static[int] = Field(1024, gt=0)
    """trials to train on"""
    n_eval: Static[int] = Field(256, gt=0)
    """trials to evaluate with"""
    n_units: Data[int | None] = Field(None, gt=0)
    """how many of the network's units are recorded: the first ones; by default all"""
    step_s: Traced[float] = Field(0.04, gt=0)
    """length of a step and of a bin (s)"""
    max_rate: Traced[float] = Field(80.0, gt=0)
    """rate of a unit at its largest (1/s)"""
    rectifier: Static[Literal["linear", "exp"]] = "linear"
    """how rates follow units. linear: in proportion, up to max_rate; exp: exponentially, about one spike per bin"""
    scaling: Traced[float] = Field(2.0, gt=0)
    """rectifier exp: a rate rises e-fold when its unit rises by this many standard deviations"""
    dispersion: Static[float] = Field(1.0, ge=1, le=100)
    """variance of a count over its mean: 1, Poisson counts; above 1, negative binomial ones"""
    external: Static[bool] = False
    """whether the inputs are known to the model: train_external, eval_external"""
    seed: Traced[int] = Field(0, ge=0, lt=2**31)
    """replicate: other trials and spikes; two items of one seed differ, too"""

    @model_validator(mode="after")
    def _countable(self) -> Spikes:
        if self.max_rate * self.step_s > LARGEST_MEAN:
            raise ValueError(
                f"max_rate, step_s: {self.max_rate * self.step_s:g} spikes in a bin; at most {LARGEST_MEAN} expected"
            )
        if self.true_states == "rerun" and not self.state_noise and not self.initial_noise:
            raise ValueError(
                "true_states: rerun differs from the spiked run by noise alone; give state_noise or initial_noise"
            )
        if self.initial == "line" and self.task.length < LEAD:
            raise ValueError(
                f"initial: line takes {LEAD} steps of a trial, but the task's have n_steps = {self.task.length}"
            )
        return self


class Recorded(NamedTuple):
    """A network and its recorded units."""

    cell: dict[str, None]
    """{name of the cell: None}. JAX takes no text as an array, but compiles in the keys of a dict."""
    weights: Weights
    units: np.ndarray


def load(inputs: View[Spikes]) -> Recorded:
    """Read the network and choose the recorded units. Raises ValueError, naming file and field."""
    if inputs.weights is None:
        raise ValueError(
            "weights: a file with the weights of a trained network is needed; give its path"
        )
    cell, weights, *_ = read_weights(inputs.weights, inputs.cell)
    n, n_in, _ = sizes(cell, weights)
    inputs.task.check_inputs(n_in, inputs.weights)
    if inputs.n_units is not None and inputs.n_units > n:
        raise ValueError(
            f"n_units: {inputs.n_units} given, but the network in {inputs.weights} has {n}; give at most {n}"
        )
    typed = as_weights(weights, inputs.dtype)
    return Recorded({cell: None}, typed, np.arange(inputs.n_units or n))


def initial_states(static: View[Spikes], cell: Cell, weights: Weights, key: Array, n: int) -> Array:
    """The state of each of n trials before its first step, (n, state)."""
    h0 = initial_state(cell, weights, static.dtype)
    if static.initial == "h0":
        return jnp.tile(h0, (n, 1))
    inputs = tasks.batch(static.task, key, n, static.dtype).inputs[:, :LEAD]
    # One step without input lets the state relax onto the line.
    inputs = jnp.pad(inputs, ((0, 0), (0, 1), (0, 0)))
    return jax.vmap(lambda x: run(cell, weights, x, h0)[0][-1])(inputs)


class Followed(NamedTuple):
    """The course of a network in trials, (trial, ...)."""

    start: Float[Array, "trial state"]
    """Before the first step."""
    states: Float[Array, "trial time state"]
    outputs: Array


def follow(
    static: View[Spikes],
    cell: Cell,
    weights: Weights,
    trials: tasks.Trial,
    start: Array,
    key: Array,
) -> Followed:
    """Run trials from `start`, with noise drawn by this key."""
    inputs = trials.inputs
    if static.state_noise or static.initial_noise:
        inputs = seeded(trials, key, 0.0).inputs
        cell = noisy(cell, static.state_noise)
        start = jax.vmap(lambda h, x: first_state(h, x, static.initial_noise))(start, inputs)
    return Followed(start, *jax.vmap(lambda x, h: run(cell, weights, x, h))(inputs, start))


def _rates(static: View[Spikes], traced: Values[Spikes], followed: Array) -> Array:
    """The true rates (1/s) of neurons from the units that they follow, (trial, time, unit)."""
    if static.rectifier == "linear":
        return tasks.rates_from_states(followed, traced.max_rate)
    # One mean and one deviation for all units, so that active units stay active.
    spread = followed.std()
    standard = (followed - followed.mean()) / jnp.where(spread > 0, spread, 1)
    # Counts have 16 bits, so that rates are bounded; the stored rates are the bounded ones.
    return jnp.minimum(jnp.exp(standard / traced.scaling), LARGEST_MEAN) / traced.step_s


def make(
    static: View[Spikes], shared: Recorded, traced: Values[Spikes], key: Array
) -> dict[str, Array]:
    """Simulate all trials of an item. Only evaluation trials come with true rates, inputs and states."""
    weights, cell = shared.weights, get_cell(*shared.cell)
    key_trials, key_spikes, key_start = jax.random.split(jax.random.fold_in(key, traced.seed), 3)
    # One batch, cut in two: trials for training and evaluation are of one distribution.
    total = static.n_train + static.n_eval
    trials = tasks.batch(static.task, key_trials, total, static.dtype)
    start = initial_states(static, cell, weights, key_start, total)
    spiked = follow(static, cell, weights, trials, start, jax.random.fold_in(key_start, NOISE))
    true = spiked
    if static.true_states == "rerun":
        again = jax.random.fold_in(key_start, NOISE_AGAIN)
        true = follow(static, cell, weights, trials, start, again)
    followed = jax.vmap(jax.vmap(cell.hidden))(spiked.states)[..., shared.units]
    rates = _rates(static, traced, followed)
    dispersed = rates
    if static.dispersion > 1:
        key_rates = jax.random.fold_in(key_spikes, DISPERSION)
        dispersed = tasks.overdispersed(key_rates, rates, traced.step_s, static.dispersion)
    counts = tasks.spikes_from_rates(key_spikes, dispersed, traced.step_s)
    # A negative binomial count has no bound; 16 bits have.
    counts = jnp.minimum(counts, LARGEST).astype(jnp.uint16)
    n, outputs = static.n_train, spiked.outputs
    values = {
        "train": counts[:n],
        "eval": counts[n:],
        "eval_rates": rates[n:] * traced.step_s,
        "eval_inputs": trials.inputs[n:],
        "eval_states": true.states[n:],
        "eval_initial_states": true.start[n:],
        "mean_rate": rates.mean(),
    }
    if static.external:
        values |= {"train_external": trials.inputs[:n], "eval_external": trials.inputs[n:]}
    if outputs.shape[-1]:  # else the network has no readout
        values |= {"train_behavior": outputs[:n], "eval_behavior": outputs[n:]}
    return values


@of_group
def plots(group: Group) -> list[Plot]:
    """Counts and true rates of the first trial of the first item, units in the order of their peak rates."""
    # Item 0, then its trial 0: one row is read.
    rates, counts = (
        np.asarray(group.results[name][0], float)[0] for name in ("eval_rates", "eval")
    )
    item = int(group.columns["item"][0])
    titles = f"Spikes of one trial, item {item}", f"True rates of one trial, item {item}"
    return unit_images(counts, rates, titles)


def coords(inputs: View[Spikes], shared: Recorded) -> dict[str, Coordinate]:
    """The numbers of bins, each step_s long, and of trials."""
    del shared
    n = {"time": inputs.task.length, "trial": inputs.n_eval, "train_trial": inputs.n_train}
    descriptions = {
        "time": "bin, of step_s",
        "trial": "evaluation trial",
        "train_trial": "training trial",
    }
    return {
        axis: Coordinate(np.arange(n[axis]), "1", f"number of the {descriptions[axis]}")
        for axis in n
    }


TRAIN, EVAL = ("train_trial", "time"), ("trial", "time")

DIMS = {
    "train": Var((*TRAIN, "unit"), "1", "spike counts to train on"),
    "train_behavior": Var((*TRAIN, "output"), "1", "the network's output on these trials"),
    "train_external": Var((*TRAIN, "input"), "1", "the network's inputs on these trials; with `external: true`"),
    "eval": Var((*EVAL, "unit"), "1", "spike counts to evaluate with"),
    "eval_external": Var((*EVAL, "input"), "1", "the network's inputs on these trials; with `external: true`"),
    "eval_behavior": Var((*EVAL, "output"), "1", "the network's output on these trials"),
    "eval_rates": Var((*EVAL, "unit"), "1/bin", "true rates"),
    "eval_inputs": Var((*EVAL, "input"), "1", "true inputs of the network"),
    "eval_states": Var((*EVAL, "state"), "1", "true states of the network"),
    "eval_initial_states": Var(("trial", "state"), "1", "true states before the first step"),
    "mean_rate": Var((), "1/s", "mean true rate over all trials and units"),
}  # fmt: skip

kernel = one_shot(
    "spikes",
    Spikes,
    DIMS,
    make,
    load=load,
    coords=coords,
    display=Display(plots=plots),
    batching=Batching(
        width=4,
        # One item has trials enough for large products; on a CPU several items side by side would not fit the cache.
        microbatches=(0,),
        cpu_microbatches=(1,),
    ),
)
