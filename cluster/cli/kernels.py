"""The commands kernels, new, schema and weights, which help to write a job file: its fields, a starter, a network for it."""

import os
import re
import sys
import textwrap
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from cluster.cli.display import out, records, show_json, show_table, warn
from cluster.cli.options import AsJson
from ctd.catalogue import summaries
from ctd.kernel import Kernel, Kind, Var, field_kinds
from jobs.errors import JobError, count
from jobs.spec.job import find_kernel
from jobs.spec.presets import job_schema
from jobs.spec.starter import starter
from jobs.storage.connect import refuse_taken


def schema(
    kernel: Annotated[
        str | None,
        typer.Argument(help="a kernel, whose params the schema then checks too"),
    ] = None,
) -> None:
    """Print the JSON Schema of a job file, so that an editor can complete and check it."""
    show_json(job_schema(find_kernel(kernel, os.getcwd()) if kernel else None))


def kernels(
    kernel: Annotated[
        str | None, typer.Argument(help="a kernel to describe; by default all kernels are listed")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="also print the meaning, units and axes of each result")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the kernels that come with ctd, or describe one: what it computes, its fields and results."""
    if kernel is None:
        listed = {name: text.splitlines()[0] for name, text in summaries().items()}
        if as_json:
            show_json(listed)
            return
        for name, text in listed.items():
            out.print(_hanging(name, text, 27))
        return
    loaded_kernel = find_kernel(kernel, os.getcwd())
    tables = contents(loaded_kernel)
    docstring = getattr(sys.modules.get(kernel), "__doc__", None) or ""
    about = summaries().get(kernel, docstring.strip().removeprefix("Kernel: "))
    if as_json:
        show_json({title: records(table) for title, table in tables.items()})
    elif everything:
        out.print(without_modules(about))
        for title, table in tables.items():
            show_table(table, title, limit=None)
    else:
        # Examples and lists of modules are for those who read the source.
        paragraphs = [p for p in about.split("\n\n") if p and not p.startswith((">>>", " "))]
        for paragraph in paragraphs[:2]:
            out.print(_hanging("", " ".join(paragraph.split()), 0) + "\n")
        for title, text in overview(loaded_kernel).items():
            out.print(_hanging(title, text, 18))
        out.print(
            f"\nctd new {kernel} writes a job file that explains each field; "
            f"ctd kernels {kernel} --all explains each result"
        )


def without_modules(about: str) -> str:
    """A docstring without its lists of modules, which are for those who read the source, and what announces them.

    >>> without_modules("Points.\\n\\nEach file:\\n\\n    search/   the searches\\n    line      rings\\n\\n    q = |F|^2")
    'Points.\\n\\n    q = |F|^2'
    """
    paragraphs: list[str] = []
    for paragraph in about.split("\n\n"):
        if not re.match(r" {4}[\w/.]+ {2,}\w", paragraph):
            paragraphs.append(paragraph)
        elif paragraphs and paragraphs[-1].endswith(":"):
            paragraphs.pop()
    return "\n\n".join(paragraphs)


def overview(kernel: Kernel) -> dict[str, str]:
    """The names of a kernel's fields and results, by what they are.

    >>> from ctd.esn import kernel
    >>> overview(kernel)["outcome"]
    'done, diverged, ill_conditioned, no_spectrum'
    """
    kinds = field_kinds(kernel.Params)
    of_kind = lambda *allowed: [name for name, kind in kinds.items() if kind in allowed]
    scalars = [name for name, var in kernel.dims.items() if not var.axes]
    arrays = {name: var.axes for name, var in kernel.dims.items() if var.axes}
    families = Counter(name.partition(".")[0] for name in arrays if "." in name)
    alone = [f"{name} ({', '.join(axes)})" for name, axes in arrays.items() if "." not in name]
    required = [name for name, info in kernel.Params.model_fields.items() if info.is_required()]
    names_by_title = {
        "must be given": required,
        "compiled in": of_kind(Kind.STATIC),
        "free to sweep": of_kind(Kind.TRACED),
        "data and files": of_kind(Kind.DATA, Kind.FILE),
        "numbers per item": scalars,
        "arrays per item": [*alone, *(f"{family}.* ({n})" for family, n in families.items())],
        "tables": list(
            dict.fromkeys(var.axes[0] for var in kernel.tables.dims.values() if var.axes)
        ),
        "outcome": [end.name for end in kernel.outcomes],
        "search.preset": list(kernel.display.presets),
    }
    return {title: ", ".join(names) for title, names in names_by_title.items() if names}


def _hanging(title: str, text: str, indent: int) -> str:
    """A title and text that stays right of it, in lines as wide as the terminal; a word longer than that is not broken."""
    lines = textwrap.wrap(
        text, max(40, min(out.width, 120) - indent), break_long_words=False, break_on_hyphens=False
    )
    return f"{title:{indent}}" + f"\n{'':{indent}}".join(lines)


def new(
    kernel: Annotated[str, typer.Argument(help="a kernel of ctd, or a dotted path")],
) -> None:
    """Print a commented starter job for a kernel."""
    sys.stdout.write(starter(kernel, find_kernel(kernel, os.getcwd())))


def contents(kernel: Kernel) -> dict[str, dict[str, list[Any]]]:
    """Tables by title: the results and reduced values in a store of this kernel, its outcomes and presets."""
    tables = {"results/G": _variables(kernel.dims, ["item"])}
    if kernel.tables.dims:
        tables["gathered/G"] = _variables(kernel.tables.dims, [])
    if ends := kernel.outcomes:
        tables["outcome"] = {
            "name": [end.name for end in ends],
            "what": [end.reason for end in ends],
            "failed": [end.failed for end in ends],
        }
    if kernel.display.presets:
        tables["search.preset"] = {
            "name": list(kernel.display.presets),
            "what": [preset.reason for preset in kernel.display.presets.values()],
        }
    return tables


def _variables(variables: Mapping[str, Var], lead: list[str]) -> dict[str, list[Any]]:
    return {
        "name": list(variables),
        "axes": [", ".join([*lead, *var.axes]) for var in variables.values()],
        "units": [var.units for var in variables.values()],
        "what": [var.long_name for var in variables.values()],
    }


# --- networks ---------------------------------------------------------------------------------------

OnlyThese = Annotated[
    list[str] | None,
    typer.Option(help="read only tensors whose names begin with this; may be repeated"),
]


def weights(
    file: Annotated[
        str,
        typer.Argument(
            help="file of PyTorch, Flax, Orbax, Equinox, Keras, safetensors, NumPy or HDF5, here or at an address; or STORE::ITEM"
        ),
    ],
    to: Annotated[
        Path | None,
        typer.Option(
            help="write it to this .h5 or .npz; with PyTorch's names, if it has the cell: .pt, .safetensors"
        ),
    ] = None,
    only: OnlyThese = None,
    cell: Annotated[
        str | None,
        typer.Option(help="the cell, such as vanilla:relu, if the file does not tell it"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the network that a file holds: its cell, sizes and tensors; or convert it."""
    from ctd.cells import sizes
    from ctd.weights import check_ending, read_tensors, understand, write_weights

    try:
        if to is not None:
            check_ending(to)
            refuse_taken(str(to))
        tensors = read_tensors(_local(file))
        tensors = tensors.under(only) if only else tensors
        if not as_json:
            _show_tensors(tensors.arrays)
        network = understand(tensors, cell)
        if to is not None:
            warning = write_weights(to, network.params, network.cell)
            warn(filter(None, [warning]))
    except ValueError as error:
        raise JobError(str(error)) from None
    n, n_in, n_out = sizes(network.cell, network.params)
    if as_json:
        shapes = {name: list(value.shape) for name, value in tensors.arrays.items()}
        numbers = {"n": n, "n_in": n_in, "n_out": n_out}
        show_json({"cell": network.cell, **numbers, "from": list(network.notes), "tensors": shapes})
        return
    out.print(
        f"cell {network.cell}: {count(n, 'unit')}, {count(n_in, 'input')}, {count(n_out, 'output')}"
    )
    out.print(f"from {'; '.join(network.notes)}")
    if to is not None:
        out.print(f"wrote {to}")


def _show_tensors(arrays: Mapping[str, np.ndarray]) -> None:
    shapes = [" x ".join(map(str, value.shape)) or "a number" for value in arrays.values()]
    types = [str(value.dtype) for value in arrays.values()]
    show_table({"tensor": list(arrays), "shape": shapes, "type": types}, limit=None)


def _local(file: str) -> str:
    """The path of a local file with the data at an address, or with an item of a store."""
    from jobs.inputs.fetch import local_file
    from jobs.inputs.items import materialise
    from jobs.storage.addresses import parse_item

    item = parse_item(file, os.getcwd())
    return local_file(file) if item is None else materialise(item)
