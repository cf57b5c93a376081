"""Networks fitted to rates: the readout stays what it is, outputs are rates, and R2 is scikit-learn's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from messages import refused

from ctd.batch import run_items
from ctd.cells import FirstUnits
from ctd.data import write_hdf5
from ctd.kernel import inputs_of, static_of, traced_of
from ctd.late import Late
from ctd.tasks import Trial
from ctd.train_rnn import Network, kernel
from ctd.train_rnn.connections import Connections
from ctd.train_rnn.loss import Scores
from ctd.train_rnn.parameters import divided, initial

metrics = Late("sklearn.metrics")
N_UNITS, ALPHA = 5, 0.3
SMALL = {"cell": "leaky", "task": "file", "readout": "identity", "n": 8, "alpha": ALPHA}
SMALL |= {"initial_state": "zero", "batch_size": 8, "n_batches": 200, "report_every": 100}
SMALL |= {"learning_rate": 0.03, "adam_eps": 1e-8, "l2": 0, "n_eval": 12, "n_saved": 12}


def numpy_states(w, inputs):
    """(trial, time, unit) states of the leaky network, by the textbook."""
    h, states = np.zeros((len(inputs), len(w["wR"]))), []
    for x in np.swapaxes(inputs, 0, 1):
        h = h + ALPHA * (-h + np.tanh(h) @ w["wR"].T + x @ w["wI"].T + w["bR"])
        states.append(h)
    return np.stack(states, axis=1)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """(path, arrays) of the rates of five of six units; a fifth of their steps was not recorded."""
    rng = np.random.default_rng(0)
    w = {"wR": rng.normal(size=(6, 6)), "wI": rng.normal(size=(6, 2)), "bR": rng.normal(size=6)}
    inputs = rng.normal(size=(60, 9, 2))
    rates = np.tanh(numpy_states(w, inputs))[..., :N_UNITS]
    mask = (rng.random(rates.shape) < 0.8).astype(float)
    arrays = {"inputs": inputs, "targets": rates, "mask": mask}
    path = str(tmp_path_factory.mktemp("rates") / "rates.h5")
    write_hdf5(path, arrays)
    return path, arrays


@pytest.fixture(scope="module")
def fitted(recorded):
    params = Network(**SMALL, trials=recorded[0])
    return {name: value[0] for name, value in run_items(kernel, params).items()}


def test_readout_identity_shows_the_rates_of_the_first_units(fitted, recorded):
    w = {name[8:]: value for name, value in fitted.items() if name.startswith("weights.")}
    np.testing.assert_array_equal(w["wO"], np.eye(N_UNITS, 8))
    np.testing.assert_array_equal(w["bO"], 0)
    states = numpy_states(w, recorded[1]["inputs"][4::5])
    np.testing.assert_allclose(fitted["states"], states, atol=1e-4)
    np.testing.assert_allclose(fitted["outputs"], np.tanh(states)[..., :N_UNITS], atol=1e-4)


def test_r2_is_that_of_scikit_learn(fitted, recorded):
    targets, mask = (recorded[1][name][4::5].reshape(-1, N_UNITS) for name in ("targets", "mask"))
    outputs = fitted["outputs"].reshape(-1, N_UNITS)
    # Each unit has steps of its own: its R2 and its variance, put together as "variance_weighted" does.
    units = [
        (targets[seen, unit], outputs[seen, unit]) for unit, seen in enumerate(mask.astype(bool).T)
    ]
    spread = [len(y) * np.var(y) for y, _ in units]
    expected = np.average([metrics.r2_score(y, z) for y, z in units], weights=spread)
    assert fitted["r2"] == pytest.approx(expected, abs=1e-5)
    assert expected > 0.95, "the rates are fitted, in trials that were not trained on"


def test_r2_of_constant_targets_is_nan():
    # The mean of 36 times 0.1 is not 0.1 in float32.
    targets = jnp.full((2, 9, 2), 0.1)
    trials = Trial(jnp.zeros((2, 9, 1)), targets, jnp.ones((2, 9)))
    scores = Scores(jnp.asarray(0.01), jnp.asarray(36.0), jnp.zeros(0), jnp.zeros(0))
    assert np.isnan(scores.r2(trials))
    assert np.isfinite(scores.r2(trials._replace(targets=targets.at[0, 0, 0].set(1))))


def test_readout_kept_from_training():
    own = {"wO", "bO"}
    expected = {"trained": (own, set()), "fixed": (set(), own), "identity": (set(), {"bO"})}
    given = [Network(**SMALL | {"readout": name, "first_weights": "pytorch"}) for name in expected]

    @jax.jit  # one program for the three
    def draw(key):
        none = Connections({}, None)
        return [initial(static_of(p), (2, 3), none, traced_of(p), key) for p in given]

    drawn = draw(jax.random.key(0))
    for params, p, (readout, names) in zip(given, drawn, expected.items(), strict=True):
        trained, constant = divided(static_of(params), p)
        assert (own & trained.keys(), own & constant.keys()) == names
        zero = not np.asarray(p["bO"]).any()
        assert zero == (readout == "identity"), "the outputs are the rates"


def test_first_units_are_a_product():
    rates = np.arange(4.0)
    np.testing.assert_array_equal(FirstUnits(2, 4) @ rates, FirstUnits(2, 4, float).dense() @ rates)


@pytest.mark.parametrize(
    "changes",
    [
        {"n": 4},
        {"mask": "file"},
    ],
)
def test_readout_refused(recorded, tmp_path, changes):
    if "mask" in changes:
        write_hdf5(tmp_path / "masks.h5", {"wO": np.ones((5, 8))})
        changes = changes | {"mask_file": str(tmp_path / "masks.h5")}
    with refused(ValueError) as caught:
        kernel.load(inputs_of(Network(**SMALL | changes, trials=recorded[0])))
    assert "\n" not in str(caught.value)
