"""cluster.cache: compiled programs are kept between processes, and what was used longest ago goes."""

import os
import platform
import subprocess
import sys

import pytest

from cluster import cache

COMPILES = """
import os, sys
from cluster.cache import use_compilation_cache
use_compilation_cache()
assert "jax" not in sys.modules
import jax
jax.jit(lambda x: x * 3 + 1)(2.0)
print(len(os.listdir(sys.argv[1])))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CTD_CACHE", str(tmp_path))
    (tmp_path / "xla").mkdir()
    return tmp_path / "xla"


def fill(folder, sizes):
    """Programs of these sizes, the first one used longest ago."""
    for k, size in enumerate(sizes):
        (folder / f"jit_f-{k}-cache").write_bytes(b"x" * size)
        os.utime(folder / f"jit_f-{k}-cache", (1e9 + k, 1e9 + k))


def left(folder):
    return [int(path.name.split("-")[1]) for path in sorted(folder.glob("*-cache"))]


def compiles(folder, **given):
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "TF_CPP"))} | given
    return subprocess.run(
        [sys.executable, "-c", COMPILES, str(folder)], env=clean, capture_output=True, text=True, check=True,
    )  # fmt: skip


def test_a_program_that_compiles_in_no_time_is_kept_too(folder):
    counts = [int(compiles(folder).stdout) for _ in range(2)]
    assert counts[0] > 0
    assert counts[1] == counts[0]  # and found again


@pytest.mark.skipif(platform.machine() != "x86_64", reason="its features have other names")
def test_what_xla_says_of_a_program_of_another_cpu_is_not_shown(folder):
    """As of features that a compiler names and no CPU lists. Machines of another kind do not share programs."""
    from jax._src import compilation_cache as programs

    compiles(folder)
    for path in folder.glob("*-cache"):
        program = programs.decompress_executable(path.read_bytes())
        assert b"+64bit" in program
        path.write_bytes(programs.compress_executable(program.replace(b"+64bit", b"+99bit")))
    assert "cpu_aot_loader" in compiles(folder, TF_CPP_MIN_LOG_LEVEL="0").stderr
    assert compiles(folder).stderr == ""


@pytest.mark.parametrize(
    ("sizes", "limit", "kept"),
    [
        ([10, 10, 10, 10], 40, [0, 1, 2, 3]),
        ([10, 10, 10, 10], 39, [2, 3]),  # down to three quarters
        ([10, 100, 10, 10], 60, [2, 3]),
        ([], 0, []),
        ([10], 0, []),
    ],
)
def test_the_oldest_programs_go(folder, sizes, limit, kept):
    fill(folder, sizes)
    cache.prune_compilation_cache(limit)
    assert left(folder) == kept


def test_the_folder_is_looked_through_now_and_then(folder, monkeypatch):
    cache.prune_compilation_cache(0)
    fill(folder, [10])
    cache.prune_compilation_cache(0)
    assert left(folder) == [0]
    monkeypatch.setattr(cache, "EVERY_S", -1.0)
    cache.prune_compilation_cache(0)
    assert left(folder) == []


def test_a_folder_that_cannot_be_written_is_told_of(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CTD_CACHE", str(tmp_path / "file"))
    (told,) = cache.prune_compilation_cache(0)
    assert told.startswith(f"CTD_CACHE: {tmp_path}/file/xla cannot be written (Not a directory)")
