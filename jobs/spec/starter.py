"""A first job file for a kernel, with every field commented, as `ctd new` prints it."""

import json
from collections.abc import Mapping
from string import Template
from typing import Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from ctd.kernel import Kernel, Kind, field_kinds

STARTER = """\
# A job for kernel $name. Run it: ctd run FILE.yaml
kernel: $name
seed: 0            # item i draws from fold_in(key(seed), i)
params:            # what all items share
${params}sweep:             # what differs; a field that is swept is not given in params
  grid: {}         # every combination: {name: [1, 2, 3]}, {range: 10}, {linspace: [0, 1, 5]}
  # zip: {}        # side by side
  # random: {}     # {name: {loguniform: [1e-4, 1e-2]}}, with samples: 64
  # seeds: 8       # replicates
  # numbers that cost no compilation when swept: $traced
# search: {}       # compare items while they run, by halving, asha, optuna or population: docs/search.md
${presets}${gather}run: {}            # slots, shard_items, workers, retries ...: see ctd schema
"""

STARTER_GATHER = """\
gather:            # settings of the reduction; can be changed after the run
$options  # reductions: []  # tables over all items: best, seeds, counts, histogram
"""


def starter(name: str, kernel: Kernel) -> str:
    """Write a job file for a kernel, with every field commented: its default, kind and meaning.

    >>> from ctd.esn import kernel
    >>> starter("esn", kernel).splitlines()[1]
    'kernel: esn'
    """
    kinds = field_kinds(kernel.Params)
    presets = kernel.display.presets.items()
    options = _fields(kernel.tables.Options, {})
    return Template(STARTER).substitute(
        name=name,
        params=_fields(kernel.Params, kinds),
        traced=", ".join(name for name in kinds if kinds[name] is Kind.TRACED) or "none",
        presets="".join(f"#   {{preset: {k}}}   # {preset.reason}\n" for k, preset in presets),
        gather=Template(STARTER_GATHER).substitute(options=options) if options else "",
    )


def _not_chosen(model: type[BaseModel]) -> set[str]:
    """The choices of a model's fields that are not their defaults."""
    fields = model.model_fields.values()
    return {c for info in fields for c in _choices(info.annotation) if c != info.default}


def _choices(annotation: object) -> list[str]:
    """The values of a field whose type is a Literal; [] for other types."""
    if get_origin(annotation) is Literal:
        return [str(choice) for choice in get_args(annotation)]
    return list(dict.fromkeys(c for part in get_args(annotation) for c in _choices(part)))


def _fields(model: type[BaseModel], kinds: Mapping[str, Kind]) -> str:
    """The fields of a model as lines of a job file; those with a default are comments. Fields of a choice that is no default are
    left out, such as "adam: epsilon" where the method is another one."""
    lines, others = [], _not_chosen(model)
    for name, info in model.model_fields.items():
        if (info.description or "").partition(": ")[0] in others:
            continue
        notes = [kinds[name].value] if name in kinds else []
        choices = _choices(info.annotation)
        if choices and not all(choice in (info.description or "") for choice in choices):
            notes.append(", ".join(choices))
        about = ": ".join([*notes, info.description] if info.description else notes)
        if info.is_required():
            lines.append(f"  {name}:  # REQUIRED, {about}\n")
        else:
            default = json.dumps(to_jsonable_python(info.get_default(call_default_factory=True)))
            lines.append(f"  # {name}: {default}{f'  # {about}' if about else ''}\n")
    return "".join(lines)
