"""The loss of LFADS: the negative evidence lower bound of a trial, in nats, mean over a minibatch.

    loss = nll + k (kl_ic KL_ic + kl_input KL_inputs) + l (l2_generator |W_g|^2 + l2_controller |W_c|^2)

nll is -log p(data | rates) summed over bins and units, log x! included. k and l are ramps of the training
step. |W|^2 sums over the recurrent weights alone, of a neural ODE those of its field without the inputs'. With
`penalties: entry`, as in lfads-torch, nll is a mean over bins and units, those of the trial's own session, and the L2
term is half the mean square: (l2_generator |W_g|^2 + l2_controller |W_c|^2) / 2 n, with n the number of these weights
whose scale is not 0. What is minimised is this times bins and units, of the largest session, in nats a trial.

Coordinated dropout (Keshtkaran & Pandarinath 2019, arXiv 1908.07896) hides a share of the encoder's data.
Of these data the loss then counts only the hidden entries, so that a model cannot copy single spikes. Hidden
entries have the weight 1 / share: the expected nll stays that of all data, and the KL keeps its scale.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ctd.late import jax, jnp, lax
from ctd.lfads.adapters import of_trials, padding, real_entries, with_core
from ctd.lfads.data import Dataset, Trials
from ctd.lfads.distributions import (
    ar1_kl,
    data_log_likelihood,
    gaussian_kl,
)
from ctd.lfads.model import Decoded, Encoded, Noise, Tree, cut, decode, encode, entries

TERMS = ("nll", "kl_ic", "kl_input")
"""The parts of the negative ELBO, in nats for each trial."""


class Batch(NamedTuple):
    """Trials of one forward pass, time first."""

    data: jax.Array
    """(time, trial, unit)"""
    seen: jax.Array
    """(encoded time, trial, encoded unit) what the encoder may see of the data."""
    external: jax.Array
    """(time, trial, external input)"""
    log_factorial: jax.Array | None
    """(time, trial, unit) log x! of counts; None if the data are none."""
    session: jax.Array | None = None
    """(trial,) int32; None if there is one session alone."""


def gather(static: Any, dataset: Dataset, trials: Trials, index: jax.Array) -> Batch:
    """The batch of the trials with these indices."""
    rows = trials.data[index].swapaxes(0, 1)
    data = rows.astype(static.dtype)
    if trials.encoded is not None:
        seen = trials.encoded[index].swapaxes(0, 1).astype(static.dtype)
    else:
        seen = data[: len(dataset.seen_bins)]
        if len(dataset.seen_units) < data.shape[-1]:
            seen = seen[..., dataset.seen_units]
    if trials.external is None:
        external = jnp.zeros((*data.shape[:2], 0), static.dtype)
    else:
        external = trials.external[index].swapaxes(0, 1).astype(static.dtype)
    # Look log x! up: log gamma of every entry would take as long as the likelihood.
    table = dataset.log_factorial
    logs = None if table is None else table[rows.astype(jnp.int32)]
    session = None if trials.session is None else jnp.asarray(trials.session)[index]
    return Batch(data, seen, external, logs, session)


# --- noise ----------------------------------------------------------------------------------------


def draw_noise(static: Any, key: jax.Array, batch: Batch) -> Noise:
    """The noise of a forward pass without dropout."""
    n_steps, n_trials = batch.data.shape[:2]
    n_inferred = static.n_inputs if static.controller else 0
    shapes = (n_trials, static.generator), (n_steps, n_trials, n_inferred)
    return Noise(*cut(jax.random.normal(key, (entries(shapes),), static.dtype), shapes))


def draw_dropout(
    static: Any, traced: Any, key: jax.Array, batch: Batch, noise: Noise
) -> tuple[Noise, jax.Array]:
    """(noise with the dropout masks of a training pass, weights of the seen entries in the nll)."""
    n_steps, n_trials = batch.data.shape[:2]
    width, n_seen = 2 * static.encoder, len(batch.seen)
    encoded_steps = n_seen if static.controller else 0
    # One draw for all, since each draw adds to compile time.
    shapes = (
        batch.seen.shape,
        (n_trials, width),
        (n_steps, n_trials, static.generator),
        (encoded_steps, n_trials, width),
    )
    drawn, *others = cut(_uniform(key, entries(shapes), static.dtype), shapes)
    hidden, rate = traced.coordinated_dropout, traced.dropout
    ends, states, encoded = (jnp.where(u >= rate, 1 / (1 - rate), 0) for u in others)
    # One number decides both: below `hidden` an entry is hidden; of the others, the share `rate` is dropped.
    keep = (1 - hidden) * (1 - rate)
    data = jnp.where(drawn >= 1 - keep, 1 / keep, 0)
    shown_weight = jnp.where(hidden > 0, 0, 1).astype(static.dtype)
    hidden_weight = 1 / jnp.where(hidden > 0, hidden, 1)
    weights = jnp.where(drawn < hidden, hidden_weight, shown_weight)
    masks = {"data": data, "ends": ends, "states": states}
    return noise._replace(**masks, encoded=encoded if static.controller else None), weights


def _uniform(key: jax.Array, n: int, dtype: Any) -> jax.Array:
    """n numbers (byte + fraction) / 256 in [0, 1]: a random byte each, and one random fraction for all.

    So each number is uniform, and takes a quarter of the random bits of a full one. The common fraction
    moves the share of numbers below a rate by at most 1/256 between draws. The bytes are the words of split
    keys: these are all that the generator makes, while `jax.random.bits` keeps half of them.
    """
    key_bits, key_fraction = jax.random.split(key)
    words = jax.random.key_data(key_bits).size
    made = jax.random.key_data(jax.random.split(key_bits, -(-n // (4 * words))))
    bits = lax.bitcast_convert_type(made, jnp.uint8).ravel()[:n].astype(dtype)
    return (bits + jax.random.uniform(key_fraction, (), dtype)) / 256


def spread_weights(dataset: Dataset, weights: jax.Array, n_steps: int, n_units: int) -> jax.Array:
    """Extend nll weights of the entries that the encoder sees to all entries; the others get the weight 1."""
    n_bins, _, n_seen = weights.shape
    if n_seen < n_units:
        # A padded column of ones, number n_seen, serves all units that are not seen.
        source = jnp.full(n_units, n_seen).at[dataset.seen_units].set(jnp.arange(n_seen))
        weights = jnp.pad(weights, ((0, 0), (0, 0), (0, 1)), constant_values=1)[..., source]
    return jnp.pad(weights, ((0, n_steps - n_bins), (0, 0), (0, 0)), constant_values=1)


# --- terms ----------------------------------------------------------------------------------------


def divergences(
    static: Any, weights: Tree, encoded: Encoded, decoded: Decoded
) -> tuple[jax.Array, jax.Array]:
    """((trial,) KL of the initial condition, (trial,) KL of the inferred inputs, summed over steps)."""
    prior = weights["ic_prior"]
    ic = gaussian_kl(
        encoded.ic_mean, encoded.ic_variance, prior["mean"], jnp.exp(prior["log_variance"])
    )
    if not static.controller:
        return ic.sum(-1), jnp.zeros(ic.shape[0], ic.dtype)
    prior = weights["input_prior"]
    moments = decoded.input_mean, decoded.input_variance, prior["mean"]
    variance = jnp.exp(prior["log_variance"])
    if static.input_prior == "ar1":
        inputs = ar1_kl(*moments, variance, jnp.exp(prior["log_tau"]))
    else:
        inputs = gaussian_kl(*moments, variance)
    return ic.sum(-1), inputs.sum((0, -1))


def bound(
    static: Any,
    weights: Tree,
    floor: Any,
    batch: Batch,
    noise: Noise,
    entry_weights: jax.Array | None = None,
) -> dict[str, jax.Array]:
    """Name -> (trial,): each term of the negative ELBO, estimated from one draw of the posterior."""
    encoded = encode(static, weights, batch.seen, len(batch.data), floor, noise)
    decoded = decode(static, weights, encoded, batch.external, floor, noise)
    likelihood = data_log_likelihood(
        static.likelihood, batch.data, decoded.output, batch.log_factorial, floor
    )
    if entry_weights is not None:
        likelihood = likelihood * entry_weights
    kl_ic, kl_input = divergences(static, weights, encoded, decoded)
    return {"nll": -likelihood.sum((0, 2)), "kl_ic": kl_ic, "kl_input": kl_input}


def ramp(step: jax.Array, start: Any, length: jax.Array, dtype: Any) -> jax.Array:
    """`start` at step 0, rising linearly to 1 at step `length`; 1 throughout if length is 0."""
    share = jnp.minimum(step.astype(dtype) / jnp.maximum(length, 1).astype(dtype), 1)
    return jnp.where(length > 0, start + (1 - start) * share, 1)


def _recurrent(cell: Tree) -> list[jax.Array]:
    """The weights of a cell that act on its state."""
    if "wV" in cell:
        return [cell["wFHX"][:, : len(cell["wV"])], cell["wV"]]
    return [cell[name][:, : len(cell["wCHX"])] for name in ("wRUHX", "wCHX")]


def penalty(static: Any, traced: Any, weights: Tree) -> jax.Array:
    """The L2 penalty on recurrent weights (the columns for the state), before its ramp."""
    square = lambda cell: sum(jnp.sum(w**2) for w in _recurrent(cell))
    total = traced.l2_generator * square(weights["generator"])
    if static.controller:
        total += traced.l2_controller * square(weights["controller"])
    if static.penalties == "trial":
        return total
    size = lambda cell: sum(w.size for w in _recurrent(cell))
    n = jnp.where(traced.l2_generator > 0, size(weights["generator"]), 0)
    if static.controller:
        n += jnp.where(traced.l2_controller > 0, size(weights["controller"]), 0)
    return 0.5 * total / jnp.maximum(n, 1)


class Minibatch(NamedTuple):
    """What one training step sees."""

    trials: Batch
    key: jax.Array
    """Key of the step's noise and dropout."""


def training_loss(
    static: Any,
    traced: Any,
    dataset: Dataset,
    weights: Tree,
    minibatch: Minibatch,
    step: jax.Array,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """(loss, its terms before KL scales and ramps) of one minibatch at this training step."""
    batch = minibatch.trials
    key_noise, key_dropout = jax.random.split(minibatch.key)
    noise = draw_noise(static, key_noise, batch)
    noise, seen_weights = draw_dropout(static, traced, key_dropout, batch, noise)
    n_steps, _, n_units = batch.data.shape
    spread = spread_weights(dataset, seen_weights, n_steps, n_units)
    entry_weights = real_entries(dataset, batch.session, spread)
    weights = with_core(dataset, weights)
    own = of_trials(dataset, weights, batch.session)
    parts = bound(static, own, traced.variance_floor, batch, noise, entry_weights)
    terms = {name: value.mean() for name, value in parts.items()}
    terms["l2"] = penalty(static, traced, weights)
    nll = terms["nll"]
    kl = traced.kl_ic * terms["kl_ic"] + traced.kl_input * terms["kl_input"]
    k = ramp(step, traced.kl_start, traced.kl_ramp, static.dtype)
    l = ramp(step, 0.0, traced.l2_ramp, static.dtype)
    if static.penalties == "entry":
        k, l = k * (n_steps * n_units), l * (n_steps * n_units)
        nll = (parts["nll"] * padding(dataset, batch.session)).mean()
    return nll + k * kl + l * terms["l2"], terms


def chunks(n: int, size: int) -> tuple[jax.Array, jax.Array]:
    """((chunk, row) trial indices 0 ... n-1 in chunks of equal size, (chunk, row) False for padding)."""
    size = min(size, n)
    number = jnp.arange(-(-n // size) * size).reshape(-1, size)
    return jnp.minimum(number, n - 1), number < n


def evaluate(
    static: Any, traced: Any, dataset: Dataset, weights: Tree, key: jax.Array
) -> dict[str, jax.Array]:
    """Terms of the negative ELBO, each KL with weight 1, averaged over all evaluation trials, one draw each."""
    trials = dataset.evaluation
    n = len(trials.data)
    index, real = chunks(n, static.batch_size)

    def part(now: tuple[jax.Array, ...]) -> dict[str, jax.Array]:
        number, rows, counted = now
        batch = gather(static, dataset, trials, rows)
        noise = draw_noise(static, jax.random.fold_in(key, number), batch)
        own = of_trials(dataset, weights, batch.session)
        real = real_entries(dataset, batch.session)
        terms = bound(static, own, traced.variance_floor, batch, noise, real)
        return {name: jnp.sum(jnp.where(counted, value, 0)) for name, value in terms.items()}

    sums = lax.map(part, (jnp.arange(len(index)), index, real))
    terms = {name: value.sum() / n for name, value in sums.items()}
    return terms | {"loss": terms["nll"] + terms["kl_ic"] + terms["kl_input"]}
