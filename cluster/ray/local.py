"""A private Ray on this machine, which ends with the process that asked for it.

A helper process (this file as a script: local.py FOLDER CPUS) starts Ray and keeps it up until its standard input closes:
after `stop`, or when the asking process has died. The asking process does not start Ray itself, for two reasons: Ray's
daemons die with the *thread* that started them, and the start takes seconds in which that process plans and compiles.
"""

import fcntl
import json
import logging
import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cluster.ray.private import MISSED, start_node
from cluster.ray.reach import NoRay

log = logging.getLogger("ctd")

HELPER = Path(__file__)

STOP_S = 20.0
"""Seconds that Ray may take to stop (usually 2) before it is killed."""

TRIES = 3
"""Attempts to start Ray."""

LOG = "start.log"
"""File of what the helper says, locked as long as it or the asking process lives."""


def remove_abandoned(parent: Path) -> None:
    """Remove the folders of this user's local Rays that were killed with all their processes."""
    for log in parent.glob(f"ctd-*/{LOG}"):
        with suppress(OSError), log.open("r+") as file:  # others' cannot be opened
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(log.parent, ignore_errors=True)


class LocalRay:
    """A Ray without a dashboard, reachable only with the token in `environment`. Construction does not block.

    It offers `cpus` CPUs, and all GPUs of the machine.
    """

    def __init__(self, cpus: int) -> None:
        # Ray hangs silently if this path has more than about 40 characters.
        parent = Path(temp_root if len(temp_root := tempfile.gettempdir()) < 20 else "/tmp")  # noqa: S108  for mkdtemp
        remove_abandoned(parent)
        self._folder = Path(tempfile.mkdtemp(prefix="ctd-", dir=parent))
        self._token = self._folder / "token"
        self._secret = secrets.token_hex(32)
        self.environment = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self._token),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        """The environment that a process needs to connect. Without it Ray would write ~/.ray/auth_token, which turns authentication on for every
        later Ray of this user."""
        self._cpus = cpus
        self._address: str | None = None
        self._stopped = False
        self._start()

    def _start(self) -> None:
        self.is_up = False
        """The helper has printed an address; before, it does not notice that its standard input closes."""
        self._folder.mkdir(mode=0o700, exist_ok=True)  # a helper that failed has removed it
        # Closed before it has content: nobody else can read it, not even for a moment.
        self._token.touch(mode=0o600)
        self._token.write_text(self._secret)
        # It gets its name once it is locked. The helper inherits the lock with the file.
        self._log = (self._folder / "log").open("w+")
        fcntl.flock(self._log, fcntl.LOCK_EX)
        Path(self._log.name).rename(self._folder / LOG)
        self._helper = subprocess.Popen(
            [sys.executable, "-P", str(HELPER), str(self._folder), str(self._cpus)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True,
            env={**os.environ, **self.environment},
            start_new_session=True,  # Ctrl-C must reach the driver alone, which then stops Ray in order
        )  # fmt: skip

    def address(self, use: Callable[[str], None] = lambda address: None) -> str:
        """Wait until Ray is up, and return its host:port, with which `use` is called before.

        Starts Ray again if it or `use` fails: Ray gives its own processes a fixed 30 s to start, which a busy machine exceeds
        now and then; and a process of it that was killed, by whomever, need not be killed the next time. Raises NoRay, with the
        last line of its log, if it failed `TRIES` times or was stopped.
        """
        tries_left = TRIES
        while self._address is None:
            try:
                address = self._awaited()
                self.is_up = True
                use(address)
                self._address = address
            except NoRay as fault:
                tries_left -= 1
                if self._stopped or not tries_left:
                    raise NoRay(
                        f"Ray did not start on this machine, in {TRIES - tries_left} tries: {fault}\n"
                        "`--executor serial` computes without Ray"
                    ) from None
                log.warning("Ray did not start (%s); once more", fault)
                self._end()
                self._start()
        return self._address

    def _awaited(self) -> str:
        """Return the address that the helper prints; raise NoRay, with the last line of its log, if it ends before."""
        assert self._helper.stdout is not None
        if line := self._helper.stdout.readline():
            address, lack = json.loads(line)
            if lack:
                log.warning("this Ray is started by ray.init: %s", lack)
            return str(address)
        code = self._helper.wait()
        self._log.seek(0)
        log_lines = self._log.read().strip().splitlines() or [
            f"its helper ended with exit code {code}"
        ]
        raise NoRay(log_lines[-1])

    def stop(self) -> None:
        """Stop Ray and all its processes, and remove its files."""
        self._stopped = True
        self._end()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _end(self) -> None:
        helper = self._helper
        assert helper.stdin is not None
        assert helper.stdout is not None
        # The helper takes the end of its input for the order to stop, whether we close it or die.
        helper.stdin.close()
        try:
            helper.wait(STOP_S if self.is_up else 0)  # one still starting does not read stdin yet
        except subprocess.TimeoutExpired:
            os.killpg(helper.pid, signal.SIGKILL)
            helper.wait()
        helper.stdout.close()
        # Before the lock goes: another process would take the folder for abandoned, in which Ray may be started again.
        (self._folder / LOG).unlink(missing_ok=True)
        self._log.close()


# --- the helper -------------------------------------------------------------------------------------

OBJECT_STORE = 100 << 20
"""Bytes. Small, because workers write results to the store: Ray carries a few hundred bytes per shard."""

LOOK_S = 0.5
"""Seconds between two looks at Ray's processes."""

VITAL = {"gcs_server", "raylet"}
"""The processes without which there is no Ray."""

ENVIRONMENT = {
    # Ray tells metrics to whoever asks, without a token.
    "RAY_enable_metrics_collection": "0",
    # Two of their servers cannot be switched off; without a port they do not start.
    "DASHBOARD_METRIC_PORT": "65536",
    "AUTOSCALER_METRIC_PORT": "65536",
    # Ray would start workers in advance, without our thread settings: useless.
    "RAY_prestart_worker_first_driver": "0",
}


@contextmanager
def up(folder: str, cpus: int) -> Iterator[tuple[str, str, Callable[[], bool]]]:
    """Keep a Ray up; yield its address, what it lacks ("" if nothing), and whether it has ended by itself.

    It is started by private names, which listens on 127.0.0.1 alone and takes a third of the time, or else by `ray.init`.
    Its processes die with this one. Ray opens its own folder to every user; the one around it is closed.
    """
    settings = {"num_cpus": cpus, "object_store_memory": OBJECT_STORE}
    try:
        node = start_node(temp_dir=f"{folder}/r", **settings)
    except MISSED as missed:
        import ray

        context = ray.init(
            include_dashboard=False, log_to_driver=False, logging_level="error", _temp_dir=f"{folder}/p", **settings
        )  # fmt: skip
        lack = f"its ports are open to the network, and only its token keeps others out; it starts slower ({missed!r})"
        address, end = context.address_info["gcs_address"], ray.shutdown
        is_dead = lambda: False  # a process that loses the head of its Ray is ended by Ray
    else:
        address, lack = node.gcs_address, ""
        end = lambda: node.kill_all_processes(check_alive=False, allow_graceful=True)
        is_dead = lambda: bool(VITAL & {kind for kind, _ in node.dead_processes()})
    try:
        yield address, lack, is_dead
    finally:
        end()


def hold(folder: str, cpus: int) -> None:
    """Start Ray, print its address and what it lacks, and keep it up until standard input closes."""
    os.environ.pop("RAY_ADDRESS", None)
    os.environ.update(ENVIRONMENT)
    try:
        with up(folder, cpus) as (address, lack, is_dead):
            print(json.dumps([address, lack]), flush=True)
            while not select.select([sys.stdin], [], [], LOOK_S)[0] and not is_dead():
                pass
    except Exception as error:  # said now: Python would say it after the end of this block, which kills the process
        print(str(error) or repr(error), file=sys.stderr, flush=True)
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        # The agent of a raylet that was killed would call a GCS that is gone for a minute. It is in this group, as this process is.
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    hold(sys.argv[1], int(sys.argv[2]))
