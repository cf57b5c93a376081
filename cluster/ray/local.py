"""A private Ray on this machine, which lives no longer than the process that asked for it.

A helper process (this file run as a script) starts Ray and keeps it up until its standard input closes: by
`stop`, or because the asking process died in whatever way. The asking process does not start Ray itself,
because Ray's daemons die with the *thread* that started them, and because it goes on planning (and
compiling) during the seconds that the start takes.
"""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

STOP_S = 20.0
"""How long Ray may take to stop (usually 2 s) before it is killed."""

TRIES, TOO_SLOW = 3, "timed out during startup"
"""How many times to try to start Ray, and what its log says if its own time limit was too short."""

OBJECT_STORE = 100 << 20
"""Bytes. Small, because workers write results to the store: Ray carries a few hundred bytes per shard."""


class LocalRay:
    """A Ray without a dashboard, reachable only with the token in `environment`. Construction does not block.

    Args:
        cpus: number of CPUs that Ray offers. It offers all GPUs of the machine.
    """

    def __init__(self, cpus: int) -> None:
        # Ray hangs silently if this path has more than about 40 characters.
        parent = tempfile.gettempdir()
        self._folder = Path(
            tempfile.mkdtemp(prefix="ctd-", dir=parent if len(parent) < 20 else "/tmp")
        )
        self._token = self._folder / "token"
        self._secret = secrets.token_hex(32)
        self.environment = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self._token),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        """Environment variables that a process needs to connect. Without them Ray would write
        ~/.ray/auth_token, which turns authentication on for every later Ray of this user."""
        self._cpus = cpus
        self._address: str | None = None
        self._helper = self._start()

    def _start(self) -> "subprocess.Popen[str]":
        if not self._folder.exists():  # a helper that failed has removed it
            self._folder.mkdir(mode=0o700)
        self._token.touch(mode=0o600)
        self._token.write_text(self._secret)
        self._log = (self._folder / "start.log").open("w+")
        # Ray would start workers in advance, without our thread settings: useless.
        quick = {"RAY_prestart_worker_first_driver": "0"}
        return subprocess.Popen(
            [sys.executable, "-P", __file__, str(self._folder), str(self._cpus)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True,
            env={**os.environ, **self.environment, **quick},
            start_new_session=True,  # Ctrl-C must reach the driver alone, which then stops Ray in order
        )  # fmt: skip

    def address(self) -> str:
        """Wait until Ray is up, and return its host:port.

        Tries again if Ray ran out of the fixed 30 s that it gives its own processes to start, which
        happens now and then on a busy machine.

        Raises:
            RuntimeError: Ray did not start; the message has the end of its log.
        """
        left = TRIES
        while self._address is None:
            assert self._helper.stdout is not None
            if line := self._helper.stdout.readline():
                self._address = str(json.loads(line))
                break
            self._log.seek(0)
            tail, left = self._log.read()[-2000:].strip(), left - 1
            if TOO_SLOW not in tail or not left:
                raise RuntimeError(f"Ray did not start on this machine:\n{tail}")
            self._end()
            self._helper = self._start()
        return self._address

    @property
    def is_up(self) -> bool:
        """Whether `address` has returned."""
        return self._address is not None

    def stop(self) -> None:
        """Stop Ray and all its processes, and remove its files."""
        self._end()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _end(self) -> None:
        helper = self._helper
        assert helper.stdin is not None
        assert helper.stdout is not None
        helper.stdin.close()
        try:
            helper.wait(STOP_S if self.is_up else 0)  # one still starting does not read stdin yet
        except subprocess.TimeoutExpired:
            os.killpg(helper.pid, signal.SIGKILL)
            helper.wait()
        helper.stdout.close()
        self._log.close()


def _hold(folder: str, cpus: int) -> None:
    """Start Ray, print its address, and keep it up until standard input closes."""
    import ray

    os.environ.pop("RAY_ADDRESS", None)
    try:
        # Ray opens its own folder to every user; the one around it is closed.
        ray.init(
            address="local", num_cpus=cpus, object_store_memory=OBJECT_STORE, _temp_dir=f"{folder}/r",
            include_dashboard=False, log_to_driver=False, logging_level="error",
        )  # fmt: skip
        print(json.dumps(ray.get_runtime_context().gcs_address), flush=True)
        sys.stdin.read()
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    _hold(sys.argv[1], int(sys.argv[2]))
