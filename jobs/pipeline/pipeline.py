"""Pipelines: one file with named stages, run in order; each has its own store and resumes on its own.

    stages:
      train:  {kernel: train_rnn, ...}
      points: {kernel: fixed_points, params: {weights: {stage: train, where: "eval_loss < 0.05"}}, ...}

A file without `stages` is one job. By default the store of NAME.yaml is NAME.zarr beside it, and that of a
stage is NAME.STAGE.zarr.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctd.kernel import Kernel
from jobs.errors import JobError
from jobs.pipeline.references import resolve
from jobs.plan.checked import checked_job
from jobs.spec.job import JobSpec, find_kernel, read_content
from jobs.spec.presets import expand_preset
from jobs.spec.trust import modules_of, tell


@dataclass(frozen=True)
class Stage:
    """One job of a file. Its references are resolved later, since earlier stages may not have run.

    Raises JobError if `params` or `run` is not a mapping.
    """

    name: str
    content: dict[str, Any]
    """The job as written in the file."""
    where: str
    """File and field, for errors."""
    base: str
    """The folder that relative file names start from."""
    address: str
    """The address of the stage's store."""

    def __post_init__(self) -> None:
        for name in ("params", "run"):
            given = self.content.get(name)
            if given is not None and not isinstance(given, dict):
                raise JobError(
                    f"{self.where}: {name}: {given!r:.60} given; expected a mapping of fields to values"
                )

    def spec(self, stages: dict[str, str]) -> JobSpec:
        """The validated job, with references resolved. stages: name -> store of each earlier stage.

        Raises:
            JobError: the job is not valid, or a reference cannot be resolved.
        """
        kernel = self.kernel()
        content = expand_preset(self.content, kernel, self.where)
        content = resolve(content, kernel, self.base, stages, self.where)
        return checked_job({"name": self.name, **content}, kernel, self.where)

    def needs(self) -> list[str]:
        """The names of the stages that this one refers to."""
        params = self.content.get("params") or {}
        named = [v["stage"] for v in params.values() if isinstance(v, dict) and "stage" in v]
        return list(dict.fromkeys(named))

    def kernel(self) -> Kernel:
        """The stage's kernel. Raises JobError if none is given or it is unknown."""
        name = self.content.get("kernel")
        if not isinstance(name, str):
            raise JobError(f"{self.where}: kernel: required, but not given")
        tell(self.base, modules_of(name, self.content))
        try:
            return find_kernel(name, self.base)
        except JobError as error:
            raise JobError(f"{self.where}: {error}") from None


def read_stages(
    path: str | Path,
    overrides: list[str] | None = None,
    store: str | None = None,
    base: str | None = None,
) -> list[Stage]:
    """Read the jobs of a file, in order; a file without stages has one.

    Args:
        store: address of the store; in a file with stages, the part of the stores' names before .STAGE.zarr.
        base: the folder that relative file names start from; by default the file's.

    Raises:
        JobError: it is not a job file, or a stage has a bad name.

    >>> _ = Path("job.yaml").write_text("{stages: {train: {kernel: esn}, test: {kernel: esn}}}")
    >>> [(stage.name, Path(stage.address).name) for stage in read_stages("job.yaml")]
    [('train', 'job.train.zarr'), ('test', 'job.test.zarr')]
    """
    path = Path(path)
    content = read_content(path, overrides)
    base = base or str(path.resolve().parent)
    stem = store or str(path.resolve().with_suffix(""))
    if "stages" not in content:
        return [Stage(path.stem, content, str(path), base, store or f"{stem}.zarr")]
    extra = sorted(content.keys() - {"stages", "cluster"})
    if extra:
        raise JobError(
            f"{path}: {', '.join(extra)}: beside `stages` a file has only the field `cluster`; move it into a stage"
        )
    if not isinstance(content["stages"], dict) or not content["stages"]:
        raise JobError(f"{path}: stages: expected a mapping of names to jobs")
    stages = []
    for name, job in content["stages"].items():
        if not str(name).replace("_", "").replace("-", "").isalnum():
            raise JobError(
                f"{path}: stages: {name!r}: a name may have letters, digits, - and _ only"
            )
        if not isinstance(job, dict):
            raise JobError(
                f"{path}: stages.{name}: {job!r:.60} given; expected a job (kernel: ...)"
            )
        address = f"{stem.removesuffix('.zarr')}.{name}.zarr"
        stages.append(Stage(str(name), job, f"{path}: stages.{name}", base, address))
    return stages
