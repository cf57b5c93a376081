"""Keras on JAX: the networks that it writes are those that ctd reads, over 50 steps."""

import os

import numpy as np
import pytest
from messages import refused, warned
from networks import assert_states, run_file

from ctd.late import Late
from ctd.weights import read_tensors, read_weights, understand

os.environ["KERAS_BACKEND"] = "jax"  # before Keras is imported
keras = Late("keras")

# Of Keras, about NumPy and about its own older format.
pytestmark = pytest.mark.filterwarnings("ignore")

N, N_IN, N_OUT = 6, 3, 2
RNG = np.random.default_rng(0)
XS = RNG.normal(size=(50, N_IN)).astype("float32")
LAYERS = {
    "rnn": ("SimpleRNN", {}, "vanilla"),
    "gru": ("GRU", {}, "gru_torch"),
    "gru before": ("GRU", {"reset_after": False}, "gru"),
    "gru without bias": ("GRU", {"use_bias": False}, "gru_torch"),
    "lstm": ("LSTM", {}, "lstm"),
}


def model_of(layer, **options):
    """A layer and a readout, with weights that take the gates out of their linear range."""
    made = getattr(keras.layers, layer)(N, return_sequences=True, name="core", **options)
    model = keras.Sequential(
        [keras.Input((None, N_IN)), made, keras.layers.Dense(N_OUT, name="out")]
    )
    model.set_weights([0.6 * RNG.normal(size=w.shape) for w in model.get_weights()])
    return model


def test_relu_is_read_where_the_file_tells_it(tmp_path):
    model = model_of("SimpleRNN", activation="relu")
    hidden = np.asarray(model.layers[0](XS[None])[0])
    scale = np.abs(hidden).max()
    model.save(tmp_path / "net.keras")
    model.save(tmp_path / "net.h5")
    model.save_weights(tmp_path / "net.weights.h5")
    for file, cell in (("net.keras", None), ("net.h5", None), ("net.weights.h5", "vanilla:relu")):
        found, states, _ = run_file(tmp_path / file, XS, cell=cell)
        assert found.cell == "vanilla:relu"
        # 50 steps of float32 in another order; relu's states grow beyond 1.
        np.testing.assert_allclose(states / scale, hidden / scale, atol=5e-6)
    with refused(ValueError):
        read_weights(tmp_path / "net.keras", "vanilla")


@pytest.mark.parametrize("layer", ["SimpleRNN", "GRU", "LSTM"])
def test_weights_alone_are_told_to_hide_their_nonlinearity(tmp_path, layer):
    model_of(layer).save_weights(tmp_path / "net.weights.h5")
    with warned():
        found = read_weights(tmp_path / "net.weights.h5")
    assert found.guess in found.notes
    assert not read_weights(tmp_path / "net.weights.h5", found.cell).guess, "the user tells"
    model_of(layer).save(tmp_path / "net.keras")
    assert "does not tell" not in " ".join(read_weights(tmp_path / "net.keras").notes)


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_from_every_file(tmp_path, name):
    layer, options, cell = LAYERS[name]
    model = model_of(layer, **options)
    hidden = np.asarray(model.layers[0](XS[None])[0])
    for file, save in (
        ("net.keras", model.save),
        ("net.h5", model.save),
        ("net.weights.h5", model.save_weights),
    ):
        save(tmp_path / file)
        if name == "gru without bias" and file == "net.weights.h5":
            with refused(ValueError):
                read_weights(tmp_path / file)
            continue
        found, states, outputs = run_file(tmp_path / file, XS)
        assert found.cell == cell
        assert_states(states[:, :N], hidden)
        np.testing.assert_allclose(outputs, np.asarray(model(XS[None])[0]), atol=5e-6)


def two_of(first, second):
    """The two layers one after the other, whose names are not those of their weights in a .keras file."""
    return keras.Sequential([keras.Input((None, N_IN)), first("core_1"), second("core")])


def layer_of(layer, **options):
    """The function name -> a layer."""
    return lambda name: getattr(keras.layers, layer)(N, return_sequences=True, name=name, **options)


def wrapped(back):
    """The function name -> a GRU cell in its wrapper."""
    cell = lambda: keras.layers.GRUCell(N)
    return lambda name: keras.layers.RNN(
        cell(), return_sequences=True, name=name, go_backwards=back
    )


RELU, TANH, SELU = (layer_of("SimpleRNN", activation=name) for name in ("relu", "tanh", "selu"))
BOTH = lambda name: keras.layers.Bidirectional(layer_of("GRU")("gru"), name=name)
SELECTED = {
    "units": (RELU, TANH, "simple_rnn", "simple_rnn_1", "vanilla:relu", "vanilla"),
    "other units": (SELU, TANH, "simple_rnn", "simple_rnn_1", "activation='selu'", "vanilla"),
    "wrapper": (wrapped(True), wrapped(False), "rnn", "rnn_1", "go_backwards=True", "gru_torch"),
    "directions": (BOTH, layer_of("GRU"), "bidirectional.forward_layer", "gru", "Bidirectional", "gru_torch"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("first", "second", "a", "b", "of_a", "of_b"), SELECTED.values(), ids=SELECTED
)
def test_settings_are_those_of_the_selected_layer(tmp_path, first, second, a, b, of_a, of_b):
    model = two_of(first, second)
    model.save(tmp_path / "net.keras")
    files = [("net.keras", a, of_a), ("net.keras", b, of_b)]
    if a == "simple_rnn":
        model.save(tmp_path / "net.h5")
        files += [("net.h5", "core_1", of_a), ("net.h5", "core", of_b)]
    for file, place, cell in files:
        tensors = read_tensors(tmp_path / file).under([f"{place}."])
        if "=" in cell or cell[0].isupper():
            with refused(ValueError):
                understand(tensors)
        else:
            assert understand(tensors).cell == cell


REFUSED = {
    "activation": lambda: model_of("SimpleRNN", activation="selu"),
    "activation of gates": lambda: model_of("GRU", activation="relu"),
    "gates": lambda: model_of("LSTM", recurrent_activation="hard_sigmoid"),
    "both directions": lambda: keras.Sequential(
            [keras.Input((None, N_IN)), keras.layers.Bidirectional(keras.layers.GRU(N))]
        ),
    "two layers": lambda: keras.Sequential(
            [keras.Input((None, N_IN)), keras.layers.GRU(N, return_sequences=True), keras.layers.GRU(N)]
        ),
}  # fmt: skip


@pytest.mark.parametrize("make", REFUSED.values(), ids=REFUSED)
def test_what_ctd_has_not_is_refused(tmp_path, make):
    make().save(tmp_path / "net.keras")
    with refused(ValueError):
        read_weights(tmp_path / "net.keras")
