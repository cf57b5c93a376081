"""Tasks on white noise: integrate it, decide on its sign, or integrate one of two streams."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from ctd.late import Array, jax, jnp
from ctd.tasks.scores import same_sign
from ctd.tasks.task import Task, Trial


class WhiteNoise(Task):
    """The base of tasks on the input x_t = b + s xi_t / sqrt(dt), with xi_t ~ N(0, 1) and dt = duration / n_steps.

    b is drawn once for each trial. As in the tutorials of computation through dynamics it is

        b = 2 bias (xi - 1/2), xi ~ N(0, 1)

    which is normal with mean -bias and standard deviation 2 bias. With `centred`, b = 2 bias xi. The tasks
    sum x_t without the factor dt, so that targets are of order 1.

    >>> from ctd.tasks import Integrator
    >>> x = Integrator(bias=0.5, centred=True, sd=0, n_steps=3).trial(jax.random.key(0), "float32").inputs
    >>> x.shape, bool((x == x[0]).all())  # without noise, the input is b at every step
    ((3, 1), True)
    """

    n_in: ClassVar[int] = 1
    n_out: ClassVar[int] = 1

    duration: float = Field(1.0, gt=0, description="length of a trial (s)")
    bias: float = Field(0.01, ge=0, description="scale of the mean input b")
    centred: bool = Field(False, description="whether b has mean 0 over trials, rather than -bias")
    sd: float = Field(0.025, ge=0, description="standard deviation s of the noise over 1 s")

    @property
    def time_step(self) -> tuple[float, str]:
        """(duration / n_steps, "s")."""
        return self.duration / self.n_steps, "s"

    def stream(
        self, key_b: Array, key_xi: Array, streams: tuple[int, ...], dtype: jax.typing.DTypeLike
    ) -> Array:
        """Draw x (time, *streams) of one trial; `streams` is () for one stream, (2,) for two."""
        xi = jax.random.normal(key_b, streams, dtype)
        b = 2 * self.bias * (xi if self.centred else xi - 0.5)
        # 1 / sqrt(dt): the variance of the integral over 1 s is s^2, whatever the step.
        dt, _ = self.time_step
        return b + self.sd * dt**-0.5 * jax.random.normal(key_xi, (self.n_steps, *streams), dtype)


class Integrator(WhiteNoise):
    """Integrate the noise: the target is z_t = sum_{s <= t} x_s.

    >>> trial = Integrator(n_steps=10).trial(jax.random.key(0), "float32")
    >>> bool(jnp.allclose(trial.targets, jnp.cumsum(trial.inputs, axis=0)))
    True
    """

    name = "integrator"

    def trial(self, key: Array, dtype: jax.typing.DTypeLike) -> Trial:
        key_bias, key_noise = jax.random.split(key)
        x = self.stream(key_bias, key_noise, (), dtype)
        return Trial(x[:, None], jnp.cumsum(x)[:, None], jnp.ones(self.n_steps, dtype))


class Decision(WhiteNoise):
    """Report at the last step whether the sum of the input is above 0: the target there is +1 or -1.

    With the defaults 62 % of the targets are -1, since b has mean -bias.

    >>> trial = Decision(n_steps=4, sd=0).trial(jax.random.key(0), "float32")
    >>> trial.mask
    Array([0., 0., 0., 1.], dtype=float32)
    """

    name = "decision"

    def trial(self, key: Array, dtype: jax.typing.DTypeLike) -> Trial:
        key_bias, key_noise = jax.random.split(key)
        x = self.stream(key_bias, key_noise, (), dtype)
        # The mask is 1 at the last step alone: the network may do as it likes before.
        last = jnp.zeros(self.n_steps, dtype).at[-1].set(1)
        choice = jnp.where(jnp.sum(x) > 0, 1, -1).astype(dtype)
        return Trial(x[:, None], (choice * last)[:, None], last)

    def success(self, trial: Trial, output: Array) -> Array:
        """True if the output has the sign of the target at the last step."""
        return same_sign(trial, output)


class ContextualIntegrator(WhiteNoise):
    """Integrate one of two noise streams, which a one-hot context selects (cf. Mante et al. 2013).

    Inputs: stream 1, stream 2, context 1, context 2. The streams have independent b.

    >>> ContextualIntegrator().trial(jax.random.key(0), "float32").inputs.shape
    (25, 4)
    """

    name = "contextual_integrator"
    n_in: ClassVar[int] = 4
    constant_inputs: ClassVar = ((0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0, 1.0))

    def trial(self, key: Array, dtype: jax.typing.DTypeLike) -> Trial:
        key_bias, key_noise, key_context = jax.random.split(key, 3)
        x = self.stream(key_bias, key_noise, (2,), dtype)
        context = jax.nn.one_hot(jax.random.bernoulli(key_context).astype(int), 2, dtype=dtype)
        inputs = jnp.concatenate([x, jnp.tile(context, (self.n_steps, 1))], axis=1)
        # A one-hot context picks the stream by a product.
        targets = jnp.cumsum(x @ context)[:, None]
        return Trial(inputs, targets, jnp.ones(self.n_steps, dtype))
