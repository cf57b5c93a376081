"""The description of a kernel as data. A store keeps it, so that readers need none of the kernel's code."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from ctd.kernel import Kernel, Outcome, Var
from jobs.storage.checksums import ByName, Sealed


class Description(Sealed):
    """The names, axes, units and texts of a kernel, with those that a search adds. Fields without a text are those of `Kernel`."""

    dims: Mapping[str, ByName[Var]]
    reduced: Mapping[str, ByName[Var]] = {}
    outcomes: tuple[ByName[Outcome], ...] = ()
    summary: tuple[str, ...] = ()
    metric: str = ""
    """`Kernel.metric`, or `Kernel.chosen_by` where it is stored."""
    curves: tuple[str, ...] = ()
    fields: Mapping[str, str] = {}
    """Field of `Params` -> its description, or ""."""
    reduces: bool = False
    """True if the kernel has a `reduce`."""
    draws: bool = False
    replicates: tuple[str, ...] = ()
    measured_on: tuple[str, ...] = ()

    @staticmethod
    def of_kernel(kernel: Kernel, stored: Collection[str] = ()) -> "Description":
        """Describe a kernel. stored: the results that a store has.

        >>> from ctd.esn import kernel
        >>> Description.of_kernel(kernel).metric
        'replay_nrmse'
        >>> Description.of_kernel(kernel, ["replay_nrmse", "validation_nrmse"]).metric
        'validation_nrmse'
        """
        display = kernel.display
        return Description(
            dims=kernel.dims, reduced=kernel.tables.dims, outcomes=kernel.outcomes, summary=display.summary,
            metric=display.chosen_by if display.chosen_by in stored else display.metric, curves=display.curves,
            fields={name: info.description or "" for name, info in kernel.Params.model_fields.items()},
            reduces=kernel.tables.reduce is not None, draws=display.draws,
            replicates=display.replicates, measured_on=display.measured_on,
        )  # fmt: skip

    def is_basis(self, column: str) -> bool:
        """Return whether a column is a field, or a part of one, that changes the data that the metric is measured on.

        >>> from ctd.train_rnn import kernel
        >>> [Description.of_kernel(kernel).is_basis(name) for name in ("task", "task.n_steps", "n")]
        [True, True, False]
        """
        return column.partition(".")[0].partition("[")[0] in self.measured_on

    def summaries(self) -> dict[str, list[str]]:
        """Table of reduced values -> those of its columns that are in the summary."""
        columns: dict[str, list[str]] = {}
        for name in self.summary:
            if name in self.reduced and (axes := self.reduced[name].axes):
                columns.setdefault(axes[0], []).append(name)
        return columns

    def first_shown(self, tables: Mapping[str, Mapping[str, Any]]) -> str | None:
        """Return the table that a summary shows first: the first with rows and a finite real number, else the first with rows.

        >>> from ctd.similarity import kernel
        >>> tables = {"parameter": {"n_values": [2], "r2": [np.nan]}, "pair": {"pair_distance": [0.5]}}
        >>> Description.of_kernel(kernel).first_shown(tables)
        'pair'
        """
        summaries = {table: names for table, names in self.summaries().items() if table in tables}
        filled = [name for name in summaries if any(len(tables[name][n]) for n in tables[name])]

        def is_finite(name: str) -> bool:
            table = tables[name]
            columns = [np.asarray(table[n]) for n in summaries[name] if n in table]
            real = [values for values in columns if values.dtype.kind == "f"]
            return not real or any(np.isfinite(values).any() for values in real)

        return next((name for name in [*filter(is_finite, filled), *filled, *summaries]), None)
