"""The figure of a network's fixed points: state space and eigenvalues."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ctd.cells import Cell, readout
from ctd.fixed_points.candidates import Network, find_cell
from ctd.principal import principal

N_TRIALS = 60
"""Largest number of trials that are drawn."""
N_SPECTRA = 12
"""Eigenvalues are drawn of at most so many points, those with the largest basins."""


def figure(
    inputs: Any,
    shared: Network,
    columns: Mapping[str, np.ndarray],
    results: Mapping[str, np.ndarray],
    reduced: Mapping[str, np.ndarray],
) -> Any:
    """Points and trials in the states' first two principal components, and the eigenvalues of dF/dh.

    Colour shows the first output of a state, or its first principal component if there is no readout.
    """
    del columns, results
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    trials = np.asarray(shared.states, float)
    points = np.asarray(reduced["point"], float)
    flat = trials.reshape(-1, trials.shape[-1])
    project, _ = principal(flat, 2)
    colour = colour_of(inputs, shared, project)
    at_points = colour(points)
    limit = colour_limit(colour, flat, at_points)
    mappable = ScalarMappable(Normalize(-limit, limit), "coolwarm")

    fig = Figure(figsize=(12, 5.6), layout="constrained")
    FigureCanvasAgg(fig)
    space, plane = fig.subplots(1, 2, width_ratios=(1.25, 1))
    _draw_space(space, project, trials, colour, mappable, reduced, at_points)
    _draw_spectra(plane, mappable, reduced, at_points)
    fig.colorbar(mappable, ax=space, label=colour_label(reduced), shrink=0.8)
    return fig


def colour_of(inputs: Any, shared: Network, project: Any) -> Any:
    """A function (k, state) -> (k,): the first output, or the first principal component if there is no readout."""
    cell = find_cell(inputs.cell)
    if "wO" not in shared.weights or not isinstance(cell, Cell):
        return lambda h: project(h)[:, 0]
    weights = {name: jnp.asarray(w) for name, w in shared.weights.items()}
    outputs = jax.jit(jax.vmap(lambda h: readout(cell, weights, h)[0]))
    return lambda h: np.asarray(outputs(jnp.asarray(h, shared.states.dtype)))


def colour_limit(colour: Any, states: np.ndarray, at_points: np.ndarray) -> float:
    """The end of the colour scale: a 0.98 quantile, since with the maximum extreme trials leave the rest pale."""
    values = np.abs(np.concatenate([colour(states[:20_000]), at_points]))
    return float(np.quantile(values, 0.98)) or 1.0


def colour_label(reduced: Mapping[str, np.ndarray]) -> str:
    """The label of the colour scale."""
    return "readout" if np.shape(reduced["output"])[1] else "principal component 1"


def sorts(reduced: Mapping[str, np.ndarray]) -> list[tuple[str, np.ndarray, Any, bool]]:
    """(label, rows, marker, hollow) of each sort of point that occurs: hollow if unstable, a diamond if slow."""
    slow = np.asarray(reduced["kind"]) == "slow"
    stable = np.asarray(reduced["stable"], bool)
    found: list[tuple[str, np.ndarray, Any, bool]] = [
        ("fixed, stable", np.flatnonzero(~slow & stable), "circle", False),
        ("fixed, unstable", np.flatnonzero(~slow & ~stable), "circle", True),
        ("slow, stable", np.flatnonzero(slow & stable), "diamond", False),
        ("slow, unstable", np.flatnonzero(slow & ~stable), "diamond", True),
    ]
    return [sort for sort in found if len(sort[1])]


def _draw_space(
    ax: Any,
    project: Any,
    trials: np.ndarray,
    colour: Any,
    mappable: Any,
    reduced: Mapping[str, np.ndarray],
    at_points: np.ndarray,
) -> None:
    from matplotlib.collections import LineCollection

    if trials.shape[1] > 1:
        for trial in trials[:N_TRIALS]:
            path = project(trial)
            segments = list(np.stack([path[:-1], path[1:]], axis=1))
            shade = mappable.to_rgba(colour(trial[1:]))
            ax.add_collection(LineCollection(segments, colors=shade, lw=0.8, alpha=0.5))
    else:
        some = trials[:2000, 0]
        ax.scatter(*project(some).T, c=mappable.to_rgba(colour(some)), s=4, alpha=0.4, lw=0)
    where = project(reduced["point"])
    size = 40 + 260 * np.sqrt(reduced["basin_share"])
    for label, some, marker, hollow in sorts(reduced):
        face = "white" if hollow else mappable.to_rgba(at_points[some])
        ax.scatter(
            *where[some].T,
            s=size[some],
            facecolors=face,
            edgecolors=mappable.to_rgba(at_points[some]) if hollow else "black",
            linewidths=2.0 if hollow else 1.0,
            zorder=3,
            label=f"{label} ({len(some)})",
            marker={"circle": "o", "diamond": "D"}[marker],
        )
    ax.autoscale_view()
    ax.set(xlabel="principal component 1", ylabel="principal component 2")
    ax.set_title(f"{len(where)} points, area by basin share")
    if len(where):
        legend = ax.legend(frameon=False, fontsize="small")
        for handle in legend.legend_handles:
            handle.set_sizes([40])


def _draw_spectra(
    ax: Any, mappable: Any, reduced: Mapping[str, np.ndarray], at_points: np.ndarray
) -> None:
    angle = np.linspace(0, 2 * np.pi, 400)
    ax.plot(np.cos(angle), np.sin(angle), color="0.4", lw=1)
    ax.axhline(0, color="0.9", lw=0.8, zorder=0)
    ax.axvline(0, color="0.9", lw=0.8, zorder=0)
    shown = np.argsort(-np.asarray(reduced["count"]), kind="stable")[:N_SPECTRA]
    for row in shown:
        values = reduced["eigenvalue"][row]
        unstable = np.abs(values) > 1
        shade = mappable.to_rgba(at_points[row])
        ax.scatter(values.real, values.imag, s=14, color=shade, alpha=0.7, lw=0)
        ax.scatter(
            values.real[unstable], values.imag[unstable], s=60, facecolors="none", edgecolors=shade
        )
    ax.set_aspect("equal", adjustable="datalim")
    ax.set(xlabel="Re eigenvalue", ylabel="Im eigenvalue")
    ax.set_title(f"eigenvalues of dF/dh at {len(shown)} points; ringed: unstable")
