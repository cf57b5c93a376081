"""What happens to allocations on a real Slurm, each told by a function (lab) -> what the tests look at."""

import os
import re
import shlex
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import lean_ray
import pytest
from places import SUPPORT
from slurm_lab import Sent, job, profile, send

from cluster.record import submissions
from cluster.slurm import client as slurm
from cluster.tracking import cancel, look
from jobs import Store
from jobs.errors import JobError
from jobs.store.events import read_events

PATIENCE_S = 900
"""Until a step of a story has failed: far beyond Slurm's clocks, whose minutes a busy machine stretches."""


# Functions of the shell. Ray without its dashboard's agents and its server for clients, whose port it takes for a fault: three
# Python processes on a head and one on another node. One of the two submissions, and the stories of Slurm's own time limit and of what ends on its own, have all of it.
_NO_CLIENTS = "${@/#--ray-client-server-port=*/--log-color=false}"
EXEC_LEAN = f'exec {shlex.join(lean_ray.COMMAND)} "{_NO_CLIENTS}"'
LEAN = f"ray() {{ {EXEC_LEAN}; }}; export -f ray"
# In the place of Ray's head and of the driver, where a story begins once these have ended: one that is up at once and ends
# when it is told to, and one that has computed nothing.
NO_RAY = (
    'ray() { mkdir "$own_tmp/ray"; echo up >"$own_tmp/ray/ray_current_cluster"; echo "Ray runtime started"; '
    "exec sleep infinity; }; export -f ray"
)
ENDS_EARLY = [NO_RAY, "ctd() { return 75; }"]
WAITS = [
    NO_RAY,
    'ctd() { touch "$home/runs"; trap "exit 75" TERM USR1; while :; do sleep 0.2; done; }',
]
# In the place of Slurm's commands: a busy controller that has queued the job when its answer comes
# too late (the next driver outlasts the pause before Slurm is asked for it), and one that does nothing the first time.
_FIRST = '[ -e "$home/asked" ] || { touch "$home/asked"; return 1; }'
ANSWERS_LATE = (
    'sbatch() { command sbatch "$@" >/dev/null; return 1; }; ctd() { sleep 15; return 75; }'
)
ANSWERS_AGAIN = f'sbatch() {{ {_FIRST}; command sbatch "$@"; }}'
REQUEUES_AGAIN = f'scontrol() {{ [ "$1" != requeue ] || {_FIRST}; command scontrol "$@"; }}'
# Ones that do not answer before somebody cancels the job: what was asked for is refused, or done all the same.
_CANCELLED = 'touch "$home/asked"; until [ -e "$home/cancelled" ]; do sleep 0.2; done'
_REFUSED = f'[ -e "$home/asked" ] || {{ {_CANCELLED}; return 1; }}'
CANCELLED_AND_REFUSED = f'sbatch() {{ {_REFUSED}; command sbatch "$@"; }}'
CANCELLED_AND_DONE = f'sbatch() {{ {_CANCELLED}; command sbatch "$@"; }}'
CANCELLED_NO_REQUEUE = f'scontrol() {{ [ "$1" != requeue ] || {_REFUSED}; command scontrol "$@"; }}'


def on(*nodes):
    """Options of a profile: these nodes and no others."""
    return {"nodes": len(nodes), "sbatch": [f"--nodelist={','.join(f'n{n}' for n in nodes)}"]}


def lean_on(*nodes):
    """The same, with a Ray that starts sooner."""
    return {**on(*nodes), "setup": [LEAN]}


def time_limit(go_on, lab, unheard=False):
    """The time limit comes while the job is at the gate, which opens once it was left at a checkpoint.

    unheard: Slurm's signal before the limit is one that nobody waits for.
    """
    where = on(8 if unheard else 3)
    where["sbatch"] += ["--signal=B:URG@30"] * unheard
    if go_on == "requeue":  # in steps to which options of srun are added, as those of Pyxis are
        where |= {
            "container": "docker:lab/ctd:1", "launcher": ["srun", "--comment={image} {binds}"],
            "setup": [f"export PATH={Path(sys.executable).parent}:$PATH"],
        }  # fmt: skip
    name = f"limit-{go_on}{'-unheard' * unheard}"
    with Sent(lab, job(lab, name), go_on=go_on, time=3, grace_s=30, **where) as sent:
        return went_on(sent)


def went_on(sent):
    """What became of a job at its gate, which a signal reaches: the gate opens once it was left at a checkpoint."""
    stops = lambda: [
        event.error for event in read_events(Store.open(sent.address)) if event.kind == "stopped"
    ]
    stopped = lambda: Store.exists(sent.address) and stops()
    sent.until(stopped, "the running shard is left at a checkpoint", PATIENCE_S)
    sent.gate.unlink()
    newest = lambda: submissions(sent.address)[-1].all_numbers()[-1]

    def over():  # a newer allocation may come between two lines
        if sent.history()[-1:] != ["ended"]:
            return False
        known = slurm.allocations([last := newest()])
        return last in known and known[last].is_over and sent.history()[-1:] == ["ended"]

    sent.until(over, "the last allocation ends", PATIENCE_S)
    last = newest()
    return SimpleNamespace(
        sent=sent, last=last, state=sent.state(last), history=sent.history(), left_at=stops()
    )


def container(lab):
    """Options of a profile: an image with this Python and Ray, run by the stand-in for apptainer; after the first Ray, a lean one.

    What Slurm does not hand on, the script and the profile set; how programs are compiled decides their bits.
    """
    (lab.shared / "bin").mkdir()
    (lab.shared / "bin" / "apptainer").symlink_to(SUPPORT / "apptainer.sh")
    (image_bin := lab.shared / "image").mkdir()
    whole, seen = shlex.quote(str(Path(sys.executable).parent / "ray")), image_bin / "seen"
    (image_bin / "ray").write_text(
        f'#!/bin/bash\n[ -e {seen} ] || {{ touch {seen}; exec {whole} "$@"; }}\n{EXEC_LEAN}\n'
    )
    (image_bin / "ray").chmod(0o755)
    image = lab.shared / "ctd.sif"
    image.write_text(f"{image_bin}:{Path(sys.executable).parent}:/usr/bin:/bin")
    return {
        "container": str(image), "launcher": ["apptainer", "exec", "--bind={bind}", "{image}"], "setup": [f"export PATH={lab.shared}/bin:/usr/bin:/bin", REQUEUES_AGAIN],
        "sbatch": ["--export=NONE"], "environment": {"XLA_FLAGS": os.environ.get("XLA_FLAGS", "")},
    }  # fmt: skip


def preemption(lab):
    """A job of higher priority takes the node."""
    with Sent(
        lab, job(lab, "preempted"), partition="low", memory_gb=7, grace_s=40, **on(4)
    ) as sent:
        sent.await_checkpoints()
        urgent = lab.run(
            "sbatch", "--parsable", "--partition=urgent", "--nodelist=n4", "--mem=7000M",
            "--output=/dev/null", "--wrap", "sleep 5",
        ).strip()  # fmt: skip
        sent.until(lambda: sent.state(urgent) == "COMPLETED", "the urgent job runs", PATIENCE_S)
        sent.gate.unlink()
        sent.until(lambda: sent.history().count("started") == 2, "the run starts again", PATIENCE_S)
        sent.await_end()
        return sent


def node_killed(lab):
    """A node loses power while both have a running shard."""
    with Sent(lab, job(lab, "killed", items=8), **lean_on(5, 6)) as sent:
        sent.await_checkpoints(2)
        lab.kill_node(6)
        sent.until(lambda: sent.state() != "RUNNING", "Slurm notices", PATIENCE_S)
        lab.start_node(6)
        sent.gate.unlink()
        sent.until(lambda: sent.history().count("started") == 2, "the run starts again", PATIENCE_S)
        sent.await_end()
        return sent


def two_submissions(lab):
    """Two jobs are at the gate on one node: one, which has a second node, is cancelled, with what is said before; the other,
    in a container, then gets the signal before its time limit, by our hand, and not by Slurm's clock. And one that waits.
    """
    jobs = [
        job(lab, name, seed, items) for name, seed, items in (("cancelled", 1, 8), ("beside", 2, 4))
    ]
    inside, where = container(lab), on(1)
    inside["sbatch"] += where["sbatch"]
    limit = {"go_on": "requeue", "grace_s": 30}
    with (
        Sent(lab, jobs[0], **lean_on(1, 2)) as sent,
        Sent(lab, jobs[1], **limit, **where | inside) as beside,
    ):
        waiting, _ = send(job(lab, "waiting"), profile(lab, "later", sbatch=["--hold"]))
        sent.await_checkpoints(2)
        beside.await_checkpoints()
        together = [sent.state(), beside.state()]
        with pytest.raises(JobError) as refused:
            send(sent.path, profile(lab))
        says = lambda address, number: look(address)[0][1][number].text
        before, said = says(sent.address, sent.number), cancel(sent.address)
        sent.await_end()
        held = str(lab.shared / "waiting.zarr")
        waits = says(held, waiting.numbers[0])
        ended = cancel(held), sent.state(waiting.numbers[0])
        undisturbed = beside.history()
        slurm.command("scancel", "--signal=USR1", "--batch", beside.number)
        return SimpleNamespace(
            sent=sent, together=together, refused=str(refused.value), before=before, said=said,
            waiting=waiting.numbers[0], waits=waits, ended=ended, undisturbed=undisturbed,
            beside=went_on(beside), inside=(lab.shared / "ctd.sif.log").read_text(),
        )  # fmt: skip


def array(lab, name, signal, told_of):
    """Three heads of one node each deal eight shards out. That of the array's own id gets a signal, and ends, before the others."""
    elsewhere = {
        "setup": [LEAN],
        "sbatch": ["--exclude=n[4-6]"],
    }  # those are taken whole, or lose their power
    with Sent(lab, job(lab, name, items=16), array=3, **elsewhere) as sent:
        sent.await_checkpoints(3)
        states = look(sent.address)[0][1]
        told = lab.run("scontrol", "show", "job", "-o", sent.number)
        ids = dict(re.findall(r"\bJobId=(\d+) .*?\bArrayTaskId=(\d+)", told))
        base = f"{sent.number}_{ids[sent.number]}"
        slurm.command("scancel", *signal, base)
        sent.until(lambda: told_of in sent.history(), f"it is {told_of}", PATIENCE_S)
        sent.gate.unlink()
        over = lambda: all(state.is_over for state in look(sent.address)[0][1].values())
        sent.until(over, "all allocations end", PATIENCE_S)
        return SimpleNamespace(
            sent=sent, running=states, ids=ids, base=base, states=look(sent.address)[0][1],
            events=submissions(sent.address)[-1].history(),
        )  # fmt: skip


def scancelled(lab, ray):
    """Slurm's own scancel, which Ray and the driver get at the same moment; an allocation before has left a token, and files on a node.

    Another one is of a cluster whose name begins with that of this one. The job's name has what means something to Slurm.
    ray: with a Ray and a driver, or with what waits in their place.
    """
    number = 999999 - ray
    old, other = (lab.shared / "work" / f"token-ctdlab-{left}{number}" for left in ("", "gpu-"))
    old.parent.mkdir(exist_ok=True)
    old.touch()
    other.touch()
    files, later = (lab.tmp(8 if ray else 2) / f"ctd-{left}" for left in (0, 999999))
    for folder in (files, later):
        folder.mkdir(exist_ok=True)
    nodes = (7, 8) if ray else (1, 2)
    setup = [LEAN] if ray else [NO_RAY, 'ctd() { touch "$home/runs"; exec sleep infinity; }']
    with Sent(lab, job(lab, f"it's#1-50%j-scancelled{ray:d}"), **on(*nodes), setup=setup) as sent:
        runs = lambda: Store.exists(sent.address) if ray else (sent.home / "runs").exists()
        sent.until(runs, "the driver runs", PATIENCE_S)
        slurm.command("scancel", sent.number)
        sent.await_end()
        return SimpleNamespace(sent=sent, old=(old, files), others=(other, later))


def stuck(lab, limit=False, busy=""):
    """Allocations that each end early and compute nothing: their driver says so at once, or the start alone fills a time limit.

    busy: a function of the shell, the `sbatch` of a controller that is busy. Slurm may send its signal a minute early: of a limit of one minute, before the allocation's script listens.
    """
    early = {"setup": [*ENDS_EARLY, *([busy] if busy else [])]}
    if limit:
        early = {"time": 2, "grace_s": 30, "environment": {"SLOW_START": "200"}}
    name = f"stuck{'-limit' * limit}{len(busy) or ''}"
    with Sent(lab, job(lab, name), go_on="chain", **early, **on(3)) as sent:
        sent.until(
            lambda: sent.history()[-1:] == ["stuck"], "no further allocation comes", PATIENCE_S
        )
        return SimpleNamespace(sent=sent, history=sent.history())


def unqueued(lab, array=None):
    """Slurm takes no further allocation, or requeues none of an array."""
    refuses = f"{'scontrol' if array else 'sbatch'}() {{ return 1; }}"
    setup = [*ENDS_EARLY, refuses, "sleep() { command sleep 0.2; }"]
    go_on = "requeue" if array else "chain"
    with Sent(lab, job(lab, f"unqueued-{go_on}"), array, go_on=go_on, setup=setup, **on(3)) as sent:
        over = lambda: sent.history().count("unqueued") == (array or 1)
        sent.until(over, "it gives up", PATIENCE_S)
        return SimpleNamespace(sent=sent, lines=submissions(sent.address)[-1].history())


def used_up(lab):
    """The only allocation that the profile allows ends before the job does."""
    with Sent(lab, job(lab, "used-up"), max_allocations=1, setup=ENDS_EARLY, **on(3)) as sent:
        sent.await_end(PATIENCE_S)
        return SimpleNamespace(sent=sent, history=sent.history())


def cancelled_between(lab, go_on, busy):
    """The driver has ended, and Slurm is asked for what comes next, when the job is cancelled.

    busy: a function of the shell, the command of Slurm's that is asked.
    """
    early = {"setup": [*ENDS_EARLY, busy], "go_on": go_on}
    with Sent(lab, job(lab, f"between-{go_on}-{len(busy)}"), **early, **on(3)) as sent:
        asked = sent.home / "asked"
        sent.until(asked.exists, "it asks for what comes next", PATIENCE_S)
        said = cancel(sent.address)
        sent.until(
            lambda: sent.history()[-1:] in (["cancelled"], ["stuck"]), "nothing follows", PATIENCE_S
        )
        return SimpleNamespace(sent=sent, history=sent.history(), said=said)


def ended_by_slurm(lab, how):
    """Slurm ends an allocation of a chain without the signal before: another job preempts it, or it loses a node."""
    where = on(8, 9) if how == "lost" else {**on(3), "partition": "low", "memory_gb": 5}
    where["sbatch"] += ["--signal=B:URG@30"]
    with Sent(lab, job(lab, f"{how}-chain"), go_on="chain", setup=WAITS, **where) as sent:
        sent.until((sent.home / "runs").exists, "the driver runs", PATIENCE_S)
        if how == "lost":
            lab.kill_node(9)
        else:
            lab.run(
                "sbatch", "--partition=urgent", "--nodelist=n3", "--mem=5000M",
                "--output=/dev/null", "--wrap", "sleep 5",
            )  # fmt: skip
        over = lambda: {"chained", "cancelled"} & set(sent.history())
        sent.until(over, "the allocation ends", PATIENCE_S)
        return SimpleNamespace(sent=sent, history=sent.history())


def _step(lab, sent, name):
    """The step of an allocation that has this name."""
    told = lab.run("squeue", "--steps", "-h", f"--jobs={sent.number}", "--format=%i %j")
    return next(line.split()[0] for line in told.splitlines() if line.endswith(f" {name}"))


def head_ended(lab, times):
    """The head of the Ray gets a TERM in mid-run, or several: what runs there ends first, the GCS a moment later."""
    with Sent(lab, job(lab, f"head-ended-{times}", items=8), cpus=2, **on(2)) as sent:
        sent.await_checkpoints(2)
        head = _step(lab, sent, "ray-head")
        for _ in range(times):
            lab.run("scancel", "--signal=TERM", head)
        sent.until(lambda: sent.history().count("started") == 2, "the run starts again", PATIENCE_S)
        sent.gate.unlink()
        sent.await_end()
        return SimpleNamespace(sent=sent, lines=submissions(sent.address)[-1].history())


def step_killed(lab):
    """The step of the second node is killed while both have a running shard."""
    with Sent(lab, job(lab, "step-killed", items=8), **on(5, 6)) as sent:
        sent.await_checkpoints(2)
        lab.run("scancel", "--signal=KILL", _step(lab, sent, "ray-workers"))
        sent.until(lambda: not lab.processes(6, f"SLURM_JOB_ID={sent.number}"), "it is gone", 60)
        sent.gate.unlink()
        sent.await_end()
        return SimpleNamespace(sent=sent, lines=submissions(sent.address)[-1].history())


def slurmd_killed(lab):
    """A node's daemon is killed, and Slurm gives the node up, while the run goes on there; the daemon comes back."""
    with Sent(lab, job(lab, "slurmd-killed", items=8), **on(7)) as sent:
        sent.await_checkpoints()
        lab.kill_slurmd(7)
        sent.until(lambda: sent.state() != "RUNNING", "Slurm notices", PATIENCE_S)
        lab.start_slurmd(7)
        sent.until(lambda: sent.history().count("started") == 2, "the run starts again", PATIENCE_S)
        sent.gate.unlink()
        sent.await_end()
        return SimpleNamespace(sent=sent, lines=submissions(sent.address)[-1].history())


STORIES = {
    "test_two_submissions_on_the_same_node": two_submissions,
    "test_no_progress_is_no_reason_to_go_on[limit]": partial(stuck, limit=True),
    "test_time_limit[requeue]": partial(time_limit, "requeue"),
    "test_node_killed": node_killed,
    "test_preemption": preemption,
    "test_time_limit[unheard]": partial(time_limit, "chain", unheard=True),
    "test_time_limit[chain]": partial(time_limit, "chain"),
    "test_array_shares_the_store": partial(array, name="array", signal=(), told_of="ended"),
    "test_array_whose_own_task_is_stopped_first": partial(
        array, name="array-stopped", signal=("--signal=USR1", "--batch"), told_of="requeued"
    ),
    "test_cancel": two_submissions,
    "test_no_progress_is_no_reason_to_go_on[at once]": stuck,
    "test_no_progress_is_no_reason_to_go_on[late]": partial(stuck, busy=ANSWERS_LATE),
    "test_no_progress_is_no_reason_to_go_on[again]": partial(stuck, busy=ANSWERS_AGAIN),
    "test_a_refused_allocation_is_told": unqueued,
    "test_the_last_allocation_asks_for_no_other": used_up,
    "test_tasks_of_an_array_are_told_apart": partial(unqueued, array=2),
    "test_cancel_between_two_allocations[refused]": partial(
        cancelled_between, go_on="chain", busy=CANCELLED_AND_REFUSED
    ),
    "test_cancel_between_two_allocations[done]": partial(
        cancelled_between, go_on="chain", busy=CANCELLED_AND_DONE
    ),
    "test_cancel_between_two_allocations[requeue]": partial(
        cancelled_between, go_on="requeue", busy=CANCELLED_NO_REQUEUE
    ),
    "test_a_chain_goes_on_after_slurm_ends_it[preempted]": partial(ended_by_slurm, how="preempted"),
    "test_a_chain_goes_on_after_slurm_ends_it[lost]": partial(ended_by_slurm, how="lost"),
    "test_part_of_it_ends[head]": partial(head_ended, times=1),
    "test_part_of_it_ends[head told often]": partial(head_ended, times=5),
    "test_part_of_it_ends[step]": step_killed,
    "test_part_of_it_ends[slurmd]": slurmd_killed,
    "test_scancel_leaves_nothing[no ray]": partial(scancelled, ray=False),
    "test_scancel_leaves_nothing[ray]": partial(scancelled, ray=True),
}
"""What each test looks at, the longest first."""
