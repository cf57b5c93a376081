"""The kernel: every cell, every way to give candidates, its pictures."""

import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import DIVERGED, FIXED, LIMIT, SLOW, drawn, starts
from places import DATA, ROOT
from small import FOUR

from ctd.batch import Layout, precision, run_items
from ctd.cells import CELLS, Scales, get_cell
from ctd.data import write_hdf5
from ctd.fixed_points import kernel
from ctd.fixed_points.network import make_network, outputs_of
from ctd.fixed_points.search.params import FixedPoint
from ctd.fixed_points.search.starts import draw_start, with_inverse
from ctd.kernel import inputs_of
from ctd.plots import Points
from ctd.plots.png import draw
from ctd.weights import read_weights, write_weights


def doubling(weights, h, x):
    """A user's map for the kernel: F(h) = h / 2 + x; the fixed point is 2 x."""
    return h / 2 + x


ALONE = Layout(8, 1)
"""For programs that one test needs: item by item they compile in half of the time. The other tests, in the layout FOUR, share a
program with the kernel's contract."""


def search(params, n, layout=FOUR, **columns):
    return run_items(kernel, params, {"candidate": np.arange(n), **columns}, layout=layout)


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


NOISY = {"n_trials": 8, "x": (0.2,), "noise": 0.1}


@pytest.fixture(scope="module")
def searched(network):
    """(inputs, shared, results, table) of 40 noisy candidates at x = 0.2."""
    params = FixedPoint(weights=network, **NOISY)
    inputs = inputs_of(params)
    with precision(params):
        shared = kernel.load(inputs)
    results = search(params, 40)
    with precision(params):
        return (
            inputs,
            shared,
            results,
            kernel.tables.reduce(inputs, shared, {}, results, kernel.tables.Options()),
        )


def test_point_is_fixed_in_numpy(searched):
    _, shared, results, _ = searched
    w = shared.weights
    for h, q, residual in zip(results["point"], results["q"], results["residual"], strict=True):
        r, u = np.split(w["wRUHX"] @ np.append(h, 0.2) + w["bRU"], 2)
        r, u = sigmoid(r), sigmoid(u + 0.5)
        c = np.tanh(w["wCHX"] @ np.append(r * h, 0.2) + w["bC"])
        speed = np.linalg.norm(u * h + (1 - u) * c - h)
        assert speed == pytest.approx(residual, abs=1e-14)
        assert 0.5 * speed**2 == pytest.approx(q, abs=1e-24)


@pytest.mark.endurance
@pytest.mark.parametrize(
    "cell", sorted({*CELLS} - {"gru", "gru_candidate_bias", "vanilla", "node"})
)
def test_every_cell(tmp_path, cell):
    """Small random networks are contractions: one stable point, h = F(h) by iteration.

    Steps of each cell: tests/ctd/cells/test_cells.py. Always, points of gru and of an lstm, whose state is twice its units,
    are held to NumPy's formulas here, those of gru with their linearisations by tests/origin/, those of node to closed
    forms below, and those of a tanh map to its iterates in test_fixed_points_search.py.
    """
    weights = drawn(cell, 0, 7, 2, 1, Scales(0.4))
    path = tmp_path / "net.h5"
    write_weights(path, weights, cell)
    params = FixedPoint(
        cell=cell,
        weights=str(path),
        task={"name": "flipflop", "n_bits": 2, "n_steps": 5},
        n_trials=4,
    )
    results = search(params, 20)
    assert (results["outcome"] == FIXED).all()
    with precision(params):
        shared = kernel.load(inputs_of(params))
        step = jax.jit(lambda h: get_cell(cell).step(shared.weights, h, jnp.zeros(2)))
        h = jnp.asarray(shared.states[0, 0])
        for _ in range(2000):
            h = step(h)
        table = kernel.tables.reduce(
            inputs_of(params), shared, {}, results, kernel.tables.Options()
        )
    np.testing.assert_allclose(results["point"], np.tile(h, (20, 1)), atol=1e-8)
    assert list(table["stable"]) == [True]
    assert table["output"].shape == (1, 1)


def test_what_is_known_beforehand_changes_no_answer(network, searched):
    """With and without the mean of J'J from which `lm` is preconditioned: the same points, in fewer products.

    The identity preconditions as nothing does, and in the same program; that of nothing, of size 0, is what `find` runs.
    """
    inputs, shared, results, some = searched
    assert np.linalg.eigvalsh(shared.inverse).min() > 0
    unknown = shared._replace(inverse=np.eye(12))
    params, columns = FixedPoint(weights=network, **NOISY), {"candidate": np.arange(40)}
    slower = run_items(kernel, params, columns, shared=unknown, layout=FOUR)
    assert results["iterations"].mean() < slower["iterations"].mean()
    for ends in (results, slower):
        assert np.isin(ends["outcome"], (FIXED, SLOW)).all()
    with precision(params):
        others = kernel.tables.reduce(inputs, unknown, {}, slower, kernel.tables.Options())
    by_place = [np.argsort(table["point"][:, 0]) for table in (some, others)]
    for row in ("point", "q", "n_unstable"):
        a, b = (table[row][order] for table, order in zip((some, others), by_place, strict=True))
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_derivatives_that_are_not_finite_are_left_out(network):
    with precision(FixedPoint()):
        states = make_network(doubling, {}, starts(40, 3), "float64")
        known = with_inverse(states, lambda w, h, x: jnp.sqrt(h) * 0.5, np.zeros(1))
        unknown = with_inverse(states, lambda w, h, x: jnp.sqrt(-h * h - 1), np.zeros(1))
        identity = with_inverse(states, lambda w, h, x: h, np.zeros(1))
    assert np.isfinite(known.inverse).all()
    assert known.inverse.size in (0, 9)
    assert unknown.inverse.size == identity.inverse.size == 0


def test_inputs_are_reduced_apart(network):
    """Each distinct x has its own points, in the order of first appearance."""
    params = FixedPoint(weights=network, n_trials=8)
    x = np.where(np.arange(30) % 3 == 0, 0.5, -0.5)[:, None]
    results = search(params, 30, x=x)
    with precision(params):
        shared = kernel.load(inputs_of(params))
        table = kernel.tables.reduce(
            inputs_of(params), shared, {}, results, kernel.tables.Options()
        )
    xs = table["constant_input"][:, 0]
    assert xs[0] == 0.5
    assert set(xs) == {0.5, -0.5}
    assert (np.diff(xs) <= 0).all()
    for value in (0.5, -0.5):
        assert table["search_share"][xs == value].sum() == pytest.approx(1)
    assert table["count"].sum() == 30


def test_starts_wrap_mix_and_vary(network):
    params = FixedPoint(weights=network, n_trials=8, x=(0.0,), max_iterations=1, q_tol=1e3)
    with precision(params):
        states = kernel.load(inputs_of(params)).states.reshape(-1, 12)
    k = len(states)
    # Every fourth, twice: with q_tol = 1000 a search ends where it starts.
    some = np.arange(0, 2 * k, 4)
    results = search(params, len(some), candidate=some)
    np.testing.assert_array_equal(results["point"], np.tile(states[::4], (2, 1)))
    noisy = params.model_copy(update={"noise": 0.1})
    moved = search(noisy, len(some), candidate=some)["point"] - results["point"]
    assert np.std(moved) == pytest.approx(0.1, rel=0.1)
    assert not (moved[: k // 4] == moved[k // 4 :]).any()
    mixed = search(params.model_copy(update={"mix": 1.0}), 400)["point"]
    own = np.concatenate([states, states])
    offsets = np.linalg.norm(mixed - own, axis=1)
    assert (offsets > 0).mean() > 0.9
    # Every start lies on the segment to some state, and a good half of them halfway.
    towards = states[None] - own[:, None]
    squares = np.maximum(np.sum(towards**2, axis=-1), 1e-300)
    share = np.einsum("isn,in->is", towards, mixed - own) / squares
    gap = np.linalg.norm(share[..., None] * towards - (mixed - own)[:, None], axis=-1)
    best = gap.argmin(axis=1)
    assert gap.min(axis=1).max() < 1e-7
    half = np.abs(share[np.arange(400), best] - 0.5) < 1e-7
    assert 0.4 < half.mean() < 0.6


def test_diverged_start_and_neighbours(network):
    """A candidate at which F is NaN ends at once and changes nothing for those beside it."""
    params, half = FixedPoint(weights=network, n_trials=8), np.arange(32)
    lost = half % 5 == 3
    x = np.concatenate([np.full(32, 0.2), np.where(lost, np.nan, 0.2)])[:, None]
    columns = {"candidate": np.tile(half, 2), "x": x}
    found = run_items(kernel, params, columns, layout=FOUR)
    results = {name: values.reshape(2, 32, *values.shape[1:]) for name, values in found.items()}
    assert (results["outcome"][1, lost] == DIVERGED).all()
    assert (results["iterations"][1, lost] == 0).all()
    assert np.isin(results["outcome"][0], (FIXED, SLOW)).all()
    # Where x is the same twice, the second half of the items repeats the first to the bit.
    for name, values in results.items():
        np.testing.assert_array_equal(values[1, ~lost], values[0, ~lost], err_msg=name)


@pytest.mark.parametrize("region", ["box", "sphere"])
def test_starts_anywhere(region):
    """Half of them at the state plus noise; the others in the box, or on a sphere around the mean, of the given size."""
    network = make_network(doubling, {}, starts(50, 3) + 4, "float32")
    params = FixedPoint(region=region, anywhere=0.5, reach=2.5)
    there = jax.tree.map(jnp.asarray, network)
    draw = jax.jit(jax.vmap(lambda key: draw_start(params, there, params, key)))
    begun, far = map(np.asarray, draw(jax.random.split(jax.random.key(0), 400)))
    assert 0.4 < far.mean() < 0.6
    np.testing.assert_array_equal(begun[~far], np.tile(network.states[0, 0], ((~far).sum(), 1)))
    if region == "box":
        half = 2.5 * float(network.largest)
        assert np.abs(begun[far]).max() <= half
        # Uniform, of sd half / sqrt 3; 600 numbers tell it to 2 %, three times over.
        assert np.std(begun[far]) == pytest.approx(half / np.sqrt(3), rel=0.06)
    else:
        out = begun[far] - network.states.reshape(-1, 3).mean(0)
        radius = 2.5 * float(network.spread)
        np.testing.assert_allclose(np.linalg.norm(out, axis=1), radius, rtol=1e-5)
        assert np.abs(out.mean(axis=0)).max() < 0.2 * radius


def test_candidates_from_file(network, tmp_path):
    states = starts(200, 12, 0.3).reshape(8, 25, 12)
    write_hdf5(tmp_path / "states.h5", {"h": states})
    params = FixedPoint(
        weights=network, candidates=str(tmp_path / "states.h5"), dataset="h", q_tol=1e3, x=(0.0,)
    )
    some = np.arange(0, 200, 5)
    found = search(params, len(some), candidate=some)
    np.testing.assert_array_equal(found["point"], states.reshape(-1, 12)[some])


def rnn_step(p, h):
    """PyTorch's formula, without input."""
    return np.tanh(p["wR"] @ h + p["bR"])


def lstm_step(p, h):
    """PyTorch's formulas, without input."""
    h, c = np.split(h, 2)
    i, f, g, o = np.split(p["weight_hh"] @ h + p["bias_ih"] + p["bias_hh"], 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return np.append(sigmoid(o) * np.tanh(c), c)


@pytest.mark.parametrize(
    ("name", "cell", "step", "n"),
    [
        pytest.param("rnn", "vanilla", rnn_step, 6, marks=pytest.mark.endurance),
        ("lstm", "lstm", lstm_step, 12),
    ],
)
@pytest.mark.filterwarnings("ignore:.*tanh is taken")  # of rnn.pt
def test_same_points_from_pytorchs_file_as_from_hdf5(tmp_path, name, cell, step, n):
    """A network that PyTorch wrote, its states by .npy; the cell is what the file says.

    NumPy's formulas keep its points. The lstm is a contraction: one stable point, to which iterating them leads.
    """
    path = DATA / "torch_nets" / f"{name}.pt"
    found = read_weights(path)
    write_weights(tmp_path / "net.h5", found.params, found.cell)
    states = starts(10, n, 0.3)
    np.save(tmp_path / "states.npy", states)
    write_hdf5(tmp_path / "states.h5", {"hiddens": states})
    torch = FixedPoint(weights=str(path), candidates=str(tmp_path / "states.npy"))
    hdf5 = FixedPoint(
        weights=str(tmp_path / "net.h5"), candidates=str(tmp_path / "states.h5"), cell=cell
    )
    with precision(torch):
        ours, theirs = (kernel.load(inputs_of(params)) for params in (hdf5, torch))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    results = search(torch, 10, ALONE)
    assert (results["outcome"] == FIXED).all()
    stays = np.array([step(found.params, h) for h in results["point"]])
    np.testing.assert_allclose(stays, results["point"], atol=1e-9)
    if cell != "lstm":
        return
    h = states[0]
    for _ in range(2000):
        h = step(found.params, h)
    np.testing.assert_allclose(results["point"], np.tile(h, (10, 1)), atol=1e-8)
    with precision(torch):
        table = kernel.tables.reduce(inputs_of(torch), theirs, {}, results, kernel.tables.Options())
    assert list(table["stable"]) == [True]
    readout = found.params["wO"] @ h[:6] + found.params["bO"]
    np.testing.assert_allclose(table["output"], [readout], atol=1e-7)


def test_users_map_by_dotted_path(tmp_path):
    """By adam, whose program is half of lm's; of what is known beforehand lm gets nothing, as from `find`."""
    write_hdf5(tmp_path / "states.h5", {"hiddens": starts(5, 2)})
    given = {"cell": f"{__name__}.doubling", "candidates": str(tmp_path / "states.h5")}
    assert kernel.load(inputs_of(FixedPoint(**given))).inverse.size == 0
    results = search(FixedPoint(**given, x=(0.5, -1.5), method="adam"), 5, ALONE)
    np.testing.assert_allclose(results["point"], np.tile([1.0, -3.0], (5, 1)), atol=1e-9)


def test_readout_of_a_users_map():
    """It is that of weights which are named so, where their shapes are a readout's."""
    w, b, states = np.array([[1.0, -2.0]]), np.array([0.5]), starts(3, 2)
    of = lambda **weights: outputs_of(make_network(doubling, weights, states, "float64"), states)  # fmt: skip
    np.testing.assert_allclose(of(wO=w, bO=b), states @ w.T + b, rtol=1e-6)  # float32
    assert of(wO=w.T, bO=b).shape == of(wO=w).shape == (3, 0)


FAST, SLOPE = 2.0, 1.25
"""A field with closed-form points: 0.1 (tanh(2 h) - 1.25 tanh h) is 0 at h = 0 and where tanh(h)^2 = 2 / 1.25 - 1."""


def test_flow_in_closed_form(tmp_path):
    """Three points along the first unit, a spiral in the other two: 0.1 (-1 +- 2i) at each, since tanh' is 1 there.

    At q 1e-18 a point is off by 1.4e-9 over the least slope, 0.0375.
    """
    weights = {
        "wFHX": np.array([[FAST, 0, 0, 1], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]),
        "bF": np.zeros(4),
        "wV": np.array([[1, -SLOPE, 0, 0], [0, 0, -1, -2], [0, 0, 2, -1]]),
        "bV": np.zeros(3),
    }
    write_weights(tmp_path / "net.h5", weights, "node")
    write_hdf5(tmp_path / "states.h5", {"hiddens": starts(24, 3)})
    files = {"weights": str(tmp_path / "net.h5"), "candidates": str(tmp_path / "states.h5")}
    params = FixedPoint(**files, time="continuous", dt=0.01, method="adam", q_tol=1e-18)
    results = search(params, 24, ALONE, max_iterations=np.where(np.arange(24) < 23, 10_000, 7))
    assert (results["outcome"][-1], results["iterations"][-1]) == (LIMIT, 7)
    inputs = inputs_of(params)
    with precision(params):
        shared = kernel.load(inputs)
        table = kernel.tables.reduce(inputs, shared, {}, results, kernel.tables.Options(between=0))
        made = kernel.display.plots(inputs, shared, {}, results, table)
        (spectra,) = (plot for plot in made if plot.title.startswith("Spectra"))
        order = np.argsort(table["point"][:, 0])
    table = {name: value[order] for name, value in table.items() if np.ndim(value)}
    t = np.sqrt(2 / SLOPE - 1)
    far = np.arctanh(t)
    np.testing.assert_allclose(table["point"], [[-far, 0, 0], [0, 0, 0], [far, 0, 0]], atol=1e-8)
    along = lambda t: 0.1 * (FAST * (1 - (2 * t / (1 + t**2)) ** 2) - SLOPE * (1 - t**2))
    for k, rate in enumerate((along(t), along(0), along(t))):
        expected = sorted([rate, -0.1 + 0.2j, -0.1 - 0.2j], key=lambda v: (-v.real, -v.imag))
        np.testing.assert_allclose(table["eigenvalue"][k], expected, atol=1e-7)
        np.testing.assert_allclose(table["time_constant"][k], -1 / np.real(expected), rtol=1e-5)
    assert list(table["stability"]) == ["stable", "unstable", "stable"]
    assert list(table["n_unstable"]) == [0, 1, 0]
    np.testing.assert_allclose(table["leading"], [along(t), along(0), along(t)], atol=1e-7)
    np.testing.assert_allclose(np.abs(table["frequency"]).max(1), 0.2 / (2 * np.pi), rtol=1e-6)
    np.testing.assert_allclose(table["frequency_hz"], table["frequency"] / 0.01)
    assert spectra.layers[0].name == "imaginary axis"


def test_network_in_float32(network, tmp_path):
    """Of a job in float32 all that its searches see; how they end at rounding: `test_fixed_points_search.py`."""
    write_hdf5(tmp_path / "states.h5", {"hiddens": starts(200, 12, 0.3)})
    given = {"weights": network, "candidates": str(tmp_path / "states.h5")}
    loaded = []
    for dtype in ("float32", "float64"):
        params = FixedPoint(**given, dtype=dtype)
        with precision(params):
            loaded.append(kernel.load(inputs_of(params)))
    single, double = loaded
    assert {leaf.dtype for leaf in jax.tree.leaves(single)} == {np.dtype("float32")}
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), single, double
    )


def test_max_iterations_is_exact(network):
    """That of adam: `test_flow_in_closed_form`."""
    params = FixedPoint(weights=network, n_trials=8, max_iterations=7, q_tol=1e-30, x=(0.0,))
    results = search(params, 10)
    assert (results["outcome"] == LIMIT).all()
    assert (results["iterations"] == 7).all()


def test_the_table_has_the_plane_of_the_pictures(searched, tmp_path, monkeypatch):
    """The page's lines draw the trials where the picture has them."""
    inputs, shared, results, table = searched
    turned = table | {"plane_axes": -table["plane_axes"]}  # as on another machine
    page = (ROOT / "docs" / "dynamics.md").read_text()
    (code,) = re.findall(r"```python\n(figure = jobs(?:(?!```)[\s\S])*)```", page)
    with precision(inputs):
        made = kernel.display.plots(inputs, shared, {}, results, turned)
    names = {
        "jobs": SimpleNamespace(figure=lambda store: draw(made)),
        "store": None,
        "found": SimpleNamespace(
            **{name: SimpleNamespace(values=values) for name, values in turned.items()}
        ),
        "states": np.asarray(shared.states, float),
    }
    monkeypatch.chdir(tmp_path)
    exec(code, names)
    trials, lines = made[0].layers[0], names["figure"].axes[0].lines
    for k in range(len(trials.x)):
        line = lines[len(lines) - len(trials.x) + k]
        np.testing.assert_allclose(line.get_xydata().T, [trials.x[k], trials.y[k]], atol=1e-12)


def test_pictures_have_no_axis_without_variance(searched):
    """States on a line in the space of five units: only the spectra are drawn of them."""
    inputs, shared, results, table = searched
    states = np.asarray(shared.states)
    line = shared._replace(states=states[..., :1] * np.arange(1, states.shape[-1] + 1))
    with precision(inputs):
        flat, full = (kernel.display.plots(inputs, s, {}, results, table) for s in (line, shared))
    assert flat[0].title == "Spectra of the linearisation"
    spaces = [[plot.title for plot in made if "State space" in plot.title] for made in (flat, full)]
    assert spaces[0] == []
    assert len(spaces[1]) == 2


def test_figure_is_drawn(searched, tmp_path, monkeypatch):
    inputs, shared, results, full = searched
    none = {name: values[:0] for name, values in results.items()}
    with precision(inputs):
        empty = kernel.tables.reduce(inputs, shared, {}, none, kernel.tables.Options())
    for some, table in ((results, full), (none, empty)):
        with precision(inputs):
            plots = kernel.display.plots(inputs, shared, {}, some, table)
        if not len(table["q"]):
            assert [plot.title for plot in plots] == ["Where the searches ended"]
            continue
        draw(plots).savefig(tmp_path / "points.png")
        space, plane = plots[:2]
        points = [layer for layer in space.layers if isinstance(layer, Points)]
        assert sum(len(layer.x) for layer in points) == len(table["q"])
        modes = [layer for layer in plane.layers if isinstance(layer, Points)]
        assert sum(len(layer.x) for layer in modes) == table["eigenvalue"].size
        for layer in modes:
            assert (layer.marker == "diamond") is layer.name.startswith("marginal")
        assert plane.scale.label == "readout"
    # Two inputs: a row of state spaces, one of spectra; the points keep their numbers.
    own = np.arange(len(full["q"]))[:, None] % 2 / 4
    with precision(inputs):
        plots = kernel.display.plots(inputs, shared, {}, results, full | {"constant_input": own})[
            :4
        ]
    draw(plots).canvas.draw()
    assert [plot.title.partition("x = ")[2] for plot in plots] == ["(0)", "(0.25)"] * 2
    for k, plot in enumerate(plots):
        keys = [layer.key for layer in plot.layers if isinstance(layer, Points)]
        assert (np.concatenate(keys) % 2 == k % 2).all()
    # Of more than MOST_INPUTS, one picture says so.
    monkeypatch.setattr("ctd.fixed_points.pictures.MOST_INPUTS", 1)
    with precision(inputs):
        many = kernel.display.plots(inputs, shared, {}, results, full | {"constant_input": own})[:2]
    assert all("Points of 2 constant inputs together" in plot.note for plot in many)
    # The first of two outputs gives the colours.
    two = full | {"output": np.repeat(full["output"], 2, axis=1)}
    with precision(inputs):
        plots = kernel.display.plots(inputs, shared, {}, results, two)
    assert plots[1].scale.label == "readout 1 of 2"
