"""The kernel `fixed_points`: searches behind the kernel contract."""

from __future__ import annotations

from collections.abc import Callable

from ctd.cells import Cell
from ctd.fixed_points.network import Map, Network, cell_of, constant_input, map_of, step_of
from ctd.fixed_points.search import approach, exact, methods
from ctd.fixed_points.search.methods import Problem, Problems
from ctd.fixed_points.search.params import FixedPoint, Options
from ctd.fixed_points.search.plots import plots
from ctd.fixed_points.search.starts import draw_start, load
from ctd.fixed_points.search.summary import REDUCED, SUMMARY, reduce
from ctd.kernel import Batching, Display, Kernel, Outcome, Tables, Values, Var, View
from ctd.late import Array, jax, jnp
from ctd.words import count

# In the order of methods.FIXED to methods.DIVERGED, whose numbers are these codes.
OUTCOMES = (
    Outcome("fixed", "q fell below q_tol, or below rounding"),
    Outcome("slow", "a local minimum of q: the Newton step is negligible, the curvature positive"),
    Outcome("limit", "max_iterations reached (raise it if `iterations` is that high), or no step lowered q further; there may be a point or not"),
    Outcome("diverged", "q is not finite, or a unit went beyond `stray` times the candidates' largest |h_i|; such a search tells nothing about points", failed=True),
)  # fmt: skip

DIMS = {
    "point": Var(("state",), "1", "where the search ended"),
    "q": Var((), "1", "q = |F(h) - h|^2 / 2 there; of a flow |dh/dt|^2 / 2"),
    "residual": Var((), "1", "|F(h) - h| there; of a flow |dh/dt|"),
    "gradient_norm": Var((), "1", "norm of the gradient of q there"),
    "distance": Var((), "1", "distance of the end from the start"),
    "iterations": Var((), "1", "gradients and Hessian products computed"),
    "outcome": Var((), "1", "how the search ended"),
    "anywhere_start": Var((), "1", "1 if the search began in the region, else 0; only if `region` is given"),
    "constant_input": Var(("input",), "1", "the constant input x"),
}  # fmt: skip

type Search = approach.Search | methods.Adam | exact.Solved
"""The state of a search, by its method."""

METHODS: dict[str, tuple[Callable[..., Search], Callable[..., Search]]] = {
    "lm": (approach.begin, approach.advance),
    "adam": (methods.adam_begin, methods.adam_advance),
    "exact": (exact.begin, exact.advance),
}
"""`method` of a job -> (problems, start (state,)) -> a search; (problems, search) -> it after a block of ticks. `lm` alone
uses `Network.inverse`."""


def init(
    static: View[FixedPoint], shared: Network, traced: Values[FixedPoint], key: Array
) -> Search:
    """The search of a candidate at its start."""
    start, _ = draw_start(static, shared, traced, key)
    begin, _ = METHODS[static.method]
    return begin(_problems(static, shared, traced), start)


def advance(
    static: View[FixedPoint], shared: Network, traced: Values[FixedPoint], key: Array, state: Search
) -> Search:
    """A block of ticks."""
    del key
    _, go_on = METHODS[static.method]
    return go_on(_problems(static, shared, traced), state)


def result(
    static: View[FixedPoint], shared: Network, traced: Values[FixedPoint], key: Array, state: Search
) -> dict[str, Array]:
    """The state of the search: the point, its q and residual, and how it ended."""
    at = _minimiser(state)
    values = {
        "point": at.h,
        "q": at.q,
        "residual": jnp.sqrt(2 * at.q),
        "gradient_norm": jnp.linalg.norm(at.g),
        "distance": jnp.linalg.norm(at.h - at.start),
        "iterations": at.iterations,
        "outcome": at.outcome,
        "constant_input": constant_input(shared, traced),
    }
    if static.region != "none":  # other stores do not have this result
        _, anywhere = draw_start(static, shared, traced, key)  # drawn again from the same key
        values["anywhere_start"] = anywhere.astype(jnp.int32)
    return values


def _minimiser(state: Search) -> methods.Descent | methods.Adam | exact.Solved:
    """The part of a search's state that holds its present point."""
    return state.descent if isinstance(state, approach.Search) else state


def _problems(static: View[FixedPoint], shared: Network, traced: Values[FixedPoint]) -> Problems:
    cell = isinstance(cell_of(shared), Cell)
    if not cell and not len(traced.x):
        _check_without_input(map_of(shared), shared)
    coarse = _problem(static, shared, traced, "float32" if cell else static.dtype)
    return Problems(coarse, _problem(static, shared, traced, static.dtype))


def _problem(
    static: View[FixedPoint], shared: Network, traced: Values[FixedPoint], dtype: str
) -> Problem:
    """The map h -> F(h) of one candidate, and the limits of its search."""
    x, weights = constant_input(shared, traced), shared.weights
    f = step_of(shared, static.time)
    if shared.states.dtype != dtype:
        x, weights = jax.tree.map(lambda w: jnp.asarray(w, dtype), (x, weights))
    spread = jnp.asarray(shared.spread, dtype)
    return Problem(
        lambda h: f(weights, h, x),
        inverse=jnp.asarray(shared.inverse, dtype),
        longest=jnp.asarray(traced.max_step, dtype) * spread,
        q_tol=jnp.asarray(traced.q_tol, dtype),
        max_iterations=traced.max_iterations,
        spread=spread,
        bound=jnp.asarray(traced.stray * shared.largest, dtype),
        rate=traced.learning_rate,
        decay=traced.decay,
        eps=traced.adam_eps,
    )


def _check_without_input(f: Map, shared: Network) -> None:
    """Raise ValueError where a user's F cannot be evaluated without an input, but with one; another fault of F is its own."""
    like = lambda *shape: jax.ShapeDtypeStruct(shape, shared.states.dtype)
    sizes = {size for w in jax.tree.leaves(shared.weights) for size in w.shape}

    def fault(n_in: int) -> str:
        try:
            # eval_shape traces F without running or compiling it.
            jax.eval_shape(f, shared.weights, like(shared.states.shape[-1]), like(n_in))
        except Exception as error:
            return (str(error).strip().splitlines() or [""])[0] or type(error).__name__
        return ""

    if text := fault(0):
        fits = next((n for n in sorted({*range(1, 9), *sizes}) if n and not fault(n)), 0)
        if fits:
            raise ValueError(
                f"x: the map fails without an input ({text}), but not with {count(fits, 'number')}; give `x`"
            )


kernel = Kernel(
    name="fixed_points",
    Params=FixedPoint,
    dims=DIMS,
    load=load,
    init=init,
    advance=advance,
    finished=lambda state: _minimiser(state).outcome != methods.RUNNING,
    result=result,
    outcomes=OUTCOMES,
    tables=Tables(reduce=reduce, of_failed=True, dims=REDUCED, Options=Options),
    display=Display(summary=SUMMARY, plots=plots),
    batching=Batching(
        width=1024,
        # Candidates share weights, so one product serves a microbatch; a wider one leaves the cache.
        microbatches=(64,),
    ),
)
