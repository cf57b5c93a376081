"""The same computation on several devices."""

import os
import subprocess
import sys

from places import EXAMPLES, SUPPORT, TESTS


def assert_same_on_eight_devices(program):
    """The program, in a process with 8 CPU devices, ends by printing that all is the same."""
    code = program.format(path=[str(TESTS / "ctd" / "batch"), str(SUPPORT), str(EXAMPLES)])
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    env = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "same", done.stderr[-2000:]
