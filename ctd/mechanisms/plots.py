"""Pictures: spikes of a recording; confusion, accuracy by size, and where recordings lie among those of an atlas."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from ctd.mechanisms.families import NAMES
from ctd.plots import Axis, Group, Image, Layer, Lines, Plot, Points, Scale, of_group
from ctd.words import number


@of_group
def recording_plots(group: Group) -> list[Plot]:
    """The factors of the first recording of each mechanism, and the counts of a trial of the first recording."""
    firsts = np.unique(group.results["recording.mechanism"][:], return_index=True)[1].tolist()
    counts = np.asarray(group.results["train"][0], float)[0]
    title = f"Spikes of one trial, {_describe_row(group, 0)}"
    spikes = Plot(title, [Image(counts.T)], Axis("bin"), Axis("unit"), Scale("count"))
    return [*(_factors(group, row) for row in firsts), spikes]


def _describe_row(group: Group, row: int) -> str:
    kind = int(group.results["recording.mechanism"][row])
    return f"{NAMES[kind] if kind >= 0 else 'own data'}, item {group.columns['item'][row]}"


def _factors(group: Group, row: int) -> Plot:
    factors = np.asarray(group.results["recording.factors"][row], float)[:20]
    lines, title = (
        Lines(factors[:, :, 0], factors[:, :, 1]),
        f"Factors, {_describe_row(group, row)}",
    )
    return Plot(
        title, [lines], Axis("factor 1"), Axis("factor 2"), equal=True, note="Twenty trials."
    )


def _confusion(group: Group) -> Plot:
    counts = np.asarray(group.reduced["confusion"], float)[-1]
    names = [str(name) for name in group.reduced["left_out"]]
    n = int(group.reduced["size_n_neurons"][-1]), int(group.reduced["size_n_trials"][-1])
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    return Plot(
        f"Unseen members, {n[0]} neurons, {n[1]} trials", [Image(shares)],
        Axis("likeliest mechanism", ticks=names), Axis("mechanism", ticks=names), Scale("share", low=0.0, high=1.0),
    )  # fmt: skip


RIGHT = {
    "fits": "accuracy", "fits and plain features": "accuracy_both",
    "plain features (lower bound)": "accuracy_plain", "true system (upper bound)": "accuracy_truth",
}  # fmt: skip
NONE_SHARES = {"fits": "none_found", "true system (upper bound)": "none_found_truth"}
"""Legend -> column of the table of sizes."""


class _Sizes(NamedTuple):
    """The table of sizes, as pictures need it."""

    names: list[str]
    """Neurons x trials."""
    place: np.ndarray
    """(row,) index into `names`."""
    levels: np.ndarray
    """Levels of noise, from the least on."""
    level: np.ndarray
    """(row,) index into `levels`."""


def _sizes(group: Group) -> _Sizes:
    pairs = zip(group.reduced["size_n_neurons"], group.reduced["size_n_trials"], strict=True)
    of_row = [f"{n} x {k}" for n, k in pairs]
    names = [*dict.fromkeys(of_row)]
    levels, level = np.unique(np.asarray(group.reduced["size_noise"]), return_inverse=True)
    return _Sizes(names, np.asarray([*map(names.index, of_row)]), levels, level)


def _by_noise(group: Group) -> Plot:
    names, place, levels, level = _sizes(group)
    kinds, layers = {"": "accuracy", ", plain features": "accuracy_plain"}, list[Layer]()
    for suffix, key in kinds.items():
        for k, name in enumerate(names):
            rows = np.flatnonzero(place == k)
            rows = rows[np.argsort(level[rows])]
            share = np.asarray(group.reduced[key], float)[rows]
            layers.append(Lines(level[rows], share, f"{name}{suffix}", dashed=suffix != ""))
    axis = Axis("noise on the state", ticks=[number(level, 3) for level in levels])
    return Plot("Unseen members told right, by neurons x trials", layers, axis, Axis("share"))


def _by_size(group: Group, title: str, kinds: dict[str, str]) -> Plot:
    names, place, _, level = _sizes(group)
    least = np.flatnonzero(level == 0)
    shares = [np.asarray(group.reduced[key], float)[least] for key in kinds.values()]
    if len(names) == 1:  # one size makes no line, and marks above each other would hide one another
        points = Points(np.concatenate(shares), np.arange(len(kinds)))
        label = "share, {} neurons, {} trials".format(*names[0].split(" x "))
        # Without "(upper bound)", which would reach into the picture beside.
        rows = Axis(ticks=[kind.partition(" (")[0] for kind in kinds])
        return Plot(title, [points], Axis(label), rows)
    # Dashed above the others, so that neither hides one that it coincides with.
    layers = [
        Lines(place[least], share, name, dashed="bound" in name)
        for name, share in zip(kinds, shares, strict=True)
    ]
    return Plot(title, layers, Axis("neurons x trials", ticks=names), Axis("share"))


def _places(group: Group) -> Plot:
    place, true = np.asarray(group.reduced["place"], float), np.asarray(group.reduced["true"])
    verdict, layers = np.asarray(group.reduced["verdict"], str), list[Layer]()
    has_atlas = "atlas_place" in group.reduced
    if has_atlas:
        around, atlas_true = (
            np.asarray(group.reduced[f"atlas_{name}"]) for name in ("place", "true")
        )
        for name in dict.fromkeys(atlas_true.tolist()):
            x, y = around[atlas_true == name].T[:2]
            layers.append(Points(x, y, f"{name}, atlas", hollow=True))
    for name in dict.fromkeys(true.tolist()):
        rows = true == name
        x, y = place[rows].T[:2]
        marker: Literal["diamond", "circle"] = "diamond" if has_atlas else "circle"
        size = np.full(len(x), 0.2) if has_atlas else None
        layers.append(Points(x, y, name, text=verdict[rows].tolist(), marker=marker, size=size))
    return Plot("Recordings, by what was read off their fits", layers, Axis("component 1"), Axis("component 2"))  # fmt: skip


@of_group
def plots(group: Group) -> list[Plot]:
    """The pictures of an atlas, or the place of recordings; none before a gather."""
    if "place" not in group.reduced:
        return []
    if "confusion" not in group.reduced:
        return [_places(group)]
    return [
        _confusion(group),
        _by_size(group, "Unseen members told right", RIGHT),
        *([_by_noise(group)] if len(_sizes(group).levels) > 1 else []),
        _by_size(group, "Unknown mechanisms told as none of these", NONE_SHARES),
        _places(group),
    ]
