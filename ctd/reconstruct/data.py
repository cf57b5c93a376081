"""The recordings that networks are fitted to, and those that they are measured on."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np

from ctd.data import read_recordings
from ctd.kernel import View
from ctd.late import Array, Float, on_host
from ctd.reconstruct.measures import peak
from ctd.reconstruct.params import Reconstruction
from ctd.words import count

RHYTHM, PERIODS = 0.3, 4
"""Share of the power in the peak of the spectrum, and periods recorded, from which on a recording has a rhythm."""


class Recordings(NamedTuple):
    """Recordings of equal length."""

    x: Float[Array, "recording time channel"]
    inputs: Float[Array, "recording time input"]
    """0 inputs where there are none."""


class Shared(NamedTuple):
    """Data that all fits of a group share."""

    fitted: Recordings
    measured: Recordings
    dt: Float[Array, ""]


def load(inputs: View[Reconstruction]) -> Shared:
    """Read, check and standardise the recordings. Raises ValueError, naming file and dataset."""
    if inputs.data is None:
        raise ValueError("data: a file of recordings (time, channel) is needed; give its path")
    fitted = _read(inputs, inputs.data)
    measured = fitted if inputs.test is None else _read(inputs, inputs.test)
    measured_shape, expected = ((r.x.shape[2], r.inputs.shape[2]) for r in (measured, fitted))
    if measured_shape != expected:
        raise ValueError(
            f"test: {inputs.test}: (channels, inputs) are {measured_shape}, but those of {inputs.data} {expected}"
        )
    _check(inputs, fitted, measured)
    # The recordings to measure on are scaled as those that are fitted, so that both lie in one state space.
    mean, sd = np.zeros(expected[0]), np.ones(expected[0])
    if inputs.standardise:
        mean, sd = np.mean(fitted.x, (0, 1)), np.std(fitted.x, (0, 1))
    as_type = lambda value: on_host(value, inputs.dtype)
    scaled = lambda r: Recordings(as_type((r.x - mean) / sd), as_type(r.inputs))
    _warn_of_smoothing(inputs, np.asarray((measured.x - mean) / sd))
    return Shared(scaled(fitted), scaled(measured), as_type(inputs.dt))


def _warn_of_smoothing(inputs: View[Reconstruction], x: np.ndarray) -> None:
    """Warn if D_H does not see the rhythm of the recordings: smoothing makes their spectrum flat, or hides its peak."""
    samples = x.shape[1]
    if samples // 2 < 2 * inputs.smoothing:
        warnings.warn(
            f"recordings of {samples} samples have {samples // 2} frequencies, which smoothing: {inputs.smoothing:g} "
            f"makes alike: d_h says little; compare peak_frequency, or give smoothing: {max(1, samples // 16)}",
            stacklevel=2,
        )
        return
    frequency, share = peak(x, np)
    at = frequency * samples
    if share > RHYTHM and PERIODS <= at < 2 * inputs.smoothing:
        warnings.warn(
            f"{inputs.test or inputs.data}: the spectrum's peak is at frequency {at:.0f} of the FFT, where smoothing: "
            f"{inputs.smoothing:g} hides it from d_h: compare peak_frequency, or give smoothing: {max(1, at // 4):.0f}",
            stacklevel=2,
        )


def _read(inputs: View[Reconstruction], path: str) -> Recordings:
    names = [name for name in (inputs.dataset, inputs.input_dataset) if name is not None]
    datasets = read_recordings(path, names)
    x = datasets[inputs.dataset]
    # Without inputs the last axis has length 0.
    s = x[..., :0] if inputs.input_dataset is None else datasets[inputs.input_dataset]
    return Recordings(on_host(x), on_host(s))


def _check(inputs: View[Reconstruction], fitted: Recordings, measured: Recordings) -> None:
    """Raise ValueError if the recordings do not fit the parameters."""
    channels, samples = fitted.x.shape[2], fitted.x.shape[1]
    source, too_many = f"{inputs.data}: {inputs.dataset}", channels > inputs.n
    if samples == 1:
        raise ValueError(
            f"{source} has one sample; a recording of at least {max(inputs.length + 1, inputs.ahead + 2)} samples is needed"
        )
    if channels > samples and (too_many or samples < inputs.length + 1):
        raise ValueError(
            f"{source} has {count(samples, 'sample')} of {count(channels, 'channel')}; (time, channel) expected: is it (channel, time)?"
        )
    if inputs.observation == "identity" and too_many:
        raise ValueError(
            f"n: {inputs.n} units given, but {inputs.data} has {count(channels, 'channel')}, each of which observation identity "
            f"takes for a unit; give n: {channels} or more, or observation: affine"
        )
    if samples < inputs.length + 1:  # a sequence has one sample to begin from
        raise ValueError(
            f"length: {inputs.length} steps given, but the recordings in {inputs.data} have {samples} samples; give at "
            f"most {samples - 1}"
        )
    if measured.x.shape[1] <= inputs.ahead + 1:
        raise ValueError(
            f"ahead: {inputs.ahead} given, but the recordings to measure on have {measured.x.shape[1]} samples; give less"
        )
    # `load` divides a channel by its deviation, which must not be 0.
    constant = np.flatnonzero(np.ptp(fitted.x, axis=(0, 1)) == 0)
    if inputs.standardise and constant.size:
        raise ValueError(
            f"{source}: channel {constant[0]} never changes; leave it out, or give standardise: false"
        )
