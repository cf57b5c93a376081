"""Kernel: how far apart networks of one setting are, in their dynamics, weights and errors (Huang et al. 2025).

Networks of one setting differ in their seed alone. Dynamics: `dsa` of `similarity` between states in the same trials. Weights:
min over permutations P of |A - P B P'| / n, A and B recurrent weights of n units, the root mean square difference of an entry. Behaviour: the
error, relative to the targets' mean square, in trials of twice the steps that the networks were trained on.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import quadratic_assignment

from ctd import tasks
from ctd.cells import get_cell, run
from ctd.kernel import Data, File, Params, Var, one_shot
from ctd.similarity import compare
from ctd.weights import read_weights

CELL = "vanilla"


class Setting(Params):
    """The parameters of one setting."""

    weights: File[tuple[str, ...]] = ()
    """Networks of all settings, those of one after each other."""
    task: Data[tasks.AnyTask] = tasks.Decision()
    setting: Data[int] = 0
    seeds: Data[int] = 5
    n_trials: Data[int] = 64
    n_delays: Data[int] = 5
    rank: Data[int] = 10


class Measured(NamedTuple):
    """What is measured of a setting; pairs in the order of itertools.combinations."""

    of_dynamics: np.ndarray
    of_weights: np.ndarray
    of_behaviour: np.ndarray


def weight_distance(a: np.ndarray, b: np.ndarray, starts: int = 10) -> float:
    """The least |a - P b P'| / n over permutations P that a search finds: linear assignments in turn, then exchanges of two.

    a, b: (n, n). The search is SciPy's `faq` (Vogelstein et al. 2015) from its own start and random permutations, refined by `2opt`.
    """
    rng, n, found = np.random.default_rng(0), len(a), []
    for k in range(starts):
        # SciPy's own random starts lie near its first one: whole permutations lead to other optima.
        start = np.eye(n)[rng.permutation(n)] if k else "barycenter"
        options = {"maximize": True, "P0": start}
        order = quadratic_assignment(a, b, method="faq", options=options).col_ind
        guess = np.column_stack([np.arange(n), order])
        options = {"maximize": True, "partial_guess": guess}
        order = quadratic_assignment(a, b, method="2opt", options=options).col_ind
        found.append(np.linalg.norm(a - b[np.ix_(order, order)]))
    return float(min(found) / len(a))


def load(inputs: Any) -> Measured:
    """Measure the networks of the setting: those that begin at `setting` times `seeds`."""
    first = inputs.setting * inputs.seeds
    files = inputs.weights[first : first + inputs.seeds]
    networks = [read_weights(path, CELL).params for path in files]
    longer = inputs.task.model_copy(update={"n_steps": 2 * inputs.task.n_steps})
    here, later = (
        tasks.batch(task, jax.random.key(k), inputs.n_trials)
        for k, task in enumerate((inputs.task, longer))
    )
    go = jax.jit(lambda w, x: jax.vmap(lambda x: run(get_cell(CELL), w, x))(x))
    states = [np.asarray(go(w, here.inputs)[0]) for w in networks]
    errors = [np.mean((go(w, later.inputs)[1] - later.targets) ** 2) for w in networks]
    fit = {"n_delays": inputs.n_delays, "rank": inputs.rank, "n_permutations": 1}
    apart = compare(states, "dsa", **fit).distances
    matrices = [np.asarray(w["wR"], float) for w in networks]
    pairs = list(itertools.combinations(range(len(files)), 2))
    return Measured(
        np.asarray([apart[i, j] for i, j in pairs], inputs.dtype),
        np.asarray([weight_distance(matrices[i], matrices[j]) for i, j in pairs], inputs.dtype),
        np.asarray(errors / np.mean(np.asarray(later.targets) ** 2), inputs.dtype),
    )


def of_setting(static: Any, shared: Measured, traced: Any, key: jax.Array) -> dict[str, jax.Array]:
    """The measures, which `load` has made."""
    del static, traced, key
    return {name: jnp.asarray(value) for name, value in shared._asdict().items()}


DIMS = {
    "of_dynamics": Var(("pair",), "rad", "distance of dynamics, by dsa"),
    "of_weights": Var(("pair",), "1", "root mean square difference of recurrent weights, best permutation"),
    "of_behaviour": Var(("network",), "1", "relative error in trials of twice the steps"),
}  # fmt: skip
kernel = one_shot("degeneracy", Setting, DIMS, of_setting, load=load)
