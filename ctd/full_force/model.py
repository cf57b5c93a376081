"""Two networks of n units: one that generates targets, and one that learns to do without them (DePasquale et al. 2018).

    tau dx_D/dt = -x_D + J_D r_D + w_f f + w_h h + w u       target-generating, driven by wanted outputs f and hints h
    tau dx/dt   = -x + J r + w u,    z = W r                 task-performing, driven by inputs u alone;  r = tanh(x)

RLS changes J so that J r becomes J_D r_D + w_f f + w_h h, and W so that z becomes f. J and W are kept as one matrix [J; W], since
all its rows see the same rates and share one P.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ctd.full_force.params import FullForce, Trials
from ctd.kernel import Values, View
from ctd.late import Array, Bool, Float, jax, jnp, lax
from ctd.rls import GainOf, Symmetric, even, learn

WEIGHTS, STATES, TEST, FIRST = range(4)
"""Numbers that are folded into the key of an item; from FIRST on they count training trials."""


def item_key(traced: Values[FullForce], key: Array, number: int | Array) -> Array:
    """The key for one of these numbers."""
    return jax.random.fold_in(jax.random.fold_in(key, traced.seed), number)


class Fixed(NamedTuple):
    """Weights and numbers that training does not change."""

    rate: Float[Array, ""]
    """Dt / tau."""
    J: Float[Array, "n n"]
    """Recurrent weights of the target-generating network."""
    w: Float[Array, "n input"]
    """Input weights of the task-performing network."""
    w_d: Float[Array, "n input"]
    """Input weights of the target-generating one."""
    w_f: Float[Array, "n output"]
    w_h: Float[Array, "n hint"]


class Now(NamedTuple):
    """Both networks between two steps."""

    x: Float[Array, "n"]
    v: Array
    """(n + outputs,) [J; W] r by the present weights: recurrent input and output."""
    x_d: Float[Array, "n"]
    v_d: Float[Array, "n"]
    """Recurrent input J_D r_D."""


class Trained(NamedTuple):
    """Both networks after a trial."""

    now: Now
    JW: Array
    """(n + outputs, n)"""
    error: Float[Array, ""]
    """Sum over steps and outputs of (z - f)^2, each z before its update."""
    sound: Bool[Array, ""]
    """False if any update was not, see `ctd.rls.Gain`."""


def fixed(static: View[FullForce], shared: Trials, traced: Values[FullForce], key: Array) -> Fixed:
    """Draw the weights that training does not change. Both networks have the same input weights, as in the paper. key: of the item."""
    n = static.n
    keys = jax.random.split(item_key(traced, key, WEIGHTS), 4)
    as_type = lambda value: jnp.asarray(value, static.dtype)
    draw = lambda key, signal: jax.random.uniform(key, (n, signal.shape[2]), static.dtype, -1, 1)
    uniform = lambda key, scale, signal: as_type(scale) * draw(key, signal)
    w = uniform(keys[0], traced.input_scale, shared.inputs)
    return Fixed(
        as_type(jnp.asarray(shared.dt) / traced.tau),
        as_type(traced.g) * jax.random.normal(keys[1], (n, n), static.dtype) / n**0.5,
        w,  # of the target-generating network, too
        w,
        uniform(keys[2], traced.target_scale, shared.targets),
        uniform(keys[3], traced.hint_scale, shared.hints),
    )


def begin(w: Fixed, JW: Array, x: Array, x_d: Array) -> Now:
    """Both networks at given states."""
    return Now(x, JW @ jnp.tanh(x), x_d, w.J @ jnp.tanh(x_d))


def advance_both(
    w: Fixed, JW: Array, now: Now, row: tuple[Array, Array, Array]
) -> tuple[Now, Array]:
    """One Euler step of both networks: (networks, (n + outputs,) the target of [J; W] r). row: (inputs, targets, hints)."""
    u, f, h = row
    driven = w.w_f @ f + w.w_h @ h
    x = now.x + w.rate * (now.v[: len(now.x)] + w.w @ u - now.x)
    x_d = now.x_d + w.rate * (now.v_d + driven + w.w_d @ u - now.x_d)
    new = begin(w, JW, x, x_d)
    # J r at the new rates is to become what drives the other network there: J_D r_D + w_f f + w_h h.
    return new, jnp.concatenate([new.v_d + driven, f])


def settle(w: Fixed, JW: Array, now: Now, trial: tuple[Array, Array, Array]) -> Now:
    """Both networks after a trial in which nothing is learnt."""
    return lax.scan(lambda now, row: (advance_both(w, JW, now, row)[0], None), now, trial)[0]


def training_trial(
    w: Fixed,
    start: Trained,
    P: Symmetric,
    trial: tuple[Array, Array, Array],
    updates: Bool[Array, "time"],
) -> tuple[Trained, Symmetric]:
    """Run one trial, and learn at the steps that `updates` names. trial: (inputs, targets, hints), each (time, ...)."""
    n = len(start.now.x)

    def step(net: Trained, row: tuple[Any, Array], K: Array, gain: GainOf) -> tuple[Trained, Array]:
        # `v` holds the products of before the update, so that `miss` is the a priori error of RLS.
        now, target = advance_both(w, net.JW, net.now, row[0])
        miss, r = now.v - target, jnp.tanh(now.x)

        def updated(JW: Array, v: Array, _: Array) -> tuple[Array, ...]:
            update_gain = gain(r)
            # [J; W] r after the update, without multiplying again.
            v = v - miss * (update_gain.k @ r)
            return JW - jnp.outer(miss, update_gain.k), v, update_gain.K, update_gain.sound

        unchanged = lambda JW, v, K: (JW, v, K, jnp.ones((), bool))
        # Where items run side by side, the cond is a select and both branches are computed.
        JW, v, K, sound = lax.cond(row[1], updated, unchanged, net.JW, now.v, K)
        error = net.error + miss[n:] @ miss[n:]  # outputs alone; the rest are currents
        return Trained(now._replace(v=v), JW, error, net.sound & sound), K

    end, P = learn(step, start, P, (trial, updates), jnp.ones((), start.JW.dtype))
    return end, even(P)


def driven(w: Fixed, JW: Array, now: Now, trial: tuple[Array, Array, Array]) -> Now:
    """Both networks after a trial in which the first one gets the currents that it was to learn, in place of its own."""

    def step(now: Now, row: tuple[Array, Array, Array]) -> tuple[Now, None]:
        new, target = advance_both(w, JW, now, row)
        return new._replace(v=target), None

    end, _ = lax.scan(step, now, trial)
    return end._replace(v=JW @ jnp.tanh(end.x))


def free_trial(
    w: Fixed, JW: Array, x: Array, inputs: Float[Array, "time input"]
) -> tuple[Array, Array]:
    """Run the task-performing network alone: (state, (time, output) outputs)."""
    n = len(x)

    def step(carry: tuple[Array, Array], u: Array) -> tuple[tuple[Array, Array], Array]:
        x, v = carry
        x = x + w.rate * (v[:n] + w.w @ u - x)
        v = JW @ jnp.tanh(x)  # [J; W] r: what drives the next step, then z
        return (x, v), v[n:]

    (x, _), outputs = lax.scan(step, (x, JW @ jnp.tanh(x)), inputs)
    return x, outputs
