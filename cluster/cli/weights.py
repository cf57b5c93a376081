"""`ctd weights`: show the network that a file holds, or convert it to another format."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cluster.cli.display import out, show_json, show_table
from cluster.cli.options import AsJson
from jobs.errors import JobError


def weights(
    file: Annotated[
        str,
        typer.Argument(
            help="file of PyTorch, Flax, Orbax, Equinox, Keras, safetensors, NumPy or HDF5, here or at an address; "
            "or STORE::ITEM"
        ),
    ],
    to: Annotated[
        Path | None,
        typer.Option(help="write the network: .h5, .npz; .pt, .safetensors with PyTorch's names"),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="only tensors whose names begin so; may be repeated"),
    ] = None,
    cell: Annotated[
        str | None,
        typer.Option(help="the cell, where the file does not tell its units: vanilla:relu"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the network that a file holds: its cell, sizes and tensors; or convert it."""
    from ctd.cells import sizes
    from ctd.weights import check_ending, read_tensors, understand, write_weights

    try:
        if to is not None:
            check_ending(to)
        tensors = read_tensors(_local(file))
        tensors = tensors.under(only) if only else tensors
        if not as_json:
            _show(tensors.arrays)
        found = understand(tensors, cell)
        if to is not None:
            write_weights(to, found.params, found.cell)
    except ValueError as error:
        raise JobError(str(error)) from None
    n, n_in, n_out = sizes(found.cell, found.params)
    told: dict[str, Any] = {
        "cell": found.cell, "n": n, "n_in": n_in, "n_out": n_out, "from": list(found.told)
    }  # fmt: skip
    if as_json:
        shapes = {name: list(value.shape) for name, value in tensors.arrays.items()}
        show_json(told | {"tensors": shapes})
        return
    out.print(f"cell {found.cell}: {n} units, {n_in} inputs, {n_out} outputs")
    out.print(f"from {'; '.join(found.told)}")
    if to is not None:
        out.print(f"wrote {to}")


def _local(file: str) -> str:
    """The path of a local file with the data at an address, or with an item of a store."""
    from jobs.inputs.fetch import local_file
    from jobs.inputs.items import materialise, parse_item

    here = str(Path.cwd())
    item = parse_item(file, here)
    return local_file(file) if item is None else materialise(item)


def _show(arrays: Any) -> None:
    show_table(
        {
            "tensor": list(arrays),
            "shape": [" x ".join(map(str, value.shape)) or "a number" for value in arrays.values()],
            "type": [str(value.dtype) for value in arrays.values()],
        },
        limit=None,
    )
