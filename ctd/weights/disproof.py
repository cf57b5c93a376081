"""Check the nonlinearity that is assumed if a file does not state it, by the states of the network."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

ROUNDING = 1e-3
"""A state of tanh units exceeds 1 by less, and one step of stored states misses by less of their size; states may be of 16 bits."""
MOST = 1000
"""Steps that are compared."""


def check_guess(
    source: str, guess: str, cell: str, params: Mapping[str, ArrayLike], states: np.ndarray
) -> None:
    """Check that states can be those of tanh units, which are assumed if a file names none.

    If the states have an axis of time, (trial, time, state), the steps between them are compared, too, at the input that fits best;
    the first state of a trial may be any.

    >>> check_guess("net.h5", "tanh is taken", "vanilla", {}, np.array([[1.5]]))
    Traceback (most recent call last):
    ValueError: net.h5: tanh is taken; but states reach 1.5, and tanh 1; give cell: vanilla if they are tanh all the same

    Args:
        source: file of the weights, for the error.
        guess: the sentence of `Loaded.guess`.
        cell: name of the cell.
        params: weights of the network.
        states: (..., state) states of the network.

    Raises:
        ValueError: a state exceeds 1, or relu units fit the steps and tanh units do not.
    """
    consecutive = states.ndim == 3 and states.shape[1] > 1
    after = states[:, 1:] if consecutive else states
    # The state of an LSTM ends with its memory cells, which have no bound.
    outputs = after[..., : after.shape[-1] // 2] if cell == "lstm" else after
    largest = float(np.abs(outputs).max(initial=0))
    tells = f"give cell: {cell} if they are tanh all the same"
    if largest > 1 + ROUNDING:
        raise ValueError(f"{source}: {guess}; but states reach {largest:.3g}, and tanh 1; {tells}")
    if consecutive and cell == "vanilla":
        tanh, relu = step_errors(params, states)
        if relu < ROUNDING < tanh:
            raise ValueError(
                f"{source}: {guess}; but a step of the states misses by {tanh:.2g} of their size with tanh, and by {relu:.2g} with "
                f"relu; {tells}"
            )


def step_errors(params: Mapping[str, ArrayLike], states: np.ndarray) -> tuple[float, float]:
    """Root mean square error of h' = f(wI x + wR h + bR), as a share of that of h', for tanh and relu, at the input x that fits best.

    states: (trial, time, unit). NaN where there are as many inputs as units, since an input then fits any step.
    """
    w_in, w, bias = (np.asarray(params[name], float) for name in ("wI", "wR", "bR"))
    n, n_in = w_in.shape
    if n_in >= n:
        return np.nan, np.nan
    size = states.shape[-1]
    h, after = (part.reshape(-1, size).astype(float) for part in (states[:, :-1], states[:, 1:]))
    some = np.linspace(0, len(h) - 1, min(MOST, len(h))).astype(int)
    h, after = h[some], after[some]
    recurrent_drive = h @ w.T + bias
    # Rounding may bring a tanh to 1, whose arctanh is infinite.
    input_drive = np.arctanh(np.clip(after, -1 + 1e-7, 1 - 1e-7)) - recurrent_drive
    x = np.linalg.lstsq(w_in, input_drive.T, rcond=None)[0].T
    tanh = np.tanh(recurrent_drive + x @ w_in.T)
    relu = np.empty_like(after)
    for k, (row, before) in enumerate(zip(after, recurrent_drive, strict=True)):
        # A unit at 0 only says that its sum is not above 0.
        active = row > 0
        x_row = np.linalg.lstsq(w_in[active], (row - before)[active], rcond=None)[0]
        relu[k] = np.maximum(before + w_in @ x_row, 0)
    scale = np.sqrt(np.mean(after**2)) or 1.0
    error = lambda prediction: float(np.sqrt(np.mean((prediction - after) ** 2)) / scale)
    return error(tanh), error(relu)
