"""The loss of LFADS: the negative evidence lower bound of a trial, in nats, mean over a minibatch.

    loss = nll + k (kl_ic KL_ic + kl_input KL_inputs) + l (l2_generator |W_g|^2 + l2_controller |W_c|^2)

nll is -log p(data | rates) summed over bins and units, log x! included. k and l are ramps over training steps.
|W|^2 sums over the weights that act on the state; those of inputs are not penalised.

`penalties: entry` is the objective of lfads-torch: nll is a mean over the bins and units of the trial's own session, and
the L2 term is half the mean square, (l2_generator |W_g|^2 + l2_controller |W_c|^2) / 2 n, where n counts the penalised
weights. The objective is this x bins x units of the largest session, so that losses stay in nats a trial.

Coordinated dropout (Keshtkaran & Pandarinath 2019, arXiv 1908.07896) hides a share of the entries that the encoder sees.
The loss counts only hidden entries of these, so that a model cannot copy single spikes. They have the weight 1 / share:
the expected nll stays that of all data, and the KL keeps its scale.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ctd.kernel import Values, View
from ctd.late import Array, Bool, Float, Int, Number, jax, jnp, lax
from ctd.lfads.data import Dataset, Trials
from ctd.lfads.distributions import ar1_kl, data_log_likelihood, gaussian_kl
from ctd.lfads.generator import Decoded
from ctd.lfads.model import Encoded, Fitted, Noise, decode, encode
from ctd.lfads.params import Model
from ctd.lfads.readins import of_trials, padding, real_entries, with_core
from ctd.lfads.weights import Tree, cut, entries

TERMS = ("nll", "kl_ic", "kl_input")
"""The parts of the negative ELBO, in nats for each trial."""


class Batch(NamedTuple):
    """The trials of one forward pass, time first, as floats."""

    data: Float[Array, "time trial unit"]
    seen_data: Float[Array, "encoded_time trial encoded_unit"]
    """The part of the data that the encoder sees."""
    external: Float[Array, "time trial external"]
    log_factorial: Float[Array, "time trial unit"] | None
    """log x! of counts; None for other data."""
    session: Int[Array, "trial"] | None = None
    """The session of each trial; None for a model of one session."""


def gather(
    static: View[Model], dataset: Dataset, trials: Trials, index: Int[Array, "trial"]
) -> Batch:
    """Make a batch of the trials with these indices."""
    rows = trials.data[index].swapaxes(0, 1)
    # Datasets hold counts as integers, mostly uint8, a quarter of float32; only a minibatch is converted.
    data = rows.astype(static.dtype)
    if trials.encoded is not None:
        seen_data = trials.encoded[index].swapaxes(0, 1).astype(static.dtype)
    else:
        # The dataset holds no copy of the encoder's part: it is cut from the data.
        seen_data = data[: len(dataset.seen_bins)]
        if len(dataset.seen_units) < data.shape[-1]:
            seen_data = seen_data[..., dataset.seen_units]
    if trials.external is None:
        # No columns instead of None: the generator then needs no special case.
        external = jnp.zeros((*data.shape[:2], 0), static.dtype)
    else:
        external = trials.external[index].swapaxes(0, 1).astype(static.dtype)
    # A table of log x!: log gamma of every entry would take as long as the whole likelihood.
    table = dataset.log_factorial
    logs = None if table is None else table[rows.astype(jnp.int32)]
    session = None if trials.session is None else jnp.asarray(trials.session)[index]
    return Batch(data, seen_data, external, logs, session)


# --- noise ----------------------------------------------------------------------------------------


def draw_noise(static: View[Model], key: jax.Array, batch: Batch) -> Noise:
    """Draw the noise of a forward pass without dropout."""
    n_steps, n_trials = batch.data.shape[:2]
    n_inferred = static.n_inputs if static.controller else 0
    shapes = (n_trials, static.generator), (n_steps, n_trials, n_inferred)
    return Noise(*cut(jax.random.normal(key, (entries(shapes),), static.dtype), shapes))


def draw_dropout(
    static: View[Model], traced: Values[Model], key: jax.Array, batch: Batch, noise: Noise
) -> tuple[Noise, Float[Array, "encoded_time trial encoded_unit"]]:
    """Draw the dropout masks of a training pass: (the noise with them, weights of the seen entries in the nll)."""
    n_steps, n_trials = batch.data.shape[:2]
    width, n_seen = 2 * static.encoder, len(batch.seen_data)
    # The encoder's states of single steps are used by the controller alone.
    encoded_steps = n_seen if static.controller else 0
    # One draw for all masks: each draw adds to compile time.
    shapes = (
        batch.seen_data.shape,
        (n_trials, width),
        (n_steps, n_trials, static.generator),
        (encoded_steps, n_trials, width),
    )
    uniforms, *others = cut(_uniform(key, entries(shapes), static.dtype), shapes)
    # Rates are traced, for searches change them: no branch may depend on one, so 0 is handled by jnp.where.
    hidden, rate = traced.coordinated_dropout, traced.dropout
    ends, states, encoded = (jnp.where(u >= rate, 1 / (1 - rate), 0) for u in others)
    # One number decides both: below `hidden` an entry is hidden; of the others, the share `rate` is dropped.
    keep = (1 - hidden) * (1 - rate)
    data = jnp.where(uniforms >= 1 - keep, 1 / keep, 0)
    # Without coordinated dropout (hidden = 0) all entries count once.
    shown_weight = jnp.where(hidden > 0, 0, 1).astype(static.dtype)
    hidden_weight = 1 / jnp.where(hidden > 0, hidden, 1)
    weights = jnp.where(uniforms < hidden, hidden_weight, shown_weight)
    masks = {"data": data, "ends": ends, "states": states}
    return noise._replace(**masks, encoded=encoded if static.controller else None), weights


def _uniform(key: jax.Array, n: int, dtype: jax.typing.DTypeLike) -> Float[Array, "n"]:
    """Draw n numbers (byte + fraction) / 256 in [0, 1]: each has a random byte, all share one random fraction.

    Each number is uniform and takes a quarter of the random bits of a full one. The common fraction moves the
    share of numbers below a rate by at most 1/256 between draws. The bytes are the words of split keys, since
    splitting uses all words that the generator makes, where `jax.random.bits` drops half of them.
    """
    key_bits, key_fraction = jax.random.split(key)
    words = jax.random.key_data(key_bits).size
    key_words = jax.random.key_data(jax.random.split(key_bits, -(-n // (4 * words))))
    bits = lax.bitcast_convert_type(key_words, jnp.uint8).ravel()[:n].astype(dtype)
    return (bits + jax.random.uniform(key_fraction, (), dtype)) / 256


def spread_weights(
    dataset: Dataset,
    weights: Float[Array, "encoded_time trial encoded_unit"],
    n_steps: int,
    n_units: int,
) -> Float[Array, "time trial unit"]:
    """Extend nll weights of the entries that the encoder sees to all entries; the others get the weight 1."""
    n_bins, _, n_seen = weights.shape
    if n_seen < n_units:
        # Units that the encoder does not see all read one padded column of ones, number n_seen.
        source = jnp.full(n_units, n_seen).at[dataset.seen_units].set(jnp.arange(n_seen))
        weights = jnp.pad(weights, ((0, 0), (0, 0), (0, 1)), constant_values=1)[..., source]
    return jnp.pad(weights, ((0, n_steps - n_bins), (0, 0), (0, 0)), constant_values=1)


# --- terms ----------------------------------------------------------------------------------------


def divergences(
    model: Fitted, encoded: Encoded, decoded: Decoded
) -> tuple[Float[Array, "trial"], Float[Array, "trial"]]:
    """The KL of the initial condition, and that of the inferred inputs, summed over steps and dimensions."""
    # Priors are trained, too: mean and variance are the model's own.
    prior = model.weights["ic_prior"]
    ic = gaussian_kl(
        encoded.ic_mean, encoded.ic_variance, prior["mean"], jnp.exp(prior["log_variance"])
    )
    if not model.static.controller:
        return ic.sum(-1), jnp.zeros(ic.shape[0], ic.dtype)
    prior = model.weights["input_prior"]
    moments = decoded.input_mean, decoded.input_variance, prior["mean"]
    variance = jnp.exp(prior["log_variance"])
    if model.static.input_prior == "ar1":
        # Smooth inputs are cheaper under this prior, the more the larger tau is.
        inputs = ar1_kl(*moments, variance, jnp.exp(prior["log_tau"]))
    else:
        inputs = gaussian_kl(*moments, variance)
    return ic.sum(-1), inputs.sum((0, -1))


def bound(
    model: Fitted,
    batch: Batch,
    noise: Noise,
    entry_weights: Float[Array, "time_or_1 trial unit"] | None = None,
) -> dict[str, Float[Array, "trial"]]:
    """The terms of the negative ELBO by name, estimated from one draw of the posterior.

    entry_weights: weights of the data's entries in the nll; None: all 1.
    """
    encoded = encode(model, batch.seen_data, len(batch.data), noise)
    decoded, output = decode(model, encoded, batch.external, noise)
    likelihood = data_log_likelihood(
        model.static.likelihood, batch.data, output, batch.log_factorial, model.floor
    )
    if entry_weights is not None:
        likelihood = likelihood * entry_weights
    kl_ic, kl_input = divergences(model, encoded, decoded)
    return {"nll": -likelihood.sum((0, 2)), "kl_ic": kl_ic, "kl_input": kl_input}


def ramp(
    step: Array, start: Number, length: Number, dtype: jax.typing.DTypeLike
) -> Float[Array, ""]:
    """A factor that rises linearly from `start` at step 0 to 1 at step `length`; with length 0 it is always 1.

    >>> print(f"{ramp(jnp.int32(5), 0.2, jnp.int32(10), 'float32'):.3f}")
    0.600
    """
    # maximum(length, 1): jnp.where evaluates both sides, and 0 / 0 would make gradients NaN.
    share = jnp.minimum(step.astype(dtype) / jnp.maximum(length, 1).astype(dtype), 1)
    return jnp.where(length > 0, start + (1 - start) * share, 1)


def _penalised(cell: Tree) -> list[Array]:
    """The weights of a cell that the penalty is on: the first columns of its matrices, which act on the state."""
    # wV marks the neural ODE: its field has two matrices, of which wFHX also acts on inputs.
    if "wV" in cell:
        return [cell["wFHX"][:, : len(cell["wV"])], cell["wV"]]
    return [cell[name][:, : len(cell["wCHX"])] for name in ("wRUHX", "wCHX")]


def penalty(static: View[Model], traced: Values[Model], weights: Tree) -> Float[Array, ""]:
    """The L2 penalty on the weights that act on the state, before its ramp."""
    scales = {"generator": traced.l2_generator}
    if static.controller:
        scales["controller"] = traced.l2_controller
    total: Any = 0
    n: Any = 0
    for cell, scale in scales.items():
        matrices = _penalised(weights[cell])
        total += scale * sum(jnp.sum(w**2) for w in matrices)
        # Scales are traced: which weights are counted is decided by jnp.where, not by Python.
        n += jnp.where(scale > 0, sum(w.size for w in matrices), 0)
    return total if static.penalties == "trial" else 0.5 * total / jnp.maximum(n, 1)


def training_loss(
    static: View[Model],
    traced: Values[Model],
    dataset: Dataset,
    weights: Tree,
    minibatch: tuple[Batch, jax.Array],
    step: jax.Array,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The loss of one minibatch, (trials, key of noise and dropout), and its terms before KL scales and ramps."""
    batch, key = minibatch
    key_noise, key_dropout = jax.random.split(key)
    noise = draw_noise(static, key_noise, batch)
    noise, seen_weights = draw_dropout(static, traced, key_dropout, batch, noise)
    n_steps, _, n_units = batch.data.shape
    spread = spread_weights(dataset, seen_weights, n_steps, n_units)
    # Padded units of shorter sessions must not be reconstructed.
    entry_weights = real_entries(dataset, batch.session, spread)
    weights = with_core(dataset, weights)
    trial_weights = of_trials(dataset, weights, batch.session)
    model = Fitted(static, traced.variance_floor, dataset, trial_weights)
    parts = bound(model, batch, noise, entry_weights)
    terms = {name: value.mean() for name, value in parts.items()}
    terms["l2"] = penalty(static, traced, weights)
    nll = terms["nll"]
    kl = traced.kl_ic * terms["kl_ic"] + traced.kl_input * terms["kl_input"]
    # The KL starts low, so that the model learns to reconstruct before posteriors are pulled to the prior.
    k = ramp(step, traced.kl_start, traced.kl_ramp, static.dtype)
    l = ramp(step, 0.0, traced.l2_ramp, static.dtype)
    if static.penalties == "entry":  # the objective of lfads-torch x bins x units
        k, l = k * (n_steps * n_units), l * (n_steps * n_units)
        nll = (parts["nll"] * padding(dataset, batch.session)).mean()
    return nll + k * kl + l * terms["l2"], terms


def chunks(n: int, size: int) -> tuple[Int[Array, "chunk row"], Bool[Array, "chunk row"]]:
    """Cut 0 ... n-1 into chunks of equal size: (the numbers, False for padding, which repeats the last number).

    >>> chunks(3, 2)[0].tolist(), chunks(3, 2)[1].tolist()
    ([[0, 1], [2, 2]], [[True, True], [True, False]])
    """
    number = jnp.arange(-(-n // size) * size).reshape(-1, size)
    return jnp.minimum(number, n - 1), number < n


def evaluate(model: Fitted, key: jax.Array) -> dict[str, Float[Array, ""]]:
    """The terms of the negative ELBO by name, and `loss`, their sum: means over all evaluation trials, one draw each.

    No dropout, no scales and no ramps: each KL counts once, whatever its weight in training.
    """
    static, dataset, trials = model.static, model.dataset, model.dataset.evaluation
    n = len(trials.data)
    index, real = chunks(n, min(static.batch_size, n))

    # lax.map, chunk by chunk: memory holds one minibatch, however many trials there are.
    def part(now: tuple[Array, ...]) -> dict[str, Array]:
        number, rows, counted = now
        batch = gather(static, dataset, trials, rows)
        # The key depends on the chunk alone: every evaluation of a model sees the same noise.
        noise = draw_noise(static, jax.random.fold_in(key, number), batch)
        trial_model = model._replace(weights=of_trials(dataset, model.weights, batch.session))
        terms = bound(trial_model, batch, noise, real_entries(dataset, batch.session))
        # Padding repeats the last trial; it must not count twice.
        return {name: jnp.sum(jnp.where(counted, value, 0)) for name, value in terms.items()}

    sums = lax.map(part, (jnp.arange(len(index)), index, real))
    terms = {name: value.sum() / n for name, value in sums.items()}
    return terms | {"loss": terms["nll"] + terms["kl_ic"] + terms["kl_input"]}
