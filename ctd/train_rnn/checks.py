"""Areas of units, and fields of a `Network` that contradict each other, in a line each.

These checks need no file and no JAX, so that a job is refused while it is planned. `load` makes those that need the
trials: their number, their outputs, and targets that are probabilities.

`p` is a `Network`. Its type is Any here, because the module of `Network` imports this one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ctd.cells import UNGATED, get_cell
from ctd.tasks import Recorded


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


def conflicts(p: Any) -> Iterator[str]:
    """Yield a sentence for each pair of fields of a `Network` that contradict each other."""
    for rule in (_of_cell, _of_noise, _of_rank, _of_signs, _of_mask, _of_start, _of_trials):
        yield from rule(p)


def _first_changed(p: Any, *names: str) -> str:
    """The first of these fields that has another value than its default, as a job file has it; "" if none has."""
    for name in names:
        value = getattr(p, name)
        if value != type(p).model_fields[name].default:
            text = f"{value:g}" if isinstance(value, float) else str(value).lower()
            return name if name in ("dale", "rank") else f"{name}: {text}"
    return ""


def _of_cell(p: Any) -> Iterator[str]:
    axes = get_cell(p.cell).axes
    # A mask of a file may be of any matrix.
    random_mask = ("mask",) if p.mask == "random" else ()
    field = _first_changed(p, "dale", "rank", *random_mask, "self_connections", "recurrent_init")
    if field and "wR" not in axes:
        fits = ", ".join(cell.name for cell in UNGATED)
        yield f"{field}: cell {p.cell} has gates or a field, not one recurrent matrix; give one of {fits}"
    if p.train_alphas and "alphas" not in axes:
        yield f"train_alphas: cell {p.cell} has no time constant for each unit; give cell leaky_per_unit"
    if p.alpha_min > p.alpha_max:
        yield f"alpha_min, alpha_max: {p.alpha_min:g} is above {p.alpha_max:g}; give the smaller bound as alpha_min"


def _of_noise(p: Any) -> Iterator[str]:
    # `noise` is static: noise costs a tenth of a step, and a network without it is a program of its own.
    names = ("state_noise", "input_noise", "initial_noise", "eval_state_noise", "eval_input_noise")
    if (field := _first_changed(p, *names)) and not p.noise:
        yield f"{field} has no effect without noise: true; give noise: true too"


def _of_rank(p: Any) -> Iterator[str]:
    if p.rank is None:
        return
    if p.rank > p.n:
        yield f"rank: {p.rank} is above n = {p.n}, the largest rank of a matrix of n units; lower it"
    if field := _first_changed(p, "dale", "mask", "self_connections", "recurrent_init"):
        yield f"rank, {field}: a product m n' cannot keep signs, zeros or a spectrum; leave one of them out"


def _of_signs(p: Any) -> Iterator[str]:
    # `_of_mask` refuses more areas than units, in words that fit better.
    if not p.dale or p.areas > p.n:
        return
    if p.recurrent_init not in ("normal", "spectral_radius"):
        yield f"dale, recurrent_init: {p.recurrent_init} weights have both signs in a column; leave recurrent_init out"
    excites, size = excitatory_counts(p.n, p.areas, p.excitatory)
    for area in ((excites == 0) | (excites == size)).nonzero()[0]:
        kind = "excitatory" if excites[area] == 0 else "inhibitory"
        units = f"{size[area]} units" + " of an area" * (p.areas > 1)
        yield f"excitatory: {p.excitatory:g} of {units} leaves no {kind} one; give a share that leaves one of each kind"


def _of_mask(p: Any) -> Iterator[str]:
    if (p.mask == "file") != (p.mask_file is not None):
        yield "mask, mask_file: mask: file and mask_file belong together; give both or neither"
    if p.areas > p.n:
        yield f"areas: {p.areas} areas of n = {p.n} units given; an area needs a unit, give at most {p.n}"
    if p.areas > 1 and p.mask != "random":
        yield f"areas: {p.areas} has no effect with mask: {p.mask}; give mask: random, or leave areas out"
    if not p.self_connections and p.n == 1:
        yield "self_connections: false leaves no connection with n = 1; give a larger n, or leave it out"
    if p.mask == "random" and p.density * p.n**2 < p.areas:
        within = f"{p.n**2 // p.areas} connections within areas"
        yield f"density: {p.density:g} of {within} is less than one for each area; raise density or n"


def _of_start(p: Any) -> Iterator[str]:
    field = _first_changed(p, "recurrent_init", "dale", "rank", "recurrent_scale", "input_scale")
    if p.first_weights == "pytorch" and field:
        reason = "PyTorch's first weights have one scale and no structure"
        yield f"first_weights: pytorch, {field}: {reason}; leave one of them out"
    # A rotation with zeros is no rotation, and an identity without its diagonal is 0.
    masked = p.mask != "none" or not p.self_connections
    if masked and p.recurrent_init in ("orthogonal", "identity"):
        reason = f"a mask, or self_connections: false, would change {p.recurrent_init} weights"
        yield f"recurrent_init: {reason}; leave one of them out"
    if p.warmup >= p.n_batches:
        yield f"warmup: {p.warmup} steps given, but training has n_batches = {p.n_batches}; give fewer"


def _of_trials(p: Any) -> Iterator[str]:
    of_file = isinstance(p.task, Recorded)
    if p.trials is not None and not of_file:
        yield f"trials: {p.trials} given, but only task file reads it; give task: file, or leave trials out"
    if p.stop_at is not None and not p.task.scored:
        hint = "give it a score" if of_file else "leave stop_at out"
        yield f"stop_at: {p.stop_at:g} given, but task {p.task.title} has no rule of success; {hint}"
    if p.n_saved > p.n_eval:
        have = f"there are n_eval = {p.n_eval} evaluation trials"
        yield f"n_saved: {p.n_saved} given, but {have}; raise n_eval or lower n_saved"
