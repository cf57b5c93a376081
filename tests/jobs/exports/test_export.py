"""Items as runs of trackers: what is written is read back by TensorBoard's own reader, MLflow's client, W&B's records."""

import json
import struct

import h5py
import numpy as np
import pytest
from messages import refused
from page_stores import finished
from PIL import Image
from processes import full_disk

from ctd.installed import how_to_install
from jobs.errors import JobError
from jobs.exports import trackers
from jobs.exports.runs import flat, metrics_of, read_runs
from jobs.exports.trackers import write_runs
from jobs.report.figures import saved_figures


@pytest.fixture(scope="module")
def store():
    """Ten networks with curves of four points."""
    return finished("train_rnn")


STEPS = [10, 20, 30, 40]
"""The coordinate `batch`."""


def of_item(store, name, row, group=0):
    return store.rows(group, name, row, row + 1)[0]


def png(folder):
    """A picture of 2 rows of 3 points, called as that of a group."""
    path = folder / "nets-0.png"
    Image.new("RGB", (3, 2), "red").save(path)
    return path


def test_pictures_beside_a_store_are_its_own(tmp_path):
    """Not those of the store nets-3.zarr beside it, nor of groups that it no longer has."""
    for name in ("nets-10", "nets-2", "nets-3", "nets-11", "nets-late", "mynets-1", "net"):
        (tmp_path / f"{name}.png").touch()
    (tmp_path / "nets-3.zarr").mkdir()
    found = saved_figures(str(tmp_path / "nets.zarr"), 11)
    assert [path.stem for path in found] == ["nets-2", "nets-10"]
    assert saved_figures("s3://bucket/nets.zarr", 11) == []


def test_tensorboard_reads_every_number_that_the_store_has(store, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    (n, runs), place = read_runs(store, "item < 2"), tmp_path / "my runs"
    look = write_runs("tensorboard", place, "train_rnn", runs, [png(tmp_path)])
    drawn = EventAccumulator(str(place / "train_rnn" / "pictures"))
    drawn.Reload()
    (image,) = drawn.Images("nets-0")
    assert (image.width, image.height) == (3, 2)
    assert (n, look) == (2, f"tensorboard --logdir '{place}'"), "as a shell reads it"
    for item in range(2):
        folder = place / "train_rnn" / f"item-00000{item}"
        read = EventAccumulator(str(folder))
        read.Reload()
        curve = read.Scalars("curve")
        assert [event.step for event in curve] == STEPS  # the coordinate `batch`
        # TensorBoard keeps single precision, as the store does.
        assert [event.value for event in curve] == of_item(store, "curve", item).tolist()
        (loss,) = read.Scalars("eval_loss")
        assert (loss.step, loss.value) == (40, of_item(store, "eval_loss", item))
        about = read.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
        told = HParamsPluginData.FromString(about).session_start_info.hparams
        assert told["learning_rate"].number_value == of_item(store, "learning_rate", item)
        assert told["task.name"].string_value == "integrator"
        with h5py.File(folder / f"item-00000{item}.h5") as file:
            assert np.array_equal(file["wR"], of_item(store, "weights.wR", item))


def test_runs_are_chosen_and_may_hold_all_results(store):
    n, runs = read_runs(store, arrays="all", sort="-learning_rate", limit=1)
    (run,) = runs
    best = int(np.argmax(store.rows(0, "learning_rate", 0, 10)))
    assert (n, run.item, run.failed, run.about["status"]) == (1, best, False, "done")
    assert "curve" in run.arrays
    assert not [name for name in run.arrays if name.startswith("wR")]
    assert next(iter(run.metrics)) == "eval_loss"  # the kernel's own metric
    assert not {"item", "group", "row", "outcome"} & run.metrics.keys()


def test_items_of_many_shards_and_one_without_results(tmp_path):
    """Item 8 failed with an error, and the job's name would be two folders."""
    store = finished("toy")
    n, runs = read_runs(store)
    found = list(runs)
    assert [run.item for run in found] == list(range(n)) == list(range(44))
    for run in found:
        group, row = divmod(run.item, 22)
        lost = run.item == 8
        assert (run.failed, not run.metrics, not run.arrays) == (lost, lost, lost)
        assert run.params["rate"] == of_item(store, "rate", row, group)
        assert run.params["push"] in ("[0.0, 0.0]", "[1.0, -1.0]")
        if not lost:
            assert run.metrics["norm"] == of_item(store, "norm", row, group)
            assert np.array_equal(run.arrays["x"], of_item(store, "x", row, group))
    write_runs("tensorboard", tmp_path, store.job.spec.name, iter(found[8:9]))
    (made,) = tmp_path.iterdir()
    assert [p.name for p in made.iterdir()] == ["item-000008"]


def test_values_are_flattened_and_nan_is_left_out():
    nested = {"a": {"b": {"c": 1}, "d": [1, -0.5]}, "e": None, "f": "x"}
    assert flat(nested) == {"a.b.c": 1, "a.d": "[1, -0.5]", "f": "x"}
    results = {"z": np.complex64(1 - 2j), "q": np.float32("nan"), "n": np.int32(3), "t": "text"}
    assert metrics_of(results) == {"z.real": 1.0, "z.imag": -2.0, "n": 3.0}


def test_export_refuses_what_it_cannot_write(store, tmp_path, ctd, monkeypatch):
    address = store.address
    for words, said in (
        (("--to", "tensorboard", "--folder", tmp_path / "there"), "there/train_rnn: exists already; remove it"),
        (("--to", "tensorboard", "--where", "nothing > 1"), "unknown column 'nothing'"),
        (("0", "--to", "tensorboard"), "--where 'item == 0' chooses one"),
        (("--where", "item == 0"), "--where: needs --to"),
        (("0",), "give an item and a file, or --to mlflow, tensorboard, wandb or optuna"),
        (("best", "net.h5"), "best: expected an item id"),
        (("0", "net.h5", "--mode", "max"), "--mode: needs --to"),
        (("--to", "tensorboard", "--metric", "eval_loss"), "--metric: not with --to tensorboard, only with --to optuna"),
    ):  # fmt: skip
        (tmp_path / "there" / "train_rnn").mkdir(parents=True, exist_ok=True)
        code, _, err = ctd("export", address, *words)
        assert (code, said in err, "Traceback" in err) == (2, True, False), err
    monkeypatch.setattr("ctd.installed.find_spec", lambda name: None)
    for name in trackers.TRACKERS:
        code, _, err = ctd("export", address, "--to", name)
        assert (code, how_to_install(name) in " ".join(err.split())) == (2, True)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_a_full_disk_is_told_in_a_line(store, tmp_path):
    run = next(read_runs(store)[1])
    with full_disk(), refused(JobError):
        trackers._write_file(run, tmp_path)


@pytest.mark.frameworks
@pytest.mark.filterwarnings("ignore")  # MLflow and SQLAlchemy deprecate each other's features
def test_mlflow_reads_every_number_that_the_store_has(store, tmp_path):
    mlflow = pytest.importorskip("mlflow")
    runs = read_runs(store)[1]
    assert "mlflow ui" in write_runs("mlflow", tmp_path, "train_rnn", runs, [png(tmp_path)])
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    found = client.search_runs([client.get_experiment_by_name("train_rnn").experiment_id])
    (pictures,) = [run for run in found if run.info.run_name == "pictures"]
    assert [f.path for f in client.list_artifacts(pictures.info.run_id)] == ["nets-0.png"]
    found.remove(pictures)
    assert len(found) == 10
    for run in found:
        item = int(run.data.tags["item"])
        history = client.get_metric_history(run.info.run_id, "curve")
        assert [(m.step, m.value) for m in history] == list(
            zip(STEPS, of_item(store, "curve", item).astype(float).tolist(), strict=True)
        )
        assert run.data.metrics["eval_loss"] == of_item(store, "eval_loss", item)
        assert float(run.data.params["learning_rate"]) == of_item(store, "learning_rate", item)
        assert (run.info.status, run.data.params["task.name"]) == ("FINISHED", "integrator")
        (file,) = client.list_artifacts(run.info.run_id)
        path = client.download_artifacts(run.info.run_id, file.path)
        with h5py.File(path) as read:
            assert np.array_equal(read["wR"], of_item(store, "weights.wR", item))
    with refused(JobError):
        write_runs("mlflow", tmp_path, "train_rnn", read_runs(store)[1])


@pytest.mark.frameworks
def test_wandb_keeps_every_number_that_the_store_has(store, tmp_path):
    pytest.importorskip("wandb")
    runs = read_runs(store)[1]
    assert "wandb sync" in write_runs("wandb", tmp_path, "train_rnn", runs, [png(tmp_path)])
    (picture,) = tmp_path.glob("train_rnn/wandb/offline-run-*/files/media/images/nets-0*.png")
    files = sorted(tmp_path.glob("train_rnn/wandb/offline-run-*/*.wandb"))
    files.remove(next(picture.parents[3].glob("*.wandb")))
    assert len(files) == 10
    for file in files:
        found = list(wandb_records(file))
        (config,) = [r.run for r in found if r.WhichOneof("record_type") == "run"]
        told = {
            u.key or ".".join(u.nested_key): json.loads(u.value_json) for u in config.config.update
        }
        item = int(told["item"])
        assert (config.project, config.display_name) == ("train_rnn", f"item-00000{item}")
        assert told["learning_rate"] == of_item(store, "learning_rate", item)
        logged = [values(r.history.item) for r in found if r.WhichOneof("record_type") == "history"]
        assert [(line["_step"], line["curve"]) for line in logged] == list(
            zip(STEPS, of_item(store, "curve", item).astype(float).tolist(), strict=True)
        )
        summary = {}
        for record in found:
            if record.WhichOneof("record_type") == "summary":
                summary |= values(record.summary.update)
        assert summary["eval_loss"] == of_item(store, "eval_loss", item)
        with h5py.File(file.parent / "files" / f"item-00000{item}.h5") as read:
            assert np.array_equal(read["wR"], of_item(store, "weights.wR", item))


def values(entries):
    return {".".join(e.nested_key) or e.key: json.loads(e.value_json) for e in entries}


def wandb_records(path):
    """The records of an offline run: LevelDB's log format (blocks of 32 KiB, records cut at their ends) after 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, parts = path.read_bytes(), 7, b""
    while at < len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(parts)
            parts = b""
