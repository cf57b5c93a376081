"""Kernel: train a recurrent network on a task by gradient descent through time.

The loss of a minibatch is the mean squared error over its trials, outputs and steps (weighted by the task's mask), or
their cross-entropy, plus l2 |weights|^2 + l1 sum |weights| over all trained weights, plus rates_l1 and rates_l2 times
the mean absolute and mean square rate. The optimiser, by default Adam (Kingma & Ba 2015), clips the gradient's norm and
takes a step with the learning rate learning_rate * decay^step, or by another schedule. Each step draws its own minibatch
with the key fold_in(key of the item's minibatches, step), and its own noise on states and inputs.

Weights may obey Dale's law, a mask or a rank. Parameters make weights that keep these constraints at every step; see
`parameters`. Results are weights under the names of `ctd.cells`.

Trials from a file may have the rates of recorded units as targets: with readout identity, training fits the network to them.

If the task has a rule of success, the accuracy on the evaluation trials is a result, and training ends early at the
accuracy `stop_at`.

An item is one network. Its cell, task and sizes are static; its learning rate, penalties and initial scales are traced,
so that hundreds of networks train in one program. One `advance` is `report_every` steps.

The defaults are the settings of the decision network in the tutorial of computation through dynamics (evaluation loss
0.032 and 0.035 of two networks). Its integrator (cell vanilla, 10,000 steps) does best with an ordinary Adam:
learning_rate 0.003, decay 0.9996, l2 1e-6, adam_eps 1e-5, recurrent_scale 0.9 (evaluation loss 1.35e-5 in one run with
n = 100).

    params       Network: the parameters of one item   checks      refuses constraints that contradict each other
    connections  masks, signs of units                 parameters  trained parameters, and the weights made of them
    loss         the loss, the evaluation trials       step        one step of training; its optimiser
    plots        curves, accuracy, state space         summary     the best networks of a group
"""

from __future__ import annotations

import numpy as np

from ctd.cells import CELLS, Cell, get_cell, run, weight_dims
from ctd.kernel import OWN_WEIGHTS, Coordinate, Display, Kernel, Outcome, Tables, Values, Var, View
from ctd.late import Array, Bool, Float, jax, jnp
from ctd.rows import Best
from ctd.tasks import Recorded
from ctd.tasks.noise import noisy, seeded
from ctd.tasks.scores import weighted_loss
from ctd.train_rnn.connections import connections, read_masks
from ctd.train_rnn.loss import Scores, Shared, condition_values, evaluate, load_trials, minibatch
from ctd.train_rnn.parameters import divided, initial, stored, weights_of
from ctd.train_rnn.params import Network
from ctd.train_rnn.plots import rnn_plots
from ctd.train_rnn.step import State, optimizer, train_step
from ctd.train_rnn.summary import REDUCED, next_jobs, reduce
from ctd.training import batch_axis, empty_curve, item_keys, n_blocks, take_steps

__all__ = ["Network", "kernel"]

NOISE, EVAL_NOISE = 2**31 - 1, 2**31 - 2
"""Folded into the key of the minibatches. The other numbers folded into it are steps, which stay below these."""
DIVERGED = 100.0
"""A network has diverged when the mean loss of a block exceeds this many times those of the first minibatch and of outputs of 0."""


def load(inputs: View[Network]) -> Shared:
    """Load the evaluation trials and the masks of a file. Raises ValueError as `load_trials` and `read_masks` do."""
    shared = load_trials(inputs)
    trials = shared.evaluation
    n_in, n_out = trials.inputs.shape[-1], trials.targets.shape[-1]
    return shared._replace(masks=read_masks(inputs, n_in, n_out))


def init(static: View[Network], shared: Shared, traced: Values[Network], key: Array) -> State:
    """Draw a network and start its optimiser."""
    trials = shared.evaluation
    key_weights, _ = item_keys(key, traced)
    # Masks and signs come first: the spread of the initial weights depends on each unit's number of connections.
    links = connections(static, shared.masks, traced, key_weights)
    sizes = trials.inputs.shape[-1], trials.targets.shape[-1]
    parameters = initial(static, sizes, links, traced, key_weights)
    trained, _ = divided(static, parameters)
    curve = empty_curve(static)
    return State(
        parameters,
        links,
        optimizer(static, traced).init(trained),
        step=jnp.zeros((), jnp.int32),
        first=jnp.full((), jnp.nan, static.dtype),
        curve=curve,
        accuracy=curve if static.stop_at else curve[:0],
        diverged=jnp.zeros((), bool),
        done=jnp.zeros((), bool),
    )


def advance(
    static: View[Network], shared: Shared, traced: Values[Network], key: Array, state: State
) -> State:
    """Take `report_every` training steps, or those that are left."""
    _, key_data = item_keys(key, traced)
    # All blocks but the last are full, so that the steps taken give the block's place in the curve.
    block = state.step // static.report_every

    def take_step(at: State) -> tuple[State, Float[Array, ""], Bool[Array, ""]]:
        trials = minibatch(static, shared.training, key_data, at.step)
        if static.noise:
            key_noise = jax.random.fold_in(jax.random.fold_in(key_data, NOISE), at.step)
            trials = seeded(trials, key_noise, traced.input_noise)
        return train_step(static, traced, at, trials)

    n, n_batches = static.report_every, static.n_batches
    (end, diverged), errors = take_steps(take_step, state, state.diverged, n, n_batches)
    # Steps that were not taken are NaN.
    mean = jnp.nanmean(errors)
    # Relative to the first loss, since losses of tasks differ by orders of magnitude.
    first = jnp.where(state.step == 0, errors[0], state.first)
    # A first minibatch of few trials may have a small loss by chance; the loss of outputs of 0 has the size of the targets.
    trials = shared.evaluation
    none, weight = weighted_loss(static.loss, jnp.zeros_like(trials.targets), trials)
    # The mean of a block without a finite step is NaN, and compares false: the scan has set `diverged` already.
    diverged |= mean > DIVERGED * jnp.fmax(first, none / weight)
    accuracy, done = state.accuracy, diverged | (end.step >= static.n_batches)
    # Evaluation runs n_eval trials: only stop_at needs it at every block.
    if static.stop_at:
        weights = weights_of(static, state.links, traced, end.parameters)
        cell, noisy_trials = with_noise(static, shared, traced, key)
        now = evaluate(static, noisy_trials, cell, weights).accuracy().astype(static.dtype)
        accuracy, done = accuracy.at[block].set(now), done | (now >= static.stop_at)
    curve = state.curve.at[block].set(mean)
    return end._replace(first=first, curve=curve, accuracy=accuracy, diverged=diverged, done=done)


def result(
    static: View[Network], shared: Shared, traced: Values[Network], key: Array, state: State
) -> dict[str, Array]:
    """The weights, the losses, and the scores and saved trials that the parameters ask for."""
    weights = weights_of(static, state.links, traced, state.parameters)
    cell, shared = with_noise(static, shared, traced, key)
    values = {f"weights.{name}": value for name, value in stored(weights).items()}
    values |= {f"low_rank.{k}": v for k, v in state.parameters.items() if k in ("m", "n")}
    if static.n_saved:
        # `with_noise` has put the noise into these inputs: the saved trials are the ones that are scored.
        some = shared.evaluation.inputs[: static.n_saved]
        values["states"], values["outputs"] = jax.vmap(lambda x: run(cell, weights, x))(some)
    # Blocks that were not reached are NaN; a network that diverged in the first block has none that counts.
    last = len(state.curve) - 1 - jnp.argmax(~jnp.isnan(state.curve)[::-1])
    scores = evaluate(static, shared, cell, weights)
    loss = scores.mean_loss()
    # The targets of a file are data, which an output explains; those of other tasks are answers.
    if isinstance(static.task, Recorded) and static.loss == "squared_error":
        values["r2"] = scores.r2(shared.evaluation)
    return (
        values
        | _accuracies(static, scores, state)
        | {
            "curve": state.curve,
            "train_loss": state.curve[last],
            "eval_loss": loss,
            "batches": state.step,
            # The last step may explode after its own loss was taken.
            "outcome": (state.diverged | ~jnp.isfinite(loss)).astype(jnp.int32),
        }
    )


def with_noise(
    static: View[Network], shared: Shared, traced: Values[Network], key: Array
) -> tuple[Cell, Shared]:
    """The cell and the trials for evaluation, with the evaluation noise if `noise` is set."""
    if not static.noise:
        return get_cell(static.cell), shared
    trials, (_, key_data) = shared.evaluation, item_keys(key, traced)
    cell = noisy(get_cell(static.cell), traced.eval_state_noise)
    # One key for all evaluations of an item: the noise is the same in each, so that accuracies differ by the weights alone.
    trials = seeded(trials, jax.random.fold_in(key_data, EVAL_NOISE), traced.eval_input_noise)
    return cell, shared._replace(evaluation=trials)


def _accuracies(static: View[Network], scores: Scores, state: State) -> dict[str, Array]:
    """The accuracies by result name; none if the task has no rule of success."""
    if not static.task.scored:
        return {}
    accuracies = {"accuracy": scores.accuracy().astype(static.dtype)}
    if len(scores.n_trials) > 1:
        # NaN for a condition that no evaluation trial has.
        share = (scores.right / scores.n_trials).astype(static.dtype)
        accuracies |= {"condition_accuracy": share, "worst_accuracy": jnp.nanmin(share)}
    if static.stop_at:
        accuracies["accuracy_curve"] = state.accuracy
    return accuracies


def coords(inputs: View[Network], shared: Shared) -> dict[str, Coordinate]:
    """Coordinates of the results: training steps, time in a trial, conditions, and the condition or number of saved trials."""
    coordinates = batch_axis(inputs)
    values = np.asarray(condition_values(inputs.task, shared))
    if inputs.n_saved:
        length, unit = inputs.task.time_step
        steps = length * np.arange(shared.evaluation.inputs.shape[1])
        description = "number of the step" if unit == "1" else "time in a trial"
        coordinates["time"] = Coordinate(steps, unit, description)
        coordinates["trial"] = Coordinate(
            np.arange(inputs.n_saved), "1", "number of the evaluation trial"
        )
    if len(values) > 1:
        conditions = inputs.task.conditions
        kinds = Coordinate(values, "1", conditions.name if conditions else "condition")
        coordinates["condition"] = kinds
        if inputs.n_saved:
            condition_of_trial = np.asarray(shared.evaluation.condition)[: inputs.n_saved]
            coordinates["trial"] = kinds._replace(values=values[condition_of_trial])
    return coordinates


# Declared before a job chooses its cell.
DIMS = weight_dims(CELLS) | {
    "low_rank.m": Var(("unit", "mode"), "1", "m of wR = m n' / N, with `rank`"),
    "low_rank.n": Var(("unit", "mode"), "1", "n of wR = m n' / N, with `rank`"),
    "curve": Var(("batch",), "1", "loss in training, mean over each block"),
    "train_loss": Var((), "1", "loss over the last block"),
    "eval_loss": Var((), "1", "loss on the evaluation trials"),
    "r2": Var((), "1", "share of the variance of evaluation targets that the outputs explain; of task file with loss squared_error alone", True),
    "accuracy": Var((), "1", "share of the evaluation trials that are answered correctly; of tasks with a score", True),
    "worst_accuracy": Var((), "1", "accuracy in the condition where it is lowest", True),
    "condition_accuracy": Var(("condition",), "1", "accuracy in each condition", True),
    "accuracy_curve": Var(("batch",), "1", "accuracy at the end of each block", True),
    "batches": Var((), "1", "training steps taken"),
    "outcome": Var((), "1", "how training ended"),
    "states": Var(("trial", "time", "state"), "1", "hidden states h of evaluation trials; the rates of cell leaky are f(h)"),
    "outputs": Var(("trial", "time", "output"), "1", "outputs of evaluation trials"),
}  # fmt: skip

kernel = Kernel(
    name="train_rnn",
    Params=Network,
    dims=DIMS,
    load=load,
    init=init,
    advance=advance,
    finished=lambda state: state.done,
    result=result,
    outcomes=(
        Outcome("trained", "all training steps were taken, or stop_at was reached"),
        Outcome(
            "diverged",
            f"loss or gradient not finite, or the loss is {DIVERGED:g} times that of the first minibatch and {DIVERGED:g} times that of outputs of 0",
            failed=True,
        ),
    ),
    coords=coords,
    tables=Tables(reduce=reduce, of_failed=True, dims=REDUCED, Options=Best),
    advances=n_blocks,
    batching=OWN_WEIGHTS,
    display=Display(
        summary=("item", "eval_loss", "train_loss"),
        metric="eval_loss",
        # Trials of another task, other noise in evaluation trials, or another loss; n_eval draws more of the same trials.
        measured_on=("task", "trials", "loss", "eval_state_noise", "eval_input_noise"),
        next_jobs=next_jobs,
        curves=("curve",),
        plots=rnn_plots,
        png_plots=2,
    ),
)
