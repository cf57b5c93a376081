"""Flax, Orbax and Equinox: the networks that they write are those that ctd reads, over 50 steps."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from messages import refused
from networks import assert_states, run_file

from ctd.late import Late
from ctd.weights import read_weights

# Imported by the process that runs this file, and by no other that collects it.
eqx, nn, nnx = Late("equinox"), Late("flax.linen"), Late("flax.nnx")
serialization, ocp = Late("flax.serialization"), Late("orbax.checkpoint")

N, N_IN, N_OUT = 6, 3, 2
RNG = np.random.default_rng(0)


@pytest.fixture
def dtype(request):
    """That of the case."""
    with jax.enable_x64(request.param == "float64"):
        yield request.param


def inputs(dtype):
    return RNG.normal(size=(50, N_IN)).astype(dtype)


def enlarged(tree, dtype):
    """Every array, of which there need be no more than the shape, drawn anew, biases too, so that the gates leave their linear range."""
    return jax.tree.map(lambda x: jnp.asarray(0.6 * RNG.normal(size=x.shape), dtype), tree)


def states_of(step, carry, xs):
    """(time, state): an LSTM's state as ctd has it, h before the memory cells."""
    _, states = jax.jit(lambda xs: jax.lax.scan(step, carry, xs))(xs)
    return np.asarray(states)


@cache
def linen():
    """The class of a cell of linen under a name, and a readout."""

    class Linen(nn.Module):
        cell: nn.RNNCellBase

        def setup(self):
            self.out = nn.Dense(N_OUT)

        def __call__(self, carry, x):
            carry, y = self.cell(carry, x)
            return carry, self.out(y)

    return Linen


@pytest.mark.parametrize(
    ("make", "cell", "dtype"),
    [
        ("SimpleCell", "vanilla", "float32"),
        ("GRUCell", "gru_torch", "float64"),
        ("LSTMCell", "lstm", "float32"),
        ("OptimizedLSTMCell", "lstm", "float64"),
    ],
    indirect=["dtype"],
)
@pytest.mark.filterwarnings("ignore:.*does not tell the units")
def test_linen(tmp_path, dtype, make, cell):
    model = linen()(getattr(nn, make)(N, param_dtype=dtype))
    zeros = jnp.zeros(N, dtype)
    carry = (zeros, zeros) if cell == "lstm" else zeros
    xs = inputs(dtype)
    params = enlarged(jax.eval_shape(model.init, jax.random.key(0), carry, xs[0]), dtype)
    (tmp_path / "net.msgpack").write_bytes(serialization.to_bytes(params))

    def step(carry, x):
        carry, _ = model.apply(params, carry, x)
        return carry, jnp.concatenate(carry[::-1]) if cell == "lstm" else carry

    found, states, outputs = run_file(tmp_path / "net.msgpack", xs)
    assert found.cell == cell
    assert outputs.shape == (50, N_OUT)
    assert_states(states, states_of(step, carry, xs))


@pytest.mark.parametrize(
    ("make", "cell"), [("GRUCell", "gru_torch"), ("OptimizedLSTMCell", "lstm")]
)
def test_nnx_by_orbax(tmp_path, make, cell):
    model = nnx.eval_shape(lambda: getattr(nnx, make)(N_IN, N, rngs=nnx.Rngs(0)))
    state = enlarged(nnx.state(model, nnx.Param), "float32")
    nnx.update(model, state)
    with ocp.StandardCheckpointer() as writer:
        writer.save(tmp_path / "net", nnx.to_pure_dict(state))
    zeros = jnp.zeros(N)
    carry = (zeros, zeros) if cell == "lstm" else zeros

    def step(carry, x):
        carry, _ = model(carry, x)
        return carry, jnp.concatenate(carry[::-1]) if cell == "lstm" else carry

    xs = inputs("float32")
    found, states, _ = run_file(tmp_path / "net", xs)
    assert found.cell == cell
    assert_states(states, states_of(step, carry, xs))


@cache
def equinox():
    """The class of a cell of Equinox and a readout."""

    class Equinox(eqx.Module):
        cell: eqx.Module
        out: eqx.nn.Linear

        def __init__(self, make, key):
            self.cell = make(N_IN, N, key=key)
            self.out = eqx.nn.Linear(N, N_OUT, key=key)

    return Equinox


@pytest.mark.parametrize(
    ("make", "cell", "header", "dtype"),
    [
        ("GRUCell", "gru_torch", b"", "float32"),
        ("LSTMCell", "lstm", b'{"width": 6}\n', "float64"),
    ],
    indirect=["dtype"],
)
def test_equinox(tmp_path, dtype, make, cell, header):
    drawn = lambda key: equinox()(getattr(eqx.nn, make), key)
    model = enlarged(eqx.filter_eval_shape(drawn, jax.random.key(0)), dtype)
    with (tmp_path / "net.eqx").open("wb") as file:
        file.write(header)
        eqx.tree_serialise_leaves(file, model)
    zeros = jnp.zeros(N, dtype)
    carry = (zeros, zeros) if cell == "lstm" else zeros

    def step(carry, x):
        carry = model.cell(x, carry)
        return carry, jnp.concatenate(carry) if cell == "lstm" else carry

    xs = inputs(dtype)
    found, states, outputs = run_file(tmp_path / "net.eqx", xs)
    assert found.cell == cell
    assert_states(states, states_of(step, carry, xs))
    expected = np.asarray(jax.vmap(model.out)(jnp.asarray(states[:, :N])))
    np.testing.assert_allclose(outputs, expected, atol=1e-5 if dtype == "float32" else 1e-12)


def test_equinox_leaves_that_do_not_tell_the_network(tmp_path):
    key = jax.random.key(0)
    eqx.tree_serialise_leaves(tmp_path / "mlp.eqx", eqx.nn.Linear(3, 2, key=key))
    with refused(ValueError):
        read_weights(tmp_path / "mlp.eqx")
    both = (eqx.nn.GRUCell(3, 4, key=key), jnp.zeros(5))
    eqx.tree_serialise_leaves(tmp_path / "more.eqx", both)
    with refused(ValueError):
        read_weights(tmp_path / "more.eqx")


def test_minimal_gated_unit_is_refused(tmp_path):
    shapes = jax.eval_shape(nn.MGUCell(N).init, jax.random.key(0), jnp.zeros(N), jnp.zeros(N_IN))
    params = enlarged(shapes, "float32")
    (tmp_path / "net.msgpack").write_bytes(serialization.to_bytes(params))
    with refused(ValueError):
        read_weights(tmp_path / "net.msgpack")
