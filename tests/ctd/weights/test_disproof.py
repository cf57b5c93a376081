"""Units that a file does not tell, against states of NumPy's own steps."""

import numpy as np
import pytest
from messages import refused, warned

from ctd.fixed_points.search.kernel import kernel
from ctd.fixed_points.search.params import FixedPoint
from ctd.kernel import inputs_of
from ctd.weights import check_guess

N, N_IN = 8, 2
RNG = np.random.default_rng(0)
PARAMS = {"wI": RNG.normal(size=(N, N_IN)), "wR": 0.3 * RNG.normal(size=(N, N)), "bR": RNG.normal(size=N)}  # fmt: skip


def states_of(units, scale=1.0):
    """States (trial, time, unit) of float32 from inputs that nothing stores."""
    h, found = np.zeros((3, N)), []
    for x in scale * RNG.normal(size=(6, 3, N_IN)):
        h = units(h @ PARAMS["wR"].T + x @ PARAMS["wI"].T + PARAMS["bR"])
        found.append(h)
    return np.stack(found, 1).astype(np.float32)


RELU = states_of(lambda u: np.maximum(u, 0))
TANH = states_of(np.tanh)
FALSE = {
    "beyond 1": ("vanilla", PARAMS, RELU),
    "a set of states": ("vanilla", PARAMS, RELU.reshape(-1, N)),
    # Half the weights and biases: no state exceeds 1, and the step alone tells.
    "one step": (
        "vanilla",
        PARAMS | {name: 0.5 / RELU.max() * PARAMS[name] for name in ("wI", "bR")},
        0.5 / RELU.max() * RELU,
    ),
    "gru": ("gru_torch", {}, RELU),
    "lstm": ("lstm", {}, np.concatenate([RELU, RELU], -1)),
}


@pytest.mark.parametrize(("cell", "params", "states"), FALSE.values(), ids=FALSE)
def test_states_refute_tanh(cell, params, states):
    with pytest.raises(ValueError, match=rf"net\.pt: a guess; but .*cell: {cell} "):
        check_guess("net.pt", "a guess", cell, params, states)


def test_states_of_tanh_pass():
    check_guess("net.pt", "a guess", "vanilla", PARAMS, TANH)
    check_guess("net.pt", "a guess", "vanilla", PARAMS, TANH.reshape(-1, N))
    # Memory cells have no bound, and neither has the state before the first step.
    check_guess("net.pt", "a guess", "lstm", {}, np.concatenate([TANH, 9 * TANH], -1))
    started = np.concatenate([np.full((3, 1, N), 2.0), TANH], axis=1)
    check_guess("net.pt", "a guess", "gru_torch", {}, started)


def test_candidates_refute_tanh(tmp_path):
    """A state_dict of a relu `nn.RNN` is refused with its states, and taken once the job says relu."""
    names = {"weight_ih_l0": "wI", "weight_hh_l0": "wR", "bias_ih_l0": "bR"}
    arrays = {f"rnn.{name}": PARAMS[own] for name, own in names.items()}
    np.savez(tmp_path / "net.npz", **arrays, **{"rnn.bias_hh_l0": np.zeros(N)})
    np.save(tmp_path / "states.npy", RELU)
    job = lambda **more: inputs_of(
        FixedPoint(
            weights=str(tmp_path / "net.npz"), candidates=str(tmp_path / "states.npy"), method="adam", **more
        )
    )  # fmt: skip
    with warned(), refused(ValueError):
        kernel.load(job())
    assert list(kernel.load(job(cell="vanilla:relu")).cell) == ["vanilla:relu"]
