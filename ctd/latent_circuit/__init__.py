"""Kernel: fit a latent circuit, a small recurrent network of rectified nodes, to the rates of many units in trials of a task.

The circuit has a node for each input and output of the task; an orthonormal embedding maps the activity of its nodes to that of the units.
Its weights then say how the variables of the task act on each other (Langdon & Engel 2025, "Latent circuit inference from heterogeneous
neural responses during cognitive tasks", Nature Neuroscience 28:665).

    kernel: latent_circuit
    params: {trials: rates.h5, n: 8}
    sweep: {seeds: 20}

An item is one circuit. One `advance` is `report_every` training steps.

    params   LatentCircuit: the parameters of one item; its trials
    model    steps, embedding, loss, errors
    summary  the best circuits of a group, and whether they agree, pictures
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ctd.cells import weight_dims
from ctd.kernel import Batching, Coordinate, Display, Kernel, Outcome, Tables, Values, Var, View
from ctd.late import Array, Float, Int, PyTree, jax, jnp, lax, optax
from ctd.latent_circuit.model import (
    Circuit,
    activity,
    constrained,
    draw_noise,
    embedding,
    errors,
    initial,
    loss,
    optimizer,
)
from ctd.latent_circuit.params import LatentCircuit, Shared, Trials, load
from ctd.latent_circuit.summary import REDUCED, plots, reduce
from ctd.rows import Best
from ctd.training import batch_axis, empty_curve, n_blocks

__all__ = ["LatentCircuit", "kernel"]

FITTED, DIVERGED = range(2)
WEIGHTS, EVALUATION, FIRST = range(3)
"""Numbers that are folded into the key of an item; from FIRST on they count training steps."""
CELL = "leaky_rates:relu"


class State(NamedTuple):
    """A circuit in training."""

    circuit: Circuit
    optimizer: PyTree
    step: Int[Array, ""]
    """Training steps taken."""
    curve: Float[Array, "batch"]
    outcome: Int[Array, ""]


def _key(traced: Values[LatentCircuit], key: Array, number: int | Array) -> Array:
    return jax.random.fold_in(jax.random.fold_in(key, traced.seed), number)


def init(
    static: View[LatentCircuit], shared: Shared, traced: Values[LatentCircuit], key: Array
) -> State:
    """Draw a circuit and start its optimiser."""
    circuit = initial(static, shared.training, _key(traced, key, WEIGHTS))
    return State(
        circuit,
        optimizer(traced).init(circuit),
        jnp.zeros((), jnp.int32),
        empty_curve(static),
        jnp.asarray(FITTED, jnp.int32),
    )


def advance(
    static: View[LatentCircuit],
    shared: Shared,
    traced: Values[LatentCircuit],
    key: Array,
    state: State,
) -> State:
    """Take `report_every` training steps, each on a minibatch of its own, drawn with replacement."""
    training, adam = Trials(*map(jnp.asarray, shared.training)), optimizer(traced)
    n = len(training.inputs)

    def step(at: State, _: None) -> tuple[State, Array]:
        # The step's number makes the key, so that a resumed fit draws the same minibatches.
        trial_key, noise = jax.random.split(_key(traced, key, FIRST + at.step))
        some = jax.random.randint(trial_key, (static.batch_size,), 0, n)
        trials = Trials(*(a[some] for a in training))
        within = draw_noise(static, traced, trials.inputs, noise)  # (trial, time, node)
        value, slope = jax.value_and_grad(loss)(at.circuit, traced, trials, within)
        change, moments = adam.update(slope, at.optimizer, at.circuit)
        # Projected gradient: Adam's step may leave the constraints, and is brought back.
        circuit = constrained(optax.apply_updates(at.circuit, change))
        return at._replace(circuit=circuit, optimizer=moments, step=at.step + 1), value

    end, values = lax.scan(step, state, length=static.report_every)
    mean = jnp.mean(values)  # NaN if any step was
    fine = jnp.isfinite(mean) & jnp.isfinite(end.circuit.wR).all()
    block = state.step // static.report_every
    outcome = jnp.where(fine, FITTED, DIVERGED).astype(jnp.int32)
    return end._replace(curve=state.curve.at[block].set(mean), outcome=outcome)


def result(
    static: View[LatentCircuit],
    shared: Shared,
    traced: Values[LatentCircuit],
    key: Array,
    state: State,
) -> dict[str, Array]:
    """The circuit, its embedding, and its errors in evaluation trials, without its noise and with it."""
    c, trials = state.circuit, Trials(*map(jnp.asarray, shared.evaluation))
    run = lambda within: activity(c, traced.alpha, trials.inputs, within)
    x = run(jnp.zeros((), static.dtype))  # no noise
    quiet = errors(c, x, trials)
    # Without noise, or in other trials, a circuit may run away that did not in training.
    diverged = (state.outcome == FITTED) & ~jnp.isfinite(quiet.rates)
    within = draw_noise(static, traced, trials.inputs, _key(traced, key, EVALUATION))
    n, n_out = len(c.wR), len(c.wO)
    nothing = lambda k: jnp.zeros(k, static.dtype)
    # The circuit has no biases and begins at 0.
    weights = {"wI": c.wI, "wR": c.wR, "bR": nothing(n), "alpha": traced.alpha}
    weights |= {"wO": c.wO, "bO": nothing(n_out), "h0": nothing(n)}
    values = {f"weights.{name}": value for name, value in weights.items()} | {
        "embedding": embedding(c),
        "nmse": quiet.rates,
        "noisy_nmse": errors(c, run(within), trials).rates,
        "nmse_within": quiet.within,
        "nmse_outside": quiet.outside,
        "output_mse": quiet.outputs,
        "curve": state.curve,
        "batches": state.step,
        "outcome": jnp.where(diverged, DIVERGED, state.outcome),
    }
    return values | ({"activity": x[: static.n_saved]} if static.n_saved else {})


def coords(inputs: View[LatentCircuit], shared: Shared) -> Mapping[str, Coordinate]:
    """Training steps, and the steps of a trial."""
    return {
        **batch_axis(inputs),
        "time": Coordinate(np.arange(shared.evaluation.inputs.shape[1]), "1", "number of the step"),
    }


kernel = Kernel(
    name="latent_circuit", Params=LatentCircuit,
    dims=weight_dims(["leaky_rates"], f" of the circuit, a network of cell {CELL}")
    | {
        "embedding": Var(("recorded", "unit"), "1", "Q, with orthonormal columns: rates of recorded units = Q times activity of nodes"),
        "nmse": Var((), "1", "error of rates in evaluation trials, |Q x - y|^2 over the rates' variance, circuit without noise"),
        "noisy_nmse": Var((), "1", "the same of the circuit with its noise"),
        "nmse_within": Var((), "1", "mean square of x - Q'y over the mean variance of a rate"),
        "nmse_outside": Var((), "1", "share of the rates' variance outside of the dimensions of Q"),
        "output_mse": Var((), "1", "mean square of the outputs' error, summed over outputs"),
        "activity": Var(("trial", "time", "unit"), "1", "activity of the nodes in evaluation trials, without noise"),
        "curve": Var(("batch",), "1", "loss in training, mean over each block"),
        "batches": Var((), "1", "training steps taken"),
        "outcome": Var((), "1", "how the fit ended"),
    },
    load=load, init=init, advance=advance,
    # The last entry of the curve is filled by the last step.
    finished=lambda s: (s.outcome != FITTED) | ~jnp.isnan(s.curve[-1]), result=result,
    outcomes=(
        Outcome("fitted", "all training steps were taken"),
        Outcome("diverged", "loss, weights or the error of rates in evaluation trials are not finite", failed=True),
    ),
    coords=coords, tables=Tables(reduce=reduce, of_failed=True, dims=REDUCED, Options=Best), advances=n_blocks,
    display=Display(
        summary=("item", "nmse"), plots=plots, metric="nmse", measured_on=("trials",), curves=("curve",),
    ),
    batching=Batching(width=64),
)  # fmt: skip
