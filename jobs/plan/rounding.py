"""Round results to fewer bits of mantissa, so that they compress (Klöwer et al. 2021, Nat Comput Sci 1:713).

    float32     sign | exponent (8) | b b b b b b b b b b 0 0 0 0 0 0 0 0 0 0 0 0 0         keep_bits = 10

The relative error is at most 2^-(bits + 1). Readers of the store need no special treatment.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jobs.errors import JobError, nearest

MANTISSA = {2: 10, 4: 23, 8: 52}
"""Bytes of a float -> bits of its mantissa."""


def keep_bits(values: np.ndarray, bits: int) -> np.ndarray:
    """Round real `values`, of any shape, to `bits` bits of mantissa, ties to even.

    Values that are not finite, or would round to infinity, stay as they are.

    >>> keep_bits(np.array([1.0, 1.1, np.inf], np.float32), 2).tolist()
    [1.0, 1.0, inf]
    """
    drop = MANTISSA[values.dtype.itemsize] - bits
    if drop <= 0:
        return values
    integer = np.dtype(f"u{values.dtype.itemsize}")
    raw = np.ascontiguousarray(values).view(integer)
    one = integer.type(1)
    last = (raw >> integer.type(drop)) & one
    # Adding half of the last kept bit, less one unless that bit is odd, rounds ties to even.
    up = raw + ((one << integer.type(drop - 1)) - one) + last
    rounded = (up & ~((one << integer.type(drop)) - one)).view(values.dtype)
    return np.where(np.isfinite(values) & np.isfinite(rounded), rounded, values)


def check_keep_bits(
    asked: Mapping[str, int], shapes: Sequence[Mapping[str, Any]], where: str
) -> None:
    """Raise JobError if `keep_bits` names a result that no group has, or one that is not real.

    Args:
        asked: result -> bits.
        shapes: for each group, result -> shape and dtype of one item.
    """
    known = {name: shape.dtype for found in shapes for name, shape in found.items()}
    for name in asked:
        if name not in known:
            raise JobError(
                f"{where}: keep_bits: this job has no result {name!r}{nearest(name, known)}"
            )
        if known[name].kind != "f":
            raise JobError(
                f"{where}: keep_bits: {name} holds {known[name]}, but only reals can be rounded; leave it out"
            )
