"""The batch script of a Slurm allocation: a readable head made from the profile, then allocation.sh.

The script makes a token, finds free ports, starts a Ray head and its workers as steps of the allocation,
runs the driver, and tears the steps down. If the driver exits with 75, it goes on in another allocation.
Comments in allocation.sh explain each choice that is not obvious.
"""

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from cluster.profiles import SlurmProfile

BODY = Path(__file__).with_name("allocation.sh")


PARTS_EACH = 4
"""Parts of the store per allocation of an array: the more, the more evenly the remaining ones are shared."""


def options(profile: SlurmProfile, name: str, home: Path, array: int | None = None) -> list[str]:
    """The sbatch options, in the order of the script; see `script` for the arguments."""
    option_values: dict[str, object] = {
        "job-name": name,
        "partition": profile.partition,
        "account": profile.account,
        "qos": profile.qos,
        "constraint": profile.constraint,
        "array": f"0-{array - 1}" if array else None,
        "nodes": profile.nodes,
        "ntasks-per-node": 1,
        "cpus-per-task": profile.cpus,
        "gpus-per-node": profile.gpus or None,
        "mem": f"{memory_mb(profile)}M",
        "time": profile.time,
        # B: signals the batch shell alone. It stops the driver, and Ray stays up until the driver ended.
        "signal": f"B:USR1@{profile.grace_s}",
        # A requeued allocation keeps its number: its output follows that of the times before, in the same file.
        "open-mode": "append",
        # Slurm replaces % and a letter, in names of folders too.
        "output": f"{home}/".replace("%", "%%") + ("slurm-%A_%a.out" if array else "slurm-%j.out"),
    }
    lines = [
        f"--{key}={_quoted(value)}" for key, value in option_values.items() if value is not None
    ]
    lines.append("--requeue" if profile.go_on == "requeue" else "--no-requeue")
    return lines + profile.sbatch


def script(
    profile: SlurmProfile,
    name: str,
    home: Path,
    run: Sequence[str],
    array: int | None = None,
    folders: Sequence[Path] = (),
) -> str:
    """The whole batch script.

    Args:
        name: the job's name in squeue.
        home: folder of the submission, on the shared file system.
        run: the driver's command; the script adds `--address HOST:PORT`.
        array: number of one-node allocations that share the store; None for a single allocation.
        folders: those of the job and of its stores, which a container must see beside `home` and `work_dir`.
    """
    folder = profile.folder()
    lines = [
        "#!/bin/bash -l",  # as `check_python` tries it: `module` is a function of login shells
        *(f"#SBATCH {option}" for option in options(profile, name, home, array)),
        "",
    ]
    lines += prologue(profile, [folder, home, *folders])
    for key, value in {
        "home": home,
        "work_dir": folder,
        "python": interpreter(profile) or "",
        "memory_mb": memory_mb(profile),
        "max_allocations": profile.max_allocations,
        "go_on": profile.go_on,
    }.items():
        lines.append(f"{key}={shlex.quote(str(value))}")
    lines.append(f"export CTD_CACHE={shlex.quote(str(profile.cache()))}")
    lines.append(f'run=("${{inside[@]}}" {shlex.join(run)})')
    if array:
        # Each allocation begins at parts of its own; then it takes those that no living driver holds (jobs.run.shards).
        first = f"$((SLURM_ARRAY_TASK_ID * {PARTS_EACH}))"
        lines.append(f'run+=(--parts "{first}/{array * PARTS_EACH}")')
    lines.append("")
    return "\n".join(lines) + BODY.read_text()


def prologue(profile: SlurmProfile, folders: Sequence[Path] = ()) -> list[str]:
    """The shell lines that make ctd and ray runnable: modules, PATH, setup lines, environment, container.

    folders: those that a container must see. The script's commands of ctd and ray begin with "${inside[@]}".
    """
    python = Path(profile.python or sys.executable)
    path = f'export PATH={shlex.quote(str(python.parent))}:"$PATH"'
    return [
        'unset "${!RAY_@}"  # of the shell that submitted: it may point to another Ray',
        *(f"module load {shlex.quote(module)}" for module in profile.modules),
        *([] if profile.container else [path]),
        *profile.setup,
        *(f"export {key}={shlex.quote(text)}" for key, text in profile.environment.items()),
        f"inside=({shlex.join(in_container(profile, folders))})",
    ]


def interpreter(profile: SlurmProfile) -> Path | None:
    """The interpreter that nodes must have; None where a container, modules or setup lines may lead to another one."""
    elsewhere = profile.container or profile.modules or profile.setup
    return Path(profile.python or sys.executable) if profile.python or not elsewhere else None


def in_container(profile: SlurmProfile, folders: Sequence[Path]) -> list[str]:
    """The words that go before a command that runs in the profile's container; none without one."""
    if profile.container is None:
        return []
    # Ray's own folder lies in /tmp, which an administrator may have taken from what every container sees.
    visible = dict.fromkeys(["/tmp", *map(str, folders), *profile.bind])  # noqa: S108
    binds = [folder if ":" in folder else f"{folder}:{folder}" for folder in visible]
    words = list[str]()
    for word in profile.launcher:
        word = word.replace("{image}", str(profile.image() or profile.container))
        word = word.replace("{binds}", ",".join(binds))
        words += [word.replace("{bind}", bind) for bind in binds] if "{bind}" in word else [word]
    return words


def memory_mb(profile: SlurmProfile) -> int:
    """Memory of a node in Slurm's megabytes, of which its gigabyte has 1,024."""
    return int(profile.memory_gb * 1024)


def _quoted(value: object) -> str:
    """The value as sbatch reads it: outside of quotes # begins a comment there, and ' a quote."""
    text = str(value)
    if re.fullmatch(r"[\w./:@%+,=-]*", text):
        return text
    return '"' + text.replace("\\", r"\\").replace('"', r"\"") + '"'
