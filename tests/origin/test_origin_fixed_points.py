"""Fixed points, their q and linearisations against the tutorials' formulas in NumPy (tests/support/origin.py)."""

from functools import partial

import numpy as np
import origin
import pytest
from scipy.optimize import linear_sum_assignment
from stores import FOUR_SLOTS

from ctd.data import write_hdf5

N = 12
"""Units, as in the tests of the kernel (tests/ctd/fixed_points/): these searches run the program of those, in their layout."""


def random_network(cell):
    """Weights of a network with several fixed points, since two of its units excite themselves, biases included."""
    rng = np.random.default_rng(1 if cell == "vanilla" else 5)
    memories = np.diag(2.5 * (np.arange(N) < 2))
    if cell == "vanilla":
        params = origin.random_vrnn_params(rng, 1, N, 1, g=0.7)
        params["wR"] = params["wR"] + memories
        return params | {"bR": 0.3 * rng.standard_normal(N), "bO": np.array([0.2])}
    params = origin.gru_params(rng, 1, N, 1, h_factor=0.7)
    params["wCHX"] = params["wCHX"] + np.pad(memories, [(0, 0), (0, 1)])
    bRU, bC = 0.3 * rng.standard_normal(2 * N), 0.3 * rng.standard_normal(N)
    if cell == "gru":
        # One network in two conventions: here the constant is in the candidate's bias.
        bRU, bC = bRU - np.repeat([0.0, 0.5], N), bC + 0.5
    return params | {"bRU": bRU, "bC": bC, "bO": np.array([0.2])}


def transposed(params, h, x):
    """Not the origin's network: recurrent weights with rows and columns exchanged."""
    return origin.vrnn(params | {"wR": params["wR"].T}, h, x)


@pytest.mark.parametrize(
    ("cell", "step", "wrong"),
    [
        ("gru", origin.gru, origin.gru_before_2020),
        pytest.param(
            "gru_candidate_bias",
            origin.gru_before_2020,
            origin.gru,
            marks=pytest.mark.endurance,  # its steps: tests/ctd/cells/test_cells.py
        ),
        pytest.param(
            "vanilla",
            origin.vrnn,
            transposed,
            # points of a tanh map: tests/ctd/fixed_points/test_fixed_points_search.py
            marks=pytest.mark.endurance,
        ),
    ],
)
def test_fixed_points_cells(job, tmp_path, cell, step, wrong):
    """Points, q and linearisations of the cell's own formula; by another one its points are not fixed."""
    params = random_network(cell)
    # As the tutorials write it: nothing in the file says which cell it is.
    write_hdf5(tmp_path / "net.h5", params)
    states = np.random.default_rng(0).uniform(-1, 1, (8, 25, N))
    write_hdf5(tmp_path / "states.h5", {"hiddens": states})
    x = np.array([0.2])
    tree = job(
        "fixed_points",
        {"cell": cell, "weights": "net.h5", "candidates": "states.h5", "x": [0.2], "noise": 0.05},
        sweep={"grid": {"candidate": {"range": 48}}},
        run=FOUR_SLOTS | {"microbatch": 2},
    )
    rnn_fun = partial(step, params, x=x)
    found = tree["results/0"].load()
    fixed = np.flatnonzero(found.outcome == 0)
    assert len(fixed) > 24
    for point, q, residual in zip(found.point, found.q, found.residual, strict=True):
        h = point.to_numpy()
        # |F - h| is rounded at 1e-16 a unit; q is about its square where the search has ended.
        assert np.linalg.norm(rnn_fun(h) - h) == pytest.approx(float(residual), abs=1e-14)
        # The origin's loss is the mean over units without the half.
        expected = N / 2 * origin.fp_loss(rnn_fun, h)
        assert expected == pytest.approx(float(q), rel=1e-9, abs=1e-24)
    for h in found.point[fixed].to_numpy():
        assert N / 2 * origin.fp_loss(rnn_fun, h) < 1e-20
        assert N / 2 * origin.fp_loss(partial(wrong, params, x=x), h) > 1e-4, "the test can fail"

    table = tree["gathered/0"].load()
    assert table.sizes["fixed_point"] > 1
    for row in range(table.sizes["fixed_point"]):
        at = table.isel(fixed_point=row)
        h = at.point.to_numpy()
        expected = origin.jacobian(rnn_fun, h)
        # Rounding of products of twelve.
        np.testing.assert_allclose(at.jacobian, expected, rtol=0, atol=1e-13)
        by_input = origin.jacobian(lambda x, h=h: step(params, h, x), x)
        np.testing.assert_allclose(at.input_jacobian, by_input, rtol=0, atol=1e-13)
        values = np.linalg.eig(expected)[0]
        distance = abs(values[:, None] - at.eigenvalue.to_numpy())
        # Eigenvalues move by the rounding of the matrix times their condition numbers, below 30 here.
        assert distance[linear_sum_assignment(distance)].max() < 1e-8
        # At a slow point one eigenvalue is near 1 and does not count.
        if at.kind == "fixed":
            assert bool(at.stable) == (abs(values).max() < 1)
        np.testing.assert_allclose(at.output, origin.affine(params, h), rtol=0, atol=1e-14)
