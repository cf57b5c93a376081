"""Talk to Slurm: run its commands, submit a batch script, and put the states of allocations into words."""

import json
import os
import re
import subprocess
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from cluster.profiles import SlurmProfile
from cluster.slurm.script import memory_mb
from jobs.errors import JobError, count, nearest

TRIES = 4
"""Attempts to reach a busy controller, with waits of 1, 2 and 4 s in between."""

BUSY = r"(?i)unable to contact|timed out|try again|connect|no answer"
"""Error messages when the controller cannot be reached or does not answer in time."""

UNSENT = r"(?i)connect failure"
"""Error messages when the controller was not reached, and so has done nothing."""

UNREACHED = rf"{BUSY}|configuration source|munge|authentication error|^SLURM_CONF"
"""Error messages when no controller was reached, as on a machine that belongs to no cluster."""


@dataclass(frozen=True)
class Allocation:
    """One allocation, as Slurm describes it."""

    number: str
    state: str
    """Slurm's word: PENDING, RUNNING, COMPLETED, TIMEOUT, ...; CANCELLING while one that was cancelled ends."""
    text: str
    """The state for people; for a waiting allocation, with the reason and the estimated start."""
    output: str = ""
    """The file into which it prints, which may have %j and the like."""

    @property
    def is_over(self) -> bool:
        """Return whether the allocation has ended for good."""
        goes_on = "PENDING", "RUNNING", "COMPLETING", "CANCELLING", "SUSPENDED", "CONFIGURING"
        return self.state not in goes_on


def command(
    *arguments: str, text: str | None = None, again: str = BUSY, patience_s: float = 60
) -> str:
    """Run a Slurm command and return what it prints. SlurmError if it fails, another JobError if there is none on this machine.

    text: its standard input. again: pattern of the error messages after which it is tried again (see TRIES). patience_s: longest
    wait for an answer.
    """
    # Slurm's commands wait a minute for the file.
    if (conf := os.environ.get("SLURM_CONF")) and not Path(conf).exists():
        raise SlurmError(arguments[0], f"SLURM_CONF: there is no file {conf}")
    for attempt in range(TRIES):
        try:
            return subprocess.run(
                arguments,
                input=text,
                capture_output=True,
                text=True,
                check=True,
                timeout=patience_s,
            ).stdout
        except FileNotFoundError:
            raise JobError(f"{arguments[0]}: not found; run ctd on a login node of Slurm") from None
        except subprocess.TimeoutExpired:
            complaint = f"no answer within {patience_s:g} s"
        except subprocess.CalledProcessError as error:
            complaint = error.stderr.strip()
        # Any other message is an answer of the controller, and would be the same again.
        if not re.search(again, complaint):
            break
        if attempt < TRIES - 1:
            time.sleep(2.0**attempt)
    raise SlurmError(arguments[0], complaint)


class SlurmError(JobError):
    """A Slurm command failed; `complaint` is its error message."""

    def __init__(self, program: str, complaint: str) -> None:
        self.complaint, self.unreached = complaint, bool(re.search(UNREACHED, complaint))
        lines, silent = [line.removeprefix(f"{program}: ") for line in complaint.splitlines()], ""
        if self.unreached:
            silent = "Slurm does not answer here (are you on a login node? is SLURM_CONF set?): "
            lines = lines[-1:]  # of those that follow from each other, the last one says most
        super().__init__(f"{silent}{program}: {'\n'.join(lines)}")


# --- submission -----------------------------------------------------------------------------------------

REFUSALS = {
    "Invalid account": "account: {account} is not one of yours for this partition; `sacctmgr show "
    "assoc user=$USER format=account,partition,qos` lists them",
    "Invalid qos": "qos: {qos} is not one of yours; `sacctmgr show assoc user=$USER format=account,qos` "
    "lists them",
    "Invalid feature": "constraint: no node has the feature {constraint}; `sinfo -o '%P %f'` lists them",
    "Requested time limit is invalid": "time: {time} is more than the partition allows",
    "Memory specification": "memory_gb: no node of the partition has {memory_gb} GB{most}",
    "Requested node configuration is not available": "no node of the partition has cpus: {cpus}, gpus: {gpus} "
    "and memory_gb: {memory_gb} at once, or it has fewer nodes than {nodes}{most}; `sinfo -N -o '%N %P %c %m %G'` "
    "lists what there is",
    "allocate resources": "the cluster does not take it now: {complaint}",
}


def submit(script: str, profile: SlurmProfile, label: str, home: str) -> str:
    """Submit a batch script whose output goes to the folder `home`; return the allocation's id.

    Raises JobError if Slurm refuses it, if possible with the profile's field at fault, or does not say whether it took it.
    """
    try:
        # A controller that has not answered in time may have queued the job: another sbatch would queue it twice.
        answer = command("sbatch", "--parsable", text=script, again=UNSENT)
        return answer.strip().partition(";")[0]
    except SlurmError as error:
        if re.search(BUSY, error.complaint) and not re.search(UNSENT, error.complaint):
            if number := _queued(home):
                return number
            raise JobError(
                f"{label}: {error}; the job may be queued or not. `squeue --me` lists your jobs; nothing records a new one there, "
                "so `scancel` it and `ctd submit` again"
            ) from None
        raise _refused(error, profile, label) from None


def try_out(script: str, profile: SlurmProfile, label: str) -> str:
    """Ask Slurm whether it would take a batch script; nothing is queued. Return why the job would wait, if nodes that are not
    up keep it from starting. Raises JobError, as `submit` does, if Slurm would refuse it.
    """
    try:
        command("sbatch", "--test-only", text=script)
    except SlurmError as error:
        # Such a complaint passes: a job that is submitted waits.
        if re.search(r"(?i)busy|down, drained", error.complaint):
            return ""
        # In a test, unlike at a submission, Slurm counts nodes that are not up as if there were none.
        if "configuration is not available" in error.complaint and (down := _down(profile)):
            return f"{label}: Slurm would queue the job, and it waits for nodes that are not up: {', '.join(down)}"
        raise _refused(error, profile, label) from None
    return ""


DOWN = r"down|drain|fail|error|inval|maint|reboot|power|unk|\*"
"""Slurm's words for nodes that take no job now; with a star behind any state they do not answer."""


def _down(profile: SlurmProfile) -> list[str]:
    """Return "NAME (STATE)" of the partition's nodes that are not up and have, as configured, what the profile asks for."""
    return [
        f"{node.name} ({node.state})"
        for node in nodes(profile)
        if re.search(DOWN, node.state)
        and (node.cpus >= profile.cpus and node.memory_mb >= memory_mb(profile))
        and node.n_gpus() >= profile.n_gpus()
    ]


def _refused(error: SlurmError, profile: SlurmProfile, label: str) -> JobError:
    """Return the error for a refusal of sbatch; it names the field of the profile at fault, if that is known."""
    for pattern, words in REFUSALS.items():
        if pattern.lower() in error.complaint.lower():
            most = _most(profile) if "{most}" in words else ""
            fields = profile.model_dump() | {"complaint": error.complaint, "most": most}
            text = words.format_map({k: v if v is not None else "none" for k, v in fields.items()})
            return JobError(f"{label}: {text}\n({error})")
    return JobError(f"{label}: {'' if error.unreached else 'not taken: '}{error}")


class Node(NamedTuple):
    """A node of the partition of a profile."""

    name: str
    state: str
    resources: str
    """Generic ones, such as GPUs."""
    cpus: int
    memory_mb: int

    def n_gpus(self) -> int:
        """The number of its GPUs of all types.

        >>> Node("n1", "idle", "gpu:a100:2(S:0-1),gpu,lustre:4", 8, 64000).n_gpus()
        3
        """
        return sum(int(n or 1) for n in re.findall(r"\bgpu\b(?:[^,(]*:(\d+))?", self.resources))


def nodes(profile: SlurmProfile) -> list[Node]:
    """Return the nodes of the profile's partition."""
    selection = [f"--partition={profile.partition}"] if profile.partition else []
    text = command("sinfo", "--noheader", "--Node", "--format=%N|%T|%G|%c|%m", *selection)
    rows = (line.replace("+", "").split("|") for line in text.splitlines())
    return list({n: Node(n, s, r, int(cpus), int(mb)) for n, s, r, cpus, mb in rows}.values())


def _most(profile: SlurmProfile) -> str:
    """The most that nodes of the profile's partition have; "" if Slurm does not say."""
    with suppress(JobError, ValueError):
        if partition_nodes := nodes(profile):
            each = ((node.memory_mb, node.cpus, node.n_gpus()) for node in partition_nodes)
            mb, cpus, gpus = map(max, zip(*each, strict=True))
            gb = mb * 10 // 1024 / 10
            return f" (its nodes have at most {count(cpus, 'CPU')}, {gb:g} GB ({mb} MB), {count(gpus, 'GPU')})"
    return ""


def lies_in(folder: str, output: str) -> bool:
    """Return whether Slurm's name of a file lies in a folder; some versions give it as it was written, with %% for %."""
    return output.startswith((f"{folder}/", f"{folder}/".replace("%", "%%")))


def _queued(home: str) -> str | None:
    """Return the id of the allocation whose output goes to the folder `home`; None if Slurm shows none."""
    for attempt in range(TRIES - 1):
        time.sleep(2.0**attempt)  # a busy controller may queue it after sbatch has given up
        try:
            answer = command("squeue", "--json", "--me", "--states=all")
        except SlurmError:
            return None
        for job in json.loads(answer)["jobs"]:
            if lies_in(home, str(job.get("standard_output"))):
                return _label(job).partition("_")[0]
    return None


def check_partition(profile: SlurmProfile, label: str) -> None:
    """Raise JobError if no partition of the profile can run what it asks for; many clusters would let it wait forever.

    Slurm is asked, since it may not answer, even if the profile names no partition.
    """
    listed = json.loads(command("scontrol", "show", "partition", "--json"))["partitions"]
    partitions = {partition["name"]: partition for partition in listed}
    if profile.partition is None:
        return
    names = profile.partition.split(",")
    for name in names:
        if name not in partitions:
            raise JobError(f"{label}: partition: there is no {name!r}{nearest(name, partitions)}")
    refusals = [_refusal(profile, partitions[name]) for name in names]
    if all(refusals):
        raise JobError("\n".join(f"{label}: {refusal}" for refusal in refusals))


def _refusal(profile: SlurmProfile, partition: Mapping[str, Any]) -> str:
    """Why a partition does not take what the profile asks for; "" if it does."""
    name, limit = partition["name"], partition["maximums"]["time"]
    # A qos may override the limit. The account is Slurm's to judge: it may be the default one, or one below an allowed one.
    if limit["set"] and not profile.qos and profile.time_s() > limit["number"] * 60:
        most = count(limit["number"], "minute")
        return f"time: {profile.time} is over the limit of partition {name}, {most}"
    if profile.nodes > (total := partition["nodes"]["total"]):
        return f"nodes: {profile.nodes} wanted, partition {name} has {total}"
    return ""


# --- states -----------------------------------------------------------------------------------------------

REASONS = {
    "Resources": "for {wanted} in partition {partition}",
    "Priority": "behind jobs of higher priority in partition {partition}",
    "Dependency": "for another job to end",
    "DependencyNeverSatisfied": "for ever: the job it depends on failed",
    "BeginTime": "for its start time (after a requeue, up to two minutes)",
    "JobHeldUser": "because you hold it: `scontrol release {number}`",
    "JobHeldAdmin": "because an administrator holds it",
    "PartitionTimeLimit": "for ever: its time limit is over that of partition {partition}",
    "PartitionNodeLimit": "for ever: partition {partition} has too few nodes for it",
    "PartitionDown": "for partition {partition} to be switched on",
    "PartitionInactive": "for partition {partition} to be switched on",
    "ReqNodeNotAvail": "for nodes that are down or reserved",
    "Reservation": "for its reservation",
    "Licenses": "for a licence",
    "None": "to be looked at",
    "Cleaning": "for its last run to be cleaned up",
    "NodeDown": "for a node that is down",
    "BadConstraints": "for ever: no node meets its constraints",
    "AccountNotAllowed": "for ever: partition {partition} does not take its account",
    "InvalidAccount": "for ever: its account is not valid",
    "InvalidQOS": "for ever: its qos is not valid",
    "JobArrayTaskLimit": "for other tasks of its array",
}

STATES = {
    "RUNNING": "running on {nodes}",
    "COMPLETING": "ending on {nodes}",
    "CANCELLING": "cancelled, ending on {nodes}",
    "CONFIGURING": "waiting for {nodes} to boot",
    "COMPLETED": "ended in order",
    "FAILED": "ended with exit code {code}",
    "TIMEOUT": "stopped by its time limit",
    "CANCELLED": "cancelled; `ctd submit` continues it",
    "PREEMPTED": "preempted by another job",
    "NODE_FAIL": "lost a node ({nodes})",
    "OUT_OF_MEMORY": "used more memory than allocated",
    "BOOT_FAIL": "its nodes did not boot",
}


LOOK_S = 5.0
"""Longest wait for Slurm's answer where somebody only looks (s)."""

NEVER = "(?!)"
"""A pattern that matches nothing."""


def allocations(numbers: Iterable[str], *, patient: bool = True) -> dict[str, Allocation]:
    """Return {id: allocation} as Slurm knows them, from one query; those that it has forgotten are left out.

    patient: ask a busy controller again; else ask once, for at most `LOOK_S`.
    """
    ids = sorted(set(numbers))
    if not ids:
        return {}
    # squeue and not sacct, which needs a database of jobs that a cluster may lack.
    try:
        query = ("squeue", "--json", "--states=all", f"--jobs={','.join(ids)}")
        answer = command(*query) if patient else command(*query, again=NEVER, patience_s=LOOK_S)
    except SlurmError as error:
        # Slurm's complaint once it has forgotten all of them, minutes after their end.
        if "Invalid job id" in error.complaint:
            return {}
        raise
    translated = [translate(job) for job in json.loads(answer)["jobs"]]
    return {allocation.number: allocation for allocation in translated}


def translate(job: Mapping[str, object]) -> Allocation:
    """Return one entry of `squeue --json` as an Allocation."""
    # Newer versions give a list, the state and then flags: COMPLETING stands behind the state in which a job ended, CONFIGURING
    # behind RUNNING.
    job_state = job["job_state"]
    states = job_state if isinstance(job_state, list) else [str(job_state)]
    state = next((s for s in states if s in ("COMPLETING", "CONFIGURING")), states[0])
    if state == "COMPLETING" and "CANCELLED" in states:
        state = "CANCELLING"
    number = _label(job)
    code: Any = job.get("exit_code")
    if not isinstance(code, Mapping):
        code = {"return_code": code}
    fields = {
        "number": number,
        "partition": job["partition"],
        "nodes": job.get("nodes") or "no node",
        "wanted": _requested(str(job.get("tres_req_str", ""))),
        "code": _number(code.get("return_code")),
    }
    text = STATES.get(state, state.lower()).format_map(fields)
    if state == "FAILED" and (signal := _number((code.get("signal") or {}).get("id"))):
        text = f"ended by signal {signal}"
    if state == "PENDING":
        text = _waiting(str(job.get("state_reason") or "None"), fields)
        if start := _number(job.get("start_time")):
            text += f", estimated start {time.strftime('%Y-%m-%d %H:%M', time.localtime(start))}"
    return Allocation(number, state, text, str(job.get("standard_output") or ""))


def _waiting(reason: str, fields: Mapping[str, object]) -> str:
    """Return, in words, the reason for which an allocation waits."""
    if reason in REASONS:
        return f"waiting {REASONS[reason].format_map(fields)}"
    if reason.startswith(("QOS", "Assoc", "MaxJobs")):
        return f"waiting: a limit of your account or qos is reached ({reason})"
    return f"waiting ({reason})"


def _label(job: Mapping[str, object]) -> str:
    """Return the allocation's id; ARRAY_TASK for a task of an array, ARRAY_[0-3] for tasks that wait together."""
    task = job.get("array_task_id")
    if isinstance(task, Mapping) and task.get("set"):
        return f"{_number(job.get('array_job_id'))}_{task['number']}"
    # scancel takes no %, behind which is how many may run at a time.
    waiting = str(job.get("array_task_string") or "").partition("%")[0]
    return f"{job['job_id']}_[{waiting}]" if waiting else str(job["job_id"])


def _requested(resources: str) -> str:
    """ "cpu=8,mem=9G,node=2,gres/gpu=4" -> "4 GPUs"; the number of nodes if no GPUs are wanted."""
    amounts = dict(part.split("=", 1) for part in resources.split(",") if "=" in part)
    for key, unit in (("gres/gpu", "GPU"), ("node", "node")):
        if n := int(amounts.get(key, "0")):
            return count(n, unit)
    return "resources"


def _number(value: Any) -> int:
    """Return a number in Slurm's JSON, which since 23.02 may be {set, infinite, number}; 0 if not set."""
    if isinstance(value, Mapping):
        return int(value["number"]) if value.get("set") else 0
    return int(value or 0)
