"""Kernel: what a network's task loses if one of its units, or one of its modes at a point, is taken out.

An item takes out one thing. A unit is held at 0, or at its mean over the trials. A mode of dF/dh at a point h*, with
eigenvectors r and l, l^H r = 1, is removed from every state: h <- h - r l^H (h - h*); of complex modes, both of a pair. The
rest of the network stays as it was trained. All items see the same trials.

    kernel: fixed_points.ablation
    params: {cell: gru, weights: net.h5, task: flipflop}
    sweep: {grid: {unit: {range: 64}}}

Modes: `remove: mode`, `points` as in fixed_points.connections, and a sweep over `point` and `mode`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import numpy as np
from pydantic import model_validator

from ctd import tasks
from ctd.cells import Cell, Weights, as_weights, initial_state, readout
from ctd.data import read_table
from ctd.fixed_points.network import CellName, OfTrials, cell_of, load_trials, number_of
from ctd.kernel import Batching, Display, File, Static, Traced, Values, Var, View, one_shot
from ctd.late import Array, Float, Int, jax, jnp, lax, on_host
from ctd.plots import Axis, Group, Layer, Lines, Plot, Points, Scale, of_group
from ctd.tasks.scores import weighted_loss
from ctd.words import count


class Ablation(OfTrials):
    """One unit or mode that is taken out."""

    dtype: Static[Literal["float32", "float64"]] = "float32"
    remove: Static[Literal["unit", "mode"]] = "unit"
    """what is taken out"""
    hold: Static[Literal["zero", "mean"]] = "zero"
    """value at which the unit is held: 0, or its mean over trials and steps"""
    loss: Static[Literal["squared_error", "cross_entropy"]] = "squared_error"
    """the loss that the network was trained with"""
    points: File[str | None] = None
    """for remove: mode, the table of the network's points: STORE/gathered/GROUP of fixed_points"""
    task: Static[tasks.AnyTask] = tasks.FlipFlop()
    """task whose trials are run"""
    unit: Traced[int] = number_of("unit")
    point: Traced[int] = number_of("point, by its row in the table")
    mode: Traced[int] = number_of("mode, by decreasing |eigenvalue|")

    @model_validator(mode="after")
    def _has_points(self) -> Ablation:
        if self.remove == "mode" and self.points is None:
            raise ValueError(
                "points: remove: mode needs a table of points, STORE/gathered/GROUP of fixed_points"
            )
        if self.remove == "unit" and self.points is not None:
            raise ValueError("points: a table is for remove: mode, but remove is unit")
        return self


DIMS = {
    "ablated_loss": Var((), "1", "loss of the network without the unit or mode"),
    "intact_loss": Var((), "1", "loss of the whole network on the same trials"),
    "ablated_accuracy": Var((), "1", "share of the trials that it still answers correctly", True),
    "intact_accuracy": Var((), "1", "share of the trials that the whole network answers correctly", True),
    "removed_eigenvalue": Var(("part",), "1", "eigenvalue of the mode that was taken out, real and imaginary part"),
}  # fmt: skip


type Hold = Callable[[Float[Array, "state"]], Float[Array, "state"]]
"""A state -> the state without the unit or mode that is taken out."""


class Baseline(NamedTuple):
    """A network, trials, and its scores on them."""

    cell: CellName
    weights: Weights
    trials: tasks.Trial
    mean: Float[Array, "state"] | None
    """The mean state over trials and steps."""
    intact: dict[str, Float[Array, ""]]
    """Its loss and accuracy."""
    points: dict[str, Array]
    """The columns point, eigenvalue, right and left of a table of points; empty for units."""


def load(inputs: View[Ablation]) -> Baseline:
    """The network on its trials, and its points. Raises ValueError, naming file and field."""
    name, cell, weights, task_trials = load_trials(inputs)
    if "wO" not in weights:
        raise ValueError(f"weights: {inputs.weights} has no readout, so its task has no loss")
    trials = jax.tree.map(np.asarray, task_trials)
    if inputs.task.n_out != len(weights["wO"]):
        raise ValueError(
            f"task: {inputs.task.title} has {count(inputs.task.n_out, 'output')}, but the network in "
            f"{inputs.weights} has {len(weights['wO'])}"
        )
    on_task = as_weights(weights, inputs.dtype)
    baseline = Baseline({name: None}, on_task, trials, None, {}, _points(inputs, on_task, cell))
    # Nothing is taken out here: this is the whole network, whose mean state and scores all items share.
    states, scores = jax.jit(lambda w: _score_trials(inputs, w, lambda h: h))(baseline)
    mean = np.asarray(states).reshape(-1, states.shape[-1]).mean(axis=0)
    return baseline._replace(mean=on_host(mean), intact=jax.tree.map(np.asarray, scores))


def _points(inputs: View[Ablation], weights: Weights, cell: Cell) -> dict[str, Array]:
    """The table of points, which modes need. Raises ValueError if the file holds no such table, or that of another network."""
    if inputs.points is None:
        return {}
    names = ("point", "eigenvalue", "right", "left")
    table = read_table("points", inputs.points, "fixed_points", names)
    size, shape = cell.state_size(cell.infer(weights)[0]), np.shape(table["point"])
    if shape[1:] != (size,) or not shape[0]:
        raise ValueError(
            f"points: {inputs.points}: shape {shape}, (point, {size}) with at least one point expected"
        )
    # (part, point, ...): complex columns are split, so that they can take the job's dtype.
    parts = lambda values: on_host(np.stack([values.real, values.imag]), inputs.dtype)
    complex_ = {name: parts(np.asarray(table[name])) for name in names[1:]}
    return {"point": on_host(table["point"], inputs.dtype), **complex_}


def _score_trials(
    static: View[Ablation], baseline: Baseline, hold: Hold
) -> tuple[Float[Array, "trial time state"], dict[str, Float[Array, ""]]]:
    """(states, loss and accuracy) of the network whose every state passes through `hold`."""
    cell = cell_of(baseline)
    assert isinstance(cell, Cell)
    weights, trials = jax.tree.map(jnp.asarray, (baseline.weights, baseline.trials))
    # h0 is held as well: a unit that is taken out is so from the first step on.
    start = hold(initial_state(cell, weights, trials.inputs.dtype))

    def step(
        h: Float[Array, "state"], x: Float[Array, "input"]
    ) -> tuple[Float[Array, "state"], Float[Array, "state"]]:
        h = hold(cell.step(weights, h, x))
        return h, h

    states = jax.vmap(lambda x: lax.scan(step, start, x)[1])(trials.inputs)
    outputs = jax.vmap(jax.vmap(lambda h: readout(cell, weights, h)))(states)
    total, weight = weighted_loss(static.loss, outputs, trials)
    scores = {"loss": total / weight}
    if static.task.scored:
        # Success is judged on probabilities where these are the targets, as in training (ctd.train_rnn.loss).
        answers = jax.nn.softmax(outputs) if static.loss == "cross_entropy" else outputs
        scores["accuracy"] = jnp.mean(jax.vmap(static.task.success)(trials, answers))
    return states, scores


def removed_mode(
    points: Mapping[str, Array], point: Int[Array, ""], mode: Int[Array, ""]
) -> tuple[Hold, Float[Array, "part"]]:
    """(h -> h without the mode, or the pair, of a point; its eigenvalue)."""
    row = lambda name: jnp.asarray(points[name])[:, point]
    values, right_vectors, left_vectors = row("eigenvalue"), row("right"), row("left")
    k = mode % values.shape[1]
    # The conjugate of a complex mode has the same right and left parts, but for the sign of the imaginary ones.
    pair = jnp.where(values[1, k] == 0, 1, 2)
    # With r = a + ib and l = c + id, the real part of r l^H dh is a (c.dh) + b (d.dh).
    (a, b), (c, d) = right_vectors[:, :, k], left_vectors[:, :, k]
    centre = jnp.asarray(points["point"])[point]
    out = lambda h: h - pair * (a * (c @ (h - centre)) + b * (d @ (h - centre)))
    return out, values[:, k]


def run(
    static: View[Ablation], shared: Baseline, traced: Values[Ablation], key: Array
) -> dict[str, Array]:
    """The trials, without one unit or mode."""
    del key
    values = {}
    if static.remove == "mode":
        point = traced.point % len(shared.points["point"])
        hold, values["removed_eigenvalue"] = removed_mode(shared.points, point, traced.mode)
    else:
        mean, cell = jnp.asarray(shared.mean), cell_of(shared)
        assert isinstance(cell, Cell)
        n = cell.infer(shared.weights)[0]
        at = jnp.zeros_like(mean) if static.hold == "zero" else mean
        # An LSTM's state is h, then c: both entries of a unit are held.
        out = jnp.arange(len(mean)) % n == traced.unit % n
        hold = lambda h: jnp.where(out, at, h)
    scores = _score_trials(static, shared, hold)[1]
    values |= {f"ablated_{name}": value for name, value in scores.items()}
    return values | {f"intact_{name}": jnp.asarray(value) for name, value in shared.intact.items()}


@of_group
def plots(group: Group) -> list[Plot]:
    """Loss, and accuracy, by the unit or mode that is taken out."""
    results, part = group.results, "unit" if group.inputs.remove == "unit" else "mode"
    number = np.asarray(group.columns.get(part, np.arange(len(group.items))))
    point = np.asarray(group.columns.get("point", number))
    several = part == "mode" and len(np.unique(point)) > 1
    shade, scale = (point, Scale("point")) if several else (None, Scale())
    note = f"On {count(group.inputs.n_trials, 'trial')} of the task, without state_noise and input_noise."
    figures = []
    for name in ("loss", "accuracy"):
        if f"ablated_{name}" in results:
            # All items have the same intact score: that of the first one is drawn as a line.
            intact = np.repeat(np.asarray(results[f"intact_{name}"][:1], float), 2)
            ends = np.array([number.min(), number.max()])
            layers: list[Layer] = [
                Lines(ends, intact, "whole network", faint=True),
                Points(number, group.values(f"ablated_{name}"), f"without the {part}", shade),
            ]
            title = f"{name.capitalize()} without each {part}"
            figures.append(Plot(title, layers, Axis(part), Axis(name), scale, note=note))
    return figures


kernel = one_shot(
    "fixed_points.ablation", Ablation, DIMS, run,
    load=load,
    display=Display(
        plots=plots, metric="ablated_loss", measured_on=("weights", "task", "trial_seed", "loss"),
    ),
    batching=Batching(microbatches=(0,), cpu_microbatches=(1,)),
)  # fmt: skip
