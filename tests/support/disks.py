"""A disk that is full, for this process."""

import resource
from contextlib import contextmanager


@contextmanager
def full_disk(room=100):
    """Let no file of this process grow beyond `room` bytes: writing more raises OSError, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
