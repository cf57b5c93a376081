"""The chaotic generator: the network learns to produce the activity of a random network."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from ctd.late import Array, jax, jnp, lax
from ctd.tasks.task import Task, Trial


class ChaoticGenerator(Task):
    """Produce the activity of a random chaotic network, the target of FORCE learning.

    The target is z = J_o tanh(a) with tau da/dt = -a + J tanh(a), J ~ N(0, g^2 / n_units) and g > 1
    (Sompolinsky et al. 1988; Sussillo & Abbott 2009), in Euler steps. The outputs are random projections
    of the rates, with variance below 1. The FORCE notebook of computation-thru-dynamics takes the rates of
    single units instead and feeds outputs back, as `ctd.esn.series.chaotic_network` does. `network_seed` alone
    determines the network and its initial state, so that all trials have the same target. The one input is 1 at
    the first step, then 0.

    >>> task = ChaoticGenerator(n_steps=6, n_targets=2, n_units=20)
    >>> a, b = (task.trial(jax.random.key(k), "float32") for k in (0, 1))
    >>> a.targets.shape, bool((a.targets == b.targets).all())
    ((6, 2), True)
    """

    name = "chaotic_generator"
    n_in: ClassVar[int] = 1

    n_steps: int = Field(300, gt=0, description="steps of a trial")
    n_targets: int = Field(20, gt=0, description="outputs")
    n_units: int = Field(500, gt=0, description="units of the network that makes the target")
    g: float = Field(1.8, gt=0, description="scale of that network's recurrent weights")
    dt: float = Field(0.1, gt=0, description="Euler step (s)")
    tau: float = Field(1.0, gt=0, description="time constant of that network (s)")
    network_seed: int = Field(
        0, ge=0, lt=2**32, description="seed of that network and its initial state"
    )

    @property
    def n_out(self) -> int:
        return self.n_targets

    @property
    def time_step(self) -> tuple[float, str]:
        """(dt, "s")."""
        return self.dt, "s"

    def trial(self, key: Array, dtype: jax.typing.DTypeLike) -> Trial:
        del key
        # A pulse tells the network when to start; nothing else comes in.
        inputs = jnp.zeros((self.n_steps, 1), dtype).at[0].set(1)
        return Trial(inputs, self.target(dtype), jnp.ones(self.n_steps, dtype))

    def target(self, dtype: jax.typing.DTypeLike) -> Array:
        """Compute the target, the readout of a random chaotic network; it is equal for all trials.

        Args:
            dtype: floating type of the target.

        Returns:
            (time, output) array.
        """
        # Drawn from the task's own seed, not from the trial's key.
        root = jax.random.key(self.network_seed)
        key_rec, key_out, key_state = jax.random.split(root, 3)
        n = self.n_units
        recurrent = self.g * n**-0.5 * jax.random.normal(key_rec, (n, n), dtype)
        out = n**-0.5 * jax.random.normal(key_out, (self.n_targets, n), dtype)
        alpha = self.dt / self.tau

        def step(a: Array, _: None) -> tuple[Array, Array]:
            a = a + alpha * (-a + recurrent @ jnp.tanh(a))
            return a, out @ jnp.tanh(a)

        # N(0, 1) is of the order of the network's own fluctuations, so that the transient is short.
        start = jax.random.normal(key_state, (n,), dtype)
        return lax.scan(step, start, length=self.n_steps)[1]
