"""Echo-state networks against step-by-step float64 references, closed forms and published figures."""

from types import SimpleNamespace

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pydantic import ValidationError

from ctd import cells, esn
from ctd.batch import Layout, Run, precision, program, run_items
from ctd.esn import EchoState, Options, kernel
from ctd.esn.force import Rls, flush, in_blocks, scaled_identity, times, update
from ctd.esn.reservoir import disturbances, draw, spectral_radius
from ctd.kernel import inputs_of, static_of, traced_of, traced_type

SMALL = {"n": 40, "m": 2, "target": "sines", "train": 90, "passes": 3, "record": ("readout",)}
ONE_BY_ONE = Layout(16, 1)


def run(columns=None, layout=ONE_BY_ONE, **params):
    return run_items(kernel, EchoState(**params), columns, layout=layout)


def begin(params):
    """A run of one item before its first advance, the group's data, and the item's initial state."""
    static, kind = static_of(params), traced_type(EchoState)
    with precision(static):
        shared = esn.load(inputs_of(params))
    traced = kind(*(np.asarray([v], static.dtype) for v in traced_of(params)))
    run = Run(program(kernel, static, Layout(1, 1)), shared, 0, np.arange(1), traced)
    return run, shared, jax.tree.map(lambda leaf: leaf[0], run._slots.state)


def finish(run):
    """The item's results."""
    while not run.finished:
        run.advance()
    return {name: values[0] for name, values in run.results.items()}


def network(**given):
    """Weights of a network, drawn outside a run."""
    params = EchoState(**given)
    static = static_of(params)
    shared = esn.load(inputs_of(params))
    traced = traced_type(EchoState)(*(jnp.float32(v) for v in traced_of(params)))
    return jax.jit(lambda key: draw(static, shared, traced, key)[0])(jax.random.key(0))


def numpy_step(static, w, a, h, x, z):
    drive, bias = np.asarray(w.drive, float), np.asarray(w.bias, float)
    rate = float(w.rate)
    into = np.concatenate([h, x, z]) if static.feedback else np.concatenate([h, x])
    s = drive @ into + bias
    if static.dynamics == "discrete":
        h = (1 - rate) * h + rate * np.tanh(s)
        return h, h
    a = a + rate * (s - a)
    return a, np.tanh(a)


def see(static, h):
    return np.append(h, 1.0) if static.intercept else h


def numpy_force(params, shared, state):
    """Sussillo & Abbott's FORCE, one rank-1 update of P a sample: readout, errors, replay NRMSE."""
    static = static_of(params)
    w, f, u = state.weights, shared.targets, shared.inputs
    R = np.asarray(state.rls.readout, float)
    P = params.alpha * np.eye(R.shape[1])
    forgetting = params.forgetting
    errors = []
    for replay in [False] * params.passes + [True]:
        a = np.asarray(w.start, float)
        h = np.tanh(a) if static.dynamics == "continuous" else a
        z = R @ see(static, h)
        total = 0.0
        for t in range(static.washout + static.train):
            a, h = numpy_step(static, w, a, h, u[t], z)
            r = see(static, h)
            z = R @ r
            if t < static.washout:
                continue
            e = z - f[t]
            total += e @ e
            if not replay:
                k = P @ r
                c = 1 / (forgetting + r @ k)
                P = (P - c * np.outer(k, k)) / forgetting
                R = R - c * np.outer(e, k)
        errors.append(np.sqrt(total / static.train / len(R) / float(shared.variance)))
    return R, errors[:-1], errors[-1]


def whole(P):
    return np.block([[P.A, P.B.T], [P.B, P.C]])


def relative(a, b):
    return np.linalg.norm(np.asarray(a) - b) / np.linalg.norm(b)


# --- parameters and data --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"alpha": 0.0}, "alpha"),
        ({"alpha": -1.0}, "alpha"),
        ({"sparsity": 0.0}, "sparsity"),
        ({"sparsity": 1.5}, "sparsity"),
        ({"tau": 0.0}, "tau"),
        ({"leak": 2.0}, "leak"),
        (
            {"topology": "ring", "sparsity": 0.5},
            "sparsity: 0.5 given, but the weights of topology ring",
        ),
        (
            {"readout": "ridge", "dtype": "float32"},
            "dtype: the normal equations of a ridge readout",
        ),
        ({"state_dtype": "float64"}, "state_dtype: float64 states need dtype: float64"),
        ({"memory_delays": 5}, "memory_delays: .* need dtype: float64"),
        ({"target": "lorenz"}, r"m: target lorenz has 3 output\(s\), m is 20"),
        ({"target": "file"}, "path: target file needs one"),
        ({"path": "x.h5"}, "path: target file needs one"),
        ({"test": 50, "horizon": 51}, "horizon: 51 samples, but test has 50"),
        (
            {"validation": 20, "test": 50, "horizon": 30},
            "horizon: 30 samples, but validation has 20",
        ),
        ({"horizon": 301}, "horizon: 301 samples, but test has 300"),
        ({"starts": 2, "test": 50}, "starts: several replays need a test range and a horizon"),
        ({"record": ("wieghts",)}, "record"),
    ],
)
def test_params_bad_input(given, message):
    with pytest.raises(ValidationError, match=message):
        EchoState(**given)


def test_params_ridge_is_float64():
    assert EchoState(readout="ridge").dtype == "float64"
    assert EchoState().dtype == "float32"


@pytest.mark.parametrize(
    ("dataset", "given", "message"),
    [
        ("nan", {}, "'nan' is nan at row 3, column 1"),
        ("cube", {}, r"'cube' has shape \(2, 2, 2\)"),
        ("table", {"m": 3}, "'table' has 2 columns; expected 3, the field m"),
        (
            "table",
            {"washout": 60, "train": 5},
            "'table' has 50 samples, .* ask for 65; shorten them",
        ),
        ("flat", {}, "all samples are equal"),
        ("table", {"input_dataset": "nan"}, "'nan' is nan"),
    ],
)
def test_load_bad_target(tmp_path, dataset, given, message):
    path = tmp_path / "target.h5"
    with h5py.File(path, "w") as out:
        out["table"] = np.arange(100.0).reshape(50, 2)
        out["cube"], out["flat"] = np.zeros((2, 2, 2)), np.ones((50, 2))
        out["nan"] = np.where(np.arange(100) == 7, np.nan, 1.0).reshape(50, 2)
    params = {"target": "file", "m": 2, "train": 40, "path": str(path), "dataset": dataset}
    with pytest.raises(ValueError, match=message):
        esn.load(inputs_of(EchoState(**params | given)))


@pytest.mark.parametrize(
    ("target", "m", "k"),
    [
        ("chaotic", 4, 0),
        ("mackey-glass-30", 1, 0),
        ("lorenz", 3, 0),
        ("narma10", 1, 1),
        ("sines", 2, 0),
    ],
)
def test_load_ranges(target, m, k):
    given = EchoState(target=target, m=m, washout=3, train=20, validation=5, test=7)
    found = esn.load(inputs_of(given))
    assert found.inputs.shape == (35, k)
    assert found.targets.shape == (35, m)
    assert found.variance == pytest.approx(found.targets.var(axis=0).mean())


# --- the network ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "radius"),
    [
        ({"topology": "orthogonal"}, 0.9),
        ({"topology": "ring"}, 0.9),
        ({"scale": "spectral_radius"}, 0.9),
        ({"scale": "spectral_radius", "sparsity": 0.1}, 0.9),
        ({"scale": "spectral_radius", "topology": "ring"}, 0.9),
    ],
)
def test_draw_spectral_radius(given, radius):
    w = network(n=60, g=0.9, **given)
    eigenvalues = np.linalg.eigvals(np.asarray(w.drive[:, :60], float))
    assert np.abs(eigenvalues).max() == pytest.approx(radius, rel=1e-3)


def test_draw_gain_and_sparsity():
    w = network(n=400, g=1.5, sparsity=0.2, feedback_scale=2.0, bias=0.5)
    recurrent, feedback = np.asarray(w.drive[:, :400]), np.asarray(w.drive[:, 400:])
    # Standard errors: 0.1 % of 160,000 kept or not, 0.4 % of 32,000 weights, 1 % of 8,000, 4 % of 400.
    assert np.mean(recurrent != 0) == pytest.approx(0.2, rel=0.02)
    assert recurrent[recurrent != 0].std() == pytest.approx(1.5 / np.sqrt(400 * 0.2), rel=0.02)
    assert feedback.shape == (400, 20)
    assert feedback.std() == pytest.approx(2.0, rel=0.05)
    assert np.asarray(w.bias).std() == pytest.approx(0.5, rel=0.15)


@pytest.mark.parametrize("n", [5, 30, 100])
@pytest.mark.parametrize("seed", range(4))
def test_spectral_radius_random(n, seed):
    w = np.random.default_rng(seed).standard_normal((n, n))
    expected = np.abs(np.linalg.eigvals(w)).max()
    assert float(spectral_radius(jnp.asarray(w, jnp.float32))) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    "w", [np.zeros((4, 4)), np.triu(np.ones((4, 4)), 1)], ids=["zero", "nilpotent"]
)
def test_spectral_radius_none(w):
    assert spectral_radius(jnp.asarray(w, jnp.float32)) == 0


def test_zero_matrix_is_data():
    # With 2 units and 5 % of the weights most matrices are zero; the others run on beside them.
    given = SMALL | {"n": 2, "scale": "spectral_radius"}
    found = run({"sparsity": np.where(np.arange(16) < 8, 0.05, 1.0)}, **given)
    assert (found["outcome"][:8] == esn.NO_SPECTRUM).any()
    assert (found["outcome"][8:] == esn.DONE).all()
    failed = found["outcome"] == esn.NO_SPECTRUM
    assert np.isnan(found["replay_nrmse"][failed]).all()
    assert np.isfinite(found["replay_nrmse"][~failed]).all()


def test_noise_scale_and_absence():
    static, key = static_of(EchoState(n=100)), jax.random.key(0)
    noise = jax.jit(lambda scale, i: disturbances(static, SimpleNamespace(noise=scale), key, i, 50))
    drawn = noise(jnp.float32(0.3), 0)
    assert float(drawn.std()) == pytest.approx(0.3, rel=0.05)
    assert not (drawn == noise(jnp.float32(0.3), 1)).any()
    assert not noise(jnp.float32(0), 0).any()


# --- FORCE ----------------------------------------------------------------------------------------


def rls_over(h, f, forgetting, block):
    """Block RLS from P = 10 I over features h and targets f."""

    def samples(rls, index, rows):
        def sample(c, row):
            readout, K, _, _ = update(
                rls._replace(readout=c[0]), c[1], row[2], forgetting, *row[:2]
            )
            return (readout, K), None

        K = jnp.zeros((len(rows[0]), h.shape[1]))
        rows = (*rows, jnp.arange(len(rows[0])))
        (readout, K), _ = jax.lax.scan(sample, (rls.readout, K), rows)
        return Rls(readout, flush(rls.P, K, forgetting))

    P = scaled_identity(jnp.asarray(10.0), h.shape[1], h.dtype)
    start = Rls(jnp.zeros((f.shape[1], h.shape[1])), P)
    return in_blocks(samples, start, (h, f), block)


@pytest.mark.parametrize("forgetting", [1.0, 0.97])
@pytest.mark.parametrize("block", [1, 7, 200])
def test_block_rls_is_rls(forgetting, block):
    rng = np.random.default_rng(0)
    h, f = rng.standard_normal((50, 12)), rng.standard_normal((50, 3))
    R, P = np.zeros((3, 12)), 10.0 * np.eye(12)
    for a, b in zip(h, f, strict=True):
        k = P @ a
        c = 1 / (forgetting + a @ k)
        R = R - c * np.outer(R @ a - b, k)
        P = (P - c * np.outer(k, k)) / forgetting
    with jax.enable_x64(True):
        end = jax.jit(rls_over, static_argnums=3)(h, f, forgetting, block)
    # Rounding of float64 through a P whose condition number is about 500.
    np.testing.assert_allclose(end.readout, R, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(whole(end.P), P, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("p", [1, 2, 7])
def test_symmetric_times(p):
    K = jnp.asarray(np.random.default_rng(p).standard_normal((3, p)), jnp.float32)
    P = flush(scaled_identity(jnp.float32(2), p, jnp.float32), K, jnp.float32(0.5))
    np.testing.assert_allclose(whole(P), (2 * np.eye(p) - K.T @ K) / 0.125, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(times(P, K[0]), whole(P) @ K[0], rtol=1e-4, atol=1e-4)


def test_rls_is_ridge_regression():
    # Without forgetting RLS is ridge regression with ridge 1/alpha (Haykin, ch. 10).
    rng = np.random.default_rng(1)
    h, f = rng.standard_normal((30, 8)), rng.standard_normal((30, 2))
    expected = np.linalg.solve(h.T @ h + np.eye(8) / 10.0, h.T @ f).T
    with jax.enable_x64(True):
        end = jax.jit(rls_over, static_argnums=3)(h, f, 1.0, 8)
    np.testing.assert_allclose(end.readout, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "given",
    [
        {"block": 7, "washout": 5},
        {"forgetting": 0.995, "intercept": True, "feedback": False, "bias": 0.5},
        {"target": "narma10", "m": 1, "dynamics": "discrete", "leak": 0.8, "feedback_scale": 0.1},
    ],
    ids=["blocks", "forgetting", "discrete"],
)
def test_force_step_by_step(given):
    params = EchoState(**SMALL | given, dtype="float64", state_dtype="float64")
    run, shared, state = begin(params)
    found = finish(run)
    readout, errors, replay = numpy_force(params, shared, state)
    assert found["outcome"] == esn.DONE
    # float64 rounding, grown by the feedback loop over 3 passes.
    assert relative(found["readout_weights"], readout) < 1e-8
    np.testing.assert_allclose(found["train_nrmse"], errors, rtol=1e-8)
    assert found["replay_nrmse"] == pytest.approx(replay, rel=1e-6)


def test_force_P_stays_symmetric():
    run, _, _ = begin(EchoState(**SMALL))
    for _ in range(2):
        run.advance()
    P = whole(jax.tree.map(lambda leaf: leaf[0], run._slots.state.rls.P))
    np.testing.assert_array_equal(P, P.T)
    assert np.linalg.eigvalsh(P.astype(float)).min() > 0


def test_force_network_is_leaky_cell():
    # A continuous network, its outputs fed back, is a leaky cell that has no feedback.
    params = EchoState(**SMALL | {"record": ("weights", "traces")}, intercept=True)
    found = run_items(kernel, params)
    weights = {name: found[f"weights.{name}"][0] for name in cells.leaky.axes}
    cells.check_params("leaky", weights, "here")
    _, outputs = cells.run(cells.leaky, weights, jnp.zeros((90, 0), jnp.float32))
    # float32, and the network is contracting onto what it has learned.
    np.testing.assert_allclose(outputs, found["trace"][0], atol=2e-3)


def test_force_ill_conditioned():
    # float32 P = 1e7 I loses its positive eigenvalues to rounding; alpha = 1 beside it does not.
    found = run({"alpha": [1e7, 1.0]}, **SMALL)
    assert found["outcome"].tolist() == [esn.ILL_CONDITIONED, esn.DONE]
    assert np.isnan(found["replay_nrmse"][0])
    assert np.isfinite(found["replay_nrmse"][1])
    # Training stops there: the passes that it did not reach have no error.
    assert np.isnan(found["train_nrmse"][0, -1])


def test_force_diverged():
    # Euler steps of 4 time constants multiply activations by -3.
    found = run({"tau": [0.025, 1.0]}, **SMALL)
    assert found["outcome"].tolist() == [esn.DIVERGED, esn.DONE]
    assert kernel.outcomes[esn.DIVERGED].failed


def test_results_described_and_shaped():
    every = {"validation": 30, "test": 40, "record": ("readout", "weights", "traces", "lyapunov")}
    params = EchoState(**SMALL | every, dtype="float64", memory_delays=4, alpha=1e7)
    found = run_items(kernel, params)
    assert found["outcome"][0] == esn.DONE  # a learning rate that float32 does not take, see above
    assert found.keys() == kernel.dims.keys()
    axes = {"pass": 3, "output": 2, "feature": 40, "time": 40, "delay": 4}
    axes |= {"unit": 40, "unit_from": 40, "state": 40, "input": 0}
    for name, values in found.items():
        assert values.shape == (1, *(axes[axis] for axis in kernel.dims[name].axes)), name
    coords = kernel.coords(inputs_of(params), None)
    assert {axis: len(values) for axis, values in coords.items()}.items() <= axes.items()
    least = run_items(kernel, EchoState(**SMALL | {"record": ()}))
    assert least.keys() < found.keys()


@pytest.mark.slow
def test_modes_of_execution_agree():
    columns = {"g": np.linspace(0.5, 1.6, 6)}
    params = {**SMALL, "dtype": "float64", "state_dtype": "float64"}
    one, all_ = run(columns, Layout(6, 1), **params), run(columns, Layout(6, 6), **params)
    # Other products, other rounding, grown by chaos at the larger gains.
    np.testing.assert_allclose(
        one["readout_weights"], all_["readout_weights"], rtol=1e-5, atol=1e-7
    )


@pytest.mark.slow
def test_force_notebook_setting():
    # n=500, m=20, 300 steps, 15 passes, alpha=1: replay, and distance of a float32 readout.
    found = run({"g": np.full(8, 1.5)}, record=("readout",))
    assert (found["outcome"] == esn.DONE).all()
    assert np.median(found["replay_nrmse"]) <= 0.005
    _, shared, state = begin(EchoState())
    readout, errors, replay = numpy_force(EchoState(), shared, state)
    assert relative(found["readout_weights"][0], readout) < 1e-4
    np.testing.assert_allclose(found["train_nrmse"][0], errors, rtol=1e-3)
    assert found["replay_nrmse"][0] == pytest.approx(replay, rel=1e-2)


# --- ridge and replay -----------------------------------------------------------------------------

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


def numpy_ridge(params, shared, state):
    """Readout by least squares; first replay, NRMSE over replays, at their ends, valid samples."""
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
    augmented = np.vstack([H, root * np.eye(H.shape[1])])
    f = np.vstack([y[rows], np.zeros((H.shape[1], static.m))])
    R = np.linalg.lstsq(augmented, f, rcond=None)[0].T
    # Without a test range the replay is that of the training range.
    begin = rows.stop + static.validation if static.test else rows.start
    starts = np.linspace(0, max(static.test - static.horizon, 0), static.starts).astype(int) + begin
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
    return R, trace, rms(errors), rms(errors[:, -1]), valid.mean()


@pytest.mark.parametrize(
    ("given", "tol"),
    [
        # Normal equations with one step of refinement, condition number up to 1e7.
        ({"test": 90, "starts": 5, "horizon": 10}, 1e-6),
        ({"test": 80, "starts": 3, "horizon": 30, "valid_error": 0.05, "validation": 30}, 1e-6),
        # float32 states are off by 1e-7, which a readout of size 100 shows.
        ({"state_dtype": "float32", "ridge": 1e-3}, 0.05),
    ],
)
def test_ridge_step_by_step(given, tol):
    params = EchoState(**{"horizon": 60, "ridge": 1e-4} | RIDGE | given)
    run, shared, state = begin(params)
    found = finish(run)
    readout, trace, nrmse, last, valid = numpy_ridge(params, shared, state)
    assert found["outcome"] == esn.DONE
    assert relative(found["readout_weights"], readout) < tol
    assert relative(found["trace"], trace) < tol
    assert found["replay_nrmse"] == pytest.approx(nrmse, rel=100 * tol)
    assert found["replay_last_nrmse"] == pytest.approx(last, rel=100 * tol)
    assert found["valid_time"] == pytest.approx(valid, rel=100 * tol)


def test_ridge_ill_conditioned():
    # 60 samples cannot determine 101 weights without a ridge.
    found = run({"ridge": [0.0, 1e-6]}, **RIDGE | {"n": 100, "train": 60})
    assert found["outcome"].tolist() == [esn.ILL_CONDITIONED, esn.DONE]


def test_exponent_of_decay():
    # A directed ring of gain g without feedback or input decays to rest: its exponent is ln g a step.
    given = SMALL | {"dynamics": "discrete", "feedback": False, "topology": "ring", "g": 0.8}
    found = run(**given | {"test": 400, "dt": 0.5, "record": ("lyapunov",)})
    assert found["lyapunov"][0] == pytest.approx(np.log(0.8) / 0.5, rel=1e-3)


def test_memory_capacity_of_rotation():
    # A nearly linear orthogonal network of n units remembers close to n inputs, never more (Jaeger 2002).
    given = SMALL | {"dynamics": "discrete", "topology": "orthogonal", "feedback": False, "n": 20}
    found = run(
        {"g": [0.95]}, **given, dtype="float64", memory_delays=40, input_scale=1e-3, ridge=1e-12
    )
    assert (
        18 < found["memory_capacity"][0] < 20.2
    )  # chance correlations over 1,200 samples add 0.02
    assert found["memory"][0, 0] > 10 * found["memory"][0, -1]
    assert found["memory_capacity"][0] == pytest.approx(found["memory"][0].sum())


def test_effective_spectral_radius():
    # Of I + r (W_R + W_F readout - I), the step linearised at rest.
    run, _, state = begin(EchoState(**SMALL))
    found, w = finish(run), state.weights
    loop = w.drive[:, :40].astype(float) + w.drive[:, 40:] @ found["readout_weights"]
    step = np.eye(40) + w.rate * (loop - np.eye(40))
    expected = np.abs(np.linalg.eigvals(step)).max()
    assert found["spectral_radius"] == pytest.approx(expected, rel=1e-3)


@pytest.mark.slow
def test_mackey_glass_published():
    # Jaeger 2001: NRMSE84 = 2.8e-4 with 400 units, 3,000 steps of which 1,000 are washed out.
    given = RIDGE | {"n": 400, "washout": 1000, "train": 2000, "record": ()}
    given |= {"test": 4200, "starts": 50, "horizon": 84, "ridge": 1e-11}
    found = run({"g": np.full(6, 1.0)}, **given)
    assert (found["outcome"] == esn.DONE).all()
    assert found["replay_last_nrmse"].min() <= 2.8e-4


@pytest.mark.slow
@pytest.mark.parametrize(("n", "published"), [(50, 0.16), (100, 0.11)])
def test_narma10_published(n, published):
    given = {"target": "narma10", "m": 1, "readout": "ridge", "dynamics": "discrete", "n": n}
    given |= {"scale": "spectral_radius", "feedback": False, "intercept": True, "washout": 200}
    given |= {"train": 2000, "validation": 2000, "test": 2000}
    points = [(scale, bias) for scale in (0.02, 0.05, 0.1) for bias in (0.1, 0.3)]
    columns = {"input_scale": np.repeat([p[0] for p in points], 10)}
    columns["bias"] = np.repeat([p[1] for p in points], 10)
    found = run(columns, **given, g=0.9, ridge=1e-8)
    nmse = {name: found[f"{name}_nrmse"].reshape(-1, 10) ** 2 for name in ("validation", "replay")}
    best = nmse["validation"].mean(axis=1).argmin()
    assert nmse["replay"][best].mean() <= published


@pytest.mark.slow
def test_lorenz_exponent():
    # 0.906 for the Lorenz system (Sprott 2003); over 500 time units an estimate scatters by 1-2 %.
    given = {"target": "lorenz", "m": 3, "n": 300, "dt": 0.05, "readout": "ridge", "washout": 200}
    given |= {"dynamics": "discrete", "scale": "spectral_radius", "intercept": True, "train": 4000}
    given |= {"test": 10_000, "record": ("lyapunov",)}
    found = run({"g": np.full(3, 0.4)}, **given, feedback_scale=0.1, bias=0.5, ridge=1e-6)
    assert np.median(found["lyapunov"]) == pytest.approx(0.906, rel=0.05)
    assert np.median(found["valid_time"]) > 3  # about three Lyapunov times


# --- reduction ------------------------------------------------------------------------------------


def reduced(columns, nrmse, validation=None, **options):
    results = {"replay_nrmse": np.asarray(nrmse)}
    given = EchoState(validation=10 if validation is not None else 0)
    if validation is not None:
        results["validation_nrmse"] = np.asarray(validation)
    columns = {name: np.asarray(values) for name, values in columns.items()}
    return esn.reduce(inputs_of(given), None, columns, results, Options(**options))


def test_reduce_points():
    columns = {"item": np.arange(100, 106), "seed": [0, 1, 0, 1, 2, 2], "g": [2.0, 2, 1, 1, 1, 2]}
    out = reduced(columns, [0.05, 0.3, 0.01, np.nan, np.nan, 0.09])
    assert out.keys() <= kernel.reduced.keys()
    assert out["g"].tolist() == [2.0, 1.0]
    assert out["count"].tolist() == [3, 3]
    np.testing.assert_allclose(out["success_rate"], [2 / 3, 1 / 3])
    # A failed network counts as infinitely wrong.
    assert out["nrmse_median"].tolist() == [0.09, np.inf]
    assert out["nrmse_best"].tolist() == [0.05, 0.01]
    assert (out["best_row"], out["best_item"]) == (2, 102)
    assert (out["success_rate_low"] <= out["success_rate"]).all()
    assert (out["success_rate"] <= out["success_rate_high"]).all()


def test_reduce_best_by_validation():
    out = reduced({"item": [7, 8]}, [0.01, 0.02], validation=[0.5, 0.1])
    assert out["best_item"] == 8
    assert out["count"].tolist() == [2]


def test_reduce_threshold():
    assert reduced({}, [0.05, 0.3], success_below=0.04)["success_rate"].tolist() == [0.0]
    assert reduced({}, [0.05, 0.3], success_below=0.5)["success_rate"].tolist() == [1.0]


def test_reduce_interval_is_binomial():
    # Resampled shares of 20 successes in 40 have deviation sqrt(.25 / 40): 95 % lie within 0.155.
    out = reduced({}, np.repeat([0.01, 1.0], 20), resamples=20_000)
    width = out["success_rate_high"][0] - out["success_rate_low"][0]
    assert width == pytest.approx(2 * 1.96 * np.sqrt(0.25 / 40), abs=0.03)


@pytest.mark.parametrize(
    "swept",
    [
        {},
        {"alpha": [0.1, 1, 10, 100] * 2},
        {"alpha": [0.1, 1] * 4, "g": [1.0, 1, 2, 2] * 2},
        {"alpha": [0.1, 1] * 4, "g": [1.0, 1, 2, 2] * 2, "tau": [1.0] * 4 + [2.0] * 4},
    ],
    ids=["one", "curve", "map", "three"],
)
def test_figure_draws(swept):
    columns = {name: np.asarray(values) for name, values in swept.items()}
    nrmse = [0.01, 0.2, np.nan, 0.05, 0.3, 0.02, np.nan, 0.5]
    inputs = inputs_of(EchoState())
    out = reduced(columns, nrmse)
    fig = esn.figure(inputs, None, columns, {}, out)
    fig.canvas.draw()
    labels = [axis.get_xlabel() for axis in fig.axes]
    assert labels[0] == (next(iter(sorted(swept, reverse=True)), "") if len(swept) < 2 else "g")
