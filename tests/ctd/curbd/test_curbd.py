"""Kernel curbd: numbers of the authors' code, a NumPy loop from the paper's equations, a recovered network, refusals."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
import yaml
from messages import refused
from places import EXAMPLES
from small import FOUR
from small import small as smallest

from ctd.batch import evaluated, run_items
from ctd.cells import get_cell, run
from ctd.curbd import Curbd, kernel
from ctd.curbd.model import constants, currents, explained, free_run, training_run
from ctd.curbd.params import HIGHEST, Shared
from ctd.kernel import inputs_of, static_of, traced_of
from ctd.plots.png import draw
from ctd.rls import scaled_identity
from jobs.gather.gather import gather
from jobs.run.prepare import open_or_create
from jobs.run.shards import run_shards
from jobs.run.worker import SerialExecutor
from jobs.spec.job import parse_job

N, T, STEPS, RUNS = 4, 12, 4, 3
FIELDS = {"steps": STEPS, "dt": 0.5, "tau": 0.8, "tau_noise": 1.1, "noise": 0.05, "alpha": 2.0}
FIELDS |= {"dtype": "float64"}

# What rajanlab/CURBD's curbd.py (commit of December 2020 and later) returned when it was executed once in NumPy: trainMultiRegionRNN
# for `activity()`, with npr.randn returning `white()` and then J, dtFactor 4, g 1.5, P0 2, 3 training runs and one free run,
# then computeCURBD. Nothing of its text is here.
THEIR_J = [
    [0.641092505585944, 0.39511681685008754, 0.678733323039655, -1.3181788274631927],
    [-0.20009967212849816, 0.22567248069733792, 1.3424328565666144, -0.7117327135786353],
    [-0.14115289160393152, -0.9421635667619371, 0.8044108889393129, 0.113409735481051],
    [0.45620685370605263, -1.1586821776419003, -0.05215682688647294, 0.12885080156832815],
]
THEIR_PVARS = [0.020535098534810614, 0.30618123712687517, 0.14898645039069836, 0.3779963276217455]
THEIR_CHI2 = [3.6822647630573035, 3.4887559983338825, 2.4212275560800838]
# From units 1 and 3 to units 0 and 2, at the bins.
THEIR_CURRENTS = [
    [0.8680184623898586, 0.9705970227009287, 0.816668998428019, 0.424748741698626, -0.16988803871648905, -0.6650905030271224,
     -0.7536810799254658, -0.5376886102402328, -0.13304800796071703, 0.35896629276965053, 0.6195933548495527, 0.5351509355652467],
    [-0.7113606729643365, -0.7156335194338915, -0.5065742123298207, -0.12402449952349222, 0.27797140873361514, 0.52040530711516,
     0.4865755335574113, 0.2406160545208212, -0.07544185420715506, -0.35819189593602435, -0.4495580479638195, -0.30157544699976613],
]  # fmt: skip


def activity():
    """(time, unit), of which the largest magnitude is a maximum."""
    t, k = np.arange(T)[:, None], np.arange(N)
    x = np.sin(0.5 * t + 1.3 * k) * (1 - 0.1 * k)
    return x / np.abs(x).max()


def white():
    return np.sin(2 + 1.7 * np.arange((T - 1) * STEPS * N)).reshape(T - 1, STEPS, N)


def first_weights():
    return 1.5 / np.sqrt(N) * np.sin(1 + 3.1 * np.arange(N * N)).reshape(N, N)


@cache
def ours(lag=1, recordings=1):
    """(J, (pVar, chi2) of each training run, a function: the rates of a free run and their pVar)"""
    params = Curbd(**FIELDS, lag=lag)
    static, traced = static_of(params), traced_of(params)
    x = np.clip(np.stack([activity()[::k] for k in (1, -1)[:recordings]]), -HIGHEST, HIGHEST)
    xi = np.stack([white()] * recordings)

    @jax.jit
    def trained(J, P):
        c = constants(static, Shared(jnp.asarray(x), None, jnp.asarray(0.5)), traced)
        end, P = training_run(static, c, jnp.asarray(x), jnp.asarray(xi), J, P)
        return end.J, P, explained(x, end.apart), end.error / N

    @jax.jit
    def free(J):
        c = constants(static, Shared(jnp.asarray(x), None, jnp.asarray(0.5)), traced)
        rates = free_run(c, jnp.asarray(x), jnp.asarray(xi), J)
        return rates, explained(x, jnp.sum((x - rates) ** 2))

    J, P = first_weights(), scaled_identity(jnp.asarray(params.alpha), N, "float64")
    runs = []
    for _ in range(RUNS):
        J, P, pvar, chi2 = trained(J, P)
        runs.append((float(pvar), float(chi2)))
    return J, runs, lambda: free(J)


@pytest.mark.usefixtures("float64")
def test_the_authors_numbers():
    J, runs, free = ours()
    rates, pvar = free()
    pvars, chi2s = zip(*runs, strict=True)
    np.testing.assert_allclose(J, THEIR_J, rtol=0, atol=1e-12)
    np.testing.assert_allclose([*pvars, pvar], THEIR_PVARS, rtol=0, atol=1e-12)
    np.testing.assert_allclose(chi2s, THEIR_CHI2, rtol=0, atol=1e-12)
    of_b = np.asarray(jax.jit(currents)(J, rates[0], np.asarray([0.0, 1, 0, 1])))
    np.testing.assert_allclose(of_b.T[::2], THEIR_CURRENTS, rtol=0, atol=1e-12)


def numpy_curbd(recordings, xis, lag):
    """Perich et al. 2020, methods: tau dh/dt = -h + J r + noise by Euler's method, and RLS of all rows at each bin."""
    f, J, P = FIELDS, first_weights(), FIELDS["alpha"] * np.eye(N)
    step = f["dt"] / STEPS
    decay = np.exp(-step / f["tau_noise"])
    for _ in range(RUNS):
        for x, xi in zip(recordings, xis, strict=True):
            h, w = x[0], np.ones(N)
            for k in range(1, T):
                for s in range(STEPS):
                    r = np.tanh(h)
                    w = decay * w + (1 - decay) * np.sqrt(f["tau_noise"] / step) * xi[k - 1, s]
                    h = h + step / f["tau"] * (-h + J @ r + f["noise"] * w)
                u = P @ r
                c = 1 / (1 + r @ u)
                J = J - c * np.outer(r - x[k - lag], u)
                P = P - c * np.outer(u, u)
    return J


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("lag", "recordings"), [(1, 1), (0, 1), (1, 2)])
def test_runs_numpy(lag, recordings):
    xs = [np.clip(activity()[::k], -HIGHEST, HIGHEST) for k in (1, -1)[:recordings]]
    expected = numpy_curbd(xs, [white()] * recordings, lag)
    np.testing.assert_allclose(ours(lag, recordings)[0], expected, rtol=0, atol=1e-11)


def network_activity(n=12, steps=150, seed=0):
    """(time, unit) rates of a random network that is driven by a slow sine, bins 0.01 apart, tau 0.1."""
    rng = np.random.default_rng(seed)
    J, b = 1.4 * rng.normal(size=(n, n)) / np.sqrt(n), rng.normal(size=n)
    h, rates = rng.normal(size=n), []
    for t in range(steps):
        rates.append(np.tanh(h))
        h = h + 0.1 * (-h + J @ rates[-1] + 0.5 * b * np.sin(0.05 * t))
    return np.asarray(rates)


HALVES = {"A": "0-5", "B": "6-11"}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("curbd") / "x.npy"
    np.save(path, network_activity())
    return str(path)


def small(path, **given):
    return Curbd(data=path, regions=HALVES, n_runs=60, **given)


@pytest.fixture(scope="module")
def fits(path):
    """Fits of several g and seeds. The other tests, too, fit two items at a time: that is one program."""
    return run_items(kernel, small(path), {"g": [1.2, 1.5], "seed": [0, 1]})


def test_a_fit_follows_the_recording(fits):
    """The currents by source add up to all of them, and their sizes are those stored."""
    found = fits
    assert (found["outcome"] == 0).all()
    assert (found["pvar"] > 0.8).all()
    assert (found["pvar_curve"][:, -1] > found["pvar_curve"][:, 0]).all()
    J, r, all_of = found["weights.wR"], found["rates"], found["currents"]
    assert np.abs(J[0] - J[1]).max() > 1e-2
    np.testing.assert_allclose(all_of.sum(1), r @ J.transpose(0, 2, 1), atol=1e-4)
    np.testing.assert_allclose(all_of[0, 1], r[0][:, 6:] @ J[0][:, 6:].T, atol=1e-4)
    size = np.sqrt(np.mean(all_of[0, 1][:, :6] ** 2))
    np.testing.assert_allclose(found["current_rms"][0][0, 1], size, rtol=1e-4)


def test_stored_weights_are_a_leaky_network(path):
    """Without noise, its states in steps of dt / steps are those of the free run."""
    found = run_items(kernel, small(path), {"noise": [0.0, 0.01]})
    weights = {k.removeprefix("weights."): v[0] for k, v in found.items() if k[:8] == "weights."}
    weights |= {"wO": np.eye(12), "bO": np.zeros(12)}
    states, _ = jax.jit(lambda w: run(get_cell("leaky"), w, jnp.zeros((95, 0))))(weights)
    # The rates of bin k are those before its last step.
    at = np.arange(1, 20) * 5 - 2
    expected = np.tanh(np.asarray(states)[at])
    np.testing.assert_allclose(found["rates"][0, 1:20], expected, atol=1e-3)


def test_what_is_not_recorded_is_no_result(tmp_path):
    """Of two recordings, of which the first is kept. Shapes alone: that a run resets at each is in `test_runs_numpy`."""
    np.save(tmp_path / "x.npy", np.stack([network_activity(), network_activity()[::-1]]))
    params = small(str(tmp_path / "x.npy"), record=("rates",))
    shared, traced = kernel.load(inputs_of(params)), jax.tree.map(np.asarray, traced_of(params))
    found = evaluated(kernel, static_of(params), shared, traced).results
    assert found["rates"].shape == (150, 12)
    assert "currents" not in found


def test_a_fit_that_diverges_is_an_outcome(path):
    """A step 20 times the time constant, beside one that goes on."""
    found = run_items(
        kernel, small(path), {"tau": [1e-4, 0.1], "g": [50.0, 1.5], "noise": [1e38, 0.01]}
    )
    assert found["outcome"].tolist()[1] == 0
    assert found["outcome"].tolist()[0] in (1, 2)
    assert found["pvar"][1] > 0.8


def test_recordings_that_begin_with_0():
    """Noise moves the network from there; without noise it stays, which no weights change."""
    params = smallest("curbd")[1]
    assert not np.load(params.data)[0].any()
    found = run_items(kernel, params, {"noise": [0.0, 0.01]}, layout=FOUR)
    assert found["outcome"].tolist() == [3, 0]
    assert found["runs"].tolist() == [0, params.n_runs]


def test_axes_carry_the_names_of_regions(path):
    """In the order of `regions`, which is not that of the units here."""
    inputs = inputs_of(small(path).model_copy(update={"regions": {"B": "1-11", "A": "0"}}))
    found = kernel.coords(inputs, kernel.load(inputs))
    told = {axis: found[axis].values.tolist() for axis in ("source", "target", "unit")}
    assert told == {"source": ["B", "A"], "target": ["B", "A"], "unit": ["A", *11 * ["B"]]}


def test_the_best_fits_and_medians():
    sizes = np.arange(16.0).reshape(4, 2, 2)
    results = {
        "pvar": np.array([0.5, 0.9, 0.7, 0.99]),
        "outcome": np.array([0, 0, 0, 1]),
        "current_rms": sizes,
    }
    shared, inputs = Shared(None, np.eye(2), None), inputs_of(Curbd(regions={"B": "0", "A": "1"}))
    table = kernel.tables.reduce(
        inputs, shared, {"item": np.arange(10, 14)}, results, kernel.tables.Options(n_best=2)
    )
    assert table["item"].tolist() == [11, 12]
    assert (table["pvar_median"], table["failed"]) == (0.7, 1)
    assert table["current_rms_median"].tolist() == sizes[1].tolist()
    assert (table["current_rms_mad"] == 4).all()
    rows = [table[f"current_{name}"].tolist() for name in ("target", "source", "median", "mad")]
    assert [*zip(*rows, strict=True)] == [
        ("B", "B", 4, 4),
        ("B", "A", 5, 4),
        ("A", "B", 6, 4),
        ("A", "A", 7, 4),
    ]


X = network_activity(n=4, steps=30)
GOOD = {"regions": {"A": "0-1", "B": "2-3"}}
BAD = {
    "no file": (X, {"data": None}),
    "axes": (X[:, 0], {}),
    "NaN": (np.where(X.max() == X, np.nan, X), {}),
    "short": (X[:1], {}),
    "constant": (X * [1, 0, 1, 1], {}),
    "range": (2 * X, {"scale": "none"}),
    "no regions": (X, {"regions": {}}),
    "overlap": (X, {"regions": {"A": "0-2", "B": "2-3"}}),
    "nowhere": (X, {"regions": {"A": "0-1", "B": "3"}}),
    "beyond": (X, {"regions": {"A": "0-1", "B": "2-4"}}),
    "no range": (X, {"regions": {"A": "all"}}),
}  # fmt: skip


@pytest.mark.parametrize(("x", "given"), BAD.values(), ids=BAD)
def test_what_does_not_fit_is_refused(tmp_path, x, given):
    np.save(tmp_path / "x.npy", x)
    params = Curbd(**{"data": str(tmp_path / "x.npy")} | GOOD | given)
    with refused(ValueError) as caught:
        kernel.load(inputs_of(params))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        {"tau": 0},
        {"steps": 0},
        {"noise": -1},
        {"n_runs": 7},
        {"lag": 2},
        {"regions": {"A": [0, 1]}},
    ],
)
def test_fields_out_of_range_are_refused(given):
    with refused(ValueError):
        Curbd(**given)


def test_activity_is_scaled(tmp_path):
    """By the largest magnitude of all, or of each unit; the peak itself is cut off."""
    np.save(tmp_path / "x.npy", X * [8, 4, 2, 1])
    given = {"data": str(tmp_path / "x.npy")} | GOOD
    shared = kernel.load(inputs_of(Curbd(**given)))
    x = X * [8, 4, 2, 1] / np.abs(X * [8, 4, 2, 1]).max()
    np.testing.assert_allclose(shared.x[0], np.clip(x, -HIGHEST, HIGHEST), rtol=1e-6)
    shared = kernel.load(inputs_of(Curbd(**given, scale="unit")))
    np.testing.assert_allclose(np.abs(shared.x).max((0, 1)), HIGHEST, rtol=1e-6)


def test_keys_of_seeds_differ(path):
    params = small(path)
    static, shared = static_of(params), kernel.load(inputs_of(params))
    traced, key = traced_of(params), jax.random.key(0)
    first = jax.jit(lambda seed: kernel.init(static, shared, traced._replace(seed=seed), key).J)
    assert np.abs(np.asarray(first(0)) - np.asarray(first(1))).max() > 0.1


def test_the_grid_of_currents_is_drawn(path, fits):
    found, inputs = fits, inputs_of(small(path))
    columns = {"item": np.arange(2), "g": np.array([1.2, 1.5])}
    drawn = kernel.display.plots(inputs, kernel.load(inputs), columns, found, {})
    grid = {plot.title: plot.layers[0].z for plot in drawn if " to " in plot.title}
    assert [*grid] == ["A to A", "B to A", "A to B", "B to B"]
    best = int(np.argmax(found["pvar"]))
    current = found["currents"][best, 1][:, :6]
    np.testing.assert_allclose(np.sort(grid["B to A"], 0)[:, 7], np.sort(current[7]), atol=0.3)
    assert draw(drawn[: kernel.display.png_plots]).axes
    lost = found | {"outcome": np.array([1, 1])}
    assert len(kernel.display.plots(inputs, kernel.load(inputs), columns, lost, {})) == 1


@pytest.mark.endurance  # what follows a recording stays; its file is read in tests/cluster/api/test_job.py
def test_the_example_runs(tmp_path):
    """With a twentieth of its runs: the store holds the currents, which weights and rates give, and the table of the best fits."""
    (tmp_path / "regions_recording.h5").symlink_to(EXAMPLES / "regions_recording.h5")
    job = yaml.safe_load((EXAMPLES / "curbd_regions.yaml").read_text())
    job["params"] |= {"n_runs": 5}
    executor = SerialExecutor(1)
    spec = parse_job(job, "curbd_regions")
    store = open_or_create(spec, str(tmp_path), "job", str(tmp_path / "out.zarr"), executor)
    run_shards(store, executor)
    gather(store)
    read = lambda name: np.asarray(store.array(0, name)[:])
    J, rates, found = read("weights.wR"), read("rates"), read("currents")
    assert found.shape == (6, 3, 600, 60)
    np.testing.assert_allclose(found[2, 1], rates[2][:, 20:40] @ J[2][:, 20:40].T, atol=1e-3)
    with xr.open_datatree(str(tmp_path / "out.zarr"), engine="zarr") as tree:
        table = tree["gathered/0"]
        assert table.pvar.values[0] == read("pvar").max()
        assert table.current_rms_median.shape == (3, 3)
