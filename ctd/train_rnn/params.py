"""The parameters of one item: a network, its task, and its training."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ctd import tasks
from ctd.cells import CELL_NAMES, CellName
from ctd.kernel import File, Params, Static, Traced
from ctd.train_rnn.checks import conflicts
from ctd.training import OptimizerName, ScheduleName


class Network(Params):
    """The parameters of one network to train: cell, task, loss, optimiser, initial weights and constraints.

    Training minimises the mean error of a task's trials plus penalties, see `ctd.train_rnn`. Fields without a unit are
    pure numbers. Raises ValueError (pydantic's ValidationError), naming the fields, if two of them contradict each other.

    >>> Network(task={"name": "flipflop", "n_bits": 2}, n=20).task.n_out
    2
    >>> Network(cell="gru", rank=2)
    Traceback (most recent call last):
        ...
    pydantic_core._pydantic_core.ValidationError: 1 validation error for Network
      Value error, rank: cell gru has gates or a field, not one recurrent matrix; ...
    """

    # Static fields set shapes and branches: each of their values is a program of its own. Traced fields are numbers of one
    # program, so that their whole sweep is compiled once.
    cell: Static[CellName] = Field("gru", description=CELL_NAMES)
    task: Static[tasks.AnyTask] = Field(tasks.Decision(), description=tasks.NAMES)
    trials: File[str | None] = None
    """HDF5 or .npz file of the trials of task `file`: inputs, targets, mask, conditions"""
    loss: Static[Literal["squared_error", "cross_entropy"]] = "squared_error"
    """the loss; cross_entropy takes the softmax of the outputs, for targets that are probabilities"""
    stop_at: Static[Annotated[float, Field(gt=0, le=1)] | None] = None
    """training ends at this accuracy on the evaluation trials, measured every report_every steps"""
    n: Static[int] = Field(100, gt=0)
    """units"""
    batch_size: Static[int] = Field(128, gt=0)
    """trials of a minibatch"""
    n_batches: Static[int] = Field(20_000, gt=0)
    """training steps"""
    report_every: Static[int] = Field(100, gt=0)
    """training steps per advance and per entry of the loss curve"""
    n_eval: Static[int] = Field(8192, gt=0)
    """evaluation trials"""
    n_saved: Static[int] = Field(0, ge=0)
    """evaluation trials whose hidden states and outputs are stored"""
    # The tutorial's settings, see the module. Adam divides by sqrt(v) + 0.1: a gradient far below 0.1 is hardly normalised,
    # and the step is near that of gradient descent with momentum and ten times this learning rate.
    learning_rate: Traced[float] = Field(0.04, gt=0)
    """learning rate at the first step"""
    decay: Traced[float] = Field(0.9999, gt=0, le=1)
    """factor of the learning rate at each step"""
    l2: Traced[float] = Field(2e-5, ge=0)
    """penalty on the squared norm of all weights"""
    clip_norm: Traced[float] = Field(10.0, gt=0)
    """largest norm of the gradient"""
    adam_eps: Traced[float] = Field(0.1, gt=0)
    """epsilon of the optimiser; lion and sgd ignore it"""
    recurrent_scale: Traced[float] = Field(1.0, ge=0)
    """g of the initial recurrent weights, N(0, g^2 / n)"""
    input_scale: Traced[float] = Field(1.0, ge=0)
    """g of the initial input weights, N(0, g^2 / n_in)"""
    alpha: Traced[float] = Field(0.1, gt=0, le=1)
    """dt / tau of the leaky cell"""
    # Traced whole numbers are int32, hence the bound 2^31.
    seed: Traced[int] = Field(0, ge=0, lt=2**31)
    """replicate: initial weights and trials; two items of one seed differ, too"""

    optimizer: Static[OptimizerName] = "adam"
    """the optimiser, from optax"""
    momentum: Traced[float] = Field(0.9, ge=0, lt=1)
    """momentum of optimizer sgd"""
    weight_decay: Traced[float] = Field(0.0, ge=0)
    """each step subtracts this times the learning rate times the weights (AdamW)"""
    schedule: Static[ScheduleName] = "exponential"
    """schedule of the learning rate: exponential, by decay; cosine and linear reach 0 at n_batches"""
    warmup: Traced[int] = Field(0, ge=0, lt=2**31)
    """steps over which the learning rate grows from 0"""
    l1: Traced[float] = Field(0.0, ge=0)
    """penalty on the sum of all weights' absolute values"""
    rates_l1: Traced[float] = Field(0.0, ge=0)
    """penalty on the mean absolute rate, over trials, steps and units"""
    rates_l2: Traced[float] = Field(0.0, ge=0)
    """penalty on the mean square of a rate"""
    noise: Static[bool] = False
    """whether the five fields of noise below apply"""
    state_noise: Traced[float] = Field(0.0, ge=0)
    """sd of Gaussian noise on each state at each step, in training"""
    input_noise: Traced[float] = Field(0.0, ge=0)
    """sd of Gaussian noise on each input at each step, in training"""
    initial_noise: Traced[float] = Field(0.0, ge=0)
    """sd of Gaussian noise on the state before the first step of each trial, in training"""
    eval_state_noise: Traced[float] = Field(0.0, ge=0)
    """state_noise in evaluation and saved trials"""
    eval_input_noise: Traced[float] = Field(0.0, ge=0)
    """input_noise in evaluation and saved trials"""
    initial_state: Static[Literal["trained", "fixed", "zero"]] = "trained"
    """h0. trained: drawn from N(0, 0.1^2), then trained; fixed: drawn, never changed; zero: 0"""
    readout: Static[Literal["trained", "fixed", "identity"]] = Field(
        "trained",
        description="wO and bO. trained; fixed: drawn, never changed; identity: the outputs are the rates of the first units, "
        "which fits a network to recorded rates",
    )
    train_alphas: Static[bool] = False
    """whether the time constants of cell leaky_per_unit are trained"""
    alpha_min: Traced[float] = Field(0.05, gt=0, le=1)
    """cell leaky_per_unit: lower bound of dt / tau"""
    alpha_max: Traced[float] = Field(0.2, gt=0, le=1)
    """cell leaky_per_unit: upper bound of dt / tau; initial values are log-uniform between the bounds"""
    first_weights: Static[Literal["normal", "pytorch"]] = Field(
        "normal",
        description="weights before training. normal: N(0, g^2 / fan-in), biases 0; pytorch: weights and biases uniform between "
        "+-1 / sqrt(n), as torch.nn starts its cells and Linear(n, ...), and h0 = 0",
    )
    recurrent_init: Static[Literal["normal", "spectral_radius", "orthogonal", "identity"]] = Field(
        "normal",
        description="initial wR, with g = recurrent_scale. normal: N(0, g^2 / fan-in); spectral_radius: scaled to "
        "spectral radius g; orthogonal, identity: g times a random orthogonal matrix or the identity",
    )
    dale: Static[bool] = False
    """Dale's law: each unit excites or inhibits; initial weights are balanced, with spectral radius recurrent_scale"""
    # gt 0 and lt 1 do not suffice: `conflicts` counts the units, which n and areas round.
    excitatory: Traced[float] = Field(0.8, gt=0, lt=1)
    """dale: share of excitatory units, the first ones of each area"""
    mask: Static[Literal["none", "random", "file"]] = "none"
    """mask of weights that stay 0. random: drawn for each network; file: read from mask_file"""
    density: Traced[float] = Field(0.1, gt=0, le=1)
    """mask random: probability of a recurrent connection"""
    areas: Static[int] = Field(1, gt=0)
    """areas of neighbouring units; connections between them have density_between"""
    density_between: Traced[float] = Field(0.02, ge=0, le=1)
    """mask random: probability of a recurrent connection between two areas"""
    mask_file: File[str | None] = None
    """HDF5 file of masks, 1 where a weight may differ from 0: wR (n, n), or any other matrix of the cell by its name"""
    self_connections: Static[bool] = True
    """false: the diagonal of wR stays 0"""
    rank: Static[Annotated[int, Field(gt=0)] | None] = None
    """rank r of wR = m n' / N, whose factors m and n (N, r) are trained; by default every entry of wR is trained"""
    overlap: Traced[float] = 0.0
    """rank: initial n = overlap m + recurrent_scale N(0, 1), with m ~ N(0, 1)"""

    @model_validator(mode="after")
    def _agrees(self) -> "Network":
        if conflict := next(conflicts(self), None):
            raise ValueError(conflict)
        return self
