"""The pictures of a network's fixed points: state space, spectra, shares of the searches, q of the candidates."""

from collections.abc import Sequence

import numpy as np

from ctd.fixed_points import linear
from ctd.fixed_points.line import line
from ctd.fixed_points.network import step_of
from ctd.fixed_points.pictures import ROUNDING, Part, input_text, parts, unit_circle
from ctd.fixed_points.search.methods import FIXED, SLOW
from ctd.fixed_points.search.phase import phase
from ctd.fixed_points.search.portrait import N_TRIALS, Portrait, portrait, sorts
from ctd.plots import Axis, Bars, Group, Layer, Lines, Plot, Points, histogram, of_group
from ctd.principal import component
from ctd.rows import Columns
from ctd.words import count, number

N_SPECTRA = 40
"""Eigenvalues are drawn of at most so many points, those with the most searches."""
LEAST, FEW_SEARCHES = 20, 2
"""Points are drawn as a chain if they form a line or ring, or if there are LEAST or more, of which half have at most FEW_SEARCHES searches."""
N_STATES = 2000
"""Largest number of candidate states that are drawn if they do not form trials."""


@of_group
def plots(group: Group) -> list[Plot]:
    """State space and spectra of the unique points, by input, of one input the chain of its points between them; then other
    components and chains; their search shares; q over all candidates."""
    ends = _q_of_candidates(group.results)
    if len(group.reduced.get("point", ())) == 0:
        return [ends]
    view, some = portrait(group), parts(group.reduced["constant_input"], "points")
    space = [_spaces(group, view, part, [(0, 1), (0, 2)]) for part in some]
    first = [plot for views in space for plot in views[:1]]
    others = [plot for views in space for plot in views[1:]]
    chains = [plot for part in some for plot in _chain(view, part)]
    spectra = [_spectra(view, part) for part in some]
    main = [*first, *chains, *spectra] if len(some) == 1 else [*first, *spectra, *chains]
    return [*main, *others, _shares(view), ends]


def _spaces(
    group: Group, view: Portrait, part: Part, pairs: Sequence[tuple[int, int]]
) -> list[Plot]:
    """The phase portrait of a network with two state variables; of others, these pairs of components."""
    network = group.shared
    if network.states.shape[-1] == 2 and len(part.rows):
        f = step_of(network, group.inputs.time)
        step = lambda h, x: f(network.weights, h, x)
        return [phase(step, network.states, view.reduced, part.rows)]
    texts = _texts(view)
    return [_space(view, part, texts, *pair) for pair in pairs if _varies(view, *pair)]


def _varies(view: Portrait, *components: int) -> bool:
    """Tell if there are these components and each has a part of the variance beyond rounding."""
    return max(components) < len(view.share) and bool(
        (view.share[list(components)] > ROUNDING).all()
    )


def _space(view: Portrait, part: Part, texts: list[str], first: int, second: int) -> Plot:
    """Trials and points in two of the principal components of the states. texts: of the points."""
    layers: list[Layer] = [_states(view, first, second)]
    places = view.project(view.reduced["point"])
    size = np.asarray(view.reduced["search_share"], float)
    for sort in sorts(view.reduced, part.rows):
        looks = {"colour": view.at_points[sort.rows], "size": size[sort.rows]}
        layers.append(
            sort.marks(places[:, [first, second]], [texts[row] for row in sort.rows], **looks)
        )
    axis = lambda k: Axis(component(view.share, k))
    return Plot(
        f"State space, components {first + 1} and {second + 1}{part.at}",
        layers,
        axis(first),
        axis(second),
        view.scale,
        note="Area of a point: share of the searches that ended there. Hollow: unstable; diamond: slow."
        + part.together,
        areas="search share",
    )


def _states(view: Portrait, first: int, second: int) -> Layer:
    """Trials as lines; if the states form none, points."""
    if view.states.shape[1] > 1:  # a list of states is stored as trials of one step
        some = view.states[:N_TRIALS]
        path = view.project(some)
        shade = np.stack([view.colour(trial) for trial in some])
        return Lines(path[..., first], path[..., second], "trials", colour=shade, faint=True)
    some = view.states[:N_STATES, 0]
    path = view.project(some)
    return Points(path[:, first], path[:, second], "states", colour=view.colour(some))


def _chain(view: Portrait, part: Part) -> list[Plot]:
    """The readout of points against their place along the chain that `line` makes of them; [] if they form none."""
    names = ("point", "residual", "eigenvalue", "right", "left", "input_jacobian", "outlier", "output")  # fmt: skip
    table = {name: np.asarray(view.reduced[name])[part.rows] for name in names}
    if (~table["outlier"]).sum() < 3 or part.together:
        return []
    chain = line(table, time="continuous" if view.flow else "steps")
    few_searches = np.median(np.asarray(view.reduced["count"])[part.rows]) <= FEW_SEARCHES
    if chain.objections and not (few_searches and len(part.rows) >= LEAST):
        return []
    along, texts = chain.places(table["point"]), _texts(view)
    members = np.concatenate([chain.rows, chain.nearby])
    is_member = np.isin(np.arange(len(along)), members) & (not chain.objections)
    layers: list[Layer] = []
    for name, rows, faint in (
        ("ring" if chain.closed else "line", np.flatnonzero(is_member), False),
        ("no part of a line", np.flatnonzero(~is_member), True),
    ):
        if len(rows):
            key = part.rows[rows]
            layers.append(
                Points(
                    along[rows],
                    view.at_points[key],
                    f"{name} ({len(rows):,})",
                    faint=faint,
                    text=[texts[row] for row in key],
                    key=key,
                )
            )
    title, note = f"Along the chain{part.at}", f"{chain.summary}."
    axes = Axis("place along the chain"), Axis(view.scale.label)
    return [Plot(title, layers, *axes, note=note[0].upper() + note[1:])]


def _texts(view: Portrait) -> list[str]:
    """The hover text of each point."""
    reduced = view.reduced
    leading = "Re λ" if view.flow else "|λ|"
    inputs = np.asarray(reduced["constant_input"], float)
    at = [f", {input_text(x)}" if view.several else "" for x in inputs]
    return [
        f"point {k}{at[k]}: {reduced['kind'][k]}, {reduced['stability'][k]}\n"
        f"q {reduced['q'][k]:.2g}, leading {leading} {number(reduced['leading'][k])}\n"
        f"{reduced['search_share'][k]:.1%} of the searches ({count(int(reduced['count'][k]), 'candidate')})"
        for k in range(len(reduced["kind"]))
    ]


def _spectra(view: Portrait, part: Part) -> Plot:
    """Eigenvalues of the linearisation in the complex plane."""
    reduced, at_points = view.reduced, view.at_points
    # The points with the most searches, back in the order of the table.
    most = np.argsort(-np.asarray(reduced["count"])[part.rows], kind="stable")[:N_SPECTRA]
    point_rows = np.sort(part.rows[most])
    values = np.asarray(reduced["eigenvalue"])[point_rows]
    tau = np.asarray(reduced["time_constant"])[point_rows]
    point, mode = (index.ravel() for index in np.indices(values.shape))
    flat, tau = values.ravel(), tau.ravel()  # as `point` and `mode` number them
    text = [
        f"point {point_rows[p]}, mode {m}\nλ = {v.real:.4f} {v.imag:+.4f}i, |λ| {number(abs(v))}\n"
        f"time constant {t:.3g} {'units of time' if view.flow else 'steps'}"
        for p, m, v, t in zip(point, mode, flat, tau, strict=True)
    ]
    border, note = _border(values, view.flow)
    layers: list[Layer] = [border]
    slow = np.asarray(reduced["kind"])[point_rows] == "slow"
    grows = linear.growth(values, slow, view.flow).ravel()
    for name, sign, hollow in (
        ("decays", linear.DECAYS, False),
        ("marginal", linear.NEITHER, False),
        ("grows", linear.GROWS, True),
    ):
        rows = np.flatnonzero(grows == sign)
        if len(rows):
            layers.append(
                Points(
                    flat.real[rows],
                    flat.imag[rows],
                    f"{name} ({len(rows):,})",
                    colour=at_points[point_rows[point[rows]]],
                    marker="diamond" if sign == linear.NEITHER else "circle",
                    hollow=hollow,
                    # Most modes decay: small dots let the others be seen.
                    size=np.full(len(rows), 0.005 if sign == linear.DECAYS else 0.02),
                    text=[text[row] for row in rows],
                    key=point_rows[point[rows]],
                )
            )
    if len(point_rows) < len(part.rows):
        note += f" The {len(point_rows)} of {len(part.rows)} points with the most searches."
    title, note = f"Spectra of the linearisation{part.at}", note + part.together
    return Plot(title, layers, Axis("Re λ"), Axis("Im λ"), view.scale, equal=True, note=note)


def _border(values: np.ndarray, flow: bool) -> tuple[Lines, str]:
    """(the line on which modes neither decay nor grow, a sentence about it)."""
    if flow:
        height = np.abs(values.imag).max(initial=0) or 1.0  # real modes need no height
        axis = Lines(np.zeros(2), np.array([-height, height]), "imaginary axis", faint=True)
        return axis, (
            "Eigenvalues of df/dh; a mode right of the imaginary axis grows. Marginal: Re λ is 0, or a slow point's drift."
        )
    return unit_circle(), (
        "Eigenvalues of dF/dh; a mode outside the unit circle grows. Marginal: |λ| is 1, or a slow point's drift."
    )


def _shares(view: Portrait) -> Plot:
    """The share of the candidates that ended at each point, largest first."""
    reduced, texts = view.reduced, _texts(view)
    share = np.asarray(reduced["search_share"], float)
    order = np.argsort(-share, kind="stable")[:60]
    layers: list[Layer] = []
    for label, rows, *_ in sorts(reduced, np.arange(len(share))):
        places = np.flatnonzero(np.isin(order, rows))
        if len(places):
            at = order[places]
            text = [texts[row] for row in at]
            layers.append(Bars(places - 0.4, places + 0.4, share[at], label, text=text, key=at))
    note = "" if len(share) <= 60 else f"The largest 60 of {len(share):,} points. "
    note += "Shares of the searches with the point's own constant input." if view.several else ""
    return Plot(
        "Search shares",
        layers,
        Axis("point", ticks=[str(k) for k in order]),
        Axis("share of the searches"),
        note=note,
    )


def _q_of_candidates(results: Columns) -> Plot:
    """Histogram of log10 q at the end of every search, by outcome."""
    q, outcome = np.asarray(results["q"][:], float), np.asarray(results["outcome"][:])
    with np.errstate(divide="ignore", invalid="ignore"):
        power = np.log10(q)
    # Count an exact q = 0 at the lower end.
    finite = power[np.isfinite(power)]
    low, high = (finite.min(), finite.max()) if len(finite) else (-20.0, 0.0)
    ends = (low - 0.5, max(high, low) + 0.5)  # all outcomes share these bins
    power = np.where(q == 0, low, power)
    layers: list[Layer] = []
    for name, rows in (
        ("fixed", outcome == FIXED),
        ("slow", outcome == SLOW),
        ("limit or diverged", (outcome != FIXED) & (outcome != SLOW)),
    ):
        if rows.any():
            layers.append(histogram(power[rows], f"{name} ({rows.sum():,})", ends=ends))
    return Plot(
        "Where the searches ended", layers, Axis("log10 q, q = |F(h) - h|²/2"), Axis("candidates")
    )
