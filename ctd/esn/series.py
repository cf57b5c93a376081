"""Target series: what a network learns to produce, or to compute from its inputs.

Generators run on the host in float64, and are pure functions: the same seed gives the same series.
`mackey_glass`, `lorenz` and `narma10` discard their transient; `chaotic_network` does not.

>>> lorenz(4, dt=0.02, seed=1).shape
(4, 3)
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from ctd.containers import check_numbers, checked_dataset, opened_hdf5
from ctd.data import read_arrays
from ctd.esn.params import OfSeries
from ctd.kernel import View
from ctd.late import Array, Float, on_host
from ctd.words import count, did_you_mean


class Series(NamedTuple):
    """Inputs and targets of a network, one row for each sample."""

    inputs: Float[Array, "time input"]
    """No columns if nothing drives the network."""
    targets: Float[Array, "time output"]
    dt: Float[Array, ""]
    """Sampling interval."""
    variance: Float[Array, ""]
    """Variance of the targets over time, averaged over outputs; NRMSE = sqrt(mean squared error / variance)."""


def load_series(inputs: View[OfSeries], length: int) -> Series:
    """Make or read the first samples of the target that a job names.

    Args:
        inputs: the fields of an `OfSeries`.
        length: number of samples.

    Returns:
        Inputs and targets, the length of a step, and the variance of the targets.

    Raises:
        ValueError: the parameters give no series, the targets are constant, or the file cannot be read.
    """
    m, dt, seed = inputs.m, inputs.dt, inputs.target_seed
    drive = np.zeros((length, 0))
    if inputs.target in ("chaotic", "chaotic-feedback"):
        feedback = inputs.target == "chaotic-feedback"
        targets = chaotic_network(length, m, dt, seed=seed, feedback=feedback)
    elif inputs.target == "lorenz":
        targets = lorenz(length, dt, seed=seed)
    elif inputs.target == "narma10":
        drive, targets = narma10(length, seed=seed)
    elif inputs.target == "sines":
        targets = sines(length, m, dt, seed=seed)
    elif inputs.target == "file":
        assert inputs.path is not None, "OfSeries demands it"
        targets = read_array(inputs.path, inputs.dataset, length, m)
        if inputs.input_dataset is not None:
            drive = read_array(inputs.path, inputs.input_dataset, length)
    else:
        delay = float(inputs.target.removeprefix("mackey-glass-"))
        targets = mackey_glass(length, delay, dt, seed=seed)
    # NRMSE divides by their variance, which rounding of the mean may make more than 0 for a constant.
    if not np.ptp(targets, axis=0).any():
        raise ValueError(
            "target: all samples are equal, so that the error relative to their variance is undefined; give a series that varies"
        )
    variance = targets.var(axis=0).mean()
    return Series(on_host(drive), on_host(targets), on_host(dt, float), on_host(variance))


CHAOTIC_UNITS = 500
"""Units of the network that makes a chaotic target."""


def chaotic_network(
    length: int, m: int, dt: float = 0.1, *, seed: int = 0, g: float = 1.8, feedback: bool = False
) -> np.ndarray:
    """The first m of n = 500 rates tanh(a) of a random network, da/dt = -a + W tanh(a), W_ij ~ N(0, g^2/n).

    Above g = 1 a large network is chaotic (Sompolinsky, Crisanti & Sommers 1988, Phys Rev Lett 61:259).
    Euler steps of dt in units of the time constant; no transient is discarded.

    With `feedback`, m random readouts are fed back, W + W_F W_O with (W_O)_ij ~ N(0, 1/n) and
    (W_F)_ij ~ N(0, 1). This adds the variance m/n to the entries, which at m = 20 is six times g^2/n, and
    the rates saturate. The unrolled version of the FORCE notebook of computation-thru-dynamics learns this
    target. The notebook's second version, a fori_loop, reads its output before writing it, so that nothing
    is fed back.

    >>> chaotic_network(3, 2, dt=0.1).shape
    (3, 2)

    Args:
        length: number of samples.
        m: number of rates.
        dt: step, in units of the time constant.
        seed: seed of weights and first state.
        g: standard deviation of the weights, times sqrt(n).
        feedback: True if random readouts are fed back.

    Returns:
        (length, m), each within [-1, 1].

    Raises:
        ValueError: m is above 500.
    """
    n = CHAOTIC_UNITS
    if m > n:
        raise ValueError(
            f"m: {count(m, 'output')} given, but the chaotic network has {n} units; give at most {n}"
        )
    rng = np.random.default_rng(seed)
    a = 0.25 * rng.standard_normal(n)
    w = g / np.sqrt(n) * rng.standard_normal((n, n))
    if feedback:
        w += rng.standard_normal((n, m)) @ rng.standard_normal((m, n)) / np.sqrt(n)
    rates = np.empty((length, m))
    for t in range(length):
        a = a + dt * (w @ np.tanh(a) - a)
        rates[t] = np.tanh(a[:m])
    return rates


def mackey_glass(length: int, delay: float = 17.0, dt: float = 1.0, *, seed: int = 0) -> np.ndarray:
    """tanh(x - 1) of dx/dt = 0.2 x(t - delay) / (1 + x(t - delay)^10) - 0.1 x(t), sampled every dt.

    Mackey & Glass 1977 (Science 197:287); chaotic from a delay of about 16.8. Runge-Kutta steps of dt / max(1, round(dt / 0.1)),
    with a cubic for the delayed value at half a step. The history is 1.2 with small noise drawn from the seed, and the first
    2,000 time units are discarded. The tanh is that of Jaeger & Haas 2004 (Science 304:78).

    >>> x = mackey_glass(100, delay=17)
    >>> x.shape, bool(abs(x).max() < 1)
    ((100, 1), True)

    Args:
        length: number of samples.
        delay: in the time units of the equation.
        dt: time between two samples, in the same units.
        seed: seed of the history.

    Returns:
        (length, 1) array.

    Raises:
        ValueError: the delay is not a multiple of the integration step.
    """
    per_sample = max(1, round(dt / 0.1))
    step = dt / per_sample
    lag = round(delay / step)
    if abs(lag * step - delay) > 1e-9 * delay:
        raise ValueError(
            f"dt: {dt} given, but the delay {delay} is not a multiple of the integration step {step}; "
            "give a dt that divides it"
        )
    skip = int(np.ceil(2000 / dt))
    n_steps = per_sample * (skip + length)
    # Plain floats: ten times faster than array elements in this loop.
    x = (1.2 + 0.1 * np.random.default_rng(seed).uniform(-1, 1, lag + 1)).tolist()
    production = lambda past: 0.2 * past / (1 + past**10)
    for i in range(lag, lag + n_steps):
        early, late = x[i - lag], x[i - lag + 1]
        # Runge-Kutta needs the delayed value at half a step. A cubic through the four samples around it
        # keeps the fourth order; linear interpolation would reduce it to second order.
        before = x[i - lag - 1] if i > lag else early
        middle = (9 * (early + late) - before - x[i - lag + 2]) / 16
        k1 = production(early) - 0.1 * x[i]
        half = production(middle)
        k2 = half - 0.1 * (x[i] + step / 2 * k1)
        k3 = half - 0.1 * (x[i] + step / 2 * k2)
        k4 = production(late) - 0.1 * (x[i] + step * k3)
        x.append(x[i] + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4))
    sampled = np.array(x[lag + per_sample * skip :: per_sample][:length])
    return np.tanh(sampled - 1)[:, None]


def lorenz(length: int, dt: float = 0.02, *, seed: int = 0) -> np.ndarray:
    """x, y, z of the Lorenz system at sigma = 10, rho = 28, beta = 8/3, each with mean 0, variance 1.

    Lorenz 1963 (J Atmos Sci 20:130). Runge-Kutta steps of at most 0.01; the first 50 time units are
    discarded. Mean and variance are those of the attractor, not of this sample.

    >>> x = lorenz(1000, dt=0.1)
    >>> x.shape, bool(abs(x).max() < 4)
    ((1000, 3), True)

    Args:
        length: number of samples.
        dt: time between two samples, in the time units of the system.
        seed: seed of the start.

    Returns:
        (length, 3) array.
    """
    # Less 1e-9, since 0.03 / 0.01 is above 3 by rounding.
    per_sample = max(1, int(np.ceil(dt / 0.01 - 1e-9)))
    step = dt / per_sample

    def field(x: float, y: float, z: float) -> tuple[float, float, float]:
        return 10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z

    x, y, z = (np.array([1.0, 1.0, 25.0]) + np.random.default_rng(seed).uniform(-1, 1, 3)).tolist()
    skip = int(np.ceil(50 / dt))
    samples = []
    for _ in range(skip + length):
        for _ in range(per_sample):
            a1, b1, c1 = field(x, y, z)
            a2, b2, c2 = field(x + step / 2 * a1, y + step / 2 * b1, z + step / 2 * c1)
            a3, b3, c3 = field(x + step / 2 * a2, y + step / 2 * b2, z + step / 2 * c2)
            a4, b4, c4 = field(x + step * a3, y + step * b3, z + step * c3)
            x += step / 6 * (a1 + 2 * a2 + 2 * a3 + a4)
            y += step / 6 * (b1 + 2 * b2 + 2 * b3 + b4)
            z += step / 6 * (c1 + 2 * c2 + 2 * c3 + c4)
        samples.append((x, y, z))
    # Time averages over 10^5 time units of the attractor: those of a sample would differ from seed to seed.
    mean, deviation = np.array([0.0, 0.0, 23.55]), np.array([7.92, 9.01, 8.62])
    return (np.array(samples[skip:]) - mean) / deviation


def narma10(length: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The tenth-order moving average y(t+1) = .3 y + .05 y sum_{i<10} y(t-i) + 1.5 u(t-9) u(t) + .1.

    Atiya & Parlos 2000 (IEEE Trans Neural Netw 11:697), eq. 86; u ~ U[0, 0.5]. One series in some
    thousands explodes; it is rejected and drawn again.

    >>> u, y = narma10(200, seed=3)
    >>> u.shape, y.shape, bool(y.max() < 2)
    ((200, 1), (200, 1), True)

    Args:
        length: number of samples.
        seed: seed of the inputs.

    Returns:
        (inputs, targets), each (length, 1); targets[t] depends on inputs[t] and earlier ones.
    """
    rng = np.random.default_rng(seed)
    skip = 100
    while True:
        u = rng.uniform(0, 0.5, skip + length)
        y = np.zeros(skip + length + 1)
        for t in range(9, skip + length):
            y[t + 1] = (
                0.3 * y[t] + 0.05 * y[t] * y[t - 9 : t + 1].sum() + 1.5 * u[t - 9] * u[t] + 0.1
            )
            # A series that exceeds 2 never returns: the sum over the last ten values feeds itself.
            if not y[t + 1] < 2:
                break
        else:
            return u[skip:, None], y[skip + 1 :, None]


def sines(
    length: int, m: int, dt: float = 0.1, *, seed: int = 0, period: float = 60.0
) -> np.ndarray:
    """Make m sums of the first four harmonics of one period, with random amplitudes and phases and variance 1/2.

    Periodic targets like those of Sussillo & Abbott 2009 (Neuron 63:544), figure 2.

    >>> x = sines(601, 2, dt=0.1, period=60)
    >>> bool(np.allclose(x[0], x[600]))
    True

    Args:
        length: number of samples.
        m: number of sums.
        dt: time between two samples.
        seed: seed of amplitudes and phases.
        period: in the unit of dt.

    Returns:
        (length, m) array.
    """
    rng = np.random.default_rng(seed)
    amplitude = rng.uniform(0.2, 1, (4, m))
    # A sine of amplitude a has variance a^2 / 2, and harmonics are uncorrelated.
    amplitude /= np.sqrt(np.sum(amplitude**2, axis=0))
    phase = rng.uniform(0, 2 * np.pi, (4, m))
    angle = 2 * np.pi / period * dt * np.arange(length)[:, None, None] * np.arange(1, 5)[:, None]
    return np.asarray(np.sum(amplitude * np.sin(angle + phase), axis=1))


def read_array(
    path: str | Path, dataset: str, length: int, columns: int | None = None
) -> np.ndarray:
    """Read the first rows of a (time, column) dataset of an HDF5 or .npz file, or of a .npy file; (time,) is one column.

    Args:
        path: the file.
        dataset: name of the dataset.
        length: number of rows.
        columns: the number of columns that the dataset must have; None: any.

    Returns:
        (length, column) float64.

    Raises:
        ValueError: the dataset is missing, has another shape or number of columns, is shorter, or holds NaN or infinity; the text
            names file and dataset.
    """
    source, suffix = f"{path}: dataset {dataset!r}", Path(path).suffix
    is_numpy = suffix in (".npy", ".npz")
    # An HDF5 file is read no further than needed.
    file_context: Any = nullcontext(read_arrays(path, dataset)) if is_numpy else opened_hdf5(path)
    with file_context as file:
        array = file.get(dataset)
        if not isinstance(array, np.ndarray | h5py.Dataset):
            near = did_you_mean(dataset, file) or f"; the file has {', '.join(sorted(file))}"
            raise ValueError(f"{source} is missing{near}")
        if suffix == ".npy":  # its only array has no name
            source = str(path)
        if not is_numpy:
            checked_dataset(path, file, dataset)
        if array.dtype.kind not in "iuf":
            raise ValueError(f"{source} has the type {array.dtype}; expected real numbers")
        if array.ndim not in (1, 2):
            raise ValueError(f"{source} has shape {array.shape}; expected (time, column)")
        available, values = len(array), np.asarray(array[:length], float)
    if values.ndim == 1:
        values = values[:, None]
    if columns is not None and values.shape[1] != columns:
        raise ValueError(
            f"{source} has {count(values.shape[1], 'column')}; expected {columns}, the field m"
        )
    if available < length:
        raise ValueError(
            f"{source} has {available} samples, but washout, train, validation and test need {length}; "
            "shorten them"
        )
    check_numbers(source, values)
    return values
