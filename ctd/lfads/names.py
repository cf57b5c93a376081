"""The results of a model: axes, units and long names."""

from ctd.cells import weight_dims
from ctd.kernel import Var

CALLED = {"unit": "state", "output": "factor"}
"""Axis of a cell's weights -> its name here, where units are those that were recorded."""

DECODER = {
    "w": Var(("channel", "factor"), "1", "decoder of behaviour, w f + b of factors f"),
    "b": Var(("channel",), "1", "decoder of behaviour, w f + b of factors f"),
}


def _model_dims() -> dict[str, Var]:
    """Weight -> its axes. Layers differ in size, and a store has one size for an axis name: each layer has names of its own."""
    layer_axes: dict[str, tuple[str, ...]] = {}
    for part, layer, input_name in (
        ("encoder_forward", "encoder", "data"),
        ("encoder_backward", "encoder", "data"),
        ("controller", "controller", "input"),
    ):
        gate, unit, columns = f"{layer}_gate", f"{layer}_unit", f"{layer}_unit_and_{input_name}"
        cell = {"wRUHX": (gate, columns), "bRU": (gate,), "wCHX": (unit, columns)}
        cell |= {"bC": (unit,), "h0": (unit,)}
        layer_axes |= {f"{part}.{name}": axes for name, axes in cell.items()}
    layer_axes |= {
        "ic.w": ("ic_moment", "encoder_end"),
        "ic.b": ("ic_moment",),
        "inputs.w": ("input_moment", "controller_unit"),
        "inputs.b": ("input_moment",),
        "output.w": ("output_entry", "factor"),
        "output.b": ("output_entry",),
        "readin.w": ("session", "factor", "padded_unit"),
        "readin.b": ("session", "factor"),
        "readout.w": ("session", "moment", "padded_unit", "factor"),
        "readout.b": ("session", "moment", "padded_unit"),
        "sessions.n_units": ("session",),
        "sessions.n_seen": ("session",),
        "sessions.n_channels": ("session",),
        "decoder.w": DECODER["w"].axes,
        "decoder.b": DECODER["b"].axes,
        "decoders.w": ("session", "padded_channel", "factor"),
        "decoders.b": ("session", "padded_channel"),
        "ic_prior.mean": ("state",),
        "ic_prior.log_variance": ("state",),
        "input_prior.mean": ("inferred",),
        "input_prior.log_variance": ("inferred",),
        "input_prior.log_tau": ("inferred",),
    }
    dims = {
        f"model.{path}": Var(axes, "1", f"{path} of the model, see ctd.lfads.model")
        for path, axes in layer_axes.items()
    }
    generators = weight_dims(["gru_candidate_bias", "node"], " of the generator")
    return dims | {
        name: var._replace(axes=tuple(CALLED.get(axis, axis) for axis in var.axes))
        for name, var in generators.items()
    }


LONG = {
    "loss": "loss",
    "nll": "negative log likelihood",
    "kl_ic": "KL of initial conditions",
    "kl_input": "KL of inferred inputs",
}

SCORES = {
    "rate_r2_weighted": "R2 of rates, no affine fit, units weighted by variance (CtDBenchmark)",
    "rate_r2_units": "R2 of rates, no affine fit, mean over units (Sedler 2023, lfads-torch)",
    "state_r2_from_true": "R2 of the generator's states by linear regression on true ones, weighted by variance (CtDBenchmark)",
    "state_r2_from_true_mean": "R2 of the generator's states by linear regression on true ones, mean over the generator's dimensions (Sedler 2023)",
    "state_r2_of_true": "R2 of true states by regression on the generator's, weighted by variance; fitted and measured on the same trials",
    "co_bps": "bits per spike of held-out units taken together (Pei 2021, eq. 3)",
    "co_bps_units": "bits per spike of each held-out unit, mean over those that fire",
    "fp_bps": "bits per spike in held-out bins, all units taken together (Pei 2021)",
    "psth_r2": "R2 of the trial averages of each condition, rates against data, weighted by variance; for data with conditions",
    "cycle_consistency": "R2 of factors recovered from log rates by the readout's pseudo-inverse, cut at 1 % of variance (Versteeg 2023)",
    "cycle_consistency_states": "R2 of the generator's states recovered from log rates by the readout's pseudo-inverse (CtDBenchmark)",
    "cycle_consistency_refitted": "the same, by the readout that scikit-learn 1.6 to 1.8 refits without directions of small variance",
} | {
    f"{name}_true": f"{name} of the true rates, which a model's can hardly exceed"
    for name in ("co_bps", "co_bps_units", "fp_bps", "psth_r2")
}
"""Metrics over all evaluation trials, computed by `ctd.lfads.scores`: name -> definition."""

_TIMES = ("trial", "time")
MEANS = {
    "rates": Var((*_TIMES, "unit"), "1/bin", "posterior mean of rates (likelihood gaussian: of means)"),
    "factors": Var((*_TIMES, "factor"), "1", "posterior mean of factors"),
    "inferred_inputs": Var((*_TIMES, "inferred"), "1", "posterior mean of inferred inputs"),
    "states": Var((*_TIMES, "state"), "1", "posterior mean of the generator's states"),
    "initial_conditions": Var(("trial", "state"), "1", "posterior mean of the state before the trial"),
}  # fmt: skip
"""Posterior means of a trial, by name."""

DECODED = {
    "decoded_behavior": Var((*_TIMES, "channel"), "1", "posterior mean of behaviour, by the decoder of factors")
}  # fmt: skip

_BLOCK = ("batch",)
DIMS = {
    **{f"curve.train.{name}": Var(_BLOCK, "nat", f"{text} in training, mean over each block") for name, text in LONG.items()},
    "curve.train.l2": Var(_BLOCK, "1", "L2 penalty in training, before its ramp"),
    "curve.train.gradient_norm": Var(_BLOCK, "nat", "norm of the gradient before clipping"),
    "curve.train.learning_rate": Var(_BLOCK, "1", "learning rate, mean over each block"),
    **{f"curve.eval.{name}": Var(_BLOCK, "nat", f"{text} per trial, all evaluation trials") for name, text in LONG.items()},
    **{f"eval_{name}": Var((), "nat", f"{text} per trial at the best weights, all evaluation trials") for name, text in LONG.items()},
    "smoothed_nll": Var(
        (), "nat", "negative log likelihood per trial with the weights as they are, smoothed: 0.3 of the last value, 0.7 of the new one"
    ),
    "bits_per_spike": Var((), "bit", "bits per spike of the posterior mean, over seen units and bins, first n_metric trials", True),
    "rate_r2": Var(
        (), "1", "squared correlation of rates with true ones over time, mean over the first n_metric trials and all units", True
    ),
    **{name: Var((), "bit" if "_bps" in name else "1", f"{text}; all evaluation trials", True) for name, text in SCORES.items()},
    "input_r2": Var((), "1", "squared correlation of inferred inputs with true ones over time", True),
    "input_r2_by_lag": Var(("lag",), "1", "the same with true inputs `lag` bins later"),
    "initial_state_r2": Var(
        (), "1", "R2 of true initial states by ridge regression on inferred ones, fitted on one half of the trials, measured on the other",
        True,
    ),
    "behavior_r2": Var((), "1", "R2 of behaviour by ridge regression on factors", True),
    **{f"session_{name}": Var(("session",), "nat", f"eval_{name} of each session, as of a model of it alone") for name in ("loss", "nll")},
    **{f"session_{name}": Var(("session",), "bit", f"{name} of each session", True) for name in ("co_bps", "bits_per_spike")},
    **MEANS,
    **{f"train_{name}": Var(("train_trial", *var.axes[1:]), var.units, f"{var.long_name}, training") for name, var in MEANS.items()},
    "trial_session": Var(("trial",), "1", "number of the trial's session"),
    "train_trial_session": Var(("train_trial",), "1", "the same for training trials"),
    "batches": Var((), "1", "training steps taken"),
    "best_batch": Var((), "1", "training steps before the best evaluation"),
    "outcome": Var((), "1", "how training ended"),
} | _model_dims()  # fmt: skip
