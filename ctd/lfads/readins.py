"""Read-ins and readouts: the layers of a model that belong to the units of one session.

    readin   w (session, factor, unit), b (session, factor)                     the encoder sees w x + b
    readout  w (session, moment, unit, factor), b (session, moment, unit)       the likelihood's moments are w f + b
    decoders w (session, channel, factor), b (session, channel)                 behaviour is w f + b, once trained

Units and channels are padded to the most that a session has. The rest of `ctd.lfads` knows models of one session, which have
`output` instead of `readout`: `of_session` makes one, `of_trials` one for every trial of a minibatch.
"""

from __future__ import annotations

import numpy as np

from ctd.kernel import Values, View
from ctd.late import Array, Float, Int, jax, jnp
from ctd.lfads.data import Dataset
from ctd.lfads.params import Model
from ctd.lfads.weights import Tree, init_weights


def init_stitched(
    static: View[Model], traced: Values[Model], key: jax.Array, dataset: Dataset
) -> Tree:
    """Draw the weights of a model of sessions: N(0, 1 / fan-in); read-ins and readouts from `alignment`, where the sessions allow it."""
    assert dataset.stitched is not None
    _, real, is_seen, alignment = dataset.stitched
    dtype, n_factors, n_external = static.dtype, static.n_factors, dataset.train.n_external
    weights = init_weights(static, traced, key, n_factors, n_external, jnp.zeros(0, dtype))
    # The readout takes its place; it was drawn for no units.
    del weights["output"]
    n_sessions, n_units = real.shape
    bias = jnp.asarray(dataset.bias, dtype)
    shape = (*bias.shape, n_factors)
    if alignment is None:
        key_in, key_out = jax.random.split(jax.random.fold_in(key, 1))
        # Fan-in counts the units that the encoder sees, not padding.
        n_seen = jnp.asarray(is_seen).sum(1).astype(dtype)[:, None, None]
        read_in = jax.random.normal(key_in, (n_sessions, n_factors, n_units), dtype) * n_seen**-0.5
        read_in_bias = jnp.zeros((n_sessions, n_factors), dtype)
        readout = jax.random.normal(key_out, shape, dtype) * n_factors**-0.5
    else:
        read_in, read_in_bias, first = (jnp.asarray(a, dtype) for a in alignment)
        # Further moments, such as log variances, start from their bias alone.
        readout = jnp.zeros(shape, dtype).at[:, 0].set(first)
    weights["readin"] = {"w": read_in, "b": read_in_bias}
    weights["readout"] = {"w": readout, "b": bias}
    return weights


def with_core(dataset: Dataset, weights: Tree) -> Tree:
    """The weights with those of the core in their places: constants, so that their gradient is 0."""
    if dataset.core is None:
        return weights
    return {**weights, **jax.tree.map(jnp.asarray, dataset.core)}


def of_trials(dataset: Dataset, weights: Tree, session: Int[Array, "trial"] | None) -> Tree:
    """The weights with a read-in and an output for every trial, (trial, ...); unchanged for a model of one session."""
    if dataset.stitched is None:
        return weights
    is_seen = jnp.asarray(dataset.stitched.is_seen)[:, None]
    read_in, readout = weights["readin"], weights["readout"]
    # Units that the encoder must not see get weights of 0: arrays hold all units of a session.
    mine = lambda a: a[session]
    w, b = mine(readout["w"]), mine(readout["b"])
    trial_weights = {
        "readin": {"w": mine(jnp.where(is_seen, read_in["w"], 0)), "b": mine(read_in["b"])},
        "output": {"w": w.reshape(len(w), -1, w.shape[-1]), "b": b.reshape(len(b), -1)},
    }
    return {part: v for part, v in weights.items() if part != "readout"} | trial_weights


def of_session(weights: Tree, number: int, n_units: int, seen_units: np.ndarray) -> Tree:
    """The model of session `number`, without padding. seen_units: indices of the units that the encoder sees."""
    read_in, readout = weights["readin"], weights["readout"]
    w, b = readout["w"][number][:, :n_units], readout["b"][number][:, :n_units]
    session_weights = {
        "readin": {"w": read_in["w"][number][:, seen_units], "b": read_in["b"][number]},
        "output": {"w": w.reshape(-1, w.shape[-1]), "b": b.reshape(-1)},
    }
    # Parts of all sessions; a model of one has no use for them.
    of_all = ("readout", "sessions", "decoders")
    return {part: v for part, v in weights.items() if part not in of_all} | session_weights


def real_entries(
    dataset: Dataset,
    session: Int[Array, "trial"] | None,
    seen_weights: Float[Array, "time trial unit"] | None = None,
) -> Float[Array, "time_or_1 trial unit"] | None:
    """Weights of the data's entries in the nll: 0 for padded units; None where all entries count alike.

    seen_weights: the weights of a training pass; they hold for the units that the encoder sees, others have 1.
    """
    if dataset.stitched is None:
        return seen_weights
    by_trial = lambda mask: jnp.asarray(mask)[session]
    # One row serves all steps: it broadcasts over time.
    real = by_trial(dataset.stitched.real)[None]
    if seen_weights is None:
        return real.astype(dataset.bias.dtype)
    return jnp.where(by_trial(dataset.stitched.is_seen), seen_weights, 1) * real


def padding(dataset: Dataset, session: Int[Array, "trial"] | None) -> Float[Array, "trial"] | int:
    """Units of the padded arrays / units of the trial's session; 1 for a model of one session."""
    if dataset.stitched is None:
        return 1
    real = jnp.asarray(dataset.stitched.real)
    return (real.shape[-1] / real.sum(-1).astype(dataset.bias.dtype))[session]
