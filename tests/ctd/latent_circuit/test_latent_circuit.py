"""Kernel latent_circuit: numbers of the authors' code, a NumPy loop from the paper's equations, a recovered circuit, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import yaml
from messages import refused
from places import EXAMPLES

from ctd.batch import run_items
from ctd.cells import check_params, get_cell, run
from ctd.data import read_hdf5, write_hdf5
from ctd.kernel import inputs_of, static_of, traced_of
from ctd.latent_circuit import CELL, LatentCircuit, State, kernel
from ctd.latent_circuit.model import (
    Circuit,
    activity,
    constrained,
    draw_noise,
    embedding,
    errors,
    loss,
    optimizer,
)
from ctd.latent_circuit.params import Shared, Trials
from ctd.plots.png import draw

NODES, UNITS, STEPS, TRIALS, N_IN, N_OUT = 4, 5, 6, 3, 2, 2
FIELDS = {"n": NODES, "noise": 0.0, "rates_weight": 0.7, "weight_decay": 0.01, "dtype": "float64"}

# What LatentNet of engellab/latentcircuit (commit 3e151da) returned when it was executed once in float64 with PyTorch, from
# `first_circuit()` on `trials()`, whose first input it does not have: its first state is 0. `fit` for three epochs of one batch.
# Nothing of its text is here.
THEIR_LOSS = 2.7089129041601434
THEIR_ERRORS = [2.680763615499917, 3.2753579269545785, 0.06047727393625431, 0.8323783733102017]
THEIR_WR = [
    [0.3964454159176717, 0.23089726068760466, -0.3206094565640082, -0.013027619515099797],
    [0.45951592861578006, 0.03003562031553582, -0.33163822288851946, 0.07938989419820369],
    [0.41775223630227054, -0.16331960416016347, -0.24044291904056114, 0.24108530425318928],
    [0.2828458049109145, -0.2987548493958842, -0.07062532446347511, 0.3322633604095195],
]
THEIR_WI, THEIR_WO = (
    [0.9237617669037437, 0.8516796251780147],
    [0.48671746278303446, 0.7291947053650005],
)
THEIR_Q = [
    [
        0.27420421122235533,
        0.40218576968402664,
        0.37117856290583773,
        -0.5279266331924716,
        0.5887092674799773,
    ],
    [
        -0.1069025056163724,
        0.5796467619519956,
        -0.16310388117994928,
        0.6943464533178756,
        0.37929093366495326,
    ],
    [
        0.3523900303811029,
        0.36299498560335697,
        0.5894988567546986,
        0.21334317763285854,
        -0.5924792767323105,
    ],
    [
        0.6948064998174647,
        -0.513733983954839,
        0.08221438985992471,
        0.38160342640778133,
        0.31771204036846606,
    ],
]
THEIR_LAST = [
    [0.20475451546548476, 0.32667964260320764, 0.024459539424314832, 0.006317655015272667],
    [0.33464708950129185, 0.19152197739805996, 0.013991532289157619, 0.0],
    [0.2797329829432351, 0.23579900888142047, 0.03974416246264077, 0.014345937848369534],
]
THEIR_END = [2.498866115329712, 0.8321610415509938]  # fmt: skip


def waves(k, *shape):
    return np.sin(k + 1.7 * np.arange(np.prod(shape))).reshape(shape)


def first_circuit():
    """In the precision of the test."""
    first = Circuit(
        0.4 * waves(1, NODES, NODES),
        0.5 + 0.4 * waves(2, NODES, N_IN),
        0.5 + 0.4 * waves(3, N_OUT, NODES),
        waves(4, UNITS, UNITS),
    )
    return Circuit(*map(np.asarray, jax.jit(constrained)(first)))


def trials():
    """Theirs begin with a state of 0, and their last input moves nothing: here an input of 0 comes first."""
    u = np.maximum(waves(5, TRIALS, STEPS, N_IN), 0)
    y, z = np.abs(waves(6, TRIALS, STEPS, UNITS)), waves(7, TRIALS, STEPS, N_OUT)
    y[:, 0], z[:, 0] = 0, 0
    u = np.concatenate([np.zeros_like(u[:, :1]), u[:, :-1]], axis=1)
    return Trials(u, z, y)


@pytest.mark.usefixtures("float64")
def test_the_authors_numbers():
    """Loss, errors, and three steps of Adam: to rounding, since both are float64."""
    params, c, given = LatentCircuit(**FIELDS), first_circuit(), trials()
    traced = traced_of(params)
    adam = optimizer(traced)

    @jax.jit
    def seen(c):
        x = activity(c, params.alpha, given.inputs, jnp.zeros(()))
        return loss(c, traced, given, jnp.zeros(())), errors(c, x, given), x, embedding(c)

    @jax.jit
    def step(c, moments):
        slope = jax.grad(loss)(c, traced, given, jnp.zeros(()))
        change, moments = adam.update(slope, moments, c)
        return constrained(optax.apply_updates(c, change)), moments

    first, found, _, _ = seen(c)
    assert first == pytest.approx(THEIR_LOSS, rel=1e-12)
    np.testing.assert_allclose(found, THEIR_ERRORS, rtol=1e-12)
    moments = jax.jit(adam.init)(c)
    for _ in range(3):
        c, moments = step(c, moments)
    # Adam divides by the root of squares of gradients near 0, which keeps fewer digits than they have.
    close = lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-10)
    close(c.wR, THEIR_WR)
    close(np.diag(c.wI), THEIR_WI)
    close(np.diag(np.asarray(c.wO)[:, -N_OUT:]), THEIR_WO)
    _, found, x, q = seen(c)
    close(np.asarray(q).T, THEIR_Q)
    close(np.asarray(x)[:, -1], THEIR_LAST)
    close([found.rates, found.outputs], THEIR_END)


@pytest.mark.usefixtures("float64")
def test_errors_numpy():
    """The definitions, by NumPy's loops; and an embedding with orthonormal columns."""
    c, given = first_circuit(), trials()
    q = np.asarray(jax.jit(embedding)(c))
    np.testing.assert_allclose(q.T @ q, np.eye(NODES), atol=1e-14)
    within, x = waves(8, TRIALS, STEPS, NODES), np.zeros((TRIALS, NODES))
    u, z, y = map(np.asarray, given)
    found = []
    for t in range(STEPS):
        x = 0.8 * x + 0.2 * np.maximum(x @ c.wR.T + u[:, t] @ c.wI.T + within[:, t], 0)
        found.append(x)
    x = np.stack(found, axis=1)
    ours = jax.jit(lambda c, xi: activity(c, 0.2, given.inputs, xi))(c, within)
    np.testing.assert_allclose(ours, x, atol=1e-14)
    flat = y.reshape(-1, UNITS)
    scale = np.square(flat - flat.mean(0)).sum()
    got = jax.jit(errors)(c, ours, given)
    assert got.rates == pytest.approx(np.square(x @ q.T - y).sum() / scale)
    assert got.outside == pytest.approx(np.square(y @ q @ q.T - y).sum() / scale)
    assert got.outputs == pytest.approx(np.square(x @ c.wO.T - z).sum() / TRIALS / STEPS)


def test_noise_has_its_deviation():
    """sqrt(2 .2) .15 = .0949, of 40,000 numbers: .5 % is 1.4 standard errors of a deviation, 2 % is allowed."""
    params = LatentCircuit()
    static, traced = static_of(params), traced_of(params)
    draw = jax.jit(lambda key: draw_noise(static, traced, jnp.zeros((50, 100, 6)), key))
    xi = np.asarray(draw(jax.random.key(1)))
    assert xi.shape == (50, 100, 8)
    assert float(xi.std()) == pytest.approx(0.09487, rel=0.02)


@pytest.mark.endurance  # always: steps and errors in NumPy, the authors' numbers, and the contract of kernels
def test_a_circuit_is_recovered():
    """Two items of the example: weights and errors, its form as a network of ctd.cells, the reduction and the figure."""
    job = yaml.safe_load((EXAMPLES / "latent_circuit.yaml").read_text())
    trials = EXAMPLES / job["params"].pop("trials")
    params = LatentCircuit(trials=str(trials), **job["params"], n_saved=3)
    found = run_items(kernel, params, {"seed": [0, 1]})
    best = int(np.argmin(found["nmse"]))
    assert found["outcome"].tolist() == [0, 0]
    # .0004 to .003 in six fits, .002 to .005 with their noise; weights correlate with the true ones by .97 to .99.
    assert found["nmse"].max() < 0.01
    assert np.all(found["noisy_nmse"] > found["nmse"])
    true = read_hdf5(trials)["weights"]
    for got in found["weights.wR"]:
        assert np.corrcoef(got.ravel(), true.ravel())[0, 1] > 0.9
    weights = {k.removeprefix("weights."): v[best] for k, v in found.items() if "weights." in k}
    check_params(CELL, weights, "here")
    shared = kernel.load(inputs_of(params))
    alone = jax.jit(lambda w, u: run(get_cell(CELL), w, u))
    states, outputs = alone(weights, shared.evaluation.inputs[0])
    np.testing.assert_allclose(states, found["activity"][best, 0], atol=1e-5)
    np.testing.assert_allclose(outputs, shared.evaluation.targets[0], atol=0.1)
    columns = {"item": np.arange(2)}
    table = kernel.tables.reduce(inputs_of(params), shared, columns, found, kernel.tables.Options())
    assert table["item"][0] == best
    assert table["connectivity_r"][0] == pytest.approx(1)
    assert table["connectivity_r"].min() > 0.9
    assert np.all(np.diff(table["nmse"]) >= 0)
    draw(kernel.display.plots(inputs_of(params), shared, columns, found, table))


def test_nodes_without_input_or_output_are_exchangeable():
    """The same circuit with two of them exchanged, in the third fit also with other weights."""
    rng, swapped = np.random.default_rng(0), [0, 1, 3, 2, 4, 5]
    w, q = rng.normal(size=(6, 6)), np.linalg.qr(rng.normal(size=(9, 6)))[0]
    others = rng.normal(size=(6, 6))
    results = {
        "nmse": np.arange(3.0),
        "outcome": np.zeros(3, int),
        "weights.wR": np.stack([w, w[np.ix_(swapped, swapped)], others]),
        "embedding": np.stack([q, q[:, swapped], q[:, swapped]]),
    }
    shared = Shared(None, Trials(np.zeros((1, 1, 2)), np.zeros((1, 1, 2)), None))
    columns = {"item": np.arange(3)}
    found = kernel.tables.reduce(None, shared, columns, results, kernel.tables.Options())[
        "connectivity_r"
    ]
    same = np.corrcoef(others[np.ix_(swapped, swapped)].ravel(), w.ravel())[0, 1]
    np.testing.assert_allclose(found, [1, 1, same])


def test_a_circuit_that_runs_away_in_evaluation_trials_is_lost():
    params, given = LatentCircuit(n=NODES, n_saved=0), trials()
    away = given._replace(inputs=given.inputs * 3e38)
    static, traced, key = static_of(params), traced_of(params), jax.random.key(0)
    state = State(first_circuit(), None, np.int32(0), np.zeros(1, np.float32), np.int32(0))
    ended = jax.jit(lambda shared: kernel.result(static, shared, traced, key, state)["outcome"])
    for evaluation, outcome in ((given, 0), (away, 1)):
        assert ended(Shared(given, evaluation)) == outcome


REFUSED = {
    "no file": ({}, {"trials": None}),
    "no rates": ({"rates": None}, {}),
    "other trials": ({"rates": np.ones((3, 6, 5))}, {}),
    "few trials": ({k: np.ones((4, 6, 5)) for k in ("inputs", "targets", "rates")}, {}),
    "silent": ({"rates": np.ones((10, 6, 5))}, {}),
    "silent evaluation": ({"rates": waves(3, 10, 6, 5) * (np.arange(10) % 5 != 4)[:, None, None]}, {}),
    "few nodes": ({}, {"n": 3}),
    "many nodes": ({}, {"n": 6}),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused(tmp_path, case):
    changed, fields = REFUSED[case]
    path = tmp_path / "rates.h5"
    arrays = {
        "inputs": waves(1, 10, 6, 2),
        "targets": waves(2, 10, 6, 2),
        "rates": waves(3, 10, 6, 5),
    }
    write_hdf5(path, {k: v for k, v in (arrays | changed).items() if v is not None})
    params = LatentCircuit(**{"trials": str(path), "n": 4} | fields)
    with refused(ValueError):
        kernel.load(inputs_of(params))
