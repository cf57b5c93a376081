"""Cells against torch, NumPy and finite differences; weights that do not fit are refused."""

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from messages import refused
from places import DATA
from scipy import integrate

from ctd.cells import CELLS, Scales, check_params, get_cell, readout, run, sizes

N, N_IN, N_OUT = 6, 3, 2


def network(name, dtype="float64"):
    """Weights as large as those of `init`, which has a test of its own; drawn in NumPy, so that nothing is compiled."""
    cell, rng = get_cell(name), np.random.default_rng(0)
    of_readout = {"wO": (N_OUT, N), "bO": (N_OUT,), "h0": (cell.state_size(N),)}
    scale = lambda shape: shape[1] ** -0.5 if len(shape) == 2 else 0.3
    shapes = cell.shapes(N, N_IN) | of_readout
    weights = {name: scale(shape) * rng.standard_normal(shape) for name, shape in shapes.items()}
    inside = np.linspace(0.1, 0.9, N)
    given = {"alpha": np.array(0.2), "alphas": inside, "A": inside, "rectified": np.eye(N)[-1]}
    return {name: given.get(name, w).astype(dtype) for name, w in weights.items()}


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


UNITS = {
    "": np.tanh,
    "relu": lambda h: np.maximum(h, 0),
    "softplus": lambda h: np.log(1 + np.exp(h)),
    "retanh": lambda h: np.tanh(np.maximum(h, 0)),
}


def numpy_step(name, w, h, x):
    """The equations of the cells that torch does not have, written out."""
    base, _, units = name.partition(":")
    if base == "vanilla":
        return UNITS[units](w["wR"] @ h + w["wI"] @ x + w["bR"])
    if base in ("leaky", "leaky_per_unit"):
        alpha = w["alpha" if base == "leaky" else "alphas"]
        return (1 - alpha) * h + alpha * (w["wR"] @ UNITS[units](h) + w["wI"] @ x + w["bR"])
    if base == "leaky_rates":
        return (1 - w["alpha"]) * h + w["alpha"] * UNITS[units](w["wR"] @ h + w["wI"] @ x + w["bR"])
    n = len(h)
    a = w["wRUHX"][:, :n] @ h + w["wRUHX"][:, n:] @ x + w["bRU"]
    in_update, in_candidate = (0.5, 0.0) if name == "gru" else (0.0, 0.5)
    r, u = sigmoid(a[:n]), sigmoid(a[n:] + in_update)
    c = np.tanh(w["wCHX"][:, :n] @ (r * h) + w["wCHX"][:, n:] @ x + w["bC"] + in_candidate)
    return u * h + (1 - u) * c


def states_of(name, weights, *given):
    """States of a trial, from one program."""
    states = jax.jit(lambda weights, given: run(get_cell(name), weights, *given)[0])
    return np.asarray(states(weights, given))


WITHOUT_TORCH = ["vanilla", "leaky", "leaky_per_unit", "leaky_rates", "gru", "gru_candidate_bias"]
OTHER_UNITS = [
    "vanilla:relu",
    "leaky:relu",
    "leaky:softplus",
    "leaky_per_unit:retanh",
    "leaky_rates:relu",
]


@pytest.fixture(scope="module")
def steps():
    """(weights of these cells, a state, an input, the next states), from one program."""
    weights = {name: network(name) for name in (*WITHOUT_TORCH, *OTHER_UNITS)}
    rng = np.random.default_rng(1)
    h, x = rng.standard_normal(N), rng.standard_normal(N_IN)
    each = lambda weights, h, x: {name: get_cell(name).step(w, h, x) for name, w in weights.items()}
    with jax.enable_x64(True):
        return weights, h, x, jax.device_get(jax.jit(each)(weights, h, x))


@pytest.mark.parametrize("name", [*WITHOUT_TORCH, *OTHER_UNITS])
def test_step_numpy(steps, name):
    weights, h, x, got = steps
    np.testing.assert_allclose(got[name], numpy_step(name, weights[name], h, x), 1e-12)


def test_gru_conventions_are_one_family():
    """The bias moves from the candidate to the update gate: the same network, to rounding."""
    old = network("gru_candidate_bias")
    new = old | {"bC": old["bC"] + 0.5, "bRU": old["bRU"] - 0.5 * (np.arange(2 * N) >= N)}
    inputs = np.random.default_rng(1).standard_normal((50, N_IN))
    with jax.enable_x64(True):
        states = states_of("gru_candidate_bias", old, inputs)
        np.testing.assert_allclose(states_of("gru", new, inputs), states, atol=1e-14)


@pytest.mark.parametrize("name", ["gru_torch", "lstm"])
def test_step_torch(name):
    with jax.enable_x64(True), h5py.File(DATA / "torch_cells.h5") as file:
        stored = {k: v[...] for k, v in file[name].items()}
        inputs, start, states = (stored.pop(k) for k in ("inputs", "start", "states"))
        got = states_of(name, stored, inputs, start)
        np.testing.assert_allclose(got, states, rtol=0, atol=1e-6)


def test_node_follows_its_field():
    """Against SciPy at tolerances of 1e-12, input by input. A mode of this field has at most |l| = 0.2, and l^5 / 120 is 3e-6."""
    w, inputs = network("node"), np.random.default_rng(1).standard_normal((6, N_IN))
    with jax.enable_x64(True):
        states = states_of("node", w, inputs)
    h = w["h0"]
    for x, got in zip(inputs, states, strict=True):
        hidden = lambda h, x=x: np.tanh(w["wFHX"] @ np.concatenate([h, x]) + w["bF"])
        field = lambda t, h, hidden=hidden: 0.1 * (w["wV"] @ hidden(h) + w["bV"])
        h = integrate.solve_ivp(field, (0, 1), h, rtol=1e-12, atol=1e-12).y[:, -1]
        np.testing.assert_allclose(got, h, atol=1e-5)


@pytest.mark.parametrize(
    "name",
    [
        # Their steps have the operations of leaky and of gru.
        pytest.param(name, marks=pytest.mark.endurance)
        if name in ("leaky_per_unit", "leaky_rates", "gru_candidate_bias")
        else name
        for name in CELLS
    ],
)
def test_gradient_finite_differences(name):
    """d loss / d weight of a whole trial along random directions, central differences."""
    cell, weights, rng = get_cell(name), network(name), np.random.default_rng(2)
    inputs = rng.standard_normal((8, N_IN))
    # Central differences err by step^2 |third derivative| and 1e-16 / step: about 1e-9 here.
    step = 1e-5

    def loss(w):
        states, outputs = run(cell, w, inputs)
        return jnp.sum(jnp.sin(outputs)) + jnp.sum(states**2)

    # One random direction for each weight, the others held.
    directions = {k: rng.standard_normal(w.shape) for k, w in weights.items()}
    moved = lambda k, by: weights | {k: weights[k] + by * directions[k]}
    with jax.enable_x64(True):
        both = jax.jit(jax.value_and_grad(loss))  # of which all losses are the first result
        gradient = jax.device_get(both(weights)[1])
        ends = [[float(both(moved(k, by))[0]) for k in weights] for by in (step, -step)]
    slopes = np.array([np.sum(directions[k] * gradient[k]) for k in weights])
    np.testing.assert_allclose(slopes, np.subtract(*ends) / (2 * step), rtol=1e-6, atol=1e-8)
    assert (np.abs(slopes) > 1e-3).all()


@pytest.mark.parametrize("name", [name for name, cell in CELLS.items() if cell.pieces is None])
def test_init_shapes_and_scales(name):
    """Those with pieces have uniform entries: test_piecewise.py."""
    cell = get_cell(name)
    # Outside of jit most cells draw by the same few programs.
    drawn = cell.init(jax.random.key(0), 200, 50, N_OUT, Scales(0.5, 2.0))
    weights = {k: np.asarray(w) for k, w in drawn.items()}
    check_params(name, weights, "here")
    assert sizes(name, weights) == (200, 50, N_OUT)
    assert weights["h0"].shape == (cell.state_size(200),)
    joined = weights.get("wCHX", weights.get("wFHX"))
    if joined is not None:
        recurrent, inputs = joined[:, :200], joined[:, 200:]
    else:
        recurrent = weights["wR" if "wR" in weights else "weight_hh"]
        inputs = weights["wI" if "wI" in weights else "weight_ih"]
    # At least 10,000 entries: the standard deviation is known to 1 %, bounds are 5 of those.
    np.testing.assert_allclose(np.std(recurrent), 0.5 / 200**0.5, rtol=0.05)
    np.testing.assert_allclose(np.std(inputs), 2.0 / 50**0.5, rtol=0.05)


@pytest.mark.parametrize("name", ["leaky", "lstm"])
def test_run_is_steps(name):
    """Of the cell whose readout sees other numbers than its state, and of that which has two states a unit."""
    cell, weights = get_cell(name), network(name, "float32")
    inputs = np.random.default_rng(3).standard_normal((4, N_IN), np.float32)

    @jax.jit
    def stepped(weights, inputs):
        states = [weights["h0"]]
        for x in inputs:
            states.append(cell.step(weights, states[-1], x))
        states = jnp.stack(states[1:])
        return states, jnp.stack([readout(cell, weights, h) for h in states])

    states, outputs = jax.jit(lambda weights, inputs: run(cell, weights, inputs))(weights, inputs)
    expected = stepped(weights, inputs)
    np.testing.assert_allclose(states, expected[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(outputs, expected[1], rtol=1e-5, atol=1e-6)


def test_run_without_readout():
    weights = {k: v for k, v in network("lstm", "float32").items() if k not in ("wO", "bO", "h0")}
    check_params("lstm", weights, "here")
    inputs = np.ones((4, N_IN), np.float32)
    states, outputs = jax.jit(lambda w, x: run(get_cell("lstm"), w, x))(weights, inputs)
    assert states.shape == (4, 2 * N)
    assert outputs.shape == (4, 0)
    assert sizes("lstm", weights) == (N, N_IN, 0)


def test_readout_sees_rates_of_leaky():
    weights, h = network("leaky", "float32"), np.linspace(-3, 3, N, dtype=np.float32)
    expected = weights["wO"] @ np.tanh(h) + weights["bO"]
    found = jax.jit(lambda w, h: readout(get_cell("leaky"), w, h))(weights, h)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_units_belong_to_the_cell(tmp_path, monkeypatch):
    """The readout sees what the next step sees, and a function of one's own is as good as a name."""
    (tmp_path / "mylab_units.py").write_text("def square(h):\n    return h**2\n")
    monkeypatch.syspath_prepend(tmp_path)
    cell = get_cell("leaky:mylab_units.square")
    assert cell.name == "leaky:mylab_units.square"
    np.testing.assert_array_equal(cell.hidden(np.arange(3.0)), [0, 1, 4])
    assert get_cell("leaky:tanh") is get_cell("leaky")


UNKNOWN = ("grru", "leaky:rellu", "gru:relu", "leaky:nolab.f", "leaky:math.f")


@pytest.mark.parametrize("name", UNKNOWN)
def test_get_cell_unknown(name):
    with refused(ValueError):
        get_cell(name)


BAD = {
    "missing": ("gru", lambda w: w.pop("bC")),
    "half a readout": ("gru", lambda w: w.pop("bO")),
    "extra": ("vanilla", lambda w: w.update(wX=np.ones(3))),
    "axes": ("vanilla", lambda w: w.update(wR=np.ones(3))),
    "size": ("gru", lambda w: w.update(bRU=np.ones(5))),
    "state": ("lstm", lambda w: w.update(h0=np.ones(N))),
    "transposed": (
        "vanilla",
        lambda w: w.update(wI=w["wI"].T)
    ),
    "all transposed": (
        "gru",
        lambda w: w.update({k: v.T for k, v in w.items()})
    ),
    "integers": ("vanilla", lambda w: w.update(bR=np.ones(N, int))),
    "nan": ("vanilla", lambda w: w.update(bR=np.full(N, np.nan))),
    "leak": ("leaky", lambda w: w.update(alpha=np.array(1.5))),
    "leaks": ("leaky_per_unit", lambda w: w["alphas"].__setitem__(3, 0)),
    "rectified": ("alrnn", lambda w: w["rectified"].__setitem__(3, 0.3)),
    "inf": ("lstm", lambda w: w["bias_ih"].__setitem__(3, np.inf)),
}  # fmt: skip


@pytest.mark.parametrize(("name", "spoil"), BAD.values(), ids=BAD)
def test_check_params_refuses(name, spoil):
    weights = network(name)
    check_params(name, weights, "here")
    spoil(weights)
    with refused(ValueError):
        check_params(name, weights, "here")


def test_check_params_names_the_right_cell():
    with refused(ValueError):
        check_params("vanilla", network("leaky"), "here")
