"""method: exact: every fixed point of a piecewise linear network, against NumPy's enumeration and against lm."""

import functools
import itertools

import numpy as np
import pytest
from messages import refused

from ctd.batch import Layout, precision, run_items
from ctd.cells import get_cell
from ctd.data import write_hdf5
from ctd.fixed_points import kernel, limit_cycles
from ctd.kernel import inputs_of
from ctd.weights import write_weights

N, HIDDEN = 2, 6
FIXED, LIMIT = 0, 2


def weights_of(name, seed):
    rng = np.random.default_rng(seed)
    if name == "alrnn":
        w = {
            "A": rng.uniform(0, 0.6, 6),
            "W": rng.normal(size=(6, 6)) * 0.4,
            "h": rng.normal(size=6),
        }
        return w | {"rectified": np.array([0, 0, 1, 1, 1, 1.0]), "C": np.zeros((6, 0))}
    shapes = get_cell(name).shapes(N, 0, HIDDEN)
    w = {k: rng.normal(size=shape) for k, shape in shapes.items()}
    return w | {"A": rng.uniform(0, 0.9, N)}


def enumerated(name, w):
    """The fixed points of all combinations of signs of the rectified numbers, by NumPy."""
    relu, found = lambda a: np.maximum(a, 0), []
    n = len(w["A"])
    if name == "alrnn":
        kinked = w["rectified"] == 1
        for signs in itertools.product([0.0, 1.0], repeat=int(kinked.sum())):
            slope = np.ones(n)
            slope[kinked] = signs
            z = np.linalg.solve(np.eye(n) - np.diag(w["A"]) - w["W"] * slope, w["h"])
            if ((z[kinked] > 0) == np.array(signs)).all():
                found.append(z)
        return np.array(found).reshape(-1, n)
    other = 1.0 if name == "shplrnn:clipped" else 0.0
    for first in itertools.product([0.0, 1.0], repeat=HIDDEN):
        for second in itertools.product([0.0, 1.0], repeat=HIDDEN if other else 0):
            d, e = np.array(first), np.array(second) if other else np.zeros(HIDDEN)
            j = np.diag(w["A"]) + (w["W1"] * (d - e)) @ w["W2"]
            z = np.linalg.solve(np.eye(n) - j, w["W1"] @ (d * w["h2"]) + w["h1"])
            a = w["W2"] @ z
            if ((a + w["h2"] > 0) == d).all() and (not other or ((a > 0) == e).all()):
                found.append(z)
    for z in found:
        hidden = relu(w["W2"] @ z + w["h2"]) - other * relu(w["W2"] @ z)
        np.testing.assert_allclose(w["A"] * z + w["W1"] @ hidden + w["h1"], z, atol=1e-9)
    return np.array(found).reshape(-1, n)


def files(tmp_path, name, w, n_states=50):
    write_weights(tmp_path / "net.h5", w, name)
    states = np.random.default_rng(1).normal(size=(n_states, len(w["A"]))) * 3
    write_hdf5(tmp_path / "states.h5", {"hiddens": states})
    given = {"weights": str(tmp_path / "net.h5"), "candidates": str(tmp_path / "states.h5")}
    return given | {"cell": name}


def search(params, n, microbatch=1):
    """(results, table); item by item a program compiles in half of the time."""
    layout = Layout(64, microbatch)
    results = run_items(kernel, params, {"candidate": np.arange(n)}, layout=layout)
    inputs = inputs_of(params)
    with precision(inputs):
        shared = kernel.load(inputs)
        return results, kernel.tables.reduce(inputs, shared, {}, results, kernel.tables.Options())


def sorted_rows(points):
    return points[np.lexsort(points.T)]


REGIONS = {"shplrnn": 2**HIDDEN, "shplrnn:clipped": 3**HIDDEN, "alrnn": 2**6}
MICROBATCH = {"shplrnn": 64, "shplrnn:clipped": 1, "alrnn": 1}
SWEEP = {"method": "exact", "region": "linear"}
SEEDS = {"shplrnn": (0, 2, 6), "shplrnn:clipped": (0, 6), "alrnn": (4, 5)}


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """(cell, seed) -> (its files, results, table) of searches from every linear region of its network."""

    @functools.cache
    def sweep(name, seed):
        given = files(tmp_path_factory.mktemp("swept"), name, weights_of(name, seed))
        params = kernel.Params(**given | SWEEP, anywhere=1.0)
        return given, *search(params, REGIONS[name], MICROBATCH[name])

    return sweep


@pytest.mark.parametrize(
    # The regions of alrnn: tests/ctd/cells/test_piecewise.py.
    "name",
    [pytest.param(name, marks=[pytest.mark.endurance] * (name == "alrnn")) for name in REGIONS],
)
def test_a_sweep_over_all_linear_regions_finds_every_point(swept, name):
    """Networks with one point and with several; the searches that leave their region end at the same ones."""
    several = False
    for seed in SEEDS[name]:
        _, results, table = swept(name, seed)
        expected = enumerated(name, weights_of(name, seed))
        several |= len(expected) > 1
        fixed = table["point"][table["kind"] == "fixed"]
        np.testing.assert_allclose(sorted_rows(fixed), sorted_rows(expected), atol=1e-8)
        assert set(results["outcome"]) <= {FIXED, LIMIT}
    assert several


@pytest.mark.endurance
@pytest.mark.parametrize(
    ("name", "seed", "n_stable"),
    [("shplrnn:clipped", 6, 2), ("shplrnn", 2, 1), ("alrnn", 4, 1)],
)
def test_exact_and_lm_agree_on_every_stable_point(swept, name, seed, n_stable):
    """Always, both find what NumPy finds: above, and in test_fixed_points_search.py."""
    given, _, table = swept(name, seed)
    tables = table, search(kernel.Params(**given, method="lm"), 50)[1]
    exact, lm = (sorted_rows(t["point"][np.asarray(t["stable"], bool)]) for t in tables)
    assert len(exact) == n_stable
    np.testing.assert_allclose(exact, lm, atol=1e-7)


def test_a_search_without_a_point_ends(tmp_path):
    """z' = z / 2 + 2 relu(z) + 1 has none: the region left of 0 sends it to the right one, and back. Its round is noticed.

    All other weights are 0, so that the program is that of a sweep; but no search starts anywhere in its regions.
    """
    w = {k: np.zeros(shape) for k, shape in get_cell("shplrnn").shapes(N, 0, HIDDEN).items()}
    for name, value in {"A": 0.5, "W1": 2, "W2": 1, "h1": 1}.items():
        w[name].flat[0] = value
    given = files(tmp_path, "shplrnn", w)
    params = kernel.Params(**given | SWEEP, anywhere=1e-12)
    results, _ = search(params, 20, MICROBATCH["shplrnn"])
    assert not results["anywhere_start"].any()
    assert (results["outcome"] == LIMIT).all()
    assert results["iterations"].max() < 10


@pytest.mark.parametrize(
    "given", [{"method": "exact"}, {"region": "linear", "anywhere": 1.0}], ids=["exact", "linear"]
)
def test_other_cells_are_refused(tmp_path, given):
    cell = get_cell("vanilla")
    w = {k: np.zeros(shape) for k, shape in cell.shapes(2, 1).items()}
    write_weights(tmp_path / "net.h5", w, "vanilla")
    write_hdf5(tmp_path / "states.h5", {"hiddens": np.zeros((1, 2))})
    read = {"weights": str(tmp_path / "net.h5"), "candidates": str(tmp_path / "states.h5")}
    inputs = inputs_of(kernel.Params(**read, **given))
    with (
        precision(inputs),
        refused(ValueError),
    ):
        kernel.load(inputs)


def enumerated_cycles(w, period):
    """The first states and the Floquet multipliers of all cycles of a shPLRNN of this least period, from all sequences of
    linear regions, by NumPy; a cycle comes once for each of its states."""
    n, found, regions = len(w["A"]), [], {}
    for signs in itertools.product([0.0, 1.0], repeat=len(w["h2"])):
        d = np.array(signs)
        regions[signs] = (
            np.diag(w["A"]) + (w["W1"] * d) @ w["W2"],
            w["W1"] @ (d * w["h2"]) + w["h1"],
        )
    for sequence in itertools.product(regions, repeat=period):
        slope, shift = np.eye(n), np.zeros(n)
        for signs in sequence:
            slope, shift = regions[signs][0] @ slope, regions[signs][0] @ shift + regions[signs][1]
        z = first = np.linalg.solve(np.eye(n) - slope, shift)
        path, stays = [], True
        for signs in sequence:
            path.append(z)
            stays &= ((w["W2"] @ z + w["h2"] > 0) == np.array(signs)).all()
            z = regions[signs][0] @ z + regions[signs][1]
        if stays and all(np.abs(z - first).max() > 1e-6 for z in path[1:]):
            found.append((first, np.linalg.eigvals(slope)))
    return found


@pytest.mark.parametrize(
    ("seed", "period", "n", "n_unstable"), [(11, 2, 2, 1), (5, 3, 2, 2), (9, 2, 0, 0)]
)
def test_every_cycle_of_a_piecewise_linear_map_is_found(tmp_path, seed, period, n, n_unstable):
    """Newton's step on the return solves the sequence of regions that a trajectory passes, as SCYFI does for k-cycles."""
    rng = np.random.default_rng(seed)
    w = {
        "A": rng.uniform(-0.5, 0.9, N),
        "W1": rng.normal(size=(N, 3)) * 1.5,
        "W2": rng.normal(size=(3, N)),
        "h2": rng.normal(size=3),
        "h1": rng.normal(size=N),
        "C": np.zeros((N, 0)),
    }
    expected = enumerated_cycles(w, period)
    assert len(expected) == n * period
    given = files(tmp_path, "shplrnn", w, n_states=400)
    params = limit_cycles.kernel.Params(
        cell="shplrnn", weights=given["weights"], states=given["candidates"],
        transient=0, period_guess=period, n_points=4,
    )  # fmt: skip
    results = run_items(limit_cycles.kernel, params, {"start": np.arange(400)})
    inputs = inputs_of(params)
    with precision(inputs):
        shared = limit_cycles.kernel.load(inputs)
        table = limit_cycles.kernel.tables.reduce(
            inputs, shared, {}, results, limit_cycles.kernel.tables.Options()
        )
    assert table["cycle_period"].tolist() == [period] * n
    assert (table["cycle_n_unstable"] > 0).sum() == n_unstable
    points = table["cycle_points"][:, :period].reshape(-1, N)
    known = np.array([first for first, _ in expected]).reshape(-1, N)
    np.testing.assert_allclose(sorted_rows(points), sorted_rows(known), atol=1e-9)
    leading = sorted(max(np.abs(values)) for _, values in expected)[::period] if n else []
    np.testing.assert_allclose(
        np.sort(np.abs(table["cycle_multiplier"]).max(axis=1)), leading, atol=1e-9
    )
