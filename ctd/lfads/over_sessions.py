"""The results of several sessions as those of one model."""

from __future__ import annotations

import numpy as np

from ctd.late import jax, jnp
from ctd.lfads.names import DIMS


def of_all_sessions(found: list[dict[str, jax.Array]]) -> dict[str, jax.Array]:
    """What is stored of several sessions: the mean of each metric that all have, and the trials of one after another.

    Units that a session has not are NaN; trial_session says which session a trial is of.
    """
    values: dict[str, jax.Array] = {}
    for name in set.intersection(*(set(one) for one in found)):
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


def _padded(parts: list[jax.Array]) -> list[jax.Array]:
    widest = max(part.shape[-1] for part in parts)
    width = lambda part: ((0, 0), (0, 0), (0, widest - part.shape[-1]))
    return [jnp.pad(part, width(part), constant_values=jnp.nan) for part in parts]
