"""Waiting for what another process or thread does."""

import time

SHARE, LONGEST_S = 0.05, 2.0
"""How long to pause between two looks, as a share of the time waited so far, and at most."""


def until(holds, what: str, seconds: float = 200) -> None:
    """Wait for a condition; TimeoutError names it."""
    began = time.monotonic()
    while not holds():
        waited = time.monotonic() - began
        if waited > seconds:
            raise TimeoutError(f"waited {seconds:g} s until {what}")
        # To ask is not free: Slurm answers by a process, a store by its files. What comes is seen a twentieth late.
        time.sleep(min(max(SHARE * waited, 0.01), LONGEST_S))
