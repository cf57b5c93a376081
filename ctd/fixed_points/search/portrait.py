"""A network's states and points in the states' principal components, and the colours that its pictures share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ctd.fixed_points.network import Network, outputs_of
from ctd.fixed_points.pictures import Sort
from ctd.late import jax, jnp
from ctd.plots import Group, Scale
from ctd.principal import principal
from ctd.rows import Columns

N_TRIALS = 60
"""Trials that are drawn at most."""


@dataclass(frozen=True)
class Portrait:
    """The states, points and colours that the pictures of a network share."""

    states: np.ndarray
    """(trial, time, state) the states that the candidates were taken from."""
    reduced: Columns
    """The table of points."""
    project: Callable[[np.ndarray], np.ndarray]
    """(..., state) -> (..., component), up to three principal components of the states."""
    share: np.ndarray
    """(component,) part of the variance of each component."""
    colour: Callable[[np.ndarray], np.ndarray]
    """(k, state) -> (k,): the first output, or the first component if there is no readout."""
    at_points: np.ndarray
    """(point,) the colour of each point."""
    scale: Scale
    flow: bool
    """True if the eigenvalues are those of a flow."""
    several: bool
    """True if the table has points of several constant inputs."""


def portrait(group: Group) -> Portrait:
    """Project and colour the states and points of a group."""
    states = np.asarray(group.shared.states, float)
    flat = states.reshape(-1, states.shape[-1])
    project, share = principal(flat, 3)  # the points do not turn the axes
    # Those of the table, which an older one lacks: another machine may turn an axis round.
    if "plane_axes" in group.reduced:
        mean, axes = (np.asarray(group.reduced[f"plane_{name}"]) for name in ("mean", "axes"))
        project = lambda values: (np.asarray(values, float) - mean) @ axes
    # Without a readout, `output` has no columns.
    n = np.shape(group.reduced["output"])[1]
    colour = _first_output(group.shared) if n else lambda h: project(h)[:, 0]
    at_points = colour(np.asarray(group.reduced["point"], float))
    # With the maximum, extreme trials would leave the rest pale. Where all are 0, any limit does.
    values = np.abs(np.concatenate([colour(flat[:20_000]), at_points]))
    limit = float(np.quantile(values, 0.98)) or 1.0
    label = f"readout 1 of {n}" if n > 1 else "readout" if n else "principal component 1"
    scale = Scale(label, diverging=True, low=-limit, high=limit)
    flow = group.inputs.time == "continuous"
    several = len(np.unique(group.reduced["constant_input"], axis=0)) > 1
    return Portrait(states, group.reduced, project, share, colour, at_points, scale, flow, several)


def _first_output(shared: Network) -> Callable[[np.ndarray], np.ndarray]:
    outputs = jax.jit(lambda h: outputs_of(shared, h)[:, 0])
    return lambda h: np.asarray(outputs(jnp.asarray(h, shared.states.dtype)))


def sorts(reduced: Columns, rows: np.ndarray) -> list[Sort]:
    """Each sort of point that occurs among these rows."""
    kind, stability = (np.asarray(reduced[name])[rows] for name in ("kind", "stability"))
    every_sort = []
    for stability_name in ("stable", "marginal", "unstable"):
        for kind_name in ("fixed", "slow"):
            sort_rows = rows[(kind == kind_name) & (stability == stability_name)]
            every_sort.append(
                Sort(
                    f"{kind_name}, {stability_name}",
                    sort_rows,
                    kind_name == "slow",
                    stability_name == "unstable",
                )
            )
    return [sort for sort in every_sort if len(sort.rows)]
