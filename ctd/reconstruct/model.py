"""The network that is fitted: its parameters, the states that the data stand for, and its forced and free runs.

An observation of the state z is x = wO z + bO; with `identity` the first units themselves. The state that data stand for is
[x; lift x] with identity, where lift is trained, and pinv(wO) (x - bO) with an affine observation.
"""

from __future__ import annotations

from ctd.cells import Cell, Scales, Weights, draw_almost, draw_shallow, get_cell
from ctd.kernel import Values, View
from ctd.late import Array, Float, jax, jnp, lax
from ctd.reconstruct.params import Reconstruction

type Parameters = dict[str, Array]

SQUARINGS = 10
"""A spectral norm is at most .0006 (n = 3) or .002 (n = 50) of itself too large, and only if all singular values are alike."""

OBSERVED = ("wO", "bO", "lift")
"""Parameters of the observation; all others are the network's."""


def draw(static: View[Reconstruction], n_in: int, channels: int, key: Array) -> Parameters:
    """Draw random parameters: the cell's weights, and the trained ones of the observation."""
    key_cell, key_out, key_lift = jax.random.split(key, 3)
    if static.cell == "alrnn":
        parameters = draw_almost(
            key_cell, (static.n, n_in, static.rectified), Scales(), static.dtype
        )
    else:
        parameters = draw_shallow(key_cell, (static.n, n_in, static.hidden), Scales(), static.dtype)
    # The matrix of an affine observation is drawn as by He et al. 2015; the lift is uniform, as the cell's weights are.
    if static.observation == "affine":
        spread = (2 / static.n) ** 0.5
        parameters["wO"] = spread * jax.random.normal(key_out, (channels, static.n), static.dtype)
        parameters["bO"] = jnp.zeros(channels, static.dtype)
    elif static.n > channels:
        shape = (static.n - channels, channels)
        parameters["lift"] = (
            jax.random.uniform(key_lift, shape, static.dtype, -1, 1) * channels**-0.5
        )
    return parameters


def trained(static: View[Reconstruction], p: Parameters) -> tuple[Parameters, Parameters]:
    """Divide parameters into (those that training changes, the cell's constants)."""
    constants = get_cell(static.cell).constants
    return {k: v for k, v in p.items() if k not in constants}, {
        k: v for k, v in p.items() if k in constants
    }


def observed(p: Parameters, z: Float[Array, "*any unit"], channels: int) -> Array:
    """(..., channel) the observations of states."""
    return z @ p["wO"].T + p["bO"] if "wO" in p else z[..., :channels]


def states_of(p: Parameters, x: Float[Array, "*any channel"]) -> Array:
    """(..., unit) the states that data stand for."""
    if "wO" in p:
        # Of all states with this observation, the one of least norm.
        return (x - p["bO"]) @ jnp.linalg.pinv(p["wO"]).T
    return jnp.concatenate([x, x @ p["lift"].T], axis=-1) if "lift" in p else x


def forced(
    cell: Cell, p: Weights, z: Array, s: Float[Array, "time n_in"], alpha: Array
) -> Float[Array, "time unit"]:
    """The states before forcing of one sequence, z_t = F(z~_{t-1}, s_t), z~_t = (1 - alpha_t) z_t + alpha_t z^_t.

    z: (time + 1, unit) the states z^ that the data stand for; the first begins the sequence. alpha: (time, unit), 0 for units
    that are not forced. (Hess et al. 2023, eq. 6.)
    """

    def step(before: Array, at: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        to, s_now, a = at
        now = cell.step(p, before, s_now)
        # The prediction comes from the state before it is forced.
        return (1 - a) * now + a * to, now

    return lax.scan(step, z[0], (z[1:], s, alpha))[1]


def strengths(
    static: View[Reconstruction], traced: Values[Reconstruction], alpha: Array, channels: int
) -> Float[Array, "time unit"]:
    """alpha_t of each unit: with identity, only the units that are observed are forced."""
    steps = jnp.arange(1, static.length + 1)  # the start is a state of the data anyway
    if static.forcing == "sparse":
        at = (steps % traced.interval == 0).astype(static.dtype)
    else:
        at = jnp.full(static.length, alpha, static.dtype)
    # Data stand for all units of an affine observation, but with identity for the first `channels` alone.
    is_forced = jnp.arange(static.n) < (static.n if static.observation == "affine" else channels)
    return at[:, None] * is_forced


def spectral_norm(j: Float[Array, "m n"]) -> Float[Array, ""]:
    """|j|_2 from above, as trace((j' j)^k)^(1 / 2k) with k = 2^SQUARINGS: at most n^(1 / 2k) times too large.

    LAPACK's eigenvalues take 4 times as long for many small matrices (n = 3), and 36 times at n = 50.

    >>> float(spectral_norm(jnp.diag(jnp.array([3.0, 1.0]))))
    3.0
    """
    g, log = j.T @ j, jnp.zeros((), j.dtype)
    for k in range(SQUARINGS + 1):
        # Divided by its trace, g neither overflows nor vanishes; a matrix of zeros stays one.
        trace = jnp.maximum(jnp.trace(g), jnp.finfo(g.dtype).tiny)
        log += jnp.log(trace) / 2**k
        g = (g / trace) @ (g / trace)
    return jnp.exp(log / 2)


def bound(
    cell: Cell,
    p: Weights,
    z: Float[Array, "sequence time unit"],
    s: Float[Array, "sequence time n_in"],
) -> Float[Array, ""]:
    """The strength of forcing at which the product of Jacobians along no sequence grows: max(0, 1 - 1 / G).

    G is the largest, over the sequences, geometric mean over time of |dF/dz|_2 at the states of the data: (1 - alpha) G <= 1
    bounds the norm of the product (Hess et al. 2023, eq. 12, `product_upper_bound`).
    """

    def norm(z: Array, s: Array) -> Array:
        # These cells add the term C s, so that the Jacobian does not depend on the input that is paired with z.
        return spectral_norm(jax.jacfwd(lambda z: cell.step(p, z, s))(z))

    logs = jnp.log(jax.vmap(jax.vmap(norm))(z, s))  # (sequence, time)
    largest = jnp.exp(jnp.max(jnp.mean(logs, axis=1)))
    return jnp.maximum(0, 1 - 1 / largest)
