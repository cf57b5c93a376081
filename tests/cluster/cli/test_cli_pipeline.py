"""Pipelines and several job files on the command line, with the serial executor: each stage takes what the last one left."""

import json

import h5py
import numpy as np
import pytest
import xarray as xr
from messages import usage_error
from places import EXAMPLES
from stores import FOUR_SLOTS, SMALL_RNN, TOY, make

from cluster.api.job import Job
from cluster.cli.outcome import say_what_failed
from jobs import Store, open_store
from jobs.errors import EXIT_STOPPED
from jobs.pipeline import read_stages
from jobs.run.progress import Progress
from jobs.run.shards import run_shards
from jobs.run.stop import Interrupted
from jobs.store.store import title_of

pytestmark = pytest.mark.usefixtures("no_pictures")

PIPELINE = f"""
stages:
  train:
    kernel: train_rnn
    params: {json.dumps(SMALL_RNN | {"n_saved": 4})}
    sweep: {{seeds: 3}}
    run: {json.dumps(FOUR_SLOTS)}
  points:
    kernel: fixed_points
    params:
      weights: {{stage: train, sort: eval_loss, limit: 2}}
      candidates: {{stage: train, sort: eval_loss, limit: 2, part: results}}
      dataset: states
    sweep: {{grid: {{candidate: {{range: 8}}}}}}
    run: {json.dumps(FOUR_SLOTS)}
  ways:
    kernel: fixed_points.connections
    params:
      weights: {{stage: points, part: params}}
      points: {{stage: points, part: table}}
      n_steps: 20
    run: {json.dumps(FOUR_SLOTS)}
  distances:
    kernel: similarity
    params:
      weights: {{stage: points, part: params}}
      points: {{stage: points, part: table}}
      task: {{name: integrator}}
      n_trials: 4
    sweep: {{grid: {{matrix_row: {{range: 3}}}}}}
    run: {json.dumps(FOUR_SLOTS)}
"""


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """The file of a pipeline, in a folder that several tests share."""
    path = tmp_path_factory.mktemp("pipeline") / "pipe.yaml"
    path.write_text(PIPELINE)
    return path


@pytest.mark.parametrize(
    "override",
    [
        "stages.points.params.weights.stage=tran",
        "stages.points.params.weights.where=eval_loss < 0",
        "stages.points.params.weights.where=evl_loss < 0",
        "stages.points.params.weights={store: none.zarr}",
        "stages.points.params.n_trials={stage: train}",
        "stages.points.params.candidates.part=params",
        "stages.points.params.weights.wher=1",
        "kernel=toy",
        "stages.points.kernel=nope",
        "stages.points=3",
        "stages.trian.sweep.seeds=2",
    ],
)
def test_pipeline_refuses(ctd, pipeline, override):
    """Before its first stage, or after it, which the first of these trains for all."""
    trained = pipeline.with_name("pipe.train.zarr")
    if not trained.exists():
        wrong = ("--set", "stages.points.params.q_tol=0")
        assert ctd("run", pipeline, "--executor", "serial", *wrong)[0] == 2
    assert Store.open(str(trained)).committed.numbers() == {0}
    usage_error(ctd("run", pipeline, "--executor", "serial", "--set", override))
    assert not pipeline.with_name("pipe.points.zarr").exists()


def test_pipeline_trains_then_searches_the_best(ctd, pipeline):
    path = pipeline
    code, _, err = ctd("run", path, "--executor", "serial")
    assert code == 0, err
    train, points = path.with_name("pipe.train.zarr"), path.with_name("pipe.points.zarr")
    items = json.loads(ctd("query", train, "--sort", "eval_loss", "--limit", "2", "--json")[1])
    tree = xr.open_datatree(points, engine="zarr")
    assert len(tree["results"].children) == 2
    assert title_of(Store.open(str(points))) == "pipe.points", "`points` could be of any file"
    for group, item in enumerate(items):
        assert (
            tree[f"results/{group}"].attrs["swept"]["weights"] == f"pipe.train.zarr::{item['item']}"
        )
    # What follows a table has an item for each group that it was made of, with what the group was made from.
    ways = xr.open_datatree(path.with_name("pipe.ways.zarr"), engine="zarr")["results"]
    assert [
        (ways[group].attrs["swept"]["points"], ways[group].attrs["swept"]["weights"])
        for group in ways.children
    ] == [
        (f"pipe.points.zarr/gathered/{group}", f"pipe.train.zarr::{item['item']}")
        for group, item in enumerate(items)
    ]
    # A field that takes several files takes them all, in one group; an item tells what its network was made with.
    distances = path.with_name("pipe.distances.zarr")
    assert open_store(distances)["results/0"].outcome.values.tolist() == [0, 0, 1]
    networks = json.loads(ctd("query", distances, "--table", "network", "--json")[1])
    assert [row["network"] for row in networks] == [f"seed={item['seed']}" for item in items]
    assert networks[0]["mean_distance"] > 0
    # Every stage is resumed by itself, and a stage that is complete is left as it is.
    before = Store.open(str(points)).committed.markers()
    assert ctd("run", path, "--executor", "serial")[0] == 0
    assert before == Store.open(str(points)).committed.markers()
    code, _, err = ctd("export", train, items[0]["item"], "best.h5")
    assert code == 0, err
    trained = open_store(train)["results/0"]
    with h5py.File("best.h5") as file:
        row = int(np.flatnonzero(trained.item == items[0]["item"])[0])
        np.testing.assert_array_equal(file["weight_hh"], trained["weights.weight_hh"][row])


@pytest.mark.parametrize("stopped", [0, 1])
def test_a_stop_before_the_last_file_goes_on_with_the_same_command(
    ctd, job_file, monkeypatch, stopped
):
    """Which alone runs the others, too; and so it is where an item has failed."""
    job_file(TOY, "a.yaml"), job_file(TOY, "b.yaml")
    begun = []

    def stops(store, *given, **named):
        begun.append(store)
        if len(begun) == stopped + 1:
            raise Interrupted("Ctrl-C")
        return run_shards(store, *given, **named)

    monkeypatch.setattr("jobs.run.shards.run_shards", stops)
    code, _, err = ctd("run", "a.yaml", "b.yaml", "--executor", "serial")
    assert code == EXIT_STOPPED
    again = ["the same command", f"`ctd resume {begun[-1].address}`"][stopped]
    assert f"stopped (Ctrl-C); {again} continues it" in err


@pytest.mark.parametrize(("more", "again"), [
    (False, "`ctd logs '{store}' --item 3` shows more, `ctd resume '{store}' --failed` tries again"),
    (True, "`ctd logs '{store}' --item 3` shows more, the same command with --failed tries again"),
])  # fmt: skip
def test_what_is_advised_after_a_failure(tmp_path, capsys, more, again):
    store = make(tmp_path / "a b.zarr")
    say_what_failed(store, Progress(44, 8, failed_items={3: "no"}), more)
    assert again.format(store=store.address) in capsys.readouterr().err


def test_several_job_files_run_in_order(ctd, job_file):
    first, second = job_file(TOY, "a.yaml"), job_file(TOY, "b.yaml")
    code, _, err = ctd("run", first, second, "--executor", "serial")
    assert code == 0, err
    assert first.with_suffix(".zarr").exists()
    assert second.with_suffix(".zarr").exists()
    usage_error(ctd("run", first, second, "--store", "x.zarr"), "--store")


def test_a_misspelt_field_of_the_second_job_is_told_before_the_first_runs(ctd, tmp_path):
    """Of a job that refers to the first one's store, it can be told only once that is there."""
    (tmp_path / "good.yaml").write_text("{kernel: kuramoto, sweep: {seeds: 1}}")
    (tmp_path / "bad.yaml").write_text("{kernel: esn, params: {leek: 1}}")
    code, _, err = ctd("run", "good.yaml", "bad.yaml", "--base", EXAMPLES, "--executor", "serial")
    assert (code, "bad.yaml: params: leek: unknown field" in err) == (2, True), err
    assert not (tmp_path / "good.zarr").exists()


def test_a_link_to_a_file_is_the_job_of_that_file(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "job.yaml").write_text("kernel: esn\n")
    (tmp_path / "link.yaml").symlink_to("far/job.yaml")
    (stage,) = read_stages(tmp_path / "link.yaml")
    assert Job.read(tmp_path / "link.yaml").base == stage.base == str(tmp_path / "far")
