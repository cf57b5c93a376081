"""Join the plots of several groups or stores into one plot."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from ctd.plots import spread
from jobs.report.page.encode import MAX_LINES, MAX_VERTICES

OF_ITEMS = ("y", "item", "text", "colour")
"""Fields of a layer of lines with one entry per line."""


def has_items(layer: dict[str, Any]) -> bool:
    """Whether the layer's marks belong to items."""
    return bool(layer.get("item"))


def is_curves(layer: dict[str, Any]) -> bool:
    """Whether the layer has a line per item over one common x: loss curves, not paths in a group's own plane."""
    return layer["kind"] == "lines" and has_items(layer) and not _per_line(layer["x"])


def together(
    pictures: Sequence[Sequence[dict[str, Any]]], wanted: Callable[[dict[str, Any]], bool]
) -> list[dict[str, Any]]:
    """Join the plots that all members have; each joined plot has the wanted layers of all members.

    pictures: the plots of each member, from `plot_json`. Plots with equal axis labels are joined; of several with equal
    labels, the k-th with the k-th.
    """
    keyed = [dict(zip(_keys(plots), plots, strict=True)) for plots in pictures]
    made: list[dict[str, Any]] = []
    for key, plot in keyed[0].items() if keyed else ():
        layers = [
            layer
            for plots in keyed
            for layer in plots.get(key, {"layers": []})["layers"]
            if wanted(layer)
        ]
        if layers and all(key in plots for plots in keyed):
            made.append({**plot, "layers": _merged(layers)})
    return made


def _keys(plots: Sequence[dict[str, Any]]) -> list[tuple[str, str, int]]:
    """The key of each plot: (label of x, label of y, number of earlier plots with the same labels)."""
    seen: Counter[tuple[str, str]] = Counter()
    keys = []
    for plot in plots:
        axes = plot["x"]["label"], plot["y"]["label"]
        keys.append((*axes, seen[axes]))
        seen[axes] += 1
    return keys


def _merged(layers: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Join layers of lines that differ only in their lines, up to the most lines of a layer."""
    made: dict[str, dict[str, Any]] = {}
    for k, layer in enumerate(layers):
        rest = {name: value for name, value in layer.items() if name not in OF_ITEMS}
        kind = json.dumps([rest, sorted(layer)]) if layer["kind"] == "lines" else str(k)
        if kind in made:
            known = made[kind]
            known.update({name: known[name] + layer[name] for name in OF_ITEMS if name in layer})
        else:
            made[kind] = dict(layer)
    return [_bounded(layer) if layer["kind"] == "lines" else layer for layer in made.values()]


def _bounded(layer: dict[str, Any]) -> dict[str, Any]:
    n = len(layer["y"])
    length = max(1, len(layer["y"][0])) if n else 1
    some = spread(n, max(1, min(MAX_LINES, MAX_VERTICES // length)))
    if len(some) == n or _per_line(layer["x"]):
        return layer
    return layer | {name: [layer[name][k] for k in some] for name in OF_ITEMS if name in layer}


def _per_line(x: Sequence[Any]) -> bool:
    return bool(x) and isinstance(x[0], list)
