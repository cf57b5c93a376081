"""cluster.cli.clusters: what `ctd clusters` says of a Slurm profile, by made-up answers of Slurm."""

import re

import pytest

from cluster.cli.clusters import check
from cluster.profiles import SlurmProfile
from cluster.slurm import client as slurm

ASKED_TOO_MUCH = (
    "sbatch: error: Batch job submission failed: Requested node configuration is not available"
)


@pytest.fixture
def lines(tmp_path, monkeypatch):
    """The checks of a profile, by name, on a cluster of one node with a GPU."""
    monkeypatch.setattr(slurm, "check_partition", lambda *_: None)
    monkeypatch.setattr(slurm, "command", lambda *words, **_: "n1|idle|gpu:1|4|8000\n")

    def checked(**fields):
        fields = {"memory_gb": 1, "time": 60, "work_dir": str(tmp_path), **fields}
        found = check(SlurmProfile(kind="slurm", **fields))
        return {line["check"]: (line["ok"], line["found"]) for line in found}

    return checked


def test_gpus_without_a_plugin_of_jax_are_refused(lines, monkeypatch):
    assert lines()["versions"][0]
    ok, found = lines(gpus=1)["versions"]
    assert (ok, found.partition(":")[0]) == (False, "gpus")
    assert "`uv pip install 'jax[cuda13]'`" in found
    monkeypatch.setattr("cluster.slurm.setup.gpu_plugins", lambda: ["xla_cuda13"])
    ok, found = lines(gpus=1)["versions"]
    assert (ok, found.rpartition(", ")[2]) == (True, "GPU plugin xla_cuda13")


def test_the_python_of_the_profile_is_asked_for_its_plugins(lines):
    """Its setup lines may lead to another one."""
    mine = """python() { command python "$@" | sed 's/"GPU plugins": ""/"GPU plugins": "xla_cuda12"/'; }"""
    ok, found = lines(gpus=1, setup=[mine, 'exec() { "$@"; }'])["versions"]
    assert (ok, found.rpartition(", ")[2]) == (True, "GPU plugin xla_cuda12")


def test_versions_that_cannot_be_asked_are_told_in_a_line(
    lines, tmp_path, monkeypatch, command_line
):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    lab = tmp_path / "ctd" / "clusters" / "lab.yaml"
    lab.parent.mkdir(parents=True)
    lab.write_text("{kind: slurm, memory_gb: 1, time: 60, setup: ['echo none >&2; exit 3']}")
    assert re.search(r"profile: ctd does not run .+, exit status 3: none", command_line("clusters", "lab")[1])  # fmt: skip
    image = tmp_path / "ctd.sif"
    words = ["apptainer", "exec", "--bind={bind}", "{image}"]
    told = lines(container=str(image), launcher=words)["versions"][1]
    assert told.startswith(f"profile: container: {image} does")


def test_a_partition_that_is_not_there_is_told_of_its_gpus(lines, monkeypatch):
    monkeypatch.setattr(slurm, "command", lambda *words, **_: "")
    assert lines(partition="nowhere")["GPUs"] == (False, "no node in the partition")


def test_what_no_node_has_is_refused_as_at_submission(lines, monkeypatch):
    """Slurm itself is asked, with the options that a submission has."""
    asked, has = [], "(null)"

    def answer(*words, text=None):
        if words[0] == "sbatch":
            asked.append((words, text))
            raise slurm.SlurmError("sbatch", ASKED_TOO_MUCH)
        return f"n1|idle|{has}|2|6000\n" if words[0] == "sinfo" else ""

    monkeypatch.setattr(slurm, "command", answer)
    ok, found = lines(gpus=4, memory_gb=64, sbatch=["--exclude=n13"])["nodes"]
    assert not ok
    assert found.startswith("profile: no node of the partition has cpus: 4, gpus: 4 and memory_gb")
    assert "(its nodes have at most 2 CPUs, 5.8 GB (6000 MB), 0 GPUs); `sinfo" in found
    has = "gpu:a100:2(S:0)"
    assert (
        "(its nodes have at most 2 CPUs, 5.8 GB (6000 MB), 2 GPUs); " in lines(gpus=3)["nodes"][1]
    )
    has = "(null)"
    # Nobody is told to install what no node could use.
    assert lines(gpus=4)["versions"][0]
    assert lines(gpus=4)["GPUs"] == (False, "gpus: 4 wanted, but no node of the partition has any")
    asked = asked[:1]
    ((words, text),) = asked
    assert words == ("sbatch", "--test-only")
    assert {"#SBATCH --gpus-per-node=4", "#SBATCH --mem=65536M", "#SBATCH --exclude=n13"} <= {
        *text.splitlines()
    }
