"""The posterior mean of rates, factors and inputs: many draws of the same trials, averaged."""

from __future__ import annotations

from typing import Any, NamedTuple

from ctd.late import jax, jnp, lax
from ctd.lfads.data import Dataset, Trials
from ctd.lfads.loss import chunks, draw_noise, gather
from ctd.lfads.model import Tree, decode, encode


class Fitted(NamedTuple):
    """A model with its data."""

    static: Any
    floor: Any
    """Least variance of a posterior."""
    dataset: Dataset
    weights: Tree


def posterior_mean(
    model: Fitted,
    trials: Trials,
    n: int,
    key: jax.Array,
    names: tuple[str, ...] = ("rates", "factors", "inferred_inputs", "states"),
) -> dict[str, jax.Array]:
    """Name -> (trial, time, ...) posterior mean over the first n trials; `initial_conditions` is (trial, state).

    Means are over `n_samples` draws of initial conditions and inputs. For inferred inputs, the posterior mean
    given each draw is averaged; initial conditions are the mean of their posterior.
    """
    static, floor, dataset, weights = model
    index, _ = chunks(n, static.batch_size)

    def chunk(now: tuple[jax.Array, jax.Array]) -> dict[str, jax.Array]:
        number, rows = now
        batch = gather(static, dataset, trials, rows)
        key_chunk = jax.random.fold_in(key, number)
        blank = draw_noise(static, key_chunk, batch)
        encoded = encode(static, weights, batch.seen, len(batch.data), floor, blank)

        def draw(k: jax.Array) -> dict[str, jax.Array]:
            noise = draw_noise(static, jax.random.fold_in(key_chunk, k), batch)
            made = decode(static, weights, encoded, batch.external, floor, noise)
            rates = (
                jnp.exp(made.output)
                if static.likelihood == "poisson"
                else made.output[..., : batch.data.shape[-1]]
            )
            values = {
                "rates": rates,
                "factors": made.factors,
                "inferred_inputs": made.input_mean,
                "states": made.states,
            }
            return {name: values[name] for name in names}

        add = lambda k, total: jax.tree.map(jnp.add, total, draw(k))
        zero = jax.tree.map(lambda v: jnp.zeros(v.shape, v.dtype), jax.eval_shape(draw, 0))
        total = lax.fori_loop(0, static.n_samples, add, zero)
        means = {name: (v / static.n_samples).swapaxes(0, 1) for name, v in total.items()}
        return means | {"initial_conditions": encoded.ic_mean}

    means = lax.map(chunk, (jnp.arange(len(index)), index))
    return {name: v.reshape(index.size, *v.shape[2:])[:n] for name, v in means.items()}
