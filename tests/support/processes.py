"""Processes of this machine."""

import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path

# A user's kernel beside the job file, which misbehaves on demand: an item by its `fault` (each time, or
# the first time only), a group by its `mode` once the file `armed` is there (planning loads data too).
KERNEL = '''
import os
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ctd.kernel import Data, Params, Static, Traced, Var, one_shot

HERE = Path(__file__).parent


class Faulty(Params):
    tag: Static[str] = ""
    mode: Data[str] = "good"
    fault: Traced[int] = 0


class Stubborn(Exception):
    """Can be neither pickled nor printed."""

    def __reduce__(self):
        raise TypeError("no")

    def __str__(self):
        raise TypeError("no")


def load(inputs):
    if (HERE / "armed").exists():
        if inputs.mode == "hopeless":
            raise ValueError("bad data")
        if inputs.mode == "stubborn":
            raise Stubborn
        if inputs.mode == "quits":
            sys.exit("bye")
    return np.ones(3, np.float32)


def run(static, shared, traced, key):
    def answer(fault, number):
        tried = HERE / f"tried-{static.tag}-{number}"
        first = not tried.exists()
        tried.touch()
        if fault == 1 or (fault == 2 and first):
            raise ValueError("this item says no")
        if fault == 3 or (fault == 4 and first):
            os._exit(3)
        if fault == 5:
            time.sleep(0.5)
        if fault == 6:
            time.sleep(1000)
        if fault == 8 and first:
            (HERE / "waits.part").write_text(str(os.getpid()))
            (HERE / "waits.part").rename(HERE / "waits")
            while not (HERE / "gate").exists():
                time.sleep(0.05)
        return np.float32(7)

    number = jax.random.bits(key)
    value = jax.pure_callback(
        answer, jax.ShapeDtypeStruct((), jnp.float32), traced.fault, number, vmap_method="sequential"
    )
    return {"value": value + shared.sum()}


kernel = one_shot("faulty", Faulty, {"value": Var((), "1", "ten")}, run, load=load)
'''


NO_PICTURES = "from cluster.cli import running\nrunning.finish = lambda *given: None"
"""Code before a command in a process of its own, which at its end draws nothing: to draw takes as long as to start a Ray, and
is the same whatever happened before."""


def hear_signals():
    """Let programs that this process starts get signals as from a terminal, whoever started it.

    `nohup`, CI systems and shells that put a job in the background start it with signals ignored, which programs that it
    starts inherit. A handler, even one that does nothing, they do not.
    """
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


def mentioning(folder, command=""):
    """The other processes whose command line or environment names the folder."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            line, environment = (
                Path(f"/proc/{pid}/{n}").read_bytes() for n in ("cmdline", "environ")
            )
        except OSError:
            continue
        if command.encode() in line and str(folder).encode() in line + environment:
            found.append(int(pid))
    return [pid for pid in found if pid != os.getpid()]


def free_ports(n):
    """Different ports of 127.0.0.1 that nobody listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]


def listening(pids):
    """Where these processes listen: (address in hexadecimal as the kernel writes it, port)."""
    sockets = set()
    for pid in pids:
        with suppress(OSError):  # it has ended
            for handle in Path(f"/proc/{pid}/fd").iterdir():
                sockets.update(re.findall(r"socket:\[(\d+)\]", os.readlink(handle)))
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            if state == "0A" and rest[5] in sockets:
                address, port = local.split(":")
                found.append((address, int(port, 16)))
    return found


def run_ctd(*arguments, **environment):
    """Run `ctd ARGUMENTS` in a process of its own, with more in its environment; return it once it has ended."""
    return subprocess.run(
        [sys.executable, "-m", "cluster.cli.main", *arguments], capture_output=True, text=True, check=False,
        env=os.environ | environment,
    )  # fmt: skip
