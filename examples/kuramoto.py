"""A kernel of one's own: the order parameter of N Kuramoto oscillators, dphi_i = w_i + K r sin(psi - phi_i).

Run it with `ctd run examples/kuramoto.yaml`: the job names this module, nothing is registered.
"""

import jax
import jax.numpy as jnp
from jax import lax
from pydantic import Field

from ctd.kernel import Params, Static, Traced, Var, one_shot


class Oscillators(Params):
    n: Static[int] = Field(100, gt=0, description="oscillators")
    n_steps: Static[int] = Field(2000, gt=0, description="Euler steps")
    dt: Traced[float] = Field(0.02, gt=0, description="step (s)")
    coupling: Traced[float] = Field(1.0, ge=0, description="coupling K (rad/s)")


def run(static, shared, traced, key):
    key_phase, key_rate = jax.random.split(key)
    phase = jax.random.uniform(key_phase, (static.n,), static.dtype, 0, 2 * jnp.pi)
    rate = jax.random.cauchy(key_rate, (static.n,), static.dtype)

    def step(phase, _):
        z = jnp.mean(jnp.exp(1j * phase))  # r exp(i psi)
        pull = jnp.imag(z * jnp.exp(-1j * phase))
        return phase + traced.dt * (rate + traced.coupling * pull), jnp.abs(z)

    _, r = lax.scan(step, phase, length=static.n_steps)
    return {"order": jnp.mean(r[static.n_steps // 2 :])}


kernel = one_shot("kuramoto", Oscillators, {"order": Var((), "1", "mean order parameter r")}, run)
