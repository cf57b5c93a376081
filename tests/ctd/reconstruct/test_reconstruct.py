"""Kernel reconstruct: forcing and its bound against NumPy, a fit of a known system, refusals."""

import functools

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from messages import refused, warned
from small import FOUR, SMALL, spiral

from ctd.batch import evaluated, run_items
from ctd.catalogue import load_kernel
from ctd.cells import check_params, get_cell, readout, run
from ctd.kernel import inputs_of, static_of, traced_of
from ctd.reconstruct import Reconstruction, kernel
from ctd.reconstruct.data import Recordings
from ctd.reconstruct.measures import compare_halves, prediction_error
from ctd.reconstruct.model import bound, draw, forced, spectral_norm, states_of, strengths
from ctd.reconstruct.summary import _warn_of_distance

RNG = np.random.default_rng(0)
TINY = SMALL["reconstruct"]
X = np.load(spiral())[:50]


class Traced:
    interval = 3


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("observation", "forcing"),
    [("identity", "constant"), ("identity", "sparse"), ("affine", "constant")],
)
def test_forced_states_numpy(observation, forcing):
    """Three units of which two are channels: the third is forced only where the observation is affine."""
    params = Reconstruction(
        **TINY | {"n": 3, "cell": "shplrnn", "observation": observation, "forcing": forcing},
        dtype="float64",
    )
    static, channels = static_of(params), 2
    x, s = RNG.normal(size=(11, channels)), RNG.normal(size=(11, 1))

    @jax.jit
    def drawn_and_forced(x, s):
        p = draw(static, 1, channels, jax.random.key(0))
        alpha = strengths(static, Traced, jnp.asarray(0.3), channels)
        return p, forced(get_cell("shplrnn"), p, states_of(p, x), s, alpha)

    p, found = drawn_and_forced(x, s[1:])
    w = {k: np.asarray(v) for k, v in p.items()}
    if observation == "affine":
        data, n_forced = (x - w["bO"]) @ np.linalg.pinv(w["wO"]).T, 3
    else:
        data, n_forced = np.concatenate([x, x @ w["lift"].T], axis=1), 2
    z = data[0]
    for t in range(1, 11):
        hidden = np.maximum(w["W2"] @ z + w["h2"], 0)
        z = w["A"] * z + w["W1"] @ hidden + w["h1"] + w["C"] @ s[t]
        np.testing.assert_allclose(found[t - 1], z, atol=1e-12)
        a = 0.3 if forcing == "constant" else float(t % 3 == 0)
        z = np.concatenate([((1 - a) * z + a * data[t])[:n_forced], z[n_forced:]])


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["shplrnn", "shplrnn:clipped"])
def test_bound_numpy(name):
    """max(0, 1 - 1 / G), G the largest over sequences of the geometric mean of Jacobian norms."""
    static = static_of(Reconstruction(**TINY | {"n": 3, "cell": name}, dtype="float64"))
    z = RNG.normal(size=(4, 8, 3))

    @jax.jit
    def drawn_and_bound(z):
        p = draw(static, 0, 3, jax.random.key(1))
        p["W1"] = 9 * p["W1"]
        return p, bound(get_cell(name), p, z, jnp.zeros((4, 8, 0)))

    p, found = drawn_and_bound(z)
    w, other = {k: np.asarray(v) for k, v in p.items()}, name == "shplrnn:clipped"
    means = []
    for sequence in z:
        norms = []
        for state in sequence:
            a = w["W2"] @ state
            slope = (a > -w["h2"]) * 1.0 - other * (a > 0)
            j = np.diag(w["A"]) + w["W1"] @ np.diag(slope) @ w["W2"]
            norms.append(np.linalg.norm(j, 2))
        means.append(np.exp(np.mean(np.log(norms))))
    expected = max(0, 1 - 1 / max(means))
    assert expected > 0.05
    # A norm is at most 3^(1 / 2048) - 1 = 5.4e-4 too large.
    assert 0 <= found - expected < 5.4e-4


@pytest.mark.parametrize("n", [1, 3, 50])
def test_spectral_norm_numpy(n):
    """From above, by at most a factor n^(1 / 2048); also of zeros, and where squares overflow float32."""
    j = np.concatenate([RNG.normal(size=(20, n, n)), [np.eye(n), np.zeros((n, n))]])
    for scale in (1, 1e15):
        found = np.asarray(jax.vmap(spectral_norm)(jnp.float32(scale * j))) / scale
        expected = np.linalg.norm(j, 2, axis=(1, 2))
        # 1e-5 for the rounding of float32, and what stands for the logarithm of 0.
        assert (found >= expected * (1 - 1e-5)).all()
        assert (found <= expected * n ** (1 / 2048) * (1 + 1e-5) + 1e-15).all()


FITS = {
    # The smallest case: a program that the kernel's contract compiles, too.
    "bound": {"cell": "shplrnn:clipped"},
    "sparse": {
        "cell": "alrnn",
        "forcing": "sparse",
        "observation": "affine",
        "n": 4,
        "bins": 1001,
        "n_batches": 200,
        "report_every": 50,
    },
    "constant": {"cell": "shplrnn", "forcing": "constant", "alpha": 0.2, "n": 4},
}
# Always, forcing and observation of either kind are held to NumPy: test_forced_states_numpy.
EACH_FIT = [pytest.param(fit, marks=[pytest.mark.endurance] * (fit != "bound")) for fit in FITS]


@functools.cache
def fitted(name):
    """(parameters of FITS, the results of seeds 0 and 1, of a learning rate that is far too large, and of noise that hides the data)."""
    params = Reconstruction(**TINY | FITS[name], data=spiral())
    rates = {"learning_rate": [0.06, 0.06, 1e20, 0.06], "final_learning_rate": [0.006] * 2 + [1e20, 0.006]}  # fmt: skip
    columns = {"seed": [0, 1, 0, 0], "noise": [0, 0, 0, 100.0]} | rates
    return params, run_items(kernel, params, columns, layout=FOUR)


@pytest.mark.slow
@pytest.mark.parametrize("fit", EACH_FIT)
def test_a_fit_learns_and_its_weights_are_a_network(fit):
    """The error of forced predictions falls, and the stored network, run from h0, gives the stored states."""
    params, found = fitted(fit)
    assert (found["outcome"][:2] == 0).all()
    assert (found["curve"][:2, -1] < 0.5 * found["curve"][:2, 0]).all()
    assert np.isfinite(found["d_stsp"][:2]).all()
    assert np.abs(found["weights.A"][0] - found["weights.A"][1]).max() > 1e-3
    weights = {
        k.removeprefix("weights."): v[0] for k, v in found.items() if k.startswith("weights.")
    }
    check_params(params.cell, weights, "here")
    cell = get_cell(params.cell)
    states, outputs = run(cell, weights, jnp.zeros((19, 0)))
    np.testing.assert_allclose(found["states"][0, 1:], states, atol=1e-4)
    first = readout(cell, weights, weights["h0"])
    x = np.load(params.data)
    np.testing.assert_allclose(first, (x[0] - x.mean(0)) / x.std(0), atol=1e-3)
    assert np.isfinite(outputs).all()
    if fit == "bound":
        assert (found["alpha_curve"][:2, -1] < 1).all()


@pytest.mark.parametrize("channels", [5, 6])
def test_d_stsp_by_channels(tmp_path, channels):
    """Histograms in up to five, as Hess et al. 2023 have it; mixtures have a name of their own. Shapes alone: nothing is compiled."""
    path = recordings(tmp_path, data=np.tile(X, 3)[:, :channels])
    params = Reconstruction(**TINY | {"n": 6, "data": path})
    traced = jax.tree.map(np.asarray, traced_of(params))
    shared = kernel.load(inputs_of(params))
    found = evaluated(kernel, static_of(params), shared, traced).results
    assert {"d_stsp", "d_stsp_mixture"} <= found.keys()
    assert ("d_stsp_legacy" in found) == (channels == 5)


@pytest.mark.parametrize("fit", EACH_FIT)
def test_fit_outcomes(fit):
    """Beside the fit that diverges, others go on; from what is all noise, a fit predicts worse than the mean does."""
    _, found = fitted(fit)
    assert found["outcome"].tolist() == [0, 0, 1, 3]
    assert found["prediction_error"][3] > 1 > found["prediction_error"][:2].max()


def test_a_run_at_rest_is_drawn_as_a_point():
    """And is an outcome of its own: the first fit is drawn as a curve, the second, which is said to rest, by its last state."""
    params, found = fitted("bound")
    shared = kernel.load(inputs_of(params))
    group = lambda outcome: (inputs_of(params), shared, {"item": np.arange(4)}, found | {"outcome": np.array(outcome)}, {})  # fmt: skip
    names = lambda outcome: [
        layer.name for layer in kernel.display.plots(*group(outcome))[0].layers
    ]
    assert names([0, 2, 1, 3]) == ["data", "network, item 0"]
    assert names([1, 2, 1, 1]) == ["data", "network, item 1, at rest"]


def test_the_title_says_which_recording_is_drawn():
    params, found = fitted("bound")
    shared = kernel.load(inputs_of(params))
    several = shared._replace(measured=Recordings(*(np.repeat(v, 3, 0) for v in shared.measured)))
    for given, end in ((shared, ""), (several, "; the first of 3 recordings")):
        made = kernel.display.plots(inputs_of(params), given, {"item": np.arange(4)}, found, {})
        titles = ("Attractor, true and generated", "Power spectra, channel 0")
        assert [plot.title for plot in made[: kernel.display.png_plots]] == [
            title + end for title in titles
        ]


def test_the_best_fits_and_medians():
    d_stsp = np.array([3.0, 1.0, np.inf, 2.0, 0.5])
    results = dict.fromkeys(
        ("d_h", "prediction_error", "exponent", "peak_frequency"), np.arange(5.0)
    )
    params = Reconstruction(**TINY, data=spiral())
    results |= {"d_stsp": d_stsp, "outcome": np.array([0, 0, 0, 0, 1])}
    columns = {"item": np.arange(10, 15)}
    inputs = inputs_of(params)
    table = kernel.tables.reduce(
        inputs, kernel.load(inputs), columns, results, kernel.tables.Options(n_best=2)
    )
    assert table["item"].tolist() == [11, 13]
    # The run that visits no bin is the worst; the one that diverged does not count.
    assert (table["d_stsp_median"], table["diverged"]) == (2.5, 1)
    assert table["d_h_median"] == 1.5
    far = results | {"d_stsp": 10 * d_stsp}
    with pytest.warns(UserWarning, match="the best d_stsp is 10, .* at rest 14"):
        kernel.tables.reduce(inputs, kernel.load(inputs), columns, far, kernel.tables.Options())
    # What predicts no better than the mean comes last.
    worse = results | {"outcome": np.array([0, 3, 0, 0, 1])}
    table = kernel.tables.reduce(
        inputs, kernel.load(inputs), columns, worse, kernel.tables.Options()
    )
    assert table["item"].tolist() == [13, 10, 12, 11]


@pytest.mark.parametrize(("best", "halves", "warns"), [(5.0, 0.2, 1), (12.0, 5.0, 1), (6.0, 5.0, 0), (0.09, 1e-4, 0)])  # fmt: skip
def test_far_fit_warning(best, halves, warns, recwarn):
    """A run at rest has 15, so that ten times 5 would never come."""
    _warn_of_distance(best, halves, 15.0)
    assert len(recwarn) == warns


def test_the_mean_predicts_standardised_data_with_an_error_of_one():
    shared = kernel.load(inputs_of(Reconstruction(**TINY, data=spiral())))
    x = jnp.asarray(shared.measured.x[0])
    found = prediction_error(lambda x, s: jnp.zeros(2), x, jnp.zeros((len(x), 0)), 4)
    np.testing.assert_allclose(found, 1, rtol=0.02)  # all but four of 300 samples


@pytest.mark.filterwarnings("ignore:no fit is like the data")  # fits of a few steps
def test_the_table_has_the_frequency_of_the_data_beside_those_of_fits():
    """.3 rad a sample, of spiral()."""
    params, found = fitted("bound")
    shared = kernel.load(inputs_of(params))
    made = kernel.tables.reduce(
        inputs_of(params), shared, {"item": np.arange(4)}, found, kernel.tables.Options()
    )
    np.testing.assert_allclose(made["data_peak_frequency"] * 2 * np.pi * params.dt, 0.3, rtol=0.01)
    assert made["peak_frequency"].shape == made["item"].shape
    assert ((made["data_d_h"] > 0) & (made["data_d_h"] < 1)).all()


def test_a_yardstick_is_of_two_halves():
    """Of the time of one recording, whose halves have half as many frequencies; or of several recordings."""
    given = lambda smoothing: inputs_of(Reconstruction(**TINY | {"smoothing": smoothing}))
    x = np.random.default_rng(1).normal(size=(1, 60, 2)).astype(np.float32)
    time, several = compare_halves(given(2.0), x), compare_halves(given(1.0), x.reshape(2, 30, 2))
    assert time == several
    assert min(time.values()) > 0


def test_smoothing_that_hides_the_rhythm_is_warned_of():
    """300 samples are 14 periods of spiral()."""
    given = lambda width: inputs_of(Reconstruction(**TINY | {"smoothing": width}, data=spiral()))
    with warned():
        kernel.load(given(20.0))
    kernel.load(given(3.0))


def test_smoothing_that_makes_short_trials_alike_is_warned_of(tmp_path):
    """A peak at frequency 1, of 12, is no rhythm; smoothed, every spectrum of these trials is flat."""
    trials = np.sin(np.linspace(0, 2 * np.pi, 25))[None, :, None] * np.ones((4, 1, 2))
    file = recordings(tmp_path, data=trials)
    given = lambda width: inputs_of(Reconstruction(**TINY | {"smoothing": width}, data=file))
    with warned():
        kernel.load(given(20.0))
    kernel.load(given(1.0))


def test_searches_for_its_points_begin_between_states():
    """Inside a cycle there is none of its states."""
    job = kernel.display.next_jobs(Reconstruction(n_saved=7), "fit.zarr::3", {})["its fixed points"]
    of = load_kernel(job["kernel"]).Params.model_validate(job["params"])
    assert (of.candidates, of.dataset, of.mix) == ("fit.zarr::3::results", "states", 0.5)
    assert job["sweep"] == {"grid": {"candidate": {"range": 7}}}


def recordings(tmp_path, **arrays):
    with h5py.File(tmp_path / "r.h5", "w") as file:
        for name, value in arrays.items():
            file[name] = value
    return str(tmp_path / "r.h5")


BAD = {
    "no file": ({}, {"data": None}),
    "one array each": ({"a": X, "b": X[:40]}, {}),
    "no dataset": ({"rates": X}, {}),
    "misspelt dataset": ({"date": X, "rates": X}, {}),
    "axes": ({"data": X[:, 0]}, {}),
    "NaN": ({"data": np.where(X > 0.9, np.nan, X)}, {}),
    "channels": ({"data": np.tile(X, 2)}, {"n": 3}),
    "exchanged axes": ({"data": X.T}, {}),
    "one sample": ({"data": X[:1]}, {"n": 2}),
    "short": ({"data": X}, {"length": 50}),
    "ahead": ({"data": X}, {"ahead": 49}),
    "constant": ({"data": np.stack([X[:, 0], np.ones(50)], 1)}, {}),
    "inputs": ({"data": X, "u": X[:40]}, {"input_dataset": "u"}),
}  # fmt: skip


@pytest.mark.parametrize(("arrays", "given"), BAD.values(), ids=BAD)
def test_recordings_that_do_not_fit_are_refused(tmp_path, arrays, given):
    path = recordings(tmp_path, **arrays)
    params = Reconstruction(**TINY | {"data": path, "n": 4} | given)
    with refused(ValueError):
        kernel.load(inputs_of(params))


def test_an_array_alone_has_no_inputs(tmp_path):
    """A .npy file has no names: it is not taken for the inputs as well."""
    np.save(tmp_path / "x.npy", X)
    params = Reconstruction(
        **TINY | {"data": str(tmp_path / "x.npy"), "n": 4, "input_dataset": "u"}
    )
    with refused(ValueError):
        kernel.load(inputs_of(params))


@pytest.mark.parametrize(
    "given",
    [
        {"alpha": 1.5},
        {"anneal": -0.1},
        {"report_every": 12},
        {"cell": "alrnn", "n": 1},
        {"n_batches": 150},
        {"data": ["a.npy", "b.npy"]},
    ],
    ids=lambda given: next(iter(given)),
)
def test_fields_out_of_range_are_refused(given):
    with refused(ValueError):
        Reconstruction(**given)


def test_load_standardises_recordings_with_inputs(tmp_path):
    x = np.stack([X, 3 + X])
    path = recordings(tmp_path, data=x, u=np.ones((2, 50, 3)))
    shared = kernel.load(inputs_of(Reconstruction(**TINY, data=path, input_dataset="u")))
    assert shared.fitted.inputs.shape == (2, 50, 3)
    np.testing.assert_allclose(shared.fitted.x.mean((0, 1)), 0, atol=1e-6)
    np.testing.assert_allclose(shared.fitted.x.std((0, 1)), 1, rtol=1e-5)
    expected = (x - x.mean((0, 1))) / x.std((0, 1))
    np.testing.assert_allclose(shared.fitted.x, expected, atol=1e-5)
