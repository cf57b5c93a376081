"""What is said while a job runs."""

import time

import numpy as np
import pytest

from cluster.cli import display
from jobs.run.progress import Progress


@pytest.mark.parametrize(
    ("advances", "said"),
    [((), ""), ((1, 0), ""), ((37,), "advance 37"), ((12, 40, 12), "advances 12-40")],
)
def test_describe_advances(advances, said):
    assert display.describe(Progress(8, 1, advances=advances)) == said


def test_plain_lines_get_rarer(capsys, monkeypatch):
    """A line every 5 s at first; after an hour, one every hundredth of the time."""
    began = time.time()
    now = [began]
    monkeypatch.setattr(display.time, "time", lambda: now[0])
    with display.live_progress() as tell:
        progress = Progress(8, 1, advances=(7,), started=began)
        times = []
        while now[0] < began + 7200:
            tell(progress)
            if capsys.readouterr().err:
                times.append(now[0] - began)
            now[0] += 1
        progress.items_done, progress.shards_done = 8, 1
        tell(progress)
    assert capsys.readouterr().err == "8/8 items, 1/1 shards, advance 7, 0.00111 items/s\n"
    gaps = np.diff(times).tolist()
    assert times[0] == 0
    assert gaps[0] == 5
    assert gaps[-1] == pytest.approx(72, abs=2)
    assert gaps == sorted(gaps)
