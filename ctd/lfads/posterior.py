"""Kernel: the rates, factors and inputs that trained models of `lfads` infer for all trials of a file.

An item is one model and one chunk of trials: first the chunks of the training trials, then those of the
evaluation trials, each in the file's order. So memory holds one chunk, however many trials there are. Means have the
same bits as those that `lfads` stores for the same trials. A trial of a chopped recording is a window: `recording` and
`first_bin` say where it lies, and `ctd.lfads.chop` merges windows.

    kernel: lfads.posterior
    params:
      weights: {stage: train, sort: eval_loss, limit: 1}               the generator
      model: {stage: train, sort: eval_loss, limit: 1, part: model}    all other weights
      data, sizes, likelihood, ...: as in training, but any file with the same units
    sweep: {grid: {chunk: {range: 12}}}

`ctd posterior STORE` writes and runs such a job for the models of a store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from pydantic import Field

from ctd.kernel import (
    Batching,
    Data,
    Display,
    File,
    Inference,
    Kernel,
    Static,
    Traced,
    TrainedModels,
    Values,
    Var,
    View,
)
from ctd.late import Array, Int, Real, jax, jnp, lax
from ctd.lfads.chop import Windows
from ctd.lfads.data import Dataset, Trials, make_dataset, read
from ctd.lfads.distributions import N_OUTPUTS
from ctd.lfads.inference import Inferred, posterior, present, split_key
from ctd.lfads.kernel import item_keys
from ctd.lfads.loss import gather
from ctd.lfads.model import Fitted
from ctd.lfads.names import DECODED, DECODER, MEANS
from ctd.lfads.numpy_file import SPLIT
from ctd.lfads.params import Model
from ctd.lfads.plots import posterior_plots
from ctd.lfads.readins import of_session
from ctd.lfads.summary import RANKED
from ctd.lfads.torch_file import write
from ctd.lfads.trained import (
    by_session,
    check_sizes,
    held_out_of_session,
    n_external,
    posterior_params,
    read_trained,
)
from ctd.lfads.weights import Tree
from ctd.words import count


class Posterior(Model):
    """One chunk of trials of one model. Fields of training, such as `dropout`, are not used."""

    weights: File[str | None] = None
    """generator of a trained model, STORE::ITEM"""
    model: File[str | None] = None
    """its other weights, STORE::ITEM::model (part: model)"""
    of_seed: Data[int] = Field(0, ge=0, lt=2**32)
    """seed of the job that trained it; chooses the draws"""
    of_item: Data[int] = Field(0, ge=0, lt=2**32)
    """its item there; chooses the draws, too"""
    session: Data[int | None] = Field(None, ge=0)
    """for a model of several sessions, the number of the session whose units the data have; by default the only one with so many units"""
    keep: Static[tuple[Inferred, ...]] = Field(
        ("rates", "factors", "inferred_inputs", "initial_conditions", "decoded_behavior"),
        description="what is stored, as mean and standard deviation; inferred_inputs needs a model with a controller, decoded_behavior one "
        "that was trained on data with behaviour",
    )
    samples: Static[tuple[Inferred, ...]] = ()
    """quantities of which all draws are stored: each takes n_samples times the room of a mean"""
    chunk_batches: Static[int] = Field(8, gt=0)
    """minibatches in a chunk, which has batch_size times as many trials"""
    chunk: Traced[int] = Field(0, ge=0, lt=2**24)
    """number of the chunk; chunks of training trials come first, then those of evaluation"""


class Fit(NamedTuple):
    """A trained model and the trials that it is applied to."""

    dataset: Dataset
    """`train` holds the training trials and then the evaluation trials."""
    n: Int[np.ndarray, "2"]
    """Trials for training, and for evaluation."""
    trial_number: Int[np.ndarray, "chunk batch trial"]
    """The numbers of all trials in their splits, by chunk and minibatch; -1 where there is none."""
    split: Int[np.ndarray, "chunk"]
    """0 for chunks of training trials, 1 for those of evaluation."""
    recorded: Int[np.ndarray, "recorded_trial"]
    """For each trial of the file, in its order, 0 (training), 1 (evaluation) or -1 (left out). If the file names its splits, trials
    for training come first."""
    weights: Tree
    key: np.ndarray
    """The words of the key of the training item: keys themselves cannot be host arrays."""
    windows: tuple[Windows, Windows] | None = None
    """The places of the trials in recordings, if these were chopped."""

    @property
    def n_chunks(self) -> int:
        """The number of chunks of all trials."""
        return len(self.split)


# --- loading --------------------------------------------------------------------------------------


def load(inputs: View[Posterior]) -> Fit:
    """Read the model and the trials. Raises ValueError, naming the field, where they do not fit each other or the job's sizes."""
    if inputs.weights is None or inputs.model is None:
        raise ValueError(
            "weights, model: both parts of a trained model are needed, STORE::ITEM and STORE::ITEM::model; "
            "`ctd posterior STORE` fills them in"
        )
    if not isinstance(inputs.data, str):
        raise ValueError(
            f"data: one file expected, got {inputs.data}; sweep over the files, or `ctd posterior STORE`"
        )
    weights = read_trained(inputs.weights, inputs.model, inputs.dtype)
    check_sizes(inputs, weights, inputs.model)
    per_unit = N_OUTPUTS[inputs.likelihood]
    n_units = None if "readout" in weights else len(weights["output"]["w"]) // per_unit
    arrays = read(inputs.data, inputs)
    dataset = make_dataset(arrays, inputs, inputs.data, n_units)
    if "readout" in weights:
        weights = _of_session(inputs, weights, dataset)
    _check_data(inputs, weights, dataset)
    n = np.array([len(dataset.train.data), len(dataset.evaluation.data)], np.int32)
    # Each split fills chunks of its own, of which the last may be partly empty.
    numbers = [_chunks(int(trials), inputs.batch_size, inputs.chunk_batches) for trials in n]
    split = np.repeat(
        np.arange(2, dtype=np.int32), [len(chunk_numbers) for chunk_numbers in numbers]
    )
    # The same key as the runner gave the training item.
    key = jax.random.fold_in(jax.random.key(inputs.of_seed), inputs.of_item)
    key_data = np.asarray(jax.random.key_data(key))
    joined, number = _joined(dataset), np.concatenate(numbers)
    parts = n if dataset.windows is None else [len(each.lengths) for each in dataset.windows]
    recorded = np.asarray(arrays.get(SPLIT, np.repeat(np.arange(2, dtype=np.int8), parts)))
    return Fit(joined, n, number, split, recorded, weights, key_data, dataset.windows)


def _chunks(n: int, batch_size: int, batches: int) -> np.ndarray:
    """(chunk, batch, trial) the numbers 0 ... n-1, then -1."""
    number = np.arange(-(-n // (batch_size * batches)) * batch_size * batches, dtype=np.int32)
    return np.where(number < n, number, -1).reshape(-1, batches, batch_size)


def _of_session(inputs: View[Posterior], weights: Tree, dataset: Dataset) -> Tree:
    """The model of the session whose units the data have. Raises ValueError, naming the sessions that fit, unless one does."""
    units, n_seen = (weights["sessions"][name].astype(int) for name in ("n_units", "n_seen"))
    has = dataset.train.data.shape[2]
    # Numbers of units identify a session; where two sessions agree, the user must name one.
    fits = np.flatnonzero((units == has) & (n_seen == len(dataset.seen_units)))
    candidates = fits if inputs.session is None else fits[fits == inputs.session]
    if len(candidates) != 1:
        prefix = "" if inputs.session is None else f"session: {inputs.session} given, but "
        fitting = f"sessions {', '.join(map(str, fits))} fit" if len(fits) else "no session fits"
        raise ValueError(
            f"{prefix}data: {inputs.data} has {has} units, {fitting}; the model's sessions have "
            f"({', '.join(f'{k}: {n}' for k, n in enumerate(units))}) units; "
            + ("say which by `session`" if len(fits) else "give a file of one of them")
        )
    number = int(candidates[0])
    session_weights = of_session(weights, number, has, dataset.seen_units)
    if "decoders" in weights and (n := int(weights["sessions"]["n_channels"][number])):
        session_weights["decoder"] = {
            name: a[number][:n] for name, a in weights["decoders"].items()
        }
    return session_weights


def _check_data(inputs: View[Posterior], weights: Tree, dataset: Dataset) -> None:
    """Raise ValueError unless the encoder sees as many units and external inputs as the model was trained on."""
    encoder = weights["encoder_forward"]["wCHX"]
    n_seen = encoder.shape[1] - len(encoder)
    if "readin" in weights:
        n_seen = weights["readin"]["w"].shape[1]
    for quantity, has, fits in (
        ("units that the encoder sees", len(dataset.seen_units), n_seen),
        ("external inputs", dataset.train.n_external, n_external(inputs, weights["generator"])),
    ):
        if has != fits:
            raise ValueError(
                f"data: {inputs.data} has {has} {quantity}, but the model was trained on {fits}; give a file with {fits}"
            )


def _joined(dataset: Dataset) -> Dataset:
    """The dataset with all trials in `train`, less what training alone needs."""
    both = zip(dataset.train[:3], dataset.evaluation[:3], strict=True)
    data, encoded, external = (
        None if a is None or b is None else np.concatenate([a, b]) for a, b in both
    )
    assert data is not None
    trials = Trials(data, encoded, external)
    return dataset._replace(
        train=trials, evaluation=Trials(data[:0]), log_factorial=None, windows=None
    )


# --- one chunk ------------------------------------------------------------------------------------


class State(NamedTuple):
    """A chunk whose first `batch` minibatches have been inferred."""

    batch: Int[Array, ""]
    n_batches: Int[Array, ""]
    """Minibatches of the chunk that have trials; 0 beyond the last chunk."""
    values: dict[str, Real[Array, "trial ..."]]
    """Results by name; rows without a trial are NaN, or -1 for integers."""


def _infer(
    static: View[Posterior], shared: Fit, traced: Values[Posterior], batch: Array
) -> dict[str, Real[Array, "trial ..."]]:
    """Infer one minibatch: the results that are asked for, and the numbers and places of its trials."""
    trial = _numbers(shared, traced)[batch]
    real, evaluation = trial >= 0, jnp.asarray(shared.split)[traced.chunk] == 1
    # Rows without a trial repeat the last one, and are blanked below.
    rows = jnp.where(real, trial, trial.max()) + jnp.where(evaluation, shared.n[0], 0)
    # The key of the training item, split and minibatch: the draws are those that `lfads` made.
    key = item_keys(jax.random.wrap_key_data(jnp.asarray(shared.key)), traced)[3]
    key = jax.random.fold_in(split_key(key, evaluation), trial[0] // static.batch_size)
    # NumPy arrays cannot be indexed by traced rows.
    dataset = jax.tree.map(jnp.asarray, shared.dataset)
    fitted = Fitted(static, traced.variance_floor, dataset, shared.weights)
    present_names = lambda names: present(static, shared.weights, names)
    trials = gather(static, dataset, dataset.train, rows)
    values = posterior(
        fitted, trials, key, present_names(static.keep), present_names(static.samples), spread=True
    )
    # `posterior` always returns their moments, which cost nothing.
    if "initial_conditions" not in static.keep:
        del values["initial_conditions"], values["initial_conditions_sd"]
    values = {
        name: jnp.where(real.reshape(-1, *[1] * (value.ndim - 1)), value, jnp.nan)
        for name, value in values.items()
    }
    # int8 saves room: there are three values.
    split = jnp.where(real, evaluation, -1).astype(jnp.int8)
    values |= {"trial_number": trial, "split": split}
    if shared.windows is not None:
        for name, at in (("recording", "recording"), ("first_bin", "start")):
            # Windows of training, then of evaluation, as the rows of the dataset.
            places = jnp.concatenate(
                [jnp.asarray(getattr(windows, at)) for windows in shared.windows]
            )
            values[name] = jnp.where(real, places[rows], -1)
    return values


def _numbers(shared: Fit, traced: Values[Posterior]) -> Int[Array, "batch trial"]:
    """The numbers of the chunk's trials; all are -1 beyond the last chunk."""
    return jnp.asarray(shared.trial_number).at[traced.chunk].get(mode="fill", fill_value=-1)


def init(static: View[Posterior], shared: Fit, traced: Values[Posterior], key: jax.Array) -> State:
    """A chunk before its first minibatch is inferred."""
    del key
    zero = jnp.zeros((), jnp.int32)
    shapes = jax.eval_shape(lambda: _infer(static, shared, traced, zero))
    n = static.chunk_batches
    blank = lambda v: jnp.full(
        (n * v.shape[0], *v.shape[1:]), jnp.nan if v.dtype.kind == "f" else -1, v.dtype
    )
    n_batches = (_numbers(shared, traced)[:, 0] >= 0).sum(dtype=jnp.int32)
    return State(zero, n_batches, jax.tree.map(blank, shapes))


def advance(
    static: View[Posterior], shared: Fit, traced: Values[Posterior], key: jax.Array, state: State
) -> State:
    """Infer the next minibatch."""
    del key
    start = state.batch * static.batch_size
    write = lambda stored, part: lax.dynamic_update_slice_in_dim(stored, part, start, 0)
    values = jax.tree.map(write, state.values, _infer(static, shared, traced, state.batch))
    return State(state.batch + 1, state.n_batches, values)


def result(
    static: View[Posterior], shared: Fit, traced: Values[Posterior], key: jax.Array, state: State
) -> dict[str, Array]:
    """The results of the chunk's trials, and the decoder of behaviour, if the model has one."""
    del static, traced, key
    decoder = shared.weights.get("decoder", {})
    return state.values | {f"decoder.{name}": jnp.asarray(w) for name, w in decoder.items()}


_INFERRED = MEANS | DECODED
_text = lambda var, statistic: var.long_name.replace("posterior mean", statistic, 1)
DIMS = {
    **_INFERRED,
    **{f"{name}_sd": var._replace(long_name=_text(var, "posterior sd")) for name, var in _INFERRED.items()},
    **{
        f"{name}_samples": Var(("trial", "sample", *var.axes[1:]), var.units, _text(var, "draws from the posterior"))
        for name, var in _INFERRED.items()
    },
    **{f"decoder.{name}": var for name, var in DECODER.items()},
    "trial_number": Var(("trial",), "1", "number of the trial in its split, in the file's order; -1: none"),
    "split": Var(("trial",), "1", "0 training, 1 evaluation; -1: none"),
    "recording": Var(("trial",), "1", "number of the recording that the window was cut from"),
    "first_bin": Var(("trial",), "1", "bin of the recording that the window starts at"),
}  # fmt: skip

# --- the job for a trained model --------------------------------------------------------------------


def _params(
    trained: Mapping[str, Any], store: str, item: int, seed: int, data: str | None, place: Callable[[str], str]
) -> list[dict[str, Any]]:  # fmt: skip
    """The parameters for each session of a trained model; see `ctd.kernel.TrainedModels`."""
    return by_session(posterior_params(trained, store, item, seed), data, place)


def _inference(inputs: View[Posterior], fit: Fit) -> Inference:
    """Describe the job for the trials of one file, and how its results are written."""
    n = [int(trials) for trials in fit.n]
    texts = [f"{k:,} {word}" for k, word in zip(n, ("train", "valid"), strict=True)]
    noun, refusal = "trials", ""
    if fit.windows is not None:
        noun = "windows"
        sources = [
            count(len(each.lengths), "trial" if each.of_trials else "recording")
            for each in fit.windows
        ]
        texts = [f"{text} of {source}" for text, source in zip(texts, sources, strict=True)]
        if inputs.samples:
            refusal = (
                "samples: draws of neighbouring windows are independent and cannot be merged; leave them out, or give --store OUT.zarr, "
                "which keeps the draws of each window"
            )
    size = f"an item is up to {fit.trial_number[0].size:,} {noun}"
    to_file = lambda file, chunks, attributes: write(
        file, chunks, n, attributes, fit.recorded, fit.windows
    )
    return Inference(fit.n_chunks, n, f"{noun} {', '.join(texts)}", size, to_file, refusal)


kernel = Kernel(
    name="lfads.posterior",
    Params=Posterior,
    dims=DIMS,
    load=load,
    init=init,
    advance=advance,
    finished=lambda state: state.batch >= state.n_batches,
    result=result,
    advances=lambda inputs: inputs.chunk_batches,
    display=Display(
        plots=posterior_plots,
        trained=TrainedModels(
            keep=(
                "rates",
                "factors",
                "inferred_inputs",
                "states",
                "initial_conditions",
                "decoded_behavior",
            ),
            ranking=lambda params: RANKED[params.get("criterion", "loss")],
            params=_params,
            completed=held_out_of_session,
            inference=_inference,
        ),
    ),
    batching=Batching(
        # A minibatch fills a device, and its bits are those of `lfads`, which runs models one by one.
        width=2,
        microbatches=(1,),
    ),
)
