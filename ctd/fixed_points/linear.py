"""The network linearised around a point or any state: Jacobians, modes, time constants, frequencies, and what each mode
carries from the input to the readout.

With dF/dh = R L R^-1, an input dx now changes the readout s steps later by sum_m lambda_m^s T_m dx, where
T_m = C r_m l_m^H B, C = dz/dh, B = dF/dx, l_m^H the rows of R^-1. T_m does not depend on the length of an eigenvector, and
T_m summed over all modes is C B.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ctd.cells import Weights
from ctd.fixed_points.network import Map, compiled
from ctd.late import Array, Float, jax, jnp


class Derivatives(NamedTuple):
    """Derivatives of F at k points, float64."""

    dh: Float[np.ndarray, "k state state"]
    """dF/dh: row i, column j is dF_i / dh_j."""
    dx: Float[np.ndarray, "k state input"]
    """dF/dx."""
    curvature: Float[np.ndarray, "k"]
    """Smallest eigenvalue of the Hessian of q: positive at a strict local minimum."""
    error: Float[np.ndarray, "k"]
    """Length of Newton's step to F(h) = h, the distance from a fixed point to first order; inf where dF/dh - 1 is singular."""


def derivatives(
    f: Map,
    weights: Mapping[str, ArrayLike],
    points: Float[np.ndarray, "k state"],
    x: Float[np.ndarray, "k input"],
    flow: bool = False,
) -> Derivatives:
    """Derivatives of the map f(weights, h, x) at points with inputs x; of a flow, f is dh/dt."""
    n, n_in = points.shape[1], x.shape[1]
    with jax.enable_x64(True):
        fine = {name: jnp.asarray(w, jnp.float64) for name, w in weights.items()}
        # One point after the other: a Hessian's workspace is n times that of its gradient.
        per_point = [
            [np.asarray(value) for value in _derivatives(f, flow, fine, *pair)]
            for pair in zip(np.asarray(points, float), np.asarray(x, float), strict=True)
        ]
    dh, dx, curvature, error = zip(*per_point, strict=True) if per_point else ([], [], [], [])
    shaped = lambda values, *shape: np.reshape(values, (len(per_point), *shape))
    return Derivatives(shaped(dh, n, n), shaped(dx, n, n_in), shaped(curvature), shaped(error))


@partial(compiled, n_static=2)
def _derivatives(
    f: Map, flow: bool, weights: Weights, h: Float[Array, "state"], x: Float[Array, "input"]
) -> tuple[Array, ...]:
    """The `Derivatives` at one point."""
    # A map rests where F(h) = h, a flow where f(h) = 0.
    drift = lambda h: f(weights, h, x) - (0 if flow else h)
    q = lambda h: jnp.sum(drift(h) ** 2) / 2
    dh, dx = jax.jacfwd(partial(f, weights), argnums=(0, 1))(h, x)
    newton = jnp.linalg.solve(dh - (0 if flow else jnp.eye(len(h))), drift(h))
    error = jnp.linalg.norm(newton)
    error = jnp.where(jnp.isfinite(error), error, jnp.inf)
    return dh, dx, jnp.linalg.eigvalsh(jax.hessian(q)(h))[0], error


class Modes(NamedTuple):
    """Modes of k Jacobians, the slowest to decay first; in a conjugate pair, the positive angle comes first."""

    eigenvalues: np.ndarray
    """(k, mode) complex."""
    right_vectors: np.ndarray
    """(k, state, mode): J right_m = lambda_m right_m, of unit length."""
    left_vectors: np.ndarray
    """(k, state, mode): left_m^H J = lambda_m left_m^H, with left^H right = 1."""


def modes(jacobians: np.ndarray, flow: bool = False) -> Modes:
    """Eigenvalues, right and left eigenvectors of (k, n, n) real matrices.

    They are ordered by decreasing |lambda|; of a flow by decreasing Re lambda.
    """
    values, right_vectors = (part.astype(complex) for part in np.linalg.eig(jacobians))
    # Rounded, the magnitudes of a conjugate pair are equal, which keeps the pair together.
    magnitude, real = np.round(np.abs(values), 12), np.round(values.real, 12)
    first = (-real, -magnitude) if not flow else (-magnitude, -real)
    order = np.lexsort((-values.imag, *first), axis=-1)
    values = np.take_along_axis(values, order, axis=-1)
    right_vectors = np.take_along_axis(right_vectors, order[:, None, :], axis=-1)
    # A defective matrix has no basis of eigenvectors; its left ones are then a least-squares solution.
    left_vectors = np.linalg.pinv(right_vectors, rcond=1e-15).conj().swapaxes(-1, -2)
    return Modes(values, right_vectors, left_vectors)


MARGINAL = 1e-6
"""A mode is marginal if its |lambda| is within this of 1, of a flow Re lambda of 0: in a million steps it changes by a factor
of e at most."""

DECAYS, NEITHER, GROWS = -1, 0, 1


def growth(
    eigenvalues: np.ndarray, slow: np.ndarray | None = None, flow: bool = False
) -> np.ndarray:
    """(k, mode) DECAYS for modes with |lambda| < 1, GROWS for |lambda| > 1, else NEITHER, to MARGINAL.

    Of a flow, whose eigenvalues are those of df/dh, Re lambda and 0 take the places of |lambda| and 1.

    At a slow point (dF/dh - 1)'f = 0, f = F - h: f is a left eigenvector of dF/dh with the eigenvalue 1. That mode
    is the slow drift itself (0 of a flow); rounding puts it on either side of the unit circle, so it counts as NEITHER.

    slow: (k,) True for slow points; without it, none is.
    """
    rate = eigenvalues.real if flow else np.abs(eigenvalues) - 1
    signs = np.where(np.abs(rate) <= MARGINAL, NEITHER, np.sign(rate)).astype(int)
    if slow is None or not slow.any():
        return signs
    drift = np.argmin(np.abs(eigenvalues - (0 if flow else 1)), axis=1)[:, None]
    is_drift = slow[:, None] & (np.arange(eigenvalues.shape[1]) == drift)
    return np.where(is_drift, NEITHER, signs)


def stability(growth: np.ndarray) -> np.ndarray:
    """(k,) "unstable" where a mode grows, else "marginal" where one does neither, else "stable"."""
    marginal = np.where((growth == NEITHER).any(axis=1), "marginal", "stable")
    return np.where((growth == GROWS).any(axis=1), "unstable", marginal)


def time_constants(eigenvalues: np.ndarray, flow: bool = False) -> np.ndarray:
    """-1 / ln|lambda|, the e-folding time in steps; negative for a growing mode, inf at |lambda| = 1, to MARGINAL; of a flow
    -1 / Re lambda."""
    with np.errstate(divide="ignore"):
        rate = eigenvalues.real if flow else np.log(np.abs(eigenvalues))
        # 0 - x, not -x: where x is 0, -x is -0, and 1 / -0 is -inf.
        return 1 / (0 - np.where(np.abs(rate) <= MARGINAL, 0, rate))


def frequencies(eigenvalues: np.ndarray, flow: bool = False) -> np.ndarray:
    """arg(lambda) / 2 pi in cycles per step, within (-1/2, 1/2]; of a flow Im lambda / 2 pi."""
    return (eigenvalues.imag if flow else np.angle(eigenvalues)) / (2 * np.pi)


SURE = 1e-2
"""Largest relative error by rounding of a mode's transfer."""


class Carried(NamedTuple):
    """The first k modes of a state, by decreasing |eigenvalue|."""

    eigenvalue: Array
    """(k,) complex."""
    transfer: Array
    """(k, output, input) complex, T_m; NaN where rounding would change it by more than SURE, as of a defective Jacobian."""
    input_jacobian: Array
    """(state, input) dF/dx."""


def carried(
    step: Callable[[Array, Array], Array],
    read: Callable[[Array], Array],
    h: Array,
    x: Array,
    k: int,
) -> Carried:
    """The modes of step(h, x) at h (state,), x (input,), and their transfer to the readout read(h) (output,)."""
    dh, dx = jax.jacfwd(step, (0, 1))(h, x)
    values, right_vectors = jnp.linalg.eig(dh)
    order = jnp.argsort(-jnp.abs(values))[:k]
    out = jax.jacfwd(read)(h) @ right_vectors
    # The rows of right^-1 are the left eigenvectors, scaled to left^H right = 1.
    columns = jnp.concatenate([dx, jnp.eye(len(h), dtype=dx.dtype)], axis=1).astype(
        right_vectors.dtype
    )
    into, left_vectors = jnp.split(jnp.linalg.solve(right_vectors, columns), [dx.shape[1]], axis=1)
    # By the length of l_m, rounding is magnified: without end where the Jacobian lacks an eigenvector. Also if it is NaN.
    is_accurate = jnp.linalg.norm(left_vectors, axis=1) * jnp.finfo(dx.dtype).eps < SURE
    into = into * jnp.where(is_accurate, 1, jnp.nan)[:, None]
    transfer = out.T[order][:, :, None] * into[order][:, None, :]  # (k, output, 1) (k, 1, input)
    return Carried(values[order], transfer, dx)
