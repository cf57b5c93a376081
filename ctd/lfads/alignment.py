"""First read-ins and readouts of sessions, by principal-component regression on condition averages.

    X_s = the training data of session s, averaged over the trials of each condition: (condition time, unit)
    Z   = the first principal components of all sessions side by side, with sd 1
    A_s = argmin |X_s A' - Z|^2 + ridge |A|^2        V_s = X_s' Z / (condition time), over the mean rate for log rates

So one factor means the same in all sessions from the first step on (Pandarinath et al. 2018, Nat Methods 15:805,
methods). One scale for all read-ins brings every factor to at most sd 1 over single trials. Conditions have the same numbers in
all sessions; conditions that some session lacks are left out. The ridge, 1 % of the mean variance of a unit, keeps the noise
of trial averages out of the weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ctd.kernel import View
from ctd.lfads.chop import Recordings
from ctd.lfads.data import Alignment, Dataset
from ctd.lfads.params import Model

CONDITION = "train_condition"
RIDGE = 1e-2


def align(
    files: Sequence[str],
    arrays: Sequence[Mapping[str, Recordings]],
    sessions: Sequence[Dataset],
    inputs: View[Model],
) -> Alignment | None:
    """Find the first read-ins and readouts of the sessions; None if no file has conditions, or recordings were chopped.

    arrays: the datasets of the files, of which train_condition is read. Raises ValueError, naming file and dataset, where some
    files lack conditions, no condition is in all sessions, or there are fewer components than factors.
    """
    if inputs.chop is not None or not any(CONDITION in a for a in arrays):
        return None
    data = [session.train.data for session in sessions]
    labels, shared = _conditions(files, arrays)
    # (condition time, unit) the averages of the trials of each condition.
    average = lambda d, trial_labels: np.concatenate(
        [d[trial_labels == label].mean(0, dtype=float) for label in shared]
    )
    averages = [average(d, trial_labels) for d, trial_labels in zip(data, labels, strict=True)]
    for file, mean, session in zip(files, averages, sessions, strict=True):
        if not np.ptp(mean[:, session.seen_units], axis=0).any():
            raise ValueError(
                f"{file}: train: its averages over the trials of a condition never vary; leave this session out, or "
                f"{CONDITION} out of all files"
            )
    components = _components(np.concatenate(averages, axis=1), inputs.n_factors)
    if components is None:
        raise ValueError(
            f"n_factors: {inputs.n_factors} components of condition averages are needed, but {len(shared)} conditions "
            f"of {len(files)} sessions have fewer; give fewer factors, or leave {CONDITION} out"
        )
    widest = max(d.shape[2] for d in data)
    first_weights = [
        _align_session(
            mean, session.seen_units, components, widest, inputs.likelihood == "gaussian"
        )
        for mean, session in zip(averages, sessions, strict=True)
    ]
    read_in, bias, readout = (np.stack(part) for part in zip(*first_weights, strict=True))
    # Single trials vary more than averages: factors whose averages have sd 1 would saturate the encoder's gates.
    spread = np.concatenate(
        [(d @ w[:, : d.shape[2]].T).std((0, 1)) for d, w in zip(data, read_in, strict=True)]
    )
    scale = 1 / max(float(spread.max()), 1e-6)
    return Alignment(*(a.astype(inputs.dtype) for a in (scale * read_in, scale * bias, readout)))


def _conditions(
    files: Sequence[str], arrays: Sequence[Mapping[str, Recordings]]
) -> tuple[list[np.ndarray], list[int]]:
    """(the conditions of the training trials of each session, those that all sessions have). Raises ValueError where it has none."""
    has = next(file for file, session in zip(files, arrays, strict=True) if CONDITION in session)
    session_labels = []
    for file, session in zip(files, arrays, strict=True):
        if CONDITION not in session:
            raise ValueError(
                f"{file}: lacks {CONDITION}, which {has} has; give it for all sessions, or for none"
            )
        labels = np.asarray(session[CONDITION])
        if labels.dtype.kind not in "iu":
            raise ValueError(
                f"{file}: {CONDITION} has the type {labels.dtype}; whole numbers expected"
            )
        session_labels.append(labels)
    shared = sorted(set.intersection(*(set(labels.tolist()) for labels in session_labels)))
    if not shared:
        raise ValueError(
            f"{files[0]}: {CONDITION}: no condition is in all sessions; give a condition the same number in all of them, or "
            f"leave {CONDITION} out"
        )
    return session_labels, shared


def _components(x: np.ndarray, n: int) -> np.ndarray | None:
    """(row, n) the first n principal components of the rows of x, with sd 1; None if x has fewer than n."""
    left_vectors, scale, _ = np.linalg.svd(x - x.mean(0), full_matrices=False)
    if len(scale) < n or scale[n - 1] <= 1e-9 * scale[0]:
        return None
    return np.asarray(left_vectors[:, :n] * np.sqrt(len(x)))


def _align_session(
    average: np.ndarray,
    seen_units: np.ndarray,
    components: np.ndarray,
    n_units: int,
    gaussian: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(read-in (factor, unit), its bias (factor,), readout (unit, factor)) of one session; padded units have 0."""
    n_factors, n = components.shape[1], average.shape[1]
    mean = average.mean(0)
    x = average - mean
    gram = x[:, seen_units].T @ x[:, seen_units]
    gram += RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram))
    read_in, readout = np.zeros((n_factors, n_units)), np.zeros((n_units, n_factors))
    read_in[:, seen_units] = np.linalg.solve(gram, x[:, seen_units].T @ components).T
    readout[:n] = x.T @ components / len(x)
    # The readout of log rates is that of rates over the mean rate, d log r = dr / r. A floor of 5 % of the average rate
    # keeps nearly silent units from getting huge weights.
    if not gaussian:
        readout[:n] /= np.maximum(mean, max(0.05 * mean.mean(), 1e-6))[:, None]
    return read_in, -read_in[:, :n] @ mean, readout
