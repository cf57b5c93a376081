"""A Ray of our own on this machine, for as long as the process that asked for it lives.

Ray is started by a helper process, this file run as a script, which holds it until its standard input
ends: by `stop`, or by the death of the asking process, however it dies. Nothing of it is started in the
asking process itself, because Ray's daemons die with the *thread* that started them, and because that
process goes on planning (and compiling) during the seconds that the start takes.
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
"""Ray takes about 2 s to stop; what is left after this time is killed."""

TRIES, TOO_SLOW = 3, "timed out during startup"
"""How often Ray is started, and what it says where its own time for that was too short."""

OBJECT_STORE = 100 << 20
"""Bytes. Results go from the workers to the store; Ray carries a few hundred bytes a shard."""


class LocalRay:
    """A Ray without dashboard, reachable by `environment`'s token only. Starting it does not block.

    cpus: CPU slots that it offers. GPUs are those of the machine.
    """

    def __init__(self, cpus: int) -> None:
        # Ray hangs without a word where this path has more than about 40 characters.
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
        """What a process needs to connect. Left to itself Ray writes ~/.ray/auth_token, which switches
        authentication on for every later Ray of this user."""
        self._cpus = cpus
        self._address: str | None = None
        self._helper = self._start()

    def _start(self) -> "subprocess.Popen[str]":
        if not self._folder.exists():  # a helper that gave up has removed it
            self._folder.mkdir(mode=0o700)
        self._token.touch(mode=0o600)
        self._token.write_text(self._secret)
        self._log = (self._folder / "start.log").open("w+")
        quick = {"RAY_prestart_worker_first_driver": "0"}  # workers without our threads: of no use
        return subprocess.Popen(
            [sys.executable, "-P", __file__, str(self._folder), str(self._cpus)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True,
            env={**os.environ, **self.environment, **quick},
            start_new_session=True,  # Ctrl-C is for the driver alone, which then stops Ray in order
        )  # fmt: skip

    def address(self) -> str:
        """host:port, once Ray is up; RuntimeError with the end of its log where it does not come up.

        Ray gives its own processes a fixed 30 s to start, which a busy machine exceeds now and then.
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
        """Whether `address` has been answered."""
        return self._address is not None

    def stop(self) -> None:
        """End Ray and all its processes, and remove its files."""
        self._end()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _end(self) -> None:
        helper = self._helper
        assert helper.stdin is not None
        assert helper.stdout is not None
        helper.stdin.close()
        try:
            helper.wait(STOP_S if self.is_up else 0)  # one still starting does not listen yet
        except subprocess.TimeoutExpired:
            os.killpg(helper.pid, signal.SIGKILL)
            helper.wait()
        helper.stdout.close()
        self._log.close()


def _hold(folder: str, cpus: int) -> None:
    """Start Ray, say where it is, keep it until standard input ends."""
    import ray

    os.environ.pop("RAY_ADDRESS", None)
    try:
        ray.init(
            address="local", num_cpus=cpus, object_store_memory=OBJECT_STORE, _temp_dir=folder,
            include_dashboard=False, log_to_driver=False, logging_level="error",
        )  # fmt: skip
        print(json.dumps(ray.get_runtime_context().gcs_address), flush=True)
        sys.stdin.read()
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    _hold(sys.argv[1], int(sys.argv[2]))
