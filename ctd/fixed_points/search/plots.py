"""The pictures of a network's fixed points: state space, spectra, shares of the searches, q of the candidates."""

from collections.abc import Sequence

import numpy as np

from ctd.fixed_points import linear
from ctd.fixed_points.line import line
from ctd.fixed_points.network import step_of
from ctd.fixed_points.pictures import ROUNDING, Part, named, parts, unit_circle
from ctd.fixed_points.search.methods import FIXED, SLOW
from ctd.fixed_points.search.phase import phase
from ctd.fixed_points.search.portrait import N_TRIALS, Portrait, portrait, sorts
from ctd.plots import Axis, Bars, Group, Layer, Lines, Plot, Points, histogram, of_group
from ctd.principal import component
from ctd.rows import Columns
from ctd.words import count, number

N_SPECTRA = 40
"""Eigenvalues are drawn of at most so many points, those with the most searches."""
LEAST, OWN = 20, 2
"""Points are drawn as a chain if they form a line or ring, or if there are LEAST or more, of which half have at most OWN searches."""
N_STATES = 2000
"""Largest number of candidate states that are drawn if they do not form trials."""


@of_group
def plots(group: Group) -> list[Plot]:
    """State space and spectra of the unique points, by input, of one input the chain of its points between them; then other
    components and chains; their search shares; q over all candidates."""
    ends = _q_of_candidates(group.results)
    if len(group.reduced.get("point", ())) == 0:
        return [ends]
    seen, some = portrait(group), parts(group.reduced["constant_input"], "points")
    space = [_spaces(group, seen, part, [(0, 1), (0, 2)]) for part in some]
    first = [plot for views in space for plot in views[:1]]
    others = [plot for views in space for plot in views[1:]]
    chains = [plot for part in some for plot in _chain(seen, part)]
    spectra = [_spectra(seen, part) for part in some]
    main = [*first, *chains, *spectra] if len(some) == 1 else [*first, *spectra, *chains]
    return [*main, *others, _shares(seen), ends]


def _spaces(
    group: Group, seen: Portrait, part: Part, pairs: Sequence[tuple[int, int]]
) -> list[Plot]:
    """The phase portrait of a network with two state variables; of others, these pairs of components."""
    network = group.shared
    if network.states.shape[-1] == 2 and len(part.rows):
        f = step_of(network, group.inputs.time)
        step = lambda h, x: f(network.weights, h, x)
        return [phase(step, network.states, seen.reduced, part.rows)]
    texts = _texts(seen)
    return [_space(seen, part, texts, *pair) for pair in pairs if _varies(seen, *pair)]


def _varies(seen: Portrait, *components: int) -> bool:
    """Tell if there are these components and each has a part of the variance beyond rounding."""
    return max(components) < len(seen.share) and bool(
        (seen.share[list(components)] > ROUNDING).all()
    )


def _space(seen: Portrait, part: Part, texts: list[str], first: int, second: int) -> Plot:
    """Trials and points in two of the principal components of the states. texts: of the points."""
    layers: list[Layer] = [_states(seen, first, second)]
    where = seen.project(seen.reduced["point"])
    size = np.asarray(seen.reduced["search_share"], float)
    for sort in sorts(seen.reduced, part.rows):
        looks = {"colour": seen.at_points[sort.rows], "size": size[sort.rows]}
        layers.append(
            sort.marks(where[:, [first, second]], [texts[row] for row in sort.rows], **looks)
        )
    axis = lambda k: Axis(component(seen.share, k))
    return Plot(
        f"State space, components {first + 1} and {second + 1}{part.at}",
        layers,
        axis(first),
        axis(second),
        seen.scale,
        note="Area of a point: share of the searches that ended there. Hollow: unstable; diamond: slow."
        + part.together,
        areas="search share",
    )


def _states(seen: Portrait, first: int, second: int) -> Layer:
    """Trials as lines; if the states form none, points."""
    if seen.states.shape[1] > 1:  # a list of states is stored as trials of one step
        some = seen.states[:N_TRIALS]
        path = seen.project(some)
        shade = np.stack([seen.colour(trial) for trial in some])
        return Lines(path[..., first], path[..., second], "trials", colour=shade, faint=True)
    some = seen.states[:N_STATES, 0]
    path = seen.project(some)
    return Points(path[:, first], path[:, second], "states", colour=seen.colour(some))


def _chain(seen: Portrait, part: Part) -> list[Plot]:
    """The readout of points against their place along the chain that `line` makes of them; [] where they form none."""
    names = ("point", "residual", "eigenvalue", "right", "left", "input_jacobian", "outlier", "output")  # fmt: skip
    table = {name: np.asarray(seen.reduced[name])[part.rows] for name in names}
    if (~table["outlier"]).sum() < 3 or part.together:
        return []
    chain = line(table, time="continuous" if seen.flow else "steps")
    own = np.median(np.asarray(seen.reduced["count"])[part.rows]) <= OWN
    if chain.objections and not (own and len(part.rows) >= LEAST):
        return []
    along, texts = chain.places(table["point"]), _texts(seen)
    members = np.concatenate([chain.rows, chain.beside])
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
                    seen.at_points[key],
                    f"{name} ({len(rows):,})",
                    faint=faint,
                    text=[texts[row] for row in key],
                    key=key,
                )
            )
    title, note = f"Along the chain{part.at}", f"{chain.summary}."
    axes = Axis("place along the chain"), Axis(seen.scale.label)
    return [Plot(title, layers, *axes, note=note[0].upper() + note[1:])]


def _texts(seen: Portrait) -> list[str]:
    """The hover text of each point."""
    reduced = seen.reduced
    leading = "Re λ" if seen.flow else "|λ|"
    inputs = np.asarray(reduced["constant_input"], float)
    at = [f", {named(x)}" if seen.several else "" for x in inputs]
    return [
        f"point {k}{at[k]}: {reduced['kind'][k]}, {reduced['stability'][k]}\n"
        f"q {reduced['q'][k]:.2g}, leading {leading} {number(reduced['leading'][k])}\n"
        f"{reduced['search_share'][k]:.1%} of the searches ({count(int(reduced['count'][k]), 'candidate')})"
        for k in range(len(reduced["kind"]))
    ]


def _spectra(seen: Portrait, part: Part) -> Plot:
    """Eigenvalues of the linearisation in the complex plane."""
    reduced, at_points = seen.reduced, seen.at_points
    # The points with the most searches, back in the order of the table.
    most = np.argsort(-np.asarray(reduced["count"])[part.rows], kind="stable")[:N_SPECTRA]
    shown = np.sort(part.rows[most])
    values = np.asarray(reduced["eigenvalue"])[shown]
    tau = np.asarray(reduced["time_constant"])[shown]
    point, mode = (index.ravel() for index in np.indices(values.shape))
    flat, tau = values.ravel(), tau.ravel()  # as `point` and `mode` number them
    text = [
        f"point {shown[p]}, mode {m}\nλ = {v.real:.4f} {v.imag:+.4f}i, |λ| {number(abs(v))}\n"
        f"time constant {t:.3g} {'units of time' if seen.flow else 'steps'}"
        for p, m, v, t in zip(point, mode, flat, tau, strict=True)
    ]
    border, note = _border(values, seen.flow)
    layers: list[Layer] = [border]
    slow = np.asarray(reduced["kind"])[shown] == "slow"
    grows = linear.growth(values, slow, seen.flow).ravel()
    for name, how, hollow in (
        ("decays", linear.DECAYS, False),
        ("marginal", linear.NEITHER, False),
        ("grows", linear.GROWS, True),
    ):
        rows = np.flatnonzero(grows == how)
        if len(rows):
            layers.append(
                Points(
                    flat.real[rows],
                    flat.imag[rows],
                    f"{name} ({len(rows):,})",
                    colour=at_points[shown[point[rows]]],
                    marker="diamond" if how == linear.NEITHER else "circle",
                    hollow=hollow,
                    # Most modes decay: small dots let the others be seen.
                    size=np.full(len(rows), 0.005 if how == linear.DECAYS else 0.02),
                    text=[text[row] for row in rows],
                    key=shown[point[rows]],
                )
            )
    if len(shown) < len(part.rows):
        note += f" The {len(shown)} of {len(part.rows)} points with the most searches."
    title, note = f"Spectra of the linearisation{part.at}", note + part.together
    return Plot(title, layers, Axis("Re λ"), Axis("Im λ"), seen.scale, equal=True, note=note)


def _border(values: np.ndarray, flow: bool) -> tuple[Lines, str]:
    """(where modes neither decay nor grow, in words)."""
    if flow:
        height = np.abs(values.imag).max(initial=0) or 1.0  # real modes need no height
        axis = Lines(np.zeros(2), np.array([-height, height]), "imaginary axis", faint=True)
        return axis, (
            "Eigenvalues of df/dh; a mode right of the imaginary axis grows. Marginal: Re λ is 0, or a slow point's drift."
        )
    return unit_circle(), (
        "Eigenvalues of dF/dh; a mode outside the unit circle grows. Marginal: |λ| is 1, or a slow point's drift."
    )


def _shares(seen: Portrait) -> Plot:
    """The share of the candidates that ended at each point, largest first."""
    reduced, texts = seen.reduced, _texts(seen)
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
    note += "Shares of the searches with the point's own constant input." if seen.several else ""
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
