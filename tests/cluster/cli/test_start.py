"""What a command imports before it answers, and that the table of commands says what the commands say."""

import inspect
import os
import subprocess
import sys
from importlib import import_module

import pytest
from cli_jobs import TOY
from places import EXAMPLES

from cluster.cli.main import COMMANDS, PANELS, LateCommand
from jobs.run.prepare import open_or_create
from jobs.run.shards import run_shards
from jobs.run.worker import SerialExecutor
from jobs.spec.job import parse_job, read_content

COMPUTES = {"jax", "jaxlib", "optax", "scipy", "ray", "matplotlib", "pynwb", "torch"}
"""What only a command that computes may import."""
TABLES = COMPUTES | {"pandas", "xarray", "pyarrow", "duckdb"}
READS = TABLES | {"zarr", "numcodecs", "fsspec"}
PARSES = READS | {"numpy", "pydantic", "yaml", "obstore", "h5py", "jobs", "ctd"}

LINES = {
    "--help": (PARSES, 450),
    "--version": (PARSES, 300),
    "run --help": (READS, 850),
    "kernels": (READS, 850),
    "kernels lfads": (READS, 850),
    "new fixed_points": (READS, 850),
    "schema esn": (READS, 850),
    "status STORE": (READS, 850),
    "logs STORE": (READS, 850),
    "cancel STORE": (READS, 850),
    "report STORE": ({"scipy", "matplotlib", "xarray", "duckdb"}, 2500),
    "ls STORE": (READS, 850),
    "query STORE": (TABLES, 1000),
    "query STORE --where rate>0.2 --sort -norm --columns item,norm --json": (TABLES, 1000),
}
"""Command -> (packages that it must not import, modules that it may load)."""

COUNTED = """
import sys
from cluster.cli.main import main
try:
    main()
finally:
    print(*sys.modules, sep="\\n", file=sys.stderr)
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


def loaded(line, environ=()):
    """(standard output, the modules that are loaded at the end) of `ctd LINE`, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", COUNTED, *line], capture_output=True, text=True, check=True,
        env={**os.environ, **dict(environ)},
    )  # fmt: skip
    return done.stdout, set(done.stderr.splitlines())


@pytest.mark.parametrize("line", LINES)
def test_a_command_imports_what_it_needs(store, line):
    out, modules = loaded(line.replace("STORE", store).split())
    assert out.strip()
    unwanted, most = LINES[line]
    assert not unwanted & {name.partition(".")[0] for name in modules}
    assert len(modules) <= most


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("ctd st", {"status"}),
        ("ctd query --gr", {"--group-by"}),
        ("ctd resume --exec", {"--executor"}),
    ],
)
def test_completion_answers_without_what_computes(words, expected):
    environ = {
        "_CTD_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    code = COUNTED.replace("main()\nf", "sys.argv = ['ctd']; main()\nf")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False,
        env={**os.environ, **environ},
    )  # fmt: skip
    assert set(done.stdout.split()) == expected, done.stderr[-2000:]
    assert not READS & {name.partition(".")[0] for name in done.stderr.splitlines()}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_each_says(name):
    command = getattr(import_module(f"cluster.cli.{COMMANDS[name]}"), name)
    first, *_ = inspect.getdoc(command).split("\n\n")
    assert LateCommand(name).help == " ".join(first.split()) != ""


def test_help_lists_every_command_and_each_has_its_own(ctd):
    assert sum(map(len, PANELS.values())) == len(COMMANDS), "each under one heading"
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
    _, modules = loaded(["plan", str(EXAMPLES / "force_map.yaml")])
    assert not (TABLES - {"jax", "jaxlib", "scipy"}) & {name.partition(".")[0] for name in modules}
