"""cluster -> jobs -> ctd, and who may import ray, zarr and plotting: read from the source with ast."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FORBIDDEN = {
    "ctd": {"jobs", "cluster", "ray", "zarr", "xarray", "pandas", "typer", "rich", "obstore"},
    "jobs": {"cluster", "ray", "typer", "rich"},
    "cluster": set(),
}
MODULES = [path for package in FORBIDDEN for path in sorted((ROOT / package).rglob("*.py"))]


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield (node.module or "").partition(".")[0]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path):
    package = path.relative_to(ROOT).parts[0]
    assert not FORBIDDEN[package] & set(imports(path))


def test_the_command_line_starts_without_what_few_commands_need():
    code = "import sys, cluster.cli, jobs.report; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    slow = {"pandas", "ray", "xarray", "matplotlib", "optax", "scipy"}
    assert not slow & set(found.stdout.split())


def test_imports_no_pyplot():
    """Figures are drawn without pyplot's global state, and matplotlib is imported when one is drawn."""
    for path in MODULES:
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert "matplotlib.pyplot" not in names, path
            if node in tree.body:
                assert not any(name.startswith("matplotlib") for name in names), path
