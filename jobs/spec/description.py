"""The description of a kernel as data. A store keeps it, so that readers need none of the kernel's code."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from ctd.kernel import Kernel, Outcome, Var


@dataclass(frozen=True)
class Description:
    """The names, axes, units and texts of a kernel, with those that a search adds. Fields without a text are those of `Kernel`."""

    dims: Mapping[str, Var]
    reduced: Mapping[str, Var] = field(default_factory=dict)
    outcomes: tuple[Outcome, ...] = ()
    summary: tuple[str, ...] = ()
    metric: str = ""
    """`Kernel.metric`, or `Kernel.chosen_by` where it is stored."""
    curves: tuple[str, ...] = ()
    fields: Mapping[str, str] = field(default_factory=dict)
    """Field of `Params` -> its description, or ""."""
    reduces: bool = False
    """Whether the kernel has a `reduce`."""
    draws: bool = False
    replicates: tuple[str, ...] = ()
    measured_on: tuple[str, ...] = ()

    @staticmethod
    def of(kernel: Kernel, stored: Collection[str] = ()) -> "Description":
        """Describe a kernel. stored: the results that a store has.

        >>> from ctd.esn import kernel
        >>> Description.of(kernel).metric
        'replay_nrmse'
        >>> Description.of(kernel, ["replay_nrmse", "validation_nrmse"]).metric
        'validation_nrmse'
        """
        fields = kernel.Params.model_fields
        return Description(
            dict(kernel.dims),
            dict(kernel.reduced),
            kernel.outcomes,
            kernel.display.summary,
            kernel.display.chosen_by
            if kernel.display.chosen_by in stored
            else kernel.display.metric,
            kernel.display.curves,
            {name: info.description or "" for name, info in fields.items()},
            kernel.reduce is not None,
            kernel.display.draws,
            kernel.display.replicates,
            kernel.display.measured_on,
        )

    def is_basis(self, column: str) -> bool:
        """Whether a column is a field, or a part of one, that changes what the metric is measured on.

        >>> from ctd.train_rnn import kernel
        >>> [Description.of(kernel).is_basis(name) for name in ("task", "task.n_steps", "n")]
        [True, True, False]
        """
        return column.partition(".")[0].partition("[")[0] in self.measured_on

    def summaries(self) -> dict[str, list[str]]:
        """Table of reduced values -> those of its columns that are in the summary."""
        found: dict[str, list[str]] = {}
        for name in self.summary:
            if name in self.reduced and (axes := self.reduced[name].axes):
                found.setdefault(axes[0], []).append(name)
        return found

    def first_shown(self, tables: Mapping[str, Mapping[str, Any]]) -> str | None:
        """Return the table that a summary shows first: the first with rows and a finite real number, else the first with rows.

        >>> from ctd.similarity import kernel
        >>> tables = {"parameter": {"n_values": [2], "r2": [np.nan]}, "pair": {"pair_distance": [0.5]}}
        >>> Description.of(kernel).first_shown(tables)
        'pair'
        """
        named = {table: names for table, names in self.summaries().items() if table in tables}
        filled = [
            table for table in named if any(len(tables[table][name]) for name in tables[table])
        ]

        def is_told(table: str) -> bool:
            own = [np.asarray(tables[table][n]) for n in named[table] if n in tables[table]]
            real = [values for values in own if values.dtype.kind == "f"]
            return not real or any(np.isfinite(values).any() for values in real)

        return next((table for table in [*filter(is_told, filled), *filled, *named]), None)

    def to_json(self) -> dict[str, Any]:
        """The content of run/kernel.json."""
        variables = lambda found: {name: var._asdict() for name, var in found.items()}
        return vars(self) | {
            "dims": variables(self.dims),
            "reduced": variables(self.reduced),
            "outcomes": [outcome._asdict() for outcome in self.outcomes],
        }

    @staticmethod
    def from_json(content: object) -> "Description":
        """Read the content that `to_json` made. Raises ValueError for anything else."""
        return _PARSER.validate_python(content)


_PARSER = TypeAdapter(Description)
