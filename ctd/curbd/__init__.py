"""Kernel: constrain a network by recorded activity, unit by unit, and divide the currents in it by source region (CURBD).

A network has as many units as were recorded. Recursive least squares (RLS) changes all of its weights J at each bin, until each unit's
rate follows its own recording. The current from one region to another is then J[target, source] r[source], which
neither region's activity shows alone (Perich et al. 2020, "Inferring brain-wide interactions using data-constrained recurrent neural
network models", bioRxiv 2020.12.18.423348).

    kernel: curbd
    params: {data: rates.npy, dt: 0.01, regions: {A: 0-99, B: 100-199}}
    sweep: {grid: {g: [1.2, 1.5, 1.8]}, seeds: 8}

An item is one network. One `advance` is `report_every` training runs; after the last, the network runs freely.

    params   Curbd: the parameters of one item; activity and regions
    model    Euler steps, a training run, a free run, currents
    summary  the best fits of a group, currents between regions, pictures
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ctd.cells import weight_dims
from ctd.curbd.model import Constants, constants, currents, explained, free_run, training_run
from ctd.curbd.params import Curbd, Shared, load
from ctd.curbd.summary import REDUCED, next_jobs, plots, reduce
from ctd.kernel import OWN_WEIGHTS, Coordinate, Display, Kernel, Outcome, Tables, Values, Var, View
from ctd.late import Array, Float, Int, jax, jnp, lax
from ctd.rls import Symmetric, scaled_identity
from ctd.rows import Best

__all__ = ["Curbd", "kernel"]

FITTED, DIVERGED, ILL_CONDITIONED, SILENT = range(4)


class State(NamedTuple):
    """A network between two training runs."""

    J: Float[Array, "unit unit"]
    P: Symmetric
    runs: Int[Array, ""]
    """Training runs done."""
    pvar_curve: Float[Array, "run"]
    error_curve: Float[Array, "run"]
    outcome: Int[Array, ""]


def init(static: View[Curbd], shared: Shared, traced: Values[Curbd], key: Array) -> State:
    """Draw a network that has learnt nothing."""
    n = shared.x.shape[2]
    nothing = jnp.full(static.n_runs, jnp.nan, static.dtype)
    # A network at 0 stays there, whatever its weights, unless noise moves it.
    silent = (traced.noise == 0) & ~jnp.any(jnp.asarray(shared.x)[:, 0] != 0)
    key_weights, _ = jax.random.split(jax.random.fold_in(key, traced.seed))
    standard_normal = jax.random.normal(key_weights, (n, n), static.dtype)
    return State(
        jnp.asarray(traced.g, static.dtype) * standard_normal / n**0.5,
        scaled_identity(jnp.asarray(traced.alpha, static.dtype), n, static.dtype),
        jnp.zeros((), jnp.int32),
        nothing,
        nothing,
        jnp.where(silent, SILENT, FITTED).astype(jnp.int32),
    )


def _run_inputs(
    static: View[Curbd], shared: Shared, traced: Values[Curbd], key: Array
) -> tuple[Constants, Array, Array]:
    """The inputs of every run of an item: (constants, activity, white noise). The noise is the same in all runs."""
    x = jnp.asarray(shared.x)
    shape = (len(x), x.shape[1] - 1, static.steps, x.shape[2])  # a run begins at the first bin
    _, key_noise = jax.random.split(jax.random.fold_in(key, traced.seed))
    white = jax.random.normal(key_noise, shape, static.dtype)
    return constants(static, shared, traced), x, white


def advance(
    static: View[Curbd], shared: Shared, traced: Values[Curbd], key: Array, state: State
) -> State:
    """Make `report_every` training runs."""
    c, x, white = _run_inputs(static, shared, traced, key)
    # `error_curve` is a mean over recordings, bins after the first, and units.
    updates = len(x) * (x.shape[1] - 1) * x.shape[2]

    def run(state: State, _: None) -> tuple[State, None]:
        end, P = training_run(static, c, x, white, state.J, state.P)
        finite = jnp.isfinite(end.J).all() & jnp.isfinite(end.apart)
        run_outcome = jnp.where(end.sound, jnp.where(finite, FITTED, DIVERGED), ILL_CONDITIONED)
        # The first failure tells; later runs of this advance are as they may be.
        outcome = jnp.where(state.outcome == FITTED, run_outcome, state.outcome).astype(jnp.int32)
        return State(
            end.J,
            P,
            state.runs + 1,  # failed runs count, too
            state.pvar_curve.at[state.runs].set(explained(x, end.apart)),
            state.error_curve.at[state.runs].set(end.error / updates),
            outcome,
        ), None

    return lax.scan(run, state, length=static.report_every)[0]


def result(
    static: View[Curbd], shared: Shared, traced: Values[Curbd], key: Array, state: State
) -> dict[str, Array]:
    """The free run of the network, and the currents in it by source region."""
    c, x, white = _run_inputs(static, shared, traced, key)
    rates = free_run(c, x, white, state.J)
    pvar = explained(x, jnp.sum((x - rates) ** 2))  # of a run that no longer learns
    # In training RLS corrects the weights at each bin; alone, the same network may run away.
    diverged = (state.outcome == FITTED) & ~jnp.isfinite(pvar)
    member = jnp.asarray(shared.member)
    # One source after the other: the currents from all of them are as many times the recording.
    power = lax.map(lambda m: jnp.mean(currents(state.J, rates, m) ** 2, (0, 1)), member)
    values = {
        "pvar": pvar,
        "pvar_curve": state.pvar_curve,
        "error_curve": state.error_curve,
        # power is (source, unit): the product with member takes means over the units of each target.
        "current_rms": jnp.sqrt((member @ power.T) / member.sum(1, keepdims=True)),
        "runs": state.runs,
        "outcome": jnp.where(diverged, DIVERGED, state.outcome),
    }
    saved = rates[0, : static.n_saved]
    if "currents" in static.record:
        values["currents"] = lax.map(lambda m: currents(state.J, saved, m), member)
    if "rates" in static.record:
        values["rates"] = saved
    if "weights" in static.record:
        n = x.shape[2]
        # tau dh/dt = -h + J tanh(h) in Euler steps is the cell `leaky` with alpha = step / tau; its noise stays out.
        weights = {"wR": state.J, "wI": jnp.zeros((n, 0), static.dtype), "alpha": c.rate}
        weights |= {"bR": jnp.zeros(n, static.dtype), "h0": x[0, 0]}
        values |= {f"weights.{name}": value for name, value in weights.items()}
    return values


def coords(inputs: View[Curbd], shared: Shared) -> Mapping[str, Coordinate]:
    """Runs, the time of stored bins, in the unit of dt, and the names of regions."""
    n = min(inputs.n_saved, shared.x.shape[1])
    names = np.array(list(inputs.regions))
    return {
        "source": Coordinate(names, "1", "region from which the current comes"),
        "target": Coordinate(names, "1", "region that gets it"),
        "unit": Coordinate(names[np.argmax(shared.member, axis=0)], "1", "region of the unit"),
        "run": Coordinate(np.arange(1, 1 + inputs.n_runs), "1", "number of the training run"),
        "time": Coordinate(inputs.dt * np.arange(n), "1", "time in the free run, as dt"),
    }


kernel = Kernel(
    name="curbd", Params=Curbd,
    dims=weight_dims(["leaky"], " of the network in steps of dt / steps")
    | {
        "pvar": Var((), "1", "share of the activity's variance that the free run explains: 1 - |x - r|^2 / (N T sd^2)", True),
        "pvar_curve": Var(("run",), "1", "variance explained in training runs", True),
        "error_curve": Var(("run",), "1", "mean squared error of training runs, each before its update"),
        "current_rms": Var(("target", "source"), "1", "root mean square of the current that a unit of region `target` gets from region `source`, in the order of `regions`"),
        "currents": Var(("source", "time", "unit"), "1", "current that a unit gets from region `source`, in the free run"),
        "rates": Var(("time", "unit"), "1", "rates of the free run"),
        "runs": Var((), "1", "training runs done"),
        "outcome": Var((), "1", "how the fit ended"),
    },
    load=load, init=init, advance=advance,
    # The curve has an entry for each of the n_runs.
    finished=lambda state: (state.outcome != FITTED) | (state.runs == state.pvar_curve.shape[0]), result=result,
    outcomes=(
        Outcome("fitted", "all training runs were made"),
        Outcome("diverged", "weights or rates are not finite", failed=True),
        Outcome("ill_conditioned", "P of RLS is no longer positive definite; use dtype float64 or a smaller alpha", failed=True),
        Outcome("silent", "recordings begin with 0 in all units, and without noise the network stays there; give noise, or cut the first bins off", failed=True),
    ),
    coords=coords, tables=Tables(reduce=reduce, of_failed=True, dims=REDUCED, Options=Best), advances=lambda inputs: inputs.n_runs // inputs.report_every,
    batching=OWN_WEIGHTS,
    display=Display(
        summary=("item", "pvar"), plots=plots, png_plots=3, metric="pvar",
        # scaled by unit, all units count alike
        measured_on=("data", "dataset", "scale"), next_jobs=next_jobs, curves=("pvar_curve",),
    ),
)  # fmt: skip
