"""The latent circuit: its steps, its embedding in the units' space, its loss and its errors.

    x_(t+1) = x_t + alpha (-x_t + relu(wR x_t + wI u_(t+1) + sqrt(2 alpha) noise xi)),   x_0 = 0
    y = Q x,   z = wO x

(Langdon & Engel 2025, equations 1 to 3.) Each input drives one node and each output reads one: wI has one positive entry a column, in
the first nodes, wO one a row, in the last. The columns of Q are orthonormal: the first n of the Cayley transform
(I - S)^-1 (I + S) of a skew matrix S = (B - B') / 2, so that the entries of B are free (equations 8 and 9).
"""

from __future__ import annotations

from typing import NamedTuple

from ctd import training
from ctd.kernel import Values, View
from ctd.late import Array, Float, jax, jnp, lax, optax
from ctd.latent_circuit.params import LatentCircuit, Trials


class Circuit(NamedTuple):
    """The trained parameters."""

    wR: Float[Array, "node node"]
    wI: Float[Array, "node input"]
    wO: Float[Array, "output node"]
    B: Float[Array, "unit unit"]


def initial(static: View[LatentCircuit], trials: Trials, key: Array) -> Circuit:
    """Draw a circuit as the authors do: wR ~ N(0, .025^2), input and output weights ~ N(.2, .1^2), B ~ U(0, 1)."""
    n_in, n_out, n_units = (a.shape[2] for a in trials)
    keys = jax.random.split(key, 4)
    normal = lambda key, *shape: jax.random.normal(key, shape, static.dtype)
    return constrained(  # drawn weights may be negative or misplaced
        Circuit(
            0.025 * normal(keys[0], static.n, static.n),
            0.2 + 0.1 * normal(keys[1], static.n, n_in),
            0.2 + 0.1 * normal(keys[2], n_out, static.n),
            jax.random.uniform(keys[3], (n_units, n_units), static.dtype),
        )
    )


def constrained(c: Circuit) -> Circuit:
    """The nearest circuit in which each input drives a node of its own, and each output reads one, with weights of at least 0."""
    n_out = len(c.wO)
    n, n_in = c.wI.shape
    into = jnp.eye(n, n_in, dtype=c.wI.dtype)  # input k drives node k
    # Output k reads node n - n_out + k.
    out = jnp.zeros_like(c.wO).at[:, -n_out:].set(jnp.eye(n_out, dtype=c.wO.dtype))
    return c._replace(wI=into * jax.nn.relu(c.wI), wO=out * jax.nn.relu(c.wO))


def embedding(c: Circuit) -> Float[Array, "unit node"]:
    """Q, whose columns are orthonormal."""
    skew, eye = (c.B - c.B.T) / 2, jnp.eye(len(c.B), dtype=c.B.dtype)
    # Only the first n columns are solved for: the authors invert the whole matrix.
    # I - S is never singular, since a skew S has imaginary eigenvalues alone.
    q: Array = jnp.linalg.solve(eye - skew, (eye + skew)[:, : len(c.wR)])
    return q


def activity(
    c: Circuit, alpha: Array, u: Float[Array, "trial time input"], within: Array
) -> Float[Array, "trial time node"]:
    """The activity x of the nodes after each step. within: (trial, time, node) noise within the rectification, or 0."""
    # All trials and steps in one product; the scan has the recurrent one alone.
    drive = u @ c.wI.T + within

    def step(x: Array, drive_now: Array) -> tuple[Array, Array]:
        x = x + alpha * (-x + jax.nn.relu(x @ c.wR.T + drive_now))
        return x, x

    start = jnp.zeros((len(u), len(c.wR)), u.dtype)
    _, x = lax.scan(step, start, jnp.swapaxes(drive, 0, 1))  # a scan runs over the first axis
    return jnp.swapaxes(x, 0, 1)


def draw_noise(
    static: View[LatentCircuit], traced: Values[LatentCircuit], u: Array, key: Array
) -> Float[Array, "trial time node"]:
    """Draw the noise within the rectification, for trials with inputs u."""
    xi = jax.random.normal(key, (*u.shape[:2], static.n), static.dtype)
    # The noise lies within the rectification, so that a step multiplies it by alpha as well.
    return jnp.sqrt(2 * traced.alpha) * traced.noise * xi


class Errors(NamedTuple):
    """The errors of a circuit: mean squares relative to that of y - (mean of y over trials and steps), unless stated otherwise."""

    rates: Float[Array, ""]
    """|Q x - y|^2"""
    within: Float[Array, ""]
    """|x - Q'y|^2, as a mean over nodes relative to a mean over units (nmse_x of the authors' code)."""
    outside: Float[Array, ""]
    """|Q Q'y - y|^2, the part that no circuit in these dimensions explains."""
    outputs: Float[Array, ""]
    """Mean over trials and steps of |wO x - z|^2, in the outputs' own unit."""


def errors(c: Circuit, x: Array, trials: Trials) -> Errors:
    """The errors of a circuit whose activity in these trials is x."""
    q, y = embedding(c), trials.rates
    scale = jnp.mean((y - jnp.mean(y, (0, 1))) ** 2)  # mean variance of a unit
    projected = y @ q  # Q'y, (trial, time, node)
    return Errors(
        jnp.mean((x @ q.T - y) ** 2) / scale,
        jnp.mean((x - projected) ** 2) / scale,
        jnp.mean((projected @ q.T - y) ** 2) / scale,
        jnp.mean(jnp.sum((x @ c.wO.T - trials.targets) ** 2, -1)),
    )


def loss(c: Circuit, traced: Values[LatentCircuit], trials: Trials, within: Array) -> Array:
    """The error of outputs plus `rates_weight` times that of rates."""
    circuit_errors = errors(c, activity(c, traced.alpha, trials.inputs, within), trials)
    return circuit_errors.outputs + traced.rates_weight * circuit_errors.rates


def optimizer(traced: Values[LatentCircuit]) -> optax.GradientTransformation:
    """Adam, with the penalty's gradient in its moments, as PyTorch's `weight_decay` has it."""
    # Before Adam, not after it as in AdamW: the penalty is scaled as the gradient is.
    penalty = optax.add_decayed_weights(traced.weight_decay)
    return training.optimizer(traced.learning_rate, penalty, optax.scale_by_adam())
