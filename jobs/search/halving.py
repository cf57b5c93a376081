"""Successive halving: which items of a bracket go on after a rung.

A bracket begins with n items. At rung k = 0, 1, ... the best max(1, n // eta^(k+1)) of the items that have come
this far go on. Items that have finished leave nothing to save and stay as they are.
"""

import numpy as np


def survivors(
    loss: np.ndarray, alive: np.ndarray, blocks: np.ndarray, eta: int, rung: int
) -> np.ndarray:
    """Return which items go on: (n,) bool.

    loss: (n,) less is better; NaN is worse than any number; ties go to the item that comes first. alive: (n,)
    which have come to this rung. blocks: (n,) which bracket each belongs to.
    """
    going = np.zeros(len(loss), bool)
    for block in np.unique(blocks):
        members = np.flatnonzero(blocks == block)
        quota = max(1, len(members) // eta ** (rung + 1))
        here = members[alive[members]]
        going[here[np.argsort(loss[here], kind="stable")][:quota]] = True  # NaN sorts last
    return going
