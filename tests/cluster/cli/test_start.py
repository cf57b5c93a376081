"""What a command imports before it answers, and that the table of commands says what the commands say."""

import inspect
import io
import os
import subprocess
import sys
from importlib import import_module

import pytest
from places import EXAMPLES
from stores import TOY

from cluster.cli.main import COMMANDS, PANELS, LateCommand, _ready_streams
from jobs.run.prepare import open_or_create
from jobs.run.shards import run_shards
from jobs.run.worker import SerialExecutor
from jobs.spec.job import parse_job, read_content

COMPUTES = {"jax", "jaxlib", "optax", "scipy", "ray", "matplotlib", "pynwb", "torch"}
"""What only a command that computes may import."""
TABLES = COMPUTES | {"pandas", "xarray", "pyarrow"}
READS = TABLES | {"zarr", "numcodecs", "fsspec"}
PARSES = READS | {"numpy", "pydantic", "yaml", "obstore", "h5py", "jobs", "ctd"}

LINES = [
    (["--version"], PARSES, 300),
    (["--help"], PARSES, 450),
    (
        ["run --help", "kernels", "kernels lfads", "new fixed_points", "schema esn", "status STORE", "logs STORE",
         "cancel STORE", "ls STORE"],
        READS, 870,
    ),
    (
        ["query STORE", "query STORE --where rate>0.2 --sort -norm --columns item,norm --json"],
        TABLES, 1000,
    ),
    (["report STORE"], {"scipy", "matplotlib", "xarray"}, 2500),
]  # fmt: skip
"""Commands, packages that none of them must import, modules that all of them together may load."""

COUNTED = """
import sys
from cluster.cli.main import main
for line in sys.argv[1:]:
    sys.argv = ["ctd", *line.split()]
    try:
        main()
    except SystemExit as end:
        assert not end.code, line
    for modules, file in ([], sys.stdout), (sys.modules, sys.stderr):
        print(*modules, "END", sep="\\n", file=file)
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """The address of a small gathered store."""
    folder = tmp_path_factory.mktemp("start")
    (folder / "job.yaml").write_text(TOY)
    spec = parse_job(read_content(folder / "job.yaml"), "job.yaml")
    address = str(folder / "job.zarr")
    executor = SerialExecutor(1)
    opened = open_or_create(spec, str(folder), "job.yaml", address, executor)
    run_shards(opened, executor)
    from jobs import gather

    gather(opened)
    return address


def loaded(*lines, code=COUNTED):
    """(standard output, the modules that are loaded then) of `ctd LINE` after `ctd LINE`, in a process of their own."""
    done = subprocess.run(
        [sys.executable, "-c", code, *lines], capture_output=True, text=True, check=True
    )
    told = (text.split("END\n")[:-1] for text in (done.stdout, done.stderr))
    return [(out, set(modules.splitlines())) for out, modules in zip(*told, strict=True)]


@pytest.fixture(scope="module")
def answers(store):
    """Line -> what it printed, and the modules that were loaded then. The first two, and the last two, share a process."""
    found = {}
    for together in LINES[:2], LINES[2:3], LINES[3:]:
        lines = [line for lines, *_ in together for line in lines]
        told = loaded(*(line.replace("STORE", store) for line in lines))
        found |= dict(zip(lines, told, strict=True))
    return found


@pytest.mark.parametrize(
    ("lines", "unwanted", "most"), LINES, ids=[lines[0] for lines, *_ in LINES]
)
def test_a_command_imports_what_it_needs(answers, lines, unwanted, most):
    for line in lines:
        out, modules = answers[line]
        assert out.strip(), line
        assert not unwanted & {name.partition(".")[0] for name in modules}, line
        assert len(modules) <= most, line


COMPLETED = f"""
import os
os.environ["_CTD_COMPLETE"] = "complete_bash"
{COUNTED}
""".replace(
    "*line.split()]", "]; os.environ.update(COMP_WORDS=line, COMP_CWORD=str(line.count(' ')))"
)


def test_completion_answers_without_what_computes():
    words = {"ctd st": "status", "ctd query --gr": "--group-by", "ctd resume --exec": "--executor"}
    for (line, expected), (out, modules) in zip(
        words.items(), loaded(*words, code=COMPLETED), strict=True
    ):
        assert out.split() == [expected], line
        assert not READS & {name.partition(".")[0] for name in modules}, line


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_each_says(name):
    command = getattr(import_module(f"cluster.cli.{COMMANDS[name]}"), name)
    first, *_ = inspect.getdoc(command).split("\n\n")
    assert LateCommand(name).help == " ".join(first.split()) != ""


def test_help_lists_every_command_and_each_has_its_own(ctd):
    assert len(" ".join(PANELS.values()).split()) == len(COMMANDS), "each under one heading"
    out = ctd("--help")[1]
    assert all(f"─ {panel} ─" in out for panel in PANELS)
    assert all(f" {name} " in out for name in COMMANDS)
    assert "--install-completion" in out
    out = ctd("status", "--help")[1]
    assert "ctd status [OPTIONS]" in out
    assert "--json" in out
    code, _, err = ctd("statsu")
    assert (code, "status" in err) == (2, True)


def test_an_example_is_planned_without_pandas_or_ray(tmp_path):
    ((_, modules),) = loaded(f"plan {EXAMPLES / 'kuramoto.yaml'}")
    assert not (TABLES - {"jax", "jaxlib", "scipy"}) & {name.partition(".")[0] for name in modules}


def test_characters_that_an_output_lacks_are_written_out(monkeypatch):
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), "ascii"))
    _ready_streams()
    print("größe", flush=True)
    assert sys.stdout.buffer.getvalue() == b"gr\\xf6\\xdfe\n"


def test_output_that_is_closed_takes_anything(monkeypatch):
    for name in "stdout", "stderr":
        monkeypatch.setattr(sys, name, None)
    _ready_streams()
    assert (sys.stdout.name, sys.stderr.name) == (os.devnull, os.devnull)
