"""Run the items of one group in this process, without a job."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ValidationError

from ctd.batch.program import Layout, layout_for, precision, program, traced_columns
from ctd.batch.run import Run
from ctd.kernel import Kernel, Kind, Params, field_kinds, inputs_of, static_of, traced_type
from ctd.late import PyTree
from ctd.words import faults, plainly


def checked[M: BaseModel](model: type[M], settings: Mapping[str, object]) -> M:
    """The model of a function's settings. Raises ValueError, in one line.

    >>> from ctd.esn import kernel
    >>> checked(kernel.Params, {"leek": 0.5})
    Traceback (most recent call last):
    ValueError: unknown parameter leek; did you mean 'leak'?
    """
    try:
        return model.model_validate(settings)
    except ValidationError as error:
        raise ValueError(faults(error, model.model_fields)) from None


def run_items(
    kernel: Kernel,
    params: Params,
    columns: Mapping[str, ArrayLike] | None = None,
    *,
    seed: int = 0,
    shared: PyTree = None,
    layout: Layout | None = None,
) -> dict[str, np.ndarray]:
    """Run one group in this process: all items have `params`, except for the fields in `columns`.

    >>> from ctd.esn import kernel
    >>> results = run_items(kernel, kernel.Params(n=10, washout=2, train=20), {"g": [0.5, 1.5]})
    >>> {len(values) for values in results.values()}  # two items
    {2}

    Args:
        kernel: the computation.
        params: the parameters that all items have.
        columns: traced field -> (n,) values (or (n, k) for a tuple of k); None runs one item.
        seed: the job's seed; item i of the columns has the key fold_in(key(seed), i).
        shared: the group's data; None reads them by `kernel.load`.
        layout: slots and microbatch; None takes those of `layout_for`.

    Returns:
        name -> (n, ...) array for every name that `kernel.result` returns.

    Raises:
        ValueError: a column is no traced field, columns differ in length, or a value is out of its field's limits.
    """
    all_columns, n = _full_columns(params, columns or {})
    static = static_of(params)
    if shared is None:
        # Data are read under the items' precision, or float64 data would become float32.
        with precision(static):
            shared = kernel.load(inputs_of(params))
    traced = traced_columns(type(params), all_columns, static.dtype)
    run = Run(
        program(kernel, static, layout or layout_for(kernel, n)), shared, seed, np.arange(n), traced
    )
    while not run.finished:
        run.advance()
    return run.results


def _full_columns(
    params: Params, columns: Mapping[str, ArrayLike]
) -> tuple[dict[str, np.ndarray], int]:
    """(a column for every traced field, number of items). Raises ValueError as `run_items`."""
    all_columns = {name: _column(params, name, values) for name, values in columns.items()}
    sizes = {len(values) for values in all_columns.values()} or {1}
    if len(sizes) > 1:
        raise ValueError(
            f"columns: lengths differ: { {k: len(v) for k, v in all_columns.items()} }"
        )
    if not (n := sizes.pop()):
        raise ValueError(f"columns: no values of {', '.join(all_columns)}; give one for each item")
    _check_limits(params, all_columns)
    # A program has an item axis on all traced fields: those without a column repeat their one value.
    names = set(traced_type(type(params))._fields) - all_columns.keys()
    all_columns |= {
        name: np.repeat(np.asarray(getattr(params, name))[None], n, axis=0) for name in names
    }
    return all_columns, n


def _check_limits(params: Params, columns: Mapping[str, np.ndarray]) -> None:
    """Raise ValueError if the smallest or the largest value of a column is not valid for its field; NaN passes."""
    some = lambda values, sign: np.argmax(np.where(np.isnan(values), -np.inf, sign * values), 0)
    ends = [some(values, sign) for values in columns.values() for sign in (-1.0, 1.0)]
    for item in sorted({int(k) for end in ends for k in np.ravel(end)}):
        row = {name: values[item].tolist() for name, values in columns.items()}
        try:
            type(params).model_validate({**dict(params), **row})
        except ValidationError as error:
            for fault in error.errors():
                # Checks of several fields together are left to the kernel.
                field, rejected = fault["loc"][:1], fault["input"]
                if field and field[0] in columns and rejected == rejected:
                    reason = plainly(fault["msg"].removeprefix("Value error, "))
                    text = f"columns: {field[0]!r} of item {item}: {reason} (given: {rejected!r})"
                    raise ValueError(text) from None


def _column(params: Params, name: str, column: ArrayLike) -> np.ndarray:
    """The values of a traced field in its type, as in a job: whole numbers of a real field are reals.

    Raises ValueError for another field, for one value instead of one for each item, and where the type changes a value.
    """
    fields, title = type(params), type(params).__name__
    kind = field_kinds(fields).get(name)
    if kind is None:
        traced_names = ", ".join(traced_type(fields)._fields)
        raise ValueError(
            f"columns: {title} has no field {name!r}; its traced fields: {traced_names}"
        )
    if kind is not Kind.TRACED:
        raise ValueError(
            f"columns: {name!r} of {title} is {kind.value}, one value for all items: give it in params, and "
            "call this once for each of its values"
        )
    values, example = np.asarray(column), getattr(params, name)
    if values.ndim == 0:
        raise ValueError(
            f"columns: {name!r}: one value for each item expected, got {values}; give a value that all items share in params"
        )
    dtype = np.asarray(example).dtype
    if dtype.kind not in "biuf":
        return values
    # Texts and complex numbers cannot be cast to it. NumPy warns of NaN and infinity, which have no whole number.
    with np.errstate(invalid="ignore"):
        typed = values.astype(dtype) if values.dtype.kind in "biufO" else None
    if typed is None or not np.array_equal(typed, values, equal_nan=values.dtype.kind == "f"):
        raise ValueError(f"columns: {name!r}: {values} given; expected values such as {example!r}")
    return typed
