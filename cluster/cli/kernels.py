"""The commands schema, kernels and new, which describe job files and kernels: a first job file, and the contents of a kernel's stores."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic_core import PydanticUndefined

from cluster.cli.display import out, records, show_json, show_table
from cluster.cli.options import AsJson
from ctd.catalogue import summaries
from ctd.kernel import Kernel, Kind, Var, field_kinds
from jobs.spec.job import find_kernel
from jobs.spec.schema import job_schema


def schema(
    kernel: Annotated[
        str | None,
        typer.Argument(help="the kernel whose params the schema has too; by default none"),
    ] = None,
) -> None:
    """Print the JSON Schema of a job file, for an editor to complete and check it."""
    show_json(job_schema(_kernel(kernel) if kernel else None))


def _kernel(name: str) -> Kernel:
    return find_kernel(name, str(Path.cwd()))


def kernels(
    kernel: Annotated[
        str | None, typer.Argument(help="the kernel whose results to list; by default all kernels")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the kernels that come with ctd, or say what one of them computes."""
    if kernel is None:
        _list_kernels(as_json)
        return

    found = contents(_kernel(kernel))
    if as_json:
        show_json({title: records(table) for title, table in found.items()})
        return
    own = (sys.modules[kernel].__doc__ or "").strip() if kernel in sys.modules else ""
    out.print(summaries().get(kernel, own.removeprefix("Kernel: ")))
    for title, table in found.items():
        show_table(table, title, limit=None)


def _list_kernels(as_json: bool) -> None:
    about = {name: text.splitlines()[0] for name, text in summaries().items()}
    if as_json:
        show_json(about)
        return
    for name, text in about.items():
        out.print(f"{name:26} {text}")


def new(
    kernel: Annotated[str, typer.Argument(help="a kernel of ctd, or a dotted path")],
) -> None:
    """Print a commented starter job for a kernel."""

    sys.stdout.write(starter(kernel, _kernel(kernel)))


type Columns = dict[str, list[Any]]
"""A table: columns by name."""


def contents(kernel: Kernel) -> dict[str, Columns]:
    """Tables by title: the results and reduced values in a store of this kernel, its outcomes and presets."""
    found = {"results/G": _variables(kernel.dims, ["item"])}
    if kernel.reduced:
        found["gathered/G"] = _variables(kernel.reduced, [])
    if ends := kernel.outcomes:
        found["outcome"] = {
            "name": [end.name for end in ends],
            "what": [end.reason for end in ends],
            "failed": [end.failed for end in ends],
        }
    if kernel.presets:
        found["search.preset"] = {
            "name": list(kernel.presets),
            "what": [preset.reason for preset in kernel.presets.values()],
        }
    return found


def _variables(named: Mapping[str, Var], lead: list[str]) -> Columns:
    return {
        "name": list(named),
        "axes": [", ".join([*lead, *var.axes]) for var in named.values()],
        "units": [var.units for var in named.values()],
        "what": [var.long_name for var in named.values()],
    }


def starter(name: str, kernel: Kernel) -> str:
    """Write a job file for a kernel, with every field commented: its default, kind and meaning.

    >>> from ctd.esn import kernel
    >>> starter("esn", kernel).splitlines()[1]
    'kernel: esn'
    """
    lines = [
        f"# A job for kernel {name}. Run it: ctd run FILE.yaml",
        f"kernel: {name}",
        "seed: 0            # item i draws from fold_in(key(seed), i)",
        "params:            # what all items share",
    ]
    kinds = field_kinds(kernel.Params)
    lines += _fields(kernel.Params, {k: v.value for k, v in kinds.items()})
    traced = [field for field, kind in kinds.items() if kind is Kind.TRACED]
    lines += [
        "sweep:             # what differs; a field that is swept is not given in params",
        "  grid: {}         # every combination: {name: [1, 2, 3]}, {range: 10}, {linspace: [0, 1, 5]}",
        "  # zip: {}        # side by side",
        "  # random: {}     # {name: {loguniform: [1e-4, 1e-2]}}, with samples: 64",
        "  # seeds: 8       # replicates",
        f"  # numbers that cost no compilation when swept: {', '.join(traced) or 'none'}",
    ]
    lines += [
        "# search:          # compare items as they go on",
        "#   {method: halving, metric: NAME, mode: min, min_advances: 4, eta: 3}    # asha: nobody waits",
        "#   {method: optuna, metric: NAME, mode: min, trials: 200, together: 16,",
        "#    params: {NAME: {loguniform: [1.0e-4, 1.0e-1]}}}",
        "#   {method: population, metric: NAME, mode: min, every: 5, generations: 8,",
        "#    params: {NAME: {loguniform: [1.0e-4, 1.0e-1]}}}",
        *(f"#   {{preset: {name}}}   # {preset.reason}" for name, preset in kernel.presets.items()),
    ]
    if kernel.Options.model_fields:
        lines += ["gather:            # settings of the reduction; can be changed after the run"]
        lines += _fields(kernel.Options, {})
        lines += ["  # reductions: []  # tables over all items: best, seeds, counts, histogram"]
    lines += ["run: {}            # slots, shard_items, workers, retries ...: see ctd schema"]
    return "\n".join(lines) + "\n"


def _choices(annotation: Any) -> list[str]:
    """The values of a field whose type is a Literal; [] for other types."""
    if get_origin(annotation) is Literal:
        return [str(choice) for choice in get_args(annotation)]
    return list(dict.fromkeys(c for part in get_args(annotation) for c in _choices(part)))


def _fields(model: Any, kinds: dict[str, str]) -> list[str]:
    lines = []
    for name, info in model.model_fields.items():
        notes = [kinds[name]] if name in kinds else []
        choices = _choices(info.annotation)
        if choices and not all(choice in (info.description or "") for choice in choices):
            notes.append(", ".join(choices))
        notes += [info.description] if info.description else []
        comment = f"  # {': '.join(notes)}" if notes else ""
        default = info.get_default(call_default_factory=True)
        if default is PydanticUndefined:
            lines.append(f"  {name}:  # REQUIRED, {': '.join(notes)}")
            continue
        if hasattr(default, "model_dump"):
            default = default.model_dump(mode="json")
        lines.append(f"  # {name}: {json.dumps(default)}{comment}")
    return lines
