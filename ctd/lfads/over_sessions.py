"""The results of several sessions as those of one model."""

from __future__ import annotations

import numpy as np

from ctd.late import jax, jnp
from ctd.lfads.names import DIMS


def of_all_sessions(found: list[dict[str, jax.Array]]) -> dict[str, jax.Array]:
    """What is stored of several sessions: the mean of each metric that all have, and the trials of one after another.

    Units that a session has not are NaN; trial_session says which session a trial is of.
    """
    values = _decoders(found)
    for name in set.intersection(*(set(one) for one in found)) - set(DECODER):
        parts, axes = [one[name] for one in found], DIMS[name].axes
        if axes[:1] in (("trial",), ("train_trial",)):
            values[name] = jnp.concatenate(_padded(parts) if "unit" in axes else parts)
        else:
            values[name] = jnp.stack(parts).mean(0)
    for prefix in ("", "train_"):
        if f"{prefix}rates" in values:
            n = [len(one[f"{prefix}rates"]) for one in found]
            values[f"{prefix}trial_session"] = jnp.repeat(
                jnp.arange(len(found), dtype=jnp.int32), np.array(n), total_repeat_length=sum(n)
            )
    return values


DECODER = ("model.decoder.w", "model.decoder.b")


def _decoders(found: list[dict[str, jax.Array]]) -> dict[str, jax.Array]:
    """The sessions' decoders of behaviour, padded with 0 to the most channels that a session has; none if no session has any."""
    n_channels = [len(one[DECODER[1]]) if DECODER[1] in one else 0 for one in found]
    if not any(n_channels):
        return {}
    like = next(one for one in found if DECODER[1] in one)
    values: dict[str, jax.Array] = {}
    for name in DECODER:
        shape = (len(found), max(n_channels), *like[name].shape[1:])
        whole = jnp.zeros(shape, like[name].dtype)
        for k, n in enumerate(n_channels):
            whole = whole.at[k, :n].set(found[k][name]) if n else whole
        values[name.replace("decoder", "decoders")] = whole
    return values | {"model.sessions.n_channels": jnp.asarray(n_channels, jnp.int32)}


def _padded(parts: list[jax.Array]) -> list[jax.Array]:
    widest = max(part.shape[-1] for part in parts)
    width = lambda part: ((0, 0), (0, 0), (0, widest - part.shape[-1]))
    return [jnp.pad(part, width(part), constant_values=jnp.nan) for part in parts]
