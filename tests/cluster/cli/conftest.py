"""What several files of the command line's tests use."""

import pytest


@pytest.fixture
def no_pictures(monkeypatch):
    """`ctd run` and `ctd resume` draw nothing, which takes as long as a small job, where a test looks at other things."""
    monkeypatch.setattr("jobs.report.figures.save_figures", lambda *_: [])
