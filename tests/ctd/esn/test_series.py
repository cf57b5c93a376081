"""Generated series obey their own equations; files are read with checks."""

import h5py
import numpy as np
import pytest
from messages import refused

from ctd.esn import EchoState, series
from ctd.kernel import inputs_of


def slope(x, dt):
    """Fourth-order central differences, two samples lost at each end."""
    return (x[:-4] - 8 * x[1:-3] + 8 * x[3:-1] - x[4:]) / (12 * dt)


@pytest.mark.parametrize("delay", [17, 30])
def test_mackey_glass_obeys_equation(delay):
    dt = 0.1
    x = np.arctanh(series.mackey_glass(5000, delay, dt, seed=3)[:, 0]) + 1
    lag = round(delay / dt)
    now, past = x[lag + 2 : -2], x[2 : -lag - 2]
    expected = 0.2 * past / (1 + past**10) - 0.1 * now
    # Differences are accurate to dt^4 x'''''/30, about 1e-6 here.
    np.testing.assert_allclose(slope(x, dt)[lag:], expected, atol=1e-5)
    assert 0.1 < x.min() < 0.6 < 1.2 < x.max() < 1.5  # it oscillates


def test_mackey_glass_sampling_agrees():
    # Sampled every 1, a series is every tenth sample of that sampled every 0.1: same inner steps.
    coarse = series.mackey_glass(50, 17, 1.0)
    np.testing.assert_array_equal(coarse, series.mackey_glass(500, 17, 0.1)[::10])


def test_mackey_glass_odd_step_refused():
    with refused(ValueError):
        series.mackey_glass(10, dt=0.33)


def test_lorenz_obeys_equation():
    dt = 0.002
    s = series.lorenz(2000, dt, seed=1) * [7.92, 9.01, 8.62] + [0, 0, 23.55]
    x, y, z = s[2:-2].T
    expected = np.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z], axis=1)
    # Speeds reach 400; differences are accurate to dt^4 x'''''/30, about 1e-4.
    np.testing.assert_allclose(slope(s, dt), expected, atol=1e-2)


def test_lorenz_standardised():
    s = series.lorenz(50_000, 0.05)
    # A mean over 2,500 time units: x and y switch sides about once a unit.
    np.testing.assert_allclose(s.mean(axis=0), 0, atol=0.06)
    np.testing.assert_allclose(s.std(axis=0), 1, atol=0.02)


def test_narma10_obeys_equation():
    u, y = (a[:, 0] for a in series.narma10(300, seed=2))
    for t in range(20, 299):
        # y here is one ahead of the formula's: targets[t] is y(t+1).
        now = y[t - 1]
        expected = 0.3 * now + 0.05 * now * y[t - 10 : t].sum() + 1.5 * u[t - 9] * u[t] + 0.1
        assert y[t] == pytest.approx(expected, rel=1e-12)
    assert 0 <= u.min() < u.max() <= 0.5


@pytest.mark.parametrize(("g", "low", "high"), [(0.5, 0.0, 1e-6), (1.8, 0.3, 1.0)])
def test_chaotic_network_activity(g, low, high):
    # Below g = 1 activity dies out, above it lives on (Sompolinsky et al. 1988).
    late = series.chaotic_network(1000, 20, seed=1, g=g)[500:]
    assert low <= late.std() <= high


def test_chaotic_network_too_many_outputs():
    with refused(ValueError):
        series.chaotic_network(1, 501)


def test_sines_period_and_variance():
    s = series.sines(1200, 3, 0.1, seed=4, period=60.0)
    np.testing.assert_allclose(s[600:], s[:600], atol=1e-12)
    np.testing.assert_allclose(s[:600].var(axis=0), 0.5, rtol=1e-12)


@pytest.mark.parametrize(
    "make",
    [
        lambda seed: series.chaotic_network(50, 2, seed=seed),
        lambda seed: series.mackey_glass(50, seed=seed),
        lambda seed: series.lorenz(50, seed=seed),
        lambda seed: series.narma10(50, seed=seed)[1],
        lambda seed: series.sines(50, 2, seed=seed),
    ],
    ids=["chaotic", "mackey_glass", "lorenz", "narma10", "sines"],
)
def test_series_depend_on_seed_only(make):
    np.testing.assert_array_equal(make(1), make(1))
    assert not np.allclose(make(1), make(2))


@pytest.mark.parametrize("value", [1.0, 0.1])
def test_series_constant_refused(value, tmp_path):
    """The mean of many .1 rounds, so that their variance is more than 0."""
    path = str(tmp_path / "x.npy")
    np.save(path, np.full((300, 2), value))
    with refused(ValueError):
        series.load_series(inputs_of(EchoState(target="file", path=path, m=2)), 300)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a b's.h5"
    with h5py.File(path, "w") as out:
        out["line"] = np.arange(10.0)
        out["table"] = np.arange(20.0).reshape(10, 2)
        out["cube"] = np.zeros((2, 2, 2))
        out["empty"] = np.zeros((0, 2))
        out["nan"] = np.where(np.arange(20) == 7, np.nan, 1.0).reshape(10, 2)
        out["words"] = ["a", "b"]
        out.create_group("folder")
    return path


def test_read_array_rows(file):
    np.testing.assert_array_equal(series.read_array(file, "line", 4), np.arange(4.0)[:, None])
    table = series.read_array(file, "table", 10, columns=2)
    np.testing.assert_array_equal(table, np.arange(20.0).reshape(10, 2))
    # A bad sample beyond the length asked for is none.
    assert series.read_array(file, "nan", 3).shape == (3, 2)


def test_read_array_of_numpy_files(tmp_path):
    table = np.arange(20.0).reshape(10, 2)
    np.save(tmp_path / "a.npy", table)
    np.savez(tmp_path / "a.npz", targets=table, line=table[:, 0])
    for name in ("a.npy", "a.npz"):
        found = series.read_array(tmp_path / name, "targets", 4, columns=2)
        np.testing.assert_array_equal(found, table[:4])
    assert series.read_array(tmp_path / "a.npz", "line", 3).shape == (3, 1)
    with refused(ValueError):
        series.read_array(tmp_path / "a.npz", "x", 3)
    with refused(ValueError):
        series.read_array(tmp_path / "a.npy", "targets", 11)
    with refused(ValueError):
        series.read_array(tmp_path / "none.npy", "targets", 3)


@pytest.mark.parametrize(
    ("dataset", "length", "columns"),
    [
        ("missing", 5, None),
        ("folder", 5, None),
        ("cube", 2, None),
        ("empty", 5, 2),
        ("words", 2, None),
        ("table", 5, 3),
        ("line", 5, 3),
        ("table", 11, 2),
        ("nan", 10, 2),
    ],
)
def test_read_array_bad_input(file, dataset, length, columns):
    with refused(ValueError) as caught:
        series.read_array(file, dataset, length, columns)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("content", [None, b"no HDF5"])
def test_read_array_bad_file(tmp_path, content):
    path = tmp_path / "x.h5"
    if content:
        path.write_bytes(content)
    with refused(ValueError):
        series.read_array(path, "line", 1)
