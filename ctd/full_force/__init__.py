"""Kernel: train all recurrent weights of a network on a task by recursive least squares, with targets for every unit (full-FORCE).

The targets come from a second, random network that is driven by the wanted output, and by hints if the task has any. The first network
learns to make these currents by its own recurrent weights, and the output by a readout; then it needs neither (DePasquale,
Cueva, Rajan, Escola & Abbott 2018, "full-FORCE: A target-based method for training recurrent networks", PLoS ONE 13:e0191527).

    kernel: full_force
    params: {trials: oscillation_trials.h5, n: 300}
    sweep: {grid: {g: [1.0, 1.5]}, seeds: 20}

An item is one network. One `advance` is one training trial; trials follow each other without a reset.

    params   FullForce: the parameters of one item; its trials
    model    both networks, a training trial, a test trial
    summary  the best networks of a group, medians, pictures
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ctd.cells import weight_dims
from ctd.full_force.model import (
    FIRST,
    STATES,
    TEST,
    Fixed,
    Now,
    Trained,
    begin,
    driven,
    fixed,
    free_trial,
    item_key,
    settle,
    training_trial,
)
from ctd.full_force.params import FullForce, Trials, load
from ctd.full_force.summary import REDUCED, plots, reduce
from ctd.kernel import OWN_WEIGHTS, Coordinate, Display, Kernel, Outcome, Tables, Values, Var, View
from ctd.late import Array, Float, Int, jax, jnp, lax
from ctd.rls import Symmetric, scaled_identity
from ctd.rows import Best

__all__ = ["FullForce", "kernel"]

TRAINED, DIVERGED, ILL_CONDITIONED = range(3)
FADED = 1e-7
"""Gain of the first update, r P r, below which a network learns more slowly than it fades."""


class State(NamedTuple):
    """Both networks between two training trials."""

    now: Now
    JW: Array
    """(n + outputs, n) recurrent weights and readout of the task-performing network."""
    P: Symmetric
    trials: Int[Array, ""]
    """Training trials done."""
    curve: Float[Array, "train_trial"]
    outcome: Int[Array, ""]


def _some(shared: Trials, key: Array) -> tuple[Array, Array, Array]:
    """One trial, drawn at random."""
    arrays = [jnp.asarray(a) for a in (shared.inputs, shared.targets, shared.hints)]
    at = jax.random.randint(key, (), 0, len(arrays[0]))  # trials are drawn with replacement
    u, f, h = (lax.dynamic_index_in_dim(a, at, keepdims=False) for a in arrays)
    return u, f, h


def _relative(error: Array, target: Array, all_targets: Array) -> Array:
    """Divide the error by the target's sum of squares; if that is 0, by the mean sum of as many trials of the file."""
    square_sum = jnp.sum(target**2)
    mean = jnp.mean(jnp.asarray(all_targets) ** 2) * target.size
    return error / jnp.where(square_sum > 0, square_sum, mean)


def init(static: View[FullForce], shared: Trials, traced: Values[FullForce], key: Array) -> State:
    """Draw both networks, of which one has learnt nothing, and let them settle for `settle` trials."""
    w, n = fixed(static, shared, traced, key), static.n
    JW = jnp.zeros((n + shared.targets.shape[2], n), static.dtype)
    # Both networks begin at random states; `settle` trials let these fade before anything is learnt.
    key_states, key_trials = jax.random.split(item_key(traced, key, STATES))
    start = begin(w, JW, *jax.random.normal(key_states, (2, n), static.dtype))
    run = lambda now, key: (settle(w, JW, now, _some(shared, key)), None)
    now, _ = lax.scan(run, start, jax.random.split(key_trials, static.settle))
    # Where no input moves it, what has learnt nothing fades to 0, and its rates would never teach it: it begins anew.
    undriven = ~jnp.any(jnp.asarray(shared.inputs) != 0)
    faded = undriven & (traced.alpha * jnp.sum(now.x**2) < FADED)
    return State(
        now._replace(x=jnp.where(faded, start.x, now.x)),
        JW,
        scaled_identity(jnp.asarray(traced.alpha, static.dtype), n, static.dtype),
        jnp.zeros((), jnp.int32),
        jnp.full(static.n_train, jnp.nan, static.dtype),
        jnp.asarray(TRAINED, jnp.int32),
    )


def advance(
    static: View[FullForce], shared: Trials, traced: Values[FullForce], key: Array, state: State
) -> State:
    """Train on one trial."""
    key_trial, key_updates = jax.random.split(item_key(traced, key, FIRST + state.trials))
    trial = _some(shared, key_trial)
    # As the authors' code draws them: regular updates could fall into step with a fast oscillation.
    updates = jax.random.bernoulli(key_updates, 1 / traced.update_every, (len(trial[1]),))
    start = Trained(state.now, state.JW, jnp.zeros((), static.dtype), jnp.ones((), bool))
    # What is fixed is drawn again from the same key, so that a checkpoint need not hold it.
    w = fixed(static, shared, traced, key)
    end, P = training_trial(w, start, state.P, trial, updates)
    finite = jnp.isfinite(end.JW).all() & jnp.isfinite(end.now.x).all()
    outcome = jnp.where(end.sound, jnp.where(finite, TRAINED, DIVERGED), ILL_CONDITIONED)
    # Relative to the size of the wanted output, so that tasks compare.
    curve = state.curve.at[state.trials].set(_relative(end.error, trial[1], shared.targets))
    return State(end.now, end.JW, P, state.trials + 1, curve, outcome.astype(jnp.int32))


def _tested(
    test: Trials, w: Fixed, JW: Array, x: Array, keys: Array
) -> tuple[Array, tuple[Array, Array, Array]]:
    """Run the network alone from x: (last state, (state before a trial, outputs, wanted outputs), each (trial, ...)); a trial for each key."""

    def trial(x: Array, key: Array) -> tuple[Array, tuple[Array, Array, Array]]:
        u, f, _ = _some(test, key)
        end, z = free_trial(w, JW, x, u)
        return end, (x, z, f)

    return lax.scan(trial, x, keys)


def result(
    static: View[FullForce], shared: Trials, traced: Values[FullForce], key: Array, state: State
) -> dict[str, Array]:
    """Test the network alone on trials of the test file, and return it as a `leaky` network."""
    w, n, JW = fixed(static, shared, traced, key), static.n, state.JW
    key_state, key_trials = jax.random.split(item_key(traced, key, TEST))
    keys = jax.random.split(key_trials, static.settle + static.n_test)
    settling, testing = keys[: static.settle], keys[static.settle :]
    # Hints are for training alone.
    test = shared._replace(
        inputs=shared.test_inputs, targets=shared.test_targets, hints=shared.test_targets
    )
    # One ratio over all test trials.
    error = lambda z, f: _relative(jnp.sum((z - f) ** 2), f, test.targets)
    # As the authors' fF_v_F.m tests: from one random state of both, the wanted currents bring the network to its cycle.
    x = jax.random.normal(key_state, (n,), static.dtype)
    drive = lambda now, key: (driven(w, JW, now, _some(shared, key)), None)
    start, _ = lax.scan(drive, begin(w, JW, x, x), settling)
    _, (states, z, f) = _tested(test, w, JW, start.x, testing)
    # As their Python demo tests: the network settles by itself.
    alone, _ = _tested(test, w, JW, x, settling)
    _, (_, z_alone, _) = _tested(test, w, JW, alone, testing)
    test_error = error(z, f)
    # In training RLS corrects the outputs as they come; alone, the network may run away.
    diverged = (state.outcome == TRAINED) & ~jnp.isfinite(test_error)
    weights = {"wI": w.w, "wR": JW[:n], "bR": jnp.zeros(n, static.dtype), "alpha": w.rate}
    weights |= {"wO": JW[n:], "bO": jnp.zeros(len(JW) - n, static.dtype)}
    weights |= {"h0": states[0]}  # at which the stored test trial begins
    return {f"weights.{name}": value for name, value in weights.items()} | {
        "test_error": test_error,
        "random_start_error": error(z_alone, f),
        "curve": state.curve,
        "output": z[0],
        "target": f[0],
        "trials_done": state.trials,
        "outcome": jnp.where(diverged, DIVERGED, state.outcome),
    }


def coords(inputs: View[FullForce], shared: Trials) -> Mapping[str, Coordinate]:
    """Training trials, and time in a trial."""
    steps, trials = np.arange(shared.targets.shape[1]) * inputs.dt, np.arange(inputs.n_train)
    return {
        "train_trial": Coordinate(1 + trials, "1", "number of the training trial"),
        "time": Coordinate(steps, "s", "time in a trial"),
    }


kernel = Kernel(
    name="full_force", Params=FullForce,
    dims=weight_dims(["leaky"], " of the task-performing network")
    | {
        "test_error": Var((), "1", "normalised error of free runs, sum (z - f)^2 / sum f^2, on the trials of `test`, by default those of training, "
        "after `settle` training trials that drive the network; an output of 0 has 1"),
        "random_start_error": Var((), "1", "the same after `settle` trials in which the network runs alone from a random state", may_be_nan=True),
        "curve": Var(("train_trial",), "1", "normalised error in training, each output before its update"),
        "output": Var(("time", "output"), "1", "output in the first test trial"),
        "target": Var(("time", "output"), "1", "wanted output in that trial"),
        "trials_done": Var((), "1", "training trials done"),
        "outcome": Var((), "1", "how the item ended"),
    },
    load=load, init=init, advance=advance, finished=lambda state: (state.outcome != TRAINED) | (state.trials == state.curve.shape[0]), result=result,
    outcomes=(
        Outcome("trained", "all training trials were run"),
        Outcome("diverged", "weights, states or outputs are not finite", failed=True),
        Outcome("ill_conditioned", "P of RLS is no longer positive definite; use dtype float64 or a smaller alpha", failed=True),
    ),
    coords=coords, tables=Tables(reduce=reduce, of_failed=True, dims=REDUCED, Options=Best), advances=lambda inputs: inputs.n_train, batching=OWN_WEIGHTS,
    display=Display(
        summary=("item", "test_error"), plots=plots, metric="test_error", measured_on=("trials", "test"), curves=("curve",),
    ),
)  # fmt: skip
