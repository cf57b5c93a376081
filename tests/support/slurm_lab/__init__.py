"""A real Slurm cluster on one machine, for tests: munged, slurmctld, and one slurmd in each node.

A node is a set of namespaces (network, processes, host name, mounts), so it has an address of its own, sees
its own processes only, and has its own /tmp; killing its first process is pulling the plug. Everything else
of the file system is shared. The test process is on the login node. Needs root and Debian's packages
slurmctld, slurmd, slurm-client, munge and iproute2.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from threading import Lock

import numpy as np
from processes import until

from cluster.record import Submission, submissions
from cluster.slurm import client as slurm
from cluster.submit import read_order, submit, text_of
from cluster.tracking import log_tail
from jobs import Store
from jobs.run.prepare import open_or_create
from jobs.run.shards import run_shards
from jobs.run.worker import SerialExecutor
from jobs.spec.job import read_job

HERE = Path(__file__).parent
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "ip", "nsenter", "unshare")
FREEZER = Path("/sys/fs/cgroup/freezer")

CONF = """
ClusterName=ctdlab
SlurmctldHost={host}({net}.1)
SlurmctldPort={port}
SlurmdPort={slurmd_port}
SlurmUser=root
AuthType=auth/munge
CredType=cred/munge
# A requeued job waits until its credential has expired: 120 s by default. Not less than KillWait: a node
# that still ends the job when it comes back is set aside ("Duplicate jobid").
AuthInfo=socket={folder}/munge.sock,cred_expire=25
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/{proctrack}
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
# The nodes offer more than this machine has.
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
ReturnToService=2
KillWait=20
# A busy machine lets a living node answer late: one that is given up for lost takes its jobs with it.
SlurmdTimeout=60
SchedulerParameters=sched_interval=1,sched_min_interval=0,bf_interval=1,batch_sched_delay=0
MinJobAge=3600
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
# At a preemption the job gets the signal that it asked for before its time limit.
PreemptParameters=send_user_signal
JobRequeue=1
NodeName=n[1-{nodes}] NodeAddr={net}.1[1-{nodes}] CPUs={cpus} RealMemory={memory} Gres=gpu:{gpus}
PartitionName=debug   Nodes=ALL Default=YES MaxTime=30 PriorityTier=5 PreemptMode=OFF
PartitionName=low     Nodes=ALL MaxTime=30 PriorityTier=1 PreemptMode=REQUEUE GraceTime=30
PartitionName=urgent  Nodes=ALL MaxTime=30 PriorityTier=9 PreemptMode=OFF
PartitionName=members Nodes=ALL MaxTime=30 AllowAccounts=neuro
"""


class Lab:
    """A running cluster of `nodes` nodes n1, n2, ...; use as a context manager.

    folder: short path for all of its files. shared: folders under /tmp that every node sees.
    """

    def __init__(self, folder: Path, shared: list[Path], nodes: int = 2, cpus: int = 4) -> None:
        self.folder, self.nodes, self.cpus = folder, nodes, cpus
        self._shared = [str(path) for path in (folder, *shared) if Path("/tmp") in path.parents]
        number = os.getpid() % 200
        self._bridge, self._net = f"ctdlab{number}", f"10.79.{number}"
        self._port = 26000 + 2 * number
        self._processes: dict[str, subprocess.Popen] = {}
        self._cgroups: list[Path] = []
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf")}

    def __enter__(self) -> "Lab":
        for name in ("state", "dev"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        # munged wants no folder above its key and socket to be writable for others, /tmp excepted.
        self.folder.chmod(0o755)
        try:
            self._configure()
            self._start_daemons()
            for number in range(1, self.nodes + 1):
                self.start_node(number)
            self.wait_idle()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _configure(self) -> None:
        gpus = 2
        for number in range(gpus):  # Slurm takes nothing but a character device for a GPU
            os.mknod(self.folder / "dev" / f"gpu{number}", 0o666 | 0o020000, os.makedev(1, 3))
        (self.folder / "gres.conf").write_text(
            f"NodeName=n[1-{self.nodes}] Name=gpu File={self.folder}/dev/gpu[0-{gpus - 1}]\n"
        )
        cgroup = FREEZER.is_dir() and os.access(FREEZER, os.W_OK)
        self._freezer = FREEZER if cgroup else None
        (self.folder / "cgroup.conf").write_text(
            "CgroupPlugin=cgroup/v1\nCgroupMountpoint=/sys/fs/cgroup\n"
            if cgroup
            else "CgroupPlugin=disabled\n"
        )
        text = CONF.format(
            host=os.uname().nodename, net=self._net, port=self._port, slurmd_port=self._port + 1,
            folder=self.folder, nodes=self.nodes, cpus=self.cpus, memory=8000, gpus=gpus,
            proctrack="cgroup" if cgroup else "linuxproc",
        )  # fmt: skip
        (self.folder / "slurm.conf").write_text(text)
        hosts = ["127.0.0.1 localhost", f"{self._net}.1 {os.uname().nodename}"]
        hosts += [f"{self._net}.1{k} n{k}" for k in range(1, self.nodes + 1)]
        (self.folder / "hosts").write_text("\n".join(hosts) + "\n")
        # There is no name server in a node; waiting for one costs seconds a look-up.
        (self.folder / "resolv.conf").write_text("nameserver 127.0.0.1\n")

    def _start_daemons(self) -> None:
        ip("link", "del", self._bridge, check=False)  # left by a test process that was killed
        ip("link", "add", self._bridge, "type", "bridge")
        ip("addr", "add", f"{self._net}.1/24", "dev", self._bridge)
        ip("link", "set", self._bridge, "up")
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
        names = {"socket": "munge.sock", "pid-file": "munged.pid", "log-file": "munged.log"}
        self._spawn(
            "munged", "munged", "--foreground", f"--key-file={key}",
            f"--seed-file={self.folder}/munged.seed",
            *(f"--{option}={self.folder / name}" for option, name in names.items()),
        )  # fmt: skip
        until(lambda: (self.folder / "munge.sock").exists(), "munged answers")
        self._spawn("slurmctld", "slurmctld", "-D")

    def start_node(self, number: int) -> None:
        """Switch a node on."""
        name, space = f"n{number}", f"{self._bridge}-n{number}"
        ip("netns", "del", space, check=False)
        ip("netns", "add", space)
        ip(
            "link",
            "add",
            f"{self._bridge}v{number}",
            "type",
            "veth",
            "peer",
            "eth0",
            "netns",
            space,
        )
        ip("link", "set", f"{self._bridge}v{number}", "master", self._bridge, "up")
        ip("-n", space, "link", "set", "lo", "up")
        ip("-n", space, "addr", "add", f"{self._net}.1{number}/24", "dev", "eth0")
        ip("-n", space, "link", "set", "eth0", "up")
        ip("-n", space, "route", "add", "default", "via", f"{self._net}.1")
        group = ""
        if self._freezer:
            group = str(self._freezer / space)
            Path(group).mkdir(exist_ok=True)
            self._cgroups.append(Path(group))
        # Not `ip netns exec`, which mounts /sys anew.
        self._spawn(
            name, "bash", "-c",
            'group=$1 space=$2; shift 2; [ -z "$group" ] || echo 0 >"$group/cgroup.procs"\n'
            'exec nsenter --net=/run/netns/"$space" unshare ${group:+--cgroup} --mount --pid --uts --ipc '
            '--fork --kill-child --mount-proc bash "$@"',
            "-", group, space, str(HERE / "node.sh"), name, str(self.folder), group, *self._shared,
        )  # fmt: skip

    def kill_node(self, number: int) -> None:
        """Pull the plug of a node: its processes end at once, and its address is gone."""
        outer = self._processes.pop(f"n{number}")
        for child in Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split():
            os.kill(int(child), signal.SIGKILL)
        outer.wait()
        self._remove_network(number)

    def _remove_network(self, number: int) -> None:
        space = f"{self._bridge}-n{number}"
        if Path(f"/run/netns/{space}").exists():
            ip("netns", "del", space)

    def run(self, *command: str) -> str:
        """What a command of Slurm prints on the login node."""
        return subprocess.run(
            command, env=os.environ | self.environment, capture_output=True, text=True, check=True
        ).stdout

    def processes(self, number: int, variable: str) -> str:
        """The command lines of the processes of a node that have this NAME=VALUE in their environment."""
        found = (
            'for p in $(grep -lzx "$1" /proc/[0-9]*/environ 2>/dev/null); do '
            'tr "\\0" " " <"${p%environ}cmdline" 2>/dev/null; echo; done'
        )
        return self.inside(number, "bash", "-c", found, "-", variable).strip()

    def inside(self, number: int, *command: str) -> str:
        """What a command prints that runs on a node; "" if it runs nothing."""
        try:
            pid = self._processes[f"n{number}"].pid
            inner = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0]
        except (KeyError, OSError, IndexError):  # somebody else has pulled its plug
            return ""
        return subprocess.run(
            ["nsenter", "-t", inner, "-a", "--", *command], capture_output=True, text=True, check=False,
            env=os.environ | self.environment,
        ).stdout  # fmt: skip

    def kill_slurmd(self, number: int) -> None:
        """Kill the daemon of a node, whose jobs go on."""
        self.inside(number, "pkill", "-KILL", "-x", "slurmd")

    def start_slurmd(self, number: int) -> None:
        """Start a node's daemon that was killed."""
        begin = 'env -i PATH="$PATH:/usr/sbin" HOME="$HOME" SLURM_CONF="$SLURM_CONF" slurmd -N "$1"'
        self.inside(number, "bash", "-c", begin, "-", f"n{number}")

    def tmp(self, number: int) -> Path:
        """A node's own /tmp."""
        return self.folder / f"tmp-n{number}"

    def wait_idle(self, seconds: float = 300) -> None:
        """Until every node is up and nothing runs."""

        def idle() -> bool:
            with suppress(subprocess.CalledProcessError):
                states = self.run("sinfo", "-h", "-N", "-p", "debug", "-o", "%T").split()
                return states == ["idle"] * self.nodes
            return False

        until(idle, "all nodes are idle", seconds)

    def clear(self) -> None:
        """End what is left in the queue, and take nodes that Slurm has set aside, saying why, back."""
        for number in self.run("squeue", "-h", "-o", "%A").split():
            self.run("scancel", number)
        until(lambda: not self.run("squeue", "-h"), "the queue is empty")
        if aside := self.run("sinfo", "-h", "-R", "-o", "%N: %E").strip():
            print(aside)
            for node in range(1, self.nodes + 1):
                with suppress(subprocess.CalledProcessError):
                    self.run("scontrol", "update", f"nodename=n{node}", "state=resume")
        self.wait_idle()

    def _spawn(self, name: str, *command: str) -> None:
        with (self.folder / f"{name}.out").open("a") as out:
            self._processes[name] = subprocess.Popen(
                # However the test process ends, nothing outlives it.
                ["setpriv", "--pdeathsig", "KILL", *command], stdout=out, stderr=out, stdin=subprocess.DEVNULL,
                env=os.environ | self.environment, start_new_session=True,
            )  # fmt: skip

    def __exit__(self, *_: object) -> None:
        for number in range(1, self.nodes + 1):
            if f"n{number}" in self._processes:
                with suppress(OSError, IndexError):
                    self.kill_node(number)
            self._remove_network(number)
        for name in ("slurmctld", "munged"):
            if process := self._processes.pop(name, None):
                process.terminate()
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        ip("link", "del", self._bridge, check=False)
        for group in self._cgroups:
            for folder in sorted(group.rglob("*"), reverse=True):
                if folder.is_dir():
                    with suppress(OSError):
                        folder.rmdir()
            with suppress(OSError):
                group.rmdir()
        shutil.rmtree(self.folder, ignore_errors=True)


def missing() -> str:
    """Why there can be no lab here, or ""."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]
    if absent:
        return f"{', '.join(absent)} not installed"
    return "" if os.geteuid() == 0 else "needs root"


PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def ip(*arguments: str, check: bool = True) -> None:
    """Run ip(8)."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


def shared_folders() -> list[Path]:
    """What every node must see: this checkout and the environment that runs it."""
    return [HERE.parents[2].resolve(), Path(sys.prefix).resolve()]


# --- jobs that wait at a gate until their test lets them go on ----------------------------------

JOB = """
kernel: gated_walk
seed: {seed}
params: {{n_steps: 12, gate: {gate}}}
sweep: {{grid: {{rate: {{linspace: [-0.5, 0.5, {items}]}}}}}}
run: {{shard_items: 2, slots: 2, microbatch: 1, checkpoint_s: 1, grace_s: 20}}
"""

ONE_AT_A_TIME = Lock()
"""Whatever loads the user's kernel holds it: two threads that import at once may find half of a module, or wait for each
other for ever."""


def profile(lab: Lab, name: str = "lab", **changes) -> str:
    """A profile's file."""
    content = {
        "kind": "slurm", "partition": "debug", "nodes": 1, "cpus": 1, "memory_gb": 2, "time": "0:15:00",
        "grace_s": 60, "work_dir": str(lab.shared / "work"), **changes,
    }  # fmt: skip
    path = lab.shared / f"{name}.yaml"
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
    return str(path)


def job(lab: Lab, name: str, seed: int = 5, items: int = 4) -> Path:
    """A job's file, its gate open."""
    path = lab.shared / f"{name}.yaml"
    path.write_text(JOB.format(seed=seed, items=items, gate=path.with_suffix(".gate")))
    return path


def send(path: Path, profile: str, array: int | None = None) -> tuple[Submission, str]:
    """Submit a job from any thread; return what was submitted, and its script."""
    with ONE_AT_A_TIME:
        order = read_order(path, profile, array=array)
        return submit(order, print), text_of(order)


class Sent:
    """A job that was submitted with its gate shut; `with` ends what is left of it."""

    def __init__(self, lab: Lab, path: Path, array: int | None = None, **changes) -> None:
        self.lab, self.path, self.address = lab, path, str(path.with_suffix(".zarr"))
        self.gate = path.with_suffix(".gate")
        self.gate.touch()
        sent, self.text = send(path, profile(lab, f"for-{path.stem}", **changes), array)
        self.number, self.home = sent.numbers[0], Path(sent.home)

    def __enter__(self) -> "Sent":
        return self

    def __exit__(self, *_: object) -> None:
        self.gate.unlink(missing_ok=True)
        for number in submissions(self.address)[-1].all_numbers():
            subprocess.run(["scancel", number], capture_output=True, check=False)

    def state(self, number: str = "") -> str:
        number = number or self.number
        return slurm.allocations([number])[number].state

    def history(self) -> list[str]:
        return [line[2] for line in submissions(self.address)[-1].history()]

    def log(self) -> str:
        return log_tail(self.address, 200)

    def checkpoints(self) -> list[Path]:
        """The folders GROUP/SHARD of the shards that have one."""
        return list((Path(self.address) / "run" / "checkpoints").glob("*/*"))

    def await_checkpoints(self, n: int = 1) -> None:
        """Until so many running shards have one: they are all at the gate."""
        self.until(lambda: len(self.checkpoints()) >= n, f"{n} shards have a checkpoint", 900)

    def await_end(self, seconds: float = 900) -> None:
        """Until the allocation is over."""

        def is_over() -> bool:
            time.sleep(0.5)  # Slurm answers by a process of its own
            return slurm.allocations([self.number])[self.number].is_over

        self.until(is_over, "the allocation ends", seconds)

    def until(self, holds, what: str, seconds: float) -> None:
        try:
            until(holds, what, seconds)
        except TimeoutError as error:
            error.add_note(self.log())
            raise

    def assert_same_as_here(self) -> None:
        """Every result array holds the bytes that the serial executor computes on this machine."""
        here = str(self.path.with_suffix(".serial.zarr"))
        shutil.rmtree(here, ignore_errors=True)
        executor = SerialExecutor(1)
        with ONE_AT_A_TIME:
            local = open_or_create(read_job(self.path), str(self.lab.shared), "job", here, executor)
        assert not run_shards(local, executor).failed
        there = Store.open(self.address)
        assert there.committed.numbers() == local.committed.numbers() != set(), self.log()
        for name in [*local.names(0), "status"]:
            a, b = np.asarray(local.array(0, name)[:]), np.asarray(there.array(0, name)[:])
            assert a.tobytes() == b.tobytes(), name

    def assert_nothing_left(self, number: str = "") -> None:
        """No process and no file of the allocation on any node, no token on the shared file system.

        Slurm may kill a script that a busy machine keeps from its end: its token goes with the next allocation.
        """
        number = number or self.number
        for node in range(1, self.lab.nodes + 1):
            left = lambda n=node: self.lab.processes(n, f"SLURM_JOB_ID={number}")
            until(
                lambda left=left: not left(), f"nothing of allocation {number} runs on n{node}", 300
            )
            files = list(self.lab.tmp(node).glob(f"ctd-{number}"))
            assert not files, f"n{node}: {files}"
        history, left = self.history(), (self.lab.shared / "work").glob(f"token-*-{number}")
        assert history.count("ended") < history.count("started") or not list(left), self.log()
