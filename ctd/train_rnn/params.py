"""What one item is: a network, its task, and how it is trained."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ctd import tasks
from ctd.cells import CELLS, CellName
from ctd.kernel import File, Params, Static, Traced


class Network(Params):
    """One network to train."""

    cell: Static[CellName] = Field("gru", description=", ".join(CELLS))
    task: Static[tasks.AnyTask] = Field(tasks.Decision(), description=tasks.NAMES)
    trials: File[str | None] = Field(
        None,
        description="HDF5 file of the trials of task `file`: inputs, targets, mask, conditions",
    )
    loss: Static[Literal["squared_error", "cross_entropy"]] = Field(
        "squared_error",
        description="what is minimised; cross_entropy: of the softmax of the outputs, for targets that are probabilities",
    )
    stop_at: Static[Annotated[float, Field(gt=0, le=1)] | None] = Field(
        None,
        description="accuracy on the evaluation trials at which training ends, asked for every report_every steps",
    )
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
    def _trials_of_a_file(self) -> "Network":
        if self.trials is not None and not isinstance(self.task, tasks.Recorded):
            raise ValueError(
                "trials: a file of trials is read by task file alone; give task: file, or leave trials out"
            )
        return self

    @model_validator(mode="after")
    def _stops_by_a_rule(self) -> "Network":
        if self.stop_at is not None and not self.task.scored:
            name = self.task.name or type(self.task).__name__
            hint = (
                "give it a score" if isinstance(self.task, tasks.Recorded) else "leave stop_at out"
            )
            raise ValueError(
                f"stop_at: task {name} has no rule that says whether a trial is right; {hint}"
            )
        return self

    @model_validator(mode="after")
    def _saved_are_evaluated(self) -> "Network":
        if self.n_saved > self.n_eval:
            raise ValueError(
                f"n_saved: {self.n_saved} trials cannot be stored of n_eval = {self.n_eval}; "
                "raise n_eval or lower n_saved"
            )
        return self
