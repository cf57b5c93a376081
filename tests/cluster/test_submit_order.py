"""What is submitted, without a cluster: the script or command, what is refused before anything is sent, its record."""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from messages import refused
from stores import files

from cluster import versions
from cluster.cli.submit import preview
from cluster.slurm.setup import check_python, file_system, unshared
from cluster.submit import check_job, read_order, submit, text_of
from jobs.errors import JobError
from jobs.report.page import Content
from jobs.run.prepare import open_or_create
from jobs.run.shards import run_shards
from jobs.run.worker import SerialExecutor
from jobs.spec.job import parse_job, read_job
from jobs.spec.run import RunSettings
from jobs.store.advice import again_command
from jobs.store.manifest import write_job
from jobs.store.marker import FailedItem, FailedItems
from jobs.store.store import Store


def write(folder, **changes):
    job = {"kernel": "toy", "sweep": {"grid": {"rate": [0.1, 0.2]}}, **changes}
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in job.items() if v is not None}))
    return path


SLURM = {"kind": "slurm", "memory_gb": 2, "time": 60, "work_dir": "/tmp/ctd-work"}


@pytest.mark.parametrize(
    "cluster",
    [
        None,
        {"kind": "local"},
        {**SLURM, "nodes": 0},
        "nowhere",
    ],
)
def test_bad_clusters(tmp_path, cluster):
    with refused(JobError):
        submit(read_order(write(tmp_path, cluster=cluster), None))


def test_a_job_is_sent_again_to_the_cluster_that_was_named(tmp_path, monkeypatch):
    """From any folder, if that was a file; a name may have a dot."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ctd" / "clusters").mkdir(parents=True)
    for file in ("ctd/clusters/lab.v2.yaml", "lab.yml"):
        (tmp_path / file).write_text(yaml.safe_dump(SLURM))
    for given, word in {"lab.v2": "lab.v2", "lab.yml": f"{tmp_path}/lab.yml"}.items():
        assert read_order(write(tmp_path), given).words[-2:] == ("--cluster", word)


def test_dry_run_prints_the_script_and_touches_nothing(tmp_path, command_line, monkeypatch):
    monkeypatch.setattr("cluster.cli.display.SLOW_S", 0.0)
    path = write(tmp_path, cluster=SLURM, kernel="esn", sweep={"grid": {"g": [0.5, 1.0]}})
    code, out, err = command_line("submit", path, "--dry-run", "--set", "seed=4")
    assert code == 0, err
    assert out.startswith("#!/bin/bash -l\n#SBATCH --job-name=ctd-job\n")
    home = next(line for line in out.splitlines() if line.startswith("home="))[5:]
    assert (
        f'run=("${{inside[@]}}" ctd run {home}/job.yaml --store {tmp_path}/job.zarr --base {tmp_path})'
        in out
    )
    assert [p.name for p in tmp_path.iterdir()] == ["job.yaml"]
    said = dict(line.split(maxsplit=1) for line in err.splitlines())
    assert said["planning"] == "what would be sent"
    assert said["store"] == f"{tmp_path}/job.zarr"
    assert re.fullmatch("2 items, 1 group, 1 shard", said["work"])
    assert "not asked  " in err
    again = json.loads(command_line("submit", path, "--dry-run", "--set", "seed=4", "--json")[1])
    assert again["store"] == said["store"]
    assert again["script"].startswith("#!/bin/bash -l\n#SBATCH --job-name=ctd-job\n")
    assert re.fullmatch(
        r"1 allocation of 1 node, for at most 1 h 0 min, started at most 20 times",
        said["allocations"],
    )


def test_file_system_is_that_of_the_nearest_mount(tmp_path):
    assert file_system(Path("/proc/self/not there")) == "proc"
    here = subprocess.run(
        ["df", "--output=fstype", str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert file_system(tmp_path / "a" / "b") == here.stdout.split()[-1]


@pytest.mark.parametrize(
    ("kind", "written", "said"),
    [
        ("nfs4", "", ""),
        ("ext4", "", "work_dir (ext4), python (ext4), the store (ext4): nodes may not see what lies on a disk of this machine"),
        ("ext4", "work/cache", "the store (ext4): nodes may not see what lies on a disk of this machine"),
        ("ext4", "stores/a.zarr/run/submit/1/allocations.tsv", "work_dir (ext4), python (ext4): nodes may not"),
        ("ext4", "cache", "work_dir (ext4), python (ext4), the store (ext4): "),
    ],
)  # fmt: skip
def test_folders_that_nodes_have_written_to_are_shared(tmp_path, monkeypatch, kind, written, said):
    monkeypatch.setattr("cluster.slurm.setup.file_system", lambda _: kind)
    (tmp_path / written).mkdir(parents=True, exist_ok=True)
    folders = {"work_dir": tmp_path / "work", "python": tmp_path / "python", "the store": tmp_path / "stores"}  # fmt: skip
    found = unshared(folders)
    assert found.startswith(said)
    assert bool(found) == bool(said)


def test_job_that_is_complete_is_not_sent(tmp_path, command_line, monkeypatch):
    """Another one is, with a warning of folders that nodes may not see, and commands to type."""
    path, profile = write(tmp_path), tmp_path / "lab.yaml"
    profile.write_text(yaml.safe_dump({**SLURM, "work_dir": str(tmp_path / "work")}))
    address, executor = str(tmp_path / "job.zarr"), SerialExecutor(1)
    store = open_or_create(read_job(path, ["seed=1"]), str(tmp_path), "x", address, executor)
    slurm = "cluster.slurm.client."
    monkeypatch.setattr(f"{slurm}check_partition", lambda *_: None)
    monkeypatch.setattr(f"{slurm}try_out", lambda *_: None)
    monkeypatch.setattr(f"{slurm}submit", lambda *_: "7")
    monkeypatch.setattr(f"{slurm}allocations", lambda *_, **__: {})
    monkeypatch.setattr("cluster.slurm.setup.file_system", lambda _: "ext4")
    monkeypatch.chdir(tmp_path)
    submit = ("submit", "job.yaml", "seed=1", "--cluster", "lab.yaml")
    code, out, err = command_line(*submit)
    assert (code, out.split()[:2]) == (0, ["allocation", "7"])
    commands = [f"`ctd {name} {address}`" for name in ("status", "logs", "cancel")]
    assert "{} and {} follow it, {} ends it".format(*commands) in out
    assert (
        "warning: work_dir (ext4), the job's folder (ext4), python (ext4), the store (ext4): nodes may"
        in err
    )
    out = command_line("status", address)[1]
    again = f"ctd submit {path} seed=1 --cluster {profile}"
    assert f"`{again}` continues it\n" in out
    assert f"`{again}` continues it" in command_line("report", address)[2]
    assert f"otherwise `{again}` continues it" in Content(store).facts()["status"]["text"]
    assert again_command(store, "--failed") == f"`{again} --failed`"
    run_shards(store, executor)
    said = "job.yaml: nothing is left to compute; not submitted\n"
    assert command_line(*submit) == command_line(*submit, "--dry-run") == (0, said, "")
    assert "continues it" not in command_line("status", address)[1]
    reduced = command_line(*submit, "gather.reductions=[{name: counts}]")
    assert (reduced[0], reduced[1].split()[:2]) == (0, ["allocation", "7"])


APPTAINER = {"launcher": ["apptainer", "exec", "--bind={bind}", "{image}"]}


def test_container_that_is_not_there_is_refused(tmp_path):
    path = write(tmp_path, cluster={**SLURM, **APPTAINER, "container": str(tmp_path / "ctd.sif")})
    order = read_order(path, None)
    with refused(JobError):
        check_python(order.profile, order.label)


def test_dry_run_tells_an_image_that_is_not_there(tmp_path):
    cluster = {**SLURM, **APPTAINER, "gpus": "a100:2", "container": str(tmp_path / "ctd.sif")}
    path = write(tmp_path, cluster=cluster, kernel="esn", sweep=None)
    found = preview(read_order(path, None))
    assert found["not found"] == (
        f"container: {tmp_path}/ctd.sif does not exist on this machine; the nodes need it"
    )
    assert ", 2 a100 GPUs, " in found["a node"]
    (tmp_path / "ctd.sif").touch()
    assert "not found" not in preview(read_order(path, None))


@pytest.mark.parametrize("launcher", ["apptainer", "srun"])
def test_a_login_node_that_runs_no_containers_refuses_nothing(tmp_path, monkeypatch, launcher):
    """The nodes must have the program; `srun` would ask for an allocation."""
    (tmp_path / "ctd.sif").touch()
    words = {"launcher": [launcher, "--bind={bind}", "{image}"]}
    path = "" if launcher == "apptainer" else f"{tmp_path}/bin"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "srun").symlink_to("/bin/false")
    cluster = {**SLURM, **words, "work_dir": str(tmp_path / "work"), "container": str(tmp_path / "ctd.sif"), "setup": [f"PATH={path}"]}  # fmt: skip
    order, told = read_order(write(tmp_path, cluster=cluster), None), []
    for name, answer in {"check_partition": None, "try_out": None, "submit": "7"}.items():
        monkeypatch.setattr(f"cluster.slurm.client.{name}", lambda *_, answer=answer: answer)
    monkeypatch.setattr("shutil.which", lambda _: "/bin/sbatch")
    said = preview(order)["not checked"]
    assert re.fullmatch(rf".*cluster: {launcher} runs no container on .+: the versions in container: .+ctd.sif were not compared", said)  # fmt: skip
    submit(order, told.append)
    assert told == [said]


@pytest.mark.parametrize("missing", ["home", "work_dir", "python"])
def test_the_script_tests_what_it_needs_before_anything_else(tmp_path, missing):
    """What it can say and note of what its node does not see. Slurm has made the folder of the output there."""
    cluster = {**SLURM, "work_dir": str(tmp_path / "work")}
    if missing == "python":
        cluster["python"] = str(tmp_path / "bin" / "python")
    order = read_order(write(tmp_path, cluster=cluster), None)
    needed = {"home": order.home() / "allocation.sbatch", "work_dir": tmp_path / "work", "python": tmp_path / "bin" / "python"}  # fmt: skip
    absent = order.home() if missing == "home" else needed[missing]
    order.home().mkdir(parents=True)
    for name in {"home", "work_dir"} - {missing}:
        needed[name].mkdir()
    slurm = {"SLURM_JOB_ID": "7", "SLURMD_NODENAME": "n1", "PATH": os.environ["PATH"]}
    done = subprocess.run(["bash"], input=text_of(order), capture_output=True, text=True, env=slurm, check=False)  # fmt: skip
    assert (done.returncode, done.stderr) == (2, "")
    assert f"[7] {missing}: {absent} is not there on n1" in done.stdout
    assert done.stdout.endswith(" that all nodes see\n")
    assert (order.home() / "allocations.tsv").read_text().split()[1:] == ["7", "ended", "2"]


def test_dry_run_of_a_ray_prints_the_command(tmp_path):
    path = write(
        tmp_path, cluster={"kind": "ray", "address": "head:6379", "stores": "s3://bucket/x"}
    )
    command = text_of(read_order(path, None))
    assert command.startswith('python -m cluster.versions \'{"python"')
    assert '--store s3://bucket/x/job.zarr --base . --address "$RAY_ADDRESS"' in command


def test_file_with_stages_goes_whole(tmp_path):
    job = {"kernel": "toy", "sweep": {"grid": {"rate": [0.1]}}}
    path = tmp_path / "pipe.yaml"
    path.write_text(yaml.safe_dump({"stages": {"one": job, "two": job}, "cluster": SLURM}))
    text = text_of(read_order(path, None))
    assert f"--store {tmp_path}/pipe.zarr --base {tmp_path}" in text
    assert f"home={tmp_path}/pipe.one.zarr/run/submit/" in text


def test_store_of_another_job_is_refused(tmp_path, monkeypatch):
    """Before anything is sent, with the difference."""
    from cluster.slurm import client as slurm

    monkeypatch.setattr(slurm, "check_partition", lambda profile, where: {})
    monkeypatch.setattr(slurm, "try_out", lambda *_: None)
    path = write(tmp_path, cluster={**SLURM, "work_dir": str(tmp_path / "work")})
    other = parse_job({"kernel": "toy", "seed": 1}, "x")
    open_or_create(other, str(tmp_path), "x", str(tmp_path / "job.zarr"), SerialExecutor(1))
    with refused(JobError):
        submit(read_order(path, None))
    bad = write(
        tmp_path, params={"n_steps": -1}, cluster={**SLURM, "work_dir": str(tmp_path / "w")}
    )
    with refused(JobError):
        submit(read_order(bad, None, store=str(tmp_path / "new.zarr")))
    assert not (tmp_path / "new.zarr").exists()


def test_stage_that_refers_to_another_leaves_less_time_than_the_profile(tmp_path):
    one = {"kernel": "toy"}
    two = {"kernel": "fixed_points", "params": {"weights": {"stage": "one"}}, "run": {"grace_s": 120}}  # fmt: skip
    path = tmp_path / "pipe.yaml"
    path.write_text(yaml.safe_dump({"stages": {"one": one, "two": two}, "cluster": SLURM}))
    with refused(JobError):
        preview(read_order(path, None))


@pytest.mark.parametrize(
    ("cluster", "run"),
    [
        ({"cpus": 2}, {"cpus_per_worker": 4}),
        ({"gpus": 1}, {"gpus_per_worker": 2}),
        ({}, {"gpus_per_worker": 0.5}),
    ],
)  # fmt: skip
def test_worker_that_fits_no_node_is_refused(tmp_path, cluster, run):
    with refused(JobError):
        preview(read_order(write(tmp_path, cluster={**SLURM, **cluster}, run=run), None))


def test_what_slurm_refuses_is_refused_in_a_dry_run(tmp_path, monkeypatch):
    """Where it can be asked; what JAX and the time limit lack is a warning of `ctd submit`, too."""
    path = write(tmp_path, cluster={**SLURM, "gpus": 1, "time": 4, "work_dir": str(tmp_path / "w")})
    asked, slurm = [], "cluster.slurm.client."
    monkeypatch.setattr("shutil.which", lambda _: "/bin/sbatch")
    monkeypatch.setattr(f"{slurm}check_partition", lambda *_: None)
    monkeypatch.setattr(f"{slurm}try_out", lambda *_: None)
    monkeypatch.setattr(f"{slurm}submit", lambda *_: "7")
    monkeypatch.setattr("cluster.slurm.setup.gpu_plugins", list)
    found = preview(read_order(path, None))
    assert found["no GPU"].startswith("gpus: 1 wanted, and JAX would compute on the CPU: it needs")
    assert found["short"].startswith(
        "time: 4 minus grace_s: 120 leaves 2 min 0 s of each allocation"
    )
    submit(read_order(path, None), asked.append)
    assert asked == [found["no GPU"]]
    monkeypatch.setattr(f"{slurm}try_out", refuse)
    with refused(JobError):
        preview(read_order(path, None))


def test_job_sent_to_a_ray_keeps_its_name(tmp_path, monkeypatch):
    """The file that is shipped has another one."""
    names = []

    def sent(folder, *_):
        (file,) = Path(folder).glob("job-*.yaml")
        names.append(yaml.safe_load(file.read_text())["name"])
        return "7"

    monkeypatch.setattr("cluster.ray.jobs.submit", sent)
    for name in (None, "mine"):
        path = write(tmp_path, name=name, cluster={"kind": "ray", "address": "head:6379"})
        submit(read_order(path, None))
    assert names == ["job", "mine"]


def test_versions_that_differ_there_are_told(tmp_path, monkeypatch, capsys):
    """By the command that is sent, which compares them before it makes a store; the job file that is shipped is removed."""

    class Api:
        def submit_job(self, entrypoint, submission_id, **_):
            python, m, module, expected, *_ = shlex.split(entrypoint)
            assert [python, m, module] == ["python", "-m", versions.__name__]
            assert versions.main([expected]) == 2
            return submission_id

        def get_job_info(self, number):
            return SimpleNamespace(status=SimpleNamespace(is_terminal=lambda: True), message="")

        def get_job_logs(self, number):
            return capsys.readouterr().out

    names = ("python", "ray", "jax", "ctd")
    other = {**versions.versions(), **dict.fromkeys(names, "0.0.1")}
    monkeypatch.setattr("cluster.ray.jobs.versions", lambda: other)
    monkeypatch.setattr("ray.job_submission.JobSubmissionClient", lambda url: Api())
    monkeypatch.setattr("cluster.ray.jobs.knock", lambda address: None)
    cluster = {"kind": "ray", "address": "head:6379", "stores": str(tmp_path / "stores")}
    path = write(tmp_path, cluster=cluster)
    "; ".join(rf"{name} is \S+ there and 0\.0\.1 here" for name in names)
    with refused(JobError):
        submit(read_order(path, None))
    assert [file.name for file in tmp_path.iterdir()] == ["job.yaml"]


RAY = {"kind": "ray", "address": "head:6379"}
EIGHT = {**SLURM, "cpus": 8}


@pytest.mark.parametrize(
    ("cluster", "run", "array", "workers"),
    [
        (EIGHT, {}, None, 8),
        (EIGHT, {"cpus_per_worker": 4}, None, 2),
        ({**EIGHT, "nodes": 2}, {"cpus_per_worker": 3}, None, 4),
        (EIGHT, {"workers": 1}, None, 1),
        (EIGHT, {"workers": 2, "cpus_per_worker": 4}, 3, 6),
        ({**EIGHT, "gpus": "a100:4"}, {}, None, 4),
        ({**EIGHT, "gpus": 4}, {"gpus_per_worker": 2}, None, 2),
        ({**EIGHT, "gpus": 2}, {"gpus_per_worker": 0.5}, None, 4),
        ({**EIGHT, "gpus": 2}, {"gpus_per_worker": 0}, None, 8),
        ({**SLURM, "gpus": 4}, {}, None, 4),
        ({**SLURM, "gpus": "a100:4", "cpus": 1}, {}, None, 1),
        (RAY, {"workers": 5}, None, 5),
        (RAY, {}, None, 1),
    ],
)
def test_workers_of_an_order(tmp_path, cluster, run, array, workers):
    """As many as its nodes have room for, which `run.workers` bounds in each allocation."""
    order = read_order(write(tmp_path, cluster=cluster, run=run), None, array=array)
    assert order.machines(RunSettings(**run)).workers == workers


def test_plan_of_an_array_counts_the_workers_of_all_allocations(tmp_path):
    """Three of two workers each get as many shards as one of six."""
    shards = [
        check_job(
            read_order(
                write(tmp_path, cluster=EIGHT, run={"workers": n}, sweep={"seeds": 6000}), None, array=array
            )
        )[0][1].plan.n_shards
        for n, array in ((2, 3), (6, None), (2, None))
    ]  # fmt: skip
    assert shards[0] == shards[1] > shards[2]


def test_time_in_a_dry_run_is_that_of_the_workers(tmp_path, monkeypatch):
    """By shards that have run on the cluster, else on this machine."""
    known = [None, 30.0]
    monkeypatch.setattr("cluster.cli.submit.remembered_pace", lambda spec, home=None: known[home is None])  # fmt: skip
    run = {"cpus_per_worker": 4, "shard_items": 1, "slots": 1, "microbatch": 1}
    path = write(tmp_path, cluster=EIGHT, run=run, sweep={"seeds": 8})
    took = "{} on 2 workers as fast as {}"
    assert preview(read_order(path, None))["time"] == took.format("2 min 0 s", "this machine's")
    known[0] = 60.0
    there = took.format("4 min 0 s", "the cluster's, by an earlier run")
    assert preview(read_order(path, None))["time"] == there
    cut = write(tmp_path, cluster={**EIGHT, "time": 4, "max_allocations": 1}, run=run, sweep={"seeds": 8})  # fmt: skip
    assert preview(read_order(cut, None))["time"] == f"{there}; its allocations have at most 2 min 0 s"  # fmt: skip
    path = write(tmp_path, cluster=EIGHT, run=run, sweep={"seeds": 1})
    one = preview(read_order(path, None))
    assert one["work"] == "1 item, 1 group, 1 shard: 1 of 2 workers will have nothing to do"


@pytest.fixture
def changed(tmp_path):
    """The address of the job's store: one of its shards has an item that failed, and its source was another one."""
    run = {"shard_items": 1, "slots": 1, "microbatch": 1}
    path = write(tmp_path, run=run)
    address, executor = str(tmp_path / "job.zarr"), SerialExecutor(1)
    store = open_or_create(read_job(path), str(tmp_path), "x", address, executor)
    run_shards(store, executor)
    shard = next(iter(store.job.plan.shards()))
    failing = [FailedItem(row=0, item=0, error="no")]
    store.failed.add(FailedItems(shard=shard, rows=failing))
    write_job(store.objects, store.job.model_copy(update={"sources": {"toy": "0"}}))
    return address


def refuse(*_):
    raise JobError("refused")


@pytest.mark.parametrize(
    ("cluster", "asked"),
    [
        ({}, "cluster.slurm.client.check_partition"),
        ({"work_dir": "/proc/ctd"}, "cluster.slurm.client.submit"),
        ({"grace_s": 10}, "cluster.slurm.client.submit"),
        (RAY, "cluster.ray.jobs.client"),
    ],
)
def test_refused_submission_leaves_the_store_as_it_was(tmp_path, monkeypatch, changed, cluster, asked):  # fmt: skip
    if cluster is not RAY:
        cluster = {**SLURM, "work_dir": str(tmp_path / "work"), **cluster}
        monkeypatch.setattr("cluster.slurm.client.check_partition", lambda *_: None)
        monkeypatch.setattr("cluster.slurm.client.try_out", lambda *_: None)
    monkeypatch.setattr(asked, refuse)
    content = yaml.safe_load((tmp_path / "job.yaml").read_text())
    path, before = write(tmp_path, **content, cluster=cluster), files(changed)
    with refused(JobError):
        submit(read_order(path, None, failed=True, accept_changes=True))
    assert files(changed) == before


def test_submission_accepts_changes_and_takes_failed_items_again(tmp_path, monkeypatch, changed):
    content = yaml.safe_load((tmp_path / "job.yaml").read_text())
    cluster = {**SLURM, "work_dir": str(tmp_path / "work")}
    path = write(tmp_path, **content, cluster=cluster)
    with refused(JobError):
        preview(read_order(path, None, failed=True))
    for failed, left in ((False, "0 of 2 shards left"), (True, "1 of 2 shards left")):
        assert preview(read_order(path, None, failed=failed, accept_changes=True))["work"] == left
    monkeypatch.setattr("cluster.slurm.client.check_partition", lambda *_: None)
    monkeypatch.setattr("cluster.slurm.client.try_out", lambda *_: None)
    monkeypatch.setattr("cluster.slurm.client.submit", lambda *_: "7")
    submit(read_order(path, None, failed=True, accept_changes=True))
    store = Store.open(changed)
    assert store.job.sources["toy"] != "0"
    assert store.committed.numbers() == {1}


def test_setup_lines_that_do_not_end_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr("cluster.slurm.setup.LONGEST_S", 0.3)
    order = read_order(write(tmp_path, cluster={**SLURM, "setup": ["exec sleep 9"]}), None)
    with refused(JobError):
        check_python(order.profile, order.label)


def test_setup_lines_that_end_the_shell_are_told(tmp_path):
    for line in ("exit 0", "false"):
        order = read_order(write(tmp_path, cluster={**SLURM, "setup": [line]}), None)
        with refused(JobError):
            check_python(order.profile, order.label)


def test_the_python_of_a_profile_is_the_one_that_runs(tmp_path):
    """It is named, whether it is not there or has no ctd."""
    python = tmp_path / "python3"
    order = read_order(write(tmp_path, cluster={**SLURM, "python": str(python)}), None)
    with refused(JobError):
        check_python(order.profile, "cluster")
    python.write_text("#!/bin/sh\necho $0 has no ctd >&2; exit 1\n")
    python.chmod(0o755)
    with refused(JobError):
        check_python(order.profile, "cluster")


def test_versions_as_a_script(capsys):
    assert versions.main([json.dumps(versions.versions())]) == 0
    assert capsys.readouterr().out.strip() == versions.AGREE
    assert versions.main([json.dumps({**versions.versions(), "jax": "0.1"})]) == 2
    assert "versions differ: jax is 0." in capsys.readouterr().out
    assert versions.main([]) == 0
    assert json.loads(capsys.readouterr().out) == {**versions.versions(), versions.PLUGINS: ""}


def test_record_alone_is_no_store(tmp_path):
    """A store is made beside the record of its submission, and its failure leaves the record."""
    address = tmp_path / "job.zarr"
    record = address / "run" / "submit" / "x" / "record.json"
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    assert not Store.exists(str(address))
    spec = parse_job({"kernel": "toy", "sweep": {"grid": {"rate": [0.1]}}}, "x")
    broken = pytest.MonkeyPatch()
    with broken.context() as patch:
        patch.setattr(
            "jobs.store.creation._consolidate", lambda store: (_ for _ in ()).throw(OSError("full"))
        )
        with refused(JobError):
            open_or_create(spec, str(tmp_path), "x", str(address), SerialExecutor(1))
    assert record.exists()
    assert not Store.exists(str(address))
    store = open_or_create(spec, str(tmp_path), "x", str(address), SerialExecutor(1))
    assert store.committed.numbers() == set()
    assert record.exists()
