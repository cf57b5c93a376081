"""The parameters of one echo-state network: its target, and how it is trained and tested."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from ctd.kernel import Data, File, Params, Static, Traced

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
TARGET_TEXT = "series that the network learns to produce (ctd.esn.series); file: one of yours, read from `path`"


class OfSeries(Params):
    """A model of one series: which series, and how many outputs it has."""

    target: Data[Target] = Field("chaotic-feedback", description=TARGET_TEXT)
    target_seed: Data[int] = Field(0, ge=0, description="seed of the target")
    dt: Data[float] = Field(
        0.1, gt=0, description="sampling interval; of a network, its Euler step"
    )
    path: File[str | None] = Field(None, description="HDF5 file to read for `target: file`")
    dataset: Data[str] = Field("targets", description="(time, output) dataset in `path`")
    input_dataset: Data[str | None] = Field(
        None, description="(time, input) dataset in `path` that drives the network"
    )
    m: Static[int] = Field(20, gt=0, description="outputs")

    @model_validator(mode="after")
    def _has_its_outputs(self) -> Self:
        outputs = TARGET_OUTPUTS.get(self.target, self.m)
        if self.m != outputs:
            raise ValueError(f"m: target {self.target} has {outputs} output(s), m is {self.m}")
        if self.target == "file" and self.path is None:
            raise ValueError("path: `target: file` needs the path of an HDF5 file")
        if self.target != "file" and self.path is not None:
            raise ValueError(
                f"path: {self.path} is read only for `target: file`, but target is {self.target}"
            )
        return self


def check_horizon(horizon: int, **ranges: int) -> None:
    """Raise ValueError where a replay is longer than a range that there is. ranges: name -> samples."""
    for name, length in ranges.items():
        if length and horizon > length:
            raise ValueError(f"horizon: {horizon} samples, but {name} has {length}")


class EchoState(OfSeries):
    """One network; the defaults are those of the unrolled FORCE notebook of computation-thru-dynamics.

    The series is cut into washout | train | validation | test, lengths in samples. `dtype` is the
    precision of the readout (P of RLS, the Gram matrix and its solution); for a ridge readout it must be
    "float64", the default there. The network itself runs in `state_dtype`.
    """

    readout: Static[Literal["force", "ridge"]] = Field(
        "force",
        description="force: recursive least squares while outputs are fed back; ridge: ridge regression after teacher forcing",
    )
    dynamics: Static[Literal["continuous", "discrete"]] = Field(
        "continuous",
        description="continuous: da/dt by Euler steps of dt/tau; discrete: leaky rates, `leak`",
    )
    topology: Static[Literal["gaussian", "orthogonal", "ring"]] = Field(
        "gaussian",
        description="recurrent weights: N(0, 1), a random rotation, or one directed ring",
    )
    scale: Static[Literal["gain", "spectral_radius"]] = Field(
        "gain",
        description="g is the gain g / sqrt(n sparsity) of N(0, 1) weights, or their spectral radius",
    )
    feedback: Static[bool] = Field(True, description="whether outputs are fed back")
    intercept: Static[bool] = Field(False, description="whether the readout has a constant")
    n: Static[int] = Field(500, gt=0, description="units, of all layers")
    layers: Static[int] = Field(
        1,
        gt=0,
        description="layers, each of which drives the next; inputs and feedback reach the first",
    )
    washout: Static[int] = Field(0, ge=0, description="samples before training")
    train: Static[int] = Field(300, gt=0, description="samples of one training pass")
    validation: Static[int] = Field(
        0, ge=0, description="samples after training, to choose parameters by"
    )
    test: Static[int] = Field(
        0,
        ge=0,
        description="samples after those of validation, to test on; 0: test on the training range, from the initial state",
    )
    starts: Static[int] = Field(
        1, gt=0, description="replays, evenly spaced over the range; teacher forcing in between"
    )
    horizon: Static[int] = Field(
        0, ge=0, description="samples of each replay; 0: all that the range has"
    )
    passes: Static[int] = Field(15, gt=0, description="passes of FORCE over the training range")
    block: Static[int] = Field(30, gt=0, description="samples between two updates of the stored P")
    state_dtype: Static[Literal["float32", "float64"]] = Field(
        "float32", description="precision of the network's weights and states"
    )
    valid_error: Static[float] = Field(
        0.4, gt=0, description="a replay is valid until its normalised error exceeds this"
    )
    memory_delays: Static[int] = Field(
        0, ge=0, description="delays up to which memory capacity is measured; 0: not at all"
    )
    record: Static[tuple[Literal["readout", "weights", "traces", "lyapunov"], ...]] = Field(
        (),
        description="what else to store: the readout, the network with its feedback inside, the first replay, its "
        "largest Lyapunov exponent",
    )

    g: Traced[float] = Field(1.5, ge=0, description="gain or spectral radius, see `scale`")
    sparsity: Traced[float] = Field(1.0, gt=0, le=1, description="probability of a weight")
    tau: Traced[float] = Field(1.0, gt=0, description="time constant, in the units of dt")
    leak: Traced[float] = Field(1.0, gt=0, le=1, description="leak of the discrete dynamics")
    input_scale: Traced[float] = Field(
        1.0,
        ge=0,
        description="standard deviation of the effect of all inputs together: weights N(0, input_scale^2 / inputs)",
    )
    layer_scale: Traced[float] = Field(
        1.0,
        ge=0,
        description="standard deviation of the effect of a whole layer on the next one, at rates of 1",
    )
    feedback_scale: Traced[float] = Field(
        1.0, ge=0, description="standard deviation of the feedback weights"
    )
    bias: Traced[float] = Field(
        0.0, ge=0, description="standard deviation of the units' constant input"
    )
    noise: Traced[float] = Field(
        0.0, ge=0, description="standard deviation of the noise on the units' input in training"
    )
    alpha: Traced[float] = Field(
        1.0, gt=0, description="learning rate: FORCE starts from P = alpha I"
    )
    forgetting: Traced[float] = Field(
        1.0,
        gt=0,
        le=1,
        description="forgetting factor: each sample multiplies the weight of the past by this",
    )
    ridge: Traced[float] = Field(
        1e-6,
        ge=0,
        description="added to the diagonal of the Gram matrix, but for the constant's entry",
    )

    @model_validator(mode="before")
    @classmethod
    def _ridge_is_float64(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("readout") == "ridge":
            return {"dtype": "float64", **given}
        return given

    @model_validator(mode="after")
    def _consistent(self) -> "EchoState":
        if self.readout == "ridge" and self.dtype == "float32":
            raise ValueError(
                "dtype: the normal equations of a ridge readout are singular to float32; "
                "leave dtype out (states stay in state_dtype)"
            )
        if self.state_dtype == "float64" and self.dtype == "float32":
            raise ValueError("state_dtype: float64 states need dtype: float64")
        if self.memory_delays and self.dtype == "float32":
            raise ValueError("memory_delays: the readouts that measure memory need dtype: float64")
        if self.topology != "gaussian" and self.sparsity != 1:
            raise ValueError(
                f"sparsity: {self.sparsity} given, but the weights of topology {self.topology} are fixed"
            )
        return self._check_layers()._check_ranges()

    def _check_layers(self) -> "EchoState":
        if self.n % self.layers:
            raise ValueError(
                f"layers: {self.n} units cannot be cut into {self.layers} equal layers"
            )
        if self.layers > 1 and self.topology != "gaussian":
            raise ValueError(f"layers: topology gaussian expected, got {self.topology}")
        if self.layers > 1 and "weights" in self.record:
            raise ValueError(
                "record: several layers do not form a network of one step, so there are no such weights to store; leave `weights` out"
            )
        return self

    def _check_ranges(self) -> "EchoState":
        check_horizon(self.horizon, validation=self.validation, test=self.test or self.train)
        if self.starts > 1 and not (self.horizon and self.test):
            raise ValueError("starts: several replays need a test range and a horizon")
        return self
