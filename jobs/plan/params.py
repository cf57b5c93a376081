"""Columns over the items: those of several sweeps, joined, and read as fields of a kernel's `Params`.

An error names the file, the section of the job and the field.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Any, NamedTuple

import numpy as np
from pydantic import ValidationError

from ctd.kernel import Kernel, Kind, Params, field_kinds
from ctd.rows import first_rows
from jobs.errors import Faults, JobError, explain, home_of, refuse_booleans
from jobs.forms import compact
from jobs.spec.sweep import Column, listed

CHECKED = 10_000
"""Most listed values of a field that are validated one by one; of further numbers, and of generated values, the extremes are."""


def join(
    parts: Sequence[tuple[int, Mapping[str, Column]]], base: Mapping[str, object]
) -> dict[str, Column]:
    """Join the columns of several sweeps end to end. A sweep without a field gets the field's base value.

    parts: (number of items, columns) of each sweep. base: field -> its value outside the sweep.
    """
    joined = {}
    for name in dict.fromkeys(name for _, columns in parts for name in columns):
        values: list[Any] = []
        codes, generated = [], True
        for n, columns in parts:
            column = columns.get(name) or Column(np.zeros(n, np.int32), [base[name]])
            codes.append(column.codes.astype(np.int32) + len(values))
            values += listed(column.values)
            generated &= column.generated
        joined[name] = Column(np.concatenate(codes).astype(np.int32), compact(values), generated)
    return joined


type Check = Callable[[str, object, int], Params]
"""(field, value, item) -> the parameters of this item, with this value of the field. Raises JobError."""


class Reader(NamedTuple):
    """Reads fields as a kernel's `Params`."""

    kernel: Kernel

    def is_field(self, name: str) -> bool:
        """Return whether a swept column is a field. `seed` numbers replicates, unless the kernel has a field of that name."""
        return name != "seed" or name in self.kernel.Params.model_fields

    def set_value(self, content: dict[str, Any], name: str, value: Any) -> None:
        """Set a field in `content`, or the inner field `a.b` of a field that is a mapping; a replicate's number is left out."""
        if not self.is_field(name):
            return
        *parents, last = name.split(".")
        for parent in parents:
            # `task: decision` is short for `task: {name: decision}`. A copy, because other items share the mapping.
            inner = content.get(parent, {})
            content[parent] = {"name": inner} if isinstance(inner, str) else dict(inner)
            content = content[parent]
        content[last] = value.tolist() if isinstance(value, np.generic | np.ndarray) else value

    def read(
        self,
        content: dict[str, object],
        swept: Set[str] = frozenset(),
        searched: Set[str] = frozenset(),
    ) -> Params:
        """The fields of one item, validated.

        swept, searched: fields whose values come from `sweep` or from `search.params`, not from `params`.

        Raises JobError with a line for each fault.
        """
        model = self.kernel.Params
        section = lambda field: (
            "search.params" if field in searched else "sweep" if field in swept else "params"
        )
        try:
            params = in_32_bits(model.model_validate(content))
        except ValidationError as error:
            inner = {
                name: f"{home}: {{name: {_name(content[home])}, {name}: {value}}}"
                for name, value in content.items()
                if (home := home_of(name, value, content, model))
            }
            inner["seed"] = (
                f"seed: {content.get('seed')} beside params, from which the job draws everything, or sweep: {{seeds: N}} for "
                "N replicates"
            )
            command = f"ctd kernels {self.kernel.name}"
            raise explain(error, section, {(): model.model_fields}, inner, command) from None
        for name, value in content.items():
            refuse_booleans(value, getattr(params, name), f"{section(name)}: {name}")
        return params

    def columns(
        self, columns: dict[str, Column], base: dict[str, object], faults: Faults
    ) -> dict[str, Column]:
        """The columns as `Params` reads them. Each value is validated with the others of the first item that has it.

        A column is left after its first fault.
        """
        swept = {name.partition(".")[0] for name in columns}

        def check(name: str, value: object, item: int) -> Params:
            content = dict(base)
            for other, column in columns.items():
                self.set_value(content, other, column.values[column.codes[item]])
            self.set_value(content, name, value)
            return self.read(content, swept)

        valid = {}
        for name, column in columns.items():
            with faults:
                valid[name] = self._valid(name, column, check) if self.is_field(name) else column
        # With columns, the checks of their values have read the shared fields as well.
        if not columns:
            with faults:
                self.read(base)
        return valid

    def _valid(self, name: str, column: Column, check: Check) -> Column:
        """One column as `Params` reads it."""
        items = first_rows(column.codes, len(column.values))
        if column.generated:
            return column._replace(values=self._numbers(name, column.values, items, check))
        originals = listed(column.values)
        read = lambda values, items: [
            _field(check(name, value, item), name)
            for value, item in zip(values, items, strict=True)
        ]
        checked = read(originals[:CHECKED], items[:CHECKED])
        remaining = compact(originals[CHECKED:])
        are_numbers = (
            isinstance(remaining, np.ndarray)
            and remaining.ndim == 1
            and remaining.dtype.kind in "iuf"
        )
        if len(remaining) and are_numbers and not np.isnan(remaining).any():
            further = listed(self._numbers(name, remaining, items[CHECKED:], check))
        else:
            further = read(originals[CHECKED:], items[CHECKED:])
        values = compact([*checked, *further])
        if isinstance(values, list) and any(isinstance(v, tuple) for v in values):
            lengths = sorted({len(v) for v in values})
            if field_kinds(self.kernel.Params).get(name) is Kind.TRACED and len(lengths) > 1:
                raise JobError(
                    f"sweep: {name}: tuples of the lengths {lengths} given, expected one length; run a job for each length"
                )
        return column._replace(values=values)

    def _numbers(
        self, name: str, values: np.ndarray, items: np.ndarray, check: Check
    ) -> np.ndarray:
        """Many numbers as `Params` reads them; only the smallest and the largest are validated. items: the first item of each."""
        at = lambda k: _field(check(name, values[k].item(), int(items[k])), name)
        ends = [at(np.argmin(values)), at(np.argmax(values))]
        converted = np.asarray(values, np.asarray(ends).dtype)
        if len(odd := np.flatnonzero(converted != values)):
            at(odd[0])  # raises: a fraction between two whole ends
        return converted


MOST_REAL = float(np.finfo("float32").max)


def in_32_bits(params: Params) -> Params:
    """Raise JobError if a traced number does not fit the int32, or the `dtype`, that the devices hold (ctd.batch.traced_columns)."""
    for name, kind in field_kinds(type(params)).items():
        value = getattr(params, name)
        for number in _numbers_in(value) if kind is Kind.TRACED else ():
            if isinstance(number, int) and not -(2**31) <= number < 2**31:
                most = 2**31 - 1
                raise JobError(
                    f"{name}: {value} given; a traced whole number has 32 bits, at most {most}"
                )
            if params.dtype == "float32" and MOST_REAL < abs(number) < math.inf:
                raise JobError(
                    f"{name}: {value} given; float32 has numbers up to 3.4e38; dtype: float64 has greater ones"
                )
    return params


def _numbers_in(value: Any) -> Iterator[float]:
    """The numbers in a traced value, which may be a tuple."""
    if isinstance(value, tuple):
        for element in value:
            yield from _numbers_in(element)
    else:
        yield value


def _field(params: Params, name: str) -> Any:
    value: Any = params
    for part in name.split("."):
        value = getattr(value, part) if not isinstance(value, dict) else value[part]
    return value


def _name(value: object) -> Any:
    return value["name"] if isinstance(value, dict) else value
