"""The figures of fits: the attractor, true and generated, spectra, loss curves, measures."""

from __future__ import annotations

import numpy as np

from ctd.plots import Axis, Figure, Group, Layer, Lines, Plot, Points, of_group
from ctd.plots.curves import Curves, block_ends, loss_curves
from ctd.principal import principal
from ctd.reconstruct.params import AT_REST
from ctd.rows import best_row

MOST = 3000
"""Samples of an attractor that are drawn."""


def _generated(group: Group, row: int) -> np.ndarray:
    """(step, channel) the observations of the stored states of an item."""
    read = lambda name: np.asarray(group.results[name][row], float)
    return np.asarray(read("states") @ read("weights.wO").T + read("weights.bO"))


def _which(group: Group) -> str:
    """The recording that is drawn, as text; "" if there is no other."""
    n = len(group.shared.measured.x)
    return f"The first of {n:,} recordings (trials)." if n > 1 else ""


def _attractor(group: Group, row: int, item: int) -> Plot:
    """Two channels, or the first two principal components of the data."""
    true = np.asarray(group.shared.measured.x[0], float)[:MOST]
    # The network's run is drawn in the components of the data, where both compare.
    made = _generated(group, row)[:MOST]
    if true.shape[1] > 1:
        project, share = principal(true, 2)
        names = [f"component {k + 1} ({part:.0%})" for k, part in enumerate(share[:2])]
        parts = lambda v: project(v).T
    else:
        names = ["sample", "next sample"]
        # One channel alone is drawn against its next value.
        parts = lambda v: np.stack([v[:-1, 0], v[1:, 0]])
    (x, y), (u, v) = parts(true), parts(made)
    run: Layer = Lines(u, v, f"network, item {item}")
    if group.results["outcome"][row] == AT_REST:  # a line of no length would not be seen
        run = Points(u[-1:], v[-1:], f"network, item {item}, at rest", marker="diamond")
    layers = [Lines(x, y, "data", faint=True), run]
    x_axis, y_axis = map(Axis, names)
    return Plot("Attractor, true and generated", layers, x_axis, y_axis, note=_which(group))


def _spectra(group: Group, row: int, item: int) -> Plot:
    """Spectra of the first channel, of equal lengths."""
    made = _generated(group, row)[:, 0]
    true = np.asarray(group.shared.measured.x[0, : len(made), 0], float)
    n = min(len(made), len(true))
    frequency = np.fft.rfftfreq(n, float(group.inputs.dt))[1:]
    # The ends of a series do not meet: without a window they would spread power over all frequencies.
    window = np.hanning(n)

    def power(values: np.ndarray) -> np.ndarray:
        centred = (values[:n] - values[:n].mean()) * window
        return np.asarray(np.abs(np.fft.rfft(centred))[1:] ** 2 / n)

    layers = [
        Lines(frequency, power(true), "data", faint=True),
        Lines(frequency, power(made), f"network, item {item}"),
    ]
    return Plot("Power spectra, channel 0", layers, Axis("frequency (1 / unit of dt)"), Axis("power", log=True), note=_which(group))  # fmt: skip


def _beside_d_stsp(group: Group, name: str, title: str, axis: Axis) -> Plot:
    """Another measure of all fits against their D_stsp."""
    items = np.asarray(group.columns["item"][:])
    read = lambda name: np.asarray(group.results[name][:], float)
    x, y, exponent = read("d_stsp"), read(name), read("exponent")
    fine = np.isfinite(x) & np.isfinite(y)
    text = [f"item {k}: exponent {e:.4g}" for k, e in zip(items[fine], exponent[fine], strict=True)]
    layer = Points(x[fine], y[fine], text=text, key=items[fine], item=items[fine])
    return Plot(title, [layer], Axis("D_stsp"), axis)


def _curves(group: Group) -> Plot:
    outcome = np.asarray(group.results["outcome"][:])
    curves = Curves(
        block_ends(group.inputs),
        group.results["curve"],
        np.asarray(group.columns["item"][:]),
        np.asarray(group.results["train_loss"][:], float),
        outcome == 1,
    )
    title = f"Fitting {group.inputs.cell}, n = {group.inputs.n}"
    return loss_curves(curves, title, Axis("squared error of forced predictions", log=True), "fits")


@of_group
def plots(group: Group) -> list[Plot]:
    """The attractor and spectra of the best fit, loss curves, measures of all. Where all runs rest, the point of the first one."""
    row, still = (
        best_row(group.results, "d_stsp"),
        np.asarray(group.results["outcome"][:]) == AT_REST,
    )
    made = [
        _curves(group),
        _beside_d_stsp(group, "d_h", "How near the attractors are", Axis("D_H")),
        _beside_d_stsp(group, "exponent", "Largest exponents", Axis("exponent (1 / unit of dt)")),
    ]
    items = [int(item) for item in group.columns["item"][:]]
    if row is not None:
        return [_attractor(group, row, items[row]), _spectra(group, row, items[row]), *made]
    # Runs at rest have no spectrum.
    return [*(_attractor(group, k, items[k]) for k in np.flatnonzero(still)[:1]), *made]


@of_group
def figure(group: Group) -> Figure:
    """The attractor and spectra of the best fit; loss curves where none is left."""
    return Figure(plots(*group)[:2])
