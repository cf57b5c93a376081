"""Colour and group the lines of many items in a plot by one of the swept parameters."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from ctd.plots import Band, Layer, Lines, Plot, Scale, has_line, is_wide
from ctd.plots.curves import curve_quantiles
from ctd.words import number

MAX_VALUES = 10
"""Distinct values up to which lines are grouped by value, with medians."""
MANY = 3
"""Lines of one value, on average, from which on medians are drawn."""


def by_swept(plot: Plot, name: str, values: Mapping[int, Any]) -> Plot:
    """Colour the lines of a plot by the parameter `name`; add medians if few values have many lines each.

    A legend names up to MAX_VALUES values; a colour bar shows more.

    values: item -> its value, a number or a text. The plot is returned unchanged if no layer has an `item`, if all items
    have one value, or if there are more than MAX_VALUES texts.

    >>> plot = Plot("Loss", [Lines([0, 1], [[3.0, 2.0], [3.0, 1.0]], item=np.array([0, 1]))])
    >>> [layer.name for layer in by_swept(plot, "g", {0: 0.5, 1: 1.5}).layers]
    ['g = 0.5', 'g = 1.5']
    """
    owned = [layer for layer in plot.layers if isinstance(layer, Lines) and layer.item is not None]
    has = _have_lines(owned, values)
    # Colours span the values that are drawn, if they are several.
    visible = sorted(kind for kind in has if has[kind])
    kinds = visible if len(visible) > 1 else sorted(has)
    if len(kinds) < 2:  # one value tells nothing
        return plot
    numeric = all(map(_is_number, kinds))
    if not numeric and len(kinds) > MAX_VALUES:
        return plot
    # A sweep over decades is coloured by its logarithm.
    wide = numeric and is_wide(kinds)
    n_lines = sum(len(layer.item) for layer in owned)
    medians = len(kinds) <= MAX_VALUES and n_lines >= MANY * len(kinds)
    shade = {
        kind: (np.log10(kind) if wide else kind) if numeric else k for k, kind in enumerate(kinds)
    }
    layers: list[Layer] = []
    for layer in plot.layers:
        if isinstance(layer, Lines) and layer.item is not None:
            layers += _grouped(layer, name, values, shade, numeric, medians)
        elif not medians or not (isinstance(layer, Band) or getattr(layer, "strong", False)):
            layers.append(layer)  # what sums up all lines would hide the medians
    # Strong lines last, so that nothing covers them.
    layers.sort(key=lambda layer: getattr(layer, "strong", False))
    label = f"log10 {name}" if wide else name
    scale = Scale(label if len(kinds) > MAX_VALUES else "") if numeric else plot.scale
    notes = [plot.note, _missing_note(has, name), "Thick: median over items." * medians]
    note = " ".join(filter(None, notes))
    return dataclasses.replace(plot, layers=layers, scale=scale, note=note)


def _is_number(kind: Any) -> bool:
    return isinstance(kind, int | float | np.number) and not isinstance(kind, bool)


def _value_text(kind: Any) -> str:
    return number(float(kind), 3) if _is_number(kind) else str(kind)


def _have_lines(layers: list[Lines], values: Mapping[int, Any]) -> dict[Any, bool]:
    """Value -> True if one of its lines is visible: a line of NaN alone is not."""
    has: dict[Any, bool] = {}
    for layer in layers:
        for item, is_visible in zip(layer.item, has_line(np.atleast_2d(layer.y)), strict=True):
            kind = values[int(item)]
            has[kind] = has.get(kind, False) or bool(is_visible)
    return has


def _missing_note(has: Mapping[Any, bool], name: str) -> str:
    """Name the values without a line; "" if there are none, all, or more than MAX_VALUES."""
    missing = [_value_text(kind) for kind in sorted(has) if not has[kind]]
    if not 0 < len(missing) <= min(MAX_VALUES, len(has) - 1):
        return ""
    return f"No line of {name} = {', '.join(missing)}."


def _grouped(
    layer: Lines, name: str, values: Mapping[int, Any], shade: Mapping[Any, float], numeric: bool, medians: bool
) -> list[Layer]:  # fmt: skip
    """Split a layer into one for each value, each with a median line if there are `medians`."""
    # Item ids are NumPy integers; the mapping has Python's.
    line_values = [values[int(k)] for k in layer.item]
    y, x = np.atleast_2d(np.asarray(layer.y, float)), np.asarray(layer.x, float)
    layers: list[Layer] = []
    for k, (kind, colour) in enumerate(shade.items()):
        rows = np.flatnonzero([value == kind for value in line_values])
        if not len(rows):
            continue
        label = f"{name} = {_value_text(kind)}"
        if len(shade) > MAX_VALUES:  # the colour bar tells
            label = ""
        looks = {"colour": [colour] * len(rows)} if numeric else {"colour": None, "hue": k}
        ours = dataclasses.replace(
            layer, x=x if x.ndim == 1 else x[rows], y=y[rows], item=np.asarray(layer.item)[rows],
            text=[layer.text[int(row)] for row in rows] if len(layer.text) else (),
            name="" if medians else label, faint=medians, **looks,
        )  # fmt: skip
        layers.append(ours)
        if medians and x.ndim == 1 and not layer.dashed:
            look = {"colour": [colour]} if numeric else {"hue": k}
            layers.append(Lines(x, curve_quantiles(y[rows])[1], label, strong=numeric, **look))
    return layers
