"""What results and pictures share: the name of a constant input, the unit circle."""

import numpy as np

from ctd.plots import Lines, tick

ROUNDING = 1e-9
"""A component with less than this part of the variance has none: an axis over it would show rounding."""


def named(x: np.ndarray) -> str:
    """A constant input, in pictures.

    >>> named(np.array([0.25, 0.0]))
    'x = (0.25, 0)'
    """
    return f"x = ({', '.join(tick(value) for value in x)})"


def unit_circle() -> Lines:
    """Where modes of a map neither grow nor decay."""
    angle = np.linspace(0, 2 * np.pi, 181)
    return Lines(np.cos(angle), np.sin(angle), "unit circle", faint=True)
