"""Behavioural tasks: what a network is trained to do, as pure functions of a random key.

A task is a frozen model of its parameters with one method, `trial(key, dtype)`, which draws the
inputs, the targets and the mask of one trial. A job file gives its name, alone or with parameters; the
name of a user's own task is the dotted path of its class::

    task: decision
    task: {name: flipflop, n_bits: 2}
    task: {name: mylab.tasks.DelayedMatch, n_steps: 40}

`lorenz_spikes`, `spikes_from_rates` and `spikes_from_states` make spike counts instead of trials.
"""

from __future__ import annotations

import difflib
import importlib
from abc import ABC, abstractmethod
from typing import Annotated, Any, ClassVar, NamedTuple

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    ValidationError,
    WithJsonSchema,
    model_serializer,
)

from ctd.late import jax, jnp, lax


class Trial(NamedTuple):
    """One trial, or a batch of them with a leading trial axis."""

    inputs: jax.Array
    """(time, n_in)"""
    targets: jax.Array
    """(time, n_out)"""
    mask: jax.Array
    """(time,) weight of each step in the loss; 0 where the output does not matter."""


class Task(BaseModel, ABC):
    """A task and its parameters. Your own task is a subclass that defines `n_in`, `n_out` and `trial`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str] = ""

    n_steps: int = Field(25, gt=0, description="steps of a trial")

    @property
    @abstractmethod
    def n_in(self) -> int:
        """Number of input channels."""

    @property
    @abstractmethod
    def n_out(self) -> int:
        """Number of output channels."""

    @abstractmethod
    def trial(self, key: jax.Array, dtype: Any) -> Trial:
        """One trial, drawn with `key`, in the floating type `dtype`."""

    @model_serializer(mode="wrap")
    def _with_name(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        cls = type(self)
        return {"name": cls.name or f"{cls.__module__}.{cls.__qualname__}", **fields(self)}


def batch(task: Task, key: jax.Array, n: int, dtype: Any = "float32") -> Trial:
    """n trials: (trial, time, ...) arrays."""
    return jax.vmap(lambda k: task.trial(k, dtype))(jax.random.split(key, n))


# --- tasks on white noise -------------------------------------------------------------------------


class WhiteNoise(Task):
    """A task on x_t = b + s xi_t / sqrt(dt), xi_t ~ N(0, 1), dt = duration / n_steps.

    b is drawn once for each trial. As in the tutorials of computation through dynamics it is

        b = 2 bias (xi - 1/2), xi ~ N(0, 1)

    which is normal with mean -bias and standard deviation 2 bias; with `centred`, b = 2 bias xi. The tasks
    sum x_t without the factor dt, so that targets are of order 1.
    """

    duration: float = Field(1.0, gt=0, description="length of a trial (s)")
    bias: float = Field(0.01, ge=0, description="scale of the mean input b")
    centred: bool = Field(False, description="whether b has mean 0 over trials, rather than -bias")
    sd: float = Field(0.025, ge=0, description="standard deviation s of the noise over 1 s")

    @property
    def n_in(self) -> int:
        return 1

    @property
    def n_out(self) -> int:
        return 1

    def mean_input(self, key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        """b of one trial; `shape` (2,) for two streams."""
        xi: jax.Array = jax.random.normal(key, shape, dtype)
        b: jax.Array = 2 * self.bias * (xi if self.centred else xi - 0.5)
        return b

    def noise(self, key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        """s xi / sqrt(dt), xi ~ N(0, 1) of this shape."""
        dt = self.duration / self.n_steps
        xi: jax.Array = jax.random.normal(key, shape, dtype)
        scaled: jax.Array = self.sd * dt**-0.5 * xi
        return scaled


class Integrator(WhiteNoise):
    """Integrate the noise: target z_t = sum_{s <= t} x_s."""

    name = "integrator"

    def trial(self, key: jax.Array, dtype: Any) -> Trial:
        key_bias, key_noise = jax.random.split(key)
        x = self.mean_input(key_bias, (), dtype) + self.noise(key_noise, (self.n_steps,), dtype)
        return Trial(x[:, None], jnp.cumsum(x)[:, None], jnp.ones(self.n_steps, dtype))


class Decision(WhiteNoise):
    """Say at the last step whether the input summed to more than 0: the target there is +1 or -1.

    With the defaults 62 % of the targets are -1, since b has mean -bias.
    """

    name = "decision"

    def trial(self, key: jax.Array, dtype: Any) -> Trial:
        key_bias, key_noise = jax.random.split(key)
        x = self.mean_input(key_bias, (), dtype) + self.noise(key_noise, (self.n_steps,), dtype)
        last = jnp.zeros(self.n_steps, dtype).at[-1].set(1)
        choice = jnp.where(jnp.sum(x) > 0, 1, -1).astype(dtype)
        return Trial(x[:, None], (choice * last)[:, None], last)


class ContextualIntegrator(WhiteNoise):
    """Integrate one of two noise streams, chosen by a one-hot context (cf. Mante et al. 2013).

    Inputs: stream 1, stream 2, context 1, context 2. Each stream has its own, independent b.
    """

    name = "contextual_integrator"

    @property
    def n_in(self) -> int:
        return 4

    def trial(self, key: jax.Array, dtype: Any) -> Trial:
        key_bias, key_noise, key_context = jax.random.split(key, 3)
        x = self.mean_input(key_bias, (2,), dtype) + self.noise(key_noise, (self.n_steps, 2), dtype)
        context = jax.nn.one_hot(jax.random.bernoulli(key_context).astype(int), 2, dtype=dtype)
        inputs = jnp.concatenate([x, jnp.tile(context, (self.n_steps, 1))], axis=1)
        targets = jnp.cumsum(x @ context)[:, None]
        return Trial(inputs, targets, jnp.ones(self.n_steps, dtype))


# --- other tasks ----------------------------------------------------------------------------------


class FlipFlop(Task):
    """Remember k bits: output i is the sign of the last pulse on input i (Sussillo & Barak 2013).

    Pulses of +1 or -1 last one step and are independent; every trial begins with one on each channel, so
    that the targets are defined from the first step on.
    """

    name = "flipflop"

    n_steps: int = Field(50, gt=0, description="steps of a trial")
    n_bits: int = Field(3, gt=0, description="bits k, each with its input and its output")
    p_pulse: float = Field(0.1, gt=0, le=1, description="probability of a pulse, per step and bit")

    @property
    def n_in(self) -> int:
        return self.n_bits

    @property
    def n_out(self) -> int:
        return self.n_bits

    def trial(self, key: jax.Array, dtype: Any) -> Trial:
        key_time, key_sign = jax.random.split(key)
        shape = (self.n_steps, self.n_bits)
        pulse = jax.random.bernoulli(key_time, self.p_pulse, shape).at[0].set(True)
        sign = jax.random.rademacher(key_sign, shape, dtype)
        steps = jnp.arange(self.n_steps)[:, None]
        latest = lax.cummax(jnp.where(pulse, steps, 0), axis=0)
        targets = jnp.take_along_axis(sign, latest, axis=0)
        return Trial(jnp.where(pulse, sign, 0), targets, jnp.ones(self.n_steps, dtype))


class ChaoticGenerator(Task):
    """Produce the activity of a random chaotic network, the target of FORCE learning.

    The target is z = J_o tanh(a) of tau da/dt = -a + J tanh(a), J ~ N(0, g^2 / n_units) with g > 1
    (Sompolinsky et al. 1988; Sussillo & Abbott 2009), by Euler steps. So the outputs are random projections
    of the rates, with variance below 1. The FORCE notebook of computation-thru-dynamics takes the rates of
    single units instead, and feeds outputs back: `ctd.esn.series.chaotic_network`. `network_seed` alone
    determines network and initial state, so every trial has the same target. The one input is 1 at the
    first step, then 0.
    """

    name = "chaotic_generator"

    n_steps: int = Field(300, gt=0, description="steps of a trial")
    n_targets: int = Field(20, gt=0, description="outputs")
    n_units: int = Field(500, gt=0, description="units of the network that makes the target")
    g: float = Field(1.8, gt=0, description="scale of that network's recurrent weights")
    dt: float = Field(0.1, gt=0, description="Euler step (s)")
    tau: float = Field(1.0, gt=0, description="its time constant (s)")
    network_seed: int = Field(0, ge=0, lt=2**32, description="chooses network and initial state")

    @property
    def n_in(self) -> int:
        return 1

    @property
    def n_out(self) -> int:
        return self.n_targets

    def trial(self, key: jax.Array, dtype: Any) -> Trial:
        del key
        inputs = jnp.zeros((self.n_steps, 1), dtype).at[0].set(1)
        return Trial(inputs, self.target(dtype), jnp.ones(self.n_steps, dtype))

    def target(self, dtype: Any) -> jax.Array:
        """The target, (time, output)."""
        root = jax.random.key(self.network_seed)
        key_rec, key_out, key_state = jax.random.split(root, 3)
        n = self.n_units
        recurrent = self.g * n**-0.5 * jax.random.normal(key_rec, (n, n), dtype)
        out = n**-0.5 * jax.random.normal(key_out, (self.n_targets, n), dtype)
        alpha = self.dt / self.tau

        def step(a: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
            a = a + alpha * (-a + recurrent @ jnp.tanh(a))
            return a, out @ jnp.tanh(a)

        # N(0, 1) is of the order of the network's own fluctuations, so the transient is short.
        start = jax.random.normal(key_state, (n,), dtype)
        return lax.scan(step, start, length=self.n_steps)[1]


TASKS: dict[str, type[Task]] = {
    task.name: task
    for task in (Integrator, Decision, ContextualIntegrator, FlipFlop, ChaoticGenerator)
}

NAMES = f"{', '.join(TASKS)}, or the dotted path of a class of your own"
"""What a job file may give as its task, for descriptions and errors."""


# --- naming a task --------------------------------------------------------------------------------


def get_task(given: Any) -> Task:
    """A task from its name or dotted path, or from a mapping of `name` and parameters.

    Raises ValueError, naming task and parameter, with the nearest valid name.
    """
    if isinstance(given, Task):
        return given
    fields = {"name": given} if isinstance(given, str) else given
    if not isinstance(fields, dict) or not isinstance(fields.get("name"), str):
        raise ValueError("a task's name, or a mapping with its name and parameters, expected")
    name = fields["name"]
    cls = TASKS.get(name) or _own_class(name)
    try:
        return cls.model_validate({k: v for k, v in fields.items() if k != "name"})
    except ValidationError as error:
        raise ValueError(f"task {name}: {_explain(error, cls)}") from None


def _own_class(name: str) -> type[Task]:
    module, _, attribute = name.rpartition(".")
    if not module:
        raise ValueError(f"{name!r} is no task{_near(name, TASKS)}; the tasks are {NAMES}")
    try:
        cls = getattr(importlib.import_module(module), attribute, None)
    except ModuleNotFoundError as error:
        # A missing import inside the user's module is passed on unchanged.
        if error.name is None or not (module == error.name or module.startswith(error.name + ".")):
            raise
        raise ValueError(f"task {name}: there is no module {error.name}") from None
    if not (isinstance(cls, type) and issubclass(cls, Task)):
        raise ValueError(
            f"task {name}: {module} has no class {attribute} derived from ctd.tasks.Task"
        )
    return cls


def _near(word: str, known: Any) -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    return f", did you mean {near[0]!r}?" if near else ""


def _explain(error: ValidationError, cls: type[Task]) -> str:
    lines = []
    for fault in error.errors(include_url=False):
        place = ".".join(map(str, fault["loc"]))
        if fault["type"] == "extra_forbidden":
            fields = cls.model_fields
            hint = _near(place, fields) or f"; its parameters are {', '.join(fields)}"
            lines.append(f"unknown parameter {place}{hint}")
        else:
            lines.append(f"{place}: {fault['msg']} (given: {fault['input']!r:.60})")
    return "; ".join(lines)


def _schema() -> dict[str, Any]:
    """JSON Schema of what `get_task` takes."""
    options: list[dict[str, Any]] = [{"type": "string"}]
    for name, cls in TASKS.items():
        fields = cls.model_json_schema(mode="validation")
        fields["properties"] = {"name": {"const": name}, **fields["properties"]}
        options.append(fields | {"required": ["name"]})
    own = {"name": {"type": "string", "pattern": r"\."}}
    options.append({"type": "object", "properties": own, "required": ["name"]})
    return {"anyOf": options}


AnyTask = Annotated[SerializeAsAny[Task], BeforeValidator(get_task), WithJsonSchema(_schema())]
"""The type of a field that holds a task."""


# --- spiking data ---------------------------------------------------------------------------------


def spikes_from_rates(key: jax.Array, rates: jax.Array, dt: float) -> jax.Array:
    """Poisson spike counts, int32, of rates (spikes/s, any shape) over bins of dt (s)."""
    # Drawn flat: on a CPU the sampler takes 8 times as long over an array with a short last axis.
    mean = jnp.ravel(rates * dt)
    return jax.random.poisson(key, mean, dtype=jnp.int32).reshape(rates.shape)


def spikes_from_states(
    key: jax.Array, states: jax.Array, dt: float, max_rate: float = 80.0
) -> tuple[jax.Array, jax.Array]:
    """(spike counts, rates in spikes/s) of neurons that follow a network's units.

    A unit's state h in [-1, 1] gives the rate max_rate (h + 1) / 2; states outside are clipped.

    Args:
        states: (trial, time, unit).
        dt: length of a step (s).
        max_rate: rate at h = 1 (spikes/s).
    """
    rates = max_rate * (jnp.clip(states, -1, 1) + 1) / 2
    return spikes_from_rates(key, rates, dt), rates


def lorenz(start: jax.Array, n_steps: int, dt: float) -> jax.Array:
    """The Lorenz system from `start` (3,), n_steps Runge-Kutta steps of dt: (n_steps, 3).

    dx/dt = 10 (y - x), dy/dt = x (28 - z) - y, dz/dt = x y - 8/3 z (Lorenz 1963).
    """

    def flow(s: jax.Array) -> jax.Array:
        x, y, z = s
        return jnp.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z])

    def step(s: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        k1 = flow(s)
        k2 = flow(s + dt / 2 * k1)
        k3 = flow(s + dt / 2 * k2)
        k4 = flow(s + dt * k3)
        s = s + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return s, s

    return lax.scan(step, start, length=n_steps)[1]


def lorenz_spikes(
    key: jax.Array,
    *,
    n_conditions: int = 65,
    n_trials: int = 20,
    n_neurons: int = 30,
    bin_s: float = 0.01,
    base_rate: float = 5.0,
) -> dict[str, jax.Array]:
    """Spike counts of Poisson neurons driven by the Lorenz system, as in the tests of LFADS (Pandarinath 2018).

    A condition is an initial state on the attractor, repeated n_trials times. Neuron i fires at
    base_rate exp(w_i . s). w_i lies on the unit sphere; each of the three coordinates of the state s is
    scaled to mean 0 and variance 1, so that log rates vary by about 1. A trial has 100 bins of 0.01 time units of
    the system.

    Args:
        bin_s: length of a bin (s).
        base_rate: rate at the mean state (spikes/s).

    Returns:
        spikes (condition, trial, time, neuron) int32; rates (condition, time, neuron) in spikes/s;
        states (condition, time, 3), normalised.
    """
    n_steps, dt = 100, 0.01
    key_start, key_weights, key_spikes = jax.random.split(key, 3)
    start = jnp.array([0.0, 0.0, 25.0]) + jax.random.normal(key_start, (n_conditions, 3))
    # The transient to the attractor lasts a few time units.
    settle = int(10 / dt)
    raw = jax.vmap(lambda s: lorenz(s, settle + n_steps, dt)[settle:])(start)
    states = (raw - raw.mean((0, 1))) / raw.std((0, 1))
    weights = jax.random.normal(key_weights, (3, n_neurons))
    weights /= jnp.linalg.norm(weights, axis=0)
    rates = base_rate * jnp.exp(states @ weights)
    repeated = jnp.broadcast_to(rates[:, None], (n_conditions, n_trials, n_steps, n_neurons))
    return {
        "spikes": spikes_from_rates(key_spikes, repeated, bin_s),
        "rates": rates,
        "states": states,
    }
