"""Two minimisers of q(h) = |F(h) - h|^2 / 2, each a state machine for one candidate.

A tick of adam computes one gradient of q; a tick of lm one gradient and a few products with the Hessian there. So
candidates at different stages of their searches run in one program.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from ctd.late import Array, PyTree, jax, jnp, lax, optax

type Step = Callable[[Array], Array]
"""The one-step map h -> F(h) of one candidate: weights and input are bound."""

RUNNING = -1
FIXED, SLOW, LIMIT, DIVERGED = range(4)

PRODUCTS = 4
"""Most Hessian products of a tick of lm. They share one linearisation of the gradient; but a candidate whose step is complete
waits until the others of its microbatch have made theirs."""

ADAM_BLOCK = 32
"""Ticks of one `advance`. A search takes some hundreds; a lane whose search has finished idles half a block."""

LM_BLOCK = 4
"""Ticks of one `advance` of lm after its approach (`ctd.fixed_points.search.approach`). Most searches then need about ten, of several
products each."""

POINT_TOL = 1e-5
"""A slow point is located to within this, in units of the candidates' spread: far below any tolerance that
tells points apart, and above the rounding of Newton steps along nearly flat valleys."""


class Problem(NamedTuple):
    """The function that a search minimises in one precision, and its limits; scalars but for `inverse`."""

    step: Step
    inverse: Array
    """Inverse of the mean of J'J over the candidate states, J = dF/dh - 1; empty: unknown."""
    longest: Array
    """The longest step of lm."""
    q_tol: Array
    max_iterations: Array
    spread: Array
    """Root mean square distance of the candidate states from their mean: the unit of lengths."""
    bound: Array
    """A search whose largest |h_i| exceeds this has diverged."""
    rate: Array
    """The first step size of Adam, whose factor at each iteration is `decay`."""
    decay: Array
    eps: Array
    """Adam's epsilon."""


class Problems(NamedTuple):
    """The problem of one candidate in two precisions."""

    coarse: Problem
    """For the approach of `lm`: float32; a user's F may bring arrays of its own, and keeps its precision."""
    fine: Problem
    """In the precision of the job."""


def speed(step: Step) -> Callable[[Array], Array]:
    """h -> q(h)."""
    return lambda h: jnp.sum((step(h) - h) ** 2) / 2


def run_block[S](tick: Callable[[S], S], n_ticks: int, going: Callable[[S], Array], state: S) -> S:
    """Apply `tick` while `going(state)`, at most n_ticks times."""
    start = (jnp.zeros((), jnp.int32), state)
    ended: S = lax.while_loop(
        lambda carry: (carry[0] < n_ticks) & going(carry[1]),
        lambda carry: (carry[0] + 1, tick(carry[1])),
        start,
    )[1]
    return ended


def verdict(h: Array, q: Array, iterations: Array, limits: Problem) -> Array:
    """The outcome at h; RUNNING while the search goes on."""
    # F(h) - h carries a rounding error of a few eps |h|; below it q means nothing.
    floor = (4 * jnp.finfo(h.dtype).eps) ** 2 * jnp.sum(h * h) / 2
    diverged = ~jnp.isfinite(q) | (jnp.max(jnp.abs(h)) > limits.bound)
    outcome = jnp.where(iterations >= limits.max_iterations, LIMIT, RUNNING)
    outcome = jnp.where(q <= jnp.maximum(limits.q_tol, floor), FIXED, outcome)
    return jnp.where(diverged, DIVERGED, outcome).astype(jnp.int32)


# --- Levenberg-Marquardt --------------------------------------------------------------------------

FORCING = 0.5, 1 / 3
"""(a, b): conjugate gradients end at a residual of min(a, (|g| / spread)^b) |g|, which gives superlinear
convergence (Dembo et al. 1982)."""

NEAR = 0.02
"""Length of a step, in units of the candidates' spread, below which the network's `inverse` preconditions the
next one."""

TIGHT = 1e-3
"""Largest residual / |g| for steps short enough to certify a slow point, and the largest part of q that such
a step may gain."""


class Descent(NamedTuple):
    """A Levenberg-Marquardt search between two ticks: at h, with part of the next step p known."""

    start: Array
    h: Array
    q: Array
    g: Array
    """Gradient of q at h."""
    radius: Array
    p: Array
    r: Array
    """-(g + H p), the residual of the Newton equations."""
    rz: Array
    """r.M r, M the preconditioner."""
    d: Array
    """The next direction of the conjugate gradients."""
    along: Array
    """Unit vector along the valley: the direction of the last long step."""
    along_length: Array
    """Length of that step."""
    flatness: Array
    """Mean curvature along that step."""
    near: Array
    """True if the last step met neither the radius nor negative curvature and was shorter than NEAR, and at the start."""
    boost: Array
    """The preconditioner is M = N + boost along along', N = `inverse` if near, else 1."""
    stiffness: Array
    """Largest curvature met so far, d.H d / d.d."""
    decrease: Array
    """Gain of p by the quadratic model, -(g.p + p.H.p / 2)."""
    trying: Array
    """True if p is complete: the next tick then tries h + p."""
    inside: Array
    """True if p met neither the radius nor negative curvature."""
    products: Array
    """int32, Hessian products so far in this step."""
    iterations: Array
    """int32, ticks so far."""
    outcome: Array


def _precondition(s: Descent, inverse: Array, r: Array) -> Array:
    everywhere = jnp.where(s.near, inverse @ r, r) if inverse.size else r
    return everywhere + s.boost * (s.along @ r) * s.along


def _begin(s: Descent, inverse: Array) -> Descent:
    """Start conjugate gradients at p = 0."""
    # Where the gradient is 0 at once, the curvature along some direction tells a maximum from a minimum.
    d = jnp.where((s.g == 0).all(), 1, _precondition(s, inverse, -s.g))
    return s._replace(
        p=jnp.zeros_like(s.h),
        r=-s.g,
        rz=-s.g @ d,
        d=d,
        decrease=jnp.zeros_like(s.q),
        trying=jnp.zeros((), bool),
        inside=jnp.ones((), bool),
        products=jnp.zeros((), jnp.int32),
    )


def lm_init(inverse: Array, start: Array, h: Array, q: Array, g: Array, radius: Array) -> Descent:
    """A search that began at `start` and stands at h, beside a minimum; `inverse` as in a `Problem`."""
    zero, no = jnp.zeros((), jnp.int32), jnp.zeros((), bool)
    nothing, none = jnp.zeros_like(h), jnp.zeros_like(q)
    valley = (nothing, none, none, ~no, none, none)
    outcome = jnp.full((), RUNNING, jnp.int32)
    s = Descent(start, h, q, g, radius, g, g, q, g, *valley, q, no, no, zero, zero, outcome)
    return _begin(s, inverse)


def lm_tick(problem: Problem, s: Descent) -> Descent:
    """Try the step p if it is complete, then lengthen the next one by a few Hessian-vector products.

    The step p minimises the quadratic model g.p + p.H.p / 2 within |p| <= radius: Levenberg's damped
    step, with the radius in place of the damping (More 1978). H = J'J + sum_i f_i d2f_i, f = F - h,
    is the full Hessian, since at a slow point J'f = 0 with f != 0: there J'J alone is singular, and
    convergence would not be quadratic. The model is minimised by conjugate gradients that end at the
    radius or at negative curvature (Steihaug 1983; Nocedal & Wright 2006, algorithm 7.2): products
    H d cost a few evaluations of F, need no n x n matrix, and batch into matrix products that
    share the weights. The gradient is linearised once for all products of a tick, which halves their cost.
    A step that gains too little is halved and tried again along the same p.

    A search follows a curved valley of q, along which the curvature is thousands of times lower than
    across: conjugate gradients are preconditioned to see it as stiff as the rest. The valley's
    direction is that of the last long step; the curvature along it costs nothing, since the gradients at
    the two ends of that step give it. Steps that were cut at the longest do not count:
    far from a valley they would lead out of the basin of gradient descent. Once steps are short, `inverse`
    preconditions too, the inverse of the mean of J'J over the candidate states (empty: unknown): it is the
    same for all candidates, so that it costs one product more, and it halves their number.
    """
    at = jnp.where(s.trying, s.h + s.p, s.h)
    (q, g), push = jax.linearize(jax.value_and_grad(speed(problem.step)), at)
    length = jnp.linalg.norm(s.p)
    long = length >= jnp.minimum(s.along_length, s.radius) / 2
    along = jnp.where(long, s.p / length, s.along)
    ahead = s._replace(
        along=along,
        along_length=jnp.where(long, length, s.along_length),
        flatness=jnp.where(long, along @ (g - s.g) / length, s.flatness),
        iterations=s.iterations + 1,
    )
    tried = _try_step(problem, ahead, at, q, g)
    s = jax.tree.map(lambda a, b: jnp.where(s.trying, a, b), tried, s)

    def going(carry: tuple[Array, Descent]) -> Array:
        count, s = carry
        return (count < PRODUCTS) & ~s.trying & (s.outcome == RUNNING)

    def longer(carry: tuple[Array, Descent]) -> tuple[Array, Descent]:
        count, s = carry
        return count + 1, _lengthen(problem, s, push(s.d)[1])

    # A step that was halved is tried next, and needs no product: `push` is that of h + p, not of h.
    return lax.while_loop(going, longer, (jnp.zeros((), jnp.int32), s))[1]


def _lengthen(problem: Problem, s: Descent, hd: Array) -> Descent:
    """Add the direction d to p, given H d."""
    s = s._replace(iterations=s.iterations + 1)
    curvature, dd, pd = s.d @ hd, s.d @ s.d, s.p @ s.d
    norm_g = jnp.linalg.norm(s.g)
    # |p + to_radius d| = radius
    room = jnp.maximum(s.radius**2 - s.p @ s.p, 0)
    to_radius = (jnp.sqrt(pd**2 + dd * room) - pd) / dd
    eps = jnp.finfo(s.h.dtype).eps
    stationary = s.rz == 0
    outside = ~stationary & ((curvature <= eps * dd) | (s.rz >= to_radius * curvature))
    a = jnp.where(stationary, 0, jnp.where(outside, to_radius, s.rz / curvature))
    p, r = s.p + a * s.d, s.r - a * hd
    # In conjugate gradients d.r = r.M r = rz, so that this is what the model gains along d.
    decrease = s.decrease + a * s.rz - a * a * curvature / 2
    inside = s.inside & ~outside

    short = jnp.linalg.norm(p) <= POINT_TOL * problem.spread
    forcing = jnp.minimum(FORCING[0], (norm_g / problem.spread) ** FORCING[1])
    # A gain below the rounding of q, mostly in float32, ends the search as a short step does. q = |f|^2 / 2 carries
    # |f| times the rounding of f, which is that of h.
    rounding = eps * jnp.linalg.norm(s.h) * jnp.sqrt(2 * s.q)
    invisible = decrease <= jnp.maximum(8 * eps * s.q, jnp.minimum(rounding, TIGHT * s.q))
    forcing = jnp.where(short | invisible, jnp.minimum(forcing, TIGHT), forcing)
    solved = jnp.linalg.norm(r) <= forcing * norm_g
    products = s.products + 1
    # Without rounding, n products solve n equations; twice as many, and some, allow for it.
    exhausted = products >= 2 * s.h.shape[0] + 8
    # The model is convex, and its minimum is a short step away with almost no gain: h is a minimum of q.
    minimum = solved & inside & ((short & (decrease <= TIGHT * s.q)) | invisible)
    falls = stationary & (s.products == 0) & (curvature <= 0)
    outcome = jnp.where(minimum, jnp.where(falls, LIMIT, SLOW), RUNNING)
    outcome = jnp.where(s.iterations >= problem.max_iterations, LIMIT, outcome)
    z = _precondition(s, problem.inverse, r)
    return s._replace(
        p=p,
        r=r,
        rz=r @ z,
        d=z + jnp.where(stationary, 0, (r @ z) / s.rz) * s.d,  # conjugate to d by H
        stiffness=jnp.where(stationary, s.stiffness, jnp.maximum(s.stiffness, curvature / dd)),
        decrease=decrease,
        trying=outside | solved | exhausted,
        inside=inside,
        products=products,
        outcome=outcome.astype(jnp.int32),
    )


def _try_step(problem: Problem, s: Descent, at: Array, q: Array, g: Array) -> Descent:
    """Go to `at`, h + p, if q there agrees with the model, otherwise halve p. g: the gradient of q there."""
    gain = (s.q - q) / s.decrease
    length = jnp.linalg.norm(s.p)
    # 1/4, 3/4 and twice are the usual numbers (Nocedal & Wright 2006, algorithm 4.1).
    wider = jnp.where((gain > 0.75) & ~s.inside, 2 * s.radius, s.radius)
    radius = jnp.where(gain < 0.25, length / 2, jnp.minimum(wider, problem.longest))
    accepted = gain > 1e-4
    valley = (s.flatness > 0) & (s.inside | (s.radius < problem.longest))
    boost = jnp.where(valley, jnp.maximum(s.stiffness / s.flatness - 1, 0), 0)
    near = s.inside & (length <= NEAR * problem.spread)
    moved = _begin(
        s._replace(h=at, q=q, g=g, radius=radius, boost=boost, near=near), problem.inverse
    )
    moved = moved._replace(outcome=verdict(at, q, s.iterations, problem))

    # decrease = -(g.p + p.Hp / 2) gives p.Hp, and so the decrease of p / 2, without a product.
    gp = s.g @ s.p
    php = -2 * (s.decrease + gp)
    # A step below the rounding of h changes nothing.
    stuck = length <= 4 * jnp.finfo(s.h.dtype).eps * jnp.linalg.norm(s.h)
    outcome = jnp.where(stuck | (s.iterations >= problem.max_iterations), LIMIT, RUNNING)
    halved = s._replace(
        p=s.p / 2,
        decrease=-(gp / 2 + php / 8),
        radius=length / 2,
        inside=jnp.zeros((), bool),  # it was cut, as by the radius
        outcome=jnp.where(jnp.isfinite(s.decrease), outcome, DIVERGED).astype(jnp.int32),
    )
    return jax.tree.map(lambda a, b: jnp.where(accepted, a, b), moved, halved)


# --- Adam -----------------------------------------------------------------------------------------


class Adam(NamedTuple):
    """An Adam search between two ticks."""

    start: Array
    h: Array
    q: Array
    g: Array
    """Gradient of q at h."""
    moments: PyTree
    iterations: Array
    outcome: Array


def _moments(problem: Problem) -> optax.GradientTransformation:
    return optax.scale_by_adam(b1=0.9, b2=0.999, eps=problem.eps)


def adam_begin(problems: Problems, h: Array) -> Adam:
    problem = problems.fine
    q, g = jax.value_and_grad(speed(problem.step))(h)
    zero = jnp.zeros((), jnp.int32)
    return Adam(h, h, q, g, _moments(problem).init(h), zero, verdict(h, q, zero, problem))


def adam_advance(problems: Problems, s: Adam) -> Adam:
    """A block of steps."""
    return run_block(
        partial(_adam_tick, problems.fine), ADAM_BLOCK, lambda s: s.outcome == RUNNING, s
    )


def _adam_tick(problem: Problem, s: Adam) -> Adam:
    """One step of Adam (Kingma & Ba 2015) on 2 q / n, the mean square over units: eps = 1e-5 was chosen for that scale."""
    direction, moments = _moments(problem).update(s.g * (2 / s.h.shape[0]), s.moments)
    rate = problem.rate * problem.decay ** s.iterations.astype(s.h.dtype)
    h = s.h - rate * direction
    q, g = jax.value_and_grad(speed(problem.step))(h)
    iterations = s.iterations + 1
    return Adam(s.start, h, q, g, moments, iterations, verdict(h, q, iterations, problem))
