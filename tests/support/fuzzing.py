"""Damaged inputs given to `ctd`, each in a process forked from one that has imported everything.

Table      a kind of input: draws one from a seed, and the command that reads it
Fork       runs such commands; what a process did is its Outcome
complaint  which promise an Outcome breaks: a line of error, exit 2, 10 s, a gigabyte, nothing written elsewhere
of_bytes, of_tree  mutations of any file, and of anything that JSON or YAML can hold
"""

import atexit
import copy
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from failing import Failing, holds

from jobs import keys
from jobs.gather.gather import gather
from jobs.run.prepare import open_or_create
from jobs.run.shards import run_shards
from jobs.run.worker import SerialExecutor
from jobs.spec.job import parse_job
from jobs.storage import objects
from jobs.storage.checksums import checksummed, digest
from jobs.store.live import Growing

LIMIT_S = 10.0
"""Most seconds of processor time for a refusal: the machine may be busy."""
WORK_S = 30.0
"""The same for a command that finds nothing wrong: it imports and compiles, about 10 s of a busy machine."""
PATIENCE_S = 180.0
"""After this, a command that waits for something counts as hanging."""
LIMIT_MB = 1000
ADDRESSES = 4 << 30
"""Bytes of address space beyond those of the process that is forked: what asks for more would fail on a small machine."""
FAULT_LINES = 20
"""Most lines of an error about a job file, a line for each fault; jobs.errors.Faults has the same number."""


class Table(NamedTuple):
    """One kind of input."""

    draw: Callable[[random.Random, Path], list[str]]
    """Writes an input into a folder and returns the words of the command that reads it there."""
    lines: int = 1
    """Most lines of an error."""
    codes: tuple[int, ...] = (0, 2)
    """Exit codes; 0, because some mutations do no harm; 1 is that of a finding, of which standard output tells."""


class Outcome(NamedTuple):
    """What a command did."""

    code: int
    """Exit code; the signal below zero if it was ended because it took too long."""
    seconds: float
    """Of the processor."""
    peak_mb: float
    told: str
    """Its standard error."""
    wrote: list[str]
    """What it opened for writing, made, moved or removed, or whom it called, outside of its folder."""


def complaint(outcome: Outcome, table: Table) -> str:
    """Which promise is broken; empty if none is."""
    # A command that takes more than a second, as on a busy machine, says what it is at.
    lines = [line for line in outcome.told.splitlines() if line and line != "planning"]
    if outcome.code < 0 or outcome.seconds > (WORK_S if outcome.code == 0 else LIMIT_S):
        return f"took {outcome.seconds:.1f} s: {outcome.told[-1500:]}"
    if outcome.code not in table.codes or "Traceback" in outcome.told:
        return f"exit code {outcome.code}: {outcome.told[-1500:]}"
    if outcome.code > 1 and not 1 <= len(lines) <= table.lines:
        return f"{len(lines)} lines of error: {outcome.told[:1500]}"
    if outcome.peak_mb > LIMIT_MB:
        return f"took {outcome.peak_mb:.0f} MB: {outcome.told[:300]}"
    return f"touched {outcome.wrote}" if outcome.wrote else ""


class Fork:
    """A process that has imported ctd's commands, and runs each command in a fork of its own.

    home: a fresh folder, in which commands find their settings, caches and temporary files.
    """

    def __init__(self, home: Path):
        names = ("HOME", "TMPDIR", "XDG_CONFIG_HOME")
        places = {name: str(home / name.lower()) for name in names}
        for place in places.values():
            Path(place).mkdir(parents=True)
        Path(os.environ.setdefault("CTD_CACHE", str(home / "cache"))).mkdir(exist_ok=True)
        one_thread = {"OPENBLAS_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"}
        self._process = subprocess.Popen(
            # pyarrow has threads of its own, of which Python warns at a fork; they hold no locks of ours.
            [sys.executable, "-W", "ignore:This process:DeprecationWarning", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | places | one_thread,
        )  # fmt: skip

    def run(self, words: list[str], folder: Path) -> Outcome:
        """Run `ctd WORDS` in a folder, and wait for its end."""
        assert self._process.stdin
        assert self._process.stdout
        print(json.dumps([words, str(folder)]), file=self._process.stdin, flush=True)
        return Outcome(*json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """End it."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(PATIENCE_S)


def broken(fork: Fork, table: Table, folder: Path, seeds: Iterable[int]) -> dict[int, str]:
    """Seed -> which promise the command broke on the input that it draws."""
    found, read = {}, 0
    for seed in seeds:
        place = folder / str(seed)
        place.mkdir()
        words = table.draw(random.Random(seed), place)
        outcome = fork.run(words, place)
        read += outcome.code == 0
        if told := complaint(outcome, table):
            found[seed] = f"ctd {' '.join(words)}: {told}"
    # Else a fault of the inputs before they are damaged would hide all others.
    return found if read else {-1: "no input was read to its end"}


# --- mutations ----------------------------------------------------------------------------------------------------

HUGE = (2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1, 10**15)


def of_bytes(rng: random.Random, data: bytes) -> bytes:
    """The bytes cut, flipped, doubled, or with a huge number somewhere; or others altogether."""
    kind, here = rng.randrange(8), rng.randrange(len(data) + 1)
    if kind == 0:
        return data[:here]
    if kind == 1:
        return data[:here] + rng.randbytes(rng.randrange(1, 64)) + data[here:]
    if kind == 2:
        return data[here:] + data[:here]
    if kind == 3:
        return rng.choice([b"", b"\0" * 100, rng.randbytes(1000), b"[" * 5000, b"{}", b"null"])
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 3, 30])):
        at = rng.randrange(max(1, len(changed) - 8))
        if kind in (4, 5):
            changed[at : at + 1] = rng.randbytes(1)
        elif kind == 6:
            changed[at : at + 8] = rng.choice(HUGE).to_bytes(8, rng.choice(["little", "big"]))
        else:
            changed[at : at + 16] = b"\0" * 16
    return bytes(changed)


STRANGE: tuple[Any, ...] = (
    None, True, 0, -1, 0.5, 10**15, 2**63, -(10**30), 10**400, float("nan"), float("inf"), "", "abc", "a.b", "/",
    "\n\0", "\ud7ff", "x" * 10_000, [], [[]], [1, "a"], {}, {"a": {}}, {"": 1}, [0] * 1000, {"range": 10**15},
)  # fmt: skip


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """(container, key) of everything in a tree."""
    if isinstance(tree, dict):
        here = [(tree, key) for key in tree]
    else:
        here = [(tree, k) for k in range(len(tree))] if isinstance(tree, list) else []
    return here + [found for inner, key in here for found in _places(inner[key])]


def of_tree(rng: random.Random, tree: Any) -> Any:
    """A copy in which something is missing, strange, elsewhere, deep, or under another name."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        places = _places(tree)
        if not places:
            return rng.choice(STRANGE)
        inner, key = rng.choice(places)
        kind = rng.randrange(7)
        if kind < 3:
            inner[key] = copy.deepcopy(rng.choice(STRANGE))
        elif kind == 3:
            del inner[key]
        elif kind == 4:
            other, name = rng.choice(places)
            inner[key] = copy.deepcopy(other[name])
        elif kind == 5:
            for _ in range(rng.choice([1, 200])):
                inner[key] = [inner[key]] if rng.random() < 0.5 else {"a": inner[key]}
        elif isinstance(inner, dict):
            inner[rng.choice(["", "x", f"{key}_", 1, None, "a.b"])] = inner.pop(key)
    return tree


# --- the process that is forked -----------------------------------------------------------------------------------

WRITES = {
    "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.utime",
    "shutil.rmtree",
}  # fmt: skip
CALLS = {"os.exec", "os.posix_spawn", "os.system", "socket.connect", "subprocess.Popen"}


def _report_writes(handle: int, allowed: tuple[str, ...]) -> None:
    """Have this process write a line to a file for everything that it changes elsewhere."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        found: list[Any] = []
        if event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            found = [arguments[0]]
        elif event in WRITES:
            found = [each for each in arguments if isinstance(each, str | os.PathLike)]
        elif event in CALLS:
            found = [str(arguments)]
        for path in found:
            where = os.path.realpath(os.fsdecode(path)) if not isinstance(path, int) else ""
            fine = where in allowed or where.startswith(tuple(f"{a}{os.sep}" for a in allowed))
            if where and not fine and not where.endswith(".pyc"):
                os.write(handle, f"{event} {path!r}\n".encode(errors="backslashreplace"))

    sys.addaudithook(hook)


def _become(words: list[str], folder: str, said: Any, wrote: Any) -> None:
    """Be the command; does not return."""
    os.setsid()
    os.chdir(folder)
    nothing = os.open(os.devnull, os.O_RDWR)
    for number, to in enumerate((nothing, nothing, said.fileno())):
        os.dup2(to, number)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + ADDRESSES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (int(WORK_S) + 1, int(WORK_S) + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    homes = [os.environ[name] for name in ("TMPDIR", "CTD_CACHE")]
    allowed = [os.path.realpath(place) for place in (folder, *homes, "/dev")]
    _report_writes(wrote.fileno(), tuple(allowed))
    sys.argv = ["ctd", *words]
    code = 70
    try:
        from cluster.cli.main import main

        main()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0
    finally:
        sys.stderr.flush()
        os._exit(code)


def _run(words: list[str], folder: str) -> Outcome:
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as wrote:
        began = time.monotonic()
        child = os.fork()
        if child == 0:
            _become(words, folder, said, wrote)
        while True:
            ended, status, used = os.wait4(child, os.WNOHANG)
            if ended:
                break
            if time.monotonic() - began > PATIENCE_S:
                os.killpg(child, signal.SIGKILL)
                _, status, used = os.wait4(child, 0)
                break
            time.sleep(0.005)
        for file in (said, wrote):
            file.seek(0)
        told = said.read(1 << 20).decode(errors="replace")
        changed = wrote.read(1 << 16).decode().splitlines()
    code = os.waitstatus_to_exitcode(status)
    return Outcome(code, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, told, changed)


def _serve() -> None:
    """Answer each line of standard input, the words of a command and its folder, by its outcome."""
    from importlib import import_module

    from cluster.cli.main import COMMANDS

    for name in set(COMMANDS.values()):
        import_module(f"cluster.cli.{name}")
    known = ("jax.numpy", "matplotlib.font_manager", "pandas", "pynwb", "h5py", "zarr")
    for name in (*known, "ctd.weights", "ctd.lfads", "ctd.esn"):
        import_module(name)
    for line in sys.stdin:
        words, folder = json.loads(line)
        print(json.dumps(_run(words, folder)), flush=True)


# --- job files ----------------------------------------------------------------------------------

JOBS = (
    {
        "kernel": "esn",
        "seed": 3,
        "params": {"n": 5, "m": 1, "target": "narma10", "train": 40, "test": 20},
        "sweep": {"grid": {"g": [0.5, 1.0]}, "random": {"tau": {"uniform": [0.2, 0.9]}}, "samples": 2},
        "run": {"microbatch": 1, "slots": 1, "shard_items": 2},
    },
    {
        "stages": {
            "first": {"kernel": "esn", "params": {"n": 5, "train": 40, "test": 20}, "sweep": [{"seeds": 2}]},
            "second": {
                "kernel": "fixed_points",
                "params": {"weights": {"stage": "first", "where": "error < 1"}, "cell": "leaky"},
                "sweep": {"grid": {"candidate": {"range": 10}}},
            },
        }
    },
    {
        "kernel": "train_rnn",
        "params": {"task": {"name": "flipflop", "n_bits": 2}, "n": 4, "n_batches": 2, "report_every": 1},
        "sweep": {"grid": {"learning_rate": {"geomspace": [1e-3, 1e-2, 2]}}, "seeds": 2},
        "search": {"method": "halving", "metric": "eval_loss", "min_advances": 1, "eta": 2},
        "gather": {"reductions": [{"name": "seeds", "of": "eval_loss"}]},
        "keep_bits": {"eval_loss": 10},
    },
)  # fmt: skip

LINES = (
    "&a [*a]", "{<<: *a}", "*none", "!!python/object/apply:os.system ['touch hacked']", "!!int abc", "!!float []",
    "!!timestamp x", "!!binary '*'", "2001-99-99", "1" * 5000, "[" * 3000, "{a: " * 300, "- " * 3000, "? {a: b}",
    "&x [&y {z: *x}]", "'\\ud800'", "\t", "%TAG ! x", "--- a", "...", "0x" + "f" * 50, "1:" * 500 + "1.5",
)  # fmt: skip


def bomb(rng):
    """Each line ten times the one before: 10^width values in few bytes."""
    width = rng.randrange(3, 40)
    lines = ["a0: &a0 [x, x]"]
    for k in range(1, width):
        one = f"*a{k - 1}"
        form = rng.choice(["[{}]", "{{<<: [{}]}}", "[[{}]]"])
        lines.append(f"a{k}: &a{k} " + form.format(", ".join([one] * 10)))
    return "\n".join([*lines, f"kernel: esn\nparams: *a{width - 1}"])


def job_file(rng, folder):
    """A job file with strange values, lines, or bytes."""
    job = rng.choice(JOBS)
    kind = rng.randrange(6)
    if kind == 0:
        text = bomb(rng)
    elif kind == 1:
        lines = yaml.safe_dump(job, sort_keys=False).splitlines()
        at = rng.randrange(len(lines))
        head = lines[at].partition(":")[0]
        lines[at] = rng.choice([f"{head}: ", ""]) + rng.choice(LINES)
        text = "\n".join(lines)
    else:
        text = json.dumps(job if rng.random() < 0.1 else of_tree(rng, job))
    data = text.encode(errors="surrogatepass")
    (folder / "job.yaml").write_bytes(of_bytes(rng, data) if rng.random() < 0.2 else data)
    return ["plan", "job.yaml"]


# --- stores: a stranger's, whose objects may be resealed ----------------------------------------

JOB = {
    "kernel": "esn",
    "params": {"n": 5, "m": 1, "target": "narma10", "train": 40, "test": 20},
    # Two groups, since their data differ, with the same programs.
    "sweep": {"grid": {"target_seed": [0, 1], "g": [0.5, 1.0, 1.5]}, "seeds": 2},
    "run": {"microbatch": 1, "slots": 2, "shard_items": 2, "retries": 0, "backoff_s": 0},
}

LOOKS = (
    ["status"], ["status", "--json"], ["logs"], ["check"], ["check", "--repair"], ["query"], ["query", "--table", "shards"],
    ["query", "--to", "answer.nc"], ["report"], ["gather"], ["ls"], ["best", "--by", "replay_nrmse"], ["note", "seen"], ["export", "0", "net.h5", "--results"], ["resume", "--executor", "serial", "--json"], ["cancel"],
)  # fmt: skip

CHANGES = ("gather", "resume", "note", "cancel")
"""Commands that write to a store, which an archive does not let them."""


@cache
def finished() -> Path:
    """A store with an object of each kind: a failing item, halved slots, a shard of which curves are there alone."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = folder / "store.zarr"
    store = open_or_create(parse_job(JOB, "job"), str(folder), "job", str(path), SerialExecutor(1))

    def fault(task):
        if task.shard.group == 1 and (task.slots or 2) > 1:
            return "memory"
        return task.shard.group == 0 and holds(task, {3}) and "error"

    run_shards(store, Failing(fault))
    gather(store)
    for last in store.committed.markers()[-2:]:
        store.committed.forget([last.shard])
    store.committed.compact()
    Growing(rows=[4], advances=3, places={}, curves={}).write(store.objects, keys.live(1, 5))
    sealed = last.to_bytes()
    objects.write(store.objects, keys.record(keys.DONE, 1, 5, digest(sealed)), sealed)
    return path


def damaged_store(rng, folder):
    """A store, one or some of whose objects have strange values, lines or bytes, and the command that looks at it."""
    path = shutil.copytree(finished(), folder / "store.zarr")
    names = sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())
    for _ in range(rng.choice([1, 1, 1, 3])):
        if rng.random() < 0.1:
            _under_another_name(rng, path / rng.choice(names))
        elif rng.random() < 0.3:
            _resealed(rng, [path / keys.JOB, path / keys.JOB_COPY])
        else:
            # Of kinds, not of objects: most are rows.
            kind = rng.choice(sorted({_kind(name) for name in names}))
            _damage(rng, path / rng.choice([name for name in names if _kind(name) == kind]))
    look = rng.choice(LOOKS)
    if look[0] not in CHANGES and rng.random() < 0.3:
        archive = Path(shutil.make_archive(folder / "store", "zip", path))
        if rng.random() < 0.7:
            archive.write_bytes(of_bytes(rng, archive.read_bytes()))
        return [look[0], archive.name, *look[1:]]
    return [look[0], "store.zarr", *look[1:]]


def _kind(name):
    return (
        "".join("#" if part.isdigit() else part for part in name.split("/")[:2])
        + name.rpartition(".")[2]
    )


def _under_another_name(rng, file):
    """A copy, or the file itself, called as another of its kind could be, or nearly."""
    stem, dot, rest = file.name.partition(".")
    name = (
        rng.choice(
            ["1", "00000001", "0000000001", f"{stem}0", f"{stem}-1", "9" * 30, f"{stem} (1)"]
        )
        + dot
        + rest
    )
    if file.exists() and name != file.name:
        (shutil.move if rng.random() < 0.5 else shutil.copy)(file, file.with_name(name))


def _damage(rng, file):
    if not file.exists() or file.is_dir() or rng.random() < 0.1:
        file.unlink(missing_ok=True) if not file.is_dir() else None
        if rng.random() < 0.5 and not file.exists():
            file.mkdir() if rng.random() < 0.5 else file.symlink_to(
                rng.choice(["nothing", file.name])
            )
    elif rng.random() < 0.5 or file.suffix not in (".json", ".jsonl"):
        file.write_bytes(of_bytes(rng, file.read_bytes()))
    else:
        _resealed(rng, [file])


def _resealed(rng, files):
    """Give all of these files, JSON or lines of it, the content of the first with something strange in it."""
    try:
        lines = (
            [json.loads(line) for line in files[0].read_bytes().splitlines()]
            if files[0].suffix == ".jsonl"
            else [json.loads(files[0].read_bytes())]
        )
    except (OSError, ValueError, RecursionError):  # damaged or moved before
        return
    at = rng.randrange(max(1, len(lines)))
    for k, line in enumerate(lines):
        if k == at or (line == lines[at] and rng.random() < 0.5):
            lines[k] = of_tree(rng, line)
    data = b"\n".join(_sealed(line) for line in lines)
    for file in filter(Path.is_file, files):
        file.write_bytes(data + (b"\n" if files[0].suffix == ".jsonl" else b""))


def _sealed(content):
    if isinstance(content, dict) and "seal" in content and len(content) > 1:
        try:
            return checksummed({name: value for name, value in content.items() if name != "seal"})
        except TypeError:
            pass
    return json.dumps(content).encode()


if __name__ == "__main__":
    _serve()
