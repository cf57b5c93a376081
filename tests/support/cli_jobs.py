"""Job files for tests of the command line."""

TOY = """
kernel: toy
params: {n_steps: 5}
sweep: {grid: {rate: {linspace: [0, 0.5, 6]}}}
"""


def usage_error(answer, *said):
    """Exit code 2 and one screen of text with these words, no traceback."""
    code, _, err = answer
    assert code == 2, err
    for words in said:
        assert words in err, err
    assert "Traceback" not in err
    assert len(err.splitlines()) <= 24, err
