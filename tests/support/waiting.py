"""Waiting for what another process or thread does."""

import time


def until(holds, what: str, seconds: float = 200) -> None:
    """Wait for a condition; TimeoutError names it."""
    end, pause = time.monotonic() + seconds, 0.01
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:g} s until {what}")
        time.sleep(pause)
        pause = min(1.2 * pause, 0.5)  # to ask is not free: Slurm answers by a process
