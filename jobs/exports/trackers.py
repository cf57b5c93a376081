"""Write runs to the folders of MLflow, TensorBoard and Weights & Biases with their own libraries.

Nothing is sent anywhere. A folder may hold the runs of several stores.
"""

from __future__ import annotations

import os
import re
import shlex
import tempfile
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import batched
from pathlib import Path
from typing import Any, ClassVar

from ctd.installed import how_to_install, why_not
from ctd.weights import write_named
from jobs.errors import JobError, writing
from jobs.exports.runs import Run

PICTURES = "pictures"
"""The name of the run that holds the job's pictures, which show all items; a copy in each run could be thousands."""


class Tracker(ABC):
    """Writes the runs of one job, its experiment or project, to a folder, with the tracker's own library."""

    needs: ClassVar[tuple[str, ...]]
    """Modules of the extra that has the tracker's name."""
    look: ClassVar[str]
    """The command that shows FOLDER and JOB."""

    def __init__(self, folder: Path, job: str) -> None:
        """Make the folder of the job. Raises JobError if it has runs of the job."""
        self._folder, self._job = folder / job, job
        if self._folder.exists():
            raise JobError(f"{self._folder}: exists already; remove it, or give another --folder")
        self._folder.mkdir(parents=True)

    @abstractmethod
    def write(self, run: Run) -> None:
        """Write one run."""

    @abstractmethod
    def show(self, pictures: Sequence[Path]) -> None:
        """Write PNGs of all items as one more run, called `pictures`."""


def _label(run: Run) -> str:
    # Leading zeros, so that names sort like items.
    return f"item-{run.item:06d}"


def _write_file(run: Run, folder: Path) -> Path | None:
    """Write the run's arrays as HDF5 to an existing folder and return the path; None if it has no arrays."""
    if not run.arrays:
        return None
    path = folder / f"{_label(run)}.h5"
    try:
        write_named(path, run.arrays, {**run.params, **run.about})
    except ValueError as error:
        raise JobError(str(error)) from None
    return path


class TensorBoard(Tracker):
    """FOLDER/JOB/item-N: events of the curves, the metrics and, for the page HParams, the parameters; the file beside them."""

    needs = ("tensorboardX",)
    look = "tensorboard --logdir {folder}"

    def write(self, run: Run) -> None:
        from tensorboardX import SummaryWriter
        from tensorboardX.summary import hparams

        folder = self._folder / _label(run)
        with SummaryWriter(str(folder)) as writer:
            for summary in hparams(dict(run.params), dict(run.metrics)):
                writer.file_writer.add_summary(summary)
            for name, points in run.curves.items():
                for step, value in points:
                    writer.add_scalar(name, value, step)
            for name, value in run.metrics.items():
                writer.add_scalar(name, value, run.last_step)
            writer.add_text("about", "  \n".join(f"{k}: {v}" for k, v in run.about.items()))
        _write_file(run, folder)

    def show(self, pictures: Sequence[Path]) -> None:
        import numpy as np
        from PIL import Image
        from tensorboardX import SummaryWriter

        with SummaryWriter(str(self._folder / PICTURES)) as writer:
            for path in pictures:
                with Image.open(path) as image:
                    pixels = np.asarray(image.convert("RGB"))
                writer.add_image(path.stem, pixels, dataformats="HWC")


class MLflow(Tracker):
    """FOLDER/mlflow.db with one experiment, called JOB; files below FOLDER/artifacts."""

    needs = ("mlflow", "sqlalchemy", "alembic")
    look = "mlflow ui --backend-store-uri sqlite:///{folder}/mlflow.db"

    METRICS, PARAMS, LONGEST = 1000, 100, 6000
    """MLflow's own limits: metrics and parameters in one call, characters of a parameter."""

    def __init__(self, folder: Path, job: str) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient

        folder.mkdir(parents=True, exist_ok=True)
        self._client = MlflowClient(tracking_uri=f"sqlite:///{folder.absolute() / 'mlflow.db'}")
        if self._client.get_experiment_by_name(job):
            raise JobError(f"{folder}: has an experiment {job!r}; give another --folder")
        files = (folder.absolute() / "artifacts" / job).as_uri()
        self._experiment = self._client.create_experiment(job, artifact_location=files)

    def write(self, run: Run) -> None:
        from mlflow.entities import Metric, Param

        name = _label(run)
        mlflow_run = self._client.create_run(self._experiment, run_name=name, tags=dict(run.about))
        key, now = mlflow_run.info.run_id, int(1000 * time.time())
        texts = [Param(_allowed(k), str(v)[: self.LONGEST]) for k, v in run.params.items()]
        for some in batched(texts, self.PARAMS):
            self._client.log_batch(key, params=list(some))
        values = [(k, v, step) for k, points in run.curves.items() for step, v in points]
        values += [(k, v, run.last_step) for k, v in run.metrics.items()]
        for points in batched(values, self.METRICS):
            metrics = [Metric(_allowed(k), v, now, step) for k, v, step in points]
            self._client.log_batch(key, metrics=metrics)
        with tempfile.TemporaryDirectory() as scratch:
            if path := _write_file(run, Path(scratch)):
                self._client.log_artifact(key, str(path))
        self._client.set_terminated(key, "FAILED" if run.failed else "FINISHED")

    def show(self, pictures: Sequence[Path]) -> None:
        key = self._client.create_run(self._experiment, run_name=PICTURES).info.run_id
        for path in pictures:
            self._client.log_artifact(key, str(path))
        self._client.set_terminated(key, "FINISHED")


class WandB(Tracker):
    """FOLDER/JOB/wandb/offline-run-*, of a project called JOB, which `wandb sync` sends when and where a user says."""

    needs = ("wandb",)
    look = "wandb sync {folder}/{job}/wandb/offline-run-*"

    def __init__(self, folder: Path, job: str) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        super().__init__(folder, job)

    def write(self, run: Run) -> None:
        wandb_run = self._begin(_label(run), {**run.params, **run.about})
        by_step: dict[int, dict[str, float]] = defaultdict(dict)
        for name, points in run.curves.items():
            for step, value in points:
                by_step[step][name] = value
        for step in sorted(by_step):  # steps must rise
            wandb_run.log(by_step[step], step=step)
        wandb_run.summary.update(dict(run.metrics))
        if path := _write_file(run, Path(wandb_run.dir)):
            wandb_run.save(str(path), base_path=wandb_run.dir, policy="now")
        wandb_run.finish(exit_code=int(run.failed))

    def show(self, pictures: Sequence[Path]) -> None:
        import wandb

        wandb_run = self._begin(PICTURES, {})
        wandb_run.log({path.stem: wandb.Image(str(path)) for path in pictures})
        wandb_run.finish()

    def _begin(self, name: str, config: Mapping[str, object]) -> Any:
        import wandb

        settings = wandb.Settings(
            mode="offline", root_dir=str(self._folder), silent=True, console="off", disable_git=True,
            save_code=False, x_disable_stats=True, x_disable_meta=True, x_disable_machine_info=True,
        )  # fmt: skip
        about = {"project": self._job, "name": name, "config": dict(config)}
        return wandb.init(**about, settings=settings, reinit="create_new")


TRACKERS: dict[str, type[Tracker]] = {"mlflow": MLflow, "tensorboard": TensorBoard, "wandb": WandB}


def require(name: str) -> None:
    """Raise JobError if a library cannot be imported that writing for `name`, a tracker or `optuna`, needs."""
    for module in TRACKERS[name].needs if name in TRACKERS else (name,):
        if (reason := why_not(module)) is not None:
            do = how_to_install(name, again=bool(reason))
            raise JobError(f"--to {name}: needs {module}{reason}; {do}")


def write_runs(
    name: str, folder: Path, job: str, runs: Iterator[Run], pictures: Sequence[Path] = ()
) -> str:
    """Write runs for the tracker `name`; return the command that shows them.

    job: the name of their experiment or project. pictures: PNGs of all items, written as one more run.

    Raises:
        JobError: the tracker's library cannot be imported, the folder has runs of this job, or it cannot be written.
    """
    require(name)
    tracker = TRACKERS[name]
    called = _allowed(job).replace("/", "_")
    with writing(folder):
        writer = tracker(folder, called)
        for run in runs:
            writer.write(run)
        if pictures:
            writer.show(pictures)
    return tracker.look.format(folder=shlex.quote(str(folder)), job=shlex.quote(called))


def _allowed(name: str) -> str:
    """Replace the characters that MLflow refuses in names, and that folders should not have, by `_`."""
    return re.sub(r"[^\w\-. /]", "_", name)
