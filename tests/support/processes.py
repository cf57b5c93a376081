"""Processes of this machine, what they wait for, and how they compile."""

import os
import re
import resource
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import cache_from_source, find_spec
from pathlib import Path

from places import EXAMPLES, ROOT, SUPPORT, TESTS

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


@contextmanager
def full_disk(room=100):
    """Let no file of this process grow beyond `room` bytes: writing more raises OSError, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def assert_same_on_eight_devices(program):
    """The program, in a process with 8 CPU devices, ends by printing that all is the same."""
    code = program.format(path=[str(TESTS / "ctd" / "batch"), str(SUPPORT), str(EXAMPLES)])
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    env = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "same", done.stderr[-2000:]


def keep_bytecode() -> None:
    """Compile what is installed, once, and our packages, where Python may not by itself (PYTHONDONTWRITEBYTECODE).

    Importing JAX, Ray and pandas takes 3.2 s of CPU without, 1.3 with it, in each worker; this takes 20 once. Our own
    take 0.2 s in each process; a file that was changed is told by its time and compiled again.
    """
    spec = find_spec("jax")
    if not (sys.dont_write_bytecode and spec):
        return
    folders = [str(ROOT / name) for name in ("ctd", "jobs", "cluster")]
    if not Path(cache_from_source(str(spec.origin))).exists():
        folders.append(sysconfig.get_path("purelib"))
    # Packages hold templates and old files that warn or do not compile.
    subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "compileall", "-qq", "-j", "0", *folders],
        check=False,
    )


QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
"""For XLA_FLAGS: tiny programs run for less time than XLA takes to optimise them; without, they compile in half of it."""


def checked(function):
    """The checker of types that `pytest --shapes` wraps functions with."""
    from beartype import BeartypeConf, beartype

    # As for mypy, a whole number passes for a float.
    return beartype(conf=BeartypeConf(is_pep484_tower=True))(function)
