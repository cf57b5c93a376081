"""The parameters of one LFADS model: its data, its sizes, its training and its results."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, FiniteFloat, NonNegativeInt, model_validator

from ctd.kernel import Data, File, Params, Static, Traced
from ctd.words import count


class Chop(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """Lengths by which recordings are cut into overlapping windows.

    >>> Chop(window=100, overlap=20).window
    100
    """

    window: int = Field(gt=0)
    """bins of a window"""
    overlap: int = Field(ge=0)
    """bins that it shares with the next one, at least"""

    @model_validator(mode="after")
    def _moves_on(self) -> "Chop":
        if self.overlap >= self.window:
            raise ValueError(
                f"overlap: {self.overlap} bins, but a window has {self.window}; fewer than a window expected"
            )
        return self


def files_of(data: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """The files of a model's trials, one for each session."""
    return (data,) if isinstance(data, str) else data or ()


type Units = tuple[int, ...]


def by_file(held_out: Units | tuple[Units, ...], n_files: int) -> tuple[Units, ...]:
    """The held-out units of each file. Raises ValueError unless there is a list for each; a single one needs no list around it.

    >>> by_file((3, 8), 1), by_file(((3,), ()), 2), by_file((), 2)
    (((3, 8),), ((3,), ()), ((), ()))
    """
    if not held_out:
        return ((),) * n_files
    units = tuple(unit for unit in held_out if isinstance(unit, int))
    lists = tuple(each for each in held_out if isinstance(each, tuple)) or (units,)
    if len(lists) != n_files:
        raise ValueError(
            f"held_out_units: {count(len(lists), 'list')} given for {count(n_files, 'file')} of data; a list for each expected, such as "
            "[[3, 8], []] of two, since sessions have units of their own"
        )
    return lists


class Model(Params):
    """One model. The defaults did best on the spikes of an integrator network.

    There (4,000 steps, 100 units, 25 bins) the rates reach r2 = 0.621 in three seeds; the bound is 0.63.

    Raises ValueError (pydantic's ValidationError), naming fields, where one is out of its range or two contradict each
    other.

    >>> Model(n_batches=2000).generator
    128
    >>> Model(n_batches=10)
    Traceback (most recent call last):
    pydantic_core._pydantic_core.ValidationError: 1 validation error for Model
      Value error, kl_ramp: 1000, warm_up: 100 steps are longer than training, n_batches = 10; ...
    """

    data: File[str | Annotated[tuple[str, ...], Field(min_length=1)] | None] = Field(
        None,
        description="HDF5 or .npz file: train, eval, ... or train_encod_data, valid_encod_data, ...; .npy of trials, or "
        ".npz with an array for each; or NWB file; or a list of files, one for each session: sessions share everything except read-in and readout",
    )
    core: File[str | None] = None
    """generator of a trained model, STORE::ITEM; it is not trained further"""
    core_model: File[str | None] = Field(
        None,
        description="other weights of that model, STORE::ITEM::model (part: model), to fit sessions that it has not seen: only read-in and "
        "readout are trained. The model must have a read-in",
    )
    bin_s: Data[float | None] = Field(None, gt=0, allow_inf_nan=False)
    """NWB: length of a bin (s)"""
    window: Data[tuple[FiniteFloat, FiniteFloat] | None] = None
    """NWB: times after its event (s) at which a trial begins and ends"""
    align_to: Data[str] = "start_time"
    """NWB: the event that trials are aligned to, a column of the file's trials"""
    eval_every: Data[int] = Field(
        5,
        gt=1,
        description="NWB, .npy, .npz: every n-th trial is for evaluation; of a continuous recording, its last n-th. Not used if a column `split` says "
        "train or val, or if arrays are called train and eval",
    )
    behavior_series: Data[str | None] = None
    """NWB: the time series that is regressed on factors"""
    chop: Data[Chop | None] = Field(
        None,
        description="cuts continuous recordings (time, unit), and trials longer than a window, into windows; lengths in bins: {window: "
        "100, overlap: 20}. An NWB file without the field `window` is a continuous recording",
    )
    held_out_units: Data[Units | tuple[Units, ...]] = ()
    """units that the encoder does not see; rates are inferred for them too. Of several files, a list for each: [[3, 8], []]"""
    held_out_bins: Data[int] = Field(0, ge=0)
    """last bins that the encoder does not see"""

    likelihood: Static[
        Literal["poisson", "negative_binomial", "gaussian", "gamma", "zero_inflated_gamma"]
    ] = Field(
        "poisson",
        description="distribution of the data given the factors: for counts, poisson or negative_binomial; of reals, gaussian; of positive "
        "ones, gamma (rectified EMG); of positive ones and zeros, zero_inflated_gamma (calcium events)",
    )
    input_prior: Static[Literal["ar1", "gaussian"]] = "ar1"
    """prior of inferred inputs: a stationary AR(1) process, or independent steps"""
    encoder: Static[int] = Field(128, gt=0)
    """units of each encoder"""
    controller: Static[int] = Field(128, ge=0)
    """units of the controller; 0: there is none, and the initial state determines all"""
    generator: Static[int] = Field(128, gt=0)
    """units of the generator"""
    generator_cell: Static[Literal["gru", "node"]] = "gru"
    """cell of the generator. gru; node: a neural ODE, whose state may have few dimensions, such as generator: 3, n_factors: 3"""
    field_units: Static[int] = Field(128, gt=0)
    """hidden units of the neural ODE's field"""
    n_factors: Static[int] = Field(32, gt=0)
    """factors"""
    readout: Static[Literal["factors", "states"]] = Field(
        "factors",
        description="what log rates are read from. factors: directions of the generator's states; states: these states, by one matrix "
        "(needs controller: 0, and as many factors as states)",
    )
    n_inputs: Static[int] = Field(1, gt=0)
    """inferred inputs, with a controller"""
    lag: Static[int] = Field(0, ge=0)
    """bins that the controller does not see at each step. 0: none; 1: its own bin; n: also the n - 1 bins before and after it"""
    batch_size: Static[int] = Field(128, gt=0)
    """trials of a minibatch, drawn with replacement: there may be more of them than training trials"""
    n_batches: Static[int] = Field(4000, gt=0)
    """steps of training"""
    report_every: Static[int] = Field(100, gt=0)
    """training steps of one advance; an evaluation follows each advance"""
    schedule: Static[Literal["cosine", "exponential", "plateau"]] = Field(
        "cosine",
        description="schedule of the learning rate. cosine: half a cosine to 0 at n_batches; exponential: `decay` alone; plateau: also "
        "times `plateau_factor` each time that evaluations stop getting better",
    )
    criterion: Static[Literal["loss", "nll", "last"]] = Field(
        "loss",
        description="what chooses the best parameters and stops early. loss: the negative ELBO of the evaluation trials; nll: their "
        "reconstruction alone, for searches over KL scales; last: the last parameters are taken",
    )
    penalties: Static[Literal["trial", "entry"]] = Field(
        "trial",
        description="what the KL and L2 terms are added to. trial: the nll of a trial; entry: its mean over the entries (bins and units), "
        "with half the mean square of the penalised weights as L2, as in lfads-torch",
    )
    n_samples: Static[int] = Field(64, gt=0)
    """posterior samples that are averaged"""
    n_metric: Static[int] = Field(1000, gt=0)
    """evaluation trials from which the metrics of the posterior mean are computed"""
    n_saved: Static[int] = Field(16, ge=0)
    """number of evaluation trials, the first ones, whose rates, factors, inputs and states are stored; for others see `save`"""
    save: Static[NonNegativeInt | Literal["all", "eval"] | None] = Field(
        None,
        description="trials whose rates, factors, inputs and states are stored. all: all; eval: all for evaluation; a number n: the first "
        "n of training and the first n of evaluation",
    )

    learning_rate: Traced[float] = Field(0.008, gt=0)
    """largest learning rate"""
    decay: Traced[float] = Field(1.0, gt=0, le=1)
    """factor of the learning rate at each step, beside the schedule"""
    plateau_factor: Traced[float] = Field(0.95, gt=0, le=1)
    """factor of the learning rate at a plateau (schedule: plateau)"""
    plateau_patience: Traced[int] = Field(6, gt=0)
    """this many evaluations without a better one are a plateau"""
    warm_up: Traced[int] = Field(100, ge=0)
    """steps over which the learning rate rises"""
    adam_eps: Traced[float] = Field(1e-8, gt=0)
    """Adam's epsilon"""
    clip_norm: Traced[float] = Field(200.0, gt=0)
    """largest norm of the gradient"""
    dropout: Traced[float] = Field(0.05, ge=0, lt=1)
    """share of data, encoder and generator units set to 0 in training"""
    coordinated_dropout: Traced[float] = Field(0.0, ge=0, lt=1)
    """share of the data hidden from the encoder in training; if not 0, only the hidden entries count in the reconstruction"""
    kl_ic: Traced[float] = Field(1.0, ge=0)
    """scale of the KL of initial conditions"""
    kl_input: Traced[float] = Field(1.0, ge=0)
    """scale of the KL of inferred inputs"""
    kl_start: Traced[float] = Field(0.05, ge=0, le=1)
    """factor of both scales at the start"""
    kl_ramp: Traced[int] = Field(1000, ge=0)
    """steps over which that factor rises to 1"""
    l2_generator: Traced[float] = Field(1e-5, ge=0)
    """penalty on the squared norm of the generator's recurrent weights"""
    l2_controller: Traced[float] = Field(1e-5, ge=0)
    """the same for the controller's recurrent weights"""
    l2_ramp: Traced[int] = Field(0, ge=0)
    """steps over which both penalties rise from 0"""
    ic_prior_variance: Traced[float] = Field(0.1, gt=0)
    """variance of the prior of initial conditions before training"""
    input_prior_variance: Traced[float] = Field(0.1, gt=0)
    """stationary variance of the prior of inputs before training"""
    input_prior_tau: Traced[float] = Field(1.0, gt=0)
    """autocorrelation time of that prior before training, in bins (input_prior: ar1)"""
    variance_floor: Traced[float] = Field(1e-4, gt=0)
    """least variance of any posterior and of a Gaussian likelihood"""
    patience: Traced[int] = Field(0, ge=0)
    """training stops after this many evaluations without a better one; 0: never"""
    seed: Traced[int] = Field(0, ge=0, lt=2**31)
    """replicate: other weights, minibatches and noise; two items of one seed differ, too"""

    @model_validator(mode="after")
    def _cut_of_nwb(self) -> "Model":
        files = files_of(self.data)
        other = [file for file in files if not file.endswith(".nwb")]
        is_nwb = len(other) < len(files)
        if is_nwb and (self.bin_s is None or (self.window is None and self.chop is None)):
            raise ValueError(
                "bin_s, window: trials are cut from an NWB file, as in bin_s: 0.02, window: [-0.2, 0.8]; or all of "
                "it is used, as in bin_s: 0.02, chop: {window: 100, overlap: 20}"
            )
        if self.window is not None and self.bin_s is not None:
            length = self.window[1] - self.window[0]
            if length <= 0:
                raise ValueError(
                    f"window: {list(self.window)}: ends before it begins; give [begin, end] in s after the event"
                )
            n = round(length / self.bin_s)
            # 1e-6: 0.3 / 0.1 is no whole number in floats.
            if n < 1 or abs(n * self.bin_s - length) > 1e-6 * self.bin_s:
                raise ValueError(
                    f"window, bin_s: {length:g} s are {length / self.bin_s:.6g} bins of {self.bin_s:g} s; a whole number expected"
                )
        of_nwb = ("bin_s", "window", "behavior_series")
        nwb_fields = [name for name in of_nwb if getattr(self, name) is not None]
        if nwb_fields and other:
            raise ValueError(
                f"{', '.join(nwb_fields)}: cuts trials from an NWB file, but {other[0]} holds trials; leave it out"
            )
        if is_nwb and other:
            raise ValueError(
                f"data: {other[0]} is no NWB file, but others are; give sessions of one kind"
            )
        return self

    @model_validator(mode="after")
    def _of_sessions(self) -> "Model":
        if self.core_model is not None and self.core is None:
            raise ValueError("core_model: goes with core, STORE::ITEM of the same model")
        for units in by_file(self.held_out_units, len(files_of(self.data)) or 1):
            if len(set(units)) < len(units) or any(u < 0 for u in units):
                raise ValueError(
                    f"held_out_units: {list(units)}: give each unit once, by its number 0, 1, 2, ..."
                )
        return self

    @model_validator(mode="after")
    def _consistent(self) -> "Model":
        longer = {
            name: getattr(self, name)
            for name in ("kl_ramp", "l2_ramp", "warm_up")
            if getattr(self, name) > self.n_batches
        }
        if longer:
            settings = ", ".join(f"{name}: {steps}" for name, steps in longer.items())
            shorter = ", ".join(f"{name}: {self.n_batches // 2}" for name in longer)
            raise ValueError(
                f"{settings} steps are longer than training, n_batches = {self.n_batches}; add to params {shorter}, or raise n_batches"
            )
        watched = self.schedule == "plateau" or self.patience > 0
        if self.criterion == "last" and watched:
            raise ValueError(
                "criterion: last: schedule plateau and patience go by evaluations that get better; give criterion: loss or nll"
            )
        if self.readout == "states" and (self.controller or self.n_factors != self.generator):
            raise ValueError(
                f"readout: states: the generator's states are the factors; give controller: 0, n_factors: {self.generator}"
            )
        return self
