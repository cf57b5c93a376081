"""Kernel: train a recurrent network on a task by gradient descent through time.

The loss of a minibatch is the mean squared error over its trials, outputs and steps (weighted by the
task's mask), plus l2 |weights|^2 over all trained weights. A step is Adam's (Kingma & Ba 2015) on the
gradient clipped to a norm, with the learning rate learning_rate * decay^step. Each step draws its own
minibatch with the key fold_in(key of the item's minibatches, step).

An item is a network. Its cell, task and sizes are static; its learning rate, penalties and initial scales
are traced, so that hundreds of networks train in one program. One `advance` is `report_every` steps.

The defaults are the settings of the decision network in the tutorial of computation through dynamics
(evaluation loss 0.032 and 0.035 of two networks). Its integrator (cell vanilla, 10,000 steps) does best with an ordinary Adam:
learning_rate 0.003, decay 0.9996, l2 1e-6, adam_eps 1e-5, recurrent_scale 0.9 (evaluation loss 1.35e-5
in one run with n = 100).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ctd import tasks
from ctd.cells import CELLS, Cell, CellName, Scales, get_cell, run
from ctd.kernel import Kernel, Outcome, Params, Static, Traced, Var
from ctd.plots.curves import block_ends, rnn_figure, rnn_plots

DIVERGED = 100.0
"""A network has diverged when a block's mean loss exceeds this many times that of its first minibatch."""

EVAL_SEED = 20_000
"""Seed of the evaluation trials: all networks that train on a task are evaluated on the same trials."""


class Network(Params):
    """One network to train."""

    cell: Static[CellName] = Field("gru", description=", ".join(CELLS))
    task: Static[tasks.AnyTask] = Field(tasks.Decision(), description=tasks.NAMES)
    n: Static[int] = Field(100, gt=0, description="units")
    batch_size: Static[int] = Field(128, gt=0, description="trials of a minibatch")
    n_batches: Static[int] = Field(20_000, gt=0, description="steps of training")
    report_every: Static[int] = Field(
        100, gt=0, description="steps of one advance and of one entry of the loss curve"
    )
    n_eval: Static[int] = Field(8192, gt=0, description="trials of the evaluation loss")
    n_saved: Static[int] = Field(
        0, ge=0, description="evaluation trials whose hidden states are stored"
    )
    learning_rate: Traced[float] = Field(0.04, gt=0, description="learning rate at the first step")
    decay: Traced[float] = Field(
        0.9999, gt=0, le=1, description="factor of the learning rate at each step"
    )
    l2: Traced[float] = Field(2e-5, ge=0, description="penalty on the squared norm of all weights")
    clip_norm: Traced[float] = Field(10.0, gt=0, description="largest norm of the gradient")
    adam_eps: Traced[float] = Field(0.1, gt=0, description="Adam's epsilon")
    recurrent_scale: Traced[float] = Field(
        1.0, ge=0, description="g of the initial recurrent weights, N(0, g^2 / n)"
    )
    input_scale: Traced[float] = Field(
        1.0, ge=0, description="the same of the input weights, N(0, g^2 / n_in)"
    )
    alpha: Traced[float] = Field(0.1, gt=0, le=1, description="dt / tau of the leaky cell")
    seed: Traced[int] = Field(
        0, ge=0, lt=2**31, description="replicate: another value, other weights"
    )

    @model_validator(mode="after")
    def _saved_are_evaluated(self) -> "Network":
        if self.n_saved > self.n_eval:
            raise ValueError(
                f"n_saved: {self.n_saved} trials cannot be stored of n_eval = {self.n_eval}; "
                "raise n_eval or lower n_saved"
            )
        return self


class State(NamedTuple):
    """A network in training."""

    weights: dict[str, jax.Array]
    optimizer: Any
    step: jax.Array
    """int32, minibatches seen."""
    first: jax.Array
    """Mean squared error on the first minibatch; NaN before it."""
    curve: jax.Array
    """(batch,) mean squared error, averaged over each block; NaN where not reached."""
    diverged: jax.Array
    done: jax.Array


# --- losses ---------------------------------------------------------------------------------------


def squared_error(cell: Cell, weights: Any, trials: tasks.Trial) -> tuple[jax.Array, jax.Array]:
    """(sum of mask * squared error over trials, steps and outputs; sum of the mask over the same)."""
    _, outputs = jax.vmap(lambda x: run(cell, weights, x))(trials.inputs)
    errors = trials.mask[:, :, None] * (outputs - trials.targets) ** 2
    return jnp.sum(errors), jnp.sum(trials.mask) * trials.targets.shape[-1]


def mean_squared_error(cell: Cell, weights: Any, trials: tasks.Trial) -> jax.Array:
    """The mean squared error over trials, steps (weighted by the mask) and outputs; no L2 penalty."""
    total, weight = squared_error(cell, weights, trials)
    return total / weight


def eval_trials(task: tasks.Task, n: int, dtype: Any = jnp.float32) -> tasks.Trial:
    """The n trials on which every network of this task is evaluated."""
    return tasks.batch(task, jax.random.key(EVAL_SEED), n, dtype)


def minibatch(static: Any, key: jax.Array, step: jax.Array) -> tasks.Trial:
    """The trials of one training step of the network with this key."""
    key = jax.random.fold_in(key, step)
    return tasks.batch(static.task, key, static.batch_size, static.dtype)


# --- the kernel -----------------------------------------------------------------------------------


def item_keys(key: jax.Array, traced: Any) -> tuple[jax.Array, jax.Array]:
    """(key of the initial weights, key of the minibatches)."""
    key_weights, key_data = jax.random.split(jax.random.fold_in(key, traced.seed))
    return key_weights, key_data


def _optimizer(traced: Any) -> optax.GradientTransformation:
    def rate(count: jax.Array) -> jax.Array:
        now: jax.Array = traced.learning_rate * traced.decay ** count.astype(traced.decay.dtype)
        return now

    return optax.chain(
        optax.clip_by_global_norm(traced.clip_norm),
        optax.scale_by_adam(b1=0.9, b2=0.999, eps=traced.adam_eps),
        optax.scale_by_learning_rate(rate),
    )


def load(inputs: Any) -> tasks.Trial:
    """The evaluation trials."""
    return eval_trials(inputs.task, inputs.n_eval, inputs.dtype)


def init(static: Any, shared: tasks.Trial, traced: Any, key: jax.Array) -> State:
    cell, task = get_cell(static.cell), static.task
    key_weights, _ = item_keys(key, traced)
    weights = cell.init(
        key_weights,
        static.n,
        task.n_in,
        task.n_out,
        Scales(traced.recurrent_scale, traced.input_scale),
        static.dtype,
    )
    if "alpha" in weights:
        weights["alpha"] = traced.alpha
    trained = {name: w for name, w in weights.items() if name not in cell.constants}
    n_blocks = len(block_ends(static))
    return State(
        weights,
        _optimizer(traced).init(trained),
        jnp.zeros((), jnp.int32),
        jnp.full((), jnp.nan, static.dtype),
        jnp.full(n_blocks, jnp.nan, static.dtype),
        jnp.zeros((), bool),
        jnp.zeros((), bool),
    )


def _train_step(
    cell: Cell, optimizer: optax.GradientTransformation, l2: jax.Array
) -> Callable[..., Any]:
    """(weights, optimizer state, trials) -> (the next two, mean squared error, is it finite)."""

    def loss(trained: Any, constants: Any, trials: tasks.Trial) -> tuple[jax.Array, jax.Array]:
        error = mean_squared_error(cell, trained | constants, trials)
        return error + l2 * sum(jnp.sum(w**2) for w in trained.values()), error

    def step(weights: Any, state: Any, trials: tasks.Trial) -> Any:
        trained = {name: w for name, w in weights.items() if name not in cell.constants}
        constants = {name: weights[name] for name in cell.constants}
        (_, error), gradient = jax.value_and_grad(loss, has_aux=True)(trained, constants, trials)
        updates, new_state = optimizer.update(gradient, state)
        new = optax.apply_updates(trained, updates) | constants
        # The squared norm overflows where clipping would have divided by infinity.
        finite = jnp.isfinite(error + sum(jnp.sum(g**2) for g in gradient.values()))
        return new, new_state, error, finite

    return step


def advance(static: Any, shared: tasks.Trial, traced: Any, key: jax.Array, state: State) -> State:
    """`report_every` steps, or those that are left."""
    cell = get_cell(static.cell)
    _, key_data = item_keys(key, traced)
    train_step = _train_step(cell, _optimizer(traced), traced.l2)
    block = state.step // static.report_every

    def body(carry: Any, _: None) -> tuple[Any, jax.Array]:
        weights, optimizer, step, diverged = carry
        trials = minibatch(static, key_data, step)
        new, new_optimizer, error, finite = train_step(weights, optimizer, trials)
        # After the last step, and from the first step that is not finite, the network no longer changes.
        active = (step < static.n_batches) & ~diverged
        moved = active & finite
        keep = lambda a, b: jnp.where(moved, a, b)
        return (
            jax.tree.map(keep, new, weights),
            jax.tree.map(keep, new_optimizer, optimizer),
            step + moved,
            diverged | (active & ~finite),
        ), jnp.where(moved, error, jnp.nan)

    start = (state.weights, state.optimizer, state.step, state.diverged)
    (weights, optimizer, step, diverged), errors = lax.scan(body, start, length=static.report_every)
    mean = jnp.nanmean(errors)
    first = jnp.where(state.step == 0, errors[0], state.first)
    diverged |= mean > DIVERGED * first
    return State(
        weights,
        optimizer,
        step,
        first,
        state.curve.at[block].set(mean),
        diverged,
        diverged | (step >= static.n_batches),
    )


def result(
    static: Any, shared: tasks.Trial, traced: Any, key: jax.Array, state: State
) -> dict[str, jax.Array]:
    del traced, key
    cell = get_cell(static.cell)
    values = {f"weights.{name}": value for name, value in state.weights.items()}
    if static.n_saved:
        some = shared.inputs[: static.n_saved]
        values["states"], values["outputs"] = jax.vmap(lambda x: run(cell, state.weights, x))(some)
    last = jnp.maximum(jnp.sum(~jnp.isnan(state.curve)) - 1, 0)
    return values | {
        "curve": state.curve,
        "train_loss": state.curve[last],
        "eval_loss": _eval_loss(static, cell, state.weights, shared),
        "batches": state.step,
        "outcome": state.diverged.astype(jnp.int32),
    }


def _eval_loss(static: Any, cell: Cell, weights: Any, trials: tasks.Trial) -> jax.Array:
    """The mean squared error on all trials, a minibatch at a time, so that it takes no more memory than training."""
    size = min(static.batch_size, static.n_eval)
    whole = static.n_eval // size * size
    parts = jax.tree.map(lambda leaf: leaf[:whole].reshape(-1, size, *leaf.shape[1:]), trials)
    totals, counts = lax.map(lambda part: squared_error(cell, weights, part), parts)
    total, count = jnp.sum(totals), jnp.sum(counts)
    if whole < static.n_eval:
        rest = squared_error(cell, weights, jax.tree.map(lambda leaf: leaf[whole:], trials))
        total, count = total + rest[0], count + rest[1]
    return total / count


def coords(inputs: Any, shared: tasks.Trial) -> dict[str, np.ndarray]:
    """The training step at which each entry of the curve ends."""
    del shared
    return {"batch": block_ends(inputs)}


class Options(BaseModel):
    """Settings of the reduction."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_best: int = Field(10, gt=0, description="networks in the table, by evaluation loss")


REDUCED = {
    "network": Var(("rank",), "1", "item id, by increasing evaluation loss"),
    "eval_loss": Var(("rank",), "1", "mean squared error on the evaluation trials"),
    "train_loss": Var(("rank",), "1", "mean squared error over the last block"),
    "curve_quantile": Var(("quantile", "batch"), "1", "quantiles of the loss over networks"),
    "quantile": Var(("quantile",), "1", "which quantile"),
}


def reduce(
    inputs: Any,
    shared: tasks.Trial,
    columns: Mapping[str, np.ndarray],
    results: Mapping[str, np.ndarray],
    options: Options,
) -> dict[str, np.ndarray]:
    """The best of the trained networks, and quantiles of the loss curves over all trained networks."""
    del inputs, shared
    trained = np.flatnonzero(results["outcome"] == 0)
    loss = results["eval_loss"]
    best = trained[np.argsort(loss[trained], kind="stable")][: options.n_best]
    quantile = np.array([0.1, 0.5, 0.9])
    curves = results["curve"]
    none = np.full((len(quantile), curves.shape[1]), np.nan, curves.dtype)
    return {
        "network": columns["item"][best],
        "eval_loss": loss[best],
        "train_loss": results["train_loss"][best],
        "curve_quantile": np.quantile(curves[trained], quantile, axis=0) if len(trained) else none,
        "quantile": quantile,
    }


def _weight_dims() -> dict[str, Var]:
    dims: dict[str, Var] = {}
    for cell in CELLS.values():
        for name, axes in cell.axes.items():
            dims[f"weights.{name}"] = Var(axes, "1", f"weight {name}, see ctd.cells")
    return dims


kernel = Kernel(
    name="train_rnn",
    Params=Network,
    dims=_weight_dims()
    | {
        "curve": Var(("batch",), "1", "mean squared error in training, mean over each block"),
        "train_loss": Var((), "1", "mean squared error over the last block"),
        "eval_loss": Var((), "1", "mean squared error on the evaluation trials"),
        "batches": Var((), "1", "training steps taken"),
        "outcome": Var((), "1", "how training ended"),
        "states": Var(("trial", "time", "state"), "1", "hidden states of evaluation trials"),
        "outputs": Var(("trial", "time", "output"), "1", "outputs of evaluation trials"),
    },
    load=load,
    init=init,
    advance=advance,
    finished=lambda state: state.done,
    result=result,
    outcomes=(
        Outcome("trained", "all training steps were taken"),
        Outcome(
            "diverged",
            f"loss or gradient not finite, or loss {DIVERGED:g} times that of the first minibatch",
            failed=True,
        ),
    ),
    coords=coords,
    reduce=reduce,
    reduced=REDUCED,
    Options=Options,
    summary=("network", "eval_loss", "train_loss"),
    figure=rnn_figure,
    advances=lambda inputs: len(block_ends(inputs)),
    plots=rnn_plots,
    width=64,
    # Each network has weights of its own: on a CPU they fill the cache one by one.
    microbatches=(0,),
    cpu_microbatches=(1,),
)
