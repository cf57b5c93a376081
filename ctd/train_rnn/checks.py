"""Areas of units, and refusals of constraints that contradict each other, in one line each.

`p` is a `Network`. Its type is Any here, because the module of `Network` imports this one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ctd.cells import UNGATED, get_cell


def area_of(n: int, areas: int) -> np.ndarray:
    """The area (n,) of each unit, 0, 1, ...; areas are runs of neighbouring units.

    >>> area_of(6, 2).tolist()
    [0, 0, 0, 1, 1, 1]
    """
    return np.arange(n) * areas // n


def excitatory_counts(n: int, areas: int, excitatory: float) -> tuple[np.ndarray, np.ndarray]:
    """The excitatory units and all units of each area: two arrays (areas,).

    >>> [count.tolist() for count in excitatory_counts(10, 2, 0.8)]
    [[4, 4], [5, 5]]
    """
    size = np.bincount(area_of(n, areas))
    # In float32, as `connections` computes it in the program: both must round alike.
    return np.round(np.float32(excitatory) * size.astype(np.float32)).astype(int), size


def check_constraints(p: Any) -> None:
    """Raise ValueError if the constraints of a `Network` contradict its cell, its size or each other."""
    for check in (
        _check_cell,
        _check_noise,
        _check_time,
        _check_rank,
        _check_signs,
        _check_mask,
        _check_start,
        _check_warmup,
    ):
        check(p)


def _check_cell(p: Any) -> None:
    """Signs, ranks, drawn masks and other initial weights need a cell with one recurrent matrix wR."""
    of_one_matrix = {
        "dale": p.dale,
        "rank": p.rank is not None,
        "mask: random": p.mask == "random",
        "self_connections: false": not p.self_connections,
        f"recurrent_init: {p.recurrent_init}": p.recurrent_init != "normal",
    }
    asked = [field for field, given in of_one_matrix.items() if given]
    if asked and "wR" not in get_cell(p.cell).axes:
        fits = ", ".join(cell.name for cell in UNGATED)
        raise ValueError(
            f"{asked[0]}: cell {p.cell} has gates or a field, not one recurrent matrix; give one of {fits}"
        )


def _check_noise(p: Any) -> None:
    """`noise` is static: noise costs a tenth of a step, and a network without it is a program of its own."""
    fields = (
        "state_noise", "input_noise", "initial_noise", "eval_state_noise", "eval_input_noise",
    )  # fmt: skip
    given = [f"{name}: {getattr(p, name):g}" for name in fields if getattr(p, name) > 0]
    if given and not p.noise:
        raise ValueError(f"{given[0]} has no effect without noise: true; give noise: true too")


def _check_time(p: Any) -> None:
    if p.train_alphas and "alphas" not in get_cell(p.cell).axes:
        raise ValueError(
            f"train_alphas: cell {p.cell} has no time constant for each unit; give cell leaky_per_unit"
        )
    if p.alpha_min > p.alpha_max:
        raise ValueError(
            f"alpha_min, alpha_max: {p.alpha_min:g} is above {p.alpha_max:g}; give the smaller bound as alpha_min"
        )


def _check_rank(p: Any) -> None:
    if p.rank is None:
        return
    if p.rank > p.n:
        raise ValueError(
            f"rank: {p.rank} is above n = {p.n}, the largest rank of a matrix of n units; lower it"
        )
    others = {
        "dale": p.dale,
        f"mask: {p.mask}": p.mask != "none",
        "self_connections: false": not p.self_connections,
        f"recurrent_init: {p.recurrent_init}": p.recurrent_init != "normal",
    }
    for field, given in others.items():
        if given:
            raise ValueError(
                f"rank, {field}: a product m n' cannot keep signs, zeros or a spectrum; leave one of them out"
            )


def _check_signs(p: Any) -> None:
    if not p.dale:
        return
    if p.recurrent_init not in ("normal", "spectral_radius"):
        raise ValueError(
            f"dale, recurrent_init: {p.recurrent_init} weights have both signs in a column; leave recurrent_init out"
        )
    # _check_mask refuses such areas, in words that fit better.
    if p.areas > p.n:
        return
    excites, size = excitatory_counts(p.n, p.areas, p.excitatory)
    for area in ((excites == 0) | (excites == size)).nonzero()[0][:1]:
        kind = "excitatory" if excites[area] == 0 else "inhibitory"
        where = f"{size[area]} units" + (" of an area" if p.areas > 1 else "")
        raise ValueError(
            f"excitatory: {p.excitatory:g} of {where} leaves no {kind} one; give a share that leaves one of each kind"
        )


def _check_mask(p: Any) -> None:
    if (p.mask == "file") != (p.mask_file is not None):
        raise ValueError(
            "mask, mask_file: mask: file and mask_file belong together; give both or neither"
        )
    if p.areas > p.n:
        raise ValueError(
            f"areas: {p.areas} areas of n = {p.n} units given; an area needs a unit, give at most {p.n}"
        )
    if p.areas > 1 and p.mask != "random":
        raise ValueError(
            f"areas: {p.areas} has no effect with mask: {p.mask}; give mask: random, or leave areas out"
        )
    if not p.self_connections and p.n == 1:
        raise ValueError(
            "self_connections: false leaves no connection with n = 1; give a larger n, or leave it out"
        )
    if p.mask == "random" and p.density * p.n**2 < p.areas:
        raise ValueError(
            f"density: {p.density:g} of {p.n**2 // p.areas} connections within areas is less than one for each area; "
            "raise density or n"
        )


def _check_start(p: Any) -> None:
    other = {
        f"recurrent_init: {p.recurrent_init}": p.recurrent_init != "normal",
        "dale": p.dale,
        "rank": p.rank is not None,
        f"recurrent_scale: {p.recurrent_scale:g}": p.recurrent_scale != 1,
        f"input_scale: {p.input_scale:g}": p.input_scale != 1,
    }
    clashing = [field for field, given in other.items() if given]
    if p.first_weights == "pytorch" and clashing:
        raise ValueError(
            f"first_weights: pytorch, {clashing[0]}: PyTorch's first weights have one scale and no structure; leave one of "
            "them out"
        )
    # A rotation with zeros is no rotation, and an identity without its diagonal is 0.
    masked = p.mask != "none" or not p.self_connections
    if masked and p.recurrent_init in ("orthogonal", "identity"):
        raise ValueError(
            f"recurrent_init: a mask, or self_connections: false, would change {p.recurrent_init} weights; "
            "leave one of them out"
        )


def _check_warmup(p: Any) -> None:
    if p.warmup >= p.n_batches:
        raise ValueError(
            f"warmup: {p.warmup} steps given, but training has n_batches = {p.n_batches}; give fewer"
        )
