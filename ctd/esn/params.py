"""The parameters of one echo-state network: its target, its weights, its training and its test."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ctd.kernel import Data, File, Params, Static, Traced

DONE, DIVERGED, ILL_CONDITIONED, NO_SPECTRUM = range(4)
"""The outcomes of a network; `esn.nvar` has the first three."""

TARGET_OUTPUTS = {"mackey-glass-17": 1, "mackey-glass-30": 1, "lorenz": 3, "narma10": 1}
"""Targets with a fixed number of outputs."""

Target = Literal[
    "chaotic-feedback",
    "chaotic",
    "mackey-glass-17",
    "mackey-glass-30",
    "lorenz",
    "narma10",
    "sines",
    "file",
]
TARGET_TEXT = "series that the model learns (ctd.esn.series); file: your own, read from `path`"


class OfSeries(Params):
    """Parameters of every model of a series: the series, its ranges, lengths in samples, and the replays of them."""

    target: Data[Target] = Field("chaotic-feedback", description=TARGET_TEXT)
    target_seed: Data[int] = Field(0, ge=0)
    """seed of the target"""
    dt: Data[float] = Field(0.1, gt=0)
    """sampling interval, and Euler step of a continuous network"""
    path: File[str | None] = None
    """file of `target: file`: HDF5, .npz, or one array (time, output) as .npy"""
    dataset: Data[str] = "targets"
    """(time, output) dataset in `path`"""
    input_dataset: Data[str | None] = None
    """(time, input) dataset in `path` that drives the network"""
    m: Static[int] = Field(20, gt=0)
    """outputs"""
    washout: Static[int] = Field(
        0,
        ge=0,
        description="samples before training: ridge feeds back the target; FORCE runs the network on its own outputs, in the first pass "
        "those of its random initial readout",
    )
    train: Static[int] = Field(300, gt=0)
    """samples of one training pass"""
    validation: Static[int] = Field(0, ge=0)
    """samples after training, for choosing parameters"""
    test: Static[int] = Field(0, ge=0)
    """test samples, after validation; 0: those of training, from the start"""
    starts: Static[int] = Field(1, gt=0)
    """number of replays, evenly spaced over the range; targets are fed back in between"""
    horizon: Static[int] = Field(0, ge=0)
    """samples of a replay; 0: the whole range"""
    valid_error: Static[float] = Field(0.4, gt=0)
    """a replay is valid until its error exceeds this many standard deviations of the target (see `replay_nrmse`)"""

    @model_validator(mode="after")
    def _has_its_outputs(self) -> OfSeries:
        outputs = TARGET_OUTPUTS.get(self.target, self.m)
        if self.m != outputs:
            raise ValueError(
                f"m: {self.m} given, but target {self.target} has {outputs} output(s); give m: {outputs}"
            )
        if self.target == "file" and self.path is None:
            raise ValueError("path: `target: file` needs the path of a file: HDF5, .npz or .npy")
        if self.target != "file" and self.path is not None:
            raise ValueError(
                f"path: {self.path} is read only for `target: file`, but target is {self.target}; give target: file, or leave path out"
            )
        if self.input_dataset is not None and (self.path or "").endswith(".npy"):
            raise ValueError(
                f"input_dataset: {self.input_dataset} given, but {self.path} is one array, of targets; write both with "
                f"numpy.savez(path, {self.dataset}=..., {self.input_dataset}=...)"
            )
        return self

    @model_validator(mode="after")
    def _replays_fit(self) -> OfSeries:
        test = self.test or self.train
        # A validation range of 0 samples is not replayed.
        for name, length in (("validation", self.validation or self.horizon), ("test", test)):
            if self.horizon > length:
                raise ValueError(
                    f"horizon: {self.horizon} samples given, but {name} has {length}; give at most {length}"
                )
        if self.starts > 1 and not (self.horizon and self.test):
            raise ValueError(
                f"starts: {self.starts} replays need a test range and a horizon; give test and horizon"
            )
        if self.horizon and test - self.horizon < self.starts - 1:
            raise ValueError(
                f"starts: {self.starts} replays of {self.horizon} samples cannot all begin at another sample of test, which has {test}; "
                f"give at most {test - self.horizon + 1}"
            )
        return self


class EchoState(OfSeries):
    """The parameters of one echo-state network. The defaults follow the unrolled FORCE notebook of computation-thru-dynamics.

    The series is cut into washout | train | validation | test.

    >>> EchoState(target="lorenz", m=3, readout="ridge", test=100).dtype
    'float64'
    >>> EchoState(target="lorenz")
    Traceback (most recent call last):
        ...
    pydantic_core._pydantic_core.ValidationError: 1 validation error for EchoState
      Value error, m: 20 given, but target lorenz has 3 output(s); give m: 3 ...
    """

    dtype: Static[Literal["float32", "float64"]] = "float32"
    """precision of readout, P of RLS and Gram matrix; float64 by default for `readout: ridge`, which needs it"""
    readout: Static[Literal["force", "ridge"]] = "force"
    """force: recursive least squares with the outputs fed back; ridge: ridge regression after teacher forcing"""
    dynamics: Static[Literal["continuous", "discrete"]] = "continuous"
    """continuous: Euler steps dt / tau of da/dt; discrete: leaky rates with `leak`"""
    topology: Static[Literal["gaussian", "orthogonal", "ring"]] = "gaussian"
    """recurrent weights before scaling: N(0, 1), a random orthogonal matrix, or a directed ring"""
    scale: Static[Literal["gain", "spectral_radius"]] = "gain"
    """gain: weights are N(0, g^2 / (n sparsity)); spectral_radius: they are scaled to spectral radius g"""
    feedback: Static[bool] = True
    """whether outputs are fed back; false for answers to an input, as narma10"""
    intercept: Static[bool] = False
    """whether the readout has a constant"""
    n: Static[int] = Field(500, gt=0)
    """units, over all layers"""
    layers: Static[int] = Field(1, gt=0)
    """layers; each drives the next, inputs and feedback reach the first"""
    passes: Static[int] = Field(15, gt=0)
    """passes of FORCE over washout and training range, each from the initial state"""
    block: Static[int] = Field(30, gt=0)
    """samples between two updates of the stored P"""
    state_dtype: Static[Literal["float32", "float64"]] = "float32"
    """precision of the network's weights and states"""
    memory_delays: Static[int] = Field(
        0,
        ge=0,
        description="number of delays over which memory capacity is measured; this uses a random input instead of the target's inputs and "
        "feedback; 0: not measured",
    )
    record: Static[tuple[Literal["readout", "weights", "traces", "lyapunov"], ...]] = Field(
        (),
        description="further results to store. readout; weights: the network with its feedback folded in, and where its replay begins; "
        "traces: the first replay and its target; lyapunov: the largest exponent; in networks without inputs it does not "
        "depend on the length of `test`",
    )

    g: Traced[float] = Field(1.5, ge=0)
    """gain or spectral radius, see `scale`"""
    sparsity: Traced[float] = Field(1.0, gt=0, le=1)
    """probability that a recurrent weight is not 0"""
    tau: Traced[float] = Field(1.0, gt=0)
    """time constant, in the units of dt"""
    leak: Traced[float] = Field(1.0, gt=0, le=1)
    """leak of the discrete dynamics"""
    input_scale: Traced[float] = Field(1.0, ge=0)
    """sd of a unit's drive by all inputs; weights N(0, scale^2 / inputs)"""
    layer_scale: Traced[float] = Field(1.0, ge=0)
    """sd of a unit's drive by the layer before, at rates of 1"""
    feedback_scale: Traced[float] = Field(1.0, ge=0)
    """sd of the feedback weights"""
    bias: Traced[float] = Field(0.0, ge=0)
    """sd of the units' constant input"""
    noise: Traced[float] = Field(0.0, ge=0)
    """sd of the noise on the units' input in training"""
    alpha: Traced[float] = Field(1.0, gt=0)
    """initial P of FORCE is alpha I; larger learns faster"""
    forgetting: Traced[float] = Field(1.0, gt=0, le=1)
    """RLS: factor by which each sample multiplies the weight of the past"""
    ridge: Traced[float] = Field(1e-6, ge=0)
    """weight of the squared readout weights, except the constant's, beside the sum of squared errors over `train`"""

    @model_validator(mode="before")
    @classmethod
    def _ridge_is_float64(cls, fields: object) -> object:
        # A Gram matrix squares the condition number of the rates: float32 would leave it singular.
        if isinstance(fields, dict) and fields.get("readout") == "ridge":
            return {"dtype": "float64", **fields}
        return fields

    @model_validator(mode="after")
    def _consistent(self) -> EchoState:
        # Normal equations of ridge readouts, by which memory is measured, need float64.
        needed = {
            "readout": self.readout == "ridge",
            "state_dtype": self.state_dtype == "float64",
            "memory_delays": self.memory_delays > 0,
        }
        for name, is_needed in needed.items():
            if is_needed and self.dtype == "float32":
                setting = getattr(self, name)
                raise ValueError(f"{name}: {setting} given with dtype float32; give dtype: float64")
        gaussian, layers = self.topology == "gaussian", self.layers
        if not gaussian and self.sparsity != 1:
            raise ValueError(
                f"sparsity: {self.sparsity} given, but topology {self.topology} has no random zeros; leave sparsity out"
            )
        if self.n % layers:
            raise ValueError(
                f"layers: n = {self.n} units cannot be cut into {layers} equal layers; make n a multiple of layers"
            )
        if layers > 1 and not gaussian:
            raise ValueError(
                f"layers: {layers} layers need topology gaussian, but it is {self.topology}"
            )
        if layers > 1 and "weights" in self.record:
            raise ValueError(
                "record: weights needs a network of one layer, since several layers are no single cell; leave weights out"
            )
        return self
