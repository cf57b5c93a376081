"""Read the fields of items as a kernel's `Params`. An error names the file, the section of the job and the field."""

import copy
from collections.abc import Callable, Set
from typing import Any, NamedTuple

import numpy as np
from pydantic import ValidationError

from ctd.kernel import Kernel, Kind, Params, field_kinds
from jobs.errors import Faults, JobError, explain, home_of
from jobs.spec.sweep import Column, listed

CHECKED = 10_000
"""Most listed values of a field that are validated one by one; of further numbers, and of generated values, the extremes are."""


class Reader(NamedTuple):
    """Reads fields as a kernel's `Params`."""

    kernel: Kernel
    where: str
    """The beginning of an error's text, such as the job's file."""

    def is_field(self, name: str) -> bool:
        """Whether a swept column is a field. `seed` numbers replicates, unless the kernel has a field of that name."""
        return name != "seed" or name in self.kernel.Params.model_fields

    def put(self, content: dict[str, Any], name: str, value: Any) -> None:
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
        try:
            return in_32_bits(model.model_validate(content), self.where)
        except ValidationError as error:
            place = lambda field: (
                "search.params" if field in searched else "sweep" if field in swept else "params"
            )
            source = lambda field: f"{self.where}: {place(field)}"
            inner = {
                name: f"{home}: {{name: {_name(content[home])}, {name}: {value}}}"
                for name, value in content.items()
                if (home := home_of(name, value, content, model))
            }
            inner["seed"] = (
                f"seed: {content.get('seed')} beside params, from which the job draws everything, or sweep: {{seeds: N}} for "
                "N replicates"
            )
            known: dict[tuple[str, ...], Any] = {(): model.model_fields}
            listed = f"ctd kernels {self.kernel.name}"
            raise explain(error, source, known, inner, listed) from None

    def columns(
        self, columns: dict[str, Column], base: dict[str, object], faults: Faults
    ) -> dict[str, Column]:
        """The columns as `Params` reads them. Each value is validated with the first value of the other columns.

        A column is left after its first fault.
        """
        first = copy.deepcopy(base)
        for name, column in columns.items():
            self.put(first, name, column.values[0])
        swept = {name.partition(".")[0] for name in columns}

        def check(name: str, value: object) -> Params:
            changed = copy.deepcopy(first) if "." in name else dict(first)
            self.put(changed, name, value)
            return self.read(changed, swept)

        valid = {}
        for name, column in columns.items():
            with faults:
                valid[name] = self._valid(name, column, check) if self.is_field(name) else column
        # With columns, the checks of their values have read the shared fields as well.
        if not columns:
            with faults:
                self.read(first)
        return valid

    def _rest(
        self, name: str, given: list[Any], check: Callable[[str, object], Params]
    ) -> list[Any]:
        """Listed values beyond those that are validated one by one: numbers by their ends, as generated ones are."""
        rest = _plain(given)
        are_numbers = isinstance(rest, np.ndarray) and rest.ndim == 1 and rest.dtype.kind in "iuf"
        if len(rest) and are_numbers and not np.isnan(rest).any():
            return listed(self._valid(name, Column(np.arange(0), rest, True), check).values)
        return [_field(check(name, value), name) for value in given]

    def _valid(self, name: str, column: Column, check: Callable[[str, object], Params]) -> Column:
        """One column as `Params` reads it. check: (field, value) -> the item with this value."""
        if column.generated:
            ends = [_field(check(name, f(column.values).item()), name) for f in (np.min, np.max)]
            read = np.asarray(column.values, np.asarray(ends).dtype)
            if len(odd := column.values[read != column.values]):
                check(name, odd[0].item())  # raises: a fraction between two whole ends
            return column._replace(values=read)
        given = listed(column.values)
        checked = [_field(check(name, value), name) for value in given[:CHECKED]]
        values = _plain([*checked, *self._rest(name, given[CHECKED:], check)])
        if isinstance(values, list) and any(isinstance(v, tuple) for v in values):
            lengths = sorted({len(v) for v in values})
            if field_kinds(self.kernel.Params).get(name) is Kind.TRACED and len(lengths) > 1:
                raise JobError(
                    f"{self.where}: sweep: {name}: tuples of the lengths {lengths} given, expected one length; "
                    "run a job for each length"
                )
        return column._replace(values=values)


def in_32_bits(params: Params, where: str) -> Params:
    """Raise JobError if a traced whole number does not fit the int32 that the devices hold (ctd.batch.traced_columns)."""
    for name, kind in field_kinds(type(params)).items():
        value = getattr(params, name)
        if kind is Kind.TRACED and isinstance(value, int) and not -(2**31) <= value < 2**31:
            raise JobError(
                f"{where}: {name}: {value} given; a traced whole number has 32 bits, so at most {2**31 - 1}"
            )
    return params


def _plain(values: list[Any]) -> Any:
    """Return numbers, or tuples of numbers of one length, as an array; anything else as a list."""
    # True is an int to Python, and would become 1 in an array of numbers.
    number = lambda v: isinstance(v, int | float) and not isinstance(v, bool)
    if all(number(v) for v in values):
        return np.asarray(values)
    tuples = all(isinstance(v, tuple) and all(number(x) for x in v) for v in values)
    if tuples and len({len(v) for v in values}) == 1:
        return np.asarray(values)
    return values


def _field(params: Params, name: str) -> Any:
    value: Any = params
    for part in name.split("."):
        value = getattr(value, part) if not isinstance(value, dict) else value[part]
    return value


def _name(given: object) -> Any:
    return given["name"] if isinstance(given, dict) else given
