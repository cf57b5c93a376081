"""jobs.keys: what is written is listed again."""

import pytest

from jobs import keys

MADE = [
    keys.record(keys.DONE, 0, 7, "0a1b2c3d4e"),
    keys.record(keys.FAILED, 12, 1_234_567, "0a1b2c3d4e"),
    keys.slots(3),
    keys.layout(0, "cpu"),
    keys.layout(0, "AMD Instinct MI250X / MI250"),
    keys.pictures(0),
    keys.live(0, 7),
    f"{keys.place(keys.CHECKPOINTS, 0, 7)}/1",
    keys.place(keys.ROUNDS, 0, 7),
    keys.decision(0, 7),
    keys.lease(0),
    keys.cancel(123_456_789),
    keys.submission("a b"),
    keys.sums("gathered/0"),
    *(keys.JOB, keys.JOB_COPY, keys.KERNEL, keys.CREATING, keys.CARD, keys.NOTE),
]


@pytest.mark.parametrize("key", MADE)
def test_key_that_is_made_is_ours(key):
    """Listings leave out all others: a fork copied no microbatch of a device with a slash in its name."""
    assert keys.is_ours(key)
