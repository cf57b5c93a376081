"""What a release is made from: its files are valid, and say the same version and the same needs as pyproject.toml."""

import re
import subprocess
import sys

import pytest
import yaml
from packaging.requirements import Requirement
from places import PROJECT, ROOT

RECIPE = yaml.safe_load((ROOT / "conda/recipe.yaml").read_text())
CONDA_NAMES = {
    "ray[default]": "ray-default",
    "msgpack": "msgpack-python",
    "matplotlib": "matplotlib-base",
}


@pytest.mark.parametrize(
    ("schema", "pattern"),
    [
        ("github-workflows", ".github/workflows/*.yml"),
        ("github-issue-forms", ".github/ISSUE_TEMPLATE/[!c]*.yml"),
        ("github-issue-config", ".github/ISSUE_TEMPLATE/config.yml"),
        ("citation-file-format", "CITATION.cff"),
    ],
)
def test_files_fit_schema(schema, pattern):
    files = sorted(ROOT.glob(pattern))
    assert files
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *files],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_versions_are_equal():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == RECIPE["context"]["version"] == PROJECT["version"]
    assert f"\n## {PROJECT['version']} " in (ROOT / "CHANGELOG.md").read_text()


def test_recipe_has_needs_of_project():
    needs = {f"python {PROJECT['requires-python']}"}
    for text in PROJECT["dependencies"]:
        need = Requirement(text)
        name = re.match(r"[^><=]+", text)[0]
        needs.add(f"{CONDA_NAMES.get(name, name)} {need.specifier}")
    assert set(RECIPE["requirements"]["run"]) == needs
    assert RECIPE["about"]["license"] == PROJECT["license"]
    assert RECIPE["build"]["python"]["entry_points"] == [
        f"{name} = {function}" for name, function in PROJECT["scripts"].items()
    ]


def test_workflow_runs_what_the_checkout_runs():
    """A command in a workflow that the checkout lost would be seen at the next push alone."""
    steps = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["run"]["steps"]
    (command,) = [step["run"] for step in steps if "ci/run" in step.get("run", "")]
    assert (ROOT / command).stat().st_mode & 0o111


@pytest.mark.parametrize("file", ["Dockerfile", "examples/clusters/ctd.def"])
def test_image_installs_from_the_lock(file):
    text = (ROOT / file).read_text()
    assert "export --locked --no-dev --no-emit-project" in text
    assert "--requirement /dist/requirements.txt" in text
    assert "--no-deps /dist/*.whl" in text
    for name in re.findall(r"^COPY (?!--)(.*) \S+$", text, re.MULTILINE):
        assert all((ROOT / path).exists() for path in name.split())
