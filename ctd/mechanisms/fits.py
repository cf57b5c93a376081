"""Recordings of a stage and the models that were fitted to them, read and matched."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from pydantic import Field

from ctd.cells import CellName, cells_with
from ctd.containers import opened_hdf5, read_dataset, read_datasets, text_attribute
from ctd.data import dataset_of
from ctd.kernel import File, Params, Static, Traced, View
from ctd.late import Array, Float, on_host
from ctd.mechanisms.atlas import check_settings, read_atlas
from ctd.mechanisms.features import TRIALS
from ctd.rows import Columns

NOT_SETTINGS = {"data", "seed", "store", "item", "kernel", "address"}
"""Attributes of a fit's file in which fits of one atlas differ."""


class Evidence(Params):
    """The parameters of one recording's evidence."""

    recordings: File[tuple[str, ...]] = ()
    """the recordings: {stage: ..., part: recording} of a mechanisms stage"""
    weights: File[tuple[str, ...]] = ()
    """models that were fitted to them: {stage: ...} of a reconstruct or lfads stage"""
    states: File[tuple[str, ...]] = ()
    """states of lfads' generators: {stage: ..., part: states}; states of reconstruct's fits are the recordings' factors"""
    cell: Static[CellName] = "shplrnn:clipped"
    """only models of this cell are read; models of lfads: gru or node"""
    atlas: File[str | None] = None
    """table of an atlas, {store: ..., part: table}, by which these recordings are placed; without it, they make an atlas themselves"""
    recording: Traced[int] = Field(0, ge=0, lt=2**24)
    """number of the recording; items beyond the last recording are empty"""


class Shared(NamedTuple):
    """All recordings with their fits."""

    x: Float[Array, "recording fit trial time state"]
    """States of the trials; one `fit` for all where these are the recording's factors."""
    weights: Mapping[str, Array]
    """Name -> (recording, fit, ...), zeros where a recording has fewer fits than others."""
    fitted: Float[Array, "recording fit"]
    """1 where there is a fit, else 0."""
    about: Columns
    """Facts about each recording, (recording, ...), for the reduction."""
    digest: np.ndarray
    """() int, of the settings of the fits: an atlas and what it places need the same."""
    n_factors: np.ndarray
    """() int, factors of a recording."""


def load(inputs: View[Evidence]) -> Shared:
    """Read recordings and fits. Raises ValueError, naming the field and file."""
    if not inputs.recordings or not inputs.weights:
        missing = "weights" if inputs.recordings else "recordings"
        raise ValueError(f"{missing}: none given; name a stage, as {{stage: ...}} of a pipeline")
    read = [_recording(path) for path in inputs.recordings]
    recordings = [arrays for _, arrays in read]
    # STORE::ITEM names a recording in its own file and in the attribute `data` of its fits.
    number = {place: k for k, (place, _) in enumerate(read)}
    n_factors = recordings[0]["factors"].shape[2]
    weights, states, settings = _matched(inputs, number, n_factors)
    # Not hash(), which differs from process to process.
    digest = np.asarray(zlib.crc32(settings.encode()), np.int64)
    # The states of reconstruct's fits are the factors.
    xs = states if any(states) else [[recording["factors"]] for recording in recordings]
    # Trials are stacked: all recordings have those of the shortest, and `read` takes TRIALS at most.
    n_trials = min(TRIALS, *(len(x) for fit_states in xs for x in fit_states))
    if inputs.atlas is not None:
        n_trials = min(n_trials, _trials_of_atlas(inputs.atlas, digest, recordings))
    stacked, fitted = _stacked(weights)
    x = _stacked([[{"x": x[:n_trials]} for x in fit_states] for fit_states in xs])[0]["x"]
    names = ["plain", "mechanism", "n_neurons", "n_trials", "mean_count", "noise", "smoothing", "member", "item"]  # fmt: skip
    if all("truth" in recording for recording in recordings):  # a recording of one's own has none
        names.append("truth")
    about = {name: np.asarray([recording[name] for recording in recordings]) for name in names}
    cast = lambda value: on_host(value, inputs.dtype)
    typed = {name: cast(value) for name, value in stacked.items()}
    return Shared(cast(x), typed, cast(fitted), about, digest, np.asarray(n_factors))


def _recording(path: str) -> tuple[str, dict[str, np.ndarray]]:
    """(its place STORE::ITEM, its arrays)."""
    with opened_hdf5(path) as file:
        arrays = read_datasets(path, file)
        if "factors" not in arrays or "item" not in file.attrs:
            raise ValueError(
                f"recordings: {path}: is no recording of a mechanisms stage; give {{stage: ..., part: recording}}"
            )
        item, member = int(file.attrs["item"]), int(file.attrs.get("seed", 0))
        settings = {name: float(file.attrs.get(name, np.nan)) for name in ("smoothing", "noise")}
        place = _place(text_attribute(file, "store"), item)
    attributes = {"item": item, "member": member, **settings}
    return place, arrays | {name: np.asarray(v) for name, v in attributes.items()}


def _place(store: str | None, item: Any) -> str:
    """STORE::ITEM, with the store's name alone: recordings and fits may have been read by different paths."""
    return f"{(store or '').rstrip('/').rpartition('/')[2]}::{int(item)}"


def _trials_of_atlas(path: str, digest: np.ndarray, recordings: list[dict[str, np.ndarray]]) -> int:
    """The number of trials that the atlas read of each recording. Raises ValueError unless its fits and factors were made as these."""
    atlas = read_atlas(path)
    if int(atlas["digest"]) != int(digest):
        raise ValueError(
            f"atlas: {path}: its fits have other settings than these; give the fits of both files the same params"
        )
    for recording in recordings:
        _, n_bins, n_factors = recording["factors"].shape
        mine = {
            "n_bins": n_bins,
            "n_factors": n_factors,
            "smoothing": float(recording["smoothing"]),
        }
        check_settings(path, atlas, mine)
    return int(atlas.get("trials_read", TRIALS))  # an earlier ctd did not keep it


type Weights = dict[str, np.ndarray]
"""Name -> array, of one fit."""


def _matched(
    inputs: View[Evidence], number: Mapping[str, int], n_factors: int
) -> tuple[list[list[Weights]], list[list[np.ndarray]], str]:
    """(weights of the fits of each recording, own states (trial, time, state) of these, the settings of all fits as a text).

    Fits without own states have the recording's factors. number: STORE::ITEM -> the recording's.
    """
    fitted: list[list[Weights]] = [[] for _ in inputs.recordings]
    states: list[list[np.ndarray]] = [[] for _ in inputs.recordings]
    settings = set()
    states_of = dict(map(_own_states, inputs.states))
    for path in inputs.weights:
        place, about, weights = _fit(path)
        # A stage may fit several cells; a model of lfads names none.
        cells = [about["cell"]] if "cell" in about else cells_with(weights)
        if inputs.cell not in cells:
            continue
        if place not in number:
            raise ValueError(f"weights: {path}: fitted to {place}, which is none of `recordings`")
        own_place = _place(str(about.get("store")), about.get("item", -1))
        if not states_of:
            _check_factors(path, about, n_factors)
        elif own_place not in states_of:
            raise ValueError(
                f"states: none of {own_place}; give `weights` and `states` by the same stage and condition"
            )
        fit_settings = {
            name: str(value) for name, value in about.items() if name not in NOT_SETTINGS
        }
        settings.add(str(sorted(fit_settings.items())))
        fitted[number[place]].append(weights)
        if states_of:
            states[number[place]].append(states_of[own_place])
    # Fits of other settings, such as fewer training steps, would differ by these and not by their recordings.
    if len(settings) != 1:
        models = "none" if not settings else f"models of {len(settings)} different settings"
        raise ValueError(f"weights: {models} of cell {inputs.cell} given; one setting expected")
    return fitted, states, settings.pop()


def _check_factors(path: str, about: Mapping[str, Any], n_factors: int) -> None:
    """Raise ValueError unless the states of a fit are the factors of its recording: maps are read at these."""
    if "cell" not in about:
        raise ValueError(
            f"weights: {path}: a model of lfads has states of its own; give `states`, {{stage: ..., part: states}} of its stage"
        )
    needed = {"standardise": False, "observation": "identity", "n": n_factors}
    for name, value in needed.items():
        if about.get(name, value) != value:
            raise ValueError(
                f"weights: {path}: fitted with {name}: {str(about[name]).lower()}, so that its states are not the {n_factors} "
                f"factors; fit with {name}: {str(value).lower()}"
            )


def _own_states(path: str) -> tuple[str, np.ndarray]:
    """(the place STORE::ITEM of an lfads model, its states (trial, time, state))."""
    with opened_hdf5(path) as file:
        dataset_of(f"states: {path}", file, "states")
        # Only the states are read: there may be a thousand files, each with fifty arrays.
        states = read_dataset(path, file, "states")
        return _place(text_attribute(file, "store"), file.attrs.get("item", -1)), states


def _fit(path: str) -> tuple[str, dict[str, Any], Weights]:
    """(the recording STORE::ITEM that a model was fitted to, the attributes of its file, weights)."""
    with opened_hdf5(path) as file:
        weights = read_datasets(path, file)
        about = dict(file.attrs)
    data = about.get("data")
    if not isinstance(data, str) or "::" not in data:
        raise ValueError(
            f"weights: {path}: is no fit of a recording of a stage; give {{stage: ...}} of a reconstruct stage whose data "
            "are {stage: ..., part: recording}, or of an lfads stage whose data are {stage: ..., part: results}"
        )
    store, item, *_ = data.split("::")
    return _place(store, item), about, weights


def _stacked(fits: list[list[Weights]]) -> tuple[Weights, np.ndarray]:
    """(name -> (recording, fit, ...) of zeros where a recording has fewer fits than others; (recording, fit) 1 where there is one)."""
    most = max(map(len, fits))
    has_fit = np.asarray(
        [[float(k < len(recording_fits)) for k in range(most)] for recording_fits in fits]
    )
    first = next(weights for recording_fits in fits for weights in recording_fits)
    blank = {name: np.zeros_like(value) for name, value in first.items()}
    full = [[*recording_fits, *[blank] * (most - len(recording_fits))] for recording_fits in fits]
    return {
        name: np.asarray([[w[name] for w in recording_fits] for recording_fits in full])
        for name in first
    }, has_fit
