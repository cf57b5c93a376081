"""cluster.profiles and cluster.slurm.script: what a profile may say, and the script that comes of it."""

import json
import shlex
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml
from messages import refused
from places import DATA, EXAMPLES

from cluster.profiles import (
    LocalProfile,
    RayProfile,
    SlurmProfile,
    load_profile,
    parse_profile,
    profile_names,
    slurm_seconds,
)
from cluster.slurm.script import options, script
from jobs.errors import JobError

SLURM = {"kind": "slurm", "memory_gb": 8, "time": "4:00:00"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    folder = tmp_path / "ctd" / "clusters"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (90, 5400), ("90", 5400), ("1:30", 90), ("4:00:00", 14400), ("2-0", 172800),
        ("1-02:30", 95400), ("0-00:00:05", 5), ("1-00:00:00", 86400),
    ],
)  # fmt: skip
def test_slurm_seconds(text, seconds):
    """As sbatch(1) reads --time."""
    assert slurm_seconds(text) == seconds


def test_time_without_quotes(folder):
    """YAML 1.1 would read 4:00:00 as 14400, which Slurm would take for minutes."""
    (folder / "lab.yaml").write_text("kind: slurm\nmemory_gb: 8\ntime: 4:00:00\n")
    profile = load_profile("lab")
    assert isinstance(profile, SlurmProfile)
    assert profile.time_s() == 14400


def test_clusters_tells_on_one_line_what_is_wrong(folder, command_line):
    (folder / "lab.yaml").write_text("kind: slurm\ncpu: 4\ntime: 30\n")
    code, out, _ = command_line("clusters", "lab", "none", "--json")
    assert code == 1
    lab, none = (line["found"] for line in json.loads(out))
    assert "memory_gb: required, but not given; " in lab
    assert "none.yaml does not exist; known: lab, local; docs/clusters.md" in none
    assert "\n" not in lab + none


def test_clusters_shows_an_answer_of_several_lines_on_one(folder, command_line, monkeypatch):
    answer = {"check": "reachable", "ok": False, "found": "no\nanswer"}
    monkeypatch.setattr("cluster.cli.clusters.check", lambda profile: [answer])
    assert "no; answer" in command_line("clusters", "local")[1]


def test_clusters_says_where_profiles_are_if_there_is_none(folder, command_line, monkeypatch):
    monkeypatch.setattr("cluster.cli.clusters.check", lambda profile: [])
    assert "profiles are in" not in command_line("clusters", "local")[2]
    assert f"profiles are in {folder}; docs/clusters.md" in command_line("clusters")[2]
    (folder / "lab.yaml").write_text("kind: slurm\nmemory_gb: 8\ntime: 4:00:00\n")
    assert command_line("clusters")[2] == ""


def test_a_profile_in_this_folder_is_named_by_its_file(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "box.yaml").write_text("kind: local\n")
    with refused(JobError):
        load_profile("box")
    assert load_profile("box.yaml").kind == "local"


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"type": "slurm"},
        {"kind": "slrm"},
        {"kind": ["slurm"]},
        {"kind": {"slurm": 1}},
        {**SLURM, "sbatch": 5},
        {**SLURM, "memory_gb": "8G"},
        {**SLURM, "setup": 5},
        {**SLURM, "memory_gb": float("inf")},
        {**SLURM, "partiton": "gpu"},
        {**SLURM, "Time": 3},
        {"kind": "slurm", "time": 5},
        {**SLURM, "time": "4h"},
        {**SLURM, "time": 1},
        {**SLURM, "gpus": "two"},
        # One line: neither the types of a field, nor a default that follows from it, are faults of their own.
        {**SLURM, "gpus": -1},
        {**SLURM, "sbatch": ["exclude=n13"]},
        {**SLURM, "environment": {"A B": "1"}},
        {**SLURM, "python": "apptainer exec --nv ctd.sif python"},
        {
            **SLURM,
            "container": "a.sif",
            "launcher": ["{image} {bind}"],
            "python": "/bin/python",
        },
        {**SLURM, "bind": ["/data"]},
        {**SLURM, "container": "a.sif"},
        {**SLURM, "container": "a", "launcher": ["shifter", "{image}"]},
        {**SLURM, "email": "me@lab"},
        {"kind": "ray", "address": "head"},
        {"kind": "ray"},
    ],
)
def test_bad_profiles(content):
    with refused(JobError):
        parse_profile(content, "x")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("environment", {"AWS_SECRET_ACCESS_KEY": "hush"}),
        ("environment", {"AZURE_STORAGE_ACCOUNT_KEY": "hush"}),
        ("setup", ["export AWS_SESSION_TOKEN='hush'"]),
        ("setup", "export AWS_SESSION_TOKEN='hush'"),
        ("sbatch", ["--export=ALL,DB_PASSWORD=hush"]),
    ],
)
def test_profile_with_credentials_is_refused_without_repeating_them(field, value):
    with refused(JobError) as error:
        parse_profile({**SLURM, field: value}, "x")
    assert "hush" not in str(error.value)


def test_a_single_text_is_a_list_of_one():
    profile = parse_profile({**SLURM, "sbatch": "--mail-type=END", "modules": "cuda/12.4"}, "x")
    assert (profile.sbatch, profile.modules) == (["--mail-type=END"], ["cuda/12.4"])


def test_profile_may_say_where_credentials_are():
    setup = [
        'export AWS_SECRET_ACCESS_KEY="$(pass show lab)"',
        "export RAY_AUTH_TOKEN_PATH=/a/token",
    ]
    environment = {"AWS_PROFILE": "lab", "AWS_WEB_IDENTITY_TOKEN_FILE": "/a/token"}
    assert parse_profile({**SLURM, "setup": setup, "environment": environment}, "x").setup == setup


def test_profiles_by_name(folder, tmp_path):
    (folder / "gpu.yaml").write_text("{kind: ray, address: 'head:6379'}")
    assert profile_names() == ["gpu", "local"]
    assert load_profile("local") == LocalProfile(kind="local")
    assert load_profile(str(folder / "gpu.yaml")) == load_profile("gpu")
    ray = load_profile("gpu")
    assert isinstance(ray, RayProfile)
    assert ray.dashboard_url() == "http://head:8265"
    with refused(JobError):
        load_profile("gpus")
    with refused(JobError):
        load_profile(str(tmp_path / "none.yaml"))


FOLDERS = ["/tmp:/tmp", "/w:/w", "/s/a.zarr/run:/s/a.zarr/run", "/jobs:/jobs", "/data:/in:ro"]


def test_script_is_shell_and_says_what_was_asked(tmp_path):
    profile = SlurmProfile(
        kind="slurm", partition="gpu", account="neuro", qos="long", constraint="a100", nodes=2, cpus=8,
        gpus="a100:4", memory_gb=64, time="1-12:00:00", sbatch=["--exclude=n13"], modules=["cuda/12.4"],
        setup=["source '/opt/my env/bin/activate'"], environment={"XLA_FLAGS": "--a b"},
        python="/opt/ctd/bin/python", work_dir=str(tmp_path), go_on="chain", max_allocations=7,
    )  # fmt: skip
    text = script(profile, "ctd-job", tmp_path / "home", ["ctd", "run", "my job.yaml"])
    checked = subprocess.run(
        ["bash", "-n"], input=text, text=True, capture_output=True, check=False
    )
    assert checked.stderr == ""
    options = [line[8:] for line in text.splitlines() if line.startswith("#SBATCH ")]
    assert options == [
        "--job-name=ctd-job", "--partition=gpu", "--account=neuro", "--qos=long", "--constraint=a100",
        "--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=8", "--gpus-per-node=a100:4",
        "--mem=65536M", "--time=1-12:00:00", "--signal=B:USR1@120", "--open-mode=append",
        f"--output={tmp_path}/home/slurm-%j.out", "--no-requeue", "--exclude=n13",
    ]  # fmt: skip
    lines = text.splitlines()
    assert lines[0] == "#!/bin/bash -l", "as the profile is checked: modules are of login shells"
    order = [
        lines.index("module load cuda/12.4"),
        lines.index('export PATH=/opt/ctd/bin:"$PATH"'),
        lines.index("source '/opt/my env/bin/activate'"),
        lines.index("export XLA_FLAGS='--a b'"),
        lines.index("max_allocations=7"),
        lines.index("go_on=chain"),
        lines.index(f"export CTD_CACHE={tmp_path}/cache"),
        lines.index("run=(\"${inside[@]}\" ctd run 'my job.yaml')"),
    ]
    assert order == sorted(order)
    # By step, and never by what ends other jobs' Ray as well.
    assert "ray stop" not in [line.split("#")[0].strip() for line in lines]
    assert profile.n_gpus() == 4


def test_script_of_a_small_profile_asks_for_little(tmp_path):
    profile = SlurmProfile(kind="slurm", memory_gb=1, time=60, work_dir=str(tmp_path / "a b"))
    text = script(profile, "ctd-job", tmp_path / "a b" / "home", ["ctd"])
    assert "gpus-per-node" not in text
    assert "partition" not in text.split("\n\n")[0]
    assert f'#SBATCH --output="{tmp_path}/a b/home/slurm-%j.out"' in text
    assert "#SBATCH --requeue" in text


def read_by_sbatch(line):
    """What `_get_argument` of Slurm's src/sbatch/opt.c makes of an #SBATCH line."""
    text, quote, escaped = "", "", False
    for letter in line:
        if escaped or (quote and letter not in (quote, "\\")):
            text, escaped = text + letter, False
        elif letter == "\\":
            escaped = True
        elif letter in "'\"":
            quote = "" if quote else letter
        elif letter == "#" or letter.isspace():
            break
        else:
            text += letter
    assert not quote, "sbatch: fatal: Unmatched quote"
    return text


@pytest.mark.parametrize("array", [0, 2])
def test_options_with_letters_that_mean_something_to_slurm(array):
    home = Path('/a b/it\'s#1/50%j\\/"x"')
    profile = SlurmProfile(kind="slurm", memory_gb=1, time=60, constraint="[a|b]&c")
    found = [read_by_sbatch(line) for line in options(profile, "ctd-it's #1", home, array)]
    assert "--job-name=ctd-it's #1" in found
    assert "--constraint=[a|b]&c" in found
    output = "slurm-%A_%a.out" if array else "slurm-%j.out"
    assert f'--output=/a b/it\'s#1/50%%j\\/"x"/{output}' in found


@pytest.mark.parametrize(
    ("image", "launcher", "words"),
    [
        ("/images/my ctd.sif", ["apptainer", "exec", "--nv", "--bind={bind}", "{image}"],
         ["apptainer", "exec", "--nv", *map("--bind={}".format, FOLDERS), "/images/my ctd.sif"]),
        ("docker.io/lab/ctd:1", ["podman-hpc", "run", "--env-host", "--volume={bind}", "{image}"],
         ["podman-hpc", "run", "--env-host", *map("--volume={}".format, FOLDERS), "docker.io/lab/ctd:1"]),
        ("docker:lab/ctd:1", ["shifter", "--image={image}", "--volume={bind}"],
         ["shifter", "--image=docker:lab/ctd:1", *map("--volume={}".format, FOLDERS)]),
        ("~/ctd.sqsh", ["srun", "--container-image={image}", "--container-mounts={binds}"],
         ["srun", f"--container-image={Path.home()}/ctd.sqsh", f"--container-mounts={','.join(FOLDERS)}"]),
    ],
    ids=["apptainer", "podman-hpc", "shifter", "pyxis"],
)  # fmt: skip
def test_script_of_a_container_runs_ray_and_the_driver_in_it(image, launcher, words):
    profile = parse_profile(
        {**SLURM, "container": image, "bind": ["/data:/in:ro"], "launcher": launcher, "work_dir": "/w"}, "x"
    )  # fmt: skip
    home, job = Path("/s/a.zarr/run"), Path("/jobs")
    lines = script(profile, "ctd-job", home, ["ctd", "run", "a.yaml"], folders=[job]).splitlines()
    assert f"inside=({shlex.join(words)})" in lines
    assert 'run=("${inside[@]}" ctd run a.yaml)' in lines
    assert "python=''" in lines
    assert not any(line.startswith("export PATH=") for line in lines)
    started = [line for line in lines if " ray start --block" in line]
    assert len(started) == 2
    assert all('"${inside[@]}" ray start' in line for line in started)


@pytest.mark.parametrize("name", ["lab_slurm", "department_ray"])
def test_profiles_of_the_examples(name):
    assert load_profile(str(EXAMPLES / "clusters" / f"{name}.yaml")).kind in ("slurm", "ray")


def test_kuberay_manifest_fits_its_schema():
    """And the mounts of every container are volumes of its pod."""
    schema = json.loads((DATA / "rayjob_schema.json").read_text())
    manifest = yaml.safe_load((EXAMPLES / "kuberay_rayjob.yaml").read_text())
    jsonschema.validate(manifest, schema)
    cluster = manifest["spec"]["rayClusterSpec"]
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        assert {m["name"] for c in pod["containers"] for m in c["volumeMounts"]} == volumes
    manifest["spec"]["entryPoint"] = manifest["spec"].pop("entrypoint")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(manifest, schema)
