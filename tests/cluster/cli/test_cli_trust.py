"""A stranger's store runs no code of the stranger's: no command imports what it names, but after --trust."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from messages import usage_error
from places import SUPPORT
from stores import Hostile, files, half_gathered, of_train_rnn, reseal

from cluster.cli.main import COMMANDS
from cluster.watch import Maker
from jobs import keys, open_store
from jobs.errors import JobError
from jobs.gather.check import check
from jobs.gather.gather import gather
from jobs.query import tables
from jobs.query.query import query, table
from jobs.report.page import Content
from jobs.run.shards import run_shards
from jobs.run.worker import SerialExecutor
from jobs.storage import objects
from jobs.store.store import Store


def lose(store, number):
    """Take a shard back, so that there is something to compute."""
    store.committed.forget([shard for shard in store.job.plan.shards() if shard.number == number])


@pytest.fixture
def hostile(tmp_path):
    sys.modules.pop("payload", None)
    yield Hostile(tmp_path / "evil.zarr")
    sys.modules.pop("payload", None)


@pytest.fixture(params=["kept", "not kept"])
def described(request, hostile):
    """The store with, and without, what it keeps of its kernel."""
    if request.param == "not kept":
        objects.delete(Store.open(str(hostile.path)).objects, keys.KERNEL)
    return hostile


LOOKS = [
    ["status"], ["query"], ["query", "--table", "place"], ["query", "--table", "nothing"],
    ["query", "--columns", "nothing"], ["query", "--where", "x > 0"], ["report"], ["logs"], ["check"],
    ["export", "0", "item.h5", "--results"], ["export", "--to", "tensorboard"], ["cancel"],
    ["best", "--by", "norm"], ["compare", "evil.zarr"], ["archive", "evil.zip"], ["note", "seen"], ["ls"],
]  # fmt: skip


ASKS = [
    ["resume", "--executor", "serial"], ["gather"], ["check", "--repair"], ["posterior"],
    ["posterior", "--store", "out.zarr"], ["export", "0", "next.yaml", "--job", "its points"],
]  # fmt: skip
"""What computes, and so asks for --trust."""

WITH_A_JOB = {"run", "plan", "submit"}
"""They take the user's own job file, which may name a stranger's store."""
BESIDES = {"watch", "weights"}
"""watch serves until Ctrl-C: its pages are made in a test of the API, and looked at in Chromium. weights takes STORE::ITEM."""
WITHOUT_A_STORE = {"schema", "kernels", "new", "clusters"}


def test_every_command_is_tried_on_a_strangers_store():
    tried = {command[0] for command in [*LOOKS, *ASKS]}
    assert tried | WITH_A_JOB | BESIDES | WITHOUT_A_STORE == COMMANDS.keys()


@pytest.mark.slow
def test_looking_runs_nothing_of_the_stores_code(ctd, described):
    """Nor does comparing, or a job file that refers to the store."""
    path = described.path
    for command, *rest in LOOKS:
        code, _, err = ctd(command, path, *rest)
        lacks = 0 if (path / keys.KERNEL).exists() else {"check": 1, "archive": 2}.get(command, 0)
        assert code == (2 if "nothing" in rest or "x > 0" in rest else lacks), err
        assert "Traceback" not in err
        assert not described.ran, command
    code, out, _ = ctd("query", path, "--json")
    assert len(json.loads(out)) == 44  # what was committed since is gathered
    assert ctd("query", path, path)[0] == ctd("compare", path, path)[0] == 0
    (path.parent / "job.yaml").write_text(
        "kernel: fixed_points\nparams: {weights: {store: evil.zarr, where: 'norm > 0', limit: 1}}\n"
    )
    usage_error(ctd("plan", "job.yaml"), "kernel payload stores no weights")
    usage_error(ctd("weights", f"{path}::0"), "kernel payload stores no weights")
    assert not described.ran


def test_looking_says_that_the_kernels_tables_are_old(ctd, hostile):
    said = "the tables of kernel payload itself are those of the last `ctd gather`"
    code, _, err = ctd("query", hostile.path)
    assert (code, said in err) == (0, True)
    code, _, err = ctd("report", hostile.path)
    assert (code, said in err) == (0, True)
    assert said in hostile.path.with_suffix(".html").read_text()
    assert not hostile.ran


def test_the_api_runs_nothing_of_the_stores_code(described):
    tree = open_store(described.path)
    assert len(tree.query(table="place")) == 6
    assert tree.select("norm > 0")["results/0"].sizes["item"] == 22
    assert tree["results/0"].norm.attrs["units"] == "m"
    store = Store.open(str(described.path))
    for name in ("items", "shards", "place"):
        assert len(table(store, name))
    with pytest.raises(JobError, match="unknown column"):
        query(store, "nothing > 1")
    page = Content(store).all()
    assert [plot["title"] for plot in page["groups"][0]["plots"]] == ["x"]
    assert [o["name"] for o in page["outcomes"]] == ["stopped", "diverged"]
    watched = Maker(Store.open(store.address))
    watched.look()
    assert watched.latest[1]["trouble"].startswith("the tables of kernel payload itself are those")
    objects.delete(store.objects, keys.sums("created"))
    assert keys.sums("created") in {finding.key for finding in check(store.address)}
    assert not described.ran


@pytest.mark.parametrize("command", ASKS, ids=" ".join)
def test_computing_asks_for_trust_and_names_the_code(ctd, hostile, command):
    lose(Store.open(str(hostile.path)), 0)
    first, *rest = command
    place = str(hostile.code / "payload.py")
    usage_error(ctd(first, hostile.path, *rest), place, "inside of a store", "--trust")
    assert not hostile.ran


def test_the_advised_command_has_trust_where_it_takes_it(ctd, hostile):
    lose(Store.open(str(hostile.path)), 0)
    assert f"`ctd resume {hostile.path} --trust` continues" in ctd("check", hostile.path)[1]
    assert not hostile.ran


def test_computing_by_the_api_asks_for_trust(hostile):
    store = Store.open(str(hostile.path))
    lose(store, 0)
    for compute in (gather, lambda store: run_shards(store, SerialExecutor(1))):
        with pytest.raises(JobError, match="--trust"):
            compute(store)
    with pytest.raises(JobError, match="--trust"):
        check(store.address, repair=True)
    assert not hostile.ran


def test_a_job_file_that_names_a_strangers_store_runs_none_of_its_code(ctd, tmp_path, hostile):
    """Neither what is in the store's job, nor, for a job with the same kernel's name, what lies beside it."""
    sweep = "sweep: {grid: {rate: {linspace: [0, 0.5, 6]}}}\n"
    job = {**Store.open(str(hostile.path)).job.spec.model_dump(mode="json", exclude_defaults=True)}
    (tmp_path / "other.yaml").write_text(f"kernel: toy\n{sweep}")
    (tmp_path / "same.yaml").write_text(json.dumps(job | {"kernel": "toy"}))
    (tmp_path / "there.yaml").write_text("kind: slurm\nwork_dir: .\nmemory_gb: 1\ntime: 10\n")
    for file in ("other.yaml", "same.yaml"):
        assert ctd("plan", file, "--store", hostile.path)[0] == 0
        order = ("submit", file, "--cluster", "there.yaml", "--store", hostile.path)
        usage_error(ctd(*order, "--dry-run"), "holds another job")
        run = ("run", file, "--store", hostile.path, "--executor", "serial")
        usage_error(ctd(*run), "another job")
    assert not hostile.ran


def test_trust_computes_and_says_whose_code(ctd, hostile):
    lose(Store.open(str(hostile.path)), 0)
    command = ("resume", hostile.path, "--executor", "serial", "--trust")
    code, out, err = ctd(*command)
    assert (code, hostile.ran) == (0, True), err
    assert f"runs the code of {hostile.code / 'payload.py'}" in err
    assert "best_norm" in out
    assert len(Store.open(str(hostile.path)).committed.numbers()) == 8


def test_a_job_file_does_not_lend_its_trust_to_a_store(ctd, tmp_path, hostile):
    """The kernel of the user's own job has the same name, and the workers would import the store's."""
    (tmp_path / "payload.py").write_text("from toy import *\n")
    job = {**Store.open(str(hostile.path)).job.spec.model_dump(mode="json", exclude_defaults=True)}
    (tmp_path / "job.yaml").write_text(json.dumps(job))
    answer = ctd("run", "job.yaml", "--store", hostile.path, "--executor", "serial")
    usage_error(answer, str(hostile.code / "payload.py"), "--trust")
    assert not hostile.ran


def test_a_store_is_never_read_as_version_2_of_zarr(ctd, hostile):
    """Whose arrays may have pickle as their codec; older numcodecs reads it."""
    for kind in ("zarr.json", "items/zarr.json", "results/zarr.json", "results/0/zarr.json"):
        (hostile.path / kind).rename(hostile.path / kind.replace("zarr.json", ".zgroup"))
        (hostile.path / kind.replace("zarr.json", ".zgroup")).write_text('{"zarr_format": 2}')
    array = {
        "zarr_format": 2,
        "shape": [44],
        "chunks": [44],
        "dtype": "|O",
        "fill_value": "",
        "order": "C",
        "compressor": None,
    }
    array["filters"] = [{"id": "vlen-utf8"}, {"id": "pickle", "protocol": 5}]
    payload = f"cbuiltins\nexec\n(Vopen({str(hostile.mark)!r}, 'w')\ntR."
    for path in hostile.path.glob("items/*/"):
        (path / ".zarray").write_text(json.dumps(array))
        (path / "0").write_text(payload)
    for command, *rest in LOOKS:
        _, _, err = ctd(command, hostile.path, *rest)
        assert "Traceback" not in err, command
        assert not hostile.ran, command
    with pytest.raises(Exception, match=r"zarr|damaged"):
        _ = Store.open(str(hostile.path)).root


WRITERS = [["query"], ["report"], ["gather", "--trust"], ["check", "--repair", "--trust"], ["resume", "--trust"], ["note", "x"], ["cancel"]]  # fmt: skip


@pytest.mark.parametrize("folder", ["gathered", "gathered/0", "items", "run/sums", "run"])
def test_nothing_is_written_or_deleted_where_a_folder_of_a_store_links_to(
    ctd, hostile, tmp_path, folder
):
    """A store that was unpacked may hold links to the reader's folders."""
    mine = tmp_path / "mine"
    (hostile.path / folder).rename(mine)
    (mine / "thesis.txt").write_text("precious")
    (hostile.path / folder).symlink_to(mine)
    before = files(mine)
    for command, *rest in WRITERS:
        usage_error(ctd(command, hostile.path, *rest), f"is a link to {mine}")
        assert files(mine) == before, command


def test_link_that_leads_to_itself_is_told_in_a_line(ctd, hostile, monkeypatch):
    monkeypatch.setattr(tables, "ATTEMPTS", 2)  # each gathers all of the store in vain
    (hostile.path / "gathered" / "0" / "loop").symlink_to("loop")
    for command, *rest in WRITERS:
        code, _, err = ctd(command, hostile.path, *rest)
        assert "Traceback" not in err, command
        assert code in (0, 2, 74), (command, err)


def test_a_store_may_be_a_link_itself_and_have_its_results_elsewhere(ctd, hostile, tmp_path):
    (hostile.path / "results").rename(tmp_path / "disk")
    (hostile.path / "results").symlink_to(tmp_path / "disk")
    (tmp_path / "link.zarr").symlink_to(hostile.path)
    for command, *rest in WRITERS[:2]:
        code, _, err = ctd(command, tmp_path / "link.zarr", *rest)
        assert code == 0, err


@pytest.mark.parametrize("command", [["report"], ["gather"], ["resume"], ["cancel"]])
@pytest.mark.parametrize("exists", [True, False])
def test_nothing_goes_through_a_link(ctd, tmp_path, command, exists):
    """Beside the store, where ctd itself derives the path; the target has no suffix, to which matplotlib adds one."""
    path = shutil.copytree(half_gathered(), tmp_path / "s.zarr")
    mine = tmp_path / "mine"
    for place in ("s.html", "s.png", "s.zarr/run/submit/1/cancelled"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).symlink_to(mine)
    home = str(path / "run" / "submit" / "1")
    (path / "run/submit/1/record.json").write_text(
        json.dumps({"id": "1", "kind": "slurm", "numbers": ["7"], "home": home, "profile": {}, "command": "", "submitted": 0.0})
    )  # fmt: skip
    if exists:
        mine.write_text("precious")
    code, _, err = ctd(*command, path, *["--executor", "serial"] * (command == ["resume"]))
    assert code == 0, err
    assert mine.exists() == exists
    assert not exists or mine.read_text() == "precious"


@pytest.mark.parametrize("place", ["", "mlflow.db", "artifacts", "artifacts/toy"])
def test_export_through_a_link(ctd, tmp_path, place):
    """In the folder that ctd itself names, not in one that the user typed."""
    path = shutil.copytree(half_gathered(), tmp_path / "s.zarr")
    link = tmp_path / "s-mlflow" / place
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(tmp_path / "mine")
    usage_error(ctd("export", path, "--to", "mlflow"), f"{link}: is a link to {tmp_path}/mine")
    assert not (tmp_path / "mine").exists()


PIPES = [
    "run/job.json",
    "run/done/1/*",
    "run/events/*.json*",
    "results/0/norm/zarr.json",
    "results/0/norm/c/*",
    "items/item/c/*",
    "run/kernel.json",
]


@pytest.mark.parametrize("pattern", PIPES)
def test_pipe_is_a_damaged_object(ctd, tmp_path, pattern):
    """Its reader would wait for ever, in a thread that hears no Ctrl-C."""
    path = shutil.copytree(half_gathered(), tmp_path / "s.zarr")
    places = [place for place in path.glob(pattern) if place.is_file()]
    assert places
    for place in places:
        place.unlink()
        os.mkfifo(place)
    for command in ("status", "query", "check", "ls"):
        code, _, err = ctd(command, path)
        assert "Traceback" not in err, command
        assert code in (0, 1, 2), (command, err)


OWN = """
from toy import *
from ctd.kernel import Display, Kernel
from ctd.plots import Axis, Lines, Plot
from dataclasses import replace

def draw(inputs, shared, columns, results, reduced):
    return [Plot("Mine", [Lines([0, 1], results["x"][:, :2])], Axis("component"))]

kernel = replace(kernel, name="{name}", display=Display(plots=draw))
"""


@pytest.mark.slow
def test_a_kernel_of_ones_own_needs_no_flag_and_its_pictures_are_kept(
    command_line, tmp_path, monkeypatch
):
    """Run from beside the job file, resumed and asked from elsewhere; a stranger sees the kept pictures."""
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "ownwalk.py").write_text(OWN.format(name="ownwalk"))
    job = "kernel: ownwalk\nparams: {n_steps: 5}\nsweep: {grid: {rate: {linspace: [0, 0.5, 6]}}}\n"
    (tmp_path / "lab" / "job.yaml").write_text(f"{job}run: {{shard_items: 2}}\n")
    store = tmp_path / "lab" / "job.zarr"

    def call(*args, **env):
        done = subprocess.run(
            [sys.executable, "-m", "cluster.cli.main", *map(str, args)],
            capture_output=True, text=True, check=False, cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(SUPPORT), "JAX_PLATFORMS": "cpu", **env},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stderr

    monkeypatch.chdir(tmp_path / "lab")
    assert command_line("run", "job.yaml", "--executor", "serial")[0] == 0
    opened = Store.open(str(store))
    lose(opened, 1)
    said = call("resume", store, "--executor", "serial")
    assert f"runs the code of {tmp_path / 'lab' / 'ownwalk.py'}" in said
    lose(opened, 2)
    monkeypatch.chdir(tmp_path)
    code, _, err = command_line("report", store)
    assert (code, "last `ctd gather`" in err) == (0, False)  # what it shows is reduced again
    # Another user, who has never run it.
    call("report", store, "--to", "theirs.html", XDG_CONFIG_HOME=str(tmp_path / "theirs"))
    for page in (tmp_path / "lab" / "job.html", tmp_path / "theirs.html"):
        assert '"title":"Mine"' in page.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("where", ["the job", "the arrays"])
def test_ctds_own_kernel_imports_no_task_of_a_store(tmp_path, where):
    """`task: payload.Task` makes ctd import `payload`, from the folder that the job names."""
    sys.modules.pop("payload", None)
    path, code, mark = tmp_path / "evil.zarr", tmp_path / "code", tmp_path / "hacked"
    store = of_train_rnn(path)
    code.mkdir()
    (code / "payload.py").write_text(f"open({str(mark)!r}, 'w')\n")
    (code / "scipy_of_mine.py").write_text("")
    task = {"task": {"name": "payload.Task"}}
    if where == "the arrays":
        group = store.results(0)
        group.attrs.update({"params": {**group.attrs["params"], **task}})
    reseal(store, str(code), "train_rnn", **(task if where == "the job" else {}))
    before = list(sys.path)
    opened = Store.open(str(path))
    assert len(query(opened)) == 2
    page = Content(opened).all()
    assert len(page["tables"]) >= 2
    objects.delete(opened.objects, keys.sums("created"))
    check(opened.address)
    lose(opened, 0)
    opened = Store.open(str(path))
    if where == "the job":
        with pytest.raises(JobError, match=r"payload\.py.*--trust"):
            run_shards(opened, SerialExecutor(1))
    else:
        assert "--trust" in page["groups"][0]["error"]
        # Not even a worker has the folder on its path.
        progress = run_shards(opened, SerialExecutor(1))
        assert list(progress.failed) == [0]
    assert sys.path == before
    assert not mark.exists()
