"""Figures of the distances between networks: the matrix, the dendrogram, the embedding."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ctd.plots import Axis, Group, Image, Layer, Lines, Plot, Points, Scale, of_group
from ctd.rows import Columns
from ctd.similarity.networks import Annotations, read_annotations
from ctd.similarity.pairs import UNITS
from ctd.similarity.params import OF_DYNAMICS, OF_POINTS
from ctd.words import count, number

MOST_TICKS = 30
"""Most networks whose names stand on an axis."""

MOST_COLOURS = 10
"""Most different values that each get a colour and a line in the legend."""


@of_group
def plots(group: Group) -> list[Plot]:
    """The three figures; only the matrix if a distance is missing, none before a gather."""
    if "distances" not in group.reduced:
        return []
    inputs = group.inputs
    matrix, *others = pictures(group.reduced, read_annotations(inputs), inputs.method)
    n = np.shape(group.shared.values)[1]
    if inputs.method not in OF_POINTS + OF_DYNAMICS and n == inputs.n_samples:
        some = (
            f"{n:,} states of each network, evenly spread, are compared (n_samples). {matrix.note}"
        )
        matrix = replace(matrix, note=some.strip())
    return [matrix, *others]


def pictures(reduced: Columns, annotations: Annotations, method: str) -> list[Plot]:
    """The figures of the tables that `summary.tables` returns."""
    order = np.argsort(np.asarray(reduced["leaf"]))
    few = len(order) <= MOST_TICKS
    # Labels of replicates begin with the network's number.
    labels = [str(name).removeprefix(f"{k}: ") for k, name in enumerate(reduced["network"])]
    names = Axis(ticks=[f"{k}: {labels[k]}" for k in order] if few else ())
    matrix = _matrix(reduced, order, names, method)
    if int(reduced["n_missing"]):
        return [matrix]
    return [matrix, _dendrogram(reduced, names), _embedding(reduced, annotations)]


def _matrix(reduced: Columns, order: np.ndarray, names: Axis, method: str) -> Plot:
    missing, units = int(reduced["n_missing"]), np.asarray(reduced["components"])
    note = ""
    if method == "procrustes" and units.min() < units.max():
        note = f"Networks have {units.min()} to {units.max()} units; narrower ones are padded with zeros. "
    if (np.asarray(reduced["pair_distance"]) == 0).all():
        note += "All distances are 0. "
    if missing:
        note += (
            f"{missing} of {count(len(reduced['pair_distance']), 'pair')} without a distance, so that nothing is embedded or "
            f"clustered; sweep matrix_row over {{range: {len(order)}}}."
        )
    ordered = np.asarray(reduced["distances"])[np.ix_(order, order)]
    title = f"Distance of networks: {method}"
    numbers = [str(k) for k in order] if names.ticks else ()
    across = Axis("networks in the same order", ticks=numbers)
    return Plot(title, [Image(ordered)], across, names, Scale(UNITS[method]), note=note.strip())


def _dendrogram(reduced: Columns, names: Axis) -> Plot:
    """The dendrogram: each merge is a bracket between the middles of the two it joins; leaves stand beside the matrix's rows."""
    first, second = np.asarray(reduced["merge_first"]), np.asarray(reduced["merge_second"])
    # SciPy numbers the cluster of merge k n + k, after the n networks: `height` and `place` are indexed by such numbers.
    height = np.concatenate([np.zeros(len(first) + 1), reduced["merge_distance"]])
    place = [*np.asarray(reduced["leaf"], float)]
    x, y = [], []
    for k, (a, b) in enumerate(zip(first, second, strict=True)):
        top = height[len(first) + 1 + k]
        x.append([height[a], top, top, height[b]])
        y.append([place[a], place[a], place[b], place[b]])
        place.append((place[a] + place[b]) / 2)  # cluster n + k, for later merges
    n = len(np.unique(reduced["cluster"]))
    return Plot(
        f"Clusters of networks: {n}",
        [Lines(np.asarray(x), np.asarray(y), hue=0)],
        Axis("distance of clusters"),
        names,
    )


def _embedding(reduced: Columns, annotations: Annotations) -> Plot:
    points, share = np.asarray(reduced["embedding"]), np.asarray(reduced["embedding_share"])
    name = shown_parameter(reduced)
    labels = [str(label) for label in reduced["network"]]
    layers, scale = _coloured(points, labels, name, annotations)
    note = ""
    if name is not None and np.isfinite(reduced["r2"]).any():
        k = list(reduced["parameter"]).index(name)
        note = (
            f"{name} explains {float(reduced['r2'][k]):.0%} of the squared distances "
            f"(p = {float(reduced['r2_p'][k]):.2g}; Mantel r = {float(reduced['mantel'][k]):.2f})."
        )
    # Each row counts its own network too, at distance 0 from itself.
    alike = int((np.asarray(reduced["distances"]) == 0).sum(axis=1).max())
    if alike > 1:
        note = f"{alike} networks are at distance 0 from each other; their marks coincide. {note}"
    axis = lambda k: Axis(f"component {k + 1} ({share[k]:.0%})")
    return Plot(
        "Networks, embedded by distance", layers, axis(0), axis(1), scale, True, note.strip()
    )


def shown_parameter(reduced: Columns) -> str | None:
    """The parameter that explains most, the table's first; preferably one whose values several networks share."""
    names, values = [str(p) for p in reduced["parameter"]], np.asarray(reduced["n_values"])
    # A parameter with a different value for each network, such as a seed, explains everything and tells nothing.
    shared = [name for name, n in zip(names, values, strict=True) if 2 * n <= len(reduced["leaf"])]
    return next(iter([*shared, *names]), None)


def _coloured(
    points: np.ndarray, labels: list[str], name: str | None, annotations: Annotations
) -> tuple[list[Layer], Scale]:
    """Points with a colour for each value of the parameter, or on a colour scale for numbers with many values."""
    x, y, key = points[:, 0], points[:, 1], np.arange(len(points))
    # Without a parameter each network has its own colour and name.
    values = annotations.parameters[name] if name else np.asarray(labels)
    different = np.unique(values)
    many = len(different) > MOST_COLOURS
    if many and values.dtype.kind == "f":
        return [Points(x, y, colour=values, text=labels, key=key)], Scale(name or "")
    if many:
        return [Points(x, y, text=labels, key=key, numbered=True)], Scale()
    layers: list[Layer] = []
    for value in different:
        rows = np.flatnonzero(values == value)
        text = (
            f"{name or ''} {value if isinstance(value, str) else number(float(value), 3)}".strip()
        )
        layers.append(Points(x[rows], y[rows], text, text=[labels[k] for k in rows], key=key[rows]))
    return layers, Scale()
