"""Which point leads to which, on a map whose 27 points and connections are known."""

import numpy as np
import pytest
from messages import refused, warned
from networks import cube

from ctd.batch import run_items
from ctd.data import write_hdf5
from ctd.fixed_points.connections import Departure, Table, kernel
from ctd.kernel import inputs_of


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """The columns that `kernel` reads of a table of `fixed_points`, in closed form."""
    points = np.stack(np.meshgrid(*[[-1.0, 0.0, 1.0]] * 3), axis=-1).reshape(-1, 3)
    growing = points == 0
    first = np.argsort(~growing, axis=1, kind="stable")  # modes by decreasing magnitude
    found = {
        "point": points,
        "constant_input": np.zeros((27, 0)),
        "eigenvalue": np.where(np.take_along_axis(growing, first, 1), 1.4, 0.2).astype(complex),
        "right": np.eye(3, dtype=complex)[first].swapaxes(1, 2),
        "n_unstable": growing.sum(axis=1),
        "n_marginal": np.zeros(27, int),
        "plane_mean": np.ones(3),
        "plane_axes": np.eye(3)[:, [2, 0, 1]],
    }
    path = tmp_path_factory.mktemp("points") / "points.h5"
    write_hdf5(path, found)
    return found, path


def test_saddles_lead_to_their_two_memories(table):
    """A saddle with one growing mode joins exactly the two corners next to it, once to each side."""
    found, path = table
    params = Departure(cell="networks.cube", points=str(path))
    shared = kernel.load(inputs_of(params))
    n = len(shared.departures)
    assert n == 2 * found["n_unstable"].sum() == 2 * (12 * 1 + 6 * 2 + 1 * 3)
    results = run_items(kernel, params, {"departure": np.arange(n + 5)}, shared=shared)
    assert (results["outcome"] == 0).all()
    graph = kernel.tables.reduce(inputs_of(params), shared, {}, results, None)
    assert graph["leads"].sum() == n
    points, unstable = np.round(found["point"]), found["n_unstable"]
    for k in np.flatnonzero(unstable == 1):
        axis = np.flatnonzero(points[k] == 0)
        memories = [np.where(np.arange(3) == axis, side, points[k]) for side in (-1, 1)]
        reached = np.flatnonzero(graph["leads"][k])
        assert sorted(points[reached].tolist()) == sorted(np.asarray(memories).tolist())
        assert graph["leads"][k, reached].tolist() == [1, 1]

    seen, matrix = kernel.display.plots(inputs_of(params), shared, {}, results, graph)
    names = ["leads to", "stable (8)", *(f"{n} growing mode{'s' * (n > 1)} ({k})" for n, k in ((1, 12), (2, 6), (3, 1)))]  # fmt: skip
    assert [layer.name for layer in seen.layers] == names
    assert seen.note == "Lines lead away from hollow points."
    # In the plane of the table's own pictures.
    np.testing.assert_array_equal(seen.layers[1].x, points[unstable == 0][:, 2] - 1)
    np.testing.assert_array_equal(seen.layers[1].y, points[unstable == 0][:, 0] - 1)
    assert matrix.scale.label == "departures"
    assert (matrix.layers[0].z == graph["leads"]).all()


def test_no_item_leaves_a_slow_point(table, tmp_path):
    """Whose `error` is NaN; it is drawn as a diamond, and is no saddle."""
    found = table[0] | {
        "error": np.where(np.arange(27) == 13, np.nan, 0)
    }  # 13: the middle, with three growing modes
    write_hdf5(tmp_path / "points.h5", found)
    params = Departure(cell="networks.cube", points=str(tmp_path / "points.h5"))
    shared = kernel.load(inputs_of(params))
    assert len(shared.departures) == 48
    assert 13 not in shared.departures[:, 0]
    (seen,) = kernel.display.plots(
        inputs_of(params), shared, {}, {}, {"leads": np.zeros((27, 27), int)}
    )
    assert [(layer.name, layer.marker) for layer in seen.layers] == [
        ("stable (8)", "circle"),
        ("slow (1)", "diamond"),
        ("1 growing mode (12)", "circle"),
        ("2 growing modes (6)", "circle"),
    ]


def test_departures_that_no_item_takes_are_told(table):
    params = Departure(cell="networks.cube", points=str(table[1]))
    shared = kernel.load(inputs_of(params))
    results = {name: np.array([k]) for name, k in (("from_point", 0), ("mode", 0), ("side", 1), ("to_point", 1), ("steps", 3))}  # fmt: skip
    with warned():
        kernel.tables.reduce(inputs_of(params), shared, {}, results, None)


def test_steps_are_those_until_the_end(table):
    """A loop in NumPy ends at the same steps; `n_steps` cuts the third off."""
    found, path = table
    params = Departure(cell="networks.cube", points=str(path))
    shared = kernel.load(inputs_of(params))
    departure = np.arange(len(shared.departures))
    columns = {"departure": departure, "n_steps": np.where(departure == 2, 7, 100_000)}
    results = run_items(kernel, params, columns, shared=shared)
    for k, limit in enumerate(columns["n_steps"]):
        leaves, _, side = np.asarray(shared.departures[k])
        h = found["point"][leaves] + params.distance * side * shared.direction[k]
        others = np.delete(found["point"], leaves, axis=0)
        steps, arrived = 0, False
        while steps < limit and not arrived:
            h, before, steps = cube(None, h, None), h, steps + 1
            near = np.linalg.norm(others - h, axis=1).min() <= params.near
            arrived = near and np.linalg.norm(h - before) <= params.near / 100
        assert results["steps"][k] == steps
        np.testing.assert_allclose(
            results["end"][k], h, atol=1e-9
        )  # rounding grows 1.4-fold a step
    assert results["outcome"].tolist() == (departure == 2).tolist()  # arrived, limit


@pytest.mark.parametrize(
    ("growing", "leads", "names", "note"),
    [
        ([0, 0, 0], [], ["stable (1)", "marginal (2)"], "No point has a growing mode, along which to leave it."),
        ([0, 0, 2], [], ["stable (1)", "marginal (1)", "2 growing modes (1)"], "No departure came to rest at another point."),
        ([0, 0, 1], [(2, 0)], ["leads to", "stable (1)", "marginal (1)", "1 growing mode (1)"], "Lines lead away from hollow points."),
    ],
)  # fmt: skip
def test_pictures_tell_marginal_from_stable(growing, leads, names, note):
    """And have no matrix where it would be 0 all over. Of the three points the first alone has decaying modes only."""
    nothing = np.zeros(0)
    points = np.eye(3)
    shared = Table({}, {}, points, np.zeros((3, 0)), nothing, nothing, np.array(growing), np.array([0, 1, 1]), np.zeros((0, 0)))  # fmt: skip
    counts = np.zeros((3, 3), int)
    counts[tuple(np.reshape(leads, (-1, 2)).astype(int).T)] = 1
    seen, *matrix = kernel.display.plots(None, shared, {}, {}, {"leads": counts})
    assert [layer.name for layer in seen.layers] == names
    assert seen.note == note
    assert len(matrix) == len(leads)


def test_load_refuses_what_is_no_table(tmp_path):
    write_hdf5(tmp_path / "states.h5", {"point": np.zeros((2, 3))})
    given = {"cell": "networks.cube", "points": str(tmp_path / "states.h5")}
    with refused(ValueError):
        kernel.load(inputs_of(Departure(**given)))
    with refused(ValueError):
        kernel.load(inputs_of(Departure(cell=given["cell"])))


def test_load_refuses_the_points_of_another_network(table, tmp_path):
    """A table tells the residuals of its points; those of the first alone are as the map has them."""
    found, _ = table
    moved = {**found, "residual": np.full(27, 1e-8)}
    write_hdf5(tmp_path / "own.h5", moved)
    write_hdf5(
        tmp_path / "other.h5", {**moved, "point": found["point"] + 0.1 * (found["point"] > 0)}
    )
    load = lambda name: kernel.load(inputs_of(Departure(cell="networks.cube", points=str(tmp_path / name))))  # fmt: skip
    assert len(load("own.h5").points) == 27
    with pytest.raises(ValueError, match="of 27 points do not rest in these weights"):
        load("other.h5")
