"""Tasks on white noise: integrate it, decide on it, integrate one of two streams."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from ctd.late import jax, jnp
from ctd.tasks.scores import same_sign
from ctd.tasks.task import Task, Trial


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

    @property
    def time_step(self) -> tuple[float, str]:
        """duration / n_steps, in s."""
        return self.duration / self.n_steps, "s"

    def mean_input(self, key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        """b of one trial; `shape` (2,) for two streams."""
        xi: jax.Array = jax.random.normal(key, shape, dtype)
        b: jax.Array = 2 * self.bias * (xi if self.centred else xi - 0.5)
        return b

    def noise(self, key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        """s xi / sqrt(dt), xi ~ N(0, 1) of this shape."""
        dt, _ = self.time_step
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

    def success(self, trial: Trial, output: jax.Array) -> jax.Array:
        """Whether the output has the sign of the target at the last step."""
        return same_sign(trial, output)


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
