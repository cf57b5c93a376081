"""What the suite does to its own process."""

import signal
import subprocess
import sys
import time

from hypothesis import given, settings
from hypothesis import strategies as st
from places import ROOT

NUMBERS = signal.SIGINT, signal.SIGHUP, signal.SIGTERM

IGNORING = f"""
import os, signal, subprocess
from processes import hear_signals
for number in {[int(n) for n in NUMBERS]}:
    signal.signal(number, signal.SIG_IGN)
hear_signals()
for number in {[int(n) for n in NUMBERS]}:
    os.kill(os.getpid(), number)  # this process goes on ignoring them
subprocess.run(["sed", "-n", "s/SigIgn://p", "/proc/self/status"], check=True)
"""


def test_programs_hear_signals_where_the_suite_ignores_them():
    """As under nohup, by which `ctd watch` waited for a Ctrl-C that it never got."""
    run = subprocess.run(
        [sys.executable, "-c", IGNORING], cwd=ROOT / "tests" / "support", capture_output=True, text=True, check=True,
    )  # fmt: skip
    ignored = int(run.stdout, 16)
    assert [n.name for n in NUMBERS if ignored >> (n - 1) & 1] == []


@settings(max_examples=10)
@given(st.builds(lambda k: time.sleep(0.15) or k, st.integers()))
def test_drawn_data_may_be_slow(number):
    """Ten draws take 1.5 s and more, for which hypothesis by itself allows one second; on a busy machine quick ones take as long."""
    time.sleep(0.1 if number else 0.25)  # and an example a fifth of a second
