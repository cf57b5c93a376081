"""Eight mechanisms as equations, each a family whose members differ in geometry and time scale.

States are z (3,), time is in bins. A member's step integrates dz/dt over one bin; noise comes from outside, and for `driven` a hidden
input u.

    two_attractors     dz1/dt = (z1 - z1^3 + skew) / tau, dz/dt = -z / tau across
    line               dz1/dt = 0 for |z1| < 1, -(z1 -+ 1) / tau beyond, -z / tau across
    ring               dr/dt = (r - r^3) / tau, dphi/dt = 0 in the plane (z1, z2), -z3 / tau
    plane              dz/dt = 0 in the disc r < 1, -(r - 1) / tau beyond, -z3 / tau
    limit_cycle        as ring, with dphi/dt = 2 pi / period
    chaos              Lorenz 1963, sigma 10, beta 8/3, `rho`, `lorenz_time` of its units of time a bin; scaled by `LORENZ`
    decaying_rotation  dz/dt = (-1 / decay + 2 pi i / period) z in the plane, -z3 / tau
    driven             dz/dt = (-z + u) / tau; u is an Ornstein-Uhlenbeck process of variance 1 and time constant `input_tau`
"""

from __future__ import annotations

from typing import NamedTuple

from ctd.late import Array, Float, Int, jax, jnp, lax

NAMES = (
    "two_attractors", "line", "ring", "plane", "limit_cycle", "chaos", "decaying_rotation", "driven",
)  # fmt: skip
"""Names of the mechanisms, in the order of the field `mechanism`."""

CHAOS, DRIVEN = NAMES.index("chaos"), NAMES.index("driven")

LORENZ = ((0.0, 0.0, 25.0), (8.0, 9.0, 9.0))
"""Middle and scale of the Lorenz system's states, so that all families have states near 1."""

SUBSTEPS = 2
"""Runge-Kutta steps in a bin: the error of the fastest member is below 1e-3 a bin."""

LEAD = 100
"""Bins before a trial in which `chaos` and `driven` forget where they began."""


class Member(NamedTuple):
    """A member of every family: scalars, of which each family uses some."""

    tau: Array
    """Time constant of attraction (bins)."""
    period: Array
    """Period of the limit cycle and of the rotation (bins)."""
    decay: Array
    """Time constant of the rotation's decay (bins)."""
    skew: Array
    """Amount by which one of two attractors is favoured."""
    rho: Array
    lorenz_time: Array
    input_tau: Array
    """Time constant of the hidden input (bins)."""
    stretch: Array
    """The size of the second dimension in the readout, relative to the first."""


RANGES = {
    "tau": (3.0, 8.0),
    "period": (12.0, 30.0),
    "decay": (12.0, 30.0),
    "skew": (-0.15, 0.15),
    "rho": (26.0, 34.0),
    "lorenz_time": (0.03, 0.06),
    "input_tau": (6.0, 15.0),
    "stretch": (0.6, 1.0),
}
"""Least and largest value of each parameter of a member, which are drawn uniformly."""


def draw_member(key: Array, dtype: str = "float32") -> Member:
    """A random member, each parameter uniform within its `RANGES`.

    >>> member = draw_member(jax.random.key(0))
    >>> bool(3 <= member.tau <= 8)
    True
    """
    keys = jax.random.split(key, len(RANGES))
    values = {
        name: jax.random.uniform(keys[k], (), dtype, *RANGES[name]) for k, name in enumerate(RANGES)
    }
    return Member(**values)


def fields(m: Member, z: Float[Array, "3"], u: Float[Array, "3"]) -> Float[Array, "mechanism 3"]:
    """dz/dt by the equations of all families, in the order of NAMES."""
    inwards = 1 - z[0] ** 2 - z[1] ** 2
    ring = jnp.stack([inwards * z[0], inwards * z[1], -z[2]]) / m.tau
    # r + dr/dt tau is 1 outside of the disc: z is pulled towards z / r.
    beyond = jnp.maximum(1 - 1 / jnp.sqrt(z[0] ** 2 + z[1] ** 2 + 1e-12), 0)
    turning = 2 * jnp.pi / m.period * jnp.stack([-z[1], z[0], jnp.zeros_like(z[0])])
    middle, scale = (jnp.asarray(value, z.dtype) for value in LORENZ)
    x, y, w = middle + scale * z
    lorenz = jnp.stack([10 * (y - x), x * (m.rho - w) - y, x * y - 8 / 3 * w])
    of_each = [
        jnp.stack([z[0] - z[0] ** 3 + m.skew, -z[1], -z[2]]) / m.tau,
        jnp.stack([jnp.clip(z[0], -1, 1) - z[0], -z[1], -z[2]]) / m.tau,
        ring,
        -jnp.stack([beyond * z[0], beyond * z[1], z[2]]) / m.tau,
        ring + turning,
        m.lorenz_time * lorenz / scale,
        turning - z / jnp.stack([m.decay, m.decay, m.tau]),
        (u - z) / m.tau,
    ]
    return jnp.stack(of_each)


type Stage = tuple[Array, Array, Array]
"""The carry of a classical Runge-Kutta step: its start, the last slope, the sum of slopes so far."""


def step(
    mechanism: Int[Array, ""],
    member: Member,
    z: Float[Array, "3"],
    u: Float[Array, "3"] | None = None,
) -> Float[Array, "3"]:
    """The state one bin later, without noise; u: the hidden input of `driven`, 0 by default."""
    hidden_input = jnp.zeros_like(z) if u is None else u
    # All fields, then one of them: a branch of `lax.switch` for each would take minutes to compile.
    field = lambda z: fields(member, z, hidden_input)[mechanism]
    dt = 1 / SUBSTEPS

    def stage(carry: Stage, at: Array) -> tuple[Stage, None]:
        start, slope, total = carry
        slope = field(start + at[0] * dt * slope)
        total = total + at[1] * dt * slope
        ends = at[2] > 0
        start = jnp.where(ends, start + total, start)
        return (start, slope, jnp.where(ends, 0, total)), None

    stages = jnp.asarray([[0, 1 / 6, 0], [0.5, 1 / 3, 0], [0.5, 1 / 3, 0], [1, 1 / 6, 1]], z.dtype)
    nothing = jnp.zeros_like(z)
    return lax.scan(stage, (z, nothing, nothing), jnp.tile(stages, (SUBSTEPS, 1)))[0][0]


# --- trials ---------------------------------------------------------------------------------------


def _starts(mechanism: Array, key: Array, n: int, dtype: str) -> Float[Array, "trial 3"]:
    """First states of trials: anywhere on or around what attracts, so that a trial shows how it gets there."""
    key_a, key_b = jax.random.split(key)
    across = 0.5 * jax.random.normal(key_a, (n, 3), dtype)
    u, v = jax.random.uniform(key_b, (2, n), dtype)
    polar = lambda r: (
        across.at[:, 0].set(r * jnp.cos(2 * jnp.pi * v)).at[:, 1].set(r * jnp.sin(2 * jnp.pi * v))
    )
    annulus, disc = polar(0.5 + u), polar(jnp.sqrt(u))
    along = lambda reach: across.at[:, 0].set(reach * (2 * u - 1))
    around = 2 * across
    # In the order of NAMES.
    kinds = [along(1.2), along(1.0), annulus, disc, annulus, around, polar(0.5 + 1.5 * u), around]
    return jnp.stack(kinds)[mechanism]


def simulate(
    mechanism: Int[Array, ""], member: Member, key: Array, shape: tuple[int, int], noise: Array
) -> Float[Array, "trial time 3"]:
    """States in trials. shape: (trials, bins); noise: standard deviation of the noise that each bin adds to a state."""
    n, n_bins = shape
    dtype = str(noise.dtype)
    key_start, key_input, key_noise = jax.random.split(key, 3)
    start = _starts(mechanism, key_start, n, dtype)
    keep = jnp.exp(-1 / member.input_tau)
    # Two dimensions are driven; the third one rests.
    mask = jnp.asarray([1, 1, 0], dtype)
    u = jax.random.normal(key_input, (n, 3), dtype) * mask

    forgets = (mechanism == CHAOS) | (mechanism == DRIVEN)

    def advance(carry: tuple[Array, Array], t: Array) -> tuple[tuple[Array, Array], Array]:
        # Trials of the others begin where they were put, once the lead is over.
        begun = jnp.where(~forgets & (t == LEAD), start, carry[0])
        fresh = jax.random.normal(jax.random.fold_in(key_input, t), start.shape, dtype) * mask
        u = keep * carry[1] + jnp.sqrt(1 - keep**2) * fresh
        kick = noise * jax.random.normal(jax.random.fold_in(key_noise, t), start.shape, dtype)
        z = jax.vmap(lambda z, u: step(mechanism, member, z, u))(begun, u) + kick
        return (z, u), z

    _, states = lax.scan(advance, (start, u), jnp.arange(LEAD + n_bins))
    return jnp.swapaxes(states[LEAD:], 0, 1)
