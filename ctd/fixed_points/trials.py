"""Kernel: a network linearised along trials: eigenvalues at every state, and what each mode carries to the readout.

An item is one trial of the task. The linearisation at step t is that of h_t = F(h_{t-1}, x_t), at the state before the step
and with the input of the step (ctd.fixed_points.linear).

    kernel: fixed_points.trials
    params: {cell: gru, weights: net.h5, task: flipflop}
    sweep: {grid: {trial: {range: 20}}}
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from pydantic import Field

from ctd.cells import Cell, Weights, as_weights, initial_state, readout, run
from ctd.fixed_points.linear import MARGINAL, carried
from ctd.fixed_points.network import CellName, OfTrials, cell_of, load_trials, number_of
from ctd.kernel import Batching, Display, Static, Traced, Values, Var, View, one_shot
from ctd.late import Array, Float, jax, jnp, lax, on_host
from ctd.plots import Axis, Group, Lines, Plot, of_group

MOST = 5
"""Trials that a picture shows."""


class Trial(OfTrials):
    """One trial, along which the network is linearised."""

    n_modes: Static[int] = Field(10, gt=0)
    """how many modes to store, those of largest |eigenvalue| first"""
    every: Static[int] = Field(1, gt=0)
    """steps from one linearisation to the next"""
    trial: Traced[int] = number_of("trial")


_T = ("step",)
DIMS = {
    "step_number": Var(_T, "step", "number of the step, from 0"),
    "eigenvalue": Var((*_T, "mode", "part"), "1", "eigenvalues of dF/dh, real and imaginary part"),
    "leading": Var(_T, "1", "largest |eigenvalue|"),
    "n_unstable": Var(_T, "1", "how many of the kept modes grow, |eigenvalue| > 1 + 1e-6"),
    "transfer": Var(
        (*_T, "mode", "output", "input", "part"), "1",
        "what the mode carries from the input to the readout: C r_m l_m^H B, real and imaginary part; NaN where modes are not told apart",
        may_be_nan=True,
    ),
    "input_jacobian": Var((*_T, "state", "input"), "1", "dF/dx"),
    "trial_state": Var((*_T, "state"), "1", "the state before the step"),
    "trial_output": Var((*_T, "output"), "1", "readout of that state"),
}  # fmt: skip


class Driven(NamedTuple):
    """A network, and the inputs of its trials."""

    cell: CellName
    weights: Weights
    inputs: Float[Array, "trial time input"]


def load(inputs: View[Trial]) -> Driven:
    """The network, and trials of the task. Raises ValueError, naming file and field."""
    instead = ", or call ctd.fixed_points.linearise, which takes states and inputs"
    name, _, weights, trials = load_trials(inputs, instead)
    # The inputs alone, since targets do not move a network.
    return Driven({name: None}, as_weights(weights, inputs.dtype), on_host(trials.inputs))


def along(
    static: View[Trial], shared: Driven, traced: Values[Trial], key: Array
) -> dict[str, Array]:
    """One trial, linearised at every `every`-th of its steps."""
    del key
    cell = cell_of(shared)
    assert isinstance(cell, Cell)
    x = jnp.asarray(shared.inputs)[traced.trial % len(shared.inputs)]
    start = initial_state(cell, shared.weights, x.dtype)
    # A step starts from the state before it: the first from h0; no step starts from the last state.
    states = jnp.concatenate([start[None], run(cell, shared.weights, x)[0][:-1]])
    number = jnp.arange(0, len(x), static.every)
    step = lambda h, x: cell.step(shared.weights, h, x)
    read = lambda h: readout(cell, shared.weights, h)
    k = min(static.n_modes, len(start))
    at = lambda pair: carried(step, read, pair[0], pair[1], k)
    # One state after the other: J takes a copy of F's workspace for each unit.
    modes = lax.map(at, (states[number], x[number]))
    parts = lambda values: jnp.stack([jnp.real(values), jnp.imag(values)], axis=-1)
    size = jnp.abs(modes.eigenvalue)
    return {
        "step_number": number.astype(jnp.int32),
        "eigenvalue": parts(modes.eigenvalue),
        "leading": size[:, 0],  # modes come by decreasing size
        "n_unstable": jnp.sum(size > 1 + MARGINAL, axis=1).astype(jnp.int32),
        "transfer": parts(modes.transfer),
        "input_jacobian": modes.input_jacobian,
        "trial_state": states[number],
        "trial_output": jax.vmap(read)(states[number]),
    }


@of_group
def plots(group: Group) -> list[Plot]:
    """|eigenvalue| of the kept modes along the first trials."""
    values = np.asarray(group.results["eigenvalue"][:MOST])
    number = np.asarray(group.results["step_number"][:1])[0]  # equal for all trials
    trial = np.asarray(group.columns["trial"])[:MOST] % len(group.shared.inputs)
    return [
        Plot(
            f"Modes along trial {trial[k]}",
            [
                Lines(number[[0, -1]], np.ones(2), "1", faint=True),
                Lines(number, np.linalg.norm(modes, axis=-1).T, "modes"),
            ],
            Axis("step"),
            Axis("|eigenvalue|"),
        )
        for k, modes in enumerate(values)
    ]


kernel = one_shot(
    "fixed_points.trials", Trial, DIMS, along,
    load=load,
    display=Display(
        plots=plots, png_plots=2,
    ),
    batching=Batching(microbatches=(16,), cpu_microbatches=(1,)),
)  # fmt: skip
