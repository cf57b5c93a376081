"""Ridge readouts of teacher-forced networks, and memory capacity, which such readouts measure."""

from __future__ import annotations

from ctd.esn.force import Trained
from ctd.esn.params import EchoState
from ctd.esn.reservoir import Now, Weights, begin, disturbances, features, teacher_forced
from ctd.esn.series import Series
from ctd.kernel import Values, View
from ctd.late import Array, jax, jnp


def solve(static: View[EchoState], h: Array, f: Array, ridge: Array) -> tuple[Array, Array]:
    """Solve R (H^T H + D) = F^T H for the readout R, with features H and targets F.

    D = ridge I, but 0 for the constant of an intercept, so that a shift of all targets shifts the constant
    alone, as in scikit-learn and reservoirpy. One step of refinement brings the residual of the normal
    equations down to rounding.

    Args:
        h: (t, p) features, float64.
        f: (t, m) targets.
        ridge: () penalty.

    Returns:
        ((m, p) readout, () bool). If H^T H + D is not positive definite, the readout is 0 and the second value False.
    """
    penalty = jnp.full((h.shape[1], 1), ridge, h.dtype)
    if static.intercept:
        penalty = penalty.at[-1].set(0)
    gram = h.T @ h + jnp.diag(penalty[:, 0])
    moment = h.T @ f
    # Cholesky gives NaN, not an error, where the matrix is not positive definite.
    factor = jax.scipy.linalg.cho_factor(gram, lower=True)
    readout = jax.scipy.linalg.cho_solve(factor, moment)
    # The residual is formed from h, not from gram, whose rounding it must correct.
    residual = h.T @ (f - h @ readout) - penalty * readout
    readout = readout + jax.scipy.linalg.cho_solve(factor, residual)
    definite = jnp.isfinite(readout).all()
    return jnp.where(definite, readout, 0).T, definite


def _silent(static: View[EchoState], w: Weights) -> Now:
    """The network at its initial activation, with an output of 0."""
    return begin(static, w, jnp.zeros((static.m, static.n + static.intercept), static.dtype))


def ridge_fit(
    static: View[EchoState], shared: Series, traced: Values[EchoState], key: Array, w: Weights
) -> Trained:
    """Force the network with its targets over washout and training range, then fit the readout to the latter.

    Jaeger 2001 (GMD report 148); Lukosevicius 2012, eq. 9.
    """
    start, stop = static.washout, static.washout + static.train
    x = shared.inputs[:stop].astype(static.state_dtype)
    y = shared.targets[:stop].astype(static.state_dtype)
    noise = disturbances(static, traced, key, 0, stop)
    now, rates = teacher_forced(static, w, _silent(static, w), x, y, noise)
    h, f = features(static, rates[start:]), shared.targets[start:stop].astype(static.dtype)
    readout, definite = solve(static, h, f, traced.ridge)
    # States that are not finite make the Gram matrix NaN: that is divergence, not bad conditioning.
    definite |= ~jnp.isfinite(now.a).all()
    return Trained(now, readout, jnp.sum((h @ readout.T - f) ** 2), definite)


def memory_capacity(
    static: View[EchoState], traced: Values[EchoState], key: Array, w: Weights
) -> Array:
    """Squared correlation (delay,) of a past input u(t - d) with its linear readout, d = 1 ... `memory_delays`.

    Jaeger 2002 (GMD report 152): u ~ U[-1, 1] drives the network through weights of standard deviation
    `input_scale`, without feedback; both are drawn here, whatever inputs and input weights the network has. The
    sum over all delays is the memory capacity, at most n. After a washout of `memory_delays` + 100 samples, ridge
    readouts are fitted to 10 n + 1000 samples and scored on the next 10 n + 1000.
    """
    delays, n = static.memory_delays, static.n
    # More than ten samples per feature in either half, so that the readout fits the signal, not the sample.
    skip, half = delays + 100, 10 * n + 1000
    keys = jax.random.split(key, 2)
    total = skip + 2 * half
    u = jax.random.uniform(keys[0], (total,), static.state_dtype, -1, 1)
    scale = traced.input_scale.astype(static.state_dtype)
    alone = static._replace(feedback=False)  # type: ignore[attr-defined]
    # The input reaches the first layer alone, as in training.
    first = (jnp.arange(n) < n // static.layers)[:, None]
    into = scale * first * jax.random.normal(keys[1], (n, 1), static.state_dtype)
    driven = w._replace(drive=jnp.concatenate([w.drive[:, :n], into], axis=1))
    nothing = jnp.zeros((total, static.m), u.dtype)  # targets, which are not fed back
    _, rates = teacher_forced(alone, driven, _silent(static, w), u[:, None], nothing)
    past = jnp.arange(skip, total)[:, None] - jnp.arange(1, delays + 1)
    h, f = features(static, rates[skip:]), u[past].astype(static.dtype)
    readout, _ = solve(static, h[:half], f[:half], traced.ridge)
    z, f = h[half:] @ readout.T, f[half:]
    z, f = z - z.mean(0), f - f.mean(0)
    explained = jnp.sum(z * f, 0) ** 2 / (jnp.sum(z * z, 0) * jnp.sum(f * f, 0))
    # A readout that is constant, or that could not be solved, explains nothing.
    return jnp.where(jnp.isfinite(explained), explained, 0)
