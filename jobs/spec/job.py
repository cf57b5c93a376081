"""JobSpec: a validated job file.

kernel: fixed_points
params: {weights: decision_gru.h5, cell: gru}      fields that all items share
sweep:  {grid: {candidate: {range: 10000}}}        fields that differ: see jobs.spec.sweep
gather: {unique_tol: 0.01}                         settings of the kernel's `reduce`, and
                                                   `reductions`: see jobs.spec.reductions
search: {method: halving, ...}                     comparison of items: see jobs.search
keep_bits: {states: 10}                            results to round: see jobs.plan.packing
run:    {retries: 2}                               settings of the run
"""

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, get_args

from pydantic import (
    BaseModel,
    Field,
    PositiveInt,
    ValidationError,
    model_validator,
)

from ctd.catalogue import UnknownKernel, find_module, load_kernel
from ctd.contract import located
from ctd.kernel import Kernel
from jobs.errors import (
    JobError,
    advised,
    did_you_mean,
    explain,
    near_file,
    nearest,
    refuse_booleans,
)
from jobs.forms import SECTION, Distribution
from jobs.search import METHODS, Search
from jobs.search.method import Method
from jobs.spec.run import RunSettings
from jobs.spec.sweep import Sweep, Sweeps
from jobs.spec.text import parse_file, parse_text
from jobs.spec.trust import modules_of, put_on_path


class JobSpec(BaseModel):
    """One sweep, as its job file describes it.

    >>> spec = JobSpec(kernel="esn", sweep={"grid": {"g": [0.9, 1.1]}, "seeds": 3})
    >>> spec.swept(), len(spec.digest())
    (['g', 'seed'], 64)
    """

    model_config = SECTION

    kernel: str
    """a kernel of ctd, or the dotted path of your own module"""
    name: str | None = None
    """shown in listings; by default the file's name"""
    seed: int = Field(0, ge=0, lt=2**32)
    """item i has the key fold_in(key(seed), i)"""
    params: dict[str, Any] = {}
    """the fields that all items share"""
    sweep: Sweeps = Sweep()
    """the fields that differ between items"""
    search: Search | None = None
    """compare items while they run: stop the bad ones, or let them copy good ones; or let Optuna propose their parameters"""
    gather: dict[str, Any] = {}
    """settings of the kernel's reduction, and a list of further `reductions`"""
    keep_bits: dict[str, PositiveInt] = {}
    """result -> bits of its mantissa to store, so that it takes less space"""
    run: RunSettings = RunSettings()
    cluster: str | dict[str, Any] | None = Field(None, exclude=True)
    """where ctd submit sends the job: the name of a cluster profile, or a profile"""

    @model_validator(mode="before")
    @classmethod
    def _nothing_is_default(cls, content: object) -> Any:
        """Drop null fields: `params:` with nothing below it is null in YAML, and means the default."""
        if isinstance(content, dict):
            return {name: value for name, value in content.items() if value is not None}
        return content

    def sweeps(self) -> list[Sweep]:
        """The sweeps in order, always as a list; with Optuna, each point has one replicate for each trial."""
        parts = self.sweep if isinstance(self.sweep, list) else [self.sweep]
        if self.search and self.search.proposes:
            return [part.model_copy(update={"seeds": self.search.block}) for part in parts]
        return parts

    @property
    def ranges(self) -> Mapping[str, Distribution]:
        """Searched field -> its range or choices; none without a search."""
        return self.search.ranges if self.search else {}

    @property
    def has_parents(self) -> bool:
        """True if items may go on from others' states, so that their searched fields have their last values (Method.has_parents)."""
        return self.search is not None and self.search.has_parents

    def swept(self) -> list[str]:
        """The names of the swept fields, each once, in the order of the job."""
        return list(dict.fromkeys(name for part in self.sweeps() for name in part.names()))

    def modules(self) -> set[str]:
        """The modules that the job names: its kernel's, and those in texts of its parameters."""
        return modules_of(self.kernel, *self.blocks())

    def blocks(self) -> list[dict[str, Any]]:
        """`params`, and every block of the sweeps with fields: each a field -> its value, or what it takes its values from."""
        sweeps = [part.model_dump(mode="json") for part in self.sweeps()]
        return [self.params, *(part[kind] for part in sweeps for kind in ("grid", "zip", "random"))]

    def science(self) -> dict[str, Any]:
        """The fields that determine the results: all except `name`, `gather`, `run` and `cluster`."""
        return self.model_dump(
            mode="json", exclude={"name", "gather", "run"}, exclude_defaults=True
        )

    def digest(self) -> str:
        """The sha256 of `science()`: two jobs with equal digests compute the same."""
        # The order of axes decides which item is which, the order of searched fields what is drawn. Only an order that is not
        # alphabetical is added, so that the digests of older stores stay as they are.
        orders = [[*part.grid] for part in self.sweeps()] + [[*self.ranges]]
        unsorted = [names for names in orders if names != sorted(names)]
        text = json.dumps(self.science(), sort_keys=True) + json.dumps(unsorted) * bool(unsorted)
        return hashlib.sha256(text.encode()).hexdigest()


def read_content(path: str | Path, overrides: list[str] | None = None) -> dict[str, Any]:
    """Read the mapping in a job file (YAML or JSON) and apply `key.path=value` overrides.

    Raises:
        JobError: the file cannot be read or is not a YAML mapping, or an override does not fit; the text
            names the file, and the line of a syntax error.
    """
    path = Path(path)
    if (path / "zarr.json").exists():
        raise JobError(f"{path}: is a store; give a job file, or {advised('ctd', 'resume', path)}")
    try:
        content = parse_file(path)
    except FileNotFoundError as error:
        near = near_file(path, (".yaml", ".yml", ".json")) or "; give a job file"
        raise JobError(f"{path}: cannot be read ({error.strerror}){near}") from None
    if not isinstance(content, dict):
        text = "an empty file" if content is None else f"{content!r:.60}"
        raise JobError(f"{path}: {text} given; expected a mapping (kernel: ..., params: ...)")
    for override in overrides or []:
        set_field(content, override)
    return content


def read_job(path: str | Path, overrides: list[str] | None = None) -> JobSpec:
    """Read and validate the job in a file. Raises JobError, naming file and field, if it is not valid.

    >>> _ = Path("job.yaml").write_text("{kernel: esn, sweep: {seeds: 8}}")
    >>> read_job("job.yaml", ["params.n=50"]).params
    {'n': 50}
    """
    path = Path(path)
    return parse_job({"name": path.stem, **read_content(path, overrides)}, str(path))


def parse_job(content: Mapping[str, object], location: str) -> JobSpec:
    """Validate a mapping as a JobSpec. Raises JobError, whose lines begin with `location`, if it is not valid."""
    try:
        spec = JobSpec.model_validate(content)
    except ValidationError as error:
        search = content.get("search")
        name = search.get("method") if isinstance(search, Mapping) else None
        method = METHODS.get(str(name), Method)
        models = lambda field: [m for m in get_args(field.annotation) if hasattr(m, "model_fields")]
        sections = [(k, m) for k, field in method.model_fields.items() for m in models(field)]
        fields: dict[tuple[str, ...], Any] = {
            (): JobSpec.model_fields,
            ("run",): RunSettings.model_fields,
            ("sweep",): Sweep.model_fields,
            ("search",): method.model_fields,
            **{("search", name): section.model_fields for name, section in sections},
        }
        raise explain(error, location, fields, _misplaced(content)) from None
    refuse_booleans(content, spec, f"{location}: ")
    return spec


def _misplaced(content: Mapping[str, object]) -> dict[str, str]:
    """Unknown field of a job, or of its sweep, that resembles no known one -> where to write it if it is a parameter."""
    sweep = content.get("sweep")
    hints = {
        name: f"params.{name} if it is a parameter of the kernel"
        for name in content
        if not did_you_mean(name, JobSpec.model_fields)
    }
    if isinstance(sweep, Mapping):
        names = (name for name in sweep if not did_you_mean(name, Sweep.model_fields))
        hints |= {f"sweep.{name}": f"sweep.grid.{name} to sweep a parameter" for name in names}
        for word in ("replicates", "repeats", "repetitions"):
            hints[f"sweep.{word}"] = f"sweep.seeds for {word} of every point"
    return hints


def set_field(content: dict[str, Any], override: str) -> None:
    """Apply the override `a.b.c=value`, its value read as YAML, to `content` in place.

    Raises JobError if the override has no `=`, the value is not YAML, or a parent is not a mapping.
    """
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise JobError(f"--set {override}: expected key.path=value, such as --set seed=1")
    *parents, last = key.split(".")
    mapping, stages = content, content.get("stages")
    is_in_stage = len(parents) > 1 and parents[0] == "stages"
    if is_in_stage and isinstance(stages, dict) and (name := parents[1]) not in stages:
        raise JobError(f"--set {override}: there is no stage {name!r}{nearest(name, stages)}")
    for name in parents:
        if mapping.get(name) is None:  # `params:` with nothing below it
            mapping[name] = {}
        mapping = mapping[name]
        if not isinstance(mapping, dict):
            raise JobError(f"--set {override}: {name!r} is {mapping!r}, not a mapping with fields")
    mapping[last] = parse_text(text, f"--set {override}")


def leaves(value: object, path: str = "") -> dict[str, Any]:
    """Return the innermost values of nested mappings, by dotted path.

    >>> leaves({"a": {"b": 1, "c": 2}, "d": 3})
    {'a.b': 1, 'a.c': 2, 'd': 3}
    """
    if not isinstance(value, Mapping):
        return {path: value}
    by_path: dict[str, Any] = {}
    for key, inner in value.items():
        by_path |= leaves(inner, f"{path}.{key}" if path else key)
    return by_path


def inner(value: object, path: str, default: object = None) -> Any:
    """Return the value at a dotted path in nested mappings, or `default` if there is none.

    >>> inner({"a": {"b": 1}}, "a.b"), inner({"a": 1}, "a.b")
    (1, None)
    """
    for name in path.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return default
        value = value[name]
    return value


OURS = ("jobs", "cluster")
"""Packages of ctd without kernels; a kernel's module cannot have their names."""


def find_kernel(name: str, base: str | None) -> Kernel:
    """Import the kernel called `name`, which runs its module's code; jobs.spec.trust decides who may.

    base: the folder that is searched first for a user's own module; None: only the import path is searched. Raises JobError if
    there is no such kernel, its module cannot be imported, or this process has already imported another one of that name.
    """
    top = name.partition(".")[0]
    if top in OURS:
        raise JobError(f"kernel: {name}: ctd itself has a package {top}; rename your module")
    if base is not None:
        put_on_path(base)
    try:
        kernel = load_kernel(name, base)
    except UnknownKernel as error:
        raise JobError(str(error)) from None
    except Exception as error:
        raise JobError(f"kernel: {name}: cannot be imported: {located(error)}") from error
    if base is not None:
        _refuse_namesake(name, base)
    return kernel


def _refuse_namesake(name: str, base: str) -> None:
    """Raise JobError if this process has imported another module than the one beside the job."""
    top = sys.modules[find_module(name).partition(".")[0]]
    module_spec = PathFinder.find_spec(name.partition(".")[0], [base])
    base_file, imported_file = module_spec.origin if module_spec else None, top.__file__
    if top.__name__ == "ctd" or not base_file or not imported_file:
        return
    if (
        not os.path.samefile(base_file, imported_file)
        and Path(base_file).read_bytes() != Path(imported_file).read_bytes()
    ):
        raise JobError(
            f"kernel: {name}: this process has imported {imported_file}, but the job's module of that name is {base_file}; "
            "run the jobs one by one, or give the modules different names"
        )
