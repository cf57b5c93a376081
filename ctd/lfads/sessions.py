"""Sessions: several recordings, each with its own units and trials, that share one generator (Pandarinath et al. 2018).

    session s: data x_t (unit of s) -> A_s x_t + a_s -> encoder ... factors f_t -> V_s f_t + b_s -> rates (unit of s)

One array holds the trials of all sessions, so that minibatches mix sessions. Units are padded to the most that a session has,
and a mask keeps padding out of the likelihood. `ctd.lfads.readins` has A_s, a_s, V_s and b_s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ctd.kernel import View
from ctd.lfads.alignment import align
from ctd.lfads.chop import Recordings
from ctd.lfads.data import Dataset, Stitched, Trials, make_dataset, read
from ctd.lfads.params import Model, by_file, files_of
from ctd.lfads.trained import read_core

PADDING = 1
"""The value of padded units: every likelihood has a finite density at 1, and 0 x infinity would survive the mask."""


def load(inputs: View[Model]) -> Dataset:
    """Read and check the data of a model: one file or several sessions, and the core. Raises ValueError, naming file and dataset.

    >>> for name, units in ("monday", 4), ("tuesday", 6):
    ...     counts = np.random.default_rng(0).poisson(1.0, (10, 8, units))
    ...     np.savez(f"{name}.npz", train=counts[:8], eval=counts[8:])
    >>> dataset = load(Model(data=("monday.npz", "tuesday.npz")))
    >>> dataset.train.data.shape, dataset.stitched.real.sum(axis=1).tolist()  # padded; units of each session
    ((16, 8, 6), [4, 6])
    """
    files = inputs.data
    if files is None:
        raise ValueError(
            "data: the file of the trials is needed: HDF5 with (trial, time, unit) datasets train and eval, or "
            "train_encod_data, train_recon_data, valid_encod_data and valid_recon_data; .npy of (trial, time, unit), or "
            ".npz with an array for each trial; or NWB; or a list of files, one for each session"
        )
    if isinstance(files, str) and inputs.core_model is None:
        dataset = make_dataset(read(files, inputs), inputs, files)
    else:
        dataset = stitch(files_of(files), inputs)
    return dataset if inputs.core is None else read_core(inputs, dataset)


def stitch(files: Sequence[str], inputs: View[Model]) -> Dataset:
    """Join the sessions of these files to one dataset, in the order of the files. Raises ValueError, naming file and dataset."""
    arrays = [read(file, inputs) for file in files]
    held_out = by_file(inputs.held_out_units, len(files))
    sessions = [
        make_dataset(array, inputs, file, held_out=units)
        for array, file, units in zip(arrays, files, held_out, strict=True)
    ]
    _check_alike(files, arrays, sessions)
    n_units = np.array([s.train.data.shape[2] for s in sessions], np.int32)
    widest = int(n_units.max())
    real = np.arange(widest) < n_units[:, None]
    is_seen = np.zeros_like(real)
    for k, session in enumerate(sessions):
        is_seen[k, session.seen_units] = True
    # (moment, unit) the first bias of a session's readout; 0 for padded units.
    padded = lambda bias, n: np.pad(bias.reshape(-1, n), ((0, 0), (0, widest - n)))
    # The longest table serves all sessions.
    tables = [s.log_factorial for s in sessions if s.log_factorial is not None]
    stitched = Stitched(
        tuple(session._replace(windows=None) for session in sessions),
        real,
        is_seen,
        align(files, arrays, sessions, inputs),
    )
    return Dataset(
        train=_mixed([s.train for s in sessions], widest),
        evaluation=_mixed([s.evaluation for s in sessions], widest),
        # All units of the padded arrays: the mask `is_seen` marks the units that the encoder sees in each session.
        seen_units=np.arange(widest),
        held_units=np.arange(0),
        seen_bins=sessions[0].seen_bins,
        bias=np.stack([padded(s.bias, n) for s, n in zip(sessions, n_units, strict=True)]),
        log_factorial=max(tables, key=len) if tables else None,
        stitched=stitched,
        unused={name: None for session in sessions for name in session.unused},
    )  # fmt: skip


def _check_alike(
    files: Sequence[str], arrays: Sequence[Mapping[str, Recordings]], sessions: Sequence[Dataset]
) -> None:
    """Check that the sessions agree in bins, in the width of a bin and in external inputs, which they share."""
    first = sessions[0].train
    widths = [_bin_width(file, a) for file, a in zip(files, arrays, strict=True)]
    for file, session, width in zip(files, sessions, widths, strict=True):
        if session.train.encoded is not None:
            raise ValueError(
                f"{file}: train_encod_data is no part of train_recon_data; with several sessions it must hold the first bins of the "
                "first units of it, unchanged"
            )
        for quantity, has, expected, hint in (
            ("bin_s", width, widths[0], "bin them alike"),
            ("train: time bins", session.train.data.shape[1], first.data.shape[1],
             "cut trials of one length, or `chop` them"),
            ("train: bins that the encoder sees", len(session.seen_bins), len(sessions[0].seen_bins), "hold out alike"),
            ("train_external: inputs", session.train.n_external, first.n_external, "give all sessions the same"),
        ):  # fmt: skip
            if has != expected:
                raise ValueError(
                    f"{file}: {quantity}: {has}, but {files[0]} has {expected}; sessions share the generator: {hint}"
                )


def _bin_width(file: str, arrays: Mapping[str, Recordings]) -> float | None:
    """The file's dataset bin_s, the width of a bin (s); None if it has none."""
    if "bin_s" not in arrays:
        return None
    width = np.asarray(arrays["bin_s"])
    if width.size != 1 or not width.item() > 0:
        raise ValueError(f"{file}: bin_s has the shape {width.shape}; one number above 0 expected")
    return float(width.item())


def _mixed(parts: Sequence[Trials], n_units: int) -> Trials:
    """The trials of all sessions, one session after another, with padded units."""
    # Sessions with small counts are uint8, others int32.
    dtype = np.result_type(*(part.data.dtype for part in parts))
    pad = lambda data: np.pad(
        data.astype(dtype), ((0, 0), (0, 0), (0, n_units - data.shape[2])), constant_values=PADDING
    )
    external = [part.external for part in parts if part.external is not None]
    return Trials(
        data=np.concatenate([pad(part.data) for part in parts]),
        external=np.concatenate(external) if external else None,
        session=np.repeat(np.arange(len(parts), dtype=np.int32), [len(p.data) for p in parts]),
    )
