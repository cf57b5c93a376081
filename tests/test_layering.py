"""cluster -> jobs -> ctd, the order of the wings in each, no rings, and who may import ray, zarr and plotting.

Read from the source with ast, imports inside functions included.
"""

import ast
import subprocess
import sys
from functools import cache

import pytest
from places import ROOT

from ctd.catalogue import kernel_names

FORBIDDEN = {
    "ctd": {"jobs", "cluster", "ray", "zarr", "xarray", "pandas", "typer", "rich", "obstore"},
    "jobs": {"cluster", "ray", "typer", "rich"},
    "cluster": set(),
}
WINGS = {
    "ctd": "words numeric late installed replacing dotted containers plots kernel catalogue contract batch rows principal rls tangent cells data tasks weights training KERNELS",
    "jobs": "late errors redact keys forms storage search spec plan store inputs run gather query report exports pipeline",
    "cluster": "versions cache pace profiles record slurm ray tracking submit watch cli api",
}
"""A wing, a folder or a file of a package, imports only wings that stand before it here."""
KERNELS = tuple(name for name in kernel_names() if "." not in name)
"""They import no other kernel."""
PATHS = [path for package in FORBIDDEN for path in sorted((ROOT / package).rglob("*.py"))]


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in PATHS}


@cache
def tree(path):
    return ast.parse(path.read_text())


@cache
def imports(path):
    """The names that a file imports, as deep as they are written: `from a import b` gives a and a.b."""
    names = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def packages(path):
    """The packages whose modules a file imports."""
    return {name.partition(".")[0] for name in imports(path)}


def own_imports(name):
    """The modules of the three packages that a module needs, the packages that it lies in left out."""
    found = {m for m in imports(MODULES[name]) if m in MODULES} - {name}
    return {m for m in found if not name.startswith(f"{m}.")}


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_point_one_way(package):
    own = [path for path in PATHS if path.is_relative_to(ROOT / package)]
    assert own
    assert not {path: bad for path in own if (bad := FORBIDDEN[package] & packages(path))}


@pytest.mark.parametrize("package", WINGS)
def test_wings_keep_their_order(package):
    """Every wing stands in the list, and imports only those before it."""
    rank = {wing: k for k, wing in enumerate(WINGS[package].split())}
    if package == "ctd":
        rank |= dict.fromkeys(KERNELS, rank.pop("KERNELS"))
    wing = lambda name: name.split(".")[1]
    names = [name for name in MODULES if name.startswith(f"{package}.")]
    assert {wing(name) for name in names} == set(rank)
    up = [
        f"{name} -> {other}"
        for name in names
        for other in own_imports(name)
        if other.startswith(f"{package}.")
        and wing(other) != wing(name)
        and rank[wing(other)] >= rank[wing(name)]
    ]
    assert not up


def test_no_ring_of_modules():
    """Taking away, again and again, the modules that need no other leaves none."""
    needs = {name: own_imports(name) for name in MODULES}
    while free := [name for name, others in needs.items() if not others & needs.keys()]:
        for name in free:
            del needs[name]
    assert not needs


BY_NAME = {
    "import_module",
    "__import__",
    "exec_module",
    "load_module",
    "spec_from_file_location",
    "run_path",
    "run_module",
}
IMPORTERS = {"ctd.dotted", "ctd.installed", "ctd.late", "cluster.cli.main", "cluster.ray.private"}
"""What a text names is imported by ctd.dotted, which jobs.spec.trust asks; the others import what source of ctd names."""


def test_names_become_imports_in_one_place():
    called = lambda node: getattr(node, "id", None) or getattr(node, "attr", None)
    found = {
        name
        for name, path in MODULES.items()
        if BY_NAME & {called(node) for node in ast.walk(tree(path))}
    }
    assert found == IMPORTERS


LATE = {"jax", "optax", "scipy", "zarr"}


@pytest.mark.parametrize("package", ["ctd", "jobs"])
def test_slow_libraries_are_imported_late(package):
    """ctd.late and jobs.late stand for them, so that what describes is imported without what computes."""
    own = [path for path in PATHS if path.is_relative_to(ROOT / package)]
    soon = {path: bad for path in own if (bad := LATE & packages(path))}
    assert {path.name for path in soon} == {"late.py"}, soon


def test_kernels_and_stores_are_imported_without_what_computes():
    names = [name for name in MODULES if name.startswith("ctd.")]
    code = f"import sys, {', '.join(names)}, jobs.report.summary, jobs.query.query; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    slow = LATE | {"pandas", "ray", "xarray", "matplotlib"}
    assert not slow & set(found.stdout.split())


def test_imports_no_pyplot():
    """Figures are drawn without pyplot's global state, and matplotlib is imported when one is drawn."""
    for path in PATHS:
        assert "matplotlib.pyplot" not in imports(path), path
        for node in tree(path).body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.startswith("matplotlib") for name in names), path
