"""Ridge readouts and replay against least squares, closed forms and published figures."""

import jax
import numpy as np
import pytest
from networks import ALONE, RESERVOIR, begin, finish, numpy_step, relative, run_reservoir, see

from ctd import esn
from ctd.esn import EchoState
from ctd.kernel import static_of

RIDGE = {
    "target": "mackey-glass-17",
    "m": 1,
    "dt": 1.0,
    "n": 50,
    "readout": "ridge",
    "dynamics": "discrete",
    "scale": "spectral_radius",
    "state_dtype": "float64",
    "g": 1.0,
    "leak": 0.75,
    "feedback_scale": 0.5,
    "bias": 0.1,
    "intercept": True,
    "washout": 100,
    "train": 300,
    "record": ("readout", "traces"),
}


STEPS = {"horizon": 60, "ridge": 1e-4} | RIDGE
RECORD = ("readout", "traces", "weights")
REPLAYS = {
    "record": RECORD,
    "memory_delays": 30,
    "validation": 30,
    "test": 80,
    "starts": 3,
    "horizon": 30,
    "valid_error": 0.05,
}


def numpy_ridge(params, shared, state):
    """Readout by least squares; replays of the test range; those of the validation range, or None.

    Of each range: first replay, NRMSE over replays, at their ends, valid samples.
    """
    static = static_of(params)
    w, y, u = state.weights, shared.targets, shared.inputs
    a = h = np.asarray(w.start, float)
    z, states, rates = np.zeros(static.m), [], []
    for t in range(len(y)):
        states.append((a, h, z))
        a, h = numpy_step(static, w, a, h, u[t], z)
        z = y[t]
        rates.append(see(static, h))
    rows = slice(static.washout, static.washout + static.train)
    H, root = np.array(rates)[rows], np.sqrt(params.ridge)
    # The constant, the last feature, is not penalised.
    kept = np.append(np.ones(static.n), [0.0] * static.intercept)
    augmented = np.vstack([H, root * np.diag(kept)])
    f = np.vstack([y[rows], np.zeros((H.shape[1], static.m))])
    R = np.linalg.lstsq(augmented, f, rcond=None)[0].T

    def replayed(begin, length):
        starts = begin + np.linspace(0, max(length - static.horizon, 0), static.starts).astype(int)
        return numpy_replays(static, w, R, starts, states, shared)

    # Without a test range the replay is that of the training range.
    begin = rows.stop + static.validation if static.test else rows.start
    validation = replayed(rows.stop, static.validation) if static.validation else None
    return R, replayed(begin, static.test), validation


def numpy_replays(static, w, R, starts, states, shared):
    y, u = shared.targets, shared.inputs
    trace = np.zeros((static.horizon, static.m))
    errors = np.zeros((static.starts, static.horizon))
    for i, start in enumerate(starts):
        a, h, z = states[start]
        for t in range(static.horizon):
            a, h = numpy_step(static, w, a, h, u[start + t], z)
            z = R @ see(static, h)
            trace[t] = np.where(i == 0, z, trace[t])
            errors[i, t] = np.sqrt(np.mean((z - y[start + t]) ** 2) / float(shared.variance))
    over = errors > static.valid_error
    valid = np.where(over.any(axis=1), over.argmax(axis=1), static.horizon)
    rms = lambda e: np.sqrt(np.mean(e**2))
    return trace, rms(errors), rms(errors[:, -1]), valid.mean()


def numpy_memory(params, w, key):
    """Squared correlations of an input's past with readouts by least squares, on samples that the fit did not see."""
    n, delays, half = params.n, params.memory_delays, 10 * params.n + 1000
    keys = jax.random.split(jax.random.fold_in(key, 2))
    with jax.enable_x64(True):
        u = np.asarray(jax.random.uniform(keys[0], (delays + 100 + 2 * half,), "float64", -1, 1))
        into = np.asarray(jax.random.normal(keys[1], (n,), "float64"))
    h, rates = np.asarray(w.start), []
    for value in u:
        drive = np.asarray(w.drive)[:, :n] @ h + params.input_scale * into * value + w.bias
        h = h + float(w.rate) * (np.tanh(drive) - h)
        rates.append(np.append(h, 1.0))
    past = np.stack([np.roll(u, d) for d in range(1, delays + 1)], axis=1)
    H, f = np.array(rates)[-2 * half :], past[-2 * half :]
    penalty = np.sqrt(params.ridge) * np.diag(np.append(np.ones(n), 0))
    f_fit = np.vstack([f[:half], np.zeros((n + 1, delays))])
    z = H[half:] @ np.linalg.lstsq(np.vstack([H[:half], penalty]), f_fit, rcond=None)[0]
    return [np.corrcoef(a, b)[0, 1] ** 2 for a, b in zip(z.T, f[half:].T, strict=True)]


@pytest.mark.parametrize(
    ("given", "tol"),
    [
        # Normal equations with one step of refinement, condition number up to 1e7.
        (REPLAYS, 1e-6),
        # float32 states are off by 1e-7, which a readout of size 100 shows.
        ({"state_dtype": "float32", "ridge": 1e-3}, 0.05),
    ],
)
def test_ridge_step_by_step(given, tol):
    params = EchoState(**STEPS | given)
    run, shared, state = begin(params)
    found = finish(run)
    readout, test, validation = numpy_ridge(params, shared, state)
    trace, nrmse, last, valid = test
    assert found["outcome"] == esn.DONE
    assert relative(found["readout_weights"], readout) < tol
    assert relative(found["trace"], trace) < tol
    first = params.washout + bool(params.test) * (params.train + params.validation)
    np.testing.assert_array_equal(found["trace_target"], shared.targets[first : first + len(trace)])
    assert found["replay_nrmse"] == pytest.approx(nrmse, rel=100 * tol)
    assert found["replay_last_nrmse"] == pytest.approx(last, rel=100 * tol)
    assert found["valid_time"] == pytest.approx(valid, rel=100 * tol)
    if "replay_state" in found:
        wO, bO, wR, bR, rate = (
            found[f"weights.{name}"] for name in ("wO", "bO", "wR", "bR", "alpha")
        )
        h, outputs = found["replay_state"], []
        for _ in trace:
            outputs.append(wO @ h + bO)
            h = h + rate * (np.tanh(wR @ h + bR) - h)
        assert relative(outputs, trace) < tol
    if params.memory_delays:
        memory = numpy_memory(params, state.weights, jax.random.fold_in(jax.random.key(0), 0))
        np.testing.assert_allclose(found["memory"], memory, atol=tol)
        assert found["memory_capacity"] == pytest.approx(sum(memory), rel=tol)
    if validation is not None:
        assert found["validation_nrmse"] == pytest.approx(validation[1], rel=100 * tol)
        assert found["validation_valid_time"] == pytest.approx(validation[3], rel=100 * tol)


def test_ridge_ill_conditioned():
    # Units that nothing drives stay at 0 but for their start, and determine no weight without a ridge.
    still = {"g": [0.0] * 2, "feedback_scale": [0.0] * 2, "bias": [0.0] * 2}
    found = run_reservoir(still | {"ridge": [0.0, 1e-6]}, ALONE, **STEPS | REPLAYS)
    assert found["outcome"].tolist() == [esn.ILL_CONDITIONED, esn.DONE]


def test_zero_matrix_is_data():
    # Of 2,500 weights that are kept with probability 1e-5 most often none is; the others run on after them.
    found = run_reservoir({"sparsity": [1e-5, 1e-5, 1.0, 1.0]}, ALONE, **STEPS | REPLAYS)
    assert found["outcome"].tolist() == [esn.NO_SPECTRUM] * 2 + [esn.DONE] * 2
    assert np.isnan(found["replay_nrmse"]).tolist() == [True] * 2 + [False] * 2


def test_effective_spectral_radius():
    # Of I + r (W_R + W_F readout - I), the step where tanh' = 1, whatever the bias.
    run, _, state = begin(EchoState(**RESERVOIR, bias=0.2))
    found, w = finish(run), state.weights
    loop = w.drive[:, :40].astype(float) + w.drive[:, 40:] @ found["readout_weights"]
    step = np.eye(40) + w.rate * (loop - np.eye(40))
    expected = np.abs(np.linalg.eigvals(step)).max()
    assert found["trained_spectral_radius"] == pytest.approx(expected, rel=1e-3)


@pytest.mark.endurance  # every replay stays, step by step
def test_mackey_glass_published():
    # Jaeger 2001: NRMSE84 = 2.8e-4 with 400 units, 3,000 steps of which 1,000 are washed out.
    given = RIDGE | {"n": 400, "washout": 1000, "train": 2000, "record": ()}
    given |= {"test": 1800, "starts": 20, "horizon": 84, "ridge": 1e-11}
    found = run_reservoir({"g": np.full(2, 1.0)}, **given)
    assert (found["outcome"] == esn.DONE).all()
    assert found["replay_last_nrmse"].min() <= 2.8e-4


@pytest.mark.endurance
@pytest.mark.parametrize(("n", "published"), [(50, 0.16), (100, 0.11)])
def test_narma10_published(n, published):
    given = {"target": "narma10", "m": 1, "readout": "ridge", "dynamics": "discrete", "n": n}
    given |= {"scale": "spectral_radius", "feedback": False, "intercept": True, "washout": 200}
    given |= {"train": 2000, "validation": 2000, "test": 2000}
    points = [(scale, bias) for scale in (0.02, 0.05, 0.1) for bias in (0.1, 0.3)]
    columns = {"input_scale": np.repeat([p[0] for p in points], 5)}
    columns["bias"] = np.repeat([p[1] for p in points], 5)
    found = run_reservoir(columns, **given, g=0.9, ridge=1e-8)
    nmse = {name: found[f"{name}_nrmse"].reshape(-1, 5) ** 2 for name in ("validation", "replay")}
    best = nmse["validation"].mean(axis=1).argmin()
    assert nmse["replay"][best].mean() <= published


@pytest.mark.endurance
def test_lorenz_exponent():
    # 0.906 for the Lorenz system (Sprott 2003); over 1,000 time units an estimate scatters by 1 %.
    given = {"target": "lorenz", "m": 3, "n": 300, "dt": 0.05, "readout": "ridge", "washout": 200}
    given |= {"dynamics": "discrete", "scale": "spectral_radius", "intercept": True, "train": 4000}
    given |= {"test": 1000, "record": ("lyapunov",)}
    found = run_reservoir({"g": np.full(3, 0.4)}, **given, feedback_scale=0.1, bias=0.5, ridge=1e-6)
    assert np.median(found["lyapunov"]) == pytest.approx(0.906, rel=0.05)
    assert np.median(found["valid_time"]) > 3  # about three Lyapunov times
