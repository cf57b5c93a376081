"""Signs, zeros, ranks and bounds of weights, at every step; their initial spectra, in NumPy; what is refused."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from messages import refused
from pydantic import ValidationError

from ctd import tasks
from ctd.batch import precision, run_items, traced_columns
from ctd.catalogue import load_kernel
from ctd.cells import get_cell, run
from ctd.data import write_hdf5
from ctd.fixed_points.network import cell_of
from ctd.kernel import inputs_of, static_of, traced_of
from ctd.train_rnn import Network, kernel
from ctd.train_rnn.checks import excitatory_counts
from ctd.train_rnn.connections import Connections, connections, read_masks
from ctd.train_rnn.parameters import divided, initial, stored, weights_of
from ctd.train_rnn.step import optimizer
from ctd.training import SCALED, item_keys
from ctd.weights import write_weights

SMALL = {
    "cell": "leaky:relu",
    "task": tasks.Integrator(n_steps=5),
    "n": 10,
    "batch_size": 4,
    "n_batches": 4,
    "report_every": 2,
    "n_eval": 8,
    "adam_eps": 1e-7,
    "l2": 0.0,
}


def network(**changes):
    return Network(**SMALL | changes)


@partial(jax.jit, static_argnums=0)
def begun(static, masks, traced, item):
    """(connections, initial parameters, the weights made of them) of an item; one program, not one an operation."""
    key, _ = item_keys(jax.random.fold_in(jax.random.key(0), item), traced)
    links = connections(static, masks, traced, key)
    parameters = initial(static, (1, 1), links, traced, key)
    return links, parameters, weights_of(static, links, traced, parameters)


@partial(jax.jit, static_argnums=0)
def recurrent_of(static, traced, item):
    # XLA leaves out the draws of all other weights.
    return begun(static, {}, traced, item)[2]["wR"]


def recurrent(params, item=0):
    """The initial recurrent weights of an item."""
    return np.asarray(recurrent_of(static_of(params), traced_of(params), item))


def signs(n_excitatory, n=10):
    return np.where(np.arange(n) < n_excitatory, 1, -1)


def kept(weights, params, zeros):
    """Whether the constraints of a Dale network with these zeros hold."""
    w = weights["wR"]
    np.testing.assert_array_equal(w[zeros], 0)
    assert (w * signs(excitatory_counts(10, 1, params.excitatory)[0][0]) >= 0).all()
    low, high = np.float32(params.alpha_min), np.float32(params.alpha_max)
    assert ((weights["alphas"] >= low) & (weights["alphas"] <= high)).all()


# --- no step violates a sign, a zero or a bound ---------------------------------------------------

N, T = 12, 6
"""Networks, and steps of each."""


@pytest.fixture(scope="module")
def twelve():
    """(params, the fields that differ, traced columns, connections, initial parameters) of networks of random strengths."""
    params = network(
        cell="leaky_per_unit:relu",
        self_connections=False,
        dale=True,
        mask="random",
        density=0.5,
        train_alphas=True,
        initial_state="fixed",
    )
    rng = np.random.default_rng(0)
    rates, excitatory = 10 ** rng.uniform(-6, 4, N), rng.uniform(0.15, 0.85, N)
    differ = {"learning_rate": rates, "weight_decay": rates, "excitatory": excitatory}
    fields = {name: np.full(N, value) for name, value in traced_of(params)._asdict().items()}
    traced = traced_columns(Network, fields | differ | {"seed": np.arange(N)}, "float32")
    static = static_of(params)

    def start(one):
        key, _ = item_keys(jax.random.key(0), one)
        links = connections(static, {}, one, key)
        return links, initial(static, (1, 1), links, one, key)

    return params, differ, traced, *jax.device_get(jax.jit(jax.vmap(start))(traced))


@pytest.fixture(scope="module")
def stored_weights(twelve):
    """The function (network, step, ...) parameters -> weights."""
    params, _, traced, links, _ = twelve
    one = lambda links, traced, p: stored(weights_of(static_of(params), links, traced, p))
    many = jax.jit(jax.vmap(jax.vmap(one, (None, None, 0))))
    return lambda p: jax.device_get(many(links, traced, p))


@pytest.mark.parametrize(
    ("name", "schedule"),
    [
        ("adagrad", "constant"),
        ("adam", "cosine"),
        ("lion", "exponential"),
        ("sgd", "linear"),
        # They move the same parameters, which stand for weights in the same way.
        *(
            pytest.param(name, "cosine", marks=pytest.mark.endurance)
            for name in sorted({*SCALED} - {"adagrad", "adam", "lion", "sgd"})
        ),
    ],
)
def test_constraints_hold_for_any_optimizer_and_gradient(twelve, stored_weights, name, schedule):
    """With gradients of all sizes, some of which overflow."""
    params, differ, traced, _, p = twelve
    static = static_of(params)._replace(optimizer=name, schedule=schedule)
    rng = np.random.default_rng(0)
    sizes = rng.choice([0.0, 1e-30, 1.0, -1.0, 1e4, -1e30], (N, T))
    trained, constant = divided(static, p)
    gradients = {
        weight: np.float32(
            sizes.reshape(N, T, *[1] * (value.ndim - 1))
            * rng.standard_normal((N, T, *value.shape[1:]))
        )
        for weight, value in trained.items()
    }

    def train(traced, trained, gradients):
        optimize = optimizer(static, traced)

        def step(carry, gradient):
            trained, state = carry
            updates, state = optimize.update(gradient, state, trained)
            trained = optax.apply_updates(trained, updates)
            return (trained, state), trained

        return jax.lax.scan(step, (trained, optimize.init(trained)), gradients)[1]

    after = jax.jit(jax.vmap(train))(traced, trained, gradients)
    each = {weight: np.repeat(value[:, None], T, axis=1) for weight, value in constant.items()}
    start = stored_weights({weight: np.repeat(v[:, None], T, axis=1) for weight, v in p.items()})
    found, steps = stored_weights(after | each), 0
    for i in range(N):
        zeros = start["wR"][i, 0] == 0
        assert zeros.diagonal().all()
        assert 10 < zeros.sum() < 100
        for t in range(T):
            now = {weight: value[i, t] for weight, value in found.items()}
            if not all(np.isfinite(v).all() for v in now.values()):
                break  # such a step is not taken
            kept(now, params.model_copy(update={"excitatory": differ["excitatory"][i]}), zeros)
            np.testing.assert_array_equal(now["h0"], p["h0"][i])
            steps += 1
    assert steps >= N


def test_gradient_at_zero_moves_a_weight(noisy_dale):
    """|p| has the derivative 0 at 0 in JAX, and a weight that reaches 0 would stay there."""
    params = noisy_dale[0].model_copy(update={"recurrent_scale": 0})
    static, traced = static_of(params), traced_of(params)
    links, p, _ = begun(static, {}, traced, 0)
    assert (np.asarray(p["wR"]) == 0).all()
    total = lambda p: jnp.sum(weights_of(static, links, traced, p)["wR"])
    slope = jax.jit(jax.grad(total))(p)["wR"]
    np.testing.assert_array_equal(slope, np.where(links.masks["wR"], signs(8), 0))


@pytest.fixture(scope="module")
def many(noisy_dale):
    """(parameters, results) of twenty networks trained for a few steps in one job, more than it has slots."""
    params, layout = noisy_dale
    params = params.model_copy(update={"state_noise": 0.1})
    return params, run_items(kernel, params, {"seed": np.arange(20)}, layout=layout)


def test_many_dale_networks_in_one_job(many):
    params, trained = many
    w = trained["weights.wR"]
    assert (trained["outcome"] == 0).all()
    assert (w * signs(8) >= 0).all()
    assert (w[:, np.arange(10), np.arange(10)] == 0).all()
    for seed in (0, 19):
        start = recurrent(params.model_copy(update={"seed": seed}), item=seed)
        np.testing.assert_array_equal(w[seed][start == 0], 0)
        assert np.abs(w[seed] - start).max() > 0.01


def test_dale_networks_start_balanced():
    """Row sums are 0, and the spectral radius is what is asked for: no eigenvalue of the mean stands out."""
    params = network(n=100, dale=True, recurrent_scale=1.5, self_connections=False)
    for item in range(5):
        w = recurrent(params, item).astype(float)
        np.testing.assert_allclose(w.sum(axis=1), 0, atol=1e-5)
        values = np.sort(np.abs(np.linalg.eigvals(w)))[::-1]
        # 1e-3: the error of the powers by which the radius is found (tests/ctd/cells/test_matrices.py).
        np.testing.assert_allclose(values[0], 1.5, rtol=2e-3)
        # The bulk reaches as far: an eigenvalue of the mean would lie near 8 of them.
        assert values[4] > 0.5 * values[0]


# --- initial weights ------------------------------------------------------------------------------


def test_initial_recurrent_weights():
    w = {
        kind: recurrent(network(n=30, recurrent_init=kind, recurrent_scale=0.7))
        for kind in ("orthogonal", "identity", "spectral_radius")
    }
    np.testing.assert_allclose(w["orthogonal"] @ w["orthogonal"].T, 0.49 * np.eye(30), atol=1e-5)
    np.testing.assert_allclose(w["identity"], 0.7 * np.eye(30), rtol=1e-6)
    radius = np.abs(np.linalg.eigvals(w["spectral_radius"])).max()
    np.testing.assert_allclose(radius, 0.7, rtol=2e-3)


@pytest.mark.parametrize("cell", ["lstm", "leaky"])
def test_first_weights_of_pytorch(cell):
    """U(-1, 1) / sqrt(n), biases too, as `reset_parameters` of torch.nn.RNNCellBase has them; the state starts at 0.

    Of a cell with a longer state, and of one with a constant: no other property of a cell is asked for.
    """
    params = network(cell=cell, n=64, first_weights="pytorch")
    p = jax.device_get(begun(static_of(params), {}, traced_of(params), 0)[1])
    assert not p.pop("h0").any()
    assert p.pop("alpha", 0.1) == pytest.approx(0.1)
    values = [np.asarray(value).ravel() for value in p.values()]
    assert all(np.unique(value).size == value.size for value in values if value.size < 100)
    found = scipy.stats.kstest(8 * np.concatenate(values), "uniform", args=(-1, 2))
    assert found.pvalue > 1e-3
    assert p.keys() == get_cell(cell).axes.keys() - {"h0", "alpha"}


def test_sparse_weights_keep_their_variance_and_areas_their_densities():
    params = network(n=200, mask="random", areas=2, density=0.5, density_between=0.1)
    w = recurrent(params)
    same = np.equal.outer(np.arange(200) // 100, np.arange(200) // 100)
    # 20,000 entries each: standard errors 0.4 % and 0.2 % of all.
    assert (w[same] != 0).mean() == pytest.approx(0.5, abs=0.015)
    assert (w[~same] != 0).mean() == pytest.approx(0.1, abs=0.01)
    # N(0, 1 / fan-in): the squares of a row add to 1 +- sqrt(2 / 60), over 200 rows to 1.3 %.
    assert (w**2).sum(axis=1).mean() == pytest.approx(1, abs=0.05)


def test_blocks_of_a_joint_matrix_keep_their_own_variance():
    """Of 64 units and 64 inputs, under a mask on the columns of the units."""
    params = network(cell="gru", n=64)
    static, traced = static_of(params), traced_of(params)
    mask = np.ones((64, 128), bool)
    mask[:, :64] = np.random.default_rng(0).random((64, 64)) < 0.1
    links = Connections({"wCHX": mask}, None)
    draw = lambda key: initial(static, (64, 1), links, traced, key)["wCHX"]
    w = np.asarray(jax.jit(draw)(jax.random.key(0)))
    # 64 rows of 6.4 connections: a standard error of 7 %.
    for block in (w[:, :64], w[:, 64:]):
        assert (block**2).sum(axis=1).mean() == pytest.approx(1, abs=0.25)


def test_rank_one_mean_field():
    """kappa of 1 = s E[sech^2(kappa z)] is 3.0629 at s = 4 (Mastrogiuseppe & Ostojic 2018); examples/published/mean_field.yaml."""
    params = network(cell="leaky", n=1000, rank=1, overlap=4, recurrent_scale=0, alpha=0.5)
    rest = jax.jit(lambda w: run(get_cell("leaky"), w, jnp.zeros((60, 1)))[0][-1])
    found = []
    for item in range(6):
        _, p, w = jax.device_get(begun(static_of(params), {}, traced_of(params), item))
        found.append(abs(p["n"][:, 0] @ np.tanh(rest(w))) / 1000)
    # kappa grows as s m'm / N, which has a standard deviation of 4.5 %, of the mean of six 1.8 %.
    assert np.mean(found) == pytest.approx(3.0629, rel=0.06)
    np.testing.assert_allclose(
        stored(w)["wR"] @ np.ones(1000),
        p["m"] @ (p["n"].T @ np.ones(1000)) / 1000,
        rtol=1e-3,
        atol=1e-4,
    )


# --- training -------------------------------------------------------------------------------------


def test_fixed_points_of_a_dale_network_need_no_dale(many, tmp_path):
    """The file says which units the weights belong to: another cell is refused."""
    weights = {
        k.removeprefix("weights."): v[0] for k, v in many[1].items() if k.startswith("weights.")
    }
    write_weights(tmp_path / "net.h5", weights, "leaky:relu")
    finder = load_kernel("fixed_points")
    given = {
        "weights": str(tmp_path / "net.h5"),
        "task": tasks.Integrator(n_steps=5),
        "n_trials": 3,
    }
    params = finder.Params(**given)
    with precision(params):
        found = finder.load(inputs_of(params))
        h, x = found.states[0, 0], np.array([0.3])
        stepped = cell_of(found).step(found.weights, h, x)
    w = {k: np.asarray(v, float) for k, v in weights.items()}
    currents = w["wR"] @ np.maximum(h, 0) + w["wI"] @ x + w["bR"]
    np.testing.assert_allclose(stepped, h + w["alpha"] * (currents - h), atol=1e-12)
    with refused(ValueError):
        finder.load(inputs_of(finder.Params(cell="leaky", **given)))


# --- masks of a file ------------------------------------------------------------------------------


def masked(tmp_path, **arrays):
    write_hdf5(tmp_path / "masks.h5", arrays)
    return network(mask="file", mask_file=str(tmp_path / "masks.h5"), cell="leaky")


def test_masks_of_a_file(tmp_path):
    ring = np.roll(np.eye(10), 1, axis=1)
    few = np.zeros((10, 1))
    few[:3] = 1
    params = masked(tmp_path, wR=ring, wI=few)
    masks = read_masks(inputs_of(params), 1, 1)
    _, _, w = begun(static_of(params), masks, traced_of(params), 0)
    assert ((np.asarray(w["wR"]) != 0) == (ring == 1)).all()
    assert ((np.asarray(w["wI"]) != 0) == (few == 1)).all()


BAD_FILES = {
    "empty": {"wR": np.zeros((10, 10))},
    "shape": {"wR": np.ones((3, 3))},
    "name": {"mask": np.ones((10, 10))},
    "values": {"wO": np.full((1, 10), 0.5)},
}


@pytest.mark.parametrize("arrays", BAD_FILES.values(), ids=BAD_FILES)
def test_mask_files_refused(tmp_path, arrays):
    with refused(ValueError):
        kernel.load(inputs_of(masked(tmp_path, **arrays)))


BAD = {
    "noise": {"input_noise": 0.1},
    "gates": {"cell": "gru", "dale": True},
    "gates and rank": {"cell": "lstm", "rank": 2},
    "rank": {"rank": 11},
    "rank and dale": {"rank": 2, "dale": True},
    "one kind": {"dale": True, "excitatory": 0.99},
    "dale and rotation": {"dale": True, "recurrent_init": "orthogonal"},
    "density": {"mask": "random", "density": 0.001},
    "areas": {"mask": "random", "areas": 11},
    "areas alone": {"areas": 2},
    "file": {"mask": "file"},
    "alone": {"n": 1, "self_connections": False},
    "identity": {"recurrent_init": "identity", "self_connections": False},
    "time": {"train_alphas": True},
    "bounds": {"alpha_min": 0.5},
    "pytorch": {"first_weights": "pytorch", "recurrent_scale": 0.5},
    "warmup": {"warmup": 4},
    "optimizer": {"optimizer": "adm"},
}  # fmt: skip


@pytest.mark.parametrize("changes", BAD.values(), ids=BAD)
def test_constraints_refused(changes):
    with refused(ValidationError):
        network(**changes)
