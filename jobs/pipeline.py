"""Pipelines: one file with named stages, run in order; each has its own store and resumes on its own.

    stages:
      train:  {kernel: train_rnn, ...}
      points: {kernel: fixed_points, params: {weights: {stage: train, where: "eval_loss < 0.05"}}, ...}

A file without `stages` is one job. By default the store of NAME.yaml is NAME.zarr beside it, and that of a
stage is NAME.STAGE.zarr.

A field that takes a file can refer to items of another store, selected by their results:

    weights: {stage: train, where: "eval_loss < 0.05", sort: eval_loss, limit: 8}
    weights: {store: runs/train.zarr, where: "outcome == 'trained'"}
    candidates: {stage: train, where: "...", part: results}

Before planning, `resolve` replaces each reference by a sweep over `STORE::ITEM` (or `STORE::ITEM::results`). The new
store keeps these in its spec, so that the selection does not change when the other store does.
`part: weights` (the default) is the trained model: the results called `weights.NAME`, as an HDF5 file of NAMEs.
`part: model` is the results called `model.NAME` in the same way; so is any other family. `part: results` is everything
that is stored for the item except the trained model; `part: states` the result `states` alone, and so for any other.

Two parts select groups, those of the selected items: the tables of the kernel's reduction, and the groups' parameters:

    points: {stage: points, part: table}       STORE/gathered/GROUP
    weights: {stage: points, part: params}     the value of this field in the group

A field that holds a list of files (`tuple[str, ...]`) gets all selected files, and is not swept.
"""

import os
from dataclasses import dataclass
from itertools import chain, product
from pathlib import Path
from typing import Any, NamedTuple, get_origin

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from ctd.kernel import Kernel, Kind, field_kinds
from jobs.errors import JobError, validated, within
from jobs.plan.items import checked_job
from jobs.query.query import answer
from jobs.spec.job import JobSpec, find_kernel, parse_job, read_content
from jobs.spec.presets import expand_preset
from jobs.spec.trust import allow_and_remember, modules_of
from jobs.storage.addresses import join, refuse_undecoded, scheme
from jobs.store.store import Store, shared_fields


class Selected(NamedTuple):
    """The items and groups that a reference selects."""

    items: list[int]
    groups: list[int]
    """The groups of these items, each once."""


class Reference(BaseModel):
    """A selection of another store's items, as written in a job file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    store: str | None = None
    stage: str | None = None
    where: str | None = None
    sort: str | None = None
    limit: PositiveInt | None = None
    part: str = Field("weights", pattern=r"^\w+$")

    @model_validator(mode="after")
    def _one_source(self) -> "Reference":
        if (self.store is None) == (self.stage is None):
            raise ValueError("expected either `store: PATH` or `stage: NAME`")
        return self

    def selection(self) -> tuple[Any, ...]:
        """A key that is equal for references that select the same items, or the same groups."""
        of_groups = self.part in ("table", "params")
        return self.store, self.stage, self.where, self.sort, self.limit, of_groups


def resolve(
    content: dict[str, Any], kernel: Kernel, base: str, stages: dict[str, str], location: str
) -> dict[str, Any]:
    """Replace the references in a job by swept `STORE::ITEM` texts.

    Args:
        content: the job as written in the file.
        base: the folder that relative addresses start from.
        stages: name -> store of each earlier stage.
        location: file and field, for errors.

    Raises JobError if a store is missing, a selection is empty, or the field takes no file.
    """
    params = dict(content.get("params") or {})
    references = _references(params, location)
    kinds = field_kinds(kernel.Params)
    _refuse_in_lists({k: v for k, v in params.items() if kinds.get(k) is Kind.FILE}, location)
    selections: dict[tuple[Any, ...], Selected] = {}
    axes: dict[str, list[Any]] = {}
    for name, reference in references.items():
        with within(f"{location}: params.{name}"):
            if kinds.get(name) is not Kind.FILE:
                raise JobError("takes no file, and so no items of a store; give a value")
            address = _address(reference, base, stages)
            key = reference.selection()
            if key not in selections:
                selections[key] = _select(address, reference)
            files = _files(address, reference, selections[key], base, name)
        if get_origin(kernel.Params.model_fields[name].annotation) is tuple:
            lists = [file if isinstance(file, list) else [file] for file in files]
            params[name] = [*chain.from_iterable(lists)]
        else:
            axes[name] = files
            del params[name]
    if not axes:
        return {**content, "params": params} if references else content
    crossed = _cross(axes, {name: references[name].selection() for name in axes})
    block = "grid" if crossed is axes else "zip"
    with within(location):
        sweep = content.get("sweep") or {}
        parts = [
            _swept(part, block, crossed) for part in (sweep if isinstance(sweep, list) else [sweep])
        ]
        sweep = parts if isinstance(sweep, list) else parts[0]
    return {**content, "params": params, "sweep": sweep}


def _cross(axes: dict[str, list[Any]], selections: dict[str, object]) -> dict[str, list[Any]]:
    """Arrange the axes side by side: fields with the same selection take files of the same item, and different selections
    are crossed, the first one slowest. If each axis has its own selection, they are returned unchanged, for a grid."""
    rows = {selections[name]: range(len(files)) for name, files in axes.items()}
    if len(rows) == len(axes):
        return axes
    points = [dict(zip(rows, point, strict=True)) for point in product(*rows.values())]
    return {
        name: [files[point[selections[name]]] for point in points] for name, files in axes.items()
    }


def _swept(part: object, block: str, axes: dict[str, list[Any]]) -> dict[str, Any]:
    """A sweep that runs over the files, too, in its grid or zip. Raises JobError if that place is taken."""
    if not isinstance(part, dict):
        raise JobError(f"sweep: {part!r:.60} given; expected a mapping such as {{seeds: 3}}")
    part_axes = part.get(block) or {}
    if not isinstance(part_axes, dict):
        raise JobError(f"sweep.{block}: {part_axes!r:.60} given; expected a mapping")
    if twice := sorted(part_axes.keys() & axes.keys()):
        raise JobError(
            f"sweep.{block}.{twice[0]}: params.{twice[0]} names items of a store and is swept already; keep one of them"
        )
    if block == "zip" and part_axes:
        raise JobError(
            f"sweep.zip: {', '.join(axes)} of params already fill `zip`, item by item; "
            f"sweep {', '.join(map(str, part_axes))} by `grid`, or as a list of sweeps"
        )
    # Files come first, so that items that use the same network are neighbours.
    return {**part, block: {**axes, **part_axes}}


def _references(params: dict[str, object], location: str) -> dict[str, Reference]:
    """The references among the fields of `params`. Raises JobError for one that is not valid."""
    references = {}
    for name, value in params.items():
        if isinstance(value, dict) and {"store", "stage"} & value.keys():
            instead = {"item": f'where: "item == {value.get("item")}"'}
            references[name] = validated(Reference, value, f"{location}: params.{name}", instead)
    return references


def _refuse_in_lists(files: dict[str, object], location: str) -> None:
    """Raise JobError for a reference among the files of a list."""
    for name, value in files.items():
        for element in value if isinstance(value, list) else ():
            if isinstance(element, dict) and {"store", "stage"} & element.keys():
                raise JobError(
                    f"{location}: params.{name}: a list takes files alone (given: {element}); name each item of the store, such as "
                    f"{element.get('store', 'train.zarr')}::0"
                )


def _address(reference: Reference, base: str, stages: dict[str, str]) -> str:
    if reference.store is not None:
        return join(base, reference.store)
    if reference.stage not in stages:
        earlier = ", ".join(stages) or "none"
        raise JobError(
            f"stage {reference.stage!r} does not come before this one; earlier: {earlier}"
        )
    return stages[reference.stage]


def _relative(address: str, base: str) -> str:
    if scheme(address):
        return address
    return os.path.abspath(address) if scheme(base) else os.path.relpath(address, base)


def _files(
    address: str, reference: Reference, selected: Selected, base: str, field: str
) -> list[Any]:
    """The value of a field for each selected item or group: a file's name, or a list of several."""
    near = _relative(address, base)
    if reference.part == "table":
        return [f"{near}/gathered/{group}" for group in selected.groups]
    if reference.part == "params":
        return _params_of(Store.open(address), selected.groups, base, field)
    suffix = "" if reference.part == "weights" else f"::{reference.part}"
    return [f"{near}::{item}{suffix}" for item in selected.items]


def _params_of(store: Store, groups: list[int], base: str, field: str) -> list[Any]:
    """The value of a field in each group of another store, as files that are named from here."""
    store_base = store.job.base
    values = [shared_fields(store, group).get(field) for group in groups]
    if None in values:
        kernel = store.job.spec.kernel
        raise JobError(f"{store.address}: kernel {kernel} has no value for {field}")

    def from_here(value: Any) -> Any:
        # Files are named from the folder of the job that made the store; a value may hold several.
        if isinstance(value, list):
            return [from_here(element) for element in value]
        return str(value) if store_base == base else _relative(join(store_base, str(value)), base)

    return [from_here(value) for value in values]


def _select(address: str, reference: Reference) -> Selected:
    if not Store.exists(address):
        raise JobError(f"{address}: there is no such store; run the job that makes it first")
    options = reference.model_dump(include={"where", "sort", "limit"})
    names = ("item", "group")
    columns = answer(Store.open(address), table="items", columns=names, **options).columns
    if not len(columns["item"]):
        condition = f" with {reference.where!r}" if reference.where else ""
        raise JobError(f"{address} has no item{condition}; ctd query shows what it has")
    return Selected(columns["item"].tolist(), list(dict.fromkeys(columns["group"].tolist())))


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
            section = self.content.get(name)
            if section is not None and not isinstance(section, dict):
                raise JobError(
                    f"{self.where}: {name}: {section!r:.60} given; expected a mapping of fields to values"
                )

    def spec(self, stages: dict[str, str]) -> JobSpec:
        """The validated job, with references resolved. stages: name -> store of each earlier stage.

        Raises JobError if the job is not valid, or a reference cannot be resolved.
        """
        kernel = self.kernel()
        content = expand_preset(self.content, kernel, self.where)
        content = resolve(content, kernel, self.base, stages, self.where)
        return checked_job({"name": self.name, **content}, kernel, self.where)

    def needs(self) -> list[str]:
        """The names of the stages that this one refers to. Raises JobError for a reference that is not valid."""
        references = _references(self.content.get("params") or {}, self.where).values()
        return list(
            dict.fromkeys(
                reference.stage for reference in references if reference.stage is not None
            )
        )

    def is_alone(self) -> bool:
        """Return whether it refers to no stage and no store. Raises as `needs`."""
        return not _references(self.content.get("params") or {}, self.where)

    def kernel(self) -> Kernel:
        """The stage's kernel. Raises JobError if none is given or it is unknown."""
        name = self.content.get("kernel")
        if not isinstance(name, str):
            name = parse_job(self.content | {"search": None}, self.where).kernel  # it raises
        allow_and_remember(self.base, modules_of(name, self.content))
        with within(self.where):
            return find_kernel(name, self.base)


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

    Raises JobError if it is not a job file, or a stage has a bad name.

    >>> _ = Path("job.yaml").write_text("{stages: {train: {kernel: esn}, test: {kernel: esn}}}")
    >>> [(stage.name, Path(stage.address).name) for stage in read_stages("job.yaml")]
    [('train', 'job.train.zarr'), ('test', 'job.test.zarr')]
    """
    path = Path(path)
    content = read_content(path, overrides)
    base = refuse_undecoded(base or str(path.resolve().parent))
    stem = store or str(path.resolve().with_suffix(""))
    if "stages" not in content:
        return [Stage(path.stem, content, str(path), base, store or f"{stem}.zarr")]
    if extra := sorted(content.keys() - {"stages", "cluster"}):
        raise JobError(
            f"{path}: {', '.join(extra)}: beside `stages` a file has only the field `cluster`; move it into a stage"
        )
    if not isinstance(content["stages"], dict) or not content["stages"]:
        raise JobError(f"{path}: stages: expected a mapping of names to jobs")
    stages = []
    for name, job in content["stages"].items():
        if not str(name).replace("_", "").replace("-", "").isalnum():
            raise JobError(f"{path}: stages: {name!r}: a name has only letters, digits, - and _")
        if not isinstance(job, dict):
            raise JobError(
                f"{path}: stages.{name}: {job!r:.60} given; expected a job with `kernel`"
            )
        address = f"{stem.removesuffix('.zarr')}.{name}.zarr"
        stages.append(Stage(str(name), job, f"{path}: stages.{name}", base, address))
    return stages
